from __future__ import annotations

import logging
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from helpers import ROOT
from speech_emotion_vit.errors import TrainingError
from speech_emotion_vit.model.vit import SpectrogramViT
from speech_emotion_vit.training.fit import loop
from speech_emotion_vit.training.fit.loop import fit, learning_rate, load_state, save_state, seed_of
from speech_emotion_vit.training.fit.stages import Supervised
from tiny_networks import STUDENT, TEACHER, digest, eight_clips, job, network, quick


def test_learning_rates_by_hand() -> None:
    halving = quick(learning_rate=1e-4, epochs=50)
    rates = [learning_rate(halving, epoch, 1, 3) for epoch in (1, 10, 11, 20, 21, 50)]
    assert rates == pytest.approx([1e-4, 1e-4, 0.5e-4, 0.5e-4, 0.25e-4, 0.0625e-4])
    cosine = quick(epochs=10, learning_rate=1.0, schedule="cosine")
    assert learning_rate(cosine, 1, 1, 1000) == pytest.approx(1 / 200)
    assert learning_rate(cosine, 1, 100, 1000) == pytest.approx(
        0.5 * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * 99 / 10_000)))
    )
    assert learning_rate(cosine, 6, 1, 1000) == pytest.approx(0.03 + 0.97 * 0.5)
    assert learning_rate(cosine, 10, 1000, 1000) == pytest.approx(0.03, abs=1e-6)


def test_seeds_differ_in_every_part() -> None:
    seeds = {
        seed_of(s, name, epoch, step) for s in (0, 1) for name in ("a", "b") for epoch in (1, 2) for step in (0, 1)
    }
    assert len(seeds) == 16
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1)


class Interrupted(Supervised):
    """A stage whose user loses patience."""

    patience = math.inf

    def batch(self, rows: Any, seed: int) -> Any:
        self.patience -= 1
        if self.patience < 0:
            raise KeyboardInterrupt
        return super().batch(rows, seed)


@pytest.mark.parametrize("schedule", ["halving", "cosine"])
def test_a_run_in_pieces_is_bit_exact(
    tmp_path: Path, accelerator: Any, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    """Also within an epoch: states are kept every so many steps."""
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    settings = quick(epochs=4, batch_size=3, schedule=schedule)  # of three steps each

    def run(name: str, model: SpectrogramViT, patience: float = math.inf) -> list[dict[str, Any]]:
        stage = Interrupted(model, eight_clips())
        stage.patience = patience
        return fit(stage, job(tmp_path / name, settings, validated=model), accelerator)

    whole = network(STUDENT)
    history = run("a", whole)
    for start in range(4):
        torch.manual_seed(time.monotonic_ns() % 1000)  # nothing may depend on the global generator
        # After the first state the network is that of the state; two steps are kept, the next is lost.
        model = network(STUDENT, seed=start)
        with pytest.raises(KeyboardInterrupt):
            run("b", model, patience=2 if start % 2 else 3)
    reached = load_state(tmp_path / "b" / "teacher.state.safetensors")[1]
    assert (len(reached["history"]), reached["step"]) != (0, 0)
    pieces = network(STUDENT, seed=9)
    again = run("b", pieces)
    assert digest(whole.state_dict()) == digest(pieces.state_dict())
    assert [r | {"seconds": 0} for r in history] == [r | {"seconds": 0} for r in again]


def test_every_epoch_is_logged(tmp_path: Path, accelerator: Any, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, int]] = []
    model = network(STUDENT)
    options = {"log": lambda name, value, epoch: told.append((name, epoch))}
    with caplog.at_level(logging.INFO, logger="speech_emotion_vit"):
        fit(Supervised(model, eight_clips()), job(tmp_path, quick(epochs=2), model, **options), accelerator)
    assert [line.split("  ")[0] for line in caplog.messages] == ["teacher 1/2", "teacher 2/2"]
    assert caplog.messages[-1].endswith("done")
    assert ("teacher/validation_ua", 2) in told


def test_a_loss_that_is_not_finite_stops_with_an_explanation(tmp_path: Path, accelerator: Any) -> None:
    model = network(STUDENT)
    model.head.bias.data.fill_(math.nan)
    complaint = r"teacher: the loss is not finite in epoch 1.*lower teacher\.learning_rate"
    with pytest.raises(TrainingError, match=complaint) as error:
        fit(Supervised(model, eight_clips()), job(tmp_path), accelerator)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [math.inf, 1e38])
@pytest.mark.parametrize("validated", [True, False])
def test_a_last_step_that_breaks_the_network_stops_with_an_explanation(
    tmp_path: Path, accelerator: Any, request: pytest.FixtureRequest, value: float, validated: bool
) -> None:
    model = network(STUDENT)

    def explode(*arguments: Any) -> None:
        for parameter in model.parameters():
            parameter.data.fill_(value)

    request.addfinalizer(register_optimizer_step_post_hook(explode).remove)
    made = job(tmp_path, quick(epochs=1), model if validated else None)
    if value == 1e38 and not validated:  # finite weights are kept; what ships is scored again
        fit(Supervised(model, eight_clips()), made, accelerator)
        return
    with pytest.raises(
        TrainingError, match=r"teacher: .* not finite after epoch 1: train anew with a lower teacher\.learning_rate"
    ):
        fit(Supervised(model, eight_clips()), made, accelerator)
    assert list(tmp_path.iterdir()) == []


def test_the_best_epoch_is_kept(tmp_path: Path, accelerator: Any) -> None:
    model = network(STUDENT)
    scores = iter((0.2, 0.6, 0.6, 0.4))
    seen: list[str] = []

    def validate() -> dict[str, float]:
        seen.append(digest(model.state_dict()))
        return {"validation_ua": next(scores), "validation_wa": 0.5}

    made = job(tmp_path, quick(epochs=4))
    fit(Supervised(model, eight_clips()), loop.Job(**{**made.__dict__, "validate": validate}), accelerator)
    assert digest(model.state_dict()) == seen[1]  # the first of equals
    progress = load_state(tmp_path / "teacher.state.safetensors")[1]
    assert (progress["done"], progress["best_epoch"]) == (True, 2)


def test_without_validation_the_last_epoch_is_kept(tmp_path: Path, accelerator: Any) -> None:
    history = fit(Supervised(network(STUDENT), eight_clips()), job(tmp_path, quick(epochs=4)), accelerator)
    assert len(history) == 4
    assert "validation_ua" not in history[0]
    groups, progress = load_state(tmp_path / "teacher.state.safetensors")
    last = {name.removeprefix("network."): tensor for name, tensor in groups["stage"].items()}
    assert digest(groups["kept"]) == digest(last)
    assert progress["best_epoch"] == 4


def test_more_processes_than_clips_are_refused(tmp_path: Path, accelerator: Any) -> None:
    class Many:
        num_processes, process_index = 9, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(accelerator, name)

    with pytest.raises(TrainingError, match="its training clips are fewer than the 9 processes"):
        fit(Supervised(network(STUDENT), eight_clips()), job(tmp_path), Many())  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_bfloat16_on_a_processor_leaves_the_slow_kernel_alone(precision: str, tmp_path: Path) -> None:
    # A process has one precision, so this is another one.
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from torch.profiler import profile\n"
        "from tiny_networks import TEACHER, eight_clips, job, network, quick\n"
        "from speech_emotion_vit.training.fit.loop import fit\n"
        "from speech_emotion_vit.training.run import make_accelerator\n"
        "from speech_emotion_vit.training.fit.stages import Supervised\n"
        "stage, accelerator = Supervised(network(TEACHER), eight_clips()), make_accelerator('cpu', sys.argv[1])\n"
        "with profile() as seen:\n"
        "    fit(stage, job(Path(sys.argv[2]), quick(epochs=1)), accelerator)\n"
        "print(any('flash' in event.key and 'backward' in event.key for event in seen.key_averages()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, precision, tmp_path],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(precision == "no")]


def test_a_state_of_another_network_is_refused(tmp_path: Path, accelerator: Any) -> None:
    short, rows = quick(epochs=1), eight_clips()
    fit(Supervised(network(STUDENT), rows), job(tmp_path, short), accelerator)
    with pytest.raises(TrainingError, match=r"does not fit this run .*remove it to repeat this stage"):
        fit(Supervised(network(TEACHER), rows), job(tmp_path, short), accelerator)
    (tmp_path / "teacher.state.safetensors").write_bytes(b"garbage")
    with pytest.raises(TrainingError, match="cannot be resumed from"):
        fit(Supervised(network(STUDENT), rows), job(tmp_path, short), accelerator)


@pytest.mark.parametrize(
    "change",
    [
        {"history": [{}]},
        {"history": ["x"]},
        {"history": None},
        {"step": None, "history": 3},
        {"history": [{"epoch": 1, "learning_rate": 1.0, "seconds": "x"}]},
    ],
)
def test_a_damaged_state_is_refused(tmp_path: Path, accelerator: Any, change: dict[str, Any]) -> None:
    short, rows = quick(epochs=1), eight_clips()
    fit(Supervised(network(STUDENT), rows), job(tmp_path, short), accelerator)
    path = tmp_path / "teacher.state.safetensors"
    groups, progress = load_state(path)
    save_state(path, groups, progress | change)
    with pytest.raises(TrainingError, match=r"does not fit this run .*remove it to repeat this stage"):
        fit(Supervised(network(STUDENT), rows), job(tmp_path, short), accelerator)
    for metadata in ({}, {"progress": "{"}, {"progress": "[]"}):
        save_file(load_file(path), path, metadata={"format": "1"} | metadata)
        with pytest.raises(TrainingError, match=r"does not say how far .*remove it to repeat this stage"):
            load_state(path)
