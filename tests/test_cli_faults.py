"""The command line on its worst day: one line per fault, never a traceback, nothing but results on standard output."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from faults import limited, unprivileged
from helpers import CLIPS

CLIP = CLIPS[0]


def run(*arguments: object, prefix: list[str] | None = None, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [*(prefix or []), sys.executable, "-m", "speech_emotion_vit", *map(os.fspath, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 300, **options}
    return subprocess.run(command, **options)  # type: ignore[call-overload, no-any-return]


def fault(result: subprocess.CompletedProcess[bytes]) -> str:
    """The one line on standard error of a command that failed."""
    assert result.returncode == 1, result
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("Error: ")
    return line


def test_a_full_disk_behind_standard_output_or_a_file_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        assert "standard output: cannot be written" in fault(run("predict", CLIP, stdout=full))
    output = tmp_path / "out.jsonl"
    output.write_text("before")
    line = fault(run("predict", CLIP, "--output", output, prefix=limited(0.0001)))
    assert f"{output}: cannot be written (File too large)" in line
    assert output.read_text() == "before"
    assert list(tmp_path.iterdir()) == [output]


def test_what_is_no_file_is_never_replaced_by_results(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "real.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to("real.csv")
    assert "is not a regular file" in fault(run("predict", CLIP, "--output", tmp_path / "fifo"))
    assert (tmp_path / "fifo").is_fifo()
    assert run("predict", CLIP, "--format", "csv", "--output", tmp_path / "link.csv").returncode == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("file,label")


def test_a_decoder_that_prints_does_not_spoil_the_results(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noisy.sds", np.zeros(2000), 16_000, format="SDS", subtype="PCM_16")
    data = bytearray((tmp_path / "noisy.sds").read_bytes())
    data[300:] = bytes(len(data) - 300)
    (tmp_path / "noisy.sds").write_bytes(data)
    result = run("predict", tmp_path / "noisy.sds", CLIP)
    assert b"Error A" in result.stderr  # what libsndfile printed
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()][-1] == str(CLIP)


NAMES = ["line\nbreak.flac", "\x1b[31mred\x07.flac", os.fsdecode(b"caf\xe9.flac"), "日本.flac"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "table"])
def test_names_arrive_whole_and_harmless(tmp_path: Path, form: str) -> None:
    paths = [tmp_path / name for name in NAMES]
    for path in paths:
        path.symlink_to(CLIP)
    (tmp_path / "gone\n\x1b[2J.wav").symlink_to("nowhere")
    result = run("predict", tmp_path, "--format", form, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert result.returncode == 1
    text = result.stdout.decode("ascii")
    if form == "jsonl":
        assert {json.loads(line)["file"] for line in text.splitlines()} == set(map(str, paths))
    elif form == "csv":
        assert len(list(csv.DictReader(io.StringIO(text)))) == len(NAMES)
    else:
        assert len(text.splitlines()) == 1 + len(NAMES)
        assert text.replace("\n", "").isprintable()
    missing, summary = result.stderr.decode("ascii").splitlines()
    assert missing.isprintable()
    assert missing.endswith("gone\\n\\x1b[2J.wav: no such file: check the path")
    assert summary == "1 of 5 could not be read"


def test_a_folder_or_file_without_permission_is_reported_and_the_rest_go_on(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(CLIP.read_bytes())
    (tmp_path / "secret.flac").write_bytes(CLIP.read_bytes())
    (tmp_path / "secret.flac").chmod(0)
    (tmp_path / "closed").mkdir(mode=0)
    result = run("predict", tmp_path, prefix=unprivileged())
    assert result.returncode == 1
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == [str(tmp_path / "a.flac")]
    assert result.stderr.decode().splitlines() == [
        f"Error: {tmp_path / 'secret.flac'}: cannot be opened: Permission denied",
        f"Error: {tmp_path / 'closed'}: cannot be searched: Permission denied",
        "2 of 3 could not be read",
    ]


@pytest.mark.parametrize("timeline", [[], ["--timeline"]])
def test_what_would_block_or_never_end_is_refused(tmp_path: Path, timeline: list[str]) -> None:
    os.mkfifo(tmp_path / "fifo.wav")
    result = run("predict", tmp_path / "fifo.wav", "/dev/zero", tmp_path / "fifo.wav", *timeline)
    assert result.returncode == 1
    assert result.stderr.count(b"is not a regular file") == 3


def test_a_model_that_is_a_fifo_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.safetensors")
    assert "is not a regular file" in fault(run("predict", CLIP, "--model", tmp_path / "m.safetensors"))
    assert "is not a regular file" in fault(run("convert", tmp_path / "m.safetensors", "--output", tmp_path / "new"))
