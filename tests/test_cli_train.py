from __future__ import annotations

import csv
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from corpus_factory import labelled_csv, labelled_folder, write_clip
from speech_emotion_vit.cli import main
from speech_emotion_vit.errors import TrainingError
from speech_emotion_vit.model.config import ModelConfig
from speech_emotion_vit.model.vit import SpectrogramViT
from speech_emotion_vit.training.data.catalogue import find_corpus
from speech_emotion_vit.training.data.corpora import CREMA_D_LABELS, EMODB_LABELS, SAVEE_LABELS
from speech_emotion_vit.training.data.dataset import Data
from speech_emotion_vit.training.fit.stage_runner import _restore_head
from speech_emotion_vit.training.folds import pool_folds
from speech_emotion_vit.weights.checkpoint import load_checkpoint

SMALL = [
    *("--set", "frontend.n_mels=32", "--set", "frontend.columns=32", "--set", "patch_height=32", "--device", "cpu"),
    *("--set", "supervised.epochs=3", "--set", "supervised.batch_size=8", "--set", "supervised.warmup_epochs=0"),
]

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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def savee(place: Path) -> Path:
    for number, speaker in enumerate(("DC", "JE", "JK", "KL")):
        for code, label in SAVEE_LABELS.items():
            for take in (1, 2):
                write_clip(place / "savee" / f"{speaker}_{code}{take:02}.wav", label, seed=10 * number + take)
    return place / "savee"


@pytest.fixture(scope="module")
def cross_validated(place: Path, savee: Path) -> Path:
    result = succeed(
        *("train", "--dataset", "savee", "--data-dir", savee, "--stage", "supervised", "--cache-dir", place / "cache"),
        *("--output", place / "loso", *SMALL),
    )
    assert "424 of 480 utterances are missing: DC_a03, " in result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["scores"], line["clips"], line["speakers"]) for line in lines] == [("student, test", 56, 4)]
    return place / "loso"


@pytest.fixture(scope="module")
def general(place: Path, savee: Path) -> Path:
    root = place / "general"
    root.mkdir()
    (root / "savee").symlink_to(savee)
    for speaker in ("1001", "1049", "1048"):  # one of the training, validation and test speakers each
        for code, label in CREMA_D_LABELS.items():
            write_clip(root / "crema-d" / f"{speaker}_DFA_{code}_XX.wav", label, seed=int(speaker))
    for speaker in ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16"):
        for code, label in EMODB_LABELS.items():
            write_clip(root / "emodb" / f"{speaker}a01{code}a.wav", label, seed=int(speaker))
    return root


@pytest.fixture(scope="module")
def mixed(place: Path, general: Path) -> Path:
    common = ("train", "--dataset", "general", "--data-dir", general, "--stage", "supervised", *SMALL)
    common += ("--cache-dir", place / "cache", "--set", "repeats=2")
    validation = "student, validation crema-d"
    for fold, scored in (
        ("0", {validation, "student, test crema-d", "student, test emodb", "student, test savee"}),
        ("final", {"student, test crema-d"}),  # what would validate trains
    ):
        result = succeed(*common, "--fold", fold, "--output", place / "mixed")
        lines = {(line := json.loads(text))["scores"]: line for text in result.stdout.splitlines()}
        assert set(lines) == scored
        for name, line in lines.items():
            unknown = {"crema-d": {"boredom", "surprise"}, "emodb": {"surprise"}, "savee": {"boredom"}}
            assert set(line["labels"]) == set(LABELS) - unknown[name.split()[-1]]
    return place / "mixed"


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
        *("evaluate", "--dataset", "general", "--data-dir", general, "--fold", "0", "--model", folder),
        *("--cache-dir", place / "cache"),
    )
    right = sum(row["label"] == row["predicted"] for row in rows)
    scored = json.loads(result.stdout.splitlines()[0])
    assert (scored["clips"], scored["wa"]) == (len(rows), pytest.approx(right / len(rows)))


def test_folds_of_several_corpora_are_pooled_corpus_by_corpus(tmp_path: Path, general: Path, mixed: Path) -> None:
    corpus, folder = find_corpus("general", general)
    utterances = tuple(corpus.read(folder))
    for fold in range(2):
        shutil.copytree(mixed / "fold-0", tmp_path / f"fold-{fold}")
        results = json.loads((tmp_path / f"fold-{fold}" / "results.json").read_text())
        results["temperature"]["student"] = 0.01  # as if far too sure, so that even impossible labels would show
        (tmp_path / f"fold-{fold}" / "results.json").write_text(json.dumps(results))
    data = Data(corpus=corpus, utterances=utterances, labels=LABELS, stores={}, remarks=())
    pooled = pool_folds(tmp_path, data, 2)
    assert set(pooled["scores"]["student"]) == {"test crema-d", "test emodb", "test savee"}
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
    message = fail("train", "--dataset", "general", *arguments, *common, *teachers)
    assert "does not know boredom: choose a teacher that knows every label" in message
    arguments = ("--data-dir", savee, "--output", place / "taught-other", "--set", "frontend.top_db=60")
    teachers = ("--set", f"teachers={json.dumps([str(mixed / 'fold-0')])}")
    assert "its front-end is" in fail("train", "--dataset", "savee", *arguments, *common, *teachers)


def test_clips_of_different_corpora_are_not_mixed(place: Path, general: Path) -> None:
    arguments = ("--data-dir", general, "--cache-dir", place / "cache", "--set", "augmentation.mixup=0.4", *SMALL)
    message = fail("train", "--dataset", "general", "--fold", "0", "--output", place / "mixup", *arguments)
    assert "set augmentation.mixup to 0" in message


def test_votes_are_learnt_where_there_are_any_and_not_mixed(place: Path, savee: Path, tmp_path: Path) -> None:
    common = ("--stage", "supervised", "--set", "votes_weight=0.5", "--cache-dir", place / "cache", *SMALL)
    message = fail("train", "--dataset", "savee", "--data-dir", savee, "--output", tmp_path / "none", *common)
    assert "votes_weight is for CREMA-D with its summaryTable.csv beside AudioWAV; set it to 0" in message
    rows = ["FileName,VoiceVote,MultiModalVote"]
    for number, (speaker, part) in enumerate((s, p) for s in ("1001", "1049", "1048") for p in CREMA_D_LABELS):
        write_clip(tmp_path / "AudioWAV" / f"{speaker}_DFA_{part}_XX.wav", CREMA_D_LABELS[part], seed=number)
        rows.append(f"{speaker}_DFA_{part}_XX,{part[0]}:N,{part[0]}")
    (tmp_path / "summaryTable.csv").write_text("\n".join(rows))
    arguments = ("train", "--dataset", "crema-d", "--data-dir", tmp_path, *common)
    succeed(*arguments, "--output", tmp_path / "run")
    with open(tmp_path / "run" / "history.csv", newline="") as file:
        losses = [float(row["votes"]) for row in csv.DictReader(file)]
    assert len(losses) == 3
    assert 0 < losses[-1] < losses[0]
    message = fail(*arguments, "--output", tmp_path / "mixup", "--set", "augmentation.mixup=0.4")
    assert "set augmentation.mixup or votes_weight to 0" in message


def test_features_of_different_width_are_not_matched(place: Path, savee: Path) -> None:
    arguments = ("--data-dir", savee, "--cache-dir", place / "cache", "--set", "student_network=paper", *SMALL)
    message = fail("train", "--dataset", "savee", "--output", place / "widths", *arguments)
    assert "the teacher's feature has 576 values, the student's 256" in message
    assert "set teacher_network and student_network alike" in message


def test_a_cross_validation_tests_every_clip_once(cross_validated: Path) -> None:
    run = json.loads((cross_validated / "run.json").read_text())
    assert (run["fold"], run["split"]["leakage"], run["corpus"]) == ("all", 0, "savee")
    tested = []
    for fold, speaker in enumerate(("DC", "JE", "JK", "KL")):
        folder = cross_validated / f"fold-{fold}"
        with open(folder / "predictions_test.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["speaker"] for row in rows} == {speaker}
        tested += [row["utterance"] for row in rows]
    assert len(tested) == len(set(tested)) == 56
    results = json.loads((cross_validated / "results.json").read_text())
    assert results["folds"] == 4
    assert len(results["test_ua_by_fold"]["student"]["test"]) == 4
    assert results["scores"]["student"]["test"]["ua_interval"] is not None
    wa = sum(results_of(cross_validated / f"fold-{fold}")["wa"] for fold in range(4)) / 4
    assert results["scores"]["student"]["test"]["wa"] == pytest.approx(wa)


def test_final_of_crema_d_is_calibrated_by_the_run_beside_it(place: Path, general: Path) -> None:
    common = ("train", "--dataset", "crema-d", "--data-dir", general / "crema-d", "--stage", "supervised", *SMALL)
    common += ("--cache-dir", place / "cache", "--output", place / "official")
    assert "6 training, 6 validation, 6 test items" in succeed(*common).stderr
    assert "12 training, 0 validation, 6 test items" in succeed(*common, "--fold", "final").stderr
    held_out, final = (
        json.loads((folder / "results.json").read_text())
        for folder in (place / "official", place / "official" / "final")
    )
    assert held_out["temperature"]["student"] != 1.0
    assert final["temperature"] == held_out["temperature"]
    assert (list(final["scores"]["student"]), final["epochs"]) == (["test"], held_out["epochs"])


def test_a_probe_gives_a_trained_network_the_labels_of_a_few_clips(place: Path, savee: Path, tmp_path: Path) -> None:
    """The bundled default, its weights as they are, tells SAVEE's seven emotions."""
    from speech_emotion_vit import EmotionClassifier

    arguments = ("train", "--dataset", "savee", "--data-dir", savee, "--cache-dir", place / "cache", "--device", "cpu")
    arguments += ("--stage", "probe", "--set", "probe.copies=1", "--output", tmp_path, "--fold", "0")
    result = succeed(*arguments)
    assert "probe: a new head for crema-d@" in result.stderr
    assert "42 training, 0 validation, 14 test items" in result.stderr  # speakers that train are left out in turn
    classifier, base = EmotionClassifier(tmp_path / "fold-0"), EmotionClassifier()
    assert list(classifier.labels) == sorted(SAVEE_LABELS.values())
    clip = next(iter(sorted(savee.glob("*.wav"))))
    np.testing.assert_array_equal(classifier.embed(clip)[: len(base.embed(clip))], base.embed(clip))
    assert results_of(tmp_path / "fold-0")["ua"] > 2 / 7  # tones as loud and high as the label says; chance is 1/7
    described = json.loads((tmp_path / "fold-0" / "run.json").read_text())
    assert described["mode"] == "probe"
    with open(tmp_path / "fold-0" / "history.csv", newline="") as file:
        (record,) = csv.DictReader(file)
    assert classifier.config.temperature == pytest.approx(float(record["temperature"]))
    weights = (tmp_path / "fold-0" / "model.safetensors").read_bytes()
    succeed(*arguments, "--resume")
    with open(tmp_path / "fold-0" / "history.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [record]  # its seconds too: nothing was fitted again
    assert (tmp_path / "fold-0" / "model.safetensors").read_bytes() == weights
    assert "another model" in fail(*arguments, "--recipe", "paper", "--fold", "1")


def test_a_probe_leaves_out_what_its_score_is_about(place: Path, savee: Path, tmp_path: Path) -> None:
    common = ("--cache-dir", place / "cache", *SMALL)  # a small network, for the bundled one takes a minute
    own = ("--dataset", "folder", "--data-dir", labelled_csv(tmp_path, ["anger", "fear"], ["a", "b", "c", "d", "e"], 1))
    succeed("train", *own, *common, "--stage", "supervised", "--output", tmp_path / "own")
    arguments = ("train", "--dataset", "savee", "--data-dir", savee, *common, "--stage", "probe")
    arguments += ("--set", f"initial_weights={tmp_path / 'own'}", "--set", "probe.copies=0")
    result = succeed(*arguments, "--protocol", "random", "--output", tmp_path / "random")
    assert "on training clips left out" in result.stderr
    arguments += ("--set", "probe.contour_weight=0", "--set", "frontend.floor=0.2", "--fold", "0")
    result = succeed(*arguments, "--output", tmp_path / "speaker")
    assert "on training speakers left out" in result.stderr
    configs = [json.loads((tmp_path / each / "config.json").read_text()) for each in ("random", "speaker/fold-0")]
    assert [config["model"]["pooling"] for config in configs] == ["contour_statistics", "stem_statistics"]
    assert [config["frontend"]["floor"] for config in configs] == [0.0, 0.2]
    unlike = ("--set", f"initial_weights={tmp_path / 'speaker' / 'fold-0'}", "--set", "frontend.floor=0")
    message = fail(*arguments, *unlike, "--output", tmp_path / "unlike")
    assert "its front-end is" in message
    assert "set its values, or choose another model" in message


def test_a_probe_beside_the_networks_own_head(tmp_path: Path) -> None:
    """On speakers it has heard, calibrated on others; not where there is nothing to add."""
    table = labelled_csv(tmp_path / "mine", ["anger", "neutral"], ["a", "b", "c", "d", "e"], 2)
    common = ("train", "--dataset", "folder", "--data-dir", table, "--cache-dir", tmp_path / "cache", *SMALL)
    common += ("--set", "probe.copies=0", "--set", "probe.keep=0.5")
    succeed(*common, "--stage", "supervised", "--output", tmp_path / "own")
    probe = ("--stage", "probe", "--set", f"initial_weights={tmp_path / 'own'}")
    result = succeed(*common, *probe, "--output", tmp_path / "both")
    assert f"probe: a head beside that of {tmp_path / 'own'}" in result.stderr
    assert "12 training, 4 validation, 4 test items" in result.stderr
    own, both = (load_checkpoint(tmp_path / each / "model.safetensors") for each in ("own", "both"))
    width = own[1].model.embedding_dim
    expected = 0.5 / own[1].temperature * own[0].head.weight
    torch.testing.assert_close(both[0].head.weight[:, :width], expected, rtol=1e-3, atol=1e-4)  # half precision
    assert (own[1].model.pooling, both[1].model.pooling) == ("statistics", "contour_statistics")
    assert "fitted on the validation clips." in (tmp_path / "both" / "README.md").read_text()
    succeed(*common, *probe, "--set", "temperature_factor=1.25", "--output", tmp_path / "calm")
    assert "fitted on the validation clips and multiplied by 1.25." in (tmp_path / "calm" / "README.md").read_text()
    calm = load_checkpoint(tmp_path / "calm" / "model.safetensors")
    assert calm[1].temperature == pytest.approx(1.25 * both[1].temperature)
    probe = ("--stage", "probe", "--set", f"initial_weights={tmp_path / 'both'}")
    error = fail(*common, *probe, "--output", tmp_path / "again")
    assert f"probe.keep: the head of {tmp_path / 'both'}" in error
    assert "reads all there is: there is nothing to add, set it to 0" in error
    result = succeed(*common, "--stage", "supervised", *probe[2:], "--output", tmp_path / "on")
    assert f"student: starts from {tmp_path / 'both'}" in result.stderr
    assert ", but for the head, since what it reads differs" in result.stderr


def test_a_table_that_names_its_parts_is_split_so(tmp_path: Path) -> None:
    """Also where nothing is to test; `evaluate` says then that there is nothing to score."""
    table = labelled_csv(tmp_path / "mine", ["anger", "neutral"], ["a", "b", "c"], 1)
    lines = table.read_text().splitlines()
    part_of = {"a": "train", "b": "validation", "c": "validation"}
    rows = [f"{line},{part_of[line.split(',')[2]]}" for line in lines[1:]]
    table.write_text("\n".join([f"{lines[0]},split", *rows]))
    common = ("--dataset", "folder", "--data-dir", table, "--cache-dir", tmp_path / "cache")
    result = succeed("train", *common, *SMALL, "--stage", "supervised", "--output", tmp_path / "own")
    assert "2 training, 4 validation, 0 test items (the parts are those of the table)" in result.stderr
    with open(tmp_path / "own" / "split.csv", newline="") as file:
        assert all(row["part"] == part_of[row["speaker"]] for row in csv.DictReader(file))
    error = fail("evaluate", *common, "--model", tmp_path / "own")
    assert "there is no test item to score: choose another part" in error


def test_copies_of_a_probe_are_masked_unless_told_otherwise(tmp_path: Path) -> None:
    table = labelled_csv(tmp_path / "mine", ["anger", "neutral"], ["a", "b", "c", "d", "e"], 2)
    common = ("train", "--dataset", "folder", "--data-dir", table, "--cache-dir", tmp_path / "cache", *SMALL)
    succeed(*common, "--stage", "supervised", "--output", tmp_path / "own")
    common += ("--stage", "probe", "--set", f"initial_weights={tmp_path / 'own'}", "--set", "probe.copies=1")
    recipes = {
        "masked": [],
        "told": ["probe.masks=false"],
        "none": ["augmentation.frequency_masks=0", "augmentation.time_masks=0"],
    }
    for name, changes in recipes.items():
        succeed(*common, *(part for change in changes for part in ("--set", change)), "--output", tmp_path / name)
    masked, told, none = (load_checkpoint(tmp_path / name / "model.safetensors")[0].head.weight for name in recipes)
    torch.testing.assert_close(told, none, rtol=0, atol=0)
    assert not torch.equal(masked, told)


def test_a_head_for_other_labels_cannot_be_kept(place: Path, savee: Path, tmp_path: Path) -> None:
    arguments = ("train", "--dataset", "savee", "--data-dir", savee, "--cache-dir", place / "cache", "--device", "cpu")
    arguments += ("--stage", "probe", "--set", "probe.keep=0.5", "--output", tmp_path, "--fold", "0")
    error = fail(*arguments)
    assert "probe.keep: crema-d@" in error
    assert "knows anger, disgust, fear, happiness, neutral, sadness: its head cannot be kept, set it to 0" in error


def test_a_probe_of_several_corpora_gives_each_its_own_labels(
    place: Path, general: Path, mixed: Path, tmp_path: Path
) -> None:
    arguments = ("train", "--dataset", "general", "--data-dir", general, "--cache-dir", place / "cache", *SMALL)
    arguments += ("--stage", "probe", "--set", f"initial_weights={mixed / 'fold-0'}", "--set", "probe.copies=0")
    result = succeed(*arguments, "--fold", "0", "--output", tmp_path)
    assert f"probe: a new head for {mixed / 'fold-0'}" in result.stderr
    # A speaker of CREMA-D is kept for the temperature: a network may have heard all that train.
    assert "104 training, 6 validation, 34 test items" in result.stderr
    scores = json.loads((tmp_path / "fold-0" / "results.json").read_text())["scores"]["student"]
    assert {part: len(found["labels"]) for part, found in scores.items()} == {
        "validation crema-d": 6,
        "test crema-d": 6,
        "test emodb": 7,
        "test savee": 7,
    }
    for part in ("test emodb", "test savee"):  # tones as loud and high as the label says; chance is 1/7
        assert scores[part]["ua"] > 2 / 7
    succeed(*arguments, "--fold", "final", "--output", tmp_path)
    described = json.loads((tmp_path / "final" / "run.json").read_text())
    assert (described["split"]["train"], described["split"]["validation"]) == (138, 0)


def results_of(folder: Path) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads((folder / "results.json").read_text())["scores"]["student"]["test"]
    return scores


def test_folds_without_validation_calibrate_each_other(place: Path, savee: Path) -> None:
    arguments = ("--data-dir", savee, "--stage", "supervised", "--cache-dir", place / "cache", *SMALL)
    arguments += ("--output", place / "all-in", "--set", "validation=false")
    result = succeed("train", "--dataset", "savee", *arguments)
    assert "42 training, 0 validation, 14 test items" in result.stderr
    pooled = json.loads((place / "all-in" / "results.json").read_text())
    folds = [json.loads((place / "all-in" / f"fold-{k}" / "results.json").read_text()) for k in range(4)]
    assert {fold["temperature"]["student"] for fold in folds} == {1.0}
    fitted = pooled["cross_fitted_temperature"]["student"]
    assert fitted != 1.0
    assert pooled["scores"]["student"]["test"]["nll"] < max(f["scores"]["student"]["test"]["nll"] for f in folds)
    succeed("train", "--dataset", "savee", *arguments, "--fold", "final")
    final = json.loads((place / "all-in" / "final" / "config.json").read_text())
    assert final["temperature"] == pytest.approx(fitted)


def test_a_run_folder_describes_itself(cross_validated: Path) -> None:
    folder = cross_validated / "fold-0"
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        *("run.json", "results.json", "split.csv", "history.csv", "README.md", "config.json", "model.safetensors"),
        *("predictions_test.csv", "confusion_student_test.csv", "confusion_student_test.png", "tensorboard", "state"),
    }
    described = json.loads((folder / "run.json").read_text())
    assert described["seed"] == 0
    assert described["recipe"]["supervised"]["epochs"] == 3
    assert described["split"]["note"] == "leave one speaker out: DC tests, JE validates"
    assert {"torch", "numpy", "python"} <= set(described["versions"])
    with open(folder / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2", "3"]
    assert {"cross_entropy", "validation_wa", "validation_ua", "learning_rate", "seconds"} <= set(history[0])
    assert (folder / "confusion_student_test.png").read_bytes().startswith(b"\x89PNG")
    assert any((folder / "tensorboard").iterdir())
    with open(folder / "confusion_student_test.csv", newline="") as file:
        confusion = list(csv.reader(file))
    assert confusion[0] == ["true", *sorted(SAVEE_LABELS.values())]
    assert sum(int(value) for row in confusion[1:] for value in row[1:]) == 14


def test_the_model_card_says_what_the_score_measures(cross_validated: Path) -> None:
    card = (cross_validated / "fold-0" / "README.md").read_text()
    ua = 100 * results_of(cross_validated / "fold-0")["ua"]
    assert "| student, test | 14 | 1 | " in card
    assert f"| {ua:.1f} |" in card
    assert "never heard in training: a new voice. leave one speaker out: DC tests, JE validates." in card
    assert "research use, by registration" in card
    assert '"frequency_warp"' in card
    assert "424 of 480 utterances are missing" in card
    pooled = (cross_validated / "README.md").read_text()
    assert "| student, test | 56 | 4 | " in pooled
    assert "fitted on the validation clips" in card
    assert 'EmotionClassifier("path/to/this/folder")' in card
    assert "of 4 networks, in the folders `fold-0` to `fold-3`" in pooled
    assert 'EmotionClassifier("path/to/this/folder/final")' in pooled


def test_what_was_trained_predicts(cross_validated: Path, savee: Path) -> None:
    from speech_emotion_vit import EmotionClassifier

    folder = cross_validated / "fold-0"
    classifier = EmotionClassifier(folder)
    assert list(classifier.labels) == sorted(SAVEE_LABELS.values())
    temperature = json.loads((folder / "results.json").read_text())["temperature"]["student"]
    assert classifier.config.temperature == temperature
    with open(folder / "predictions_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[:5]:
        prediction = classifier.predict(savee / f"{row['utterance']}.wav")
        for label, probability in prediction.probabilities.items():
            assert probability == pytest.approx(
                float(row[label]), abs=2e-3
            )  # the features were cached in half precision


def test_the_final_model_takes_the_folds_temperature(cross_validated: Path, savee: Path, place: Path) -> None:
    succeed(
        *("train", "--dataset", "savee", "--data-dir", savee, "--stage", "supervised", "--fold", "final"),
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
    assert "that of the runs that held clips out" in card


def test_a_second_run_in_the_same_folder_is_refused_and_a_resumed_one_is_not(
    cross_validated: Path, savee: Path, place: Path
) -> None:
    same = ["train", "--dataset", "savee", "--data-dir", savee, "--stage", "supervised", "--cache-dir", place / "cache"]
    same += ["--output", cross_validated, *SMALL]
    assert "holds a run already: pass --resume" in fail(*same)
    weights = (cross_validated / "fold-0" / "model.safetensors").stat().st_size
    before = results_of(cross_validated / "fold-2")
    result = succeed(*same, "--resume")
    assert "supervised: is complete after epoch 3" in result.stderr
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
        "--stage",
        "supervised",
        "--cache-dir",
        place / "cache",
    ]
    common += ["--output", tmp_path / "one", *SMALL]
    succeed(*common, "--protocol", "random")
    before = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir() if path.is_file()}
    assert "holds a run already: pass --resume" in fail(*common, "--protocol", "speaker")
    assert "protocol 'random' there, 'speaker' now" in fail(*common, "--protocol", "speaker", "--resume")
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir() if path.is_file()} == before


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
    assert "leave one speaker out: JK tests, KL validates" in result.stderr
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
    assert "no validation item to score: pass --fold: " in fail(*of_no_fold, "--part", "validation")


def test_a_model_that_has_heard_the_test_speakers_is_no_start(savee: Path, place: Path, tmp_path: Path) -> None:
    common = ("--dataset", "savee", "--data-dir", savee, "--cache-dir", place / "cache")
    evaluated = succeed("evaluate", *common, "--model", "savee", "--output", tmp_path / "scores")
    assert json.loads(evaluated.stdout)["heard"] == 56
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["heard"] == 56
    evaluated = succeed("evaluate", *common, "--model", "crema-d")
    assert json.loads(evaluated.stdout)["heard"] == 0
    assert "LEAK" not in evaluated.stderr

    training = ("train", *common, "--fold", "0", "--output", tmp_path / "run", *SMALL)
    error = fail(*training, "--stage", "probe", "--set", "initial_weights=savee")
    assert "the speaker split leaks: savee was trained on speakers of 14 test clips" in error
    teachers = ("--set", 'teachers=["savee"]')
    assert "the speaker split leaks: savee" in fail(*training, "--stage", "supervised", *teachers)
    assert not (tmp_path / "run" / "fold-0" / "run.json").exists()


def test_evaluate_maps_labels_by_name(cross_validated: Path, place: Path, tmp_path: Path) -> None:
    table = labelled_csv(tmp_path, ["boredom", "fear", "anger"], ["p", "q", "r"], 2)
    result = succeed(
        *("evaluate", "--dataset", "folder", "--data-dir", table, "--model", cross_validated / "fold-0"),
        *("--cache-dir", place / "cache", "--protocol", "speaker"),
    )
    printed = json.loads(result.stdout)
    assert printed["labels"] == ["anger", "fear"]
    assert printed["clips"] == 4
    assert "left out, for the model does not know their label: 2 boredom" in result.stderr
    assert "the corpus has none: disgust, happiness, neutral, sadness, surprise" in result.stderr
    alien = labelled_csv(tmp_path / "alien", ["boredom"], ["p", "q", "r"], 1)
    error = fail(
        *("evaluate", "--dataset", "folder", "--data-dir", alien, "--model", cross_validated / "fold-0"),
        *("--cache-dir", place / "cache"),
    )
    assert "share no label" in error


def test_a_folder_of_ones_own_trains_under_random(place: Path, tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "mine", ["anger", "neutral"], 10)
    arguments = [
        *(
            "train",
            "--dataset",
            "folder",
            "--data-dir",
            folder,
            "--stage",
            "supervised",
            "--cache-dir",
            place / "cache",
        ),
        *("--output", tmp_path / "run", *SMALL),
    ]
    assert "--protocol random" in fail(*arguments)
    result = succeed(*arguments, "--protocol", "random", "--set", "supervised.epochs=12")
    assert [json.loads(line)["clips"] for line in result.stdout.splitlines()] == [2, 4]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "known voices, new clips" in card
    assert "| student, test | 4 | ? |" in card


def test_the_paper_protocol_prints_its_leak(place: Path, savee: Path, tmp_path: Path) -> None:
    result = succeed(
        *("train", "--dataset", "savee", "--data-dir", savee, "--protocol", "paper", "--recipe", "paper"),
        *("--stage", "supervised", "--cache-dir", place / "cache", "--output", tmp_path / "run", *SMALL),
        *("--set", "supervised.epochs=1"),
    )
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["split"]["test"] == 45  # a fifth of 4 x 56, rounded up
    assert described["split"]["leakage"] > 0.95
    assert "of test items have a version of the same recording in training" in result.stderr
    card = (tmp_path / "run" / "README.md").read_text()
    assert "**Leak**: " in card
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["frontend"]["long_clips"] == "truncate"


def test_the_teacher_is_needed_for_the_later_stages(place: Path, savee: Path, tmp_path: Path) -> None:
    error = fail(
        *("train", "--dataset", "savee", "--data-dir", savee, "--stage", "student", "--fold", "0"),
        *("--cache-dir", place / "cache", "--output", tmp_path, *SMALL),
    )
    assert "stage student needs stage teacher to be complete" in error


def test_unreadable_files_are_named_and_strict_stops(place: Path, tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "mine", ["anger", "neutral"], 6)
    (folder / "anger" / "broken.wav").write_bytes(b"RIFF")
    arguments = [
        *("train", "--dataset", "folder", "--data-dir", folder, "--stage", "supervised", "--protocol", "random"),
        *("--cache-dir", place / "cache", "--output", tmp_path / "run", *SMALL, "--set", "supervised.epochs=1"),
    ]
    error = fail(*arguments, "--strict")
    assert "1 files cannot be read" in error
    assert "broken.wav" in error
    result = succeed(*arguments)
    assert "broken.wav" in result.stderr


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


def test_one_recording_under_two_names_is_a_leak(tmp_path: Path) -> None:
    folder = labelled_folder(tmp_path / "mine", ["anger", "neutral"], 6)
    (folder / "neutral" / "again.wav").write_bytes(next(iter(sorted((folder / "anger").iterdir()))).read_bytes())
    arguments = ("train", "--dataset", "folder", "--data-dir", folder, "--cache-dir", tmp_path / "cache", *SMALL)
    arguments += ("--stage", "supervised", "--protocol", "random")
    found = [run(*arguments, "--seed", seed, "--output", tmp_path / str(seed)) for seed in range(4)]
    refused = [result for result in found if result.exit_code]
    assert refused  # with some seeds both train
    for result in refused:
        assert result.exit_code == 1
        assert re.search(r"the random split leaks: .+ \(\w+\) and .+ \(\w+\) are one and the same file", result.stderr)


@pytest.mark.parametrize(
    ("options", "status", "complaint"),
    [
        (["--dataset", "iemocap"], 2, "'crema-d', 'emodb', 'savee', 'general', 'folder'"),
        (["--dataset", "savee", "--stage", "pupil"], 2, "'supervised'"),
        (["--dataset", "savee", "--fold", "first"], 2, "is not a number, all or final"),
        (["--dataset", "savee", "--set", "alpha"], 2, "is not NAME=VALUE"),
        (["--dataset", "savee", "--set", "beta=1"], 1, "the recipe has no value 'beta'"),
        (["--dataset", "savee", "--recipe", "best"], 1, "recipe must be one of paper, robust or a .json file"),
        (["--dataset", "savee", "--recipe", "none.json"], 1, "none.json: is no recipe"),
        (["--dataset", "savee", "--set", f"alpha=1{'0' * 400}"], 1, "alpha must be float, not 1000"),
        (["--dataset", "savee", "--set", f"alpha={'9' * 5000}"], 1, "alpha must be float, not '9999"),
        (["--dataset", "savee", "--set", f"alpha={'[' * 100_000}"], 1, "alpha must be float, not '[[["),
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

    values = RECIPES["robust"].with_values({"supervised.epochs": "1"})
    (tmp_path / "mine.json").write_text(json.dumps(values.to_dict() | {"name": "mine"}))
    succeed(
        *("train", "--dataset", "savee", "--data-dir", savee, "--stage", "supervised", "--fold", "1"),
        *("--recipe", tmp_path / "mine.json", "--cache-dir", place / "cache", "--output", tmp_path / "run", *SMALL[:8]),
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


def test_an_answer_that_is_all_another_label_is_scored(
    place: Path, savee: Path, cross_validated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from speech_emotion_vit.training.score import assessment

    def saturated(network: Any, rows: Any) -> Any:
        logits = np.zeros((len(rows), 7))
        logits[:, sorted(SAVEE_LABELS.values()).index("surprise")] = 1e5
        return logits

    monkeypatch.setattr(assessment, "score_rows", saturated)
    table = labelled_csv(place / "two", ["anger", "fear"], ["p", "q", "r"], 1)
    arguments = ("evaluate", "--dataset", "folder", "--data-dir", table, "--model", cross_validated / "fold-0")
    assert json.loads(succeed(*arguments, "--cache-dir", place / "cache").stdout)["nll"] == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [("head", "does not fit this run"), ("shape", "does not fit this run"), ("temperature", "'temperature'")],
)
def test_a_damaged_state_of_a_probe_is_refused(tmp_path: Path, broken: str, complaint: str) -> None:
    shape = ModelConfig(num_classes=2, image_height=32, image_width=32, patch_height=32)
    model = SpectrogramViT(shape)
    head = {name: tensor for name, tensor in model.head.state_dict().items() if broken != "head"}
    head = {name: tensor[:1] for name, tensor in head.items()} if broken == "shape" else head
    fitted = {"left_out_ua": 0.5, "seconds": 1.0} | ({"temperature": 1.0} if broken != "temperature" else {})
    with pytest.raises(TrainingError, match=rf"probe: .*{complaint}.*: remove it to repeat this stage"):
        _restore_head(model, Path("probe"), head, fitted)


def test_help_has_examples() -> None:
    for command in ("train", "evaluate"):
        text = succeed(command, "--help").stdout
        assert "Examples:" in text
        assert f"speech-emotion-vit {command} --dataset" in text
