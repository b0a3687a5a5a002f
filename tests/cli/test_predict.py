from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
import soundfile
from click.testing import CliRunner

from audio_files import encode
from faults import unprivileged
from helpers import CLIPS, ROOT, encoded, speech
from speech_emotion_vit import EmotionClassifier
from speech_emotion_vit.cli import COMMANDS, main
from speech_emotion_vit.cli._inputs import sources
from speech_emotion_vit.weights.checkpoint import save_folder

LABELS = ["anger", "disgust", "fear", "happiness", "neutral", "sadness"]


def run(
    *arguments: object, stdin: bytes = b"", prefix: Sequence[str] = (), **options: object
) -> subprocess.CompletedProcess[bytes]:
    command = [*prefix, sys.executable, "-m", "speech_emotion_vit", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120, **options)  # type: ignore[call-overload, no-any-return]


def test_jsonl_in_a_pipe(tmp_path: Path) -> None:
    result = run("predict", ROOT / "examples" / "clips", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(row["file"]).name for row in rows] == [clip.name for clip in CLIPS]
    assert all(list(row["probabilities"]) == LABELS for row in rows)
    note = f"Note: {ROOT / 'examples' / 'clips'}: 1 file is passed over, not named like audio: 1 .md"
    assert result.stderr.decode().splitlines() == [note]


def test_a_table_and_a_csv(tmp_path: Path) -> None:
    result = run("predict", *CLIPS[:2], "--format", "table")
    header, *lines = result.stdout.decode().splitlines()
    assert header.split() == ["clip", "emotion", "score", "next", "length", "speech"]
    assert len(lines) == 2 + 1  # what is wrong with the first clip has a line of its own
    assert lines[0].split()[1] in LABELS
    assert lines[1] == "  clipped (0.4% of samples)"

    output = tmp_path / "emotions.csv"
    result = run("predict", *CLIPS[:2], "--format", "csv", "--output", output)
    assert (result.returncode, result.stdout) == (0, b"")
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(clip) for clip in CLIPS[:2]]
    assert sum(float(rows[0][label]) for label in LABELS) == pytest.approx(1, abs=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["emotions.csv"]


@pytest.mark.parametrize("timeline", [[], ["--timeline"]])
def test_a_csv_quotes_what_labels_have(tmp_path: Path, classifier: EmotionClassifier, timeline: list[str]) -> None:
    labels = ("joy, mild", 'so "called"', "c", "d", "e", "f")
    config = dataclasses.replace(classifier.config, labels=labels)
    own = save_folder(tmp_path / "own", classifier.network, config)
    result = run("predict", CLIPS[0], "--model", own, "--format", "csv", *timeline)
    (row,) = csv.DictReader(io.StringIO(result.stdout.decode()))
    assert set(labels) < set(row)
    assert None not in row
    assert row["label"] == labels[0]
    assert sum(float(row[label]) for label in labels) == pytest.approx(1, abs=1e-5)
    if timeline:
        made = EmotionClassifier(own).timeline(CLIPS[0])
        assert result.stdout.decode().splitlines()[0] == made.to_csv().splitlines()[0]
        assert made.to_csv(header=False) == made.to_csv().split("\n", 1)[1]


@pytest.mark.parametrize("timeline", [[], ["--timeline", "--hop", "0.5", "--window", "1"]])
def test_both_backends_say_the_same_and_onnx_does_so_without_torch(timeline: list[str]) -> None:
    code = (
        "import sys; from speech_emotion_vit.cli import main\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)\n"
    )
    answers = {}
    for backend in ("torch", "onnx"):
        command = [sys.executable, "-c", code, "predict", *map(str, CLIPS[:2]), *timeline, "--backend", backend]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
        assert result.stderr.splitlines()[-1] == str(backend == "torch")
        answers[backend] = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(answers["torch"]) == len(answers["onnx"]) >= 2
    for one, other in zip(answers["torch"], answers["onnx"], strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)


def test_standard_input() -> None:
    piped = run("predict", "-", stdin=CLIPS[0].read_bytes())
    from_file = run("predict", CLIPS[0])
    expected = json.loads(from_file.stdout)["probabilities"]  # of another process: sums may be taken in another order
    assert json.loads(piped.stdout)["probabilities"] == pytest.approx(expected, abs=1e-6)


def test_a_bad_file_is_reported_the_rest_go_on(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    (tmp_path / "empty").mkdir()
    result = run("predict", tmp_path / "bad.wav", CLIPS[0], tmp_path / "gone.wav", tmp_path / "empty", CLIPS[1])
    assert result.returncode == 1
    assert [Path(json.loads(line)["file"]) for line in result.stdout.splitlines()] == CLIPS[:2]
    bad, gone, empty, summary = result.stderr.decode().splitlines()
    assert bad.startswith(f"Error: {tmp_path / 'bad.wav'}: is not audio")
    assert gone == f"Error: {tmp_path / 'gone.wav'}: no such file: check the path"
    assert empty.startswith(f"Error: {tmp_path / 'empty'}: no audio in this folder: looked for")
    assert re.fullmatch(r"5 files in \d+\.\d s: 2 answered, 3 failed, 0 without speech", summary)


def test_a_folder_is_searched_for_whatever_can_be_read_and_through_links_without_end(tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    names = ["a.WAV", "b.aifc", "c.sph", "d.mka", "e.mkv", "f.wma", "g.3gp", "h.amr", "i.m4a"]
    for name in names:
        (folder / name).touch()
    (folder / "__MACOSX").mkdir()
    for none in ("notes.txt", "._a.wav", "__MACOSX/a.wav"):  # the last two are what macOS adds to archives
        (folder / none).touch()
    (other / "z.flac").touch()
    (folder / "linked").symlink_to(other)
    (other / "back").symlink_to(folder)
    (other / "again").symlink_to(other)
    found = [str(folder / name) for name in [*names, "linked/z.flac"]]
    assert [source for _, source in sources([str(folder)])] == found


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["predict"], 2, "Missing argument"),
        (["predict", "x.wav", "--format", "xml"], 2, "'xml' is not one of"),
        (["predict", "x.wav", "--model", "no-such-model"], 1, "crema-d"),
        (["predict", "x.wav", "--device", "cuda:99"], 1, "device 'cuda:99' cannot be used"),
        (["predict", "x.wav", "--device", "cuda", "--backend", "onnx"], 1, "is not for the ONNX backend"),
        (["predict", CLIPS[0], "--output", "/no/such/folder/out.csv"], 1, "cannot be written"),
        (["sing"], 2, "No such command"),
    ],
)
def test_errors_are_one_line_without_a_traceback(arguments: list[str], status: int, message: str) -> None:
    result = run(*arguments)
    assert result.returncode == status
    assert result.stdout == b""
    assert message in result.stderr.decode()
    assert b"Traceback" not in result.stderr
    if status == 1:
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith(b"Error: ")


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m speech_emotion_vit predict {ROOT / 'examples' / 'clips'} | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, timeout=120)
    assert len(result.stdout.splitlines()) == 1
    assert b"Traceback" not in result.stderr


def test_help_names_every_command_and_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['speech-emotion-vit', *sys.argv[1:]]\n"
        "from speech_emotion_vit.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    heavy = {'torch', 'numpy', 'soundfile', 'huggingface_hub', 'tqdm', 'email'} & set(sys.modules)\n"
        "    print('HEAVY', sorted(heavy))\n"
    )
    for command in ([], *([name] for name in COMMANDS)):
        result = subprocess.run([sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True)
        assert "HEAVY []" in result.stdout, command
        assert command == ["train"] or max(map(len, result.stdout.splitlines())) <= 80
        assert "speech-emotion-vit" in result.stdout
        if not command:
            assert all(re.search(rf"^  {name}\b", result.stdout, re.MULTILINE) for name in COMMANDS)


def test_a_private_module_is_no_command() -> None:
    assert not main.get_command(click.Context(main), "_tables")


def test_doctor_finds_this_installation_well() -> None:
    result = run("doctor")
    lines = result.stdout.decode().splitlines()
    assert result.returncode == 0, result.stdout
    assert max(len(line) for line in lines if "/" not in line) <= 80  # a path stays whole
    states = {line.split()[1]: line.split()[0] for line in lines if not line.startswith(" ")}
    assert states["torch"] == states["soundfile"] == states["crema-d-paper"] == "ok"
    assert all("pip install" in line or "->" in line for line in lines if line.startswith("optional"))
    (runtime,) = [line for line in lines if line.split()[1:2] == ["onnxruntime"]]
    assert runtime.endswith(": ONNX backend")  # export needs no runtime


def test_doctor_names_a_cache_that_cannot_be_written() -> None:
    result = run("doctor", env={**os.environ, "HF_HUB_CACHE": "/proc/nowhere"})
    (line,) = [line for line in result.stdout.decode().splitlines() if line.split()[1:2] == ["cache"]]
    if os.geteuid() != 0 or not os.access("/proc", os.W_OK):
        assert "cannot be written" in line
    assert "/proc/nowhere" in line


def test_doctor_reports_all_else_where_a_folder_is_closed(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "closed" / "hub")}
    result = run("doctor", prefix=unprivileged(), env=environment)
    lines = [line for line in result.stdout.decode().splitlines() if not line.startswith(" ")]
    states = {line.split()[1]: line.split()[0] for line in lines}
    assert states["cache"] == "optional"
    assert states["crema-d-paper"] == "ok"


def test_the_version_is_the_packages() -> None:
    import speech_emotion_vit

    assert run("--version").stdout.decode().split()[-1] == speech_emotion_vit.__version__


def test_a_folder_is_searched_for_all_that_can_be_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(CLIPS[0].read_bytes())
    (tmp_path / "clip.mov").write_bytes(encode("mp4", speech(2.0)))
    (tmp_path / "clip.mpga").write_bytes(
        encoded(0.3 * speech(2.0), 16_000, format="MP3", subtype=soundfile.default_subtype("MP3"))
    )
    (tmp_path / "notes.txt").touch()
    done = CliRunner().invoke(main, ["predict", "--backend", "onnx", str(tmp_path)])
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 3
    assert f"Note: {tmp_path}: 1 file is passed over, not named like audio: 1 .txt" in done.stderr
