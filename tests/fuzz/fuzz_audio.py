"""Read damaged audio by the hundred thousand, in processes of their own, and keep every input that breaks a promise.

    python tests/fuzz/fuzz_audio.py --inputs 100000 --findings findings
    python tests/fuzz/fuzz_audio.py --file findings/0-1234.wav

The promise: a result or one `AudioError` of one line; no other exception, no warning, no crash; at most `--seconds` of
processor time and `--mebibytes` per input. Most inputs go through `AudioReader` alone, as bytes, as a file and as a
stream; one in 20 through `predict`, `timeline` and `stream`, one in 5000 through the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import inputs

MODEL_EVERY = 20
COMMAND_EVERY = 5000
PATIENCE = 300.0  # seconds of wall time until a process counts as hanging, on a busy machine


def read(source: Any) -> float:
    """Read everything, check every block, and return the duration in seconds."""
    from speech_emotion_vit.audio.reader import AudioReader

    reader = AudioReader(source)
    for block in reader:
        assert block.dtype == np.float32, block.dtype
        assert block.ndim == 1, block.shape
        assert len(block), "an empty block"
        assert np.isfinite(block).all(), "samples that are not finite"
    assert 0 < reader.duration < 1e9, reader.duration
    assert all(warning.isprintable() for warning in reader.warnings), reader.warnings
    return reader.duration


def infer(classifier: Any, data: bytes) -> None:
    """Send one input through everything a classifier does with audio."""
    prediction = classifier.predict(data)
    assert np.isfinite(list(prediction.probabilities.values())).all()
    if prediction.duration < 60:
        timeline = classifier.timeline(data, hop=1.0)
        assert timeline.segments
        stream = classifier.stream(sampling_rate=16_000)
        from speech_emotion_vit.audio.reader import AudioReader

        for block in AudioReader(data):
            stream.push(block)
        stream.flush()


def run_command(suffix: str, data: bytes, folder: Path) -> str:
    path = folder / f"command.{suffix}"
    path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-m", "speech_emotion_vit", "predict", str(path)], capture_output=True, timeout=PATIENCE
    )
    errors = done.stderr.decode()
    assert done.returncode in (0, 1), (done.returncode, errors)
    assert "Traceback" not in errors, errors
    if done.returncode == 0:
        json.loads(done.stdout)
        return "read"
    assert errors.startswith("Error: "), errors
    return "AudioError"


def attempt(number: int, suffix: str, data: bytes, folder: Path, classifier: Any) -> str:
    """Try one input one way and return ``read`` or ``AudioError``; everything else is an exception."""
    from speech_emotion_vit.errors import AudioError

    if number % COMMAND_EVERY == 0:
        return run_command(suffix, data, folder)
    try:
        if classifier is not None and number % MODEL_EVERY == 1:
            infer(classifier, data)
        elif number % 4 == 0:
            path = folder / f"input.{suffix}"
            path.write_bytes(data)
            read(path)
        elif number % 4 == 2:
            read(inputs.Pipe(data))
        else:
            read(data)
    except AudioError as error:
        message = str(error)
        assert message.isprintable(), message
        assert len(message) < 1000, message
        return "AudioError"
    return "read"


def work(job: Any, first: int, step: int, options: argparse.Namespace) -> None:
    """Run inputs first, first + step, ... and report (number, outcome, detail) for each; announce each beforehand."""
    faulthandler.enable(open(options.findings / f"crash-{os.getpid()}.log", "w"))  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("error")
    import torch

    from speech_emotion_vit import EmotionClassifier

    torch.set_num_threads(1)
    classifier = EmotionClassifier()
    infer(classifier, inputs.seeds()[0][1])
    noise = open(options.findings / f"stderr-{os.getpid()}.log", "w+")  # noqa: SIM115
    os.dup2(noise.fileno(), 2)
    os.dup2(noise.fileno(), 1)  # libsndfile prints to it
    with tempfile.TemporaryDirectory() as folder:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(first, options.inputs, step):
            suffix, data = inputs.make(options.seed, number)
            job.send((number, "started", (suffix, data)))
            started = time.process_time()
            try:
                outcome, detail = attempt(number, suffix, data, Path(folder), classifier), ""
            except BaseException:
                outcome, detail = "fault", traceback.format_exc()
            seconds = time.process_time() - started
            if seconds > options.seconds:
                outcome, detail = "fault", f"{seconds:.1f} s of processor time"
            noise.seek(0, io.SEEK_END)
            if noise.tell():
                noise.seek(0)
                text = noise.read()
                if "Traceback" in text:
                    outcome, detail = "fault", text
                noise.seek(0)
                noise.truncate()
            now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if now - peak > options.mebibytes * 1024:
                outcome, detail = "fault", f"{(now - peak) / 1024:.0f} MiB more than before"
            peak = max(peak, now) if outcome == "fault" else peak
            job.send((number, outcome, detail or f"{seconds:.3f}"))
    job.send((-1, "finished", str((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024)))


def keep(options: argparse.Namespace, number: int, source: tuple[str, bytes], detail: str) -> None:
    suffix, data = source
    stem = options.findings / f"{options.seed}-{number}"
    stem.with_suffix(f".{suffix}").write_bytes(data)
    stem.with_suffix(".log").write_text(detail)
    print(f"input {number} ({suffix}, {len(data)} bytes): {detail.strip().splitlines()[-1]}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", type=Path, help="try this one file, in every way")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="of processor time, limit for one input")
    parser.add_argument("--mebibytes", type=float, default=150.0, help="limit for one input, over what went before")
    parser.add_argument("--findings", type=Path, default=Path("findings"))
    options = parser.parse_args()
    options.findings.mkdir(parents=True, exist_ok=True)
    if options.file is not None:
        from speech_emotion_vit import EmotionClassifier

        classifier, data = EmotionClassifier(), options.file.read_bytes()
        with tempfile.TemporaryDirectory() as folder:
            for way in range(5):
                print(attempt(way, options.file.suffix[1:], data, Path(folder), classifier))
        return 0
    context = multiprocessing.get_context("spawn")
    counts: Counter[str] = Counter()
    slowest, grown = 0.0, 0.0
    began = time.time()
    jobs: dict[Any, Any] = {}

    def start(first: int) -> None:
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(theirs, first, options.workers, options), daemon=True)
        process.start()
        theirs.close()
        jobs[mine] = [process, first, time.monotonic() + PATIENCE, ("none", b"")]

    for index in range(options.workers):
        start(options.start + index)
    while jobs:
        ready = multiprocessing.connection.wait(list(jobs), timeout=1.0)
        for connection in list(jobs):
            process, current, deadline, source = jobs[connection]
            fault = ""
            if connection in ready:
                try:
                    number, outcome, detail = connection.recv()
                except (EOFError, ConnectionResetError):
                    process.join()
                    fault = f"the process ended with {process.exitcode}"
                else:
                    jobs[connection][1:3] = [number, time.monotonic() + PATIENCE]
                    if outcome == "started":
                        jobs[connection][3] = detail
                    elif outcome == "finished":
                        grown = max(grown, float(detail))
                        process.join()
                        del jobs[connection]
                    else:
                        counts[outcome] += 1
                        if outcome == "fault":
                            keep(options, number, source, detail)
                        elif number % COMMAND_EVERY:
                            slowest = max(slowest, float(detail))
                        if sum(counts.values()) % 5000 == 0:
                            print(f"{time.time() - began:.0f} s: {dict(counts)}", flush=True)
            elif time.monotonic() > deadline:
                process.kill()
                fault = f"no answer within {PATIENCE} s"
            if fault:
                del jobs[connection]
                counts["fault"] += 1
                keep(options, current, source, fault)
                start(current + options.workers)
    with contextlib.suppress(OSError):
        for log in (*options.findings.glob("crash-*.log"), *options.findings.glob("stderr-*.log")):
            if not log.stat().st_size:
                log.unlink()
    print(
        f"{sum(counts.values())} inputs of seed {options.seed} in {time.time() - began:.0f} s: {dict(counts)}; "
        f"slowest {slowest:.2f} s; at most {grown:.0f} MiB over the start"
    )
    return 1 if counts["fault"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
