"""The stages encoder, head and tuning, on tiny networks, through the command line."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from corpus_factory import labelled_csv, write_clip
from helpers import speech
from speech_emotion_vit.errors import ConfigError
from speech_emotion_vit.model.config import FrameViTConfig, FrontendConfig
from speech_emotion_vit.model.frame_vit import FrameViT
from speech_emotion_vit.model.frontend import LogMel
from speech_emotion_vit.training.data.corpora import savee as savee_facts
from speech_emotion_vit.training.fit import teacher
from speech_emotion_vit.training.fit.teacher import SpeechEncoder, copy_encoder, digest_of, read_teacher
from tiny_networks import digest
from training_runs import fail, results_of, succeed

PATIENCE = 300.0  # seconds until a run counts as hanging, on a busy machine
SIZES = {"DIM": 32, "HEADS": 2, "MLP_DIM": 64, "DEPTH": 3, "POSITIONS": 310}
SHAPE = {"stem": 32, "dim": 32, "heads": 2, "mlp_dim": 64, "depth": 2, "pooled": [1, 2]}
TINY = [word for name, value in SHAPE.items() for word in ("--set", f"model.{name}={value}")]
TINY += ["--device", "cpu", "--precision", "no"]
STEPS = ["--set", "tuning.epochs=4", "--set", "tuning.batch_size=8", "--set", "tuning.learning_rate=1e-3"]


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an encoder of Whisper's layout, small, with random weights."""
    for name, value in SIZES.items():
        monkeypatch.setattr(teacher, name, value)
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


def test_the_first_blocks_hear_what_the_encoder_hears(encoder: Path) -> None:
    """Each to its own scale: the encoder takes twice the image and a constant."""
    tensors = read_teacher(encoder)
    network = FrameViT(FrameViTConfig(num_classes=2, taps=0, positions=301, **{**SHAPE, "pooled": (1, 2)}))
    copy_encoder(network, tensors)
    image = LogMel(FrontendConfig.frames())(torch.from_numpy(speech(1.0))[None])
    with torch.no_grad():
        mine = network.eval().forward_features(image).tokens
        theirs = SpeechEncoder(tensors, layers=2).forward(2 * image[:, 0] + teacher.LOUDEST / 4 - 1)
    for found, expected in zip(mine, theirs, strict=False):
        # The constant is nothing where the first convolution sees beyond the clip, which two tokens at either end hear.
        assert found.shape == expected.shape
    difference = (mine[0] - theirs[0]).abs()[:, 2:-2]
    assert difference.max() < 2e-2 * theirs[0].abs().max()  # half precision
    inner = network.blocks[0](theirs[0]).sub(theirs[1]).abs().max()
    assert inner < 2e-2 * theirs[1].abs().max()


def test_a_network_of_another_shape_is_no_encoder(encoder: Path) -> None:
    tensors = read_teacher(encoder)
    for change in ({"mlp_dim": 32}, {"positions": 0}, {"taps": 3}, {"depth": 4}):
        shape = {**SHAPE, "pooled": (1, 2), "taps": 0, "positions": 301, **change}
        with pytest.raises(ConfigError, match=r"is no FrameViT.*model\.depth, 1 to 3, model\.positions, 1 to 310"):
            copy_encoder(FrameViT(FrameViTConfig(num_classes=2, **shape)), tensors)


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


def test_the_recipe_large_is_one_command(encoder: Path, strangers: Path, place: Path, tmp_path: Path) -> None:
    """Strangers are tested and give the temperature; what would validate trains; test speakers are heard by nobody."""
    output, cache = tmp_path / "large", ("--cache-dir", place / "cache")
    command = ("train", "--recipe", "large", "--data-dir", strangers, "--teacher", encoder, "--output", output)
    result = succeed(*command, *cache, *TINY)
    lines = {(line := json.loads(text))["scores"]: line for text in result.stdout.splitlines()}
    assert set(lines) == {
        *("student, test savee", "student, test savee, common sentences", "student, speaker crema-d"),
    }
    assert lines["student, test savee"]["clips"] == 4 * 6  # without surprise
    assert lines["student, test savee"]["ua"] > 0.5
    assert lines["student, speaker crema-d"]["clips"] == 6
    run = json.loads((output / "run.json").read_text())
    assert run["split"]["train"] == 2 * 6 + 10 * 6
    assert run["split"]["validation"] == 0
    assert run["teacher"]["repository"] == "openai/whisper-base"
    assert list(run["stages"]) == ["encoder", "head"]

    network = FrameViT(FrameViTConfig(num_classes=6, taps=0, positions=301, **{**SHAPE, "pooled": (1, 2)}))
    copy_encoder(network, read_teacher(encoder))
    for name, tensor in body(output).items():
        assert torch.equal(tensor.float(), network.state_dict()[name]), name

    # The very same question, asked from the outside.
    asked = ("evaluate", "--model", output, "--dataset", "savee", "--data-dir", strangers / "savee")
    for text in succeed(*asked, "--protocol", "corpus", *cache).stdout.splitlines():
        line = json.loads(text)
        mine = lines[f"student, test {line['scores'] if line['scores'] == 'savee' else 'savee, ' + line['scores']}"]
        assert (line["clips"], line["heard"]) == (mine["clips"], 0)
        assert line["ua"] == pytest.approx(mine["ua"])
    final = succeed(*command[:-1], output, "--fold", "final", *cache, *TINY)
    assert {json.loads(text)["scores"] for text in final.stdout.splitlines()} == set(lines)
    assert digest(body(output / "final")) == digest(body(output))


def test_what_no_stage_reads_cannot_be_set(tmp_path: Path) -> None:
    for recipe, stages, name in (
        ("large", "encoder,head", "start"),  # all but the head is the encoder's
        ("large", "encoder,head", "versions"),
        ("base", "head", "tuning.epochs"),
        ("base", "frames,head", "tuning.alpha"),
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


def tuned(table: Path, output: Path, *more: str, stages: str = "head,tuning") -> list[str]:
    return [
        *("train", "--recipe", "base", "--stages", stages, "--dataset", "folder", "--data-dir", str(table), *TINY),
        *("--set", "labels=[]", "--cache-dir", str(table.parent / "cache"), "--output", str(output), *more),
    ]


@pytest.fixture(scope="module")
def quiet(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "quiet"
    succeed(*tuned(table, output, *STEPS))
    return output


def comparable(folder: Path) -> dict[str, Any]:
    records = [*history(folder, "head"), *history(folder, "tuning")]
    return {
        "weights": digest(load_file(folder / "model.safetensors")),
        "scores": json.loads((folder / "results.json").read_text())["scores"],
        "history": [{name: value for name, value in record.items() if name != "seconds"} for record in records],
    }


def test_tuning_goes_on_from_the_head(table: Path, quiet: Path, tmp_path: Path) -> None:
    before, after = history(quiet, "head"), history(quiet, "tuning")
    assert before[0]["left_out_ua"] == 1.0
    assert len(after) == 4
    assert after[-1]["cross_entropy"] < after[0]["cross_entropy"]
    # Steps that are next to none leave the head as it was solved for.
    resting = tmp_path / "resting"
    succeed(*tuned(table, resting, *STEPS, "--set", "tuning.learning_rate=1e-9"))
    solved = load_file(resting / "state" / "head.state.safetensors")
    kept, moved = load_file(resting / "model.safetensors"), load_file(quiet / "model.safetensors")
    for name in ("head.weight", "head.bias"):
        torch.testing.assert_close(kept[name].float(), solved[name], rtol=2e-3, atol=1e-4)
    assert not torch.equal(moved["blocks.0.mlp.hidden.weight"], kept["blocks.0.mlp.hidden.weight"])  # all learns


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX")
def test_a_killed_run_resumes_to_the_same_bits(
    table: Path, quiet: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    output = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "speech_emotion_vit", *tuned(table, output, *STEPS)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    request.addfinalizer(process.wait)
    request.addfinalizer(process.kill)  # runs first, also where the test fails
    waiting = time.monotonic() + PATIENCE
    while not (output / "state" / "tuning.state.safetensors").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < waiting
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "results.json").exists()
    head = (output / "state" / "head.state.safetensors").stat().st_mtime_ns
    resumed = succeed(*tuned(table, output, *STEPS, "--resume"))
    assert "tuning: goes on after epoch" in resumed.stderr
    assert (output / "state" / "head.state.safetensors").stat().st_mtime_ns == head  # it is not fitted again
    assert comparable(output) == comparable(quiet)


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
    succeed(*tuned(table, output, stages="head"))
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
        assert "head.state.safetensors: does not fit this run" in fail(*tuned(table, output, "--resume", stages="head"))
    state.write_bytes(whole)
    complaint = fail(*tuned(table, output, *STEPS, "--resume"))
    assert "head.state.safetensors: does not fit this run (it was fitted to 24 clips): remove it" in complaint
    state.unlink()
    succeed(*tuned(table, output, *STEPS, "--resume"))
