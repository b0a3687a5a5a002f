"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])
Option = Callable[[C], C]

model_option = click.option(
    "--model", "-m", metavar="M", help="Model name, Hub repository, folder or file.  [default: bundled]"
)
revision_option = click.option("--revision", metavar="R", help="Branch, tag or commit of a Hub repository.")
download_option = click.option(
    "--cache-dir", metavar="D", help="Folder of downloads.  [default: the Hub client's cache]"
)
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, cuda:1, ..."
)
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "jsonl"]),
    help="Output format.  [default: table at a terminal, jsonl elsewhere]",
)


class _ChannelType(click.ParamType):  # type: ignore[type-arg]  # of newer versions only
    name = "channel"

    def __init__(self, *words: str) -> None:
        self.words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in self.words:
            return value
        if str(value).isascii() and str(value).isdigit() and len(str(value)) < 10:
            return int(value)
        return self.fail(f"{str(value)[:40]!r} is neither {', '.join(self.words)} nor a number from 0.", param, ctx)


def selection_options(*words: str) -> Callable[[C], C]:
    """Add ``--channel``, a number or one of `words`, and ``--track``."""
    each = ", or split: a row for each" if "split" in words else ""

    def add(command: C) -> C:
        channel = click.option(
            "--channel",
            type=_ChannelType(*words),
            default="mix",
            show_default=True,
            metavar="C",
            help=f"Channel: 0 (left), 1, ..., mix: the mean of all{each}.",
        )
        track = click.option(
            "--track",
            type=click.IntRange(min=0),
            metavar="N",
            help="Audio track of a file with several: 0, 1, ...  [default: the one marked as default]",
        )
        return channel(track(command))

    return add


def corpus_options(command: C) -> C:
    """Add the options that name a corpus and its split."""
    for option in reversed(
        (
            click.option(
                "--dataset",
                metavar="NAME",
                help="crema-d, emodb, savee, emovo, casia or urdu; several joined by +; or folder, your own "
                "recordings: a sub-folder per label, or a CSV file path,label,speaker,split.",
            ),
            click.option(
                "--data-dir",
                type=click.Path(),
                metavar="D",
                help="Folder of the corpus.  [default: $SPEECH_EMOTION_VIT_DATA/DATASET, then the user's data folder]",
            ),
            click.option(
                "--protocol",
                type=click.Choice(["corpus", "speaker", "random", "paper"]),
                help="corpus: new voices in new rooms; speaker: new voices; random: known voices, new clips; paper: as "
                "published, with its leak.  [default: speaker, or corpus without --dataset]",
            ),
            click.option(
                "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of everything random."
            ),
            click.option("--strict", is_flag=True, help="Stop if anything is missing, extra or unreadable."),
            click.option(
                "--cache-dir",
                type=click.Path(file_okay=False),
                metavar="D",
                help="Folder of the features.  [default: $SPEECH_EMOTION_VIT_CACHE, then the user's cache folder]",
            ),
        )
    ):
        command = option(command)
    return command
