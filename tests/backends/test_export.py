"""The exported file needs nothing of this package, and gives its numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from click.testing import CliRunner

from helpers import CLIPS, ROOT, nothings, speech
from speech_emotion_vit import ConfigError, EmotionClassifier, WeightsError
from speech_emotion_vit.backends.export import export_onnx
from speech_emotion_vit.cli import main
from speech_emotion_vit.model.build import build_network
from speech_emotion_vit.model.config import ClassifierConfig, FrameViTConfig, FrontendConfig
from speech_emotion_vit.weights.checkpoint import save_folder
from speech_emotion_vit.weights.resolve import list_models, sha256_file

SPEECH = np.concatenate([soundfile.read(clip, dtype="float32")[0] for clip in CLIPS])


def open_session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx("crema-d-paper", tmp_path_factory.mktemp("export") / "crema-d-paper.onnx")


def test_inputs_outputs_and_metadata_say_how_to_use_it(exported: Path) -> None:
    session = open_session(exported)
    assert [(each.name, each.type, each.shape) for each in session.get_inputs()] == [
        ("waveform", "tensor(float)", ["samples"])
    ]
    outputs = [(each.name, each.shape) for each in session.get_outputs()]
    assert outputs == [("probabilities", [6]), ("embedding", [256]), ("speech", [])]
    (entry,) = (entry for entry in list_models() if entry.name == "crema-d-paper")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == list(entry.config.labels)
    assert (metadata["sampling_rate"], metadata["window_samples"], metadata["hop_samples"]) == (
        "16000",
        "64000",
        "32000",
    )
    assert (metadata["model"], metadata["sha256"]) == ("crema-d-paper", entry.sha256)
    assert metadata["revision"] == entry.sha256[:12]
    assert float(metadata["temperature"]) == entry.config.temperature
    assert json.loads(metadata["config"]) == entry.config.to_dict()
    assert metadata["license"] == entry.license


def noise(seconds: float) -> np.ndarray:
    return nothings(seconds)["room"] * np.float32(1e-3)


def tiny_folder(folder: Path, **frontend: Any) -> EmotionClassifier:
    """Write a network on frames, too small to know anything, to `folder`/tiny, and load it."""
    model = FrameViTConfig(num_classes=2, dim=32, heads=2, depth=1, mlp_dim=32, taps=3, pooled=(1,))
    config = ClassifierConfig(
        labels=("a", "b"), model=model, frontend=replace(FrontendConfig.frames(), **frontend), temperature=0.1
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(config.model)
    return EmotionClassifier(save_folder(folder / "tiny", network, config))


CASES: dict[str, np.ndarray] = {
    **{f"{seconds} s": speech(seconds) for seconds in (0.3, 1.5, 4.0, 4.01, 10.0, 60.0)},
    "pauses": np.concatenate([speech(3.0), np.zeros(80_000, np.float32), speech(20.0), noise(5.0)]),
    "offset": speech(9.0) + np.float32(0.2),
    "quiet": speech(9.0) * np.float32(1e-4),
    "one sample": np.zeros(1, np.float32),
    **nothings(7.0),
}


@pytest.mark.parametrize("name", CASES)
def test_a_clip_of_any_length_gets_the_answer_of_predict(
    name: str, exported: Path, classifier: EmotionClassifier
) -> None:
    session = open_session(exported)
    waveform = CASES[name]
    probabilities, embedding, seconds = session.run(["probabilities", "embedding", "speech"], {"waveform": waveform})
    expected = classifier.predict(waveform, sampling_rate=16_000)
    assert float(seconds) == pytest.approx(expected.speech, abs=1e-3)
    np.testing.assert_allclose(probabilities, list(expected.probabilities.values()), atol=1e-4)
    np.testing.assert_allclose(embedding, classifier.embed(waveform, sampling_rate=16_000), atol=1e-4)
    assert (expected.label is None) == (name in ("0.3 s", "one sample", *nothings(1.0)))


@pytest.mark.parametrize("long_clips", ["windows", "truncate"])
def test_a_network_on_frames_too(long_clips: Any, tmp_path: Path) -> None:
    classifier = tiny_folder(tmp_path, long_clips=long_clips)
    session = open_session(export_onnx(tmp_path / "tiny", tmp_path / "tiny.onnx"))
    for name in ("4.0 s", "10.0 s", "pauses", "white"):
        probabilities = session.run(["probabilities"], {"waveform": CASES[name]})[0]
        expected = classifier.predict(CASES[name], sampling_rate=16_000).probabilities
        np.testing.assert_allclose(probabilities, list(expected.values()), atol=1e-4)


def test_the_file_is_valid_and_uses_standard_operators_only(exported: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]


def test_a_model_of_another_rate_is_refused(tmp_path: Path) -> None:
    tiny_folder(tmp_path, sampling_rate=8_000, f_max=4_000.0)
    with pytest.raises(ConfigError, match="the model hears 8000 Hz"):
        export_onnx(tmp_path / "tiny", tmp_path / "tiny.onnx")


@pytest.mark.parametrize("model", ["crema-d-paper", "emodb-paper"])
def test_int8_is_smaller_and_says_nearly_the_same(model: str, tmp_path: Path) -> None:
    """Also of a head that reads values of many scales."""
    large, small = (export_onnx(model, tmp_path / f"{int8}.onnx", int8=int8) for int8 in (False, True))
    assert small.stat().st_size < 0.6 * large.stat().st_size
    sessions = [open_session(path) for path in (large, small)]
    assert sessions[1].get_modelmeta().custom_metadata_map["weights"] == "int8"
    for clip in CLIPS:
        waveform = soundfile.read(clip, dtype="float32")[0]
        one, other = (session.run(["probabilities"], {"waveform": waveform})[0] for session in sessions)
        assert one[other.argmax()] > one.max() - 0.05  # the same label, or as good as that
        assert 0 < np.abs(one - other).max() < 0.05


def test_a_folder_is_exported_under_its_digest(tmp_path: Path, classifier: EmotionClassifier) -> None:
    folder = save_folder(tmp_path / "mine", classifier.network, classifier.config)
    metadata = open_session(export_onnx(folder, tmp_path / "mine.onnx")).get_modelmeta().custom_metadata_map
    assert metadata["model"] == str(folder)
    assert metadata["sha256"] == sha256_file(folder / "model.safetensors")
    assert metadata["license"] == ""


def test_the_files_of_the_model_are_never_replaced(tmp_path: Path, classifier: EmotionClassifier) -> None:
    folder = save_folder(tmp_path / "mine", classifier.network, classifier.config)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "link.onnx").symlink_to(folder / "model.safetensors")
    for output in (folder / "model.safetensors", folder / "config.json", tmp_path / "link.onnx"):
        for model in (folder, folder / "model.safetensors"):
            with pytest.raises(ConfigError, match=r"is read too, as .*: choose another place"):
                export_onnx(model, output)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_nothing_is_left_behind_where_it_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        export_onnx("crema-d-paper", tmp_path / "no" / "folder.onnx")
    with pytest.raises(WeightsError, match="no-such-model"):
        export_onnx("no-such-model", tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_file_and_says_so(exported: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.onnx"
    result = CliRunner().invoke(main, ["export", "crema-d-paper", "--output", str(output), "--format", "jsonl"])
    assert result.exit_code == 0, result.output
    row = json.loads(result.output)
    assert row == {"path": str(output), "bytes": output.stat().st_size, "model": "crema-d-paper", "weights": "float32"}
    assert output.read_bytes() == exported.read_bytes()
    failed = CliRunner().invoke(main, ["export", "no-such-model", "--output", str(output)])
    assert failed.exit_code == 1
    assert CliRunner().invoke(main, ["export", "crema-d-paper"]).exit_code == 2


@pytest.mark.parametrize("seconds", [None, 11.3])
def test_the_example_needs_onnxruntime_and_soundfile_alone(
    exported: Path, tmp_path: Path, classifier: EmotionClassifier, seconds: float | None
) -> None:
    clip = CLIPS[0]
    if seconds is not None:
        clip = tmp_path / "long.flac"
        soundfile.write(clip, SPEECH[: round(seconds * 16_000)], 16_000)
    example = ROOT / "examples" / "onnx_predict.py"
    code = (
        "import runpy, sys\n"
        "sys.modules.update(dict.fromkeys(['speech_emotion_vit', 'torch', 'onnx', 'librosa', 'scipy', 'soxr']))\n"
        f"sys.argv = ['onnx_predict.py', {str(exported)!r}, {str(clip)!r}]\n"
        f"runpy.run_path({str(example)!r})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heard, *lines = result.stdout.splitlines()
    printed = dict(line.split() for line in lines)
    prediction = classifier.predict(clip)
    expected = prediction.probabilities
    assert heard == f"{prediction.speech:.2f} s of speech"
    assert list(printed) == sorted(expected, key=lambda label: -expected[label])
    assert {label: float(value) for label, value in printed.items()} == pytest.approx(expected, abs=2e-4)
