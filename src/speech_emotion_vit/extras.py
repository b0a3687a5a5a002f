"""Optional packages."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import ConfigError, one_line

TRAINING = ("accelerate", "audiomentations", "matplotlib", "sklearn", "tensorboard")
"""What the extra `train` brings."""


def require(module: str, extra: str) -> Any:
    """Return an optional module.

    Raises:
        ConfigError: it cannot be imported; the message names the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a broken package may raise anything
        package = module.partition(".")[0]
        raise ConfigError(
            f"{package} cannot be imported ({one_line(error)}): pip install 'speech-emotion-vit[{extra}]'"
        ) from error
