"""From a flow of samples to segments: what a timeline and a stream share, so that their numbers are the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from reprlib import repr as shown

import numpy as np

from .audio.reader import SILENT_PEAK, Samples, windows
from .backends.base import Backend, Floats
from .errors import ConfigError
from .model.config import TIMELINE_HOP, FrontendConfig
from .prediction import Segment

MAX_SECONDS = 1e9  # 31 years


class Segmenter:
    """Cut a flow of mono samples into windows and send them through the network as soon as they are whole.

    Args:
        backend: the network.
        hop: seconds between the starts of two windows.
        window: length of a window in seconds; None is the longest the network sees, 4 s.
        smoothing: time constant in seconds of an exponential average over the segments before, 0 for none. Silent
            segments stay as they are and do not enter it.
        batch_size: windows that go through the network at once.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        hop: float = TIMELINE_HOP,
        window: float | None = None,
        smoothing: float = 0.0,
        batch_size: int = 16,
    ) -> None:
        frontend = backend.config.frontend
        self._backend = backend
        self._rate = frontend.sampling_rate
        self._hop = _hop_samples(hop, self._rate)
        self._size = _window_samples(window, frontend)
        self._smoothing = seconds("smoothing", smoothing)
        self._batch_size = require_batch_size(batch_size)
        self._buffer = np.zeros(0, np.float32)
        self._arrived: list[Samples] = []  # behind the buffer, not yet joined to it
        self._held = 0  # samples in both
        self._total = 0  # samples so far
        self._next = 0  # start of the next window, in samples from the start of the flow
        self._end = 0  # where the last window ended
        self._average: tuple[float, Floats] | None = None  # start and smoothed probabilities of the segment before

    def push(self, samples: Samples) -> list[Segment]:
        """Return the segments, possibly none, that the next samples `[samples]` complete.

        Where the network fails, or is interrupted, none is lost: the next call returns them.
        """
        self.take(samples)
        if self._total < self._next + self._size:
            if self._held > 2 * self._wanted:  # seldom, for every time all of it is copied
                self._forget()
            return []
        with self._whole():
            segments = self._complete()
        self._forget()
        return segments

    def take(self, samples: Samples) -> None:
        """Take in the next samples `[samples]` for the call that follows."""
        self._arrived.append(samples)
        self._total += len(samples)
        self._held += len(samples)

    def finish(self) -> list[Segment]:
        """Return the segments left, the last of which ends where the flow ends: nothing follows."""
        if self._total == self._end:
            return []
        with self._whole():
            segments = self._complete()
            if self._total > self._end:
                size = min(self._size, self._total)
                segments += self._infer([self._total - size], size)
                self._end = self._total
        return segments

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Do all of the block or nothing: a window that was averaged and not returned must not be averaged again."""
        before = self._next, self._end, self._average
        try:
            yield
        except BaseException:  # Ctrl-C too
            self._next, self._end, self._average = before
            raise

    def _complete(self) -> list[Segment]:
        """Return the segments of all windows that are whole."""
        starts = range(self._next, self._total - self._size + 1, self._hop)
        segments: list[Segment] = []
        for first in range(0, len(starts), self._batch_size):
            segments += self._infer(starts[first : first + self._batch_size], self._size)
        if starts:
            self._next, self._end = starts[-1] + self._hop, starts[-1] + self._size
        return segments

    @property
    def _wanted(self) -> int:
        """Samples that a window may still need; the last one is aligned to the end, wherever that will be."""
        return max(self._size, self._total - self._next)

    def _forget(self) -> None:
        self._buffer = self._joined()[-self._wanted :].copy()
        self._held = len(self._buffer)

    def _joined(self) -> Samples:
        if self._arrived:
            self._buffer = np.concatenate((self._buffer, *self._arrived))
            self._arrived.clear()
        return self._buffer

    def _infer(self, starts: Sequence[int], size: int) -> list[Segment]:
        buffer = self._joined()
        first = starts[0] - (self._total - len(buffer))
        samples = buffer[first : first + starts[-1] + size - starts[0]]
        relative = [start - starts[0] for start in starts]
        probabilities, _ = self._backend.infer_cut(samples, relative, size)
        segments = []
        for start, row in zip(starts, probabilities, strict=True):
            heard = samples[start - starts[0] :][:size]
            silent = float(np.abs(heard).max()) < SILENT_PEAK
            if not silent:
                row = self._smooth(start / self._rate, row)
            values = dict(zip(self._backend.config.labels, map(float, row), strict=True))
            segments.append(Segment(start / self._rate, (start + size) / self._rate, values, silent))
        return segments

    def _smooth(self, start: float, row: Floats) -> Floats:
        if self._smoothing and self._average is not None:
            before, average = self._average
            keep = np.float32(math.exp(-(start - before) / self._smoothing))
            row = keep * average + (1 - keep) * row
        self._average = start, row
        return row


def clip_windows(blocks: Iterable[Samples], frontend: FrontendConfig) -> Iterator[Samples]:
    """Cut a clip into the windows whose mean is its prediction."""
    cut = windows(blocks, frontend.window_samples, frontend.hop_samples)
    if frontend.long_clips == "truncate":
        yield from islice(cut, 1)
        for _ in cut:  # to the end, for the duration and the warnings
            pass
    else:
        yield from cut


def require_batch_size(batch_size: int) -> int:
    """Return `batch_size`.

    Raises:
        ConfigError: it is not a whole number of at least 1.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ConfigError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
    return int(batch_size)


def seconds(name: str, value: float) -> float:
    """Return `value` as a float.

    Raises:
        ConfigError: it is not a number from 0 to 1e9.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ConfigError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 <= value <= MAX_SECONDS:  # also true for NaN
        raise ConfigError(f"{name} must be from 0 to {MAX_SECONDS:,.0f} seconds, not {shown(value)}")
    return float(value)


def _hop_samples(hop: float, rate: int) -> int:
    samples = round(seconds("hop", hop) * rate)
    if samples < 1:
        raise ConfigError(f"hop must be at least one sample, {1 / rate:g} s, not {hop!r}: 1.0 is a segment per second")
    return samples


def _window_samples(window: float | None, frontend: FrontendConfig) -> int:
    if window is None:
        return frontend.window_samples
    samples = round(seconds("window", window) * frontend.sampling_rate)
    if samples < frontend.win_length:
        frame = frontend.win_length / frontend.sampling_rate
        raise ConfigError(f"window of {window!r} s is shorter than one frame of {frame:g} s: give seconds, such as 2.0")
    if samples > frontend.window_samples:
        raise ConfigError(f"window of {window!r} s is longer than the {frontend.window_seconds:g} s the model sees")
    return samples
