from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from speech_emotion_vit import EmotionClassifier

pytest_plugins = ["hub_client"]


@pytest.fixture(scope="session")
def classifier() -> EmotionClassifier:
    from speech_emotion_vit import EmotionClassifier

    return EmotionClassifier()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
