"""Networks, clips and jobs so small that a test can train them; pytest loads the fixtures from conftest."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import speech
from speech_emotion_vit.model.config import ModelConfig
from speech_emotion_vit.model.vit import SpectrogramViT
from speech_emotion_vit.training.data.corpora import Utterance
from speech_emotion_vit.training.data.features import FULL_SCALE, Store
from speech_emotion_vit.training.data.rows import ImageRows, Rows
from speech_emotion_vit.training.fit.loop import Job
from speech_emotion_vit.training.recipes import GradientStage, TeacherStage
from speech_emotion_vit.training.run import make_accelerator
from speech_emotion_vit.training.score.evaluate import score_rows, validation_record

SIZE = 16


STUDENT = ModelConfig(
    num_classes=2,
    image_height=SIZE,
    image_width=SIZE,
    patch_height=SIZE,
    dim=32,
    depth=1,
    heads=2,
    head_dim=16,
    mlp_dim=32,
)


TEACHER = dataclasses.replace(STUDENT, depth=2, stem="conv6", coordinates=True)


QUICK = TeacherStage(epochs=25, batch_size=8, learning_rate=3e-3)


def network(config: ModelConfig, seed: int = 0) -> SpectrogramViT:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SpectrogramViT(config)


def made_up_rows(
    images: np.ndarray,
    labels: Sequence[int],
    *,
    corpora: Sequence[str] | None = None,
    possible: Mapping[str, Sequence[str]] | None = None,
) -> Rows:
    """Rows of `images` `[clips, bands, columns]`, whose labels are called 0, 1 and so on."""
    clips = [
        Utterance(
            id=f"clip{i}", path=Path("made-up"), label=str(label), speaker="", corpus=corpora[i] if corpora else ""
        )
        for i, label in enumerate(labels)
    ]
    store = Store(images.astype(np.float16), {clip.id: (i, i + 1) for i, clip in enumerate(clips)}, {}, "made-up")
    names = [str(label) for label in range(max(labels, default=0) + 1)]
    return ImageRows(clips, store, names, device=torch.device("cpu"), possible=possible)


def eight_seconds() -> Store:
    """Eight clips of a second, of something like speech, 16-bit samples at 16 kHz."""
    waveform = speech(8.0)
    samples = np.round(waveform * FULL_SCALE / np.abs(waveform).max()).astype(np.int16)
    rows = {f"clip{number}": (16_000 * number, 16_000 * (number + 1)) for number in range(8)}
    return Store(samples, rows, {}, "made-up")


def eight_clips(seed: int = 0) -> Rows:
    """Random images with random labels: only memory helps."""
    images = np.random.default_rng(seed).random((8, SIZE, SIZE)).astype(np.float16)
    for row, image in enumerate(images):
        image[:, SIZE - row :] = 0
    return made_up_rows(images, [int(i % 3 == 0) for i in range(8)])


def quick(**changes: Any) -> GradientStage:
    return dataclasses.replace(QUICK, **changes)


def job(folder: Path, settings: GradientStage = QUICK, validated: torch.nn.Module | None = None, **options: Any) -> Job:
    """A job without validation, or one that validates a network on the eight clips."""

    def validate() -> dict[str, float]:
        assert validated is not None
        return validation_record(score_rows(validated, eight_clips()), eight_clips())

    return Job(settings=settings, seed=0, folder=folder, validate=validate if validated else None, **options)


def digest(tensors: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))).hexdigest()


def right(model: SpectrogramViT, rows: Rows) -> int:
    return int((score_rows(model, rows).argmax(axis=1) == rows.targets).sum())


@pytest.fixture(scope="session")
def accelerator() -> Any:
    return make_accelerator("cpu", "no")
