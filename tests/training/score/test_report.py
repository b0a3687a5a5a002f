from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from speech_emotion_vit.training.score.card import with_interval
from speech_emotion_vit.training.score.metrics import score_clips
from speech_emotion_vit.training.score.report import write_confusion
from training_runs import results_of


def test_a_dollar_in_a_label_is_a_dollar(tmp_path: Path) -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    scores = score_clips(probabilities, np.array([0, 1]), ["a", "b"], ["$x^^y$", "joy"])
    write_confusion(tmp_path, "test", scores)
    assert (tmp_path / "confusion_test.png").stat().st_size > 1000


def test_a_confusion_matrix_says_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    draw = Axes.set_title
    monkeypatch.setattr(Axes, "set_title", lambda axes, text, **more: titles.append(text) or draw(axes, text, **more))
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    scores = score_clips(probabilities, np.array([0, 1, 1, 0]), ["a", "b", "a", "b"], ["anger", "joy"])
    write_confusion(tmp_path, "test", scores, "base on SAVEE, protocol speaker")
    (title,) = titles
    assert scores.ua_interval is not None
    assert title.split("\n") == [
        "base on SAVEE, protocol speaker",
        f"UA {with_interval(scores.ua, scores.ua_interval)} %, WA {with_interval(scores.wa, scores.wa_interval)} %",
        "4 clips of 2 speakers",
    ]


def test_the_model_card_says_what_the_score_measures(cross_validated: Path) -> None:
    card = (cross_validated / "fold-0" / "README.md").read_text()
    ua = 100 * results_of(cross_validated / "fold-0")["ua"]
    assert "| student, test | 14 | 1 | " in card
    assert f"| {ua:.1f} |" in card
    assert "was in training: new speakers. leave one speaker out: savee/DC tests, savee/JE validates." in card
    assert "research use, by registration" in card
    assert '"learning_rate": 0.001' in card
    assert "| student | 3 |" in card
    assert "teacher |" not in card  # which did not run
    assert "424 of 480 utterances are missing" in card
    pooled = (cross_validated / "README.md").read_text()
    assert "| student, test | 56 | 4 | " in pooled
    assert "fitted on the 14 validation clips" in card
    front = card.split("---")[1]
    for line in ("license: other", "- savee", "- en", "pipeline_tag: audio-classification", "split: test"):
        assert line in front
    assert f"value: {ua / 100:.4f}".rstrip("0") in front
    assert 'EmotionClassifier("path/to/this/folder")' in card
    assert "of 4 networks, in the folders `fold-0` to `fold-3`" in pooled
    assert 'EmotionClassifier("path/to/this/folder/final")' in pooled
