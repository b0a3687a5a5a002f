"""What runs a model where torch is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers import CLIPS
from speech_emotion_vit import EmotionClassifier

WITHOUT = "import sys\nsys.modules['torch'] = None\n"  # as if it were not installed


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, check=False)


def test_onnx_runtime_takes_over_and_says_the_same() -> None:
    expected = EmotionClassifier("crema-d-paper", backend="torch").predict(CLIPS[0]).probabilities
    result = run(
        "from speech_emotion_vit import EmotionClassifier\n"
        f"c = EmotionClassifier('crema-d-paper')\np = c.predict({str(CLIPS[0])!r})\n"
        "print(type(c.backend).__name__, *p.probabilities.values())"
    )
    kind, *values = result.stdout.split()
    assert kind == "OnnxBackend", result.stderr
    assert [float(value) for value in values] == pytest.approx(list(expected.values()), abs=1e-4)


def test_with_neither_the_message_names_both() -> None:
    result = run(
        "from speech_emotion_vit import ConfigError, EmotionClassifier\n"
        "sys.modules['onnxruntime'] = None\n"
        "for backend in ('auto', 'torch', 'onnx'):\n"
        "    try:\n        EmotionClassifier('crema-d-paper', backend=backend)\n"
        "    except ConfigError as error:\n        print(error)"
    )
    auto, torch, onnx = result.stdout.splitlines()
    assert auto == "neither torch nor ONNX Runtime is installed: pip install torch, or pip install onnxruntime"
    assert torch.startswith("torch cannot be imported (")
    assert torch.endswith("): pip install torch, or backend='onnx'")
    assert "onnxruntime cannot be imported" in onnx


@pytest.mark.parametrize("command", [["train", "--dataset", "savee"], ["convert", "x.pt", "--output", "d"]])
def test_a_command_that_needs_torch_says_so_on_one_line(command: list[str]) -> None:
    code = "sys.modules['scipy'] = sys.modules['sklearn'] = None\n"  # nobody has brought these either
    code += f"from speech_emotion_vit.cli import main\nmain({command!r}, prog_name='speech-emotion-vit')"
    result = run(code)
    assert result.returncode == 1
    assert result.stderr == "Error: this needs torch, which is not installed: pip install torch\n"


def test_the_doctor_misses_torch_only_where_nothing_else_runs_a_network() -> None:
    code = "from speech_emotion_vit.cli import main\nmain(['doctor'])"
    result = run(code)
    assert result.returncode == 0, result.stdout
    assert "optional  torch" in result.stdout
    result = run("sys.modules['onnxruntime'] = None\n" + code)
    assert result.returncode == 1
    assert "BROKEN    torch" in result.stdout
