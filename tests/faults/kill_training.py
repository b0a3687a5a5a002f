"""Kill a training run at random moments, resume it each time, and compare the weights with those of a quiet run.

python tests/faults/kill_training.py --times 30
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from corpus_factory import labelled_csv

RECIPE = {
    "frontend.n_mels": 32,
    "frontend.columns": 32,
    "model.patch_height": 32,
    "versions": '["original"]',
    "teacher.epochs": 4,
    "match.epochs": 4,
    "student.epochs": 6,
    "teacher.batch_size": 8,
    "match.batch_size": 8,
    "student.batch_size": 8,
}
WEIGHTS = ("model.safetensors", "teacher/model.safetensors")


def make_corpus(folder: Path) -> Path:
    """Write a tiny corpus and return its table."""
    return labelled_csv(folder, ["anger", "fear"], ["p", "q", "r", "s", "t"], 3)


def command(table: Path, output: Path, *more: str, changes: dict[str, Any] = RECIPE) -> list[str]:
    values = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    return [
        *(sys.executable, "-m", "speech_emotion_vit", "train", "--dataset", "folder", "--data-dir", str(table)),
        *("--cache-dir", str(table.parent / "cache"), "--output", str(output), "--device", "cpu", *values, *more),
    ]


def start(arguments: list[str], prefix: list[str] | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # the number of threads decides the last bits
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*(prefix or []), *arguments], env=environment, **pipes)  # type: ignore[call-overload, no-any-return]


def finish(arguments: list[str], prefix: list[str] | None = None) -> tuple[int, str]:
    """Run to the end, and return exit status and output."""
    process = start(arguments, prefix)
    text, _ = process.communicate(timeout=600)
    return process.returncode, text


def weights(output: Path) -> list[bytes]:
    return [(output / name).read_bytes() for name in WEIGHTS]


def stage_of(output: Path) -> str:
    """The stage whose state was written last; before the first there is none."""
    states = sorted((output / "state").glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    return states[-1].name.split(".")[0] if states else "none"


def first_line(process: subprocess.Popen[str]) -> str:
    """Wait until the command says something, which it does once the imports are done."""
    return process.stdout.readline() if process.stdout else ""


def torture(times: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill `times` times, finish the last run, and count."""
    rng = random.Random(seed)
    table = make_corpus(folder / "corpus")
    process = start(command(table, folder / "quiet"))
    first_line(process)
    began = time.monotonic()
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    seconds = time.monotonic() - began
    expected, kills, runs, output = weights(folder / "quiet"), Counter[str](), 0, folder / "run-0"
    while True:
        more = ["--resume"] if (output / "run.json").exists() else []
        process = start(command(table, output, *more))
        if sum(kills.values()) < times:
            first_line(process)
            try:
                process.wait(timeout=rng.uniform(0, 0.8 * seconds))
            except subprocess.TimeoutExpired:
                process.kill()
        text, _ = process.communicate(timeout=600)
        if process.returncode == 0:
            assert weights(output) == expected, f"{output} differs from the undisturbed run"
            runs += 1
            if sum(kills.values()) >= times:
                return {"kills": sum(kills.values()), "last state at the kill": dict(kills), "identical runs": runs}
            output = folder / f"run-{runs}"
        else:
            assert process.returncode == -9, text
            kills[stage_of(output)] += 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(torture(options.times, options.seed, Path(place))))
