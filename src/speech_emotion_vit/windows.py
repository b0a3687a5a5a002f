"""From samples to windows, and from windows to segments: shared by timelines and streams, so their numbers agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import numpy as np

from .audio.reader import AudioReader, Samples, windows, without_offset
from .audio.speech import keep_speech, spoken_blocks
from .backends.base import Backend, Floats
from .errors import AudioError, ConfigError, quoted
from .model.config import TIMELINE_HOP, FrontendConfig
from .prediction import Segment

MAX_SECONDS = 1e9  # 31 years
NOBODY = "no speech"  # the warning
SILENT_WEIGHT = 1e-6  # of a window without speech in a mean: it counts only where there is no speech at all
LEFT_OUT_SECONDS = 1.0  # of a recording that are left out at least for a warning ...
LEFT_OUT_SHARE = 0.1  # ... and their least share of the recording


class Window(NamedTuple):
    """One input of the network."""

    samples: Samples
    """Mono at the front-end's rate, `[samples]`, without offset and without long pauses."""
    speech: float
    """Seconds of speech, the weight of the window; if it is 0, the samples are the whole audio."""


def cut_pauses(samples: Samples, rate: int, *, vad_filter: bool) -> Window:
    """Return a piece of audio, no longer than a window, without offset and without long pauses: the network's input.

    Args:
        samples: mono, `[samples]`.
        rate: Hz.
        vad_filter: whether parts without speech are left out; if not, everything counts as speech.
    """
    if not vad_filter:
        return Window(without_offset(samples), len(samples) / rate)
    kept, speech = keep_speech(samples, rate)
    if not speech:
        return Window(samples, 0.0)
    return Window(without_offset(samples if len(kept) == len(samples) else kept), speech)


class ClipWindows:
    """The windows of a clip, to be read once: their mean, weighted by the speech in them, is the prediction.

    A clip without speech has one window: its beginning.

    Args:
        blocks: the clip, mono at the front-end's rate.
        frontend: has the length of a window and the distance between two.
        vad_filter: whether parts without speech are left out; if not, everything counts as speech.

    Attributes:
        speech: seconds of speech, complete once the whole clip has been read.
    """

    def __init__(self, blocks: Iterable[Samples], frontend: FrontendConfig, *, vad_filter: bool) -> None:
        self.speech = 0.0
        self._blocks, self._frontend, self._vad_filter = blocks, frontend, vad_filter
        self._length = 0
        self._kept = 0
        self._beginning: list[Samples] = []

    def __iter__(self) -> Iterator[Window]:
        c = self._frontend
        flow = self._spoken() if self._vad_filter else self._counted()
        cut = windows(flow, c.window_samples, c.hop_samples)
        wanted = 1 if c.long_clips == "truncate" else None
        for piece in islice(cut, wanted):
            if not self._vad_filter:
                yield Window(without_offset(piece), len(piece) / c.sampling_rate)
            elif len(piece):
                weight = float(piece[:, 1].sum()) / c.sampling_rate
                yield Window(without_offset(np.ascontiguousarray(piece[:, 0])), weight)
        for _ in cut:  # to the end, for the duration and the warnings
            pass
        if not self._kept:
            yield Window(np.concatenate(self._beginning), 0.0)

    def warnings(self) -> Iterator[str]:
        """Yield the warnings about missing speech, once the whole clip has been read."""
        rate = self._frontend.sampling_rate
        left = self._length - self._kept
        if not self._kept:
            yield NOBODY
        elif left >= LEFT_OUT_SECONDS * rate and left >= LEFT_OUT_SHARE * self._length:
            yield f"{left / self._length:.0%} left out, where nobody speaks"

    def _counted(self) -> Iterator[Samples]:
        for block in self._blocks:
            self._length += len(block)
            if not self._vad_filter:
                self._kept = self._length
                self.speech = self._length / self._frontend.sampling_rate
            elif (missing := self._frontend.window_samples - self._length + len(block)) > 0:
                self._beginning.append(block[:missing])
            yield block

    def _spoken(self) -> Iterator[Samples]:
        for kept in spoken_blocks(self._counted(), self._frontend.sampling_rate):
            self._kept += len(kept)
            self.speech += float(kept[:, 1].sum()) / self._frontend.sampling_rate
            yield kept


class Segmenter:
    """Cut a flow of mono samples into windows and send each through the network as soon as it is complete.

    Args:
        backend: the network.
        hop: seconds between the starts of two windows.
        window: length of a window in seconds; None is the model's own.
        smoothing: time constant in seconds of an exponential average over the segments before, 0 for none. Segments
            without speech are left out of it.
        batch_size: windows that go through the network at once.
        vad_filter: whether parts without speech are left out of a window.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        vad_filter: bool,
        hop: float = TIMELINE_HOP,
        window: float | None = None,
        smoothing: float = 0.0,
        batch_size: int = 16,
    ) -> None:
        frontend = backend.config.frontend
        self._backend = backend
        self._vad_filter = vad_filter
        self._rate = frontend.sampling_rate
        self._hop = _hop_samples(hop, self._rate)
        self._size = _window_samples(window, frontend)
        self._smoothing = seconds("smoothing", smoothing)
        self._batch_size = require_batch_size(batch_size)
        self._buffer = np.zeros(0, np.float32)
        self._arrived: list[Samples] = []  # after the buffer, not yet joined to it
        self._held = 0  # samples in both
        self._total = 0  # samples so far
        self._next = 0  # start of the next window, in samples from the start of the flow
        self._end = 0  # where the last window ended
        self._speechless: bool | None = None  # until there is a segment
        self._average: tuple[float, Floats] | None = None  # start and smoothed probabilities of the segment before

    def push(self, samples: Samples) -> list[Segment]:
        """Return the segments, possibly none, that the next samples `[samples]` complete.

        If the network fails or is interrupted, no segment is lost: the next call returns them.
        """
        self.take(samples)
        if self._total < self._next + self._size:
            if self._held > 2 * self._wanted:  # seldom, because it copies the whole buffer
                self._forget()
            return []
        with self._whole():
            segments = self._complete()
        self._forget()
        return segments

    def take(self, samples: Samples) -> None:
        """Store the next samples `[samples]` for the call that follows."""
        self._arrived.append(samples)
        self._total += len(samples)
        self._held += len(samples)

    def run(
        self, reader: AudioReader, progress: Callable[[float], object] | None
    ) -> tuple[list[Segment], AudioError | None]:
        """Return the segments of a whole recording, and the error that ended it early, if there was one."""
        segments: list[Segment] = []
        fault = None
        try:
            for block in reader:
                segments += self.push(block)
                if progress is not None:
                    progress(reader.duration)
        except AudioError as error:
            fault = error
        return segments + self.finish(), fault

    @property
    def speechless(self) -> bool:
        """Whether there are segments, and none of them has speech."""
        return self._speechless is True

    def finish(self) -> list[Segment]:
        """Return the remaining segments; the last one ends where the samples end."""
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
        """Restore the state if the block fails: a window that was not returned must not stay in the average."""
        before = self._next, self._end, self._average
        try:
            yield
        except BaseException:  # Ctrl-C too
            self._next, self._end, self._average = before
            raise

    def _complete(self) -> list[Segment]:
        """Return the segments of all complete windows."""
        starts = range(self._next, self._total - self._size + 1, self._hop)
        segments: list[Segment] = []
        for first in range(0, len(starts), self._batch_size):
            segments += self._infer(starts[first : first + self._batch_size], self._size)
        if starts:
            self._next, self._end = starts[-1] + self._hop, starts[-1] + self._size
        return segments

    @property
    def _wanted(self) -> int:
        """Samples that a later window may need: the last one is aligned to the end, which is not known yet."""
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
        cut = [cut_pauses(samples[start : start + size], self._rate, vad_filter=self._vad_filter) for start in relative]
        probabilities = self._probabilities(samples, relative, size, cut)
        segments = []
        for start, row, window in zip(starts, probabilities, cut, strict=True):
            self._speechless = self._speechless is not False and not window.speech
            if window.speech:
                row = self._smooth(start / self._rate, row)
            values = dict(zip(self._backend.config.labels, map(float, row), strict=True))
            segments.append(Segment(start / self._rate, (start + size) / self._rate, values, window.speech))
        return segments

    def _probabilities(self, samples: Samples, starts: Sequence[int], size: int, cut: Sequence[Window]) -> Floats:
        """Return the probabilities of all windows, `[windows, classes]`, 0 without speech."""
        rows = np.zeros((len(cut), len(self._backend.config.labels)), np.float32)
        spoken = [index for index, window in enumerate(cut) if window.speech]
        # Windows from which no pause was cut share the work on the frames they have in common.
        whole = [index for index in spoken if np.shares_memory(cut[index].samples, samples)]
        if whole:
            rows[whole] = self._backend.infer_cut(samples, [starts[index] for index in whole], size)[0]
        if parts := sorted(set(spoken) - set(whole)):
            rows[parts] = self._backend.infer(padded([cut[index].samples for index in parts]))[0]
        return rows

    def _smooth(self, start: float, row: Floats) -> Floats:
        if self._smoothing and self._average is not None:
            before, average = self._average
            keep = np.float32(math.exp(-(start - before) / self._smoothing))
            row = keep * average + (1 - keep) * row
        self._average = start, row
        return row


def padded(pieces: Sequence[Samples]) -> Samples:
    """Return pieces `[samples]` as one batch, the shorter ones padded with zeros."""
    batch = np.zeros((len(pieces), max(map(len, pieces))), np.float32)
    for row, piece in zip(batch, pieces, strict=True):
        row[: len(piece)] = piece
    return batch


def require_batch_size(batch_size: int) -> int:
    """Return `batch_size`.

    Raises:
        ConfigError: it is not a whole number of at least 1.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ConfigError(f"batch_size must be a whole number of at least 1, not {quoted(batch_size)}")
    return int(batch_size)


def seconds(name: str, value: float) -> float:
    """Return `value` as a float.

    Raises:
        ConfigError: it is not a number from 0 to 1e9.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ConfigError(f"{name} must be a number of seconds, not {quoted(value)}")
    if not 0 <= value <= MAX_SECONDS:  # also true for NaN
        raise ConfigError(f"{name} must be from 0 to {MAX_SECONDS:,.0f} seconds, not {quoted(value)}")
    return float(value)


def _hop_samples(hop: float, rate: int) -> int:
    samples = round(seconds("hop", hop) * rate)
    if samples < 1:
        raise ConfigError(
            f"hop must be at least one sample, {1 / rate:g} s, not {quoted(hop)}: 1.0 is a segment per second"
        )
    return samples


def _window_samples(window: float | None, frontend: FrontendConfig) -> int:
    if window is None:
        return frontend.window_samples
    samples = round(seconds("window", window) * frontend.sampling_rate)
    if samples < frontend.win_length:
        frame = frontend.win_length / frontend.sampling_rate
        raise ConfigError(
            f"window of {quoted(window)} s is shorter than one frame of {frame:g} s: give seconds, such as 2.0"
        )
    if samples > frontend.window_samples:
        raise ConfigError(
            f"window of {quoted(window)} s is longer than the {frontend.window_seconds:g} s the model sees"
        )
    return samples
