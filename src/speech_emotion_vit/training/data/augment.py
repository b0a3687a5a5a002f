"""Augmentation of waveforms: rooms, microphones, telephone lines, noise, babble and speed; and the paper's versions.

A clean recording becomes one from a kitchen, a telephone or a street, because the student must work there, too. Every
function takes a numpy generator and depends on it alone. Waveforms are mono float32 `[samples]` at `RATE` Hz.

The paper's three altered versions of a recording, noise, shift and speed, are the same samples every time: their
randomness is seeded by the recording's id. Their values are read off the paper's figures where these show them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ...audio.reader import Samples
from ...model.config import FrontendConfig
from .corpora import ORIGINAL, Utterance

RATE = 16_000  # Hz
PEAK = 0.9  # of what `degrade` returns
FLOOR = 1e-6  # of an amplitude that is divided by
ROOM_SAMPLES = 8_000  # of a room's reverberation: half a second
SPEED_TAPS = 15  # of the low-pass in front of a faster clip

Bank = Callable[[np.random.Generator], Samples]
Spectrum = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """How often `degrade` does what, as probabilities, and how strong the noise is."""

    nothing: float = 0.15
    """The clip stays as it is."""
    equalizer: float = 0.7
    """A smooth gain curve over frequency: microphones and distances."""
    telephone: float = 0.12
    """A band from about 300 to 3400 Hz."""
    low_pass: float = 0.18
    """A limit between 2.5 and 7.5 kHz: codecs and cheap microphones."""
    high_pass: float = 0.1
    """A limit between 60 and 250 Hz: small loudspeakers and rumble filters. With the two above it is one of three."""
    room: float = 0.4
    """Decaying noise behind the direct sound."""
    noise: float = 0.8
    """Noise of `noise`, or babble."""
    quietest_db: float = 45.0
    """Noise lies at most this many dB below the speech."""
    loudest_db: float = 3.0
    """Noise lies at least this many dB below the speech."""
    clipping: float = 0.1
    """The peaks cut off."""
    quantising: float = 0.08
    """Five to eight bits."""
    mu_law: float = 0.08
    """Eight bits on the telephone's logarithmic scale."""


DEGRADATION = Degradation()


def degrade(
    waveform: Samples, rng: np.random.Generator, *, bank: Bank | None = None, settings: Degradation = DEGRADATION
) -> Samples:
    """Return `waveform` `[samples]` as recorded in another room by another microphone or line, without delay.

    Args:
        waveform: clean speech.
        rng: of everything random.
        bank: returns other clips, which babble is made of; None: no babble.
        settings: probabilities and levels.
    """
    from scipy import fft

    s = settings
    if not len(waveform) or rng.random() < s.nothing:
        return waveform
    # All linear parts are one multiplication. The reverberation needs space behind the clip.
    size = fft.next_fast_len(len(waveform) + ROOM_SAMPLES, real=True)
    frequency = np.fft.rfftfreq(size, 1 / RATE)
    response: npt.NDArray[np.complexfloating] = np.ones(len(frequency), np.complex64)
    if rng.random() < s.equalizer:
        response = response * equalizer(frequency, rng)
    kind = rng.random()
    if kind < s.telephone:
        response = response * band(frequency, low=rng.uniform(200, 400), high=rng.uniform(2800, 3900))
    elif kind < s.telephone + s.low_pass:
        response = response * band(frequency, high=rng.uniform(2500, 7500))
    elif kind < s.telephone + s.low_pass + s.high_pass:
        response = response * band(frequency, low=rng.uniform(60, 250))
    if rng.random() < s.room:
        response = response * fft.rfft(room(rng), size)
    altered = fft.irfft((fft.rfft(waveform, size) * response).astype(np.complex64), size)[: len(waveform)]
    if rng.random() < s.noise:
        level = np.sqrt(np.mean(np.square(altered))) * 10 ** (-rng.uniform(s.loudest_db, s.quietest_db) / 20)
        altered = altered + level * noise(len(altered), rng, bank=bank)
    peak = np.abs(altered).max() + FLOOR
    if rng.random() < s.clipping:
        limit = peak * rng.uniform(0.2, 0.8)
        altered = altered.clip(-limit, limit)
    if rng.random() < s.quantising:
        altered = quantise(altered, peak * 2.0 ** -int(rng.integers(5, 9)))
    if rng.random() < s.mu_law:
        altered = mu_law(altered, peak)
    return np.asarray(altered * (PEAK / (np.abs(altered).max() + FLOOR)), np.float32)


def noise(samples: int, rng: np.random.Generator, *, bank: Bank | None = None) -> Samples:
    """Return one of four kinds of noise `[samples]` with standard deviation 1.

    Coloured noise from blue to brown (45 %), mains hum with harmonics (15 %), noise that swells and fades (20 %), and
    babble of three to seven clips from `bank` (20 %; without a bank coloured noise).
    """
    kind = rng.random()
    time = np.arange(samples) / RATE
    if 0.45 <= kind < 0.6:
        base = rng.choice([50, 60, 100, 120]) * rng.uniform(0.99, 1.01)
        made = 0.1 * coloured(samples, rng, 1.0).astype(np.float64)
        for harmonic in range(1, rng.integers(3, 12)):
            wave = np.sin(2 * np.pi * base * harmonic * time + rng.uniform(0, 2 * np.pi))
            made += rng.uniform(0, 1) / harmonic * wave
    elif 0.6 <= kind < 0.8:
        swell = np.sin(2 * np.pi * rng.uniform(0.2, 8) * time + rng.uniform(0, 2 * np.pi))
        made = coloured(samples, rng, rng.uniform(0, 1.5)) * (1 + 0.9 * swell)
    elif kind >= 0.8 and bank is not None:
        made = np.zeros(samples)
        for _ in range(rng.integers(3, 8)):
            clip = bank(rng)
            if len(clip):
                made += np.resize(np.roll(clip, rng.integers(len(clip))), samples) * rng.uniform(0.3, 1)
    else:
        return coloured(samples, rng, rng.uniform(-0.5, 2.2))
    return np.asarray(made / (made.std() + FLOOR), np.float32)


def coloured(samples: int, rng: np.random.Generator, slope: float) -> Samples:
    """Return noise `[samples]` with standard deviation 1 whose power falls with frequency to the power `slope`.

    0 is white, 1 pink, 2 brown.
    """
    from scipy import fft

    size = fft.next_fast_len(max(samples, 2), real=True)
    frequency = np.fft.rfftfreq(size)
    frequency[0] = frequency[1]
    phases = rng.standard_normal(len(frequency)) + 1j * rng.standard_normal(len(frequency))
    made = fft.irfft((phases * frequency ** (-slope / 2)).astype(np.complex64), size)[:samples]
    return np.asarray(made / (made.std() + FLOOR), np.float32)


def equalizer(frequency: Spectrum, rng: np.random.Generator) -> Spectrum:
    """Return gains at `frequency` Hz `[bins]`: a smooth curve through four to eight random points."""
    points = rng.integers(4, 9)
    gains = rng.normal(0, rng.uniform(1, 6), points)  # dB
    places = np.linspace(np.log(50), np.log(RATE / 2 + 50), points)
    return 10 ** (np.interp(np.log(frequency + 50), places, gains) / 20)


def band(frequency: Spectrum, *, low: float = 0.0, high: float = 0.0) -> Spectrum:
    """Return gains at `frequency` Hz `[bins]` that let through what is above `low` and below `high` Hz; 0 is no limit.

    24 dB an octave below, 48 dB above, 3 dB at the limits.
    """
    gains = np.ones(len(frequency))
    if low:
        gains /= np.sqrt(1 + (low / (frequency + 1)) ** 8)
    if high:
        gains /= np.sqrt(1 + (frequency / high) ** 16)
    return gains


def room(rng: np.random.Generator) -> Samples:
    """Return a room's response `[ROOM_SAMPLES]`: the direct sound, then noise that falls by 60 dB in 0.1 to 0.9 s.

    The reverberation begins after 2 to 20 ms and has 3 dB more to 15 dB less energy than the direct sound.
    """
    time = np.arange(ROOM_SAMPLES) / RATE
    tail = rng.standard_normal(ROOM_SAMPLES) * 10 ** (-3 * time / rng.uniform(0.1, 0.9))
    tail[: int(rng.uniform(0.002, 0.02) * RATE)] = 0
    response = tail / np.sqrt(np.square(tail).sum()) * 10 ** (-rng.uniform(-3, 15) / 20)
    response[0] = 1
    return np.asarray(response, np.float32)


def quantise(waveform: Samples, step: float) -> Samples:
    """Return `waveform` rounded to multiples of `step`."""
    return np.asarray(np.round(waveform / step) * step, dtype=waveform.dtype)


def mu_law(waveform: Samples, peak: float) -> Samples:
    """Return `waveform` in eight bits of mu-law (ITU-T G.711) with full scale `peak`."""
    compressed = np.sign(waveform) * np.log1p(255 * np.minimum(np.abs(waveform) / peak, 1)) / np.log(256)
    rounded = np.round(compressed * 127) / 127
    return np.asarray(np.sign(rounded) * (256 ** np.abs(rounded) - 1) / 255 * peak, dtype=waveform.dtype)


def change_speed(waveform: Samples, speed: float) -> Samples:
    """Return `waveform` played `speed` times as fast, so higher and shorter, or lower and longer.

    It interpolates linearly, behind a low-pass for a faster clip: good enough for training, at a tenth of the cost of
    a resampler.
    """
    if speed == 1.0 or not len(waveform):
        return waveform
    if speed > 1.0:
        taps = np.sinc((np.arange(SPEED_TAPS) - SPEED_TAPS // 2) / speed) * np.hamming(SPEED_TAPS)
        waveform = np.convolve(waveform, taps / taps.sum(), "same")
    places = np.arange(int(len(waveform) / speed)) * speed
    return np.asarray(np.interp(places, np.arange(len(waveform)), waveform), np.float32)


def pad(waveform: Samples, before: int, behind: int, rng: np.random.Generator) -> Samples:
    """Return `waveform` with so many samples before and behind it, and the noise of a quiet room over all of it.

    The noise is pink, 44 to 100 dB below full scale; in a fifth of the clips it is digital silence.
    """
    padded = np.concatenate((np.zeros(before, np.float32), waveform, np.zeros(behind, np.float32)))
    if not before and not behind:
        return padded
    if rng.random() < 0.2:
        return padded
    return np.asarray(padded + 10 ** (-rng.uniform(44, 100) / 20) * coloured(len(padded), rng, 1.0), np.float32)


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
        utterance: has the version; its recording seeds the randomness.
        config: the front-end; noise fills its window, and a shift moves the recording inside it.
    """
    version = VERSIONS[utterance.version]
    if version.speed != 1.0:
        waveform = _stretch(waveform, version.speed, config.sampling_rate)
    if version.shift:
        silence = np.zeros(round(version.shift * config.window_samples), np.float32)
        longest = max(len(waveform), config.window_samples)
        waveform = np.concatenate((silence, waveform))[:longest]
    if version.noise_snr_db is not None:
        seed = hashlib.sha256(f"{utterance.version}:{utterance.recording}".encode()).digest()[:8]
        power = float(np.mean(np.square(waveform, dtype=np.float64)))
        padded = np.zeros(max(len(waveform), config.window_samples), np.float32)
        padded[: len(waveform)] = waveform
        rng = np.random.default_rng(int.from_bytes(seed, "little"))
        noise = rng.standard_normal(len(padded), dtype=np.float32)
        waveform = padded + noise * np.float32((power * 10.0 ** (-version.noise_snr_db / 10.0)) ** 0.5)
    return waveform


def _stretch(waveform: Samples, speed: float, sampling_rate: int) -> Samples:
    from audiomentations import TimeStretch

    transform = TimeStretch(min_rate=speed, max_rate=speed, leave_length_unchanged=False, p=1.0)
    return np.ascontiguousarray(transform(samples=waveform, sample_rate=sampling_rate), dtype=np.float32)
