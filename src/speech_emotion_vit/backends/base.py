"""What a backend is: windows of samples in, probabilities and embeddings out, all in numpy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, WeightsError
from ..model.config import ClassifierConfig

Floats: TypeAlias = "npt.NDArray[np.float32]"
T = TypeVar("T", bound="tuple[Floats, ...]")


class Attention(NamedTuple):
    """What the network looked at in one window."""

    probabilities: Floats
    """`[classes]`"""
    weights: Floats
    """How much of the answer flows from every column of the image, `[columns]`; sums to 1."""
    image: Floats
    """The log-Mel image, `[n_mels, columns]`, 0..1."""
    times: Floats
    """Middle of every column in seconds from the start of the window, `[columns]`."""
    frequencies: Floats
    """Centre of every Mel band in Hz, `[n_mels]`."""


class Backend(ABC):
    """A loaded network with its front-end."""

    config: ClassifierConfig
    """What the network is."""
    device: Any
    """Where it runs; prints as ``cpu``, ``cuda:0``."""

    def infer(self, windows: Floats) -> tuple[Floats, Floats]:
        """Return calibrated probabilities `[batch, classes]` and embeddings `[batch, dim]`.

        `windows` is `[batch, samples]` at the front-end's rate, with at most ``window_samples`` samples; zeros at the
        end are padding. May be called from several threads at once.

        Raises:
            WeightsError: the network cannot be run, or gives what is no number.
        """
        return _numbers(self._infer(windows))

    def infer_cut(self, samples: Floats, starts: Sequence[int], size: int) -> tuple[Floats, Floats]:
        """Return what `infer` does of the windows of `size` samples that begin at `starts` in `samples` `[samples]`.

        A backend may share work between windows that overlap.
        """
        return _numbers(self._infer_cut(samples, starts, size))

    def attention(self, window: Floats) -> Attention:
        """Return what the network looks at in one window `[samples]`.

        Raises:
            WeightsError: as with `infer`.
            ConfigError: this backend does not show it.
        """
        return _numbers(self._attention(window))

    @abstractmethod
    def _infer(self, windows: Floats) -> tuple[Floats, Floats]: ...

    def _infer_cut(self, samples: Floats, starts: Sequence[int], size: int) -> tuple[Floats, Floats]:
        return self._infer(np.stack([samples[start : start + size] for start in starts]))

    def _attention(self, window: Floats) -> Attention:
        raise ConfigError(f"{type(self).__name__} does not show its attention: use EmotionClassifier(backend='torch')")


def _numbers(outputs: T) -> T:
    """Return what a network gave; refuse NaN and infinity among it."""
    if not all(np.isfinite(output).all() for output in outputs):
        raise WeightsError(
            "the network answers NaN or infinite values, for its weights or its configuration are out of range: "
            "take an undamaged file, or train again"
        )
    return outputs
