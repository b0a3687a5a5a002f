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
