"""What several tests need."""

from __future__ import annotations

from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
CLIPS = sorted((ROOT / "examples" / "clips").glob("*.flac"))
assert len(CLIPS) == 6


def tone(frequency: float, seconds: float, rate: int = 16_000) -> np.ndarray:
    """A sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)
