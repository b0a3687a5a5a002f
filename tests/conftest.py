from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from speech_emotion_vit import EmotionClassifier

pytest_plugins = ["hub_client", "tiny_networks", "training_runs"]

if "PYTEST_XDIST_WORKER" in os.environ:  # one core each, for it and the processes it starts; before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def classifier() -> EmotionClassifier:
    from speech_emotion_vit import EmotionClassifier

    return EmotionClassifier("crema-d-paper")


@pytest.fixture(scope="session")
def hearing_all() -> EmotionClassifier:
    """The bundled model without its speech detector: every sound gets an emotion."""
    from speech_emotion_vit import EmotionClassifier

    return EmotionClassifier("crema-d-paper", vad_filter=False)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
