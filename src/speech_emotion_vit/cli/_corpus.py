"""What `train` and `evaluate` share: which corpus, where, split how."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from ..errors import printable

C = TypeVar("C", bound=Callable[..., Any])

PROTOCOL_NAMES = ("corpus", "speaker", "random", "paper")


def corpus_options(command: C) -> C:
    """Add the options that name a corpus and its split."""
    for option in reversed(
        (
            click.option(
                "--dataset",
                metavar="NAME",
                help="crema-d, emodb, savee, emovo, casia or urdu; several joined by +; or folder, recordings of your "
                "own: a sub-folder per label, or a CSV file path,label,speaker,split.",
            ),
            click.option(
                "--data-dir",
                type=click.Path(),
                metavar="D",
                help="Where the corpus is.  [default: $SPEECH_EMOTION_VIT_DATA/DATASET, then the user's data folder]",
            ),
            click.option(
                "--protocol",
                type=click.Choice(PROTOCOL_NAMES),
                help="corpus: new voices in new rooms; speaker: new voices; random: known voices, new clips; paper: as "
                "published, with its leak.  [default: speaker; corpus where no --dataset is named]",
            ),
            click.option(
                "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything random."
            ),
            click.option("--strict", is_flag=True, help="Stop if anything is missing, extra or unreadable."),
            click.option(
                "--cache-dir",
                type=click.Path(file_okay=False),
                metavar="D",
                help="Where features are kept.  [default: $SPEECH_EMOTION_VIT_CACHE, then the user's cache folder]",
            ),
        )
    ):
        command = option(command)
    return command


@contextlib.contextmanager
def log_to_stderr(enabled: bool) -> Iterator[None]:
    """Let the package's log lines appear on standard error while the block runs."""
    package = logging.getLogger("speech_emotion_vit")
    handler, level = _Lines(), package.level
    if enabled:
        package.addHandler(handler)
        package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)


class _Lines(logging.Handler):
    """One line of plain text a record."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(printable(record.getMessage()), err=True)
