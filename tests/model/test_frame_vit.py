"""The network of base and small: any length, nothing behind a clip counts, and ONNX says the same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from helpers import CLIPS, speech
from speech_emotion_vit import (
    ClassifierConfig,
    ConfigError,
    EmotionClassifier,
    FrameViT,
    FrameViTConfig,
    FrontendConfig,
    LogMel,
    ModelConfig,
    WeightsError,
)
from speech_emotion_vit.backends.export import export_onnx
from speech_emotion_vit.backends.onnx import OnnxBackend
from speech_emotion_vit.backends.onnx_graph import build_model
from speech_emotion_vit.backends.torch import TorchBackend
from speech_emotion_vit.model.rollout import rollout
from speech_emotion_vit.weights.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_folder
from speech_emotion_vit.weights.tensors import parameter_count, tensor_shapes

if TYPE_CHECKING:
    from pathlib import Path

FRONTEND = FrontendConfig.frames()
TINY = {"num_classes": 3, "stem": 16, "dim": 32, "heads": 2, "mlp_dim": 24}
SHAPES = {
    "three blocks": FrameViTConfig(**TINY),  # type: ignore[arg-type]
    "one block, one tap": FrameViTConfig(**TINY, depth=1, taps=1, pooled=(1,)),  # type: ignore[arg-type]
    "every block": FrameViTConfig(**TINY, depth=2, taps=5, pooled=(1, 2)),  # type: ignore[arg-type]
    "no convolutions": FrameViTConfig(**TINY, taps=0),  # type: ignore[arg-type]
}
SPEECH = speech(12.0)
LABELS = ("a", "b", "c")


def config_of(shape: FrameViTConfig, frontend: FrontendConfig = FRONTEND) -> ClassifierConfig:
    return ClassifierConfig(labels=LABELS, model=shape, frontend=frontend, temperature=1.7)


def random_network(shape: FrameViTConfig) -> FrameViT:
    """A network whose every value matters: nothing at its initial zero or one."""
    generator = torch.Generator().manual_seed(0)
    network = FrameViT(shape).eval().requires_grad_(False)
    for name, tensor in network.state_dict().items():
        if name.endswith("norm.weight"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        else:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5)
    return network


def backends(shape: FrameViTConfig, frontend: FrontendConfig = FRONTEND) -> tuple[TorchBackend, OnnxBackend]:
    network = random_network(shape)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    config = config_of(shape, frontend)
    return TorchBackend(network, config, torch.device("cpu")), OnnxBackend(weights, config)


@pytest.fixture(scope="module")
def pair() -> tuple[TorchBackend, OnnxBackend]:
    return backends(SHAPES["three blocks"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = SHAPES["every block"]
    return save_folder(tmp_path_factory.mktemp("model"), random_network(shape), config_of(shape))


def slow_image(waveform: np.ndarray) -> np.ndarray:
    """Frame by frame in float64, from the definition, `[80, frames]`."""
    librosa = pytest.importorskip("librosa")
    filters = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80, dtype=np.float64)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    padded = np.pad(waveform.astype(np.float64), 200)
    frames = [padded[160 * i : 160 * i + 400] * window for i in range(len(waveform) // 160 + 1)]
    power = np.array([filters @ np.abs(np.fft.rfft(frame)) ** 2 for frame in frames]).T
    return np.maximum(0.0, 1.0 + np.log10(np.maximum(power / power.max(), 1e-30)) / 8)


@pytest.mark.parametrize("samples", [400, 16_000, 31_999])
def test_the_image_is_that_of_the_definition_at_any_level(samples: int) -> None:
    expected = slow_image(SPEECH[:samples])
    for gain in (1.0, 1e-3):
        image = LogMel(FRONTEND)(torch.from_numpy(gain * SPEECH[None, :samples]))
        assert image.shape == (1, 1, 80, samples // 160 + 1)
        np.testing.assert_allclose(image[0, 0], expected, atol=1e-4)


def test_a_row_of_a_batch_is_the_image_of_its_clip_and_zero_behind_it() -> None:
    frontend = LogMel(FRONTEND)
    waveform = torch.zeros(2, 32_000)
    waveform[0] = torch.from_numpy(SPEECH[:32_000])
    waveform[1, :8_000] = torch.from_numpy(SPEECH[40_000:48_000])
    frames = frontend.frames(waveform)
    assert frames is not None
    assert frames.tolist() == [201, 51]
    image = frontend(waveform)
    torch.testing.assert_close(image[1:, :, :, :51], frontend(waveform[1:, :8_000]), atol=1e-6, rtol=0)
    assert not image[1, :, :, 51:].any()


@given(
    lengths=st.lists(st.integers(1, 96_000), min_size=1, max_size=3),
    silence=st.integers(0, 9_000),
    on_onnx=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_a_batch_says_what_its_clips_say_alone_and_zeros_behind_change_nothing(
    pair: tuple[TorchBackend, OnnxBackend], lengths: list[int], silence: int, on_onnx: bool
) -> None:
    backend = pair[on_onnx]
    clips = [SPEECH[7_000 * index :][:length] for index, length in enumerate(lengths)]
    batch = np.zeros((len(clips), min(96_000, max(lengths) + silence)), np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    alone = [np.concatenate(parts) for parts in zip(*(backend.infer(clip[None]) for clip in clips), strict=True)]
    for one, other in zip(backend.infer(batch), alone, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "frontend", [FRONTEND, replace(FRONTEND, window_seconds=0.5, window_hop_seconds=0.1, n_mels=80)]
)
def test_the_graph_is_the_network(shape: str, frontend: FrontendConfig) -> None:
    torch_, onnx_ = backends(SHAPES[shape], frontend)
    for batch, samples in ((1, 1), (1, 1_600), (2, 7_777), (3, frontend.window_samples)):
        waveform = np.zeros((batch, samples), np.float32)
        for index, row in enumerate(waveform):
            kept = samples - index * samples // 3
            row[:kept] = SPEECH[5_000 * index :][:kept]
        for one, other in zip(onnx_.infer(waveform), torch_.infer(waveform), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_silence_is_an_answer_like_any_other(pair: tuple[TorchBackend, OnnxBackend]) -> None:
    results = [backend.infer(np.zeros((2, samples), np.float32)) for backend in pair for samples in (1, 16_000)]
    for probabilities, embedding in results:
        np.testing.assert_allclose(probabilities, results[0][0], atol=1e-5)
        np.testing.assert_allclose(embedding, results[0][1], atol=1e-4)


def test_the_graph_ends_with_the_window(pair: tuple[TorchBackend, OnnxBackend]) -> None:
    np.testing.assert_allclose(pair[1].infer(SPEECH[None])[0], pair[1].infer(SPEECH[None, :96_000])[0], atol=1e-6)


@pytest.mark.parametrize("int8", [False, True])
def test_the_file_is_valid_and_uses_standard_operators_only(int8: bool) -> None:
    shape = SHAPES["every block"]
    weights = {name: tensor.numpy() for name, tensor in random_network(shape).state_dict().items()}
    model = onnx.load_from_string(build_model(config_of(shape), weights, int8=int8))
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}


@pytest.mark.parametrize("size", ["base", "small"])
def test_base_and_small_have_the_size_they_say(size: str) -> None:
    shape = getattr(FrameViTConfig, size)(6)
    million = {"base": (9.9e6, 12e6), "small": (1.3e6, 1.5e6)}[size]
    assert million[0] < parameter_count(shape) < million[1]
    with torch.device("meta"):
        network = FrameViT(shape)
    assert tensor_shapes(shape) == {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def test_the_file_alone_rebuilds_the_network(tmp_path: Path) -> None:
    shape = SHAPES["one block, one tap"]
    network, config = random_network(shape), config_of(shape)
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, network, config)
    with safe_open(path, "np") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118, not a dict
    read, same = load_checkpoint(path)
    weights, also = load_weights(path)
    assert same == also == config
    assert isinstance(read, FrameViT)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(read.state_dict()[name], tensor.half().float(), atol=0, rtol=0)
        np.testing.assert_array_equal(weights[name], tensor.half().float().numpy())
    network.config = replace(shape, taps=3)
    save_checkpoint(path, network, replace(config, model=network.config))
    with pytest.raises(WeightsError, match=r"convolution\.weight \[32, 1, 1\] instead of \[32, 1, 3\]"):
        load_checkpoint(path)


def test_a_classifier_predicts_cuts_and_explains(folder: Path, tmp_path: Path) -> None:
    classifier = EmotionClassifier(folder, vad_filter=False)
    with_onnx = EmotionClassifier(folder, backend="onnx", vad_filter=False)
    values = [list(each.predict(CLIPS[0]).probabilities.values()) for each in (classifier, with_onnx)]
    np.testing.assert_allclose(*values, atol=1e-4)
    for one, other in zip(classifier.predict_batch(CLIPS), map(classifier.predict, CLIPS), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=2e-5)
    # Windows a whole number of frames apart share them; the others do not.
    shared = classifier.timeline(SPEECH, sampling_rate=16_000, hop=1.0)
    for segment in shared.segments:
        window = SPEECH[round(segment.start * 16_000) : round(segment.end * 16_000)]
        alone = classifier.backend.infer(window[None])[0][0]
        np.testing.assert_allclose(list(segment.probabilities.values()), alone, atol=2e-5)

    explanation = classifier.explain(SPEECH[:20_000], sampling_rate=16_000)
    assert explanation.spectrogram.shape == (80, 126)
    np.testing.assert_allclose(explanation.times, np.arange(126) * 0.01, atol=1e-6)
    assert explanation.attention.sum() == pytest.approx(1.0, abs=1e-5)
    assert explanation.padding == 0
    explanation.save(tmp_path / "why.png")
    session = pytest.importorskip("onnxruntime").InferenceSession(export_onnx(folder, tmp_path / "m.onnx"))
    assert json.loads(session.get_modelmeta().custom_metadata_map["config"])["model"]["network"] == "FrameViT"


@torch.inference_mode()
def test_the_answer_flows_from_the_tokens_it_is_made_of() -> None:
    network = random_network(FrameViTConfig(**TINY, depth=1, taps=1, pooled=(1,)))  # type: ignore[arg-type]
    network.blocks[0].attention.qkv.weight.zero_()  # every token attends to all alike
    network.blocks[0].attention.qkv.bias.zero_()
    image = torch.rand(1, 1, 80, 9, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(rollout(network, image)[0], np.full(9, 1 / 9), atol=1e-6)
    weight = network.blocks[0].attention.qkv.weight
    generator = torch.Generator().manual_seed(1)
    weight[:64] = 3 * torch.randn(64, 32, generator=generator)
    looked = rollout(network, image)[0]
    assert looked.max() > 1.5 * looked.min()
    assert looked.sum() == pytest.approx(1.0)
    assert looked[0] == looked[1]  # two frames make a token
    tokens, _ = network.tokenize(image)
    attention = network.blocks[0].attention.weights(network.blocks[0].convolved(tokens, None))[0].mean(dim=0)
    expected = ((attention + torch.eye(5)) / 2).mean(dim=0)
    np.testing.assert_allclose(looked[::2] / looked[0], expected / expected[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pooled": (0, 1)}, "pooled must be ascending numbers of blocks from 1 to 3"),
        ({"pooled": (3, 2)}, "pooled must be ascending"),
        ({"pooled": ()}, "pooled must be ascending"),
        ({"heads": 5}, "dim 32 is not a multiple of heads 5"),
        ({"taps": 4}, "taps must be odd or 0, not 4"),
        ({"taps": -1}, "taps must be a whole number from 0 to 255, not -1"),
    ],
)
def test_what_makes_no_network_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FrameViTConfig(**{**TINY, **values})  # type: ignore[arg-type]


def test_the_configuration_is_its_json() -> None:
    config = config_of(SHAPES["every block"])
    assert ClassifierConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    values = config.to_dict()
    for changed, message in (
        ({"network": "LSTM"}, "network must be one of SpectrogramViT, FrameViT, not 'LSTM'"),
        ({"pooled": [1, True]}, "pooled must be a list, each a whole number"),
        ({"dim": 2.5}, "dim must be a whole number"),
        ({"patch_width": 1}, "unknown keys"),
    ):
        with pytest.raises(ConfigError, match=message):
            ClassifierConfig.from_dict({**values, "model": {**values["model"], **changed}})
    with pytest.raises(ConfigError, match="the network wants images of"):
        ClassifierConfig(labels=LABELS, model=config.model)
    with pytest.raises(ConfigError, match="the network wants images of"):
        ClassifierConfig(labels=LABELS, model=ModelConfig(num_classes=3), frontend=FRONTEND)


def test_an_image_of_another_height_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes \[batch, 1, 80, frames\], not \[1, 1, 64, 9\]"):
        random_network(SHAPES["one block, one tap"])(torch.zeros(1, 1, 64, 9))
