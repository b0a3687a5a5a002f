"""``predict --timeline``: a row per segment instead of a row per clip."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ..errors import AudioError, ConfigError, printable
from ..timeline import csv_lines, timeline_header
from ._channels import channel_field, titled, with_channel
from ._rows import json_line
from ._table import clock, columns_of, cut, padded, table_width, wrapped

if TYPE_CHECKING:
    from ..audio.reader import AudioInput, Channel
    from ..classifier import EmotionClassifier
    from ..segments import Turn
    from ..timeline import Segment, Speaker, Timeline
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
        top_k: how many labels are told; None is two in a table, and else all.
        given: whether others cut the segments, which then have speakers and texts.
    """

    def __init__(
        self,
        form: str,
        labels: tuple[str, ...],
        top_k: int | None = None,
        *,
        channels: bool = False,
        given: bool = False,
    ) -> None:
        self._top_k = top_k
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
            return with_channel(self._csv(timeline), channel)
        if self._form == "vtt":
            return timeline.to_webvtt()
        if self._form == "json":
            whole = timeline.to_dict()
            for part in (*whole["segments"], *whole.get("speakers", ())):
                self._keep_most(part)
            return json_line({"file": name, **channel_field(channel), **whole}) + "\n"
        if self._form == "jsonl":
            above = {"file": name, **channel_field(channel)}
            lines = [{**above, **self._keep_most(segment.to_dict()), "model": timeline.model} for segment in timeline]
            return "".join(f"{json_line(line)}\n" for line in lines)
        return self._table(titled(name, channel), timeline)

    def _keep_most(self, part: dict[str, Any]) -> dict[str, Any]:
        """Leave the most probable labels in what goes to JSON, as many as are told."""
        if self._top_k is not None and part["speech"]:
            ranked = sorted(part["probabilities"].items(), key=lambda item: -item[1])
            part["probabilities"] = dict(ranked[: self._top_k])
        return part

    def _csv(self, timeline: Timeline) -> str:
        text = timeline.to_csv(header=False)
        if self._top_k is None:
            return text
        rows = list(csv.reader(io.StringIO(text, newline="")))
        for row, segment in zip(rows, timeline, strict=True):
            told = dict(segment.top(self._top_k))
            first = len(row) - 1 - len(segment.probabilities)  # speech is behind them
            for column, label in enumerate(segment.probabilities, first):
                row[column] = row[column] if label in told else ""
        return csv_lines(rows)

    def _table(self, name: str, timeline: Timeline) -> str:
        text = "\n" * self._begun + cut(name, table_width(), end=True) + "\n"
        self._begun = True
        if timeline.given:
            return text + self._table_of_others(timeline)
        text += self._line("start", "end", "emotion", "score", "next")
        for segment in timeline:
            times = clock(segment.start), clock(segment.end)
            ranked = [f"{cut(label, self._emotion)} {score:.2f}" for label, score in segment.top(self._top_k or 2)]
            (emotion, score), others = _answer(segment), ranked[segment.label is not None :]
            text += self._line(*times, emotion, score, others[0] if others else "")
            if len(others) > 1 and self._top_k is not None:
                text += " " * 24 + wrapped("then " + ", ".join(others[1:]), table_width(), 24) + "\n"
        return text

    def _table_of_others(self, timeline: Timeline) -> str:
        speaker = min(max(len("speaker"), *(columns_of(segment.speaker or "") for segment in timeline)), 16)
        room = table_width() - (8 + 2 + 8 + 2 + speaker + 2 + self._emotion + 2 + 5 + 2)

        def line(start: str, end: str, who: str, emotion: str, score: str, said: str) -> str:
            cells = (padded(cut(who, speaker), speaker), padded(cut(emotion, self._emotion), self._emotion))
            return f"{start:>8}  {end:>8}  {cells[0]}  {cells[1]}  {score:>5}  {cut(said, room)}".rstrip() + "\n"

        text = line("start", "end", "speaker", "emotion", "score", "text")
        for each in timeline:
            who, said = printable(each.speaker or "-"), printable(" ".join((each.text or "").split()))
            text += line(clock(each.start), clock(each.end), who, *_answer(each), said)
        text += "\n" + line("segments", "speech", "speaker", "emotion", "score", "")
        for one in timeline.speakers():
            text += line(str(one.segments), clock(one.speech), printable(one.speaker or "-"), *_answer(one), "")
        return text

    def _line(self, start: str, end: str, emotion: str, score: str, following: str) -> str:
        label = padded(cut(emotion, self._emotion), self._emotion)
        return f"{start:>10}  {end:>10}  {label}  {score:>5}  {following}".rstrip() + "\n"


def _answer(answer: Segment | Speaker) -> tuple[str, str]:
    """Return what a table says the emotion is, and its score."""
    if answer.label is None:
        return ("(unsure)", "") if answer.speech else ("(nobody)", "")
    return answer.label, f"{answer.score:.2f}"


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
