"""ONNX Runtime gives torch's numbers, from the same files, without torch."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from helpers import CLIPS
from speech_emotion_vit import (
    ClassifierConfig,
    ConfigError,
    EmotionClassifier,
    FrontendConfig,
    ModelConfig,
    WeightsError,
)
from speech_emotion_vit.backends.onnx import OnnxBackend
from speech_emotion_vit.backends.onnx_graph import build_model
from speech_emotion_vit.backends.torch import TorchBackend
from speech_emotion_vit.model.vit import SpectrogramViT
from speech_emotion_vit.weights.checkpoint import (
    load_arrays,
    load_checkpoint,
    load_network,
    load_weights,
    save_checkpoint,
)
from speech_emotion_vit.weights.resolve import list_models, resolve_model

if TYPE_CHECKING:
    from pathlib import Path

    from speech_emotion_vit.prediction import Prediction

TINY = {"dim": 32, "depth": 2, "heads": 2, "head_dim": 16, "mlp_dim": 24}
MODELS = {
    "student": ModelConfig(num_classes=3, **TINY),  # type: ignore[arg-type]
    "one block": ModelConfig(num_classes=2, **{**TINY, "depth": 1}),  # type: ignore[arg-type]
    "square patches": ModelConfig(num_classes=3, patch_height=32, patch_width=4, **TINY),  # type: ignore[arg-type]
    "coordinates": ModelConfig(num_classes=3, patch_height=64, patch_width=2, coordinates=True, **TINY),  # type: ignore[arg-type]
    "teacher": ModelConfig(num_classes=3, stem="conv6", coordinates=True, **TINY),  # type: ignore[arg-type]
}
FRONTENDS = {
    "default": FrontendConfig(),
    "other": FrontendConfig(
        interpolation="linear",
        mel_scale="htk",
        mel_norm="none",
        window="hann",
        n_fft=1000,
        win_length=500,
        hop_length=60,
    ),
    "no common factor": FrontendConfig(n_fft=601, win_length=400, hop_length=77, top_db=60.0),
}
BUNDLED = [entry.name for entry in list_models() if entry.file]
SPEECH = np.concatenate([soundfile.read(clip, dtype="float32")[0] for clip in CLIPS])
assert BUNDLED


def random_network(config: ModelConfig) -> SpectrogramViT:
    """A network whose every value matters: nothing at its initial zero or one."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SpectrogramViT(config).eval()
    for tensor in network.state_dict().values():
        if tensor.ndim == 1:
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return network


def speech(batch: int, samples: int) -> np.ndarray:
    """Rows of speech of different lengths, zero-padded to `samples`."""
    waveform = np.zeros((batch, samples), np.float32)
    for index, row in enumerate(waveform):
        kept = samples - index * samples // 3
        row[:kept] = np.roll(SPEECH, -5_000 * (index + 1))[:kept]
    return waveform


def assert_close(one: Prediction, other: Prediction) -> None:
    assert (one.label, one.duration, one.warnings, one.model) == (
        other.label,
        other.duration,
        other.warnings,
        other.model,
    )
    assert list(one.probabilities) == list(other.probabilities)
    np.testing.assert_allclose(list(one.probabilities.values()), list(other.probabilities.values()), atol=1e-4)


@pytest.fixture(scope="module", params=BUNDLED)
def backends(request: pytest.FixtureRequest) -> tuple[TorchBackend, OnnxBackend]:
    model = resolve_model(request.param)
    return TorchBackend.load(model, "cpu"), OnnxBackend.load(model)


@pytest.fixture(scope="module")
def on_onnx() -> EmotionClassifier:
    return EmotionClassifier("crema-d-paper", backend="onnx")


@pytest.mark.parametrize("frontend", FRONTENDS)
@pytest.mark.parametrize("model", MODELS)
def test_the_graph_of_any_configuration_is_the_network(model: str, frontend: str) -> None:
    network = random_network(MODELS[model])
    labels = tuple("abc"[: network.config.num_classes])
    config = ClassifierConfig(labels=labels, model=network.config, frontend=FRONTENDS[frontend], temperature=1.7)
    onnx_ = OnnxBackend({name: tensor.numpy() for name, tensor in network.state_dict().items()}, config)
    torch_ = TorchBackend(network, config, torch.device("cpu"))
    for batch, samples in ((1, 1), (1, 64_000), (2, 700), (2, 40_001)):
        # An instance normalisation makes noise of rounding errors in digital silence.
        waveform = speech(batch, samples) + (1e-4 if model == "teacher" else 0.0)
        for one, other in zip(
            onnx_.infer(waveform.astype(np.float32)), torch_.infer(waveform.astype(np.float32)), strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_file_is_valid_and_uses_standard_operators_only() -> None:
    config = ClassifierConfig(labels=("a", "b", "c"), model=MODELS["teacher"])
    weights = {name: tensor.numpy() for name, tensor in random_network(config.model).state_dict().items()}
    for int8 in (False, True):
        model = onnx.load_from_string(build_model(config, weights, int8=int8, metadata={"key": "wört"}))
        onnx.checker.check_model(model, full_check=True)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
        assert {node.domain for node in model.graph.node} == {""}
        assert len({node.name for node in model.graph.node}) == len(model.graph.node)
        assert [(entry.key, entry.value) for entry in model.metadata_props] == [("key", "wört")]


@given(batch=st.integers(1, 3), samples=st.integers(1, 64_000))
@settings(max_examples=12, deadline=None)
def test_any_batch_and_length_gives_torchs_numbers(
    backends: tuple[TorchBackend, OnnxBackend], batch: int, samples: int
) -> None:
    waveform = speech(batch, samples)
    for one, other in zip(*(backend.infer(waveform) for backend in backends), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(
            one, other, atol=1e-3
        )  # of embeddings: the deviation of a token or two is rounding, made large


def test_clips_long_clips_and_batches_give_torchs_predictions(
    classifier: EmotionClassifier, on_onnx: EmotionClassifier
) -> None:
    for clip in CLIPS:
        assert_close(on_onnx.predict(clip), classifier.predict(clip))
    for one, other in zip(on_onnx.predict_batch(CLIPS, batch_size=4), classifier.predict_batch(CLIPS), strict=True):
        assert_close(one, other)
    long = on_onnx.predict(SPEECH, sampling_rate=16_000)
    assert long.duration > 12
    assert_close(long, classifier.predict(SPEECH, sampling_rate=16_000))
    np.testing.assert_allclose(on_onnx.embed(CLIPS[0]), classifier.embed(CLIPS[0]), atol=1e-4)
    segments = [classifier_.timeline(SPEECH, sampling_rate=16_000).segments for classifier_ in (on_onnx, classifier)]
    assert len(segments[0]) == len(segments[1]) > 5
    for segment, expected in zip(*segments, strict=True):
        np.testing.assert_allclose(
            list(segment.probabilities.values()), list(expected.probabilities.values()), atol=1e-4
        )


def test_what_lies_behind_the_window_changes_nothing(backends: tuple[TorchBackend, OnnxBackend]) -> None:
    waveform = speech(2, backends[0].config.frontend.window_samples)
    longer = np.concatenate((waveform, 0.5 * speech(2, 9_000)), axis=1)
    for one, other in zip(backends[1].infer(longer), backends[1].infer(waveform), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_copy_says_the_same(on_onnx: EmotionClassifier) -> None:
    copy = pickle.loads(pickle.dumps(on_onnx))
    assert copy.predict(CLIPS[0]) == on_onnx.predict(CLIPS[0])
    assert copy.config == on_onnx.config


def test_silence_gives_torchs_numbers(backends: tuple[TorchBackend, OnnxBackend]) -> None:
    silence = np.zeros((2, 16_000), np.float32)
    for one, other in zip(*(backend.infer(silence) for backend in backends), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, atol=3e-4)


@pytest.mark.parametrize("model", ["student", "coordinates"])
def test_a_clip_that_reaches_no_column_gives_torchs_numbers(model: str) -> None:
    frontend = FrontendConfig(win_length=128, interpolation="linear")
    labels = tuple("abc"[: MODELS[model].num_classes])
    config = ClassifierConfig(labels=labels, model=MODELS[model], frontend=frontend)
    network = random_network(config.model)
    torch_ = TorchBackend(network, config, torch.device("cpu"))
    onnx_ = OnnxBackend({name: tensor.numpy() for name, tensor in network.state_dict().items()}, config)
    for one, other in zip(*(backend.infer(speech(2, 10)) for backend in (torch_, onnx_)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_what_the_runtime_cannot_run_is_an_error_of_this_package(on_onnx: EmotionClassifier) -> None:
    with pytest.raises(WeightsError, match="onnxruntime cannot run the network") as caught:
        on_onnx.backend.infer(np.zeros(5, np.float32))
    assert str(caught.value).isprintable()


def test_threads_share_a_backend(on_onnx: EmotionClassifier) -> None:
    expected = [on_onnx.predict(clip) for clip in CLIPS]
    results: dict[int, list[Prediction]] = {}

    def work(index: int) -> None:
        results[index] = [on_onnx.predict(clip) for clip in CLIPS]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for predictions in results.values():
        for one, other in zip(predictions, expected, strict=True):
            assert_close(one, other)


def test_neither_torch_nor_onnx_is_imported() -> None:
    code = (
        "import sys\n"
        "from speech_emotion_vit import EmotionClassifier\n"
        f"p = EmotionClassifier('crema-d-paper', backend='onnx').predict({str(CLIPS[0])!r})\n"
        "assert 'onnxruntime' in sys.modules\n"
        "heavy = {'torch', 'onnx', 'onnxscript', 'scipy', 'pandas', 'matplotlib', 'huggingface_hub'}\n"
        "assert not heavy & set(sys.modules)\n"
        "print(p.label)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() in ("anger", "disgust", "fear", "happiness", "neutral", "sadness")
    assert result.stderr == ""


def test_without_onnx_runtime_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"onnxruntime cannot be imported .*speech-emotion-vit\[onnx\]"):
        EmotionClassifier(backend="onnx")


@pytest.mark.parametrize("name", BUNDLED)
def test_both_readers_read_the_same(name: str) -> None:
    model = resolve_model(name)
    network, config = load_network(model)
    weights, same = load_arrays(model)
    assert same == config
    assert set(weights) == set(network.state_dict())
    for key, tensor in network.state_dict().items():
        assert np.array_equal(weights[key], tensor.numpy()), key


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"head.bias": None}, r"1 missing: head\.bias \[3\]"),
        ({"surprise": torch.zeros(4)}, r"1 unexpected: surprise \[4\]"),
        ({"head.bias": torch.zeros(4)}, r"head\.bias \[4\] instead of \[3\]"),
        ({"head.bias": torch.tensor([0.0, torch.nan, 0.0])}, r"1 tensors hold NaN, infinite.*head\.bias"),
        ({"head.bias": torch.tensor([0.0, 1e300, 0.0], dtype=torch.float64)}, r"1 tensors hold NaN, infinite"),
        ({"head.bias": torch.zeros(3, dtype=torch.int32)}, r"no floating-point values: head\.bias \(I32\)"),
    ],
)
def test_a_bad_file_is_refused_as_by_torch(tmp_path: Path, fault: dict[str, torch.Tensor | None], message: str) -> None:
    config = ClassifierConfig(labels=("a", "b", "c"), model=MODELS["student"])
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, random_network(config.model), config)
    changed = {name: tensor for name, tensor in {**load_file(path), **fault}.items() if tensor is not None}
    save_file(changed, path, {"config": json.dumps(config.to_dict())})
    for load in (load_weights, load_checkpoint):
        with pytest.raises(
            WeightsError, match=message.replace(r" \(I32\)", "") if load is load_checkpoint else message
        ):
            load(path)
    with pytest.raises(WeightsError, match="differ from the config beside it"):
        load_weights(path, replace(config, labels=("x", "y", "z")))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightsError, match="damaged safetensors"):
        load_weights(path)


def test_what_is_no_number_is_no_answer(tmp_path: Path) -> None:
    config = ClassifierConfig(labels=("a", "b", "c"), model=MODELS["student"])
    tensors = random_network(config.model).state_dict()
    tensors["patch_embedding.projection.weight"].fill_(3e38)
    save_file(tensors, tmp_path / "far.safetensors", {"config": json.dumps(config.to_dict())})
    classifier = EmotionClassifier(tmp_path / "far.safetensors", backend="onnx")
    for task in (classifier.predict, classifier.embed, classifier.timeline):
        with pytest.raises(WeightsError, match=r"NaN or infinite values.*take an undamaged file"):
            task(CLIPS[0])


def test_the_runtime_says_where_it_runs(on_onnx: EmotionClassifier) -> None:
    assert on_onnx.device == "cpu"
    with pytest.raises(ConfigError, match="use backend='torch'"):
        _ = on_onnx.network
    assert "CPUExecutionProvider" in onnxruntime.get_available_providers()
