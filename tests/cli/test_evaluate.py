from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus_factory import labelled_csv
from speech_emotion_vit.training.data.corpora.savee import CODES
from training_runs import fail, results_of, succeed


def test_evaluate_scores_the_model_again(cross_validated: Path, savee: Path, place: Path) -> None:
    result = succeed(
        *("evaluate", "--dataset", "savee", "--data-dir", savee, "--fold", "2", "--model", cross_validated / "fold-2"),
        *("--cache-dir", place / "cache", "--output", place / "scores", "--device", "cpu"),
    )
    printed = json.loads(result.stdout)
    expected = results_of(cross_validated / "fold-2")
    for name in ("clips", "wa", "ua", "macro_f1", "confusion"):
        assert printed[name] == expected[name]
    assert printed["ece"] == pytest.approx(expected["ece"], abs=1e-4)
    assert "leave one speaker out: savee/JK tests, savee/KL validates" in result.stderr
    assert {path.name for path in (place / "scores").iterdir()} == {
        *("scores.json", "confusion_test.csv", "confusion_test.png", "predictions.csv"),
    }


def test_evaluate_without_a_fold_scores_every_clip_and_warns(cross_validated: Path, savee: Path, place: Path) -> None:
    result = succeed(
        *("evaluate", "--dataset", "savee", "--data-dir", savee, "--model", cross_validated / "fold-2"),
        *("--cache-dir", place / "cache"),
    )
    printed = json.loads(result.stdout)
    assert (printed["clips"], printed["heard"]) == (56, 28)  # two speakers trained, one each validated and tested
    assert "new voices only for a model that was not trained on this corpus" in result.stderr
    assert "LEAK: the model was trained on speakers of 28 of these 56 clips" in result.stderr
    of_no_fold = (
        "evaluate",
        "--dataset",
        "savee",
        "--data-dir",
        savee,
        "--model",
        "savee",
        "--cache-dir",
        place / "cache",
    )
    assert "no validation clip to score: pass --fold: " in fail(*of_no_fold, "--part", "validation")


def test_evaluate_maps_labels_by_name(cross_validated: Path, place: Path, tmp_path: Path) -> None:
    table = labelled_csv(tmp_path, ["boredom", "fear", "anger"], ["p", "q", "r"], 2)
    result = succeed(
        *("evaluate", "--dataset", "folder", "--data-dir", table, "--model", cross_validated / "fold-0"),
        *("--cache-dir", place / "cache", "--protocol", "speaker"),
    )
    printed = json.loads(result.stdout)
    assert printed["labels"] == ["anger", "fear"]
    assert printed["clips"] == 4
    assert "left out because the model does not know their label: 2 boredom" in result.stderr
    assert "the corpus has none: disgust, happiness, neutral, sadness, surprise" in result.stderr
    text = table.read_text().replace(",anger,", ",Angry,").replace(",fear,", ",scared,")
    (tmp_path / "words.csv").write_text(text)
    words = succeed(
        *("evaluate", "--dataset", "folder", "--data-dir", tmp_path / "words.csv", "--model"),
        *(cross_validated / "fold-0", "--cache-dir", place / "cache"),
    )
    assert json.loads(words.stdout) == printed
    assert "labels taken for the model's own: Angry is anger, scared is fear" in words.stderr
    alien = labelled_csv(tmp_path / "alien", ["boredom", "anger"], ["p", "q", "r"], 1)  # one would always be right
    error = fail(
        *("evaluate", "--dataset", "folder", "--data-dir", alien, "--model", cross_validated / "fold-0"),
        *("--cache-dir", place / "cache"),
    )
    assert "share 1 labels, which is no score" in error


def test_an_answer_that_is_all_another_label_is_scored(
    place: Path, savee: Path, cross_validated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speech_emotion_vit.training.score import evaluate

    def saturated(network: Any, rows: Any) -> Any:
        logits = np.zeros((len(rows), 7))
        logits[:, sorted(CODES.values()).index("surprise")] = 1e5
        return logits

    monkeypatch.setattr(evaluate, "score_rows", saturated)
    table = labelled_csv(place / "two", ["anger", "fear"], ["p", "q", "r"], 1)
    arguments = ("evaluate", "--dataset", "folder", "--data-dir", table, "--model", cross_validated / "fold-0")
    assert json.loads(succeed(*arguments, "--cache-dir", place / "cache").stdout)["nll"] == pytest.approx(np.log(2))
