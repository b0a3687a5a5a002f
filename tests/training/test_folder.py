from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import pytest

from speech_emotion_vit.errors import TrainingError
from speech_emotion_vit.training.data.corpora.savee import CODES
from speech_emotion_vit.training.folder import (
    MAX_BYTES,
    locked,
    open_run,
    read_json,
    read_results,
    write_csv,
    write_json,
)
from speech_emotion_vit.training.score.report import pooled_temperature
from training_runs import SMALL, fail, results_of, succeed


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(TrainingError, match="another process is writing there"):  # noqa: SIM117
        with locked(tmp_path / "run"):
            pass
    with locked(tmp_path / "run"):
        pass


def test_a_run_is_resumed_only_by_the_same_run(tmp_path: Path) -> None:
    description = {
        "corpus": "savee",
        "protocol": "speaker",
        "fold": 0,
        "seed": 0,
        "recipe": {"start": ""},
        "stages": {"teacher": {"epochs": 3}},
        "precision": "no",
    }
    open_run(tmp_path, description, resume=False)
    with pytest.raises(TrainingError, match="holds a run already: pass --resume"):
        open_run(tmp_path, description, resume=False)
    open_run(tmp_path, description, resume=True)
    for change, complaint in (
        ({"seed": 1}, r"seed 0 there, 1 now"),
        ({"precision": "bf16"}, r"precision 'no' there, 'bf16' now"),
        ({"recipe": {"start": "base"}}, r"recipe: start differ"),
        ({"stages": {"teacher": {"epochs": 4}}}, r"stages: teacher differ"),
        ({"stages": {"student": {}}}, r"stages: student, teacher differ"),
    ):
        with pytest.raises(TrainingError, match=rf"holds another run \({complaint}\)"):
            open_run(tmp_path, description | change, resume=True)
    further = {"stages": {"teacher": {"epochs": 3}, "match": {}}}
    open_run(tmp_path, description | further, resume=True)
    assert read_json(tmp_path / "run.json")["stages"] == further["stages"]
    with pytest.raises(TrainingError, match=r"stages: match differ"):
        open_run(tmp_path, description, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(TrainingError, match="is not empty and holds no run"):
        open_run(tmp_path / "other", description, resume=True)


def test_the_network_of_all_clips_may_come_first(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    for fold in ("all", None):
        open_run(tmp_path, {"fold": fold}, resume=False)
        (tmp_path / "run.json").unlink()


def test_a_damaged_record_of_a_run_is_named(tmp_path: Path) -> None:
    description = {"fold": None, "recipe": {}, "stages": {}, "split": {"note": ""}, "remarks": []}
    open_run(tmp_path, description, resume=False)
    for change in ({"recipe": None}, {"recipe": "abc"}, {"stages": 3}):
        write_json(tmp_path / "run.json", description | change)
        with pytest.raises(
            TrainingError, match=rf"holds another run \({next(iter(change))} .* there.*another --output"
        ):
            open_run(tmp_path, description, resume=True)
    write_json(tmp_path / "run.json", description | {"split": 3})  # of no use for going on, so it is written anew
    open_run(tmp_path, description, resume=True)
    assert read_json(tmp_path / "run.json") == description
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(TrainingError, match=r"run\.json: is not a JSON object: choose another --output"):
        open_run(tmp_path, description, resume=True)
    for results in ({}, {"epochs": 3}, {"epochs": {}, "peak_memory": "x"}):
        write_json(tmp_path / "results.json", results)
        with pytest.raises(TrainingError, match=r"results\.json: is damaged .*: remove it"):
            read_results(tmp_path)
        with pytest.raises(TrainingError, match=r"a results\.json in it is damaged"):
            pooled_temperature(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no FIFOs")
def test_only_regular_files_of_sensible_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    for name, complaint in (("fifo", "no"), ("zero", "not a regular"), ("large", f"more than {MAX_BYTES} bytes")):
        with pytest.raises(TrainingError, match=rf"{name}: cannot be read \(.*{complaint}"):
            read_json(tmp_path / name)


def test_names_that_are_no_utf_8_are_written_as_their_escapes(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "fr\udcf6h"})
    assert read_json(tmp_path / "a.json") == {"name": "fr\udcf6h"}
    write_csv(tmp_path / "a.csv", ["name"], [["fr\udcf6h"]])
    assert "fr\\udcf6h" in (tmp_path / "a.csv").read_text()


def test_a_run_folder_describes_itself(cross_validated: Path) -> None:
    folder = cross_validated / "fold-0"
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        *("run.json", "results.json", "split.csv", "history.csv", "README.md", "config.json", "model.safetensors"),
        *("predictions_test.csv", "confusion_student_test.csv", "confusion_student_test.png", "tensorboard", "state"),
    }
    described = json.loads((folder / "run.json").read_text())
    assert described["seed"] == 0
    assert (described["stages"]["student"]["epochs"], list(described["stages"])) == (3, ["student"])
    assert described["split"]["note"] == "leave one speaker out: savee/DC tests, savee/JE validates"
    assert {"torch", "numpy", "python"} <= set(described["versions"])
    with open(folder / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert {"cross_entropy", "validation_wa", "validation_ua", "learning_rate", "seconds"} <= set(history[0])
    assert (folder / "confusion_student_test.png").read_bytes().startswith(b"\x89PNG")
    assert any((folder / "tensorboard").iterdir())
    with open(folder / "confusion_student_test.csv", newline="") as file:
        confusion = list(csv.reader(file))
    assert confusion[0] == ["true", *sorted(CODES.values())]
    assert sum(int(value) for row in confusion[1:] for value in row[1:]) == 14


def test_a_second_run_in_the_same_folder_is_refused_and_a_resumed_one_is_not(
    cross_validated: Path, savee: Path, place: Path
) -> None:
    same = ["train", "--dataset", "savee", "--data-dir", savee, "--cache-dir", place / "cache"]
    same += ["--output", cross_validated, *SMALL]
    assert "holds a run already: pass --resume" in fail(*same)
    weights = (cross_validated / "fold-0" / "model.safetensors").stat().st_size
    before = results_of(cross_validated / "fold-2")
    result = succeed(*same, "--resume")
    assert "student: is complete after epoch 3" in result.stderr
    assert (cross_validated / "fold-0" / "model.safetensors").stat().st_size == weights
    assert results_of(cross_validated / "fold-2") == before
    assert "seed 0 there, 5 now" in fail(*same, "--resume", "--seed", "5")


def test_no_cross_validation_goes_into_the_folder_of_another_run(place: Path, savee: Path, tmp_path: Path) -> None:
    common = [
        "train",
        "--dataset",
        "savee",
        "--data-dir",
        savee,
        "--cache-dir",
        place / "cache",
    ]
    common += ["--output", tmp_path / "one", *SMALL]
    succeed(*common, "--protocol", "random")
    before = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir() if path.is_file()}
    assert "holds a run already: pass --resume" in fail(*common, "--protocol", "speaker")
    assert "protocol 'random' there, 'speaker' now" in fail(*common, "--protocol", "speaker", "--resume")
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir() if path.is_file()} == before
