"""Packages that only some people need."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import ConfigError

TRAINING = ("accelerate", "audiomentations", "matplotlib", "sklearn", "tensorboard")
"""What the extra `train` brings."""


def require(module: str, extra: str) -> Any:
    """Return an optional module.

    Raises:
        ConfigError: it cannot be imported; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigError(
            f"{package} cannot be imported ({error}): pip install 'speech-emotion-vit[{extra}]'"
        ) from error
