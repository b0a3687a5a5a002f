from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from speech_emotion_vit.training.score.metrics import (
    Scores,
    cross_fitted,
    expected_calibration_error,
    fit_temperature,
    mean_probabilities,
    negative_log_likelihood,
    score_clips,
    speaker_interval,
    unweighted_average_recall,
    weighted_accuracy,
)

# Class 0: 3 of 4 right; class 1: 1 of 2; class 2: 0 of 1; 1 is predicted three times, 2 never.
TARGETS = np.array([0, 0, 0, 0, 1, 1, 2])
PREDICTIONS = np.array([0, 0, 0, 1, 1, 0, 1])


def sure(predictions: np.ndarray, classes: int = 3, confidence: float = 0.8) -> np.ndarray:
    """Probabilities of these predictions, each as confident as the other."""
    return np.eye(classes)[predictions] * (confidence - (1 - confidence) / (classes - 1)) + (1 - confidence) / (
        classes - 1
    )


def test_scores_by_hand() -> None:
    scores = score_clips(sure(PREDICTIONS), TARGETS, list("ppqqqrr"), ["a", "b", "c"])
    assert (scores.clips, scores.speakers) == (7, 3)
    assert scores.confusion == ((3, 1, 0), (1, 1, 0), (0, 1, 0))
    assert scores.wa == 4 / 7
    assert scores.ua == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    # F1: class 0 2*3/(4+4); class 1 2*1/(2+3); class 2 0.
    assert scores.macro_f1 == pytest.approx((6 / 8 + 2 / 5 + 0) / 3)
    assert scores.ece == pytest.approx(0.8 - 4 / 7)
    assert scores.nll == pytest.approx(-(4 * math.log(0.8) + 3 * math.log(0.1)) / 7)
    assert scores.ua_interval is not None
    assert scores.ua_interval[0] <= scores.ua <= scores.ua_interval[1]
    assert Scores.from_dict(json.loads(json.dumps(scores.to_dict()))) == scores


def test_a_perfect_prediction_scores_one_and_a_class_without_clips_does_not_count() -> None:
    scores = score_clips(sure(TARGETS, 5), TARGETS, list("ppqqqrr"), list("abcde"))
    assert scores.wa == scores.ua == scores.macro_f1 == 1
    # Seven clips that are right do not prove that all are.
    for low, high in (scores.wa_interval or (9, 9), scores.ua_interval or (9, 9)):
        assert (low < 0.9, high) == (True, 1)


def test_a_prediction_of_a_class_without_clips_is_wrong_and_no_more() -> None:
    assert unweighted_average_recall(np.array([0, 0, 1]), np.array([0, 4, 1])) == pytest.approx(0.75)


def test_scores_without_speakers_have_no_interval() -> None:
    unknown = score_clips(sure(PREDICTIONS), TARGETS, [""] * 7, ["a", "b", "c"])
    assert (unknown.speakers, unknown.wa_interval, unknown.ua_interval) == (0, None, None)
    half = score_clips(sure(PREDICTIONS), TARGETS, [*"pqrpqr", ""], ["a", "b", "c"])
    assert (half.speakers, half.ua_interval) == (3, None)


@pytest.mark.parametrize(
    ("targets", "rows"),
    [([], 0), ([0, 1], 1), ([0, 3], 2), ([0, -1], 2), ([[0]], 1)],
)
def test_what_no_metric_can_take_is_refused(targets: list[int], rows: int) -> None:
    with pytest.raises(ValueError, match=r"must"):
        score_clips(np.full((rows, 3), 1 / 3), np.array(targets, dtype=np.int64), ["p"] * len(targets), list("abc"))


def test_calibration_error_by_hand() -> None:
    # Two clips of confidence 0.9, one right: gap 0.4; two of 0.6, both right: gap 0.4; mean 0.4.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    assert expected_calibration_error(np.array([0, 1, 0, 1]), probabilities) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([0, 1]), np.eye(2)) == 0
    # In one single bin the gaps of over- and underconfidence cancel: mean confidence 0.75, accuracy 0.75.
    assert expected_calibration_error(np.array([0, 1, 0, 1]), probabilities, bins=1) == pytest.approx(0)


def test_bins_of_confidence_end_where_they_should() -> None:
    """Five bins from 0 to 1: 0.60 and 0.65 are in two of them, 0.65 and 0.75 in one, whose gaps cancel."""
    apart = np.array([[0.6, 0.4], [0.65, 0.35]])
    together = np.array([[0.65, 0.35], [0.75, 0.25]])
    one_right = np.array([1, 0])
    assert expected_calibration_error(one_right, apart, bins=5) == pytest.approx((0.6 + 0.35) / 2)
    assert expected_calibration_error(one_right, together, bins=5) == pytest.approx(abs(0.65 - 0.25) / 2)
    last_two = np.array([[0.75, 0.25], [0.95, 0.05]])
    assert expected_calibration_error(one_right, last_two, bins=5) == pytest.approx((0.75 + 0.05) / 2)
    assert expected_calibration_error(np.array([0, 1]), np.array([[0.99, 0.01], [1.0, 0.0]]), bins=5) == pytest.approx(
        (1.99 - 1) / 2
    )  # full confidence is in the last bin


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


def test_the_interval_of_equally_long_speakers_is_students_of_their_scores() -> None:
    shares = np.array([0.3, 0.5, 0.6, 0.8])
    predictions = np.concatenate([np.arange(10) >= 10 * share for share in shares]).astype(np.int64)
    targets, speakers = np.zeros(40, dtype=np.int64), [name for name in "abcd" for _ in range(10)]
    expected = stats.t.interval(0.95, 3, shares.mean(), stats.sem(shares))
    found = speaker_interval(weighted_accuracy, targets, predictions, speakers)
    assert found == pytest.approx(expected)
    assert found[1] - found[0] > 0.6  # four speakers tell little
    assert speaker_interval(weighted_accuracy, targets, predictions, ["a"] * 40) is None
    # Two speakers who agree by chance tell no more than their clips.
    agree = speaker_interval(weighted_accuracy, targets[:4], np.array([0, 1, 0, 1]), ["a", "a", "b", "b"])
    assert agree == (0, 1)
    # One all right, one all wrong: nothing is known, and no share is below 0 or above 1.
    assert speaker_interval(weighted_accuracy, targets, predictions > 0, ["a"] * 20 + ["b"] * 20) == (0, 1)


@pytest.mark.parametrize("count", [4, 10])
def test_intervals_cover_the_truth_as_often_as_they_say(count: int, rng: np.random.Generator) -> None:
    """A percentile bootstrap covers it in 80 % of the cases with four speakers and in 89 % with ten."""
    covered, draws, clips = 0, 300, 30
    for _ in range(draws):
        right = rng.random((count, clips)) < rng.beta(6, 4, size=(count, 1))  # people differ in how clear they are
        owners = np.repeat(np.arange(count), clips).astype(str)
        low, high = speaker_interval(
            weighted_accuracy, np.zeros(count * clips, np.int64), (~right).ravel().astype(np.int64), owners
        ) or (0.0, 0.0)
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / draws <= 0.98


def test_folds_are_calibrated_by_each_other() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((600, 3)) * 2
    targets = np.array([rng.choice(3, p=row) for row in mean_probabilities(truth, np.arange(600))])
    folds = np.repeat([0, 1, 2], 200)
    overconfident = truth * 4
    probabilities, temperature = cross_fitted(overconfident, np.arange(600), targets, folds)
    assert temperature == pytest.approx(4, rel=0.15)
    for fold in range(3):
        others = folds != fold
        expected = fit_temperature(overconfident[others], np.arange(400), targets[others])
        assert probabilities[folds == fold] == pytest.approx(
            mean_probabilities(overconfident[folds == fold], np.arange(200), expected), abs=1e-4
        )
    alone, own = cross_fitted(overconfident, np.arange(600), targets, np.zeros(600))
    assert alone == pytest.approx(mean_probabilities(overconfident, np.arange(600), own))


def test_corpora_of_different_size_weigh_the_same_in_a_temperature() -> None:
    """In the large one the answers are right as often as they say, in the small one they say far too much."""
    rng = np.random.default_rng(0)
    logits = np.log(np.tile([0.8, 0.2], (1100, 1)))
    targets = (rng.random(1100) > 0.8).astype(np.int64)
    targets[1000:] = rng.random(100) > 0.5
    corpora = np.array(["large"] * 1000 + ["small"] * 100)
    _, fitted = cross_fitted(logits, np.arange(1100), targets, corpora)
    assert fit_temperature(logits, np.arange(1100), targets) < 1.3
    assert fitted > 1.8
    windows = np.repeat(np.arange(1100), 2)  # two windows a clip tell the same
    assert cross_fitted(logits[windows], windows, targets, corpora)[1] == pytest.approx(fitted, rel=1e-3)
