"""Long jobs: nothing that is done is lost, whatever stops them, and the same command goes on."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner

from faults import limited, unprivileged
from helpers import CLIPS, speech
from speech_emotion_vit.cli import main
from speech_emotion_vit.cli._inputs import listed
from speech_emotion_vit.cli._output import Output, done
from speech_emotion_vit.errors import ConfigError

COMMAND = [sys.executable, "-m", "speech_emotion_vit"]
PREDICT = [*COMMAND, "predict", "--backend", "onnx"]
FILES = 180


def predict(*arguments: object, status: int = 0) -> str:
    """Run the command in this process and return what it says on standard error."""
    result = CliRunner().invoke(main, ["predict", "--backend", "onnx", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.stderr


def names(path: Path) -> list[str]:
    """The recordings in a file of results, which is whole."""
    text = path.read_text()
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
        assert all(None not in row and None not in row.values() for row in rows)
    elif path.suffix == ".json":
        rows = json.loads(text)
    else:
        assert not text or text.endswith("\n")
        rows = [json.loads(line) for line in text.splitlines()]
    return [row["file"] for row in rows]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for number in range(FILES):
        (folder / f"{number:03}.flac").symlink_to(CLIPS[number % 6])
    return folder


def started(output: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a job and return once there are results of it."""
    process = subprocess.Popen(
        [*PREDICT, *map(str, arguments), "--output", str(output), "--batch-size", "1"],
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (output.exists() and output.stat().st_size > 2000):
        time.sleep(0.005)
    return process


@pytest.mark.parametrize(
    ("number", "suffix"),
    [(signal.SIGINT, "csv"), (signal.SIGTERM, "jsonl"), (signal.SIGTERM, "json"), (signal.SIGKILL, "csv")],
)
def test_a_job_that_is_stopped_keeps_what_is_done_and_goes_on(
    many: Path, tmp_path: Path, number: signal.Signals, suffix: str
) -> None:
    output = tmp_path / f"out.{suffix}"
    process = started(output, many)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
        finished = output.read_bytes().count(b"\n") - 1
    else:
        assert process.returncode == 128 + number
        finished = len(names(output))
        how = "interrupted" if number == signal.SIGINT else "stopped by SIGTERM"
        (line,) = said.splitlines()
        assert line == (
            f"{how}: {finished} of {FILES} files are done and in {output}; the same command with --resume goes on"
        )
    assert 0 < finished < FILES
    assert list(tmp_path.iterdir()) == [output]

    said = predict(many, "--output", output, "--resume")
    assert re.fullmatch(
        rf"{FILES} files in .* s: {FILES - finished} answered, {finished} done before, 0 failed, 0 without speech\n",
        said,
    )
    assert names(output) == [str(path) for path in sorted(many.iterdir())]
    before = output.read_bytes()
    assert f"0 answered, {FILES} done before" in predict(many, "--output", output, "--resume")
    assert output.read_bytes() == before


def test_any_command_that_is_stopped_says_so_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        process = subprocess.Popen(
            [*COMMAND, "export", "crema-d-paper", "--output", str(tmp_path / "m.onnx")],
            stderr=subprocess.PIPE,
        )
        while process.poll() is None and not list(tmp_path.glob(".*.part")):
            time.sleep(0.001)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1].decode()
        if process.returncode != 0:  # it may have been done by then
            assert (process.returncode, len(said.splitlines())) == (status, 1)
            assert said.startswith(("interrupted", f"stopped by {signal.Signals(number).name}"))
        assert not list(tmp_path.glob(".*"))


def test_who_ignores_a_signal_is_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    process = subprocess.Popen(
        [*PREDICT, *map(str, CLIPS), "--output", str(output)],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    while process.poll() is None:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    assert process.returncode == 0
    assert len(names(output)) == 6


FORMS: dict[str, tuple[str, Callable[[int], str]]] = {
    "jsonl": ("", lambda n: json.dumps({"file": f"é{n}", "model": "m@1"}, ensure_ascii=False) + "\n"),
    "json": ("", lambda n: json.dumps({"file": f"é{n}", "model": "m@1"}, ensure_ascii=False) + "\n"),
    "csv": ("file,notes,model\n", lambda n: f'é{n},"two\nlines, é",m@1\n'),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_ends_anywhere_is_gone_on_with(tmp_path: Path, form: str) -> None:
    header, row = FORMS[form]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    with Output(str(whole), form, header) as output:
        for n in range(4):
            output.add(row(n))
    data = whole.read_bytes()
    kept = set()
    for end in range(len(data) + 1):
        cut.write_bytes(data[:end])
        found = done(str(cut), form, header, timeline=False)
        assert found.pieces == {(f"é{n}", "mix") for n in range(len(found.pieces))}
        kept.add(len(found.pieces))
        with Output(str(cut), form, header, kept=found.kept) as output:
            for n in range(len(found.pieces), 4):
                output.add(row(n))
        assert cut.read_bytes() == data, end
    assert kept == {0, 1, 2, 3, 4}


def test_the_last_recording_of_a_timeline_is_done_again(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.wav" for n in range(3)]
    for path in paths:
        soundfile.write(path, speech(9.0), 16_000)
    for form in ("csv", "jsonl", "json"):
        output = tmp_path / f"out.{form}"
        job = [*paths, "--timeline", "--hop", 2, "--output", output]
        predict(*job)
        data = output.read_bytes()
        output.write_bytes(data[: round(0.6 * len(data))])  # within the second
        assert "2 answered, 1 done before" in predict(*job, "--resume")
        assert output.read_bytes() == data


def test_what_it_cannot_go_on_with_is_refused_and_stays(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    job = [CLIPS[0], "--output", output, "--resume"]
    predict(*job)
    before = output.read_text()
    assert "found answers of base@" in predict(CLIPS[1], *job[1:], "--model", "crema-d-paper", status=1)
    assert "another header" in predict(*job, "--model", "emodb-paper", status=1)
    assert "another header" in predict(*job, "--timeline", status=1)
    assert "--resume cannot go on in a table" in predict(*job, "--format", "table", status=1)
    assert "goes with --output" in predict(CLIPS[0], "--resume", status=2)
    assert output.read_text() == before
    rows = tmp_path / "rows.jsonl"
    for text in ('{"a": 1}\n', "a letter\n", "[1, 2]\n", '{"file": "x", "start": 0.0}\n'):
        rows.write_text(text)
        assert "--resume found what this command does not write there" in predict(
            CLIPS[0], "--output", rows, "--resume", status=1
        )
        assert rows.read_text() == text


def test_a_full_disk_keeps_whole_rows(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    job = ["--output", str(output), "--batch-size", "1"]
    result = subprocess.run([*limited(0.001), *PREDICT, *map(str, CLIPS * 3), *job], capture_output=True, text=True)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {output}: cannot be written (File too large): what is done is there")
    assert 1 < len(names(output)) < 6
    assert list(tmp_path.iterdir()) == [output]


def test_a_read_only_output_is_refused_before_work_starts(tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    output.write_text("mine")
    output.chmod(0o444)
    result = subprocess.run(
        [*unprivileged(), *PREDICT, str(CLIPS[0]), "-o", str(output)], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "it is read-only" in result.stderr
    assert output.read_text() == "mine"


def test_progress_at_a_terminal_and_a_closing_line(many: Path, tmp_path: Path) -> None:
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [*PREDICT, str(many), str(tmp_path / "gone.wav"), "--output", str(tmp_path / "out.csv")], stderr=child
    )
    os.close(child)
    shown = b""
    while True:
        try:
            shown += os.read(parent, 65536)
        except OSError:  # the other side is closed
            break
    os.close(parent)
    assert process.wait() == 1
    text = shown.decode()
    assert re.search(rf"\d+/{FILES + 1} \[\d\d:\d\d<\d\d:\d\d, +[\d.]+(file/s|s/file)\]", text)
    assert re.search(rf"{FILES + 1} files in [\d.]+ s: {FILES} answered, 1 failed, 0 without speech\s*$", text)


def test_names_come_from_lists_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for place in ("a/1.flac", "a/b/2.flac", "a/[3].flac", os.fsdecode(b"a/\xe9.flac")):
        shutil.copy(CLIPS[0], tmp_path / place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "a"))

    def found(*arguments: str, stdin: bytes = b"", status: int = 0) -> list[str]:
        result = CliRunner().invoke(main, ["predict", "--backend", "onnx", "--format", "json", *arguments], input=stdin)
        assert result.exit_code == status, result.output
        return [row["file"] for row in json.loads(result.stdout)] if status == 0 else [result.stderr]

    assert found("a/**/*.flac") == ["a/1.flac", "a/[3].flac", "a/b/2.flac", "a/\udce9.flac"]
    assert found("a/[3].flac") == ["a/[3].flac"]  # what is there is meant
    assert found("a/[1].*") == ["a/1.flac"]
    assert found("a/*") == ["a/1.flac", "a/[3].flac", "a/\udce9.flac"]
    assert found("~/1.flac") == [str(tmp_path / "a" / "1.flac")]
    assert found("--from", "-", stdin=b"\xef\xbb\xbfa/1.flac\r\n\na/\xe9.flac\n") == ["a/1.flac", "a/\udce9.flac"]
    assert found("--from", "-", stdin=b"a/1.flac\0a/b\0") == ["a/1.flac", "a/b/2.flac"]
    (tmp_path / "list.txt").write_text("a/1.flac\n")
    assert found("a/[3].flac", "--from", "list.txt") == ["a/[3].flac", "a/1.flac"]
    assert "a/*.mp3: matches no file: check the pattern" in found("a/*.mp3", status=1)[0]
    assert "gone.txt: cannot be read (No such file or directory)" in found("--from", "gone.txt", status=1)[0]
    assert "standard input: holds no name" in found("--from", "-", status=1)[0]
    assert "not both" in found("-", "--from", "-", stdin=b"x", status=2)[0]
    assert "Missing argument" in found(status=2)[0]


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_of_another_encoding_holds_the_same_names(tmp_path: Path, coding: str) -> None:
    (tmp_path / "list").write_bytes("a/1.wav\r\ncafé.wav\r\n".encode(coding))
    assert listed(str(tmp_path / "list")) == ["a/1.wav", "café.wav"]


def test_dev_stdin_is_standard_input() -> None:
    for name in ("/dev/stdin", "/dev/fd/0", "-"):
        result = subprocess.run([*PREDICT, name], input=CLIPS[0].read_bytes(), capture_output=True)
        assert json.loads(result.stdout)["file"] == "-", result.stderr


def test_formulas_are_no_formulas_in_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    harmless = ["=1+1.flac", "@x.flac", "+1.flac", "-1.flac"]
    for name in harmless:
        Path(name).symlink_to(CLIPS[0])
    output = tmp_path / "out.csv"
    predict("--output", output, "--", *harmless)
    assert names(output) == [f"'{name}" for name in harmless]
    before = output.read_bytes()
    assert "4 done before" in predict("--output", output, "--resume", "--", *harmless)
    assert output.read_bytes() == before


def test_the_output_says_its_form_by_its_name(tmp_path: Path) -> None:
    call = tmp_path / "call.wav"
    soundfile.write(call, speech(6.0), 16_000)
    for name, begins in (("a.json", "[\n{"), ("a.jsonl", "{"), ("a.CSV", "file,label"), ("a.txt", "clip"), ("a", "{")):
        predict(call, "--output", tmp_path / name)
        assert (tmp_path / name).read_text().startswith(begins)
    predict(call, "--timeline", "--output", tmp_path / "call.vtt")
    assert (tmp_path / "call.vtt").read_text().startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert "goes with --timeline" in predict(call, "--format", "vtt", status=2)
    assert "of one recording, not of 2" in predict(call, call, "--timeline", "--format", "vtt", status=2)
    predict(call, "--timeline", "--output", tmp_path / "call.json")
    (timeline,) = json.loads((tmp_path / "call.json").read_text())
    assert (timeline["file"], len(timeline["segments"])) == (str(call), 1)


def test_an_answer_for_a_long_recording_says_that_it_is_a_mean(tmp_path: Path) -> None:
    call, other = tmp_path / "call.wav", tmp_path / "other.wav"
    soundfile.write(call, speech(61.0), 16_000)
    soundfile.write(other, speech(40.0), 16_000)
    said = predict(call)
    assert said == (
        f"Note: {call}: one answer for 1:01.0, the mean over 20 windows; --timeline has an answer for every moment\n"
    )
    note, closing = predict(call, other, CLIPS[0], "--output", tmp_path / "o.csv").splitlines()
    assert note.startswith(f"Note: 2 files are longer than 30 s; {call}: one answer for 1:01.0, the mean over 20")
    assert closing.startswith("3 files in ")
    assert predict(CLIPS[0]) == ""
    assert "Note" not in predict(call, "--timeline")


def test_only_the_best_labels(tmp_path: Path) -> None:
    def told(*arguments: object) -> str:
        result = CliRunner().invoke(main, ["predict", "--backend", "onnx", str(CLIPS[0]), *map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.stdout

    everything = json.loads(told())["probabilities"]
    best = sorted(everything, key=everything.__getitem__, reverse=True)
    assert list(json.loads(told("--top-k", 2))["probabilities"]) == best[:2]
    (row,) = csv.DictReader(io.StringIO(told("--top-k", 2, "--format", "csv")))
    assert {label for label in everything if row[label]} == set(best[:2])
    line = told("--top-k", 4, "--format", "table").splitlines()[2].split()
    assert line == ["then", best[2], f"{everything[best[2]]:.2f},", best[3], f"{everything[best[3]]:.2f}"]
    assert told("--top-k", 1, "--format", "table").splitlines()[1].split()[1:3] == [
        best[0],
        f"{everything[best[0]]:.2f}",
    ]


def test_tables_fit_80_columns(tmp_path: Path) -> None:
    deep = tmp_path / "a folder with a long name" / "日本の電話" / "and one more below it"
    deep.mkdir(parents=True)
    for clip in CLIPS:
        shutil.copy(clip, deep / f"recording of {clip.name}")
    for arguments in (
        ["predict", "--backend", "onnx", str(deep), "--format", "table"],
        ["predict", "--backend", "onnx", str(deep), "--format", "table", "--top-k", "8", "--model", "research"],
        ["predict", "--backend", "onnx", str(deep), "--format", "table", "--timeline"],
        ["predict", "--backend", "onnx", str(deep), "--format", "table", "--timeline", "--top-k", "6"],
    ):
        lines = CliRunner().invoke(main, arguments).stdout.splitlines()
        assert len(lines) > 6
        assert max(len(line) + len(re.findall(r"[^\x00-\xff]", line)) for line in lines) <= 80
        assert sum("sadness.flac" in line for line in lines) == 1


def test_an_output_that_cannot_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"), Output(str(tmp_path / "no" / "x"), "csv", "h\n"):
        raise AssertionError
