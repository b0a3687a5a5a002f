"""Two channels that should not be mixed: those of different speakers, and those that cancel each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FRAME_SECONDS = 0.05  # long enough that what one microphone hears later than the other falls into the same frame
_LEAST_SECONDS = 2.0  # of a recording, for its channels to be told apart
_ALIKE = 0.5  # correlation of levels, and of waveforms, at which both channels hear the same
_OPPOSITE = -0.5  # correlation of waveforms at which little is left of the sum
_UNEVEN = 0.35  # deviation of the level over its mean: speech is about 1, steady noise below 0.3
_REMEDY = "choose one with channel=0 or 1, or --channel split"
_FAINTER = 10 ** (-40 / 20)  # a channel so much fainter than the other holds what leaks through


class Stereo:
    """What two channels have in common, from blocks of any size.

    Levels are compared as well as waveforms: two microphones at different places hear one speaker with little
    correlation of the waveforms, but as loud at the same time.

    Args:
        rate: Hz.
    """

    def __init__(self, rate: int) -> None:
        self._frame = max(1, round(FRAME_SECONDS * rate))
        self._least = round(_LEAST_SECONDS / FRAME_SECONDS)
        self._rest = np.zeros((0, 2), np.float32)
        self._frames = 0
        self._waves = np.zeros((2, 2))
        self._level = np.zeros(2)
        self._levels = np.zeros((2, 2))

    def push(self, block: npt.NDArray[np.float32]) -> None:
        """Hear a block `[samples, 2]`."""
        block = np.concatenate((self._rest, block)) if len(self._rest) else block
        whole = len(block) // self._frame * self._frame
        self._rest = block[whole:].copy()
        if not whole:
            return
        left, right = (np.ascontiguousarray(channel).reshape(-1, self._frame) for channel in block[:whole].T)
        energy = [np.einsum("fs,fs->f", channel, channel, dtype=np.float64) for channel in (left, right)]
        levels = np.sqrt(energy)
        cross = float(np.einsum("fs,fs->", left, right, dtype=np.float64))
        self._waves += [[energy[0].sum(), cross], [cross, energy[1].sum()]]
        self._frames += len(left)
        self._level += levels.sum(axis=1)
        self._levels += levels @ levels.T

    def warning(self) -> str | None:
        """Return why the mean of the two should not be trusted; None where it may."""
        if self._frames < self._least or not self._waves.diagonal().all():
            return None
        alike = self._waves[0, 1] / np.sqrt(self._waves[0, 0] * self._waves[1, 1])
        if alike < _OPPOSITE:
            return f"the two channels cancel each other when they are mixed: {_REMEDY}"
        mean = self._level / self._frames
        spread = self._levels / self._frames - np.outer(mean, mean)
        deviation = np.sqrt(np.maximum(spread.diagonal(), 0.0))
        if min(deviation / mean) < _UNEVEN or min(mean) < _FAINTER * max(mean) or abs(alike) > _ALIKE:
            return None
        if spread[0, 1] / (deviation[0] * deviation[1]) > _ALIKE:
            return None
        return f"the two channels have little in common, as of two speakers, and are mixed: {_REMEDY}"
