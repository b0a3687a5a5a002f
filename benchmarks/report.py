"""The measured numbers as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

INTRODUCTION = """# Speed

Written by `python -m benchmarks` (peers: `pip install -e ".[bench]"`). Every number is from one run of it on the machine
below, but for those in the last table.

- Each system runs in a process of its own, in turns, with the threads that it chooses itself. The time is from the path of a
  16 kHz WAV file to the answer.
- The peers have random weights. That changes their answers, not their times.
- The run stops where an answer is wrong. Both backends must agree within 1e-4, a batch with single clips
  within 1e-5, and the Mel powers with librosa's.
- Rows are minutes apart. On a machine that is shared with others, the same call may take twice as long in one row as in the
  next.
"""
THROUGHPUT = """The installed size is that of the distribution and all it requires, as pip installed it here; `torch` is a
requirement of this package whichever backend runs. The first answer of a cold start is a clip of 2.5 s.
"""
OPERATIONS = """## Operations

Millions of multiply-accumulates in matrix products and convolutions, per clip. Two times (p50) stand over the one these
would take at this machine's matrix rate, {rate} G/s (1024 x 1024 float32, best of 60, measured again beside every row): that
of the network alone in torch, and that of all from waveform to probabilities in ONNX Runtime, whose products for the
spectrum are not counted, so that the second ratio is an upper bound.
"""
INT8 = """## int8 export

`export --int8` beside the plain export, both run by ONNX Runtime. It stores matrices and kernels in 8 bits and computes in
float32, so it saves space and not time. Differences are between probabilities.

"""
STREAMING = """## Streaming

How long after the last sample of its window an answer of `stream` is there, windows of 4 s every 0.5 s; the segments
are asserted to be those of `timeline`.

"""
BUSY = """## Beside other programs

The first of the models above, a clip of 2.5 s: with nothing else running, and with an endless loop for every core. The
threads of torch wait for each other, so one whose core is taken holds up all: `OMP_NUM_THREADS=1` in the environment
is slower on idle cores and faster on busy ones.

"""

AIMS = (("egemaps", 1), ("wav2vec2-base", 10), ("wav2vec2-large", 25))
"""How many times faster the path to an answer is to be for a 2.5 s clip."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(header), ["---"] + ["---:"] * (len(header) - 1), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def percentile(times: Sequence[float], share: float) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def render(results: dict[str, Any]) -> str:
    parts = [
        INTRODUCTION,
        _machine(results["machine"]),
    ]
    if results["skipped"]:
        parts.append("Not run: " + "; ".join(f"{title} ({why})" for title, why in results["skipped"]) + ".\n")
    parts += [_latency(results), _ratios(results), _throughput(results), _operations(results), _int8(results["int8"])]
    parts += [_streaming(results["streaming"]), _busy(results["busy"]), _frontends(results)]
    parts += [_gpu(results["gpu"]), (Path(__file__).parent / "tried.md").read_text()]
    return "\n".join(part for part in parts if part)


def _machine(machine: dict[str, Any]) -> str:
    lines = [f"| {key} | {value} |" for key, value in machine.items()]
    return "\n".join(["| the machine | |", "|---|---|", *lines]) + "\n"


def _latency(results: dict[str, Any]) -> str:
    lengths = results["lengths"]
    rows = []
    for title, measured in results["subjects"].items():
        cells = [
            f"{milliseconds(percentile(times, 0.5))} / {milliseconds(percentile(times, 0.95))}"
            if (times := measured["latency"].get(length))
            else "-"
            for length in lengths
        ]
        rows.append([title, *cells])
    header = ["from path to answer, ms, p50 / p95", *(f"{length} s" for length in lengths)]
    return (
        "## Latency\n\n"
        + table(header, rows)
        + "\nAST looks at the first 10.24 s only, and takes as long for any clip.\n"
    )


def _ratios(results: dict[str, Any]) -> str:
    length = results["ratio_length"]
    titles = {measured["key"]: title for title, measured in results["subjects"].items()}
    aims = [(titles[key], aim) for key, aim in AIMS if key in titles]
    ours = [(title, measured) for title, measured in results["subjects"].items() if measured["ours"]]
    if not aims or not ours:
        return ""
    rows = []
    for title, measured in ours:
        own = percentile(measured["latency"][length], 0.5)
        ratios = [percentile(results["subjects"][peer]["latency"][length], 0.5) / own for peer, _ in aims]
        rows.append([title, *(f"{ratio:.1f}x" for ratio in ratios)])
    header = [f"times faster, {length} s, p50", *(f"{peer} (aim {aim}x)" for peer, aim in aims)]
    return table(header, rows)


def _throughput(results: dict[str, Any]) -> str:
    first, last = results["lengths"][0], results["lengths"][-1]
    header = [
        "",
        f"clips/s over a folder of {results['folder']} clips of 1 to 4 s",
        "cold start: process to first answer, s",
        f"peak memory, MB, clip of {first} s",
        f"of {last} s",
        "installed size, MB",
    ]
    rows = [
        [
            title,
            f"{max(measured['folder']):,.1f}" if measured["folder"] else "-",
            f"{median(measured['cold']):.2f}" if measured["cold"] else "-",
            f"{measured['memory'][first]:,.0f}",
            f"{measured['memory'][last]:,.0f}",
            f"{measured['size']:,.0f}" if measured["size"] else "-",
        ]
        for title, measured in results["subjects"].items()
    ]
    return "## Throughput, cold start, memory, size\n\n" + table(header, rows) + "\n" + THROUGHPUT


def _operations(results: dict[str, Any]) -> str:
    parts = [
        OPERATIONS.format(rate=f"{results['rate'] / 1e9:,.0f}"),
    ]
    for name, rows in results["costs"].items():
        header = [name, "operations", "network, torch, ms", "over its bound", "all, ONNX Runtime, ms", "over the same"]
        parts.append(
            table(
                header,
                (
                    [
                        f"{row['seconds']:g} s",
                        f"{row['needed'] / 1e6:.1f}",
                        milliseconds(row["time"]),
                        f"{row['time'] / row['bound']:.2f}x",
                        milliseconds(row["whole"]),
                        f"{row['whole'] / row['bound']:.2f}x",
                    ]
                    for row in rows
                ),
            )
        )
    return "\n".join(parts)


def _int8(rows: dict[str, dict[str, Any]]) -> str:
    header = ["float32 / int8", "file, MB", "2.5 s, ms, p50", "clips", "same label", "difference, mean", "largest"]
    cells = (
        [
            name,
            " / ".join(f"{size:.1f}" for size in row["sizes"]),
            " / ".join(milliseconds(seconds) for seconds in row["times"]),
            f"{row['clips']:,}",
            f"{100 * row['agreement']:.1f} %",
            f"{row['mean']:.4f}",
            f"{row['largest']:.4f}",
        ]
        for name, row in rows.items()
    )
    return INT8 + table(header, cells)


def _streaming(rows: list[dict[str, Any]]) -> str:
    header = ["push of 20 ms, ms, p50 / p95", "that completes a window", "that does not"]
    cells = (
        [
            row["backend"],
            *(
                f"{milliseconds(percentile(row[kind], 0.5))} / {milliseconds(percentile(row[kind], 0.95))}"
                for kind in ("answering", "waiting")
            ),
        ]
        for row in rows
    )
    return STREAMING + table(header, cells)


def _busy(rows: list[dict[str, Any]]) -> str:
    header = ["from path to answer, ms, p50 / p95", "idle", "busy"]
    cells = (
        [
            row["backend"] + (f", `OMP_NUM_THREADS={row['threads']}`" if row["threads"] else ""),
            *(
                f"{milliseconds(percentile(row[kind], 0.5))} / {milliseconds(percentile(row[kind], 0.95))}"
                for kind in ("idle", "busy")
            ),
        ]
        for row in rows
    )
    return BUSY + table(header, cells)


def _frontends(results: dict[str, Any]) -> str:
    rows = [
        [row["title"], row["missing"], "", ""]
        if "missing" in row
        else [
            row["title"],
            milliseconds(percentile(row["times"], 0.5)),
            milliseconds(percentile(row["times"], 0.95)),
            f"{1e6 * percentile(row['times'], 0.5) / row['frames']:.1f}" if row["frames"] else "",
        ]
        for row in results["frontends"]
    ]
    return "## Front-ends, 2.5 s in memory\n\n" + table(["", "p50, ms", "p95, ms", "us per frame"], rows)


def _gpu(rows: list[dict[str, Any]] | None) -> str:
    title = "## GPU: waveform tensors of 2.5 s, batch 1024\n\n"
    if rows is None:
        return title + "Not run: this machine has no CUDA device.\n"
    cells = ([row["title"], row["dtype"], f"{row['rate']:,.0f}" if row["rate"] else "not installed"] for row in rows)
    return title + table(["", "type", "clips/s"], cells)
