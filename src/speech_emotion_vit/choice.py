"""Which labels are asked for, and how sure an answer must be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TypeVar

from .errors import ConfigError, quoted
from .prediction import Prediction, Segment

A = TypeVar("A", Prediction, Segment)


class Choice:
    """Narrow answers to some of a model's labels, and to those that are sure enough.

    Args:
        known: labels of the model, in their order.
        labels: those that can be the answer; None is all of them.
        threshold: least probability of a label, from 0 to 1.

    Attributes:
        labels: those that can be the answer, in the model's order.

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

    def said_of(self, answer: Prediction) -> Prediction:
        """Return what `of` does, with a warning where no label is sure enough."""
        answer = self.of(answer)
        if answer.speech and answer.label is None:
            unsure = f"unsure: no label reaches the threshold of {self._threshold:g}"
            return dataclasses.replace(answer, warnings=(*answer.warnings, unsure))
        return answer

    def of(self, answer: A) -> A:
        """Return an answer whose probabilities are those of the labels asked for, and sum to 1 again."""
        values = answer.probabilities
        if self._narrowed:
            total = sum(values[label] for label in self.labels)
            even = 1.0 / len(self.labels) if answer.speech else 0.0  # where none of them is anything but impossible
            values = {label: values[label] / total if total else even for label in self.labels}
        return dataclasses.replace(answer, probabilities=values, threshold=self._threshold)
