"""The paper's three augmented versions of a recording, as waveforms: noise, shift, speed.

The values are read off the paper's figures where they show them and chosen where they do not. A version is the
same samples every time: its randomness is seeded by the utterance's id.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ...audio.reader import Samples
from ...model.config import FrontendConfig


@dataclass(frozen=True, kw_only=True)
class Version:
    """One way to alter a recording."""

    name: str
    """Name in tables."""
    noise_snr_db: float | None = None
    """White noise this many dB below the recording's mean power, added after padding, over the whole window."""
    shift: float = 0.0
    """Move the recording to the right by this share of the window; zeros come before it, the window's end cuts it."""
    speed: float = 1.0
    """Play this much faster, at the same pitch."""


VERSIONS = (
    Version(name="original"),
    Version(name="noise", noise_snr_db=20.0),  # the level is not published; 20 dB fits the figure
    Version(name="shift", shift=1 / 3),  # read off the one example shown
    Version(name="speed", speed=1.2),  # published
)


def make_version(waveform: Samples, version: int, config: FrontendConfig, *, key: str) -> Samples:
    """Return `waveform` `[samples]` in one of `VERSIONS`, `[other samples]`.

    Args:
        waveform: mono at the front-end's rate.
        version: index into `VERSIONS`.
        config: the front-end; its window is what noise fills and a shift moves in.
        key: what seeds the randomness: the utterance's id.
    """
    wanted = VERSIONS[version]
    if wanted.speed != 1.0:
        waveform = _stretch(waveform, wanted.speed, config.sampling_rate)
    if wanted.shift:
        silence = np.zeros(round(wanted.shift * config.window_samples), np.float32)
        longest = max(len(waveform), config.window_samples)
        waveform = np.concatenate((silence, waveform))[:longest]
    if wanted.noise_snr_db is not None:
        seed = int.from_bytes(hashlib.sha256(f"{wanted.name}:{key}".encode()).digest()[:8], "little")
        power = float(np.mean(np.square(waveform, dtype=np.float64)))
        padded = np.zeros(max(len(waveform), config.window_samples), np.float32)
        padded[: len(waveform)] = waveform
        noise = np.random.default_rng(seed).standard_normal(len(padded), dtype=np.float32)
        waveform = padded + noise * np.float32((power * 10.0 ** (-wanted.noise_snr_db / 10.0)) ** 0.5)
    return waveform


def _stretch(waveform: Samples, speed: float, sampling_rate: int) -> Samples:
    from audiomentations import TimeStretch

    transform = TimeStretch(min_rate=speed, max_rate=speed, leave_length_unchanged=False, p=1.0)
    return np.ascontiguousarray(transform(samples=waveform, sample_rate=sampling_rate), dtype=np.float32)
