"""``predict --ray``: the same job on the machines of a Ray cluster."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import Any

import click

from ._inputs import sources
from ._signals import Stopped

HERE = "here"  # --ray without an address
_ADDRESS = re.compile(r"here|auto|local|(ray://)?[\w.-]+:\d+|(ray://)?\[[0-9a-fA-F:]+\]:\d+")


def predict_on_cluster(
    address: str, names: list[str], output: str | None, resume: bool, model: dict[str, Any], options: dict[str, Any]
) -> None:
    """Predict the named files on a cluster, and print a summary.

    Raises:
        click.UsageError: the address is not valid, or there is no output.
        SystemExit: a file failed.
    """
    from tqdm import tqdm

    from ..cluster import Progress, predict_on_ray

    if not _ADDRESS.fullmatch(address):
        raise click.UsageError(f"--ray {address}: no address such as host:6379: put CLIP before --ray")
    if output is None:
        raise click.UsageError("--ray goes with --output, a folder that all machines see")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what Ray prints about its own work helps nobody here
    last = Progress(0, 0, 0, 0)
    one = names[0] if len(names) == 1 else ""
    source: str | Iterable[str] = one if os.path.isdir(one) or one.endswith(".parquet") else list(_paths(names))
    steps = predict_on_ray(
        source, output, address=None if address == HERE else address, resume=resume, model=model, **options
    )
    try:
        with tqdm(unit="file", leave=False, disable=not sys.stderr.isatty()) as bar:
            for last in steps:
                bar.total = last.total
                bar.update(last.before + last.answered + last.failed - bar.n)
    except (KeyboardInterrupt, Stopped) as stopped:
        stopped.args = (f"stopped after {last.answered} answers: they are in {output}, go on with --resume",)
        raise
    before = f", {last.before} before" if last.before else ""
    click.echo(f"{last.total} files: {last.answered} answered{before}, {last.failed} failed", err=True)
    if last.failed:
        click.echo(f"Why they failed is in {os.path.join(output, '_failed')}", err=True)
        raise SystemExit(1)


def _paths(names: list[str]) -> Iterable[str]:
    """Yield the files that the arguments name; a missing file fails on the cluster, as others do."""
    for name, source in sources(names):
        if name == "-":
            raise click.UsageError("standard input does not reach the machines of a cluster: pass files")
        yield source if isinstance(source, str) else name
