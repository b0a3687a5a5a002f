"""Explain an answer: the network's input and its attention over time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .audio.reader import AudioInput, AudioReader, Channel, Samples, windows, without_offset
from .audio.speech import find_speech
from .backends.base import Backend, Floats
from .errors import AudioError
from .pictures import draw_explanation, save_picture
from .prediction import Prediction
from .windows import NOBODY, SILENT_WEIGHT, cut_pauses, padded, seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AT_ONCE = 8  # windows of a long recording that go through the network at once


@dataclass(frozen=True, eq=False)
class Explanation:
    """Attention over time in one window of audio, with the network's input."""

    prediction: Prediction
    """The answer for this window alone."""
    start: float
    """Beginning of the window in seconds from the start of the recording."""
    end: float
    """End of its audio in seconds; the rest of the network's window is padding."""
    times: Floats
    """Middle of every column in seconds from the start of the recording, `[columns]`, padding included."""
    attention: Floats
    """Attention rollout of every column, `[columns]`; sums to 1."""
    spectrogram: Floats
    """The log-Mel image, the network's input, `[n_mels, columns]`, 0 (80 dB below the loudest) to 1."""
    frequencies: Floats
    """Centre of every Mel band in Hz, `[n_mels]`."""
    waveform: Samples
    """The window's samples, mono, `[samples]`."""
    sampling_rate: int
    """Hz of `waveform`."""
    file: str
    """Name of the recording."""

    @property
    def padding(self) -> float:
        """Share of the attention that falls on padding."""
        return float(self.attention[~self.covered].sum())

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """Which columns have their middle in the audio, `[columns]`; the first one always."""
        covered = self.times < self.end + 5e-4  # the last frame stands on the end, and times are rounded
        covered[0] = True
        return covered

    def plot(self) -> Figure:
        """Return a matplotlib figure: waveform, log-Mel spectrogram and attention, over the same seconds.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        return draw_explanation(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `plot` to a file, whole or not at all: PNG, SVG or PDF by its suffix.

        Raises:
            ConfigError: matplotlib is not installed, the suffix is unknown, or nothing can be written there.
        """
        save_picture(self.plot(), path)

    def __repr__(self) -> str:
        peak = float(self.times[int(self.attention.argmax())])
        return f"<Explanation {self.start:.2f}-{self.end:.2f} s, most attention at {peak:.2f} s, {self.prediction!r}>"


def explain(
    backend: Backend,
    audio: AudioInput,
    *,
    sampling_rate: int | None,
    channel: Channel,
    track: int | None,
    start: float | None,
    model: str,
    vad_filter: bool,
) -> Explanation:
    """Return the explanation of one window; see `EmotionClassifier.explain`."""
    frontend = backend.config.frontend
    reader = AudioReader(
        audio, sampling_rate=sampling_rate, target_rate=frontend.sampling_rate, channel=channel, track=track
    )
    if start is None:
        begin, window = _decisive_window(backend, reader, vad_filter=vad_filter)
    else:
        begin, window = _window_at(reader, start, frontend.window_samples)
    spoken = len(window) / frontend.sampling_rate
    if vad_filter:
        found = find_speech(window, frontend.sampling_rate)
        if start is None and found.spoken.any():
            low, high = found.bounds(len(window), frontend.sampling_rate)
            begin, window = begin + low, window[low:high]
        spoken = found.seconds
    window = without_offset(window)
    seen = backend.attention(window)
    row = seen.probabilities if spoken else np.zeros_like(seen.probabilities)
    begin_seconds = begin / frontend.sampling_rate
    duration = len(window) / frontend.sampling_rate
    labels = backend.config.labels
    return Explanation(
        prediction=Prediction(
            probabilities=dict(zip(labels, map(float, row), strict=True)),
            duration=duration,
            speech=spoken,
            model=model,
            warnings=(*(() if spoken else (NOBODY,)), *reader.warnings),
        ),
        start=begin_seconds,
        end=begin_seconds + duration,
        times=(seen.times.astype(np.float64) + begin_seconds).astype(np.float32),
        attention=seen.weights,
        spectrogram=seen.image,
        frequencies=seen.frequencies,
        waveform=window,
        sampling_rate=frontend.sampling_rate,
        file=reader.file,
    )


def _decisive_window(backend: Backend, reader: AudioReader, *, vad_filter: bool) -> tuple[int, Samples]:
    """Return start and samples of the window with the highest probability of the whole recording's label."""
    frontend = backend.config.frontend
    length = 0

    def counted() -> Iterator[Samples]:
        nonlocal length
        for block in reader:
            length += len(block)
            yield block

    best: dict[int, tuple[float, int, Samples]] = {}  # label -> probability, number and samples of its best window
    total = np.zeros(len(backend.config.labels))
    cut = enumerate(windows(counted(), frontend.window_samples, frontend.hop_samples))
    while group := list(islice(cut, _AT_ONCE)):
        pieces = [cut_pauses(window, frontend.sampling_rate, vad_filter=vad_filter) for _, window in group]
        results, _ = backend.infer(padded([piece.samples for piece in pieces]))
        for (number, window), (_, speech), probabilities in zip(group, pieces, results, strict=True):
            weight = max(speech, SILENT_WEIGHT)
            total += weight * probabilities
            for label, probability in enumerate(min(speech, 1.0) * probabilities):
                if label not in best or probability > best[label][0]:
                    best[label] = float(probability), number, window
    _, number, window = best[int(total.argmax())]
    return min(number * frontend.hop_samples, length - len(window)), window  # the last is aligned to the end


def _window_at(reader: AudioReader, start: float, size: int) -> tuple[int, Samples]:
    """Return start and samples of the window that begins at `start` seconds, and read the recording to its end."""
    begin = round(seconds("start", start) * reader.target_rate)
    position = 0
    parts: list[Samples] = []
    for block in reader:
        parts.append(block[max(0, begin - position) : max(0, begin + size - position)].copy())
        position += len(block)
    window = np.concatenate(parts)
    if not len(window):
        raise AudioError(f"{reader.name}: nothing at {start:g} s, the recording ends after {reader.duration:.2f} s")
    return begin, window
