from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from speech_emotion_vit.training.folds import cross_fitted
from speech_emotion_vit.training.score.evaluation import Scores, score_clips
from speech_emotion_vit.training.score.metrics import (
    bootstrap_interval,
    confusion_matrix,
    expected_calibration_error,
    fit_temperature,
    macro_f1,
    mean_probabilities,
    negative_log_likelihood,
    unweighted_average_recall,
    weighted_accuracy,
)

# Class 0: 3 of 4 right; class 1: 1 of 2; class 2: 0 of 1; 1 is predicted three times, 2 never.
TARGETS = np.array([0, 0, 0, 0, 1, 1, 2])
PREDICTIONS = np.array([0, 0, 0, 1, 1, 0, 1])


def test_confusion_by_hand() -> None:
    confusion = confusion_matrix(TARGETS, PREDICTIONS, 3)
    assert confusion.tolist() == [[3, 1, 0], [1, 1, 0], [0, 1, 0]]


def test_accuracy_recall_and_f1_by_hand() -> None:
    confusion = confusion_matrix(TARGETS, PREDICTIONS, 3)
    assert weighted_accuracy(confusion) == 4 / 7
    assert unweighted_average_recall(confusion) == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    # F1: class 0 2*3/(4+4); class 1 2*1/(2+3); class 2 0.
    assert macro_f1(confusion) == pytest.approx((6 / 8 + 2 / 5 + 0) / 3)


def test_a_perfect_prediction_scores_one() -> None:
    confusion = confusion_matrix(TARGETS, TARGETS, 3)
    assert weighted_accuracy(confusion) == unweighted_average_recall(confusion) == macro_f1(confusion) == 1


def test_a_class_without_clips_does_not_count() -> None:
    confusion = confusion_matrix(TARGETS, TARGETS, 5)
    assert unweighted_average_recall(confusion) == macro_f1(confusion) == 1


def test_agreement_with_scikit_learn(rng: np.random.Generator) -> None:
    targets, predictions = rng.integers(5, size=200), rng.integers(5, size=200)
    confusion = confusion_matrix(targets, predictions, 5)
    assert confusion.tolist() == reference.confusion_matrix(targets, predictions).tolist()
    assert weighted_accuracy(confusion) == pytest.approx(reference.accuracy_score(targets, predictions))
    assert unweighted_average_recall(confusion) == pytest.approx(
        reference.balanced_accuracy_score(targets, predictions)
    )
    assert macro_f1(confusion) == pytest.approx(reference.f1_score(targets, predictions, average="macro"))


@pytest.mark.parametrize(
    ("targets", "predictions"),
    [([], []), ([0, 1], [0]), ([0, 3], [0, 1]), ([0, -1], [0, 1]), ([0, 1], [0, 3]), ([[0]], [[0]])],
)
def test_what_no_metric_can_take_is_refused(targets: list[int], predictions: list[int]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        confusion_matrix(np.array(targets, dtype=np.int64), np.array(predictions, dtype=np.int64), 3)


def test_calibration_error_by_hand() -> None:
    # Two clips of confidence 0.9, one right: gap 0.4; two of 0.6, both right: gap 0.4; mean 0.4.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    assert expected_calibration_error(np.array([0, 1, 0, 1]), probabilities) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([0, 1]), np.eye(2)) == 0
    # In one single bin the gaps of over- and underconfidence cancel: mean confidence 0.75, accuracy 0.75.
    assert expected_calibration_error(np.array([0, 1, 0, 1]), probabilities, bins=1) == pytest.approx(0)


def test_likelihood_by_hand() -> None:
    probabilities = np.array([[0.5, 0.5], [0.25, 0.75]])
    assert negative_log_likelihood(np.array([0, 0]), probabilities) == pytest.approx((math.log(2) + math.log(4)) / 2)
    with pytest.raises(ValueError, match="sum to 1"):
        negative_log_likelihood(np.array([0]), np.array([[0.5, 0.6]]))


def test_windows_are_averaged_as_probabilities() -> None:
    logits = np.log(np.array([[0.8, 0.2], [0.4, 0.6], [0.5, 0.5]]))
    assert mean_probabilities(logits, np.array([0, 0, 1])).tolist() == pytest.approx(np.array([[0.6, 0.4], [0.5, 0.5]]))
    flat = mean_probabilities(logits, np.array([0, 1, 2]), temperature=1e6)
    assert flat == pytest.approx(np.full((3, 2), 0.5), abs=1e-5)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_fitted_temperature_undoes_a_scaling(true: float, rng: np.random.Generator) -> None:
    logits = rng.normal(size=(4000, 4)) * 2
    probabilities = mean_probabilities(logits, np.arange(4000))
    targets = (rng.random((4000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1).clip(max=3)
    fitted = fit_temperature(logits * true, np.arange(4000), targets)
    assert fitted == pytest.approx(true, rel=0.08)
    calibrated = negative_log_likelihood(targets, mean_probabilities(logits * true, np.arange(4000), fitted))
    for other in (0.9, 1.1):
        cost = negative_log_likelihood(targets, mean_probabilities(logits * true, np.arange(4000), fitted * other))
        assert calibrated < cost


def test_the_interval_draws_speakers_not_clips() -> None:
    targets = np.zeros(40, dtype=np.int64)
    predictions = np.array([0] * 20 + [1] * 20)
    speakers = ["a"] * 20 + ["b"] * 20
    # Two speakers, one all right, one all wrong: a quarter of the draws each is 0 and 1.
    interval = bootstrap_interval(targets, predictions, speakers, 2, metric=weighted_accuracy)
    assert interval == (0, 1)
    many = bootstrap_interval(targets, predictions, [str(i) for i in range(40)], 2, metric=weighted_accuracy)
    assert many is not None
    assert 0.3 < many[0] < 0.4
    assert 0.6 < many[1] < 0.7
    assert many == bootstrap_interval(targets, predictions, [str(i) for i in range(40)], 2, metric=weighted_accuracy)
    assert bootstrap_interval(targets, predictions, ["a"] * 40, 2) is None


def test_scores_of_clips_and_their_way_through_json() -> None:
    probabilities = np.eye(3)[PREDICTIONS] * 0.7 + 0.1
    scores = score_clips(probabilities, TARGETS, ["p", "p", "q", "q", "q", "r", "r"], ["a", "b", "c"])
    assert (scores.clips, scores.speakers, scores.wa) == (7, 3, 4 / 7)
    assert scores.confusion == ((3, 1, 0), (1, 1, 0), (0, 1, 0))
    assert scores.ua_interval is not None
    assert scores.ua_interval[0] <= scores.ua <= scores.ua_interval[1]
    assert scores.ece == pytest.approx(0.8 - 4 / 7)
    import json

    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict()))) == scores
    unknown = score_clips(probabilities, TARGETS, [""] * 7, ["a", "b", "c"])
    assert (unknown.speakers, unknown.ua_interval) == (0, None)


def test_folds_are_calibrated_by_each_other() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((600, 3)) * 2
    targets = np.array([rng.choice(3, p=row) for row in mean_probabilities(truth, np.arange(600))])
    folds = np.repeat([0, 1, 2], 200)
    overconfident = truth * 4
    probabilities, temperature = cross_fitted(overconfident, targets, folds)
    assert temperature == pytest.approx(4, rel=0.15)
    for fold in range(3):
        others = folds != fold
        expected = fit_temperature(overconfident[others], np.arange(400), targets[others])
        assert probabilities[folds == fold] == pytest.approx(
            mean_probabilities(overconfident[folds == fold], np.arange(200), expected)
        )
    alone, own = cross_fitted(overconfident, targets, np.zeros(600))
    assert alone == pytest.approx(mean_probabilities(overconfident, np.arange(600), own))
