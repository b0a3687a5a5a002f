from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from corpus_factory import labelled_csv, labelled_folder
from training_runs import SMALL, fail, run, succeed


def test_a_table_that_names_its_parts_is_split_so(tmp_path: Path) -> None:
    """Also where nothing is to test; `evaluate` says then that there is nothing to score."""
    table = labelled_csv(tmp_path / "mine", ["anger", "neutral"], ["a", "b", "c"], 1)
    lines = table.read_text().splitlines()
    part_of = {"a": "train", "b": "validation", "c": "validation"}
    rows = [f"{line},{part_of[line.split(',')[2]]}" for line in lines[1:]]
    table.write_text("\n".join([f"{lines[0]},split", *rows]))
    common = ("--dataset", "folder", "--data-dir", table, "--cache-dir", tmp_path / "cache")
    result = succeed("train", *common, *SMALL, "--output", tmp_path / "own")
    assert "2 training, 4 validation, 0 test clips (the parts are those of the table)" in result.stderr
    with open(tmp_path / "own" / "split.csv", newline="") as file:
        assert all(row["part"] == part_of[row["speaker"]] for row in csv.DictReader(file))
    error = fail("evaluate", *common, "--model", tmp_path / "own")
    assert "there is no test clip to score: choose another part" in error


def test_a_folder_of_ones_own_trains_under_random(place: Path, tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "mine", ["anger", "neutral"], 10)
    arguments = [
        *(
            "train",
            "--dataset",
            "folder",
            "--data-dir",
            folder,
            "--cache-dir",
            place / "cache",
        ),
        *("--output", tmp_path / "run", *SMALL),
    ]
    assert "--protocol random" in fail(*arguments)
    result = succeed(*arguments, "--protocol", "random", "--set", "student.epochs=12")
    assert [json.loads(line)["clips"] for line in result.stdout.splitlines()] == [2, 4]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "known speakers, new clips" in card
    assert "| student, test | 4 | ? |" in card


def test_the_paper_protocol_prints_its_leak(place: Path, savee: Path, tmp_path: Path) -> None:
    result = succeed(
        *("train", "--dataset", "savee", "--data-dir", savee, "--protocol", "paper", "--recipe", "paper"),
        *("--cache-dir", place / "cache", "--output", tmp_path / "run", *SMALL),
        *("--set", "student.epochs=1", "--set", 'versions=["original", "noise", "shift", "speed"]'),
    )
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["split"]["test"] == 45  # a fifth of 4 x 56, rounded up
    assert described["split"]["leakage"] > 0.95
    assert "of test samples have a version of the same recording in training" in result.stderr
    card = (tmp_path / "run" / "README.md").read_text()
    assert "**Leak**: " in card
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["frontend"]["long_clips"] == "truncate"


def test_unreadable_files_are_named_and_strict_stops(place: Path, tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "mine", ["anger", "neutral"], 6)
    (folder / "anger" / "broken.wav").write_bytes(b"RIFF")
    arguments = [
        *("train", "--dataset", "folder", "--data-dir", folder, "--protocol", "random"),
        *("--cache-dir", place / "cache", "--output", tmp_path / "run", *SMALL, "--set", "student.epochs=1"),
    ]
    error = fail(*arguments, "--strict")
    assert "1 files cannot be read" in error
    assert "broken.wav" in error
    result = succeed(*arguments)
    assert "broken.wav" in result.stderr


def test_one_recording_under_two_names_is_a_leak(tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "mine", ["anger", "neutral"], 6)
    (folder / "neutral" / "again.wav").write_bytes(next(iter(sorted((folder / "anger").iterdir()))).read_bytes())
    arguments = ("train", "--dataset", "folder", "--data-dir", folder, "--cache-dir", tmp_path / "cache", *SMALL)
    arguments += ("--protocol", "random")
    found = [run(*arguments, "--seed", seed, "--output", tmp_path / str(seed)) for seed in range(4)]
    refused = [result for result in found if result.exit_code]
    assert refused  # with some seeds both train
    for result in refused:
        assert result.exit_code == 1
        assert re.search(r"the random split leaks: .+ \(\w+\) and .+ \(\w+\) are one and the same file", result.stderr)
