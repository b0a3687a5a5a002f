"""One subject in a process of its own: ``python -m benchmarks.worker JOB``, a JSON object in and one out."""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from .subjects import find_subject


def repeat(call: Callable[[], object], *, budget: float, least: int, most: int) -> list[float]:
    """Return the seconds of every call after one that is not counted."""
    call()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < least or (len(times) < most and time.perf_counter() - started < budget):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return times


def peak_megabytes() -> float:
    """Return the most memory this process has had, in MB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB elsewhere


def check(answer: list[float], values: int) -> None:
    """Stop the benchmark where a subject does not answer properly: its time would mean nothing."""
    assert len(answer) == values, f"{len(answer)} values instead of {values}"
    assert all(map(math.isfinite, answer)), "values that are not finite"
    if values < 20:
        assert abs(sum(answer) - 1) < 1e-4, f"probabilities sum to {sum(answer)}"


def run(job: dict[str, Any]) -> dict[str, Any]:
    subject = find_subject(job["subject"])
    if job["task"] == "prepare":
        assert subject.prepare is not None
        subject.prepare(job["prepared"])
        return {}
    started = time.perf_counter()
    runner = subject.load(job["prepared"])
    result: dict[str, Any] = {"load": time.perf_counter() - started, "latency": {}, "memory": {}, "answers": {}}
    for seconds, path in job["clips"].items():
        answer = runner.predict(path)
        check(answer, subject.values)
        result["answers"][seconds] = answer
        result["latency"][seconds] = repeat(
            lambda path=path: runner.predict(path),  # type: ignore[misc]
            budget=job["budget"],
            least=job["least"],
            most=500,
        )
        result["memory"][seconds] = peak_megabytes()
    if job["folder"]:
        before = time.perf_counter()
        answers = runner.predict_many(job["folder"])
        result["folder"] = len(answers) / (time.perf_counter() - before)
        assert len(answers) == len(job["folder"])
        for answer, path in zip(answers, job["folder"], strict=True):
            check(answer, subject.values)
            if subject.ours:  # the others pad a batch, and answer differently then
                assert max(abs(a - b) for a, b in zip(answer, runner.predict(path), strict=True)) < 1e-5
    return result


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(run(json.loads(sys.argv[1]))))
