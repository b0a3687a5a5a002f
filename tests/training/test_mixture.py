from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from speech_emotion_vit.training.data.corpora import find_corpus
from speech_emotion_vit.training.data.dataset import Dataset
from speech_emotion_vit.training.data.features import Store
from speech_emotion_vit.training.folds import pool_folds
from training_runs import LABELS, SMALL, THREE, fail, succeed


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
    right = sum(row["label"] == row["predicted"] for row in rows)
    scored = json.loads(result.stdout.splitlines()[0])
    assert (scored["clips"], scored["wa"]) == (len(rows), pytest.approx(right / len(rows)))


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


def test_a_teacher_may_know_more_labels_but_not_fewer(place: Path, savee: Path, general: Path, mixed: Path) -> None:
    common = ("--stage", "supervised", "--fold", "0", "--cache-dir", place / "cache", *SMALL)
    teachers = ("--set", f"teachers={json.dumps([str(mixed / 'fold-0')])}", "--set", "frontend.hop_length=128")
    arguments = ("--data-dir", savee, "--output", place / "taught")
    result = succeed("train", "--dataset", "savee", *arguments, *common, *teachers)
    assert "teacher: " in result.stderr
    with open(place / "taught" / "fold-0" / "history.csv", newline="") as file:
        assert all(float(row["soft_labels"]) > 0 for row in csv.DictReader(file))
    teachers = ("--set", f"teachers={json.dumps([str(place / 'taught' / 'fold-0')])}")
    arguments = ("--data-dir", general, "--output", place / "taught-less")
    message = fail("train", "--dataset", THREE, *arguments, *common, *teachers)
    assert "does not know boredom: choose a teacher that knows every label" in message
    arguments = ("--data-dir", savee, "--output", place / "taught-other", "--set", "frontend.top_db=60")
    teachers = ("--set", f"teachers={json.dumps([str(mixed / 'fold-0')])}")
    assert "its front-end is" in fail("train", "--dataset", "savee", *arguments, *common, *teachers)


def test_a_probe_of_several_corpora_gives_each_its_own_labels(
    place: Path, general: Path, mixed: Path, tmp_path: Path
) -> None:
    arguments = (
        "train",
        "--dataset",
        THREE,
        "--data-dir",
        general,
        "--cache-dir",
        place / "cache",
        *SMALL,
    )
    arguments += ("--stage", "probe", "--set", f"initial_weights={mixed / 'fold-0'}", "--set", "probe.copies=0")
    result = succeed(*arguments, "--fold", "0", "--output", tmp_path)
    assert f"probe: a new head for {mixed / 'fold-0'}" in result.stderr
    # A speaker of CREMA-D is kept for the temperature: a network may have heard all that train.
    assert "111 training, 6 validation, 27 test clips" in result.stderr
    scores = json.loads((tmp_path / "fold-0" / "results.json").read_text())["scores"]["student"]
    assert {part: len(found["labels"]) for part, found in scores.items()} == {
        "validation crema-d": 6,
        "test crema-d": 6,
        "test emodb": 7,
        "test savee": 7,
        "test savee, common sentences": 7,
    }
    for part in ("test emodb", "test savee"):  # tones as loud and high as the label says; chance is 1/7
        assert scores[part]["ua"] > 2 / 7
    succeed(*arguments, "--fold", "final", "--output", tmp_path)
    described = json.loads((tmp_path / "final" / "run.json").read_text())
    assert (described["split"]["train"], described["split"]["validation"]) == (138, 0)
