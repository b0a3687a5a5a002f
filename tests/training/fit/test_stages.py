"""The stages of students of frames, on tiny networks, through the command line."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import re
import struct
import sys
import termios
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from corpus_factory import labelled_csv, write_clip
from speech_emotion_vit.cli import main
from speech_emotion_vit.training.data.corpora import CORPORA
from speech_emotion_vit.training.data.corpora import savee as savee_facts
from speech_emotion_vit.training.fit import frames, perceptron, teacher
from speech_emotion_vit.training.fit.teacher import digest_of
from tiny_networks import digest
from training_runs import fail, results_of, succeed

PATIENCE = 300.0  # seconds until a run counts as hanging, on a busy machine
SIZES = {"DIM": 32, "HEADS": 2, "MLP_DIM": 64, "DEPTH": 3, "POSITIONS": 310}
SHAPE = {"stem": 32, "dim": 32, "heads": 2, "mlp_dim": 64, "depth": 2, "pooled": [1, 2]}
TINY = [word for name, value in SHAPE.items() for word in ("--set", f"model.{name}={value}")]
TINY += ["--set", "model.head_hidden=0", "--device", "cpu", "--precision", "no"]
MATCHING = [
    *("--set", 'frames.audio=["crema-d"]', "--set", "frames.epochs=1", "--set", "frames.batch_size=8"),
]


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an encoder of Whisper's layout, small, with random weights."""
    for module in (teacher, frames):
        for name, value in SIZES.items():
            monkeypatch.setattr(module, name, value, raising=module is teacher)
    sizes = {"SHORTEST": 25, "LONGEST": 50, "MEASURED": 8, "AT_ONCE": 4}
    for name, value in {**sizes, "TARGETS": ((2, 2),), "WARM_START": (1, 2)}.items():
        monkeypatch.setattr(frames, name, value)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: (0.3 * torch.randn(shape, generator=generator) + ("norm.weight" in name)).half()
        for name, shape in teacher.encoder_shapes().items()
    }
    monkeypatch.setattr(teacher, "ENCODER_SHA256", digest_of(tensors))
    folder = tmp_path / "encoder"
    folder.mkdir()
    save_file({f"model.encoder.{name}": tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def history(folder: Path, stage: str) -> list[dict[str, float]]:
    with open(folder / "history.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("stage") == stage]
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def body(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}


@pytest.fixture
def strangers(general: Path, tmp_path: Path) -> Path:
    """What the recipe learns from, and one corpus beside it."""
    root = tmp_path / "strangers"
    root.mkdir()
    for name in ("crema-d", "emodb"):
        (root / name).symlink_to(general / name)
    for number, speaker in enumerate(("DC", "JE", "JK", "KL")):
        for code, label in savee_facts.CODES.items():
            write_clip(root / "savee" / f"{speaker}_{code}01.wav", label, seed=2000 + number)
    return root


def test_the_recipe_base_is_one_command(encoder: Path, strangers: Path, place: Path, tmp_path: Path) -> None:
    """Strangers are tested and give the temperature; test speakers are heard by nobody, with labels or without."""
    output, cache = tmp_path / "base", ("--cache-dir", place / "cache")
    command = ("train", "--recipe", "base", "--data-dir", strangers, "--teacher", encoder, "--output", output)
    result = succeed(*command, *cache, *TINY, *MATCHING)
    lines = {(line := json.loads(text))["scores"]: line for text in result.stdout.splitlines()}
    assert set(lines) >= {
        *("student, test savee", "student, test savee, common sentences", "student, speaker crema-d"),
    }
    assert lines["student, test savee"]["clips"] == 4 * 6  # without surprise
    assert lines["student, test savee"]["ua"] > 0.5
    assert lines["student, speaker crema-d"]["clips"] == 6
    run = json.loads((output / "run.json").read_text())
    assert run["teacher"]["repository"] == "openai/whisper-base"
    assert list(run["stages"]) == ["frames", "head"]
    assert ModelCard((output / "README.md").read_text()).data.base_model == "openai/whisper-base"
    with open(output / "split.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert not CORPORA["crema-d"].test_speakers & {
        row["speaker"] for row in rows if row["part"] in ("train", "unlabelled")
    }
    assert any(row["part"] == "unlabelled" for row in rows)

    # The very same question, asked from the outside.
    asked = ("evaluate", "--model", output, "--dataset", "savee", "--data-dir", strangers / "savee")
    for text in succeed(*asked, "--protocol", "corpus", *cache).stdout.splitlines():
        line = json.loads(text)
        mine = lines[f"student, test {line['scores'] if line['scores'] == 'savee' else 'savee, ' + line['scores']}"]
        assert (line["clips"], line["heard"]) == (mine["clips"], 0)
        assert line["ua"] == pytest.approx(mine["ua"])
    state = output / "state" / "frames.state.safetensors"
    matched = state.stat().st_mtime_ns
    succeed(*command, "--fold", "final", *cache, *TINY, *MATCHING)
    assert state.stat().st_mtime_ns == matched  # needs no labels, so it is done once
    assert digest(body(output / "final")) == digest(body(output))


def test_the_recipe_small_takes_a_part_of_the_model_it_starts_from(
    encoder: Path, strangers: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perceptron, "STEPS", 150)
    base, small = tmp_path / "base", tmp_path / "small"
    data = ("--data-dir", strangers, "--cache-dir", place / "cache")
    succeed("train", "--recipe", "base", *data, "--teacher", encoder, "--output", base, *TINY, *MATCHING)
    shape = [word for name, value in (("stem", 16), ("dim", 16), ("heads", 1), ("mlp_dim", 32), ("head_hidden", 16))
             for word in ("--set", f"model.{name}={value}")]  # fmt: skip
    write_clip(strangers / "talk" / "one.wav", "anger", seed=1)
    quick = ("--set", 'narrow.audio=["crema-d", "talk"]', "--set", "narrow.epochs=1", "--set", f"start={base}")
    result = succeed("train", "--recipe", "small", *data, "--output", small, *TINY, *shape, *quick)
    lines = {(line := json.loads(text))["scores"]: line for text in result.stdout.splitlines()}
    assert lines["student, test savee"]["ua"] > 0.5
    assert [record["epoch"] for record in history(small, "narrow")] == [1]
    assert {"block_1", "block_2", "embedding"} <= set(history(small, "narrow")[0])
    assert body(small)["blocks.1.mlp.hidden.weight"].shape == (32, 16)
    run = json.loads((small / "run.json").read_text())
    assert run["learnt_from"]
    with open(small / "split.csv", newline="") as file:
        unlabelled = [row for row in csv.DictReader(file) if row["part"] == "unlabelled"]
    assert {row["utterance"].split("/")[0] for row in unlabelled} == {"crema-d", "talk"}
    assert "- talk, without labels" in (small / "README.md").read_text()
    for name, asked in (("", "set start"), ("emodb-paper", "no FrameViT")):
        refused = ("--set", 'narrow.audio=["crema-d"]', "--set", f"start={name}")
        assert asked in fail(
            "train", "--recipe", "small", *data, "--output", tmp_path / f"refused{name}", *TINY, *refused
        )


def test_what_no_stage_reads_cannot_be_set(tmp_path: Path) -> None:
    for recipe, stages, name in (
        ("base", "frames,head", "versions"),
        ("base", "head", "frames.epochs"),
        ("base", "frames", "head.penalties"),
        ("paper", "student", "teacher.epochs"),
        ("paper", "teacher", "model.depth"),
        ("paper", "teacher", "student.alpha"),
    ):
        command = ("train", "--recipe", recipe, "--stages", stages, "--set", f"{name}=1", "--output", tmp_path / "run")
        assert f"recipe {recipe} reads no value '{name}': it reads " in fail(*command, "--data-dir", tmp_path)
    assert not (tmp_path / "run").exists()


def speakers_with_a_label_each(root: Path) -> Path:
    """Six voices, each a pitch of its own that says one label only: who knows the voices knows the labels."""
    lines = ["path,label,speaker"]
    pitches = ("anger", "boredom", "disgust", "fear", "happiness", "neutral")
    for number, pitch in enumerate(pitches):
        for take in range(4):
            write_clip(root / f"{number}_{take}.wav", pitch, seed=100 * number + take)
            lines.append(f"{number}_{take}.wav,{'yes' if number % 2 else 'no'},voice {number}")
    (root / "clips.csv").write_text("\n".join(lines) + "\n")
    return root / "clips.csv"


def test_a_head_is_chosen_and_calibrated_on_what_its_score_is_about(tmp_path: Path) -> None:
    """Voices are left out as a whole under speaker, clips of known voices under random."""
    table = speakers_with_a_label_each(tmp_path / "corpus")
    known: dict[str, float] = {}
    for protocol in ("random", "speaker"):
        succeed(
            *("train", "--recipe", "base", "--stages", "head", "--dataset", "folder", "--data-dir", table, *TINY),
            *("--set", "labels=[]", "--protocol", protocol, "--cache-dir", tmp_path / "cache"),
            *("--output", tmp_path / protocol),
        )
        known[protocol] = history(tmp_path / protocol, "head")[0]["left_out_ua"]
    assert known["random"] > 0.9
    assert known["speaker"] < 0.7


def read_terminal(terminal: int) -> str:
    """Return what is written to a terminal until nobody has it open any more."""
    text = b""
    with contextlib.suppress(OSError), open(terminal, "rb", buffering=0) as file:
        while part := file.read(4096):
            text += part
    return text.decode()


def test_a_fold_shows_its_progress_and_leaves_curves(
    savee: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bars are for terminals only, so this is one."""
    command = ["train", "--recipe", "base", "--stages", "head", "--dataset", "savee", "--data-dir", str(savee), *TINY]
    command += ["--set", "labels=[]", "--cache-dir", str(place / "cache"), "--fold", "1", "--output", str(tmp_path)]
    terminal, stream = os.openpty()
    fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with ThreadPoolExecutor(1) as pool:
        shown = pool.submit(read_terminal, terminal)
        with open(stream, "w", encoding="utf-8") as stderr, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stderr)
            main.main(command, standalone_mode=False)
    for bar in ("embeddings", "clips left out", "scores"):
        assert re.search(rf"{bar}: +\d+%", shown.result())
    curves = EventAccumulator(str(tmp_path / "fold-1" / "tensorboard")).Reload()
    assert {"head/left_out_ua", "head/penalty"} <= set(curves.Tags()["scalars"])
    assert curves.Scalars("head/left_out_ua")[0].value == pytest.approx(
        history(tmp_path / "fold-1", "head")[0]["left_out_ua"], abs=1e-6
    )


def test_folds_hear_every_clip_once(savee: Path, place: Path, tmp_path: Path) -> None:
    output = tmp_path / "folds"
    command = ("train", "--recipe", "base", "--stages", "head", "--dataset", "savee", "--data-dir", savee, *TINY)
    command += ("--set", "labels=[]", "--cache-dir", place / "cache")
    succeed(*command, "--output", output)
    assert len(list((output / "state").glob("embeddings-*.safetensors"))) == 1
    assert results_of(output)["clips"] == 56
    assert results_of(output)["ua"] > 0.9  # a clip with another one's embedding would have another one's label
    (kept,) = (output / "state").glob("embeddings-*.safetensors")
    moment = kept.stat().st_mtime_ns
    succeed(*command, "--output", output, "--fold", "final")
    assert kept.stat().st_mtime_ns == moment
    (output / "fold-0" / "state" / "head.state.safetensors").unlink()
    save_file({"other": torch.zeros(1)}, kept)
    assert str(kept) in fail(*command, "--output", output, "--fold", "0", "--resume")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_csv(tmp_path_factory.mktemp("corpus"), ["anger", "fear"], ["p", "q", "r", "s", "t"], 3)


def fitted(table: Path, output: Path, *more: str) -> list[str]:
    return [
        *("train", "--recipe", "base", "--stages", "head", "--dataset", "folder", "--data-dir", str(table), *TINY),
        *("--set", "labels=[]", "--cache-dir", str(table.parent / "cache"), "--output", str(output), *more),
    ]


def damage(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> None:
    tensors = load_file(path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    progress = json.loads(metadata["progress"])
    change(tensors, progress)
    save_file(tensors, path, metadata | {"progress": json.dumps(progress)})


def test_a_head_of_other_clips_or_a_damaged_one_is_refused(table: Path, tmp_path: Path) -> None:
    """Alone it is fitted to the validation clips, too; nothing may be chosen on these afterwards."""
    output = tmp_path / "run"
    succeed(*fitted(table, output))
    assert json.loads((output / "run.json").read_text())["split"]["validation"] == 0
    state = output / "state" / "head.state.safetensors"
    whole = state.read_bytes()
    for change in (
        lambda tensors, record: tensors.pop("head.bias"),
        lambda tensors, record: record.pop("clips"),
        lambda tensors, record: record.update(seconds=float("nan")),
    ):
        state.write_bytes(whole)
        damage(state, change)
        assert "head.state.safetensors: does not fit this run" in fail(*fitted(table, output, "--resume"))
    state.unlink()
    succeed(*fitted(table, output, "--resume"))
    assert state.is_file()
