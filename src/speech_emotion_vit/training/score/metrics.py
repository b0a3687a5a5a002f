"""Metrics of class indices and probabilities, `Scores` that gather them, and the temperature that calibrates.

Recall, F1 and likelihood are scikit-learn's. Kept by hand: the calibration error, which it does not have, and intervals
over speakers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CONFIDENCE_LEVEL = 0.95  # of every interval
CALIBRATION_BINS = 15  # of Guo et al., On Calibration of Modern Neural Networks, ICML 2017
TEMPERATURES = (0.05, 20.0)  # where the best one is looked for; a network outside them has learnt nothing


class Scores(msgspec.Struct, frozen=True, kw_only=True):
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
    """Expected calibration error, 15 bins; uncertain if `clips` are few."""
    nll: float
    """Mean negative log likelihood in nats."""
    labels: tuple[str, ...]
    """Names of the classes."""
    confusion: tuple[tuple[int, ...], ...]
    """Clips by true (row) and predicted (column) class."""

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON-ready types."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values

    @classmethod
    def from_dict(cls, values: object) -> Scores:
        """Build from `to_dict`'s result, also after JSON.

        Raises:
            msgspec.ValidationError: it is not that.
        """
        return msgspec.convert(values, cls)


def score_clips(probabilities: Floats, targets: Indices, speakers: Sequence[str], labels: Sequence[str]) -> Scores:
    """Return the scores of clips.

    Args:
        probabilities: `[clips, classes]`.
        targets: true classes `[clips]`.
        speakers: who speaks `[clips]`; empty names count as unknown and give no interval.
        labels: names of the classes.
    """
    from sklearn.metrics import confusion_matrix, f1_score

    _require_probabilities(targets, probabilities)
    predictions = probabilities.argmax(axis=1)
    confusion = confusion_matrix(targets, predictions, labels=np.arange(len(labels)))
    known = [speaker for speaker in speakers if speaker]

    def interval(metric: Metric) -> tuple[float, float] | None:
        return None if len(known) < len(speakers) else speaker_interval(metric, targets, predictions, speakers)

    return Scores(
        clips=len(targets),
        speakers=len(set(known)),
        wa=weighted_accuracy(targets, predictions),
        wa_interval=interval(weighted_accuracy),
        ua=unweighted_average_recall(targets, predictions),
        ua_interval=interval(unweighted_average_recall),
        macro_f1=float(f1_score(targets, predictions, average="macro", zero_division=0)),
        ece=expected_calibration_error(targets, probabilities),
        nll=negative_log_likelihood(targets, probabilities),
        labels=tuple(labels),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


Metric = Callable[[Indices, Indices], float]


def weighted_accuracy(targets: Indices, predictions: Indices) -> float:
    """Return the share of clips that are right (WA), of classes `[clips]`."""
    return float(np.mean(targets == predictions))


def unweighted_average_recall(targets: Indices, predictions: Indices) -> float:
    """Return the mean over the classes that occur of the share of their clips that are right (UA)."""
    from sklearn.metrics import recall_score

    return float(recall_score(targets, predictions, labels=np.unique(targets), average="macro", zero_division=0))


def expected_calibration_error(targets: Indices, probabilities: Floats, *, bins: int = CALIBRATION_BINS) -> float:
    """Return the mean gap between confidence and accuracy over equally wide bins of confidence (ECE).

    Guo et al., 2017. Bins are open on the left.

    Args:
        targets: true classes `[clips]`.
        probabilities: `[clips, classes]`, every row summing to 1.
        bins: number of bins.
    """
    _require_probabilities(targets, probabilities)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(targets))


def negative_log_likelihood(targets: Indices, probabilities: Floats, weights: Floats | None = None) -> float:
    """Return the mean of minus the logarithm of the true class's probability, in nats, by `weights` `[clips]`."""
    from sklearn.metrics import log_loss

    _require_probabilities(targets, probabilities)
    return float(log_loss(targets, probabilities, labels=np.arange(probabilities.shape[1]), sample_weight=weights))


def _require_probabilities(targets: Indices, probabilities: Floats) -> None:
    """Check the arguments of a metric.

    Raises:
        ValueError: there is nothing to score, a shape or class is wrong, or rows do not sum to 1.
    """
    if targets.ndim != 1 or len(targets) == 0 or probabilities.ndim != 2 or len(probabilities) != len(targets):
        shapes = f"{list(targets.shape)} and {list(probabilities.shape)}"
        raise ValueError(f"targets and probabilities must be [clips] and [clips, classes], clips > 0, not {shapes}")
    if targets.min() < 0 or targets.max() >= probabilities.shape[1]:
        raise ValueError(
            f"targets must be from 0 to {probabilities.shape[1] - 1}, not {targets.min()} to {targets.max()}"
        )
    if not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-4) or probabilities.min() < 0:
        raise ValueError("probabilities must be rows of at least 0 that sum to 1")


def speaker_interval(
    metric: Metric, targets: Indices, predictions: Indices, speakers: Sequence[str]
) -> tuple[float, float] | None:
    """Return the 95 % interval of `metric` over speakers within 0 and 1, None for fewer than two of them.

    Clips of one speaker are not independent, so each speaker is left out once (jackknife). Student's t distribution,
    with one degree of freedom less than there are speakers, makes the interval wide enough for few speakers: with four,
    a percentile bootstrap covers the truth in 80 % of cases only. The interval is never narrower than that of
    independent clips, because few speakers may agree by chance.

    Args:
        metric: of true and predicted classes.
        targets: true classes `[clips]`.
        predictions: predicted classes `[clips]`.
        speakers: who speaks, `[clips]`.
    """
    from scipy import stats

    names, owners = np.unique(np.asarray(speakers), return_inverse=True)
    count = len(names)
    if count < 2:
        return None
    left_out = [metric(targets[owners != index], predictions[owners != index]) for index in range(count)]
    deviation = math.sqrt((count - 1) ** 2 / count * np.var(left_out, ddof=1))
    deviation = max(deviation, _chance_deviation(metric, targets, predictions))
    reach = float(stats.t.ppf((1.0 + CONFIDENCE_LEVEL) / 2.0, count - 1)) * deviation
    value = metric(targets, predictions)
    return max(0.0, value - reach), min(1.0, value + reach)


def _chance_deviation(metric: Metric, targets: Indices, predictions: Indices) -> float:
    """Return the standard deviation that `metric` would have if clips were independent.

    One right and one wrong clip are added to each class, because a class that is always right is not certain.
    """
    groups = targets if metric is unweighted_average_recall else np.zeros_like(targets)
    index, counts = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    shares = (np.bincount(index, weights=targets == predictions) + 1.0) / (counts + 2.0)
    return float(np.sqrt(np.sum(shares * (1.0 - shares) / counts)) / len(counts))


def mean_probabilities(logits: Floats, owners: Indices, temperature: float = 1.0) -> Floats:
    """Return the probabilities `[clips, classes]` of clips: softmax of every window's logits, then the mean.

    Args:
        logits: `[windows, classes]`.
        owners: the clip of each window `[windows]`, from 0, without gaps.
        temperature: what the logits are divided by.
    """
    from scipy.special import softmax

    sums = np.zeros((int(owners.max()) + 1, logits.shape[1]))
    np.add.at(sums, owners, softmax(logits / temperature, axis=1))
    return sums / np.bincount(owners)[:, None]


def fit_temperature(logits: Floats, owners: Indices, targets: Indices, weights: Floats | None = None) -> float:
    """Return the temperature, within `TEMPERATURES`, that makes the clips' negative log likelihood smallest.

    Args:
        logits: of windows that nothing was trained on `[windows, classes]`.
        owners: the clip of each window `[windows]`.
        targets: true classes of the clips `[clips]`.
        weights: of the clips `[clips]`; None: all the same.
    """
    from scipy.optimize import minimize_scalar

    def cost(logarithm: float) -> float:
        probabilities = mean_probabilities(logits, owners, math.exp(logarithm))
        return negative_log_likelihood(targets, probabilities, weights)

    low, high = map(math.log, TEMPERATURES)
    found = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return math.exp(found.x)


def cross_fitted(logits: Floats, owners: Indices, targets: Indices, groups: npt.NDArray[Any]) -> tuple[Floats, float]:
    """Return probabilities `[clips, classes]` at the temperature that fits the other groups, and what fits all.

    So calibration is scored on clips that the temperature was not fitted to. All groups have the same weight.

    Args:
        logits: of windows `[windows, classes]`.
        owners: the clip of each window `[windows]`.
        targets: true classes of the clips `[clips]`.
        groups: fold or corpus of each clip `[clips]`; a single group is calibrated by itself.
    """
    names, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    weights = 1.0 / counts[index]
    probabilities = np.zeros((len(targets), logits.shape[1]))

    def fit(chosen: npt.NDArray[np.bool_]) -> float:
        windows, number = chosen[owners], np.cumsum(chosen) - 1
        return fit_temperature(logits[windows], number[owners[windows]], targets[chosen], weights[chosen])

    for name in range(len(names)):
        others = index != name if len(names) > 1 else index == name
        probabilities[index == name] = mean_probabilities(logits, owners, fit(others))[index == name]
    return probabilities, fit(np.ones(len(targets), dtype=bool))
