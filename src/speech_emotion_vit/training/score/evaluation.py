"""Scores of a network on items: what every table, card and command shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .metrics import (
    Floats,
    Indices,
    bootstrap_interval,
    confusion_matrix,
    expected_calibration_error,
    macro_f1,
    negative_log_likelihood,
    unweighted_average_recall,
    weighted_accuracy,
)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores on some clips; shares are from 0 to 1."""

    clips: int
    """Number of clips scored."""
    speakers: int
    """Number of speakers among them."""
    wa: float
    """Share of clips that are right."""
    wa_interval: tuple[float, float] | None
    """95 % interval over speakers, None for a single one."""
    ua: float
    """Mean over the classes of the share of their clips that are right."""
    ua_interval: tuple[float, float] | None
    """95 % interval over speakers, None for a single one."""
    macro_f1: float
    """Mean F1 over the classes."""
    ece: float
    """Expected calibration error, 15 bins."""
    nll: float
    """Mean negative log likelihood in nats."""
    labels: tuple[str, ...]
    """Names of the classes."""
    confusion: tuple[tuple[int, ...], ...]
    """Clips by true (row) and predicted (column) class."""

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scores:
        """Build from `to_dict`'s result, also after JSON."""
        checked = dict(values)
        for name in ("wa_interval", "ua_interval", "labels"):
            checked[name] = None if checked[name] is None else tuple(checked[name])
        checked["confusion"] = tuple(tuple(row) for row in checked["confusion"])
        return cls(**checked)


def score_clips(
    probabilities: Floats, targets: Indices, speakers: Sequence[str], labels: Sequence[str], *, seed: int = 0
) -> Scores:
    """Return the scores of clips.

    Args:
        probabilities: `[clips, classes]`.
        targets: true classes `[clips]`.
        speakers: who speaks `[clips]`; empty names count as unknown and give no interval.
        labels: names of the classes.
        seed: of the bootstrap.
    """
    predictions: Indices = probabilities.argmax(axis=1).astype(np.int64)
    confusion = confusion_matrix(targets, predictions, len(labels))
    known = [speaker for speaker in speakers if speaker]

    def interval(metric: Any) -> tuple[float, float] | None:
        if len(known) < len(speakers):
            return None
        return bootstrap_interval(targets, predictions, speakers, len(labels), metric=metric, seed=seed)

    return Scores(
        clips=len(targets),
        speakers=len(set(known)),
        wa=weighted_accuracy(confusion),
        wa_interval=interval(weighted_accuracy),
        ua=unweighted_average_recall(confusion),
        ua_interval=interval(unweighted_average_recall),
        macro_f1=macro_f1(confusion),
        ece=expected_calibration_error(targets, probabilities),
        nll=negative_log_likelihood(targets, probabilities),
        labels=tuple(labels),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )
