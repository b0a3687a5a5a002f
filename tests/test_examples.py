"""Every example runs as its first lines say."""

from __future__ import annotations

import inspect
import re
import runpy
import subprocess
import sys
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbclient import NotebookClient

from helpers import CLIPS, ROOT
from speech_emotion_vit import demo

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = ROOT / "examples"
LABELS = "anger|disgust|fear|happiness|neutral|sadness"

# A microphone that hears a clip, and somebody who presses Ctrl-C at its end.
SOUNDDEVICE = """
import soundfile
frames, rate = soundfile.read(CLIP, dtype="float32", always_2d=True)
def query_devices(device, kind):
    return {"default_samplerate": float(rate)}
class InputStream:
    def __init__(self, samplerate, device, channels, callback):
        assert (samplerate, channels) == (rate, 1)
        self.callback = callback
    def __enter__(self):
        for start in range(0, len(frames), 512):
            self.callback(frames[start : start + 512], 512, None, None)
        import queue
        get = queue.Queue.get
        def get_or_stop(waiting):
            if waiting.empty():
                raise KeyboardInterrupt
            return get(waiting)
        queue.Queue.get = get_or_stop
    def __exit__(self, *reason):
        pass
"""


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


def test_predict_file() -> None:
    result = run(EXAMPLES / "predict_file.py", CLIPS[0])
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert re.fullmatch(rf"({LABELS}) \(\d+%\)", lines[0])
    assert len(lines) == 1 + 6 + 1  # the clip has a warning


def test_predict_array() -> None:
    result = run(EXAMPLES / "predict_array.py", CLIPS[0])
    assert result.returncode == 0, result.stderr
    assert re.search(rf"^<Prediction ({LABELS}) 0\.\d\d, ", result.stdout)
    assert result.stdout.splitlines()[1] == "embedding: 2048 values"


def test_stream_file() -> None:
    result = run(EXAMPLES / "stream_file.py", CLIPS[5], "--speed", 0, "--window", 1, "--hop", 0.5)
    assert result.returncode == 0, result.stderr
    *segments, measured = result.stdout.splitlines()
    assert len(segments) == 6
    assert all(
        re.fullmatch(rf"<Segment \d\.\d\d-\d\.\d\d s (({LABELS}) \d\.\d\d|nobody speaks)>", line) for line in segments
    )
    assert re.match(r"\d answers, \d+\.\d ms after the last sample of their window \(median; ", measured)


def test_own_labels_needs_nothing_that_only_longer_trainings_need(tmp_path: Path) -> None:
    lines = ["path,label,speaker"]
    lines += [
        f"{clip},{label},{n}" for clip, (label, n) in zip(CLIPS, ("ax", "bx", "ay", "by", "az", "bz"), strict=True)
    ]
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    path = str(EXAMPLES / "own_labels.py")
    code = f"import sys, runpy; sys.argv[1:] = {[str(tmp_path / 'clips.csv'), str(CLIPS[4])]!r}\n"
    code += "for name in ('accelerate', 'audiomentations', 'matplotlib', 'tensorboard'): sys.modules[name] = None\n"
    result = run("-c", code + f"runpy.run_path({path!r}, run_name='__main__')", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("6 clips of 3 speakers, speakers left out in turn\n")
    assert re.search(r"^<Prediction [ab] \d\.\d\d, .*my-model@", result.stdout, re.MULTILINE)


def test_microphone(tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text(f"CLIP = {str(CLIPS[5])!r}\n" + SOUNDDEVICE)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[1:] = ['--window', '2']\n"
    path = str(EXAMPLES / "microphone.py")
    result = run("-c", code + f"import runpy; runpy.run_path({path!r}, run_name='__main__')")
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("listening at 16000 Hz; the first answer comes after 2 s")
    times = [line.split()[0] for line in result.stdout.splitlines()]
    assert times == ["2.0", "3.0"]
    assert re.search(rf"({LABELS}) +\d+%", result.stdout)


def test_microphone_names_what_is_missing() -> None:
    path = str(EXAMPLES / "microphone.py")
    result = run("-c", f"import sys, runpy; sys.modules['sounddevice'] = None; runpy.run_path({path!r})")
    assert result.returncode == 1
    assert "pip install sounddevice" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_notebook_runs_and_has_no_answers_that_could_be_old() -> None:
    notebook = nbformat.read(EXAMPLES / "first_ten_minutes.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": ROOT}}).execute()
    shown = [data for cell in cells for data in (output.get("data", {}) for output in cell.outputs)]
    assert re.match(rf"<Prediction ({LABELS}) 0\.\d\d, ", shown[0]["text/plain"])
    assert any("nobody speaks" in data.get("text/plain", "") for data in shown)
    assert sum("image/png" in data for data in shown) == 2
    assert sum("text/html" in data for data in shown) == 2


def test_the_space_serves_the_page_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    served = inspect.signature(demo.launch)
    calls: list[inspect.BoundArguments] = []
    monkeypatch.setattr(demo, "launch", lambda **options: calls.append(served.bind(**options)))
    front = dict(
        line.split(": ") for line in (EXAMPLES / "space/README.md").read_text().split("---")[1].splitlines()[1:]
    )
    runpy.run_path(str(EXAMPLES / "space" / front["app_file"]), run_name="__main__")
    assert [call.arguments for call in calls] == [{"host": "0.0.0.0", "port": 7860}]
    assert front["sdk"] == "gradio"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_says_how_to_run_it(path: Path) -> None:
    assert f"python examples/{path.name}" in path.read_text()
