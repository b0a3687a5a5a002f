"""The numbers behind the log-Mel front-end, in numpy: what torch and ONNX Runtime share."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

# Below this power a window counts as digital silence: sixty orders under full scale would still be above it,
# yet it keeps the division by the loudest value finite in float32.
SILENCE_POWER = 1e-20
# Of the image's 0..1. What lies less above the floor is on it, for the floor's logarithm is not exact in float32.
FLOOR_LEVEL = 1e-6


def hz_to_mel(frequency: npt.ArrayLike, scale: str) -> Doubles:
    """Return Mel values of `frequency` in Hz.

    Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz at 3 Mel per 200 Hz, then 27 Mel per factor 6.4.
    HTK's: ``2595 log10(1 + f / 700)``.
    """
    hertz = np.asarray(frequency, np.float64)
    if scale == "htk":
        return np.asarray(2595.0 * np.log10(1.0 + hertz / 700.0))
    logarithmic = 15.0 + np.log(np.maximum(hertz, 1e-9) / 1000.0) * (27.0 / math.log(6.4))
    return np.where(hertz < 1000.0, hertz * 3.0 / 200.0, logarithmic)


def mel_to_hz(mel: npt.ArrayLike, scale: str) -> Doubles:
    """Return the frequency in Hz of Mel values: the inverse of `hz_to_mel`."""
    values = np.asarray(mel, np.float64)
    if scale == "htk":
        return np.asarray(700.0 * (10.0 ** (values / 2595.0) - 1.0))
    return np.where(values < 15.0, values * 200.0 / 3.0, 1000.0 * np.exp((values - 15.0) * (math.log(6.4) / 27.0)))


def mel_edges(n_mels: int, f_min: float, f_max: float, scale: str) -> Doubles:
    """Return the `n_mels + 2` frequencies in Hz where triangles begin, peak and end: band i peaks at number i + 1."""
    low, high = hz_to_mel([f_min, f_max], scale)
    return mel_to_hz(np.linspace(low, high, n_mels + 2), scale)


def mel_filterbank(
    sampling_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float, scale: str, norm: str
) -> Doubles:
    """Return triangular filters `[n_fft // 2 + 1, n_mels]` for a power spectrum."""
    edges = mel_edges(n_mels, f_min, f_max, scale)
    bins = np.arange(n_fft // 2 + 1)[:, None] * (sampling_rate / n_fft)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(np.minimum(rising, falling), 0.0)
    return filters * (2.0 / (edges[2:] - edges[:-2])) if norm == "slaney" else filters


def interpolation_matrix(n_frames: int, columns: int, kind: str) -> Doubles:
    """Return weights `[n_frames, columns]` that take frames to columns; every column sums to 1.

    Pixel centres are aligned as in image resizing (``align_corners=False``). ``linear`` weighs the two nearest
    frames; ``antialias`` widens that triangle by the reduction factor.
    """
    ratio = n_frames / columns
    reach = ratio if kind == "antialias" else 1.0
    centre = (np.arange(columns) + 0.5) * ratio
    frames = np.arange(n_frames)[:, None] + 0.5
    weights = np.maximum(1.0 - np.abs(frames - centre) / reach, 0.0)
    return np.asarray(weights / weights.sum(axis=0, keepdims=True))


def analysis_window(name: str, length: int) -> Doubles:
    """Return a periodic Hamming or Hann window `[length]`."""
    floor = 0.54 if name == "hamming" else 0.5
    return floor - (1.0 - floor) * np.cos(2.0 * np.pi * np.arange(length) / length)
