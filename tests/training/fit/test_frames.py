"""Matching frame by frame, with an encoder of random weights and of the real shape."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import speech
from speech_emotion_vit import ConfigError, FrameViT, FrontendConfig, LogMel
from speech_emotion_vit.model.config import FrameViTConfig
from speech_emotion_vit.training.fit import frames
from speech_emotion_vit.training.fit.frames import Examples, FrameMatching, warm_start
from speech_emotion_vit.training.fit.loop import fit
from speech_emotion_vit.training.fit.teacher import DEPTH, SpeechEncoder, encoder_shapes
from speech_emotion_vit.training.recipes import FramesStage
from tiny_networks import digest, eight_seconds, job

SHALLOW = FrameViTConfig(num_classes=2, stem=16, depth=1, mlp_dim=32, taps=3, pooled=(1,))
SHORT = FramesStage(epochs=4, batch_size=4, learning_rate=3e-3)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """Random weights of the encoder's first two blocks."""
    generator = torch.Generator().manual_seed(0)
    beyond = tuple(f"layers.{layer}." for layer in range(2, DEPTH))
    shapes = {name: shape for name, shape in encoder_shapes().items() if not name.startswith(beyond)}
    return {name: 0.04 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short examples, and few of them to measure the teacher by."""
    sizes = {"SHORTEST": 25, "LONGEST": 50, "MEASURED": 8, "AT_ONCE": 4}
    for name, value in {**sizes, "TARGETS": ((1, 1),), "WARM_START": (1, 2)}.items():
        monkeypatch.setattr(frames, name, value)


def matching(tensors: dict[str, Tensor], seed: int = 0) -> FrameMatching:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FrameMatching(
            FrameViT(SHALLOW),
            SpeechEncoder(tensors, layers=1),
            Examples(eight_seconds()),
            FrontendConfig.frames(),
            device=torch.device("cpu"),
        )


def test_a_student_comes_nearer_to_its_teacher_and_its_head_rests(
    tensors: dict[str, Tensor], tmp_path: Path, accelerator: Any
) -> None:
    stage = matching(tensors)
    head = stage.network.head.weight.clone()
    batch = stage.batch(np.arange(8), 0)
    before = float(stage(batch)["layer_1"].detach())
    fit(stage, job(tmp_path, dataclasses.replace(SHORT, epochs=24, learning_rate=3e-2)), accelerator)
    assert float(stage(batch)["layer_1"].detach()) < 0.9 * before
    assert torch.equal(stage.network.head.weight, head)


def test_a_matching_that_was_stopped_goes_on_to_the_same_weights(
    tensors: dict[str, Tensor], tmp_path: Path, accelerator: Any
) -> None:
    whole = matching(tensors)
    fit(whole, job(tmp_path / "whole", SHORT), accelerator)
    stopped = matching(tensors)
    seen = 0

    def stop(name: str, value: float, epoch: int) -> None:
        nonlocal seen
        seen = epoch
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(stopped, job(tmp_path / "parts", SHORT, log=stop), accelerator)
    assert seen == 2
    resumed = matching(tensors, seed=1)
    fit(resumed, job(tmp_path / "parts", SHORT), accelerator)
    assert digest(resumed.network.state_dict()) == digest(whole.network.state_dict())


def test_examples_are_of_one_length_and_heard_by_both(tensors: dict[str, Tensor]) -> None:
    stage = matching(tensors)
    rows = stage.batches(4, np.random.default_rng(0))
    assert sorted(np.concatenate(rows).tolist()) == list(range(8))
    batch = stage.batch(rows[0], 1)
    tokens = batch.targets.shape[2]
    assert batch.targets.shape == (4, 1, tokens, 512)
    assert tokens in (25, 50)
    assert batch.images.shape == (4, 1, 80, 2 * tokens + 1)
    assert (batch.frames == 2 * tokens + 1).all()
    again = stage.batch(rows[0], 1)
    assert torch.equal(again.images, batch.images)
    assert not torch.equal(stage.batch(rows[0], 2).targets[:, :, :25], batch.targets[:, :, :25])
    assert 0.2 < batch.targets.abs().mean() < 3  # standardised


def test_a_warm_start_is_the_teacher_without_its_positions(tensors: dict[str, Tensor]) -> None:
    config = FrameViTConfig(num_classes=2, depth=2, pooled=(1, 2), taps=0)
    student = FrameViT(config).eval()
    warm_start(student, tensors)
    placeless = tensors | {"embed_positions.weight": torch.zeros_like(tensors["embed_positions.weight"])}
    teacher = SpeechEncoder(placeless, layers=2)
    clip = torch.from_numpy(speech(1.0))[None]
    power = teacher.spectrogram(clip / clip.abs().max() * 0.9)
    image = LogMel(FrontendConfig.frames())(clip)
    with torch.no_grad():
        # The student's image is relative to the loudest value, the teacher's to full scale: a constant apart.
        assumed = (2 * image[:, 0] + (frames.LOUDEST - 4) / 4)[..., : power.shape[2]]
        expected = teacher.forward(assumed)
        found = student.forward_features(image[..., : power.shape[2]]).tokens
    for mine, theirs in zip(found, expected, strict=True):
        # The convolution's zeros beyond the ends are other values there.
        torch.testing.assert_close(mine[:, 5:-5], theirs[:, 5:-5], atol=0.05, rtol=0.05)


def test_the_mean_of_the_positions_is_in_the_first_convolution(tensors: dict[str, Tensor]) -> None:
    student = FrameViT(FrameViTConfig(num_classes=2, depth=2, pooled=(1, 2)))
    warm_start(student, tensors)
    blocks: Any = student.blocks
    torch.testing.assert_close(
        blocks[0].convolution.bias, tensors["embed_positions.weight"][: frames.LONGEST].mean(dim=0)
    )


def test_a_student_of_another_shape_cannot_start_as_the_teacher(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(ConfigError, match=r"a student of the shape of base, not .*: set no value of model"):
        warm_start(FrameViT(SHALLOW), tensors)
