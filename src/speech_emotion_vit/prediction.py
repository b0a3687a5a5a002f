"""What the classifier answers. No torch here: results are plain Python, ready to print, store and send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import ConfigError


@dataclass(frozen=True)
class Prediction:
    """Calibrated emotion probabilities of one piece of audio."""

    probabilities: dict[str, float]
    """Probability of every label, in the model's label order; they sum to 1."""
    duration: float
    """Length of the audio in seconds."""
    model: str
    """Name and revision of the model that answered, ``crema-d@1f0c3a52``."""
    warnings: tuple[str, ...] = ()
    """Why the answer deserves less trust: silent, clipped, truncated, very short or upsampled audio."""

    @property
    def label(self) -> str:
        """The most probable label; the first of equals."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def score(self) -> float:
        """The probability of `label`."""
        return self.probabilities[self.label]

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """Return the `k` most probable labels with their probabilities, best first.

        Raises:
            ConfigError: `k` is less than 1.
        """
        if k < 1:
            raise ConfigError(f"top(k) needs k of at least 1, not {k}")
        return sorted(self.probabilities.items(), key=lambda item: -item[1])[:k]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready types."""
        return {
            "label": self.label,
            "score": self.score,
            "probabilities": dict(self.probabilities),
            "duration": self.duration,
            "model": self.model,
            "warnings": list(self.warnings),
        }

    def __repr__(self) -> str:
        ranking = ", ".join(f"{label} {probability:.2f}" for label, probability in self.top(3))
        notes = f", warnings: {'; '.join(self.warnings)}" if self.warnings else ""
        return f"<Prediction {ranking} ({self.duration:.2f} s, {self.model}{notes})>"
