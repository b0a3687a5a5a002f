"""Tell the emotion in speech.

>>> from speech_emotion_vit import EmotionClassifier
>>> EmotionClassifier().predict("examples/clips/anger.flac").label
'anger'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    AudioError,
    ConfigError,
    DatasetError,
    DownloadError,
    IntegrityError,
    PublishError,
    SpeechEmotionError,
    TrainingError,
    WeightsError,
)

if TYPE_CHECKING:
    from .classifier import EmotionClassifier
    from .explain import Explanation
    from .model.config import ClassifierConfig, FrameViTConfig, FrontendConfig, ModelConfig
    from .model.frame_vit import FrameViT
    from .model.frontend import LogMel
    from .model.vit import SpectrogramViT
    from .prediction import Prediction, Segment
    from .stream import EmotionStream
    from .timeline import Timeline
    from .training.fit.own_labels import HeadEvaluation, fit_head

__all__ = [
    "AudioError",
    "ClassifierConfig",
    "ConfigError",
    "DatasetError",
    "DownloadError",
    "EmotionClassifier",
    "EmotionStream",
    "Explanation",
    "FrameViT",
    "FrameViTConfig",
    "FrontendConfig",
    "HeadEvaluation",
    "IntegrityError",
    "LogMel",
    "ModelConfig",
    "Prediction",
    "PublishError",
    "Segment",
    "SpectrogramViT",
    "SpeechEmotionError",
    "Timeline",
    "TrainingError",
    "WeightsError",
    "fit_head",
]

__version__ = "0.1.0"

# Names are resolved on first use (PEP 562): some need torch or numpy, and the command line's help needs none.
_LAZY = {
    "ClassifierConfig": ".model.config",
    "EmotionClassifier": ".classifier",
    "EmotionStream": ".stream",
    "Explanation": ".explain",
    "FrameViT": ".model.frame_vit",
    "FrameViTConfig": ".model.config",
    "FrontendConfig": ".model.config",
    "HeadEvaluation": ".training.fit.own_labels",
    "LogMel": ".model.frontend",
    "ModelConfig": ".model.config",
    "Prediction": ".prediction",
    "Segment": ".prediction",
    "SpectrogramViT": ".model.vit",
    "Timeline": ".timeline",
    "fit_head": ".training.fit.own_labels",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
