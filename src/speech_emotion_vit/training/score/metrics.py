"""Metrics: pure functions on class indices and probabilities, and the temperature that calibrates them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def validate(targets: Indices, predictions: Indices, num_classes: int) -> None:
    """Refuse what no metric can take.

    Raises:
        ValueError: there is nothing to score, the shapes differ, or a class index is out of range.
    """
    if targets.ndim != 1 or targets.shape != predictions.shape or len(targets) == 0:
        shapes = f"{list(targets.shape)} and {list(predictions.shape)}"
        raise ValueError(f"targets and predictions must have one shape [n] with n > 0, not {shapes}")
    for name, values in (("targets", targets), ("predictions", predictions)):
        if values.min() < 0 or values.max() >= num_classes:
            raise ValueError(f"{name} must be from 0 to {num_classes - 1}, not {values.min()} to {values.max()}")


def confusion_matrix(targets: Indices, predictions: Indices, num_classes: int) -> Indices:
    """Return counts `[num_classes, num_classes]`: row the true class, column the predicted one."""
    validate(targets, predictions, num_classes)
    counts = np.bincount(targets * num_classes + predictions, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def weighted_accuracy(confusion: Indices) -> float:
    """Return the share of clips that are right (WA)."""
    return float(np.trace(confusion) / confusion.sum())


def unweighted_average_recall(confusion: Indices) -> float:
    """Return the mean over the classes that occur of the share of their clips that are right (UA)."""
    actual = confusion.sum(axis=1)
    occurs = actual > 0
    return float(np.mean(np.diag(confusion)[occurs] / actual[occurs]))


def macro_f1(confusion: Indices) -> float:
    """Return the mean F1 over the classes that occur or are predicted; 0 for a class that is never right."""
    right = np.diag(confusion)
    either = confusion.sum(axis=0) + confusion.sum(axis=1)
    present = either > 0
    return float(np.mean(2.0 * right[present] / either[present]))


def expected_calibration_error(targets: Indices, probabilities: Floats, *, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy over equally wide bins of confidence (ECE).

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017. Bins are open on the left.

    Args:
        targets: true classes `[n]`.
        probabilities: `[n, classes]`, every row summing to 1.
        bins: number of bins.
    """
    _validate_probabilities(targets, probabilities)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(targets))


def negative_log_likelihood(targets: Indices, probabilities: Floats) -> float:
    """Return the mean of minus the logarithm of the true class's probability, in nats."""
    _validate_probabilities(targets, probabilities)
    return float(-np.mean(np.log(np.maximum(probabilities[np.arange(len(targets)), targets], 1e-12))))


def _validate_probabilities(targets: Indices, probabilities: Floats) -> None:
    if probabilities.ndim != 2 or not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-4) or probabilities.min() < 0:
        raise ValueError(f"probabilities {list(probabilities.shape)} must be [n, classes] with rows that sum to 1")
    validate(targets, probabilities.argmax(axis=1), probabilities.shape[1])


def bootstrap_interval(
    targets: Indices,
    predictions: Indices,
    speakers: Sequence[str],
    num_classes: int,
    *,
    metric: Callable[[Indices], float] = unweighted_average_recall,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the percentile interval of `metric` when speakers are drawn anew, None for fewer than two speakers.

    Clips of one speaker are not independent, so speakers, not clips, are drawn with replacement.

    Args:
        targets: true classes `[n]`.
        predictions: predicted classes `[n]`.
        speakers: who speaks, `[n]`.
        num_classes: number of classes.
        metric: of a confusion matrix.
        level: share of the draws inside the interval.
        draws: number of draws.
        seed: of the draws.
    """
    names = sorted(set(speakers))
    if len(names) < 2:
        return None
    owner = np.array([names.index(speaker) for speaker in speakers])
    matrices = np.stack(
        [confusion_matrix(targets[owner == i], predictions[owner == i], num_classes) for i in range(len(names))]
    )
    rng = np.random.default_rng(seed)
    values = [metric(matrices[rng.integers(len(names), size=len(names))].sum(axis=0)) for _ in range(draws)]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_probabilities(logits: Floats, owners: Indices, temperature: float = 1.0) -> Floats:
    """Return the probabilities `[clips, classes]` of clips: softmax of every window's logits, then the mean.

    Args:
        logits: `[windows, classes]`.
        owners: the clip of each window `[windows]`, from 0, without gaps.
        temperature: what the logits are divided by.
    """
    scaled = logits / temperature
    shifted = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    sums = np.zeros((int(owners.max()) + 1, logits.shape[1]))
    np.add.at(sums, owners, probabilities)
    return sums / np.bincount(owners)[:, None]


def fit_temperature(logits: Floats, owners: Indices, targets: Indices) -> float:
    """Return the temperature, from 0.05 to 20, that makes the clips' negative log likelihood smallest.

    Golden-section search on its logarithm; for one window per clip that is a unimodal function.

    Args:
        logits: of validation windows `[windows, classes]`.
        owners: the clip of each window `[windows]`.
        targets: true classes of the clips `[clips]`.
    """

    def cost(log_temperature: float) -> float:
        return negative_log_likelihood(targets, mean_probabilities(logits, owners, math.exp(log_temperature)))

    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    low, high = math.log(0.05), math.log(20.0)
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    cost_left, cost_right = cost(left), cost(right)
    while high - low > 1e-4:
        if cost_left < cost_right:
            high, right, cost_right = right, left, cost_left
            left = high - ratio * (high - low)
            cost_left = cost(left)
        else:
            low, left, cost_left = left, right, cost_right
            right = low + ratio * (high - low)
            cost_right = cost(right)
    return math.exp((low + high) / 2.0)
