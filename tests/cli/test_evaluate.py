from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpus_factory import labelled_csv
from speech_emotion_vit.weights.checkpoint import load_checkpoint, save_folder
from training_runs import fail, results_of, succeed


def test_evaluate_scores_the_model_again(cross_validated: Path, savee: Path, place: Path) -> None:
    result = succeed(
        *("evaluate", "--dataset", "savee", "--data-dir", savee, "--fold", "2", "--model", cross_validated / "fold-2"),
        *("--cache-dir", place / "cache", "--output", place / "scores", "--device", "cpu"),
    )
    printed = json.loads(result.stdout.splitlines()[0])
    expected = results_of(cross_validated / "fold-2")
    for name in ("clips", "wa", "ua", "macro_f1", "confusion"):
        assert printed[name] == expected[name]
    assert printed["ece"] == pytest.approx(expected["ece"], abs=1e-4)
    assert "leave one speaker out: savee/JK tests, savee/KL validates" in result.stderr
    assert {path.name for path in (place / "scores").iterdir()} == {
        *("scores.json", "confusion_test.csv", "confusion_test.png", "predictions.csv"),
        *("confusion_common sentences.csv", "confusion_common sentences.png"),
    }


def test_evaluate_without_a_fold_scores_every_clip_and_warns(cross_validated: Path, savee: Path, place: Path) -> None:
    result = succeed(
        *("evaluate", "--dataset", "savee", "--data-dir", savee, "--model", cross_validated / "fold-2"),
        *("--cache-dir", place / "cache"),
    )
    printed = json.loads(result.stdout.splitlines()[0])
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
        "savee-paper",
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
    printed = json.loads(result.stdout.splitlines()[0])
    assert printed["labels"] == ["anger", "fear"]
    assert printed["clips"] == 4
    assert "left out because the model does not know their label: 2 boredom" in result.stderr
    assert "because the corpus has none: disgust, happiness, neutral, sadness, surprise" in result.stderr
    for labels, shared in ((["boredom"], "no label"), (["boredom", "anger"], "anger")):
        alien = labelled_csv(tmp_path / labels[-1], labels, ["p", "q", "r"], 1)
        error = fail(
            *("evaluate", "--dataset", "folder", "--data-dir", alien, "--model", cross_validated / "fold-0"),
            *("--cache-dir", place / "cache"),
        )
        assert f"your own folder share {shared}, and a score needs 2 labels" in error


def test_other_names_of_an_emotion_are_the_same_label(cross_validated: Path, place: Path, tmp_path: Path) -> None:
    names = {"anger": "Angry", "fear": "scared", "neutral": "calm"}
    table = labelled_csv(tmp_path, names, ["p", "q", "r"], 1)
    text = table.read_text()
    lines = text.splitlines()
    for label, name in names.items():
        lines = [line.replace(f",{label},", f",{name},") for line in lines]
    (tmp_path / "other.csv").write_text("\n".join(lines))
    common = ("evaluate", "--dataset", "folder", "--model", cross_validated / "fold-0", "--cache-dir", place / "cache")
    result = succeed(*common, "--data-dir", tmp_path / "other.csv")
    assert "labels taken for the model's own: Angry is anger, calm is neutral, scared is fear" in result.stderr
    same = succeed(*common, "--data-dir", table)
    assert json.loads(result.stdout)["confusion"] == json.loads(same.stdout)["confusion"]
    assert "taken for" not in same.stderr


def test_the_table_of_strangers_is_one_command(general: Path, place: Path, tmp_path: Path) -> None:
    """Every corpus that is there and was never heard, and the mean over them."""
    common = ("evaluate", "--data-dir", general, "--cache-dir", place / "cache")
    result = succeed(*common, "--model", "crema-d-paper", "--output", tmp_path)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["scores"] for line in lines] == ["emodb", "savee", "common sentences", "mean"]
    assert lines[0]["labels"] == ["anger", "disgust", "fear", "happiness", "neutral", "sadness"]
    assert (lines[-1]["corpora"], lines[0]["heard"]) == (["emodb", "savee"], 0)
    assert lines[-1]["ua"] == pytest.approx((lines[0]["ua"] + lines[1]["ua"]) / 2)
    assert {path.name for path in tmp_path.iterdir()} == {"emodb", "savee"}
    error = fail("evaluate", "--data-dir", general / "savee", "--model", "crema-d-paper")
    assert "has none of the corpora that crema-d-paper was not trained on: emodb, savee, emovo, casia, urdu" in error


def test_an_answer_that_is_all_another_label_is_scored(place: Path, cross_validated: Path, tmp_path: Path) -> None:
    """Only the labels of the corpus are asked about, however sure the model is of another one."""
    network, config = load_checkpoint(cross_validated / "fold-0" / "model.safetensors")
    network.head.bias.data[config.labels.index("surprise")] = 6e4
    save_folder(tmp_path, network, config)
    table = labelled_csv(place / "two", ["anger", "fear"], ["p", "q", "r"], 1)
    common = ("evaluate", "--dataset", "folder", "--data-dir", table, "--cache-dir", place / "cache")
    sure, same = (succeed(*common, "--model", model) for model in (tmp_path, cross_validated / "fold-0"))
    assert json.loads(sure.stdout)["nll"] == pytest.approx(json.loads(same.stdout)["nll"], rel=1e-3)
