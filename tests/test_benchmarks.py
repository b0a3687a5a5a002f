"""The benchmark runs, and stops where an answer is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import ROOT

sys.path.insert(0, str(ROOT))
from benchmarks import __main__ as command
from benchmarks import costs, machine, report, worker

QUICK = [sys.executable, "-m", "benchmarks", "--quick"]


def test_the_quick_form_measures_this_package_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    arguments = [*QUICK, "--subjects", "crema-d-paper:torch,crema-d-paper:onnx", "--output", output]
    run = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    text = output.read_text()
    for peer in (
        "opensmile eGeMAPS functionals",
        "wav2vec2-base classifier",
        "wav2vec2-large classifier",
        "AST classifier",
    ):
        assert re.search(rf"{peer} \((left out by --quick|not asked for|[\w, ]+ not installed)\)", text)
    for backend in ("torch", "onnx"):
        row = next(line for line in text.splitlines() if line.startswith(f"| **crema-d-paper**, {backend} | "))
        assert re.fullmatch(r"\| \*\*crema-d-paper\*\*, \w+ \| [\d.,]+ / [\d.,]+ \| [\d.,]+ / [\d.,]+ \|", row)
    assert "| 4 s | " in text
    pair = r"[\d.]+ / [\d.]+"
    assert re.search(rf"\| crema-d-paper \| {pair} \| {pair} \| 6 \| (83\.3|100\.0) % \| 0\.0\d+ \|", text)
    streaming, busy = (text.split(f"## {title}")[1].split("## ")[0] for title in ("Streaming", "Beside other programs"))
    row = r"^\| (torch|onnx) \| [\d.]+ / [\d.]+ \| [\d.]+ / [\d.]+ \|$"
    assert re.findall(row, streaming, re.MULTILINE) == ["torch", "onnx"]
    beside = r"^\| (torch|onnx) \| [\d.,]+ / [\d.,]+ \| [\d.,]+ / [\d.,]+ \|$"  # may be a second, 1,000 ms
    assert re.findall(beside, busy, re.MULTILINE) == ["onnx"]
    assert "## GPU" in text
    assert "## What was tried" in text
    assert str(ROOT) not in text


def test_an_unknown_subject_is_refused() -> None:
    run = subprocess.run([*QUICK, "--subjects", "nobody"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert "no subject is called nobody: choose from base:torch" in run.stderr


@pytest.mark.parametrize("answer", [[0.5, 0.4], [float("nan"), 1.0], [1.0]])
def test_a_wrong_answer_stops_the_run(answer: list[float]) -> None:
    worker.check([0.5, 0.5], 2)
    with pytest.raises(AssertionError):
        worker.check(answer, 2)


def test_backends_that_differ_stop_the_run() -> None:
    def measured(value: float) -> dict[str, dict[str, object]]:
        return {
            backend: {"key": f"m:{backend}", "ours": True, "answers": {"1": [one, 1 - one]}}
            for backend, one in (("torch", 0.5), ("onnx", value))
        }

    command.agree(measured(0.50005))
    with pytest.raises(AssertionError, match="the backends differ by 0"):
        command.agree(measured(0.6))


def test_the_papers_student_has_the_papers_operations() -> None:
    import torch

    from speech_emotion_vit import ModelConfig, SpectrogramViT

    network = SpectrogramViT(ModelConfig.student(6)).eval()
    image = torch.rand(1, 1, 128, 128)
    assert costs.multiply_accumulates(lambda: network(image)) == pytest.approx(213.7e6, rel=1e-3)


def test_percentiles_and_tables() -> None:
    times = [float(value) for value in np.random.default_rng(0).permutation(100)]
    assert (report.percentile(times, 0.5), report.percentile(times, 0.95)) == (50.0, 95.0)
    assert report.milliseconds(0.00123) == "1.23"
    assert report.milliseconds(12.3456) == "12,346"
    assert report.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |\n"


def test_the_installed_size_counts_what_is_required() -> None:
    click, ours = machine.install_megabytes(("click",)), machine.install_megabytes(("speech-emotion-vit",))
    assert click is not None
    assert ours is not None
    assert 0.1 < click < 5
    assert ours > click + 100  # with torch
    assert machine.install_megabytes(("no-such-distribution",)) is None
