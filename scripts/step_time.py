"""What a training step costs on this machine: milliseconds per sample, forwards, backwards and optimiser.

python scripts/step_time.py [STEPS [CREMA-D]]        with a folder, the time to make the images of that corpus, too
python scripts/step_time.py --bf16 [STEPS]           as with `train --precision bf16`, not in float32

The stages are run by the training loop itself, on random images of 2.5 s, at batch 32. Run it on an idle machine; the
first epoch, which warms up, is left out.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from speech_emotion_vit.models import SpectrogramViT
from speech_emotion_vit.training.corpora import read_crema_d
from speech_emotion_vit.training.data import Rows
from speech_emotion_vit.training.experiment import make_accelerator
from speech_emotion_vit.training.features import FeatureStore, load_features
from speech_emotion_vit.training.loop import Job, fit
from speech_emotion_vit.training.protocols import Item
from speech_emotion_vit.training.recipes import RECIPES, Recipe, StageSettings
from speech_emotion_vit.training.stages import Supervised

Precision = Literal["no", "bf16"]
CLASSES, BATCH, COLUMNS, FILLED = 7, 32, 128, 80  # 2.5 of 4 s


def measure(
    network: SpectrogramViT, recipe: Recipe, settings: StageSettings, steps: int, precision: Precision
) -> float:
    """Return the milliseconds per sample of the second of two epochs."""
    images = np.random.default_rng(0).random((steps * BATCH, 128, COLUMNS)).astype(np.float16)
    images[:, :, FILLED:] = 0
    names = [str(index) for index in range(len(images))]
    store = FeatureStore(images, {name: (row, row + 1) for row, name in enumerate(names)}, {}, "")
    items = [Item(name, 0) for name in names]
    classes = {name: row % CLASSES for row, name in enumerate(names)}
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            name="step",
            settings=dataclasses.replace(settings, epochs=2, batch_size=BATCH),
            augmentation=recipe.augmentation,
            top_db=recipe.frontend.top_db,
            num_classes=CLASSES,
            seed=0,
            train=Rows(items, {0: store}, classes, device=device),
            validation=Rows([], {0: store}, classes, device=device),
            folder=Path(folder),
        )
        stage: nn.Module = Supervised(network, label_smoothing=recipe.label_smoothing)
        history = fit(stage, job, make_accelerator("cpu", precision))
    return 1000 * history[-1]["seconds"] / len(images)


def extraction(folder: Path, recipe: Recipe) -> tuple[int, float]:
    """Return the number of CREMA-D's clips and the seconds it takes to read them and make their images."""
    utterances = read_crema_d(folder)
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        load_features(utterances, recipe.frontend, cache=Path(cache))
        return len(utterances), time.perf_counter() - started


def main(steps: int, folder: Path | None, precision: Precision) -> None:
    """Print a line per network, and one per front-end."""
    print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, batch {BATCH}, "
        f"mixed precision: {precision}"
    )
    paper, robust = RECIPES["paper"], RECIPES["robust"]
    for name, network, recipe, settings in (
        ("paper's teacher", paper.teacher_model(CLASSES), paper, paper.teacher),
        ("paper's student", paper.student_model(CLASSES), paper, paper.student),
        ("compact student", robust.student_model(CLASSES), robust, robust.student),
    ):
        milliseconds = measure(SpectrogramViT(network), recipe, settings, steps, precision)
        print(f"{name}: {milliseconds:.1f} ms per sample and step")
    for recipe in (paper, robust) if folder else ():
        clips, seconds = extraction(folder, recipe)
        print(f"log-Mel images of {clips} clips, hop {recipe.frontend.hop_length}: {seconds:.1f} s")


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--bf16"]
    main(
        int(arguments[0]) if arguments else 4,
        Path(arguments[1]) if len(arguments) > 1 else None,
        "bf16" if "--bf16" in sys.argv else "no",
    )
