from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from speech_emotion_vit.training.data.corpora import find_corpus
from speech_emotion_vit.training.data.features import Dataset, Store
from speech_emotion_vit.training.score.report import pool_folds
from training_runs import LABELS, THREE, succeed


def test_three_corpora_train_one_network_that_is_scored_on_each(place: Path, general: Path, mixed: Path) -> None:
    folder = mixed / "fold-0"
    with open(folder / "predictions_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:  # nobody is given an emotion that was not asked for in their corpus
        impossible = "boredom" if row["utterance"].startswith("savee/") else "surprise"
        assert float(row[impossible]) == 0
        assert sum(float(row[label]) for label in LABELS) == pytest.approx(1, abs=1e-5)
    # The very same question, asked from the outside.
    result = succeed(
        *("evaluate", "--dataset", THREE, "--data-dir", general, "--fold", "0", "--model", folder),
        *("--cache-dir", place / "cache"),
    )
    for line in result.stdout.splitlines():
        scored = json.loads(line)
        if scored["scores"] in THREE.split("+"):
            of_it = [row for row in rows if row["utterance"].startswith(f"{scored['scores']}/")]
            right = sum(row["label"] == row["predicted"] for row in of_it)
            assert (scored["clips"], scored["wa"]) == (len(of_it), pytest.approx(right / len(of_it)))
    assert len(result.stdout.splitlines()) == 4


def test_folds_of_several_corpora_are_pooled_corpus_by_corpus(tmp_path: Path, general: Path, mixed: Path) -> None:
    corpus, folder = find_corpus(THREE, general)
    utterances = tuple(corpus.read(folder))
    for fold in range(2):
        shutil.copytree(mixed / "fold-0", tmp_path / f"fold-{fold}")
        results = json.loads((tmp_path / f"fold-{fold}" / "results.json").read_text())
        results["temperature"]["student"] = 0.01  # as if far too sure, so that even impossible labels would show
        (tmp_path / f"fold-{fold}" / "results.json").write_text(json.dumps(results))
    features = Store(np.zeros(0), {}, {}, "none")
    data = Dataset(corpus=corpus, utterances=utterances, labels=LABELS, features=features, remarks=())
    pooled = pool_folds(tmp_path, data, 2)
    assert set(pooled["scores"]["student"]) == {
        "test crema-d",
        "test emodb",
        "test savee",
        "test savee, common sentences",
    }
    assert pooled["scores"]["student"]["test savee"]["clips"] == 2 * 14
    assert pooled["cross_fitted_temperature"] == {}  # CREMA-D's validation speakers calibrate it for all three
    assert "Confusion: student, test savee" in (tmp_path / "README.md").read_text()
