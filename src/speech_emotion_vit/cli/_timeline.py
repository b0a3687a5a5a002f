"""``predict --timeline``: a row per segment instead of a row per clip."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ..errors import AudioError, ConfigError, printable
from ..prediction import timeline_header
from ._channels import channel_field, titled, with_channel
from ._rows import json_line
from ._table import clock, columns_of, cut, padded, table_width

if TYPE_CHECKING:
    from ..audio.reader import AudioInput, Channel
    from ..classifier import EmotionClassifier
    from ..prediction import Timeline
    from ..segments import Turn
    from ._inputs import Source


def turns_of(place: str, name: str) -> list[Turn]:
    """Return the segments for a recording, in a file or in a folder of such.

    Raises:
        AudioError: there are none, which is no reason to leave out the recordings that have some.
    """
    from ..segments import find_segments, read_segments

    try:
        return read_segments(find_segments(place, name), name)
    except ConfigError as error:
        raise AudioError(str(error)) from error


def files_of_segments(place: str, found: Iterable[Source]) -> Iterator[str]:
    """Yield the files of segments that will be read."""
    from ..segments import find_segments

    for name, _ in found:
        with contextlib.suppress(ConfigError):  # said where it is read
            yield find_segments(place, name)


class Segments:
    """Rows for timelines in one form.

    Args:
        form: ``table``, ``csv``, ``jsonl``, ``json``, which keeps the segments of a recording together, or ``vtt``.
        labels: of the model.
        channels: whether every row is about one channel.
        given: whether others cut the segments, which then have speakers and texts.
    """

    def __init__(self, form: str, labels: tuple[str, ...], *, channels: bool = False, given: bool = False) -> None:
        self._channels = channels
        self._form = form
        self._given = given
        self._labels = labels
        self._emotion = min(max(map(columns_of, (*labels, "emotion", "(nobody)"))), 12)
        self._begun = False

    @property
    def header(self) -> str:
        """What stands above the rows."""
        if self._form != "csv":
            return ""
        header = timeline_header(self._labels, given=self._given)
        return with_channel(header, "channel" if self._channels else "mix")

    def lines(self, name: str, timeline: Timeline, channel: Channel = "mix") -> str:
        """Return the lines for one recording."""
        timeline = dataclasses.replace(timeline, file=name)
        if self._form == "csv":
            return with_channel(timeline.to_csv(header=False), channel)
        if self._form == "vtt":
            return timeline.to_webvtt()
        if self._form == "json":
            return json_line({"file": name, **channel_field(channel), **timeline.to_dict()}) + "\n"
        if self._form == "jsonl":
            whole = {"file": name, **channel_field(channel)}
            lines = [{**whole, **segment.to_dict(), "model": timeline.model} for segment in timeline]
            return "".join(f"{json_line(line)}\n" for line in lines)
        return self._table(titled(name, channel), timeline)

    def _table(self, name: str, timeline: Timeline) -> str:
        text = "\n" * self._begun + cut(name, table_width(), end=True) + "\n"
        self._begun = True
        if timeline.given:
            return text + self._table_of_others(timeline)
        text += self._line("start", "end", "emotion", "score", "next")
        for segment in timeline:
            times = clock(segment.start), clock(segment.end)
            if segment.label is None:
                text += self._line(*times, "(nobody)", "", "")
                continue
            (label, score), (second, less) = [*segment.top(2), ("", 0.0)][:2]
            following = f"{cut(second, self._emotion)} {less:.2f}" if second else ""
            text += self._line(*times, label, f"{score:.2f}", following)
        return text

    def _table_of_others(self, timeline: Timeline) -> str:
        speaker = min(max(len("speaker"), *(columns_of(segment.speaker or "") for segment in timeline)), 16)
        room = table_width() - (8 + 2 + 8 + 2 + speaker + 2 + self._emotion + 2 + 5 + 2)

        def line(start: str, end: str, who: str, emotion: str, score: str, said: str) -> str:
            cells = (padded(cut(who, speaker), speaker), padded(cut(emotion, self._emotion), self._emotion))
            return f"{start:>8}  {end:>8}  {cells[0]}  {cells[1]}  {score:>5}  {cut(said, room)}".rstrip() + "\n"

        text = line("start", "end", "speaker", "emotion", "score", "text")
        for each in timeline:
            answer = (each.label, f"{each.score:.2f}") if each.label is not None else ("(nobody)", "")
            who, said = printable(each.speaker or "-"), printable(" ".join((each.text or "").split()))
            text += line(clock(each.start), clock(each.end), who, *answer, said)
        text += "\n" + line("segments", "speech", "speaker", "emotion", "score", "")
        for one in timeline.speakers():
            answer = (one.label, f"{one.score:.2f}") if one.label is not None else ("(nobody)", "")
            text += line(str(one.segments), clock(one.speech), printable(one.speaker or "-"), *answer, "")
        return text

    def _line(self, start: str, end: str, emotion: str, score: str, following: str) -> str:
        label = padded(cut(emotion, self._emotion), self._emotion)
        return f"{start:>10}  {end:>10}  {label}  {score:>5}  {following}".rstrip() + "\n"


def timeline_of(classifier: EmotionClassifier, name: str, audio: AudioInput, counted: str, **options: Any) -> Timeline:
    """Return the timeline of one clip, with a progress bar at a terminal and its warnings on stderr.

    Args:
        classifier: the model.
        name: of the clip.
        audio: the clip.
        counted: which clip of how many it is.
        options: of `EmotionClassifier.timeline`.

    Raises:
        AudioError: nothing of it can be read.
        ConfigError: an option is out of range.
    """
    from tqdm import tqdm

    from ..audio.decode import announced_seconds
    from ..audio.inputs import describe

    shown = sys.stderr.isatty()
    total = announced_seconds(audio) if shown and isinstance(audio, str) else None
    with tqdm(
        total=total,
        unit="s",
        desc=f"{counted}{cut(describe(name), 30, end=True)}",
        leave=False,
        disable=not shown,
        bar_format="{desc}: {n:.0f} of {total:.0f} s |{bar}| {elapsed} < {remaining}" if total else None,
    ) as bar:

        def progress(seconds: float) -> None:
            bar.update(seconds - bar.n)

        timeline = classifier.timeline(audio, progress=progress, **options)
    for warning in timeline.warnings:
        click.echo(f"Warning: {describe(name)}: {warning}", err=True)
    return timeline
