"""Training runs on made-up corpora through the command line; pytest loads the fixtures from conftest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from corpus_factory import write_clip
from speech_emotion_vit.cli import main
from speech_emotion_vit.training.data.corpora import crema_d, emodb
from speech_emotion_vit.training.data.corpora import savee as savee_facts

TINY = [
    *("--set", "frontend.n_mels=32", "--set", "frontend.columns=32", "--set", "model.patch_height=32"),
    *("--set", 'versions=["original"]', "--device", "cpu"),
]
# The paper's student alone, without a teacher.
SMALL = [
    *(*TINY, "--stages", "student", "--set", "student.alpha=0", "--set", "student.epochs=3"),
    *("--set", "student.batch_size=8", "--set", "student.learning_rate=1e-3"),
]


THREE = "crema-d+emodb+savee"
LABELS = ("anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


def run(*arguments: object) -> Result:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])
    finally:
        torch.set_num_threads(threads)


def succeed(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def fail(*arguments: object, status: int = 1) -> str:
    result = run(*arguments)
    assert result.exit_code == status, result.output
    if status == 1:
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith("Error: ")
        assert "Traceback" not in result.stderr
        return last
    return result.stderr


def results_of(folder: Path) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads((folder / "results.json").read_text())["scores"]["student"]["test"]
    return scores


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="session")
def savee(place: Path) -> Path:
    for number, speaker in enumerate(("DC", "JE", "JK", "KL")):
        for code, label in savee_facts.CODES.items():
            for take in (1, 2):
                write_clip(place / "savee" / f"{speaker}_{code}{take:02}.wav", label, seed=10 * number + take)
    return place / "savee"


@pytest.fixture(scope="session")
def cross_validated(place: Path, savee: Path) -> Path:
    result = succeed(
        *("train", "--dataset", "savee", "--data-dir", savee, "--cache-dir", place / "cache"),
        *("--output", place / "loso", *SMALL),
    )
    assert "424 of 480 utterances are missing: savee/DC_a03, " in result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    found = [(line["scores"], line["clips"], line["speakers"]) for line in lines]
    assert found == [("student, test", 56, 4), ("student, test common sentences", 56, 4)]
    return place / "loso"


@pytest.fixture(scope="session")
def general(place: Path, savee: Path) -> Path:
    root = place / "general"
    root.mkdir()
    (root / "savee").symlink_to(savee)
    for speaker in ("1001", "1049", "1048"):  # one of the training, validation and test speakers each
        for code, label in crema_d.CODES.items():
            write_clip(root / "crema-d" / f"{speaker}_DFA_{code}_XX.wav", label, seed=int(speaker))
    for speaker in ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16"):
        for code, label in emodb.CODES.items():
            write_clip(root / "emodb" / f"{speaker}a01{code}a.wav", label, seed=int(speaker))
    return root


@pytest.fixture(scope="session")
def mixed(place: Path, general: Path) -> Path:
    common = ("train", "--dataset", THREE, "--data-dir", general, *SMALL)
    common += ("--cache-dir", place / "cache")
    validation, tested = "student, validation crema-d", [f"student, test {name}" for name in THREE.split("+")]
    for fold, scored in (
        ("0", {validation, *tested, "student, test savee, common sentences"}),
        ("final", {"student, test crema-d"}),  # what would validate trains
    ):
        result = succeed(*common, "--fold", fold, "--output", place / "mixed")
        lines = {(line := json.loads(text))["scores"]: line for text in result.stdout.splitlines()}
        assert set(lines) == scored
        for name, line in lines.items():
            unknown = {"crema-d": {"boredom", "surprise"}, "emodb": {"surprise"}, "savee": {"boredom"}}
            assert set(line["labels"]) == set(LABELS) - unknown[name.split()[2].strip(",")]
    return place / "mixed"
