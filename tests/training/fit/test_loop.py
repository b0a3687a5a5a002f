from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from helpers import ROOT
from speech_emotion_vit.errors import TrainingError
from speech_emotion_vit.model.config import ModelConfig
from speech_emotion_vit.model.vit import SpectrogramViT
from speech_emotion_vit.training.data.specaugment import Augmentation
from speech_emotion_vit.training.fit import loop
from speech_emotion_vit.training.fit.loop import fit, learning_rate, seed_of
from speech_emotion_vit.training.fit.stages import Supervised
from speech_emotion_vit.training.fit.state import load_state
from speech_emotion_vit.training.recipes import StageSettings
from tiny_networks import COMPACT, QUICK, SIZE, STUDENT, TEACHER, digest, eight_clips, job, made_up_rows, network


def test_learning_rates_by_hand() -> None:
    halving = StageSettings(learning_rate=1e-4)
    rates = [learning_rate(halving, epoch) for epoch in (0, 9.99, 10, 10.01, 25, 50)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-4, 0.5e-4, 0.25e-4, 0.0625e-4])
    cosine = StageSettings(epochs=10, learning_rate=1.0, schedule="cosine", warmup_epochs=2.0)
    assert learning_rate(cosine, 0) == 0
    assert learning_rate(cosine, 1) == pytest.approx(0.5 * 0.5 * (1 + math.cos(0.1 * math.pi)))
    assert learning_rate(cosine, 5) == pytest.approx(0.5)
    assert learning_rate(cosine, 10) == pytest.approx(0)


def test_seeds_differ_in_every_part() -> None:
    seeds = {
        seed_of(s, name, epoch, step) for s in (0, 1) for name in ("a", "b") for epoch in (1, 2) for step in (0, 1)
    }
    assert len(seeds) == 16
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1)


ALL_ON = dataclasses.replace(QUICK, epochs=6, average=0.9, drop=0.5, batch_size=3, schedule="cosine", warmup_epochs=1.0)


AUGMENTED = Augmentation(frequency_warp=0.05, equalizer=0.05)


@pytest.mark.parametrize("config", [STUDENT, COMPACT], ids=["paper", "compact"])
def test_an_epoch_at_a_time_is_bit_exact(tmp_path: Path, accelerator: Any, config: ModelConfig) -> None:
    def run(name: str, model: SpectrogramViT, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
        rows = eight_clips()
        options = {"augmentation": AUGMENTED, "train": rows, "validation": rows, "say": say}
        return fit(Supervised(model), job(tmp_path / name, "x", ALL_ON, **options), accelerator)

    whole = network(config)
    history = run("a", whole)
    calls = 0

    def stop(line: str) -> None:
        nonlocal calls
        if line.startswith("x: goes on"):
            return
        calls += 1
        raise KeyboardInterrupt

    for start in range(6):
        torch.manual_seed(time.monotonic_ns() % 1000)  # nothing may depend on the global generator
        model = network(config, seed=start)  # after the first epoch the state replaces it
        with pytest.raises(KeyboardInterrupt):
            run("b", model, stop)
    pieces = network(config, seed=6)
    again = run("b", pieces)
    assert calls == 6
    assert digest(whole.state_dict()) == digest(pieces.state_dict())
    assert [r | {"seconds": 0} for r in history] == [r | {"seconds": 0} for r in again]


def test_a_loss_that_is_not_finite_stops_with_an_explanation(tmp_path: Path, accelerator: Any) -> None:
    model = network(STUDENT)
    model.head.bias.data.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"x: the loss is not finite in epoch 1.*lower x\.learning_rate") as error:
        fit(Supervised(model), job(tmp_path, "x"), accelerator)
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
    rows = eight_clips()
    none = made_up_rows(rows.images(np.arange(8))[:, 0].half().numpy(), [])
    settings = dataclasses.replace(QUICK, epochs=1)
    options = {} if validated else {"validation": none}
    if value == 1e38 and not validated:  # finite weights are kept; what ships is scored again
        fit(Supervised(model), job(tmp_path, "x", settings, **options), accelerator)
        return
    with pytest.raises(
        TrainingError, match=r"x: .* not finite after epoch 1: train anew with a lower x\.learning_rate"
    ):
        fit(Supervised(model), job(tmp_path, "x", settings, **options), accelerator)
    assert list(tmp_path.iterdir()) == []


def test_the_best_epoch_is_kept_and_patience_ends_a_stage(tmp_path: Path, accelerator: Any) -> None:
    settings = dataclasses.replace(QUICK, epochs=60, patience=3, learning_rate=1e-2)
    model = network(STUDENT)
    history = fit(Supervised(model), job(tmp_path, "x", settings), accelerator)
    scores = [record["validation_ua"] for record in history]
    best = scores.index(max(scores))
    assert len(history) == best + 1 + 3 < 60
    progress = load_state(tmp_path / "x.state.safetensors")[1]
    assert progress["done"]
    assert progress["best_epoch"] == best + 1


def test_without_validation_items_the_last_epoch_is_kept(tmp_path: Path, accelerator: Any) -> None:
    rows = eight_clips()
    nothing = made_up_rows(np.zeros((1, SIZE, SIZE)), [])
    settings = dataclasses.replace(QUICK, epochs=4, patience=1)
    model = network(STUDENT)
    history = fit(Supervised(model), job(tmp_path, "x", settings, train=rows, validation=nothing), accelerator)
    assert len(history) == 4
    assert "validation_ua" not in history[0]
    groups, _ = load_state(tmp_path / "x.state.safetensors")
    assert digest(groups["kept"]) == digest(groups["network"])


def test_the_papers_stem_learns_the_same_in_pieces(
    tmp_path: Path, accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, losses = [], []
    for chunk in (3, 8):
        monkeypatch.setattr(loop, "STEM_CHUNK", chunk)
        stage = Supervised(network(TEACHER))
        record = fit(stage, job(tmp_path / str(chunk), "x", dataclasses.replace(QUICK, epochs=1)), accelerator)[0]
        losses.append(record["cross_entropy"])
        weights.append(torch.cat([tensor.flatten() for tensor in stage.network.state_dict().values()]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert (weights[0] - weights[1]).abs().mean() < 1e-4


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_bfloat16_on_a_processor_leaves_the_slow_kernel_alone(precision: str, tmp_path: Path) -> None:
    # A process has one precision, so this is another one.
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from torch.profiler import profile\n"
        "from tiny_networks import TEACHER, job, network\n"
        "from speech_emotion_vit.training.fit.loop import fit\n"
        "from speech_emotion_vit.training.recipes import StageSettings\n"
        "from speech_emotion_vit.training.run import make_accelerator\n"
        "from speech_emotion_vit.training.fit.stages import Supervised\n"
        "stage, accelerator = Supervised(network(TEACHER)), make_accelerator('cpu', sys.argv[1])\n"
        "with profile() as seen:\n"
        "    fit(stage, job(Path(sys.argv[2]), 'teacher', StageSettings(epochs=1)), accelerator)\n"
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
