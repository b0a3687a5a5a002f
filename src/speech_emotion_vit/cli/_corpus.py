"""What `train` and `evaluate` share: which corpus, where, split how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])

PROTOCOL_NAMES = ("corpus", "speaker", "random", "paper")


def corpus_options(command: C) -> C:
    """Add the options that name a corpus and its split."""
    for option in reversed(
        (
            click.option(
                "--dataset",
                required=True,
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
                default="speaker",
                show_default=True,
                help="corpus: new voices in new rooms; speaker: new voices; random: known voices, new clips; paper: as "
                "published, with its leak.",
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
