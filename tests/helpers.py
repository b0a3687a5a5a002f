"""What several tests need."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
CLIPS = sorted((ROOT / "examples" / "clips").glob("*.flac"))
assert len(CLIPS) == 6


def tone(frequency: float, seconds: float, rate: int = 16_000) -> np.ndarray:
    """A sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def speech(seconds: float) -> np.ndarray:
    """The six example clips in a row at 16 kHz, as often as needed."""
    return np.resize(
        np.concatenate([soundfile.read(clip, dtype="float32")[0] for clip in CLIPS]), round(seconds * 16_000)
    )


def encoded(samples: np.ndarray, rate: int = 16_000, **options: Any) -> bytes:
    """The content of a WAV of 16 bits, or what the options of soundfile say, with samples `[frames, channels]`."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **options})
    return buffer.getvalue()


def nothings(seconds: float) -> dict[str, np.ndarray]:
    """Sounds in which nobody speaks, at half of full scale, 16 kHz."""
    random = np.random.default_rng(0)
    samples = round(seconds * 16_000)
    time = np.arange(samples) / 16_000

    def coloured(slope: float) -> np.ndarray:
        spectrum = np.fft.rfft(random.standard_normal(samples))
        return np.fft.irfft(spectrum * np.maximum(np.fft.rfftfreq(samples, 1 / 16_000), 20) ** -slope, samples)

    white = coloured(0)
    sounds = {
        "zeros": np.zeros(samples),
        "offset": np.ones(samples),
        "white": white,
        "pink": coloured(0.5),
        "brown": coloured(1),
        "room": coloured(0.7) + 0.3 * np.sin(2 * np.pi * 50 * time),
        "hum": sum(np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 20)),
        "dial": np.sin(2 * np.pi * 350 * time) + np.sin(2 * np.pi * 440 * time),
        "busy": np.sin(2 * np.pi * 425 * time) * (time % 1 < 0.5),
        "chord": sum(np.sin(2 * np.pi * f * k * time) / k for f in (220, 277, 330) for k in (1, 2, 3)),
        "sweep": np.sin(2 * np.pi * (100 * time + 400 * time**2)),
        "clicks": (np.arange(samples) % 4000 < 8) * 1.0,
        "fan": white * (1 + 0.5 * np.sin(2 * np.pi * 5 * time)),
    }
    return {name: (0.5 * sound / max(1e-9, np.abs(sound).max())).astype(np.float32) for name, sound in sounds.items()}
