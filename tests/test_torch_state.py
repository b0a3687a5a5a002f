"""Whatever a caller has set in torch, the network runs as it was made; devices and types that are none are named."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import torch

from helpers import CLIPS
from speech_emotion_vit import (
    ClassifierConfig,
    ConfigError,
    EmotionClassifier,
    FrameViT,
    FrameViTConfig,
    FrontendConfig,
    WeightsError,
)
from speech_emotion_vit.weights.checkpoint import save_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = FrameViTConfig(num_classes=2, stem=16, dim=32, heads=2, mlp_dim=24)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = FrameViT(shape)
    config = ClassifierConfig(labels=("a", "b"), model=shape, frontend=FrontendConfig.frames())
    return save_folder(tmp_path_factory.mktemp("model"), network, config)


@pytest.fixture(params=["crema-d-paper", "frames"])
def model(request: pytest.FixtureRequest, frames: Path) -> str | Path:
    return frames if request.param == "frames" else request.param


@contextmanager
def default_type() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


STATES = {
    "double by default": default_type,
    "deterministic": deterministic,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "without gradients": torch.no_grad,
    "another default device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_the_callers_state_changes_nothing(model: str | Path, state: type[AbstractContextManager[None]]) -> None:
    def answers(classifier: EmotionClassifier) -> list[list[float]]:
        segments = classifier.timeline(CLIPS[0], window=1.0, hop=0.4).segments
        rows = [list(each.probabilities.values()) for each in (classifier.predict(CLIPS[0]), *segments)]
        return [*rows, classifier.embed(CLIPS[0]).tolist(), classifier.explain(CLIPS[0]).attention.tolist()]

    classifier = EmotionClassifier(model, backend="torch")
    expected = answers(classifier)
    with state():
        assert answers(classifier) == expected
        other = EmotionClassifier(model, backend="torch")
        assert answers(other) == expected
    assert answers(other) == expected
    assert not next(other.network.parameters()).is_inference()  # it may be trained on


@pytest.mark.parametrize("dtype", ["float16", torch.bfloat16, torch.float64])
def test_a_network_runs_in_its_own_type(model: str | Path, dtype: str | torch.dtype) -> None:
    classifier = EmotionClassifier(model, backend="torch")
    expected = classifier.predict(CLIPS[0]).probabilities
    if dtype is torch.float64:
        classifier.network.double()
    else:
        classifier = EmotionClassifier(model, backend="torch", dtype=dtype)
        assert str(classifier.network.head.weight.dtype).endswith(str(dtype).removeprefix("torch."))
    assert classifier.predict(CLIPS[0]).probabilities == pytest.approx(expected, abs=0.03)
    assert classifier.explain(CLIPS[0]).attention.sum() == pytest.approx(1.0, abs=0.02)
    assert classifier.embed(CLIPS[0]).dtype == "float32"


@pytest.mark.parametrize("device", ["CPU", None, "cpu", "auto", torch.device("cpu")])
@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_devices_by_other_names(frames: Path, device: str | torch.device | None, backend: str) -> None:
    if torch.cuda.is_available() and device in (None, "auto"):
        pytest.skip("here these are the GPU")
    assert str(EmotionClassifier(frames, device=device, backend=backend).device) == "cpu"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (99, r"device 'cuda:99' cannot be used \(torch sees \d+ CUDA devices here\): pass 'auto' or 'cpu'"),
        ("cuda:99", r"device 'cuda:99' cannot be used \(torch sees"),
        ("meta", r"device 'meta' cannot be used \(there is none here\): pass 'auto' or 'cpu'"),
        ("gpu", r"device 'gpu' cannot be used \(it is no device of torch, such as 'cpu', 'cuda' or 'cuda:1'\)"),
        (True, r"device True cannot be used \(it is no device of torch"),
        (1.5, r"device 1.5 cannot be used \(it is no device of torch"),
        ("x" * 1000, r"device 'x{50,80}\.\.\. cannot be used"),
    ],
)
def test_what_is_no_device_here_is_one_short_line(frames: Path, device: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        EmotionClassifier(frames, device=device, backend="torch")  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200
    with pytest.raises(ConfigError, match="is not for the ONNX backend: pass 'cpu', or backend='torch'"):
        EmotionClassifier(frames, device=device, backend="onnx")  # type: ignore[arg-type]


def test_what_is_no_type_or_backend_is_named(frames: Path) -> None:
    for dtype in ("int8", torch.int8, None, "half"):
        with pytest.raises(ConfigError, match="dtype must be 'float32', 'float16' or 'bfloat16', not"):
            EmotionClassifier(frames, dtype=dtype, backend="torch")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="dtype 'float16' is not for the ONNX backend"):
        EmotionClassifier(frames, dtype="float16", backend="onnx")
    with pytest.raises(ConfigError, match="backend must be 'auto', 'torch' or 'onnx', not 'tensorflow'"):
        EmotionClassifier(frames, backend="tensorflow")  # type: ignore[arg-type]


def test_what_torch_cannot_do_is_an_error_of_this_package(frames: Path) -> None:
    classifier = EmotionClassifier(frames, backend="torch")
    classifier.network.blocks[0].mlp.hidden.weight.data = torch.zeros(24, 31)
    with pytest.raises(WeightsError, match=r"torch cannot run the network on cpu \(.*\): pass fewer windows at once"):
        classifier.predict(CLIPS[0])


def test_numpy_that_raises_changes_nothing(frames: Path) -> None:
    def answers(classifier: EmotionClassifier) -> list[list[float]]:
        segments = classifier.timeline(quiet, sampling_rate=rate, smoothing=1.0).segments
        rows = [list(each.probabilities.values()) for each in (classifier.predict((rate, quiet)), *segments)]
        return [*rows, classifier.explain((rate, quiet)).attention.tolist()]

    samples, rate = soundfile.read(CLIPS[0], dtype="float32")
    quiet = np.concatenate((np.zeros(3 * rate, np.float32), samples * np.float32(1e-18), samples))
    classifier = EmotionClassifier(frames, backend="torch")
    expected = answers(classifier)
    with np.errstate(all="raise"):
        assert answers(classifier) == expected
