from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from training_runs import SMALL, results_of, succeed


def test_a_cross_validation_tests_every_clip_once(cross_validated: Path) -> None:
    run = json.loads((cross_validated / "run.json").read_text())
    assert (run["fold"], run["split"]["leakage"], run["corpus"]) == ("all", 0, "savee")
    tested = []
    for fold, speaker in enumerate(("DC", "JE", "JK", "KL")):
        folder = cross_validated / f"fold-{fold}"
        with open(folder / "predictions_test.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["speaker"] for row in rows} == {f"savee/{speaker}"}
        tested += [row["utterance"] for row in rows]
    assert len(tested) == len(set(tested)) == 56
    results = json.loads((cross_validated / "results.json").read_text())
    assert results["folds"] == 4
    assert len(results["test_ua_by_fold"]["student"]["test"]) == 4
    assert results["scores"]["student"]["test"]["ua_interval"] is not None
    wa = sum(results_of(cross_validated / f"fold-{fold}")["wa"] for fold in range(4)) / 4
    assert results["scores"]["student"]["test"]["wa"] == pytest.approx(wa)


def test_final_of_crema_d_is_calibrated_by_the_run_beside_it(place: Path, general: Path) -> None:
    common = ("train", "--dataset", "crema-d", "--data-dir", general / "crema-d", *SMALL)
    common += ("--cache-dir", place / "cache", "--output", place / "official")
    assert "6 training, 6 validation, 6 test clips" in succeed(*common).stderr
    assert "12 training, 0 validation, 6 test clips" in succeed(*common, "--fold", "final").stderr
    held_out, final = (
        json.loads((folder / "results.json").read_text())
        for folder in (place / "official", place / "official" / "final")
    )
    assert held_out["temperature"]["student"] != 1.0
    assert final["temperature"] == held_out["temperature"]
    assert (list(final["scores"]["student"]), final["epochs"]) == (["test"], held_out["epochs"])


def test_the_final_model_takes_the_folds_temperature(cross_validated: Path, savee: Path, place: Path) -> None:
    succeed(
        *("train", "--dataset", "savee", "--data-dir", savee, "--fold", "final"),
        *("--cache-dir", place / "cache", "--output", cross_validated, *SMALL),
    )
    results = json.loads((cross_validated / "final" / "results.json").read_text())
    pooled = json.loads((cross_validated / "results.json").read_text())
    assert results["scores"] == {"student": {}}
    assert results["temperature"]["student"] == pytest.approx(pooled["temperature"]["student"])
    described = json.loads((cross_validated / "final" / "run.json").read_text())
    assert (described["split"]["train"], described["split"]["validation"], described["split"]["test"]) == (56, 0, 0)
    card = (cross_validated / "final" / "README.md").read_text()
    assert "No clip was held out" in card
    assert "What it measures" not in card
    assert "fitted on the runs that held clips out" in card
