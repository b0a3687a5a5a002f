"""The paper's three altered versions of a recording, as waveforms: noise, shift, speed.

The values are read off the paper's figures where they show them and chosen where they do not. A version is the
same samples every time: its randomness is seeded by the recording's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ...audio.reader import Samples
from ...model.config import FrontendConfig
from .corpora import ORIGINAL, Utterance


@dataclass(frozen=True, kw_only=True)
class Version:
    """One way to alter a recording."""

    noise_snr_db: float | None = None
    """White noise this many dB below the recording's mean power, added after padding, over the whole window."""
    shift: float = 0.0
    """Move the recording to the right by this share of the window; zeros come before it, the window's end cuts it."""
    speed: float = 1.0
    """Play this much faster, at the same pitch."""


VERSIONS: Mapping[str, Version] = MappingProxyType(
    {
        ORIGINAL: Version(),
        "noise": Version(noise_snr_db=20.0),  # the level is not published; 20 dB fits the figure
        "shift": Version(shift=1 / 3),  # read off the one example shown
        "speed": Version(speed=1.2),  # published
    }
)


def alter(waveform: Samples, utterance: Utterance, config: FrontendConfig) -> Samples:
    """Return `waveform` `[samples]` in the version of `utterance`, `[other samples]`.

    Args:
        waveform: the recording, mono at the front-end's rate.
        utterance: names the version; its recording seeds the randomness.
        config: the front-end; its window is what noise fills and a shift moves in.
    """
    wanted = VERSIONS[utterance.version]
    if wanted.speed != 1.0:
        waveform = _stretch(waveform, wanted.speed, config.sampling_rate)
    if wanted.shift:
        silence = np.zeros(round(wanted.shift * config.window_samples), np.float32)
        longest = max(len(waveform), config.window_samples)
        waveform = np.concatenate((silence, waveform))[:longest]
    if wanted.noise_snr_db is not None:
        seed = hashlib.sha256(f"{utterance.version}:{utterance.recording}".encode()).digest()[:8]
        power = float(np.mean(np.square(waveform, dtype=np.float64)))
        padded = np.zeros(max(len(waveform), config.window_samples), np.float32)
        padded[: len(waveform)] = waveform
        rng = np.random.default_rng(int.from_bytes(seed, "little"))
        noise = rng.standard_normal(len(padded), dtype=np.float32)
        waveform = padded + noise * np.float32((power * 10.0 ** (-wanted.noise_snr_db / 10.0)) ** 0.5)
    return waveform


def _stretch(waveform: Samples, speed: float, sampling_rate: int) -> Samples:
    from audiomentations import TimeStretch

    transform = TimeStretch(min_rate=speed, max_rate=speed, leave_length_unchanged=False, p=1.0)
    return np.ascontiguousarray(transform(samples=waveform, sample_rate=sampling_rate), dtype=np.float32)
