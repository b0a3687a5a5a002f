"""The command line on its worst day: one line per fault, never a traceback, nothing but results on standard output."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from corpus_factory import labelled_folder
from faults import limited, unprivileged
from helpers import CLIPS
from speech_emotion_vit import ConfigError, EmotionClassifier
from speech_emotion_vit.cli import doctor, main
from speech_emotion_vit.extras import require
from speech_emotion_vit.files import whole_file
from speech_emotion_vit.weights.checkpoint import save_folder

CLIP = CLIPS[0]
PREDICT = ("predict", "--backend", "onnx")  # a process starts in a fifth of the time


def run(*arguments: object, prefix: list[str] | None = None, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [*(prefix or []), sys.executable, "-m", "speech_emotion_vit", *map(os.fspath, arguments)]
    if isinstance(options.get("stdin"), bytes):
        options["input"] = options.pop("stdin")
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 300, **options}
    return subprocess.run(command, **options)  # type: ignore[call-overload, no-any-return]


def fault(result: subprocess.CompletedProcess[bytes]) -> str:
    """The one line on standard error of a command that failed."""
    assert result.returncode == 1, result
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("Error: ")
    return line


def refused(*arguments: object) -> str:
    """The same of a command that runs in this process, which is faster."""
    result = CliRunner().invoke(main, list(map(os.fspath, arguments)))
    assert result.exit_code == 1, result
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def test_a_full_disk_behind_standard_output_or_a_file_is_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        assert "standard output: cannot be written" in fault(run(*PREDICT, CLIP, stdout=full))
    output = tmp_path / "out.jsonl"
    output.write_text("before")
    line = fault(run(*PREDICT, CLIP, "--output", output, prefix=limited(0.0001)))
    assert f"{output}: cannot be written (File too large)" in line
    assert output.read_text() == "before"
    assert list(tmp_path.iterdir()) == [output]


def test_a_full_disk_behind_what_any_command_says_is_one_line(tmp_path: Path) -> None:
    corpus = labelled_folder(tmp_path / "corpus", ["anger", "fear"], 2)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    commands: list[list[object]] = [
        ["models", "list"],
        ["models", "info", "crema-d-paper", "--format", "table"],
        ["doctor"],
        ["--version"],
        ["explain", "--help"],
        ["explain", CLIP, "--output", tmp_path / "picture.png"],
        ["export", "crema-d-paper", "--output", tmp_path / "m.onnx"],
        [
            "evaluate",
            "--dataset",
            "folder",
            "--data-dir",
            corpus,
            "--cache-dir",
            tmp_path / "c",
            "--protocol",
            "random",
            "--model",
            "crema-d-paper",
        ],
    ]
    for command in (*commands, commands[0]):
        with open("/dev/full", "wb") as full:
            result = run(*command, stdout=full, env=buffered)
        buffered |= {"PYTHONUNBUFFERED": "1"} if command is commands[-1] else {}
        assert result.returncode == 1, command
        line = result.stderr.decode().splitlines()[-1]  # behind warnings and notes
        assert line.startswith("Error: standard output or a file: cannot be read or written (No space left on device)")
        assert b"Traceback" not in result.stderr
        assert b"ignored" not in result.stderr  # what Python says of its own last flush


CLOSING = "import os, sys; os.close(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"


def without(number: int) -> list[str]:
    """The beginning of a command line that runs without one of its standard streams."""
    return [sys.executable, "-c", CLOSING, str(number)]


@pytest.mark.parametrize(
    "arguments", [["predict", CLIP], ["models", "list"], ["doctor"], ["explain", CLIP, "-o", "x.png"], ["--help"]]
)
def test_a_closed_standard_output_is_refused_before_work_starts(tmp_path: Path, arguments: list[object]) -> None:
    assert "standard output is closed: redirect it" in fault(run(*arguments, prefix=without(1), cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_standard_input_that_is_closed_empty_or_not_readable_is_called_so(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    for command in ([*PREDICT, CLIP, "-"], ["explain", "-", "--output", picture]):
        assert "standard input is closed: pass the name" in fault(run(*command, prefix=without(0)))
        empty = run(*command, stdin=b"")
        assert "Error: standard input is empty: pass the content" in empty.stderr.decode()
        with open(tmp_path / "written", "wb") as written:
            unreadable = run(*command, stdin=written)
        assert "Error: standard input: cannot be read (" in unreadable.stderr.decode()
        for result in (empty, unreadable):
            assert result.returncode == 1
            assert b"Traceback" not in result.stderr
            assert len(result.stdout.splitlines()) == (command[0] == "predict")  # the other clip
    assert json.loads(run(*PREDICT, CLIP, prefix=without(0)).stdout)["file"] == str(CLIP)
    assert not picture.exists()


def test_a_closed_standard_error_hides_what_goes_there_and_nothing_else(tmp_path: Path) -> None:
    result = run(*PREDICT, *CLIPS[:2], tmp_path / "gone.wav", prefix=without(2))
    assert result.returncode == 1
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == [str(clip) for clip in CLIPS[:2]]
    assert run(*PREDICT, *CLIPS[:2], prefix=without(2)).returncode == 0


def test_explaining_standard_input_keeps_little_of_it_in_memory(tmp_path: Path) -> None:
    seconds, rate, channels = 16, 96_000, 12
    with soundfile.SoundFile(tmp_path / "wide.wav", "w", rate, channels, "DOUBLE", format="WAV") as wide:
        for _ in range(seconds):
            wide.write(np.random.default_rng(0).normal(0, 0.1, (rate, channels)))
    code = (
        "import resource, sys\n"
        "from speech_emotion_vit.cli import main\n"
        "def explain(clip):\n"
        "    main(['explain', clip, '--model', 'crema-d-paper', '--output', 'picture.png'], standalone_mode=False)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print(-explain(sys.argv[1]) + explain('-'))"
    )
    with open(tmp_path / "wide.wav", "rb") as stdin:
        result = subprocess.run(
            [sys.executable, "-c", code, str(CLIP)], stdin=stdin, cwd=tmp_path, capture_output=True, timeout=300
        )
    assert result.returncode == 0, result.stderr
    megabytes = (tmp_path / "wide.wav").stat().st_size / 2**20
    assert float(result.stdout.splitlines()[-1]) < megabytes / 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classifier = EmotionClassifier()
    return save_folder(tmp_path_factory.mktemp("model") / "own", classifier.network, classifier.config)


OVERWRITING = {  # what is read is ./in.flac or ./folder/in.flac, or of the model ./own
    "itself": ["predict", "in.flac", "-o", "in.flac"],
    "timeline": ["predict", "in.flac", "--timeline", "-o", "in.flac"],
    "another name": ["predict", "in.flac", "-o", "folder/../in.flac"],
    "symbolic link": ["predict", "in.flac", "-o", "link.flac"],
    "hard link": ["predict", "in.flac", "-o", "twin.flac"],
    "in a folder": ["predict", "folder", "-o", "folder/in.flac"],
    "weights": ["predict", "in.flac", "-m", "own", "-o", "own/model.safetensors"],
    "configuration": ["predict", "in.flac", "-m", "own", "-o", "own/config.json"],
    "picture": ["explain", "in.flac", "-o", "in.png"],
    "export of a file": ["export", "own/model.safetensors", "-o", "own/model.safetensors"],
    "export of a folder": ["export", "own", "-o", "own/model.safetensors"],
    "export over a configuration": ["export", "own", "-o", "own/config.json"],
}


@pytest.mark.parametrize("arguments", OVERWRITING.values(), ids=OVERWRITING)
def test_an_output_that_is_an_input_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for place in ("in.flac", "folder/in.flac"):
        shutil.copy(CLIP, tmp_path / place)
    (tmp_path / "in.png").symlink_to("in.flac")
    (tmp_path / "link.flac").symlink_to("in.flac")
    os.link(tmp_path / "in.flac", tmp_path / "twin.flac")
    shutil.copytree(model, tmp_path / "own")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    line = refused(*arguments)
    assert line.startswith(f"Error: {arguments[-1]}: is read too, as ")
    assert line.endswith(": choose another place")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_output_that_is_standard_input_is_refused_and_any_other_file_replaced(tmp_path: Path) -> None:
    clip = tmp_path / "in.flac"
    shutil.copy(CLIP, clip)
    for timeline in ([], ["--timeline"]):
        with clip.open("rb") as stdin:
            line = fault(run(*PREDICT, "-", *timeline, "--output", clip, stdin=stdin))
        assert line == f"Error: {clip}: is read too, as standard input: choose another place"
    assert clip.read_bytes() == CLIP.read_bytes()
    (tmp_path / "old.jsonl").write_text("before")
    with clip.open("rb") as stdin:
        assert run(*PREDICT, "-", "--output", tmp_path / "old.jsonl", stdin=stdin).returncode == 0
    assert json.loads((tmp_path / "old.jsonl").read_text())["file"] == "-"


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    for mode in (0o600, 0o440, 0o666):
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(mode)
        with whole_file(tmp_path / "old") as temporary:
            assert temporary.stat().st_mode & 0o777 & ~(mode | 0o600) == 0  # at no time open to more
            temporary.write_text("new")
        assert (tmp_path / "old").read_text() == "new"
        assert (tmp_path / "old").stat().st_mode & 0o777 == mode


def test_a_broken_package_is_reported_by_whoever_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("raise ValueError('numpy.dtype size changed')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "_EXTRAS", [("broken", "broken_package", "frame", "data frames")])
    (check,) = doctor._extras()
    assert (check.state, check.found) == ("optional", "cannot be imported: numpy.dtype size changed")
    with pytest.raises(ConfigError, match=r"broken_package cannot be imported \(numpy\.dtype size changed\): pip"):
        require("broken_package", "frame")
    for module in ("torch", "soundfile"):
        (tmp_path / f"{module}.py").write_text("raise ValueError('numpy.dtype size changed')")
        monkeypatch.delitem(sys.modules, module)
    assert [check.state for check in (*doctor._devices(), *doctor._decoders())] == ["BROKEN", "BROKEN"]


@pytest.mark.parametrize("output", ["/dev/null", "", "fifo"])
def test_an_output_that_is_no_file_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    name = output or "''"
    assert refused("predict", CLIP, "--output", output) == f"Error: {name}: is not a regular file: choose another place"


def test_names_of_outputs_and_models_cannot_command_a_terminal(tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"\x1b[31mred\n\xe9")
    place.mkdir()
    shown = f"{tmp_path}/\\x1b[31mred\\n\\udce9"
    clip = place / "in.flac"
    shutil.copy(CLIP, clip)
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}

    drawn = run("explain", clip, "--output", place / "p.png", env=strict)
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.decode().startswith(f"{shown}/p.png: anger")
    assert drawn.stderr.decode() == f"Warning: {shown}/in.flac: clipped (0.4% of samples)\n"
    table = run("export", "crema-d-paper", "--output", place / "m.onnx", "--format", "table", env=strict)
    assert table.stdout.decode().splitlines()[0] == f"path     {shown}/m.onnx"
    row = run("export", "crema-d-paper", "--output", place / "m.onnx", "--format", "jsonl", env=strict)
    assert json.loads(row.stdout)["path"] == str(place / "m.onnx")  # data stays exact

    for command in (
        ["predict", CLIP, "--output", place / "gone" / "x.csv"],
        ["predict", CLIP, "--output", clip, "--model", place],
        ["predict", clip, "--output", clip],
        ["explain", CLIP, "--output", place / "p.bmp"],
        ["export", place, "--output", "m.onnx"],
        ["convert", place / "gone.ckpt", "--output", place],
        ["models", "info", place / "in.flac"],
    ):
        line = refused(*command).removeprefix("Error: ")
        assert line.isprintable()
        assert line.startswith(f"{tmp_path}/\\x1b[31mred")


def test_a_device_that_is_not_there_is_a_line_that_can_be_read(tmp_path: Path) -> None:
    corpus = labelled_folder(tmp_path, ["anger", "fear"], 2)
    evaluate = ["evaluate", "--dataset", "folder", "--data-dir", corpus, "--device"]
    for command in (["predict", CLIP, "--device"], ["explain", CLIP, "-o", tmp_path / "x.png", "--device"], evaluate):
        for device in ("fpga", "hpu", "meta", "no-such"):
            line = refused(*command, device)
            assert line.startswith(f"Error: device {device!r} cannot be used (")
            assert line.endswith("): pass 'auto' or 'cpu'")
            assert len(line) < 300


def test_what_is_no_file_is_never_replaced_by_results(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "real.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to("real.csv")
    assert "is not a regular file" in fault(run(*PREDICT, CLIP, "--output", tmp_path / "fifo"))
    assert (tmp_path / "fifo").is_fifo()
    assert run(*PREDICT, CLIP, "--format", "csv", "--output", tmp_path / "link.csv").returncode == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text().startswith("file,label")


def test_a_decoder_that_prints_does_not_spoil_the_results(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "noisy.sds", np.zeros(2000), 16_000, format="SDS", subtype="PCM_16")
    data = bytearray((tmp_path / "noisy.sds").read_bytes())
    data[300:] = bytes(len(data) - 300)
    (tmp_path / "noisy.sds").write_bytes(data)
    result = run(*PREDICT, tmp_path / "noisy.sds", CLIP)
    assert b"Error A" in result.stderr  # what libsndfile printed
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()][-1] == str(CLIP)


NAMES = ["line\nbreak.flac", "\x1b[31mred\x07\x9b2J.flac", os.fsdecode(b"caf\xe9.flac"), "日本.flac"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "table"])
def test_names_arrive_whole_and_harmless(tmp_path: Path, form: str) -> None:
    paths = [tmp_path / name for name in NAMES]
    for path in paths:
        path.symlink_to(CLIP)
    (tmp_path / "gone\n\x1b[2J.wav").symlink_to("nowhere")
    if form == "jsonl":
        result = run(*PREDICT, tmp_path, "--format", form, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
        assert result.stdout.decode().replace("\n", "").isprintable()
    result = run(*PREDICT, tmp_path, "--format", form, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert result.returncode == 1
    text = result.stdout.decode("ascii")
    if form == "jsonl":
        assert {json.loads(line)["file"] for line in text.splitlines()} == set(map(str, paths))
    elif form == "csv":
        assert len(list(csv.DictReader(io.StringIO(text)))) == len(NAMES)
    else:
        assert len(text.splitlines()) == 1 + 2 * len(NAMES)  # each is clipped
        assert text.replace("\n", "").isprintable()
    missing, summary = result.stderr.decode("ascii").splitlines()
    assert missing.isprintable()
    assert missing.endswith("gone\\n\\x1b[2J.wav: no such file: it is a link to what is not there")
    assert summary.endswith(" s: 4 answered, 1 failed, 0 without speech")


def test_a_folder_or_file_without_permission_is_reported_and_the_rest_go_on(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(CLIP.read_bytes())
    (tmp_path / "secret.flac").write_bytes(CLIP.read_bytes())
    (tmp_path / "secret.flac").chmod(0)
    (tmp_path / "closed").mkdir(mode=0)
    result = run(*PREDICT, tmp_path, prefix=unprivileged())
    assert result.returncode == 1
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == [str(tmp_path / "a.flac")]
    assert result.stderr.decode().splitlines()[:-1] == [
        f"Error: {tmp_path / 'secret.flac'}: cannot be opened: Permission denied",
        f"Error: {tmp_path / 'closed'}: cannot be searched: Permission denied",
    ]
    assert b"3 files in " in result.stderr


@pytest.mark.parametrize("timeline", [[], ["--timeline"]])
def test_what_would_block_or_never_end_is_refused(tmp_path: Path, timeline: list[str]) -> None:
    os.mkfifo(tmp_path / "fifo.wav")
    result = run(*PREDICT, tmp_path / "fifo.wav", "/dev/zero", tmp_path / "fifo.wav", *timeline)
    assert result.returncode == 1
    assert result.stderr.count(b"is not a regular file") == 3


def test_a_model_that_is_a_fifo_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.safetensors")
    assert "is not a regular file" in fault(run(*PREDICT, CLIP, "--model", tmp_path / "m.safetensors"))
    assert "is not a regular file" in fault(run("convert", tmp_path / "m.safetensors", "--output", tmp_path / "new"))
