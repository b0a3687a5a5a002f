"""``--channel`` and ``--track``: which part of a recording is heard, and a row for each."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ..timeline import csv_lines

if TYPE_CHECKING:
    from ..audio.reader import AudioInput, Channel
    from ..errors import AudioError

C = TypeVar("C", bound=Callable[..., Any])


class Piece(NamedTuple):
    """What one row, or one timeline, is about."""

    name: str
    source: AudioInput | AudioError
    """An error stands for what cannot be read."""
    channel: Channel = "mix"


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
            help=f"Channel to hear: 0 (left), 1, ..., mix: the mean of all{each}.",
        )
        track = click.option(
            "--track",
            type=click.IntRange(min=0),
            metavar="N",
            help="Audio track to hear of a file with several: 0, 1, ...  [default: the one marked as default]",
        )
        return channel(track(command))

    return add


def split(name: str, source: AudioInput | AudioError, channel: Any, track: int | None) -> Iterator[Piece]:
    """Yield a source with the channel that is asked for, or with each of its own where that is ``split``."""
    from ..audio.decode import spooled
    from ..audio.reader import AudioReader
    from ..errors import AudioError

    if channel != "split" or isinstance(source, AudioError):
        yield Piece(name, source, "mix" if channel == "split" else channel)
        return
    try:
        if not isinstance(source, (str, bytes)):  # a stream can be read only once
            with spooled(source, name) as spool:
                source = bytes(spool.read())
        with AudioReader(source, track=track) as reader:
            channels = reader.channels
    except AudioError as error:
        yield Piece(name, error)
        return
    yield from (Piece(name, source, number) for number in range(channels))


def with_channel(rows: str, channel: Channel | str) -> str:
    """Return lines of CSV with one more value behind the first, the name of the file; ``mix`` adds none."""
    if channel == "mix":
        return rows
    return csv_lines([first, channel, *rest] for first, *rest in csv.reader(io.StringIO(rows, newline="")))


def channel_field(channel: Channel) -> dict[str, int]:
    """Return the field of JSON that says which channel a row is about; ``mix`` has none."""
    return {} if channel == "mix" else {"channel": channel}


def titled(name: str, channel: Channel) -> str:
    """Return what a table calls a piece; other formats have a field for the channel."""
    return name if channel == "mix" else f"{name} channel {channel}"
