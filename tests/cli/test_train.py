from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from speech_emotion_vit.training.data.corpora.savee import CODES
from training_runs import SMALL, TINY, fail, succeed


def test_what_was_trained_predicts(cross_validated: Path, savee: Path) -> None:
    from speech_emotion_vit import EmotionClassifier

    folder = cross_validated / "fold-0"
    classifier = EmotionClassifier(folder, vad_filter=False)  # made-up clips are tones
    assert list(classifier.labels) == sorted(CODES.values())
    temperature = json.loads((folder / "results.json").read_text())["temperature"]["student"]
    assert classifier.config.temperature == temperature
    with open(folder / "predictions_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:5]:
        prediction = classifier.predict(savee.parent / f"{row['utterance']}.wav")
        for label, probability in prediction.probabilities.items():
            assert probability == pytest.approx(
                float(row[label]), abs=2e-3
            )  # the features were cached in half precision


def test_the_teacher_is_needed_for_the_later_stages(place: Path, savee: Path, tmp_path: Path) -> None:
    for stage in ("match", "student"):
        error = fail(
            *("train", "--dataset", "savee", "--data-dir", savee, "--stages", stage, "--fold", "0", *TINY),
            *("--cache-dir", place / "cache", "--output", tmp_path / stage),
        )
        assert f"stage {stage} needs stage teacher: name it in --stages, too" in error


def test_only_what_the_stages_read_can_be_set(savee: Path, tmp_path: Path) -> None:
    arguments = ("train", "--dataset", "savee", "--data-dir", savee, "--output", tmp_path, "--stages", "student")
    for value in ("teacher.epochs=1", "match.learning_rate=1", "frames.epochs=1", "model.image_width=3", "alpha=1"):
        error = fail(*arguments, "--set", value)
        assert f"recipe paper reads no value '{value.split('=')[0]}': it reads " in error
        assert "student.epochs" in error
        assert "teacher.stem" not in error
    assert "recipe paper has no stage pupil, frames: it has teacher, match, student" in fail(
        *arguments[:-1], "pupil,frames"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_that_is_not_there_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECH_EMOTION_VIT_DATA", str(tmp_path))
    for command in ("train", "evaluate"):
        error = fail(command, "--dataset", "crema-d")
        for part in (
            "https://github.com/CheyneyComputerScience/CREMA-D",
            "Open Database License",
            "AudioWAV",
            "--data-dir",
        ):
            assert part in error


@pytest.mark.parametrize("missing", ["accelerate", "audiomentations", "matplotlib", "sklearn", "tensorboard"])
def test_what_training_needs_is_said_before_it_begins(
    savee: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    error = fail("train", "--dataset", "savee", "--data-dir", savee, "--output", tmp_path / "run")
    assert f"{missing} cannot be imported" in error
    assert "pip install 'speech-emotion-vit[train]'" in error
    assert not (tmp_path / "run").exists()
    if missing == "matplotlib":
        error = fail("evaluate", "--dataset", "savee", "--data-dir", savee, "--output", tmp_path / "run")
        assert "pip install 'speech-emotion-vit[train]'" in error


def test_without_the_extra_train_names_it(savee: Path, tmp_path: Path) -> None:
    command = ["train", "--dataset", "savee", "--data-dir", str(savee), "--output", str(tmp_path / "run")]
    code = "import sys\nfor name in ('accelerate', 'scipy', 'sklearn'): sys.modules[name] = None\n"
    code += f"from speech_emotion_vit.cli import main\nmain({command!r})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: accelerate cannot be imported")
    assert "pip install 'speech-emotion-vit[train]'" in result.stderr


@pytest.mark.parametrize(
    ("options", "status", "complaint"),
    [
        (["--dataset", "iemocap"], 1, "dataset must be one of crema-d, emodb, savee, emovo, casia, urdu"),
        ([], 1, "recipe paper names no corpus: pass --dataset"),
        (["--dataset", "savee", "--fold", "first"], 2, "is not a number, all or final"),
        (["--dataset", "savee", "--set", "student.alpha"], 2, "is not NAME=VALUE"),
        (["--dataset", "savee", "--set", "beta=1"], 1, "recipe paper reads no value 'beta'"),
        (
            ["--dataset", "savee", "--recipe", "best"],
            1,
            "recipe must be one of paper, base, small, research or",
        ),
        (["--dataset", "savee", "--recipe", "none.json"], 1, "none.json: is no recipe"),
        (
            ["--dataset", "savee", "--set", f"frontend.top_db=1{'0' * 400}"],
            1,
            "top_db must be a number from 1",
        ),
        (
            ["--dataset", "savee", "--set", f"frontend.top_db={'9' * 5000}"],
            1,
            "top_db must be a number from 1",
        ),
        (
            ["--dataset", "savee", "--set", f"frontend.top_db={'[' * 100_000}"],
            1,
            "top_db must be a number from 1",
        ),
        (["--dataset", "savee", "--fold", "9"], 1, "has folds 0 to 3"),
        (["--dataset", "savee", "--fold", "9" * 5000], 2, "is not a number, all or final"),
    ],
)
def test_wrong_options_are_explained(
    savee: Path, place: Path, tmp_path: Path, options: list[str], status: int, complaint: str
) -> None:
    more = ["--data-dir", savee, "--cache-dir", place / "cache", "--output", tmp_path / "run", *SMALL]
    assert complaint in fail("train", *options, *more, status=status)


def test_a_recipe_file_is_taken(savee: Path, place: Path, tmp_path: Path) -> None:
    from speech_emotion_vit.training.recipes import RECIPES

    values = RECIPES["paper"].only(("student",)).with_values({"student.epochs": "1", "student.alpha": "0"})
    (tmp_path / "mine.json").write_text(json.dumps(values.to_dict() | {"name": "mine"}))
    succeed(
        *("train", "--dataset", "savee", "--data-dir", savee, "--fold", "1"),
        *("--recipe", tmp_path / "mine.json", "--cache-dir", place / "cache", "--output", tmp_path / "run", *TINY),
    )
    assert json.loads((tmp_path / "run" / "fold-1" / "run.json").read_text())["recipe"]["name"] == "mine"


def test_a_recipe_file_too_deep_to_read_is_refused(savee: Path, tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    error = fail("train", "--dataset", "savee", "--data-dir", savee, "--recipe", tmp_path / "deep.json")
    assert "deep.json: is no recipe" in error


@pytest.mark.skipif(sys.platform == "win32", reason="there are no FIFOs")
def test_a_recipe_that_never_ends_is_refused(savee: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name in ("fifo.json", "zero.json"):
        error = fail("train", "--dataset", "savee", "--data-dir", savee, "--recipe", tmp_path / name)
        assert "is no recipe (is not a regular file" in error


def test_help_has_examples() -> None:
    for command in ("train", "evaluate"):
        text = succeed(command, "--help").stdout
        assert "Examples:" in text
        assert f"speech-emotion-vit {command} --dataset" in text
