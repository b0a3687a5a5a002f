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
    SpeechEmotionError,
    TrainingError,
    WeightsError,
)
from .model.config import ClassifierConfig, FrameViTConfig, FrontendConfig, ModelConfig
from .prediction import Prediction, Segment, Timeline

if TYPE_CHECKING:
    from .classifier import EmotionClassifier
    from .explain import Explanation
    from .model.frame_vit import FrameViT
    from .model.frontend import LogMel
    from .model.vit import SpectrogramViT
    from .stream import EmotionStream

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
    "IntegrityError",
    "LogMel",
    "ModelConfig",
    "Prediction",
    "Segment",
    "SpectrogramViT",
    "SpeechEmotionError",
    "Timeline",
    "TrainingError",
    "WeightsError",
]

__version__ = "0.1.0"

# Names that need torch or numpy are resolved on first use (PEP 562), so that importing the package stays fast.
_LAZY = {
    "EmotionClassifier": ".classifier",
    "EmotionStream": ".stream",
    "Explanation": ".explain",
    "FrameViT": ".model.frame_vit",
    "LogMel": ".model.frontend",
    "SpectrogramViT": ".model.vit",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
