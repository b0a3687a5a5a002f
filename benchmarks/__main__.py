"""Run the benchmarks and write the report."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import costs, machine, report
from .subjects import Subject, clip_of, subjects

ROOT = Path(__file__).resolve().parent.parent
LENGTHS = (1.0, 2.5, 4.0, 10.0, 60.0)
FOLDER = 96  # clips
WAYS = (("torch", None), ("torch", "1"), ("onnx", None))  # backend and OMP_NUM_THREADS, beside busy cores
COLD = (
    "import json, sys\n"
    "from benchmarks.worker import check\n"
    "from benchmarks.subjects import find_subject\n"
    "job = json.loads(sys.argv[1])\n"
    "subject = find_subject(job['subject'])\n"
    "check(subject.load(job['prepared']).predict(job['clip']), subject.values)"
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds: this package alone, short clips, printed")
    parser.add_argument(
        "--output", type=Path, help="file to write  [default: docs/benchmarks.md; with --quick, stdout]"
    )
    parser.add_argument("--json", type=Path, help="also write the raw numbers")
    parser.add_argument("--rounds", type=int, default=3, help="turns that every system gets  [default: 3]")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds per clip length and turn  [default: 2]")
    parser.add_argument(
        "--speech",
        type=Path,
        help="folder of 16 kHz recordings on which int8 is compared  [default: the example clips]",
    )
    parser.add_argument("--subjects", help="comma-separated keys, of: " + ", ".join(each.key for each in subjects()))
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}")
    output = options.output or (None if options.quick else ROOT / "docs" / "benchmarks.md")
    with tempfile.TemporaryDirectory() as folder:
        results = measure(options, Path(folder))
    text = report.render(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if output is None:
        print(text)
    else:
        output.parent.mkdir(exist_ok=True)
        output.write_text(text)
        print(f"{output.name} written", file=sys.stderr)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    quick = options.quick
    lengths = LENGTHS[:2] if quick else LENGTHS
    rounds, budget = (1, 0.1) if quick else (options.rounds, options.budget)
    load_before = machine.load_average()
    clips = {f"{seconds:g}": clip_of(seconds, folder) for seconds in lengths}
    chosen, skipped = choose(options)
    several = [clip_of(1.0 + 3.0 * index / FOLDER, folder) for index in range(4 if quick else FOLDER)]

    measured: dict[str, dict[str, Any]] = {}
    for subject in chosen:
        prepared = None
        if subject.prepare is not None:
            prepared = str(folder / subject.key)
            worker({"task": "prepare", "subject": subject.key, "prepared": prepared})
        measured[subject.title] = {
            "key": subject.key,
            "ours": subject.ours,
            "prepared": prepared,
            "latency": {length: [] for length in clips},
            "memory": {},
            "folder": [],
            "cold": [],
            "size": machine.install_megabytes(subject.distributions),
        }
    for turn in range(rounds):
        for subject in chosen:
            say(f"{subject.key}, turn {turn + 1} of {rounds}")
            one_turn(subject, measured[subject.title], clips, several, budget, least=2 if quick else 3)
    agree(measured)

    speech = np.frombuffer(Path(clip_of(4.0, folder)).read_bytes()[44:], "<i2").astype(np.float32) / 32_768
    names = sorted({subject.key.partition(":")[0] for subject in chosen if subject.ours})
    if quick:
        names = names[:1]
    say("operations and front-ends")
    return {
        "machine": describe(options, load_before),
        "skipped": skipped,
        "lengths": list(clips),
        "ratio_length": "2.5",
        "folder": len(several),
        "subjects": measured,
        "rate": machine.matrix_rate(),
        "costs": {name: costs.network_costs(name, speech, budget) for name in names},
        "int8": {name: costs.int8(name, recordings(options.speech), folder, budget) for name in names},
        "streaming": costs.streaming(names[0], speech, budget),
        "busy": busy(names[0], clip_of(2.5, folder), budget, WAYS[-1:] if quick else WAYS),
        "frontends": costs.frontends(speech, budget),
        "gpu": costs.gpu(names),
    }


def busy(name: str, clip: str, budget: float, ways: Sequence[tuple[str, str | None]]) -> list[dict[str, Any]]:
    """Return the latency of one clip, beside nothing and beside an endless loop for every core."""
    rows = []
    for backend, threads in ways:
        job = {"task": "run", "subject": f"{name}:{backend}", "prepared": None, "clips": {"busy": clip}, "folder": []}
        row: dict[str, Any] = {"backend": backend, "threads": threads}
        for kind, loops in (("idle", 0), ("busy", os.cpu_count() or 1)):
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
            try:
                variables = {"OMP_NUM_THREADS": threads} if threads else None
                result = worker({**job, "budget": budget, "least": 2}, variables)
            finally:
                for other in others:
                    other.kill()
                    other.wait()
            row[kind] = result["latency"]["busy"]
        rows.append(row)
    return rows


def recordings(folder: Path | None) -> list[str]:
    """Return at most 1000 recordings of a folder, evenly spread, or the example clips."""
    folder = folder or ROOT / "examples" / "clips"
    found = sorted(str(path) for path in folder.rglob("*") if path.suffix in (".wav", ".flac"))
    if not found:
        sys.exit(f"{folder}: no .wav or .flac files: name a folder of recordings with --speech")
    return found[:: -(-len(found) // 1000)]


def choose(options: argparse.Namespace) -> tuple[list[Subject], list[tuple[str, str]]]:
    """Return the subjects to run, and the others with the reason why not."""
    wanted = options.subjects.split(",") if options.subjects else None
    unknown = sorted(set(wanted or []) - {subject.key for subject in subjects()})
    if unknown:
        sys.exit(f"no subject is called {', '.join(unknown)}: choose from {', '.join(s.key for s in subjects())}")
    chosen, skipped = [], []
    for subject in subjects():
        if subject.missing:
            skipped.append((subject.title, f"{', '.join(subject.missing)} not installed"))
        elif wanted is not None and subject.key not in wanted:
            skipped.append((subject.title, "not asked for"))
        elif options.quick and not subject.ours:
            skipped.append((subject.title, "left out by --quick"))
        else:
            chosen.append(subject)
    return chosen, skipped


def one_turn(
    subject: Subject, into: dict[str, Any], clips: dict[str, str], several: list[str], budget: float, *, least: int
) -> None:
    job = {"task": "run", "subject": subject.key, "prepared": into["prepared"]}
    result = worker({**job, "clips": clips, "folder": several, "budget": budget, "least": least})
    for length, times in result["latency"].items():
        into["latency"][length] += times
        into["memory"][length] = max(result["memory"][length], into["memory"].get(length, 0.0))
    into["folder"].append(result["folder"])
    into["answers"] = result["answers"]
    started = time.perf_counter()
    python("-c", COLD, json.dumps({**job, "clip": clips["2.5"]}))
    into["cold"].append(time.perf_counter() - started)


def worker(job: dict[str, Any], variables: dict[str, str] | None = None) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(python("-m", "benchmarks.worker", json.dumps(job), variables=variables))
    return result


def python(*arguments: str, variables: dict[str, str] | None = None) -> str:
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", **(variables or {})}
    run = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"{arguments[-1]}\n{run.stderr}")
    return run.stdout


def agree(measured: dict[str, dict[str, Any]]) -> None:
    """Stop where the backends of a model do not give the same answer."""
    answers: dict[str, list[dict[str, list[float]]]] = {}
    for each in measured.values():
        if each["ours"]:
            answers.setdefault(each["key"].partition(":")[0], []).append(each.pop("answers"))
        else:
            del each["answers"]
    for name, (first, *others) in answers.items():
        for other in others:
            for length, values in first.items():
                difference = float(np.abs(np.subtract(values, other[length])).max())
                assert difference < 1e-4, f"{name}: the backends differ by {difference} at {length} s"


def describe(options: argparse.Namespace, load_before: float | None) -> dict[str, str]:
    import torch

    memory = machine.memory_gigabytes()
    names = ("torch", "onnxruntime", "numpy", "soundfile", "transformers", "opensmile", "librosa")
    versions = ", ".join(f"{name} {machine.version_of(name) or '-'}" for name in names)
    date = datetime.datetime.now(datetime.timezone.utc)
    about = {
        "date": f"{date:%Y-%m-%d}",
        "processor": f"{machine.processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads in torch",
        "memory": f"{memory:.0f} GB" if memory else "-",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": f"speech-emotion-vit {machine.version_of('speech-emotion-vit')}, {versions}",
        "turns": f"{1 if options.quick else options.rounds}",
        "recordings for int8": "/".join(options.speech.resolve().parts[-2:]) if options.speech else "examples/clips",
    }
    if load_before is not None:
        note = ": the cores were not idle, read ratios rather than times" if load_before > 0.5 else ""
        about["load average before"] = f"{load_before:.2f}{note}"
    return about


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
