from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from speech_emotion_vit.errors import DatasetError
from speech_emotion_vit.training.fit.head import balanced_weights, embed_rows, fit_head, inner_folds
from speech_emotion_vit.training.recipes import HeadStage
from speech_emotion_vit.training.score.evaluate import score_rows
from tiny_networks import SIZE, STUDENT, eight_clips, made_up_rows, network, right

SPEAKERS = list("abcdefgh")


def expected(rows: object, embeddings: np.ndarray, penalty: float, weights: np.ndarray) -> np.ndarray:
    """What scikit-learn's ridge regression answers on the weighted clips."""
    spread, centre = embeddings.std(axis=0), np.average(embeddings, axis=0, weights=weights)
    scaled = (embeddings - centre) / spread
    targets = np.eye(rows.targets.max() + 1)[rows.targets]  # type: ignore[attr-defined]
    answers: np.ndarray = Ridge(alpha=penalty * weights.sum()).fit(scaled, targets, weights).predict(scaled)
    return answers


def bright_rows(classes: int, speakers: int) -> object:
    """Bright bands in another place per class; every speaker says each class once."""
    rng = np.random.default_rng(0)
    images = rng.random((speakers * classes, SIZE, SIZE)) * 0.3
    for row, image in enumerate(images):
        image[4 * (row % classes) : 4 * (row % classes) + 3] += 0.5
    return made_up_rows(images, [i % classes for i in range(len(images))])


@pytest.mark.parametrize("classes", [2, 3])
def test_a_head_alone_is_changed_and_tells_what_is_linear(classes: int) -> None:
    rows = bright_rows(classes, 4)
    model = network(dataclasses.replace(STUDENT, num_classes=classes)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    speakers = [str(i // classes) for i in range(4 * classes)]
    record = fit_head(model, rows, speakers, HeadStage(), seed=0)  # type: ignore[arg-type]
    after = model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"head.weight", "head.bias"}
    assert record["left_out_ua"] == 1.0


def test_a_head_is_ridge_regression_on_standardised_embeddings() -> None:
    rows, model = eight_clips(), network(STUDENT).eval()  # three of one label, five of the other
    record = fit_head(model, rows, SPEAKERS, HeadStage(), seed=0)
    weights = np.where(rows.targets == 1, 1 / 3, 1 / 5)
    answers = expected(rows, embed_rows(model, rows).double().numpy(), 1.0, weights / weights.mean())
    np.testing.assert_allclose(record["temperature"] * score_rows(model, rows), answers, atol=1e-3)


def test_corpora_of_a_mixture_weigh_the_same() -> None:
    """And so do the labels of each; a label that a corpus does not have is learnt from it as absent."""
    images = np.random.default_rng(0).random((13, SIZE, SIZE))
    labels = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 1, 1]  # of nine clips and of four
    weights = np.array([1 / 6] * 6 + [1 / 3] * 3 + [1 / 2] * 4)
    corpora = ["one"] * 9 + ["other"] * 4
    rows = made_up_rows(images, labels, corpora=corpora, possible={"one": "01", "other": "12"})
    weights /= weights.mean()
    np.testing.assert_allclose(balanced_weights(rows), weights, rtol=1e-5)
    model = network(dataclasses.replace(STUDENT, num_classes=3)).eval()
    record = fit_head(model, rows, [str(i) for i in range(13)], HeadStage(), seed=0)
    answers = expected(rows, embed_rows(model, rows).double().numpy(), 1.0, weights)
    allowed = np.array([(i < 9, True, i >= 9) for i in range(13)])
    np.testing.assert_allclose(record["temperature"] * score_rows(model, rows)[allowed], answers[allowed], atol=1e-3)
    assert record["left_out_nll"] < np.log(3)  # of two labels each, not of three


def test_the_likeliest_penalty_is_taken_wherever_it_stands() -> None:
    """Of random images a weak penalty is sure and wrong; what can be told calls for a weak one."""
    random, bright = eight_clips(), bright_rows(2, 6)
    for rows, best in ((random, 1e3), (bright, 1e-2)):
        speakers = [str(i // 2) for i in range(len(rows.owners))]  # type: ignore[attr-defined]
        for penalties in ((1e-2, 1e3), (1e3, 1e-2)):
            record = fit_head(network(STUDENT).eval(), rows, speakers, HeadStage(penalties=penalties), seed=0)  # type: ignore[arg-type]
            assert record["penalty"] == best


def test_a_speaker_is_left_out_as_a_whole() -> None:
    rows = bright_rows(2, 6)
    speakers = np.array([str(i % 4) for i in range(12)])
    folds = inner_folds(rows, speakers)  # type: ignore[arg-type]
    assert len(set(folds)) == 4
    for speaker in set(speakers):
        assert len(set(folds[speakers == speaker])) == 1
    # Two voices cannot be left out in turn: then clips are.
    assert len(set(inner_folds(rows, speakers[:12] > "1"))) == 5  # type: ignore[arg-type, operator]


def test_a_speakers_own_mark_is_no_emotion() -> None:
    """Two speakers say one label each way round, so a head that knows its speakers would be right, and is not."""
    rng = np.random.default_rng(0)
    images = rng.random((24, SIZE, SIZE)) * 0.2
    speakers, labels = [i // 4 for i in range(24)], [(i // 4) % 2 for i in range(24)]
    for image, speaker in zip(images, speakers, strict=True):
        image[2 * speaker : 2 * speaker + 2] += 0.7  # a mark that tells the speaker, and so the label, by heart
    rows = made_up_rows(images, labels)
    known = fit_head(network(STUDENT).eval(), rows, [str(i) for i in range(24)], HeadStage(), seed=0)
    new = fit_head(network(STUDENT).eval(), rows, [str(speaker) for speaker in speakers], HeadStage(), seed=0)
    assert known["left_out_ua"] > 0.9
    assert new["left_out_ua"] < 0.7


def test_a_penalty_that_is_lost_in_rounding_is_raised() -> None:
    """Eight clips say nothing about most of the values, so without it nothing can be solved."""
    rows = eight_clips()
    for penalty in (1e-300, 1e-30):
        model = network(STUDENT).eval()
        record = fit_head(model, rows, SPEAKERS, HeadStage(penalties=(penalty,)), seed=0)
        assert record["penalty"] == penalty
        assert right(model, rows) == 8


def test_every_class_and_some_clips_to_leave_out_are_needed() -> None:
    model = network(dataclasses.replace(STUDENT, num_classes=3)).eval()
    with pytest.raises(DatasetError, match="have 2 of 3 labels"):
        fit_head(model, eight_clips(), ["a"] * 8, HeadStage(), seed=0)
    few = made_up_rows(np.ones((2, SIZE, SIZE)), [0, 1])
    with pytest.raises(DatasetError, match="no label has 3 training clips"):
        fit_head(network(STUDENT), few, ["a", "b"], HeadStage(), seed=0)
