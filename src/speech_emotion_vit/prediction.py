"""The answers for a clip and for a segment of a recording: plain Python, ready to print, store and send."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import ConfigError, quoted
from .files import saved_text


class RankedLabels:
    """The label, its score and the ranking: they follow from probabilities and speech."""

    probabilities: dict[str, float]
    speech: float
    threshold: float

    @property
    def label(self) -> str | None:
        """The most probable label, the first of equals; None if there is no speech, or if it is below `threshold`."""
        if not self.speech or self.score < self.threshold:
            return None
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def score(self) -> float:
        """The probability of the most probable label; 0 if there is no speech."""
        return max(self.probabilities.values()) if self.speech else 0.0

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """Return the `k` most probable labels with their probabilities, best first; none if there is no speech.

        Raises:
            ConfigError: `k` is not a whole number of at least 1.
        """
        if not hasattr(k, "__index__") or k < 1:
            raise ConfigError(f"top(k) needs a whole k of at least 1, not {quoted(k)}")
        if not self.speech:
            return []
        return sorted(self.probabilities.items(), key=lambda item: -item[1])[:k]


@dataclass(frozen=True)
class Prediction(RankedLabels):
    """Calibrated emotion probabilities of one piece of audio."""

    probabilities: dict[str, float]
    """Probability of every label, in the model's label order; they sum to 1, or are all 0 if there is no speech."""
    duration: float
    """Length of the audio in seconds."""
    speech: float
    """Seconds of speech in the audio, from which the answer comes."""
    model: str
    """Name and revision of the model, ``base@1f0c3a52``."""
    warnings: tuple[str, ...] = ()
    """Reasons to trust the answer less: no speech, little speech; clipped, truncated, very short or upsampled audio."""
    threshold: float = 0.0
    """Least probability of a label."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready types."""
        return {
            "label": self.label,
            "score": self.score,
            "probabilities": dict(self.probabilities),
            "duration": self.duration,
            "speech": self.speech,
            "model": self.model,
            "warnings": list(self.warnings),
        }

    def to_json(self, path: str | os.PathLike[str] | None = None, *, indent: int | None = None) -> str:
        """Return `to_dict` as JSON, and write it to `path`."""
        return saved_text(json.dumps(self.to_dict(), ensure_ascii=False, indent=indent), path, "\n")

    def __repr__(self) -> str:
        ranking = ", ".join(f"{label} {probability:.2f}" for label, probability in self.top(3)) or "nobody speaks"
        notes = f", warnings: {'; '.join(self.warnings)}" if self.warnings else ""
        return f"<Prediction {ranking} ({self.duration:.2f} s, {self.model}{notes})>"


@dataclass(frozen=True)
class Segment(RankedLabels):
    """Emotion probabilities of one window of a longer recording."""

    start: float
    """Beginning in seconds from the start of the recording."""
    end: float
    """End in seconds; segments overlap if the hop is shorter than the window."""
    probabilities: dict[str, float]
    """Probability of every label, in the model's label order; they sum to 1, or are all 0 if there is no speech."""
    speech: float
    """Seconds of speech in the segment, from which the answer comes."""
    speaker: str | None = None
    """Name of the speaker, if a diarisation gave one."""
    text: str | None = None
    """The words, if a transcript gave them."""
    threshold: float = 0.0
    """Least probability of a label."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready types, with speaker and text if there are any."""
        others = {"speaker": self.speaker, "text": self.text}
        return {
            "start": self.start,
            "end": self.end,
            **{name: value for name, value in others.items() if value is not None},
            "label": self.label,
            "score": self.score,
            "probabilities": dict(self.probabilities),
            "speech": self.speech,
        }

    def __repr__(self) -> str:
        who = f"{self.speaker}: " if self.speaker else ""
        what = f"{self.label or 'unsure'} {self.score:.2f}" if self.speech else "nobody speaks"
        return f"<Segment {self.start:.2f}-{self.end:.2f} s {who}{what}>"


A = TypeVar("A", Prediction, Segment)


class Choice:
    """Restrict answers to some of a model's labels and to a least probability.

    Args:
        known: labels of the model, in their order.
        labels: the labels that can be the answer; None is all of them.
        threshold: least probability of a label, from 0 to 1.

    Attributes:
        labels: the labels that can be the answer, in the model's order.

    Raises:
        ConfigError: fewer than two labels, one that the model does not have, or a threshold out of range.
    """

    def __init__(self, known: Sequence[str], labels: Iterable[str] | None, threshold: float) -> None:
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
            raise ConfigError(f"threshold must be a probability from 0 to 1, not {quoted(threshold)}")
        self._threshold = float(threshold)
        self.labels = tuple(known)
        self._narrowed = labels is not None
        if labels is None:
            return
        if isinstance(labels, str) or not isinstance(labels, Iterable):
            raise ConfigError(f"labels must be a list of labels of this model, not {quoted(labels)}")
        asked = list(labels)
        for label in asked:
            if label not in known:
                raise ConfigError(f"this model has no label {quoted(label)}: choose among {', '.join(known)}")
        self.labels = tuple(label for label in known if label in asked)
        if len(self.labels) < 2:
            raise ConfigError(f"labels must be at least two, of which one is the answer, not {quoted(asked)}")

    def apply(self, answer: A) -> A:
        """Return an answer whose probabilities are those of the labels asked for, and sum to 1 again."""
        values = answer.probabilities
        if self._narrowed:
            total = sum(values[label] for label in self.labels)
            even = 1.0 / len(self.labels) if answer.speech else 0.0  # where none of them is possible at all
            values = {label: values[label] / total if total else even for label in self.labels}
        return dataclasses.replace(answer, probabilities=values, threshold=self._threshold)

    def apply_to_clip(self, answer: Prediction) -> Prediction:
        """Do what `apply` does, and add a warning where no label reaches the threshold."""
        answer = self.apply(answer)
        if answer.label is None and answer.speech:
            unsure = f"unsure: no label reaches the threshold of {self._threshold:g}"
            return dataclasses.replace(answer, warnings=(*answer.warnings, unsure))
        return answer
