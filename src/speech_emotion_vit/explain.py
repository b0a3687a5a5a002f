"""Explain an answer: the network's input and its attention over time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .audio.reader import AudioReader, Samples, windows, without_offset
from .audio.speech import find_speech
from .backends.base import Backend, Floats
from .errors import AudioError
from .extras import require
from .pictures import minutes, save_picture, time_axis, title
from .prediction import Prediction
from .windows import NOBODY, SILENT_WEIGHT, cut_pauses, padded, seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IMAGE_RANGE = 80.0  # dB from the darkest to the brightest of a picture
_MEL_TICKS = (250, 500, 1000, 2000, 4000, 8000)  # Hz
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
        figure: Figure = require("matplotlib.figure", "plot").Figure(figsize=(10, 6), layout="constrained")
        wave, image, attention = figure.subplots(3, 1, sharex=True, height_ratios=[2, 4, 2])
        times, bands = self.times, self.frequencies
        step = times[1] - times[0] if len(times) > 1 else self.end - self.start
        moments = self.start + np.arange(len(self.waveform)) / self.sampling_rate
        wave.plot(moments, self.waveform, color="0.3", linewidth=0.5)
        limit = 1.05 * max(float(np.abs(self.waveform).max()), 1e-6)
        wave.set(ylabel="waveform", ylim=(-limit, limit))

        extent = (times[0] - step / 2, times[-1] + step / 2, -0.5, len(bands) - 0.5)
        decibels = _IMAGE_RANGE * (self.spectrogram - 1)
        seen = image.imshow(
            decibels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-_IMAGE_RANGE, vmax=0
        )
        figure.colorbar(seen, ax=image, pad=0.01, label="dB below the loudest")
        ticks = [tick for tick in _MEL_TICKS if bands[0] <= tick <= bands[-1]]
        image.set_yticks(np.interp(ticks, bands, np.arange(len(bands))), [f"{t:g}" for t in ticks])
        image.set(ylabel="Mel band, Hz")

        covered = self.covered
        # In units of even attention over all columns, so that pictures of different clips can be compared.
        level = self.attention * len(self.attention)
        edges = np.append(times[covered] - step / 2, times[covered][-1] + step / 2)
        attention.stairs(level[covered], edges, fill=True, color="C1", alpha=0.8)
        attention.axhline(1, color="0.5", linewidth=0.8, linestyle="--")
        attention.set_ylabel("attention\n(1 = even)")
        time_axis(attention, self.start, self.end)
        attention.set_ylim(0, max(1.5, 1.1 * float(level[covered].max())))
        ranking = ", ".join(f"{label} {probability:.0%}" for label, probability in self.prediction.top(3))
        where = f"{minutes(self.start)} to {minutes(self.end)}"
        above = f"{ranking or 'nobody speaks'}\n{title(self.file, self.prediction.model)}, {where}"
        figure.suptitle(above, fontsize="medium", parse_math=False)
        return figure

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `plot` to a file, whole or not at all: PNG, SVG or PDF by its suffix.

        Raises:
            ConfigError: matplotlib is not installed, the suffix is unknown, or nothing can be written there.
        """
        save_picture(self.plot(), path)

    def __repr__(self) -> str:
        peak = float(self.times[int(self.attention.argmax())])
        return f"<Explanation {self.start:.2f}-{self.end:.2f} s, most attention at {peak:.2f} s, {self.prediction!r}>"


def explain(backend: Backend, reader: AudioReader, start: float | None, *, model: str, vad_filter: bool) -> Explanation:
    """Return the explanation of one window; see `EmotionClassifier.explain`."""
    frontend = backend.config.frontend
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
    attention = backend.attention(window)
    row = attention.probabilities if spoken else np.zeros_like(attention.probabilities)
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
        times=(attention.times.astype(np.float64) + begin_seconds).astype(np.float32),
        attention=attention.weights,
        spectrogram=attention.image,
        frequencies=attention.frequencies,
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
