"""On a GPU: ``python -m pytest -n 0 -m cuda -s``. It has not been run on one so far, because no GPU was at hand.

``CUDA_TEST_DEVICE=cpu`` before that command runs the same lines on the CPU, with smaller batches.
"""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch

from helpers import CLIPS, speech
from speech_emotion_vit import ClassifierConfig, EmotionClassifier, FrameViT, FrameViTConfig, FrontendConfig
from speech_emotion_vit.backends.torch import TorchBackend

pytestmark = pytest.mark.cuda
DEVICE = torch.device(os.environ.get("CUDA_TEST_DEVICE", "cuda"))
GPU = DEVICE.type == "cuda"


@pytest.mark.parametrize("model", [None, "crema-d-paper"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 0.02), ("bfloat16", 0.05)])
def test_the_gpu_says_what_the_cpu_says(model: str | None, dtype: str, tolerance: float) -> None:
    cpu = EmotionClassifier(model, backend="torch", device="cpu")
    gpu = EmotionClassifier(model, backend="torch", device=str(DEVICE), dtype=dtype)
    for one, other in zip(gpu.predict_batch(CLIPS), cpu.predict_batch(CLIPS), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=tolerance)
    if dtype == "float32":
        audio = speech(20.0)
        for one, other in zip(
            gpu.timeline(audio, sampling_rate=16_000).segments,
            cpu.timeline(audio, sampling_rate=16_000).segments,
            strict=True,
        ):
            assert one.probabilities == pytest.approx(other.probabilities, abs=tolerance)
        np.testing.assert_allclose(gpu.explain(CLIPS[0]).attention, cpu.explain(CLIPS[0]).attention, atol=tolerance)


def test_a_tensor_on_the_gpu_is_audio_like_any_other() -> None:
    gpu = EmotionClassifier(backend="torch", device=str(DEVICE))
    audio = torch.from_numpy(np.repeat(speech(2.0), 3))
    on_gpu = gpu.predict(audio.to(DEVICE), sampling_rate=48_000)
    assert on_gpu.probabilities == pytest.approx(gpu.predict(audio, sampling_rate=48_000).probabilities, abs=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_clips_per_second_and_memory(dtype: str) -> None:
    shape = FrameViTConfig.base(6)
    config = ClassifierConfig(labels=tuple("abcdef"), model=shape, frontend=FrontendConfig.frames())
    backend = TorchBackend(FrameViT(shape), config, DEVICE, getattr(torch, dtype))
    rounds = 20 if GPU else 1
    for batch in (1, 64, 512) if GPU else (1, 4):
        waveform = torch.from_numpy(np.resize(speech(10.0), (batch, 40_000))).to(DEVICE)
        if GPU:
            torch.cuda.reset_peak_memory_stats()
        for number in range(3 + rounds):
            if number == 3:  # the first ones warm it up
                start = finished()
            probabilities, _ = backend.forward(waveform)
        seconds = finished() - start
        assert probabilities.isfinite().all()
        assert probabilities.device.type == DEVICE.type
        memory = f"{torch.cuda.max_memory_allocated() / 1e6:.0f} MB" if GPU else "memory is not measured here"
        print(f"{dtype}, {batch} clips of 2.5 s: {rounds * batch / seconds:.0f} clips/s, {memory}")


def finished() -> float:
    """The time when everything that was asked of the device is done."""
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter()
