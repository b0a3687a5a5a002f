"""Networks, clips and jobs so small that a test can train them; pytest loads the fixture from conftest."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from speech_emotion_vit.model.config import ModelConfig
from speech_emotion_vit.model.vit import SpectrogramViT
from speech_emotion_vit.training.data.augment import Augmentation
from speech_emotion_vit.training.data.features import FeatureStore
from speech_emotion_vit.training.data.protocols import Item
from speech_emotion_vit.training.data.rows import Rows
from speech_emotion_vit.training.fit.loop import Job
from speech_emotion_vit.training.recipes import StageSettings
from speech_emotion_vit.training.run import make_accelerator
from speech_emotion_vit.training.score.evaluate import score_rows

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


COMPACT = dataclasses.replace(STUDENT, stem="strided", patch_width=2, dropout=0.2)


QUICK = StageSettings(epochs=25, batch_size=8, optimizer="adamw", learning_rate=3e-3, clip_norm=1.0)


def network(config: ModelConfig, seed: int = 0) -> SpectrogramViT:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SpectrogramViT(config)


def eight_clips(seed: int = 0, *, votes: bool = False) -> Rows:
    """Random images with random labels, and random votes if wanted: only memory helps."""
    rng = np.random.default_rng(seed)
    images = rng.random((8, SIZE, SIZE)).astype(np.float16)
    for row, image in enumerate(images):
        image[:, SIZE - row :] = 0
    names = [f"clip{i}" for i in range(8)]
    store = FeatureStore(images, {name: (i, i + 1) for i, name in enumerate(names)}, {}, "made-up")
    classes = {name: int(i % 3 == 0) for i, name in enumerate(names)}
    heard = {name: [[1 - side, side] for side in rng.random(2)] for name in names} if votes else None
    return Rows([Item(name, 0) for name in names], {0: store}, classes, device=torch.device("cpu"), votes=heard)


def job(folder: Path, name: str, settings: StageSettings = QUICK, **options: Any) -> Job:
    rows = eight_clips()
    return Job(
        **{
            "name": name,
            "settings": settings,
            "augmentation": Augmentation(),
            "top_db": 80.0,
            "num_classes": 2,
            "seed": 0,
            "train": rows,
            "validation": rows,
            "folder": folder,
            **options,
        }
    )


def digest(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))).hexdigest()


def right(model: SpectrogramViT, rows: Rows) -> int:
    return int((score_rows(model, rows).argmax(axis=1) == rows.targets).sum())


@pytest.fixture(scope="session")
def accelerator() -> Any:
    return make_accelerator("cpu", "no")
