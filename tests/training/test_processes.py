from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from corpus_factory import labelled_csv
from speech_emotion_vit.cli import main
from tiny_networks import digest
from training_runs import TINY

# Two processes share nine clips as five and four, which the teacher's stem would take in two pieces and in one.
PATIENCE = 300.0  # seconds until a run counts as hanging, on a busy machine
STAGES = {"teacher": (4, 9), "match": (4, 8), "student": (6, 8)}  # epochs, clips per step


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_csv(tmp_path_factory.mktemp("corpus"), ["anger", "fear"], ["p", "q", "r", "s", "t"], 3)


def command(table: Path, output: Path, *more: str, stages: str = "teacher,match,student") -> list[str]:
    changes = [f"{name}.epochs={STAGES[name][0]}" for name in stages.split(",")]
    changes += [f"{name}.batch_size={STAGES[name][1]}" for name in stages.split(",")]
    return [
        *("train", "--dataset", "folder", "--data-dir", str(table), "--cache-dir", str(table.parent / "cache")),
        *("--output", str(output), "--stages", stages, *TINY, *more),
        *(word for change in changes for word in ("--set", change)),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def train(table: Path, output: Path, *more: str, **options: str) -> Result:
    """In this process, with as many threads as the others have: their number decides the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return CliRunner().invoke(main, command(table, output, *more, **options))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "whole"
    done = train(table, output)
    assert done.exit_code == 0, done.stderr
    return output


def comparable(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text())
    with open(folder / "history.csv", newline="") as file:
        history = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    assert len(history) == 14
    return {
        "weights": digest(load_file(folder / "model.safetensors")),
        "teacher": digest(load_file(folder / "teacher" / "model.safetensors")),
        "scores": results["scores"],
        "temperature": results["temperature"],
        "history": history,
    }


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX")
@pytest.mark.parametrize("moment", ["teacher", "student"])
def test_a_killed_run_resumes_to_the_same_bits(
    table: Path, uninterrupted: Path, tmp_path: Path, moment: str, request: pytest.FixtureRequest
) -> None:
    output = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "speech_emotion_vit", *command(table, output)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    request.addfinalizer(process.wait)
    request.addfinalizer(process.kill)  # runs first, also where the test fails
    waiting = time.monotonic() + PATIENCE
    while not (output / "state" / f"{moment}.state.safetensors").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < waiting
        time.sleep(0.005)
    if moment == "teacher":
        process.send_signal(signal.SIGSTOP)  # it holds the folder, but does not go on
        concurrent = train(table, output, "--resume")
        assert "another process is writing there" in concurrent.stderr
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "results.json").exists()
    refused = train(table, output)
    assert refused.exit_code == 1
    assert "holds a run already: pass --resume" in refused.stderr
    resumed = train(table, output, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert f"{moment}: goes on after epoch" in resumed.stderr
    assert comparable(output) == comparable(uninterrupted)


def test_an_earlier_stage_does_not_replace_a_later_ones_results(
    table: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(uninterrupted, output)
    for stages in ("teacher", "teacher,match"):
        refused = train(table, output, "--resume", stages=stages)
        assert refused.exit_code == 1
        assert f"has been through stage student, which --stages {stages} would undo" in refused.stderr
    assert comparable(output) == comparable(uninterrupted)
    peak = json.loads((output / "results.json").read_text())
    (output / "results.json").write_text(json.dumps(peak | {"peak_memory": 1 << 60}))
    assert train(table, output, "--resume").exit_code == 0
    assert json.loads((output / "results.json").read_text())["peak_memory"] == 1 << 60  # of all processes of the run
    assert comparable(output) == comparable(uninterrupted)


def test_two_processes_score_as_one(table: Path, uninterrupted: Path, tmp_path: Path) -> None:
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
            *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
            *("-m", "speech_emotion_vit", *command(table, tmp_path / "two")),
        ],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    run = json.loads((tmp_path / "two" / "run.json").read_text())
    assert run["hardware"]["processes"] == 2
    one, two = (comparable(folder)["scores"]["student"]["validation"] for folder in (uninterrupted, tmp_path / "two"))
    assert two["clips"] == one["clips"] == 6
    assert two["ua"] == pytest.approx(one["ua"], abs=0.17)  # one clip of six
    assert two["nll"] == pytest.approx(one["nll"], rel=0.05, abs=0.01)
    first = [comparable(folder)["history"][0]["cross_entropy"] for folder in (uninterrupted, tmp_path / "two")]
    assert float(first[1]) == pytest.approx(float(first[0]), rel=1e-3)  # the same batches, divided
