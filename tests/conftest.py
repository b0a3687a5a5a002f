from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from speech_emotion_vit import EmotionClassifier

pytest_plugins = ["hub_client", "tiny_networks", "training_runs"]

# A shell lets what it starts in the background ignore Ctrl-C, and so would the processes that tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
