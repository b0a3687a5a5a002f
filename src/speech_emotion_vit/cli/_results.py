"""The rows of ``predict``: one for each clip, or one for each segment of a timeline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import printable
from ..timeline import csv_columns, csv_lines, csv_rows
from ._tables import clock, columns_of, cut, json_line, padded, table_width, wrapped

if TYPE_CHECKING:
    from ..audio.reader import Channel
    from ..prediction import Prediction, Segment
    from ..timeline import Speaker, Timeline


class _Rows:
    """What rows of clips and rows of segments share.

    Args:
        form: ``table``, ``csv``, ``jsonl``, ``json``, or for timelines ``vtt``.
        labels: those that can be the answer.
        top_k: how many of them a row has; None is two in a table, and else all.
        channels: whether every row is about one channel.
    """

    def __init__(self, form: str, labels: tuple[str, ...], top_k: int | None, *, channels: bool) -> None:
        self._form = form
        self._labels = labels
        self._top_k = top_k
        self._channels = channels
        self._emotion = min(max(map(columns_of, (*labels, "emotion", "(nobody)"))), 12)  # width of its column

    def _csv(self, rows: Iterable[list[object]], channel: Channel | str) -> str:
        """Return rows as CSV; if each is about one channel, it stands after the name of the file."""
        selected = [channel] if self._channels else []
        return csv_lines([name, *selected, *cells] for name, *cells in rows)

    def _padded(self, emotion: str) -> str:
        return padded(cut(emotion, self._emotion), self._emotion)


class Clips(_Rows):
    """Rows for predictions; `names` are those of all clips, for the width of their column."""

    def __init__(
        self, form: str, labels: tuple[str, ...], top_k: int | None, *, channels: bool, names: list[str]
    ) -> None:
        super().__init__(form, labels, top_k, channels=channels)
        rest = self._emotion + 5 + (self._emotion + 5) + 7 + 7 + 5 * 2
        self._clip = max(4, min(max(map(columns_of, names), default=4), table_width() - rest))

    @property
    def header(self) -> str:
        """What stands above the rows."""
        if self._form == "csv":
            columns = ["file", "label", "score", *self._labels, "duration", "speech", "model", "warnings"]
            return self._csv([list(columns)], "channel")
        if self._form == "table":
            return self._line("clip", "emotion", "score", "next", "length", "speech")
        return ""

    def lines(self, name: str, prediction: Prediction, channel: Channel = "mix") -> str:
        """Return the lines for one clip."""
        ranked = dict(prediction.top(self._top_k or len(self._labels)))
        if self._form == "csv":
            answer = [prediction.label, prediction.score] if prediction.speech else [None, None]
            about = [prediction.duration, prediction.speech, prediction.model, "; ".join(prediction.warnings)]
            return self._csv([[name, *answer, *map(ranked.get, self._labels), *about]], channel)
        if self._form == "table":
            return self._table(titled(name, channel), prediction)
        record = {"file": name, **_channel_field(channel), **prediction.to_dict()}
        if self._top_k is not None:
            record["probabilities"] = ranked
        return json_line(record) + "\n"

    def _table(self, name: str, prediction: Prediction) -> str:
        ranked = [f"{cut(label, self._emotion)} {score:.2f}" for label, score in prediction.top(self._top_k or 2)]
        following = ranked[1:]
        if prediction.speech and prediction.label is None:  # below the threshold
            following = ranked[: max(1, len(following))]
        times = clock(prediction.duration), clock(prediction.speech)
        text = self._line(name, *_answer(prediction), following[0] if following else "", *times)
        if len(following) > 1:
            text += "  " + wrapped("then " + ", ".join(following[1:]), table_width(), 2) + "\n"
        if prediction.warnings:
            text += "  " + wrapped("; ".join(prediction.warnings), table_width(), 2) + "\n"
        return text

    def _line(self, clip: str, emotion: str, score: str, following: str, length: str, speech: str) -> str:
        name = padded(cut(clip, self._clip, end=True), self._clip)
        cells = (name, self._padded(emotion), f"{score:>5}", padded(following, self._emotion + 5))
        return "  ".join((*cells, f"{length:>7}", f"{speech:>7}")).rstrip() + "\n"


class Segments(_Rows):
    """Rows for timelines; JSON keeps the segments of a recording together.

    `given` is true for segments of a diarisation or a transcript, which have speakers and texts.
    """

    def __init__(self, form: str, labels: tuple[str, ...], top_k: int | None, *, channels: bool, given: bool) -> None:
        super().__init__(form, labels, top_k, channels=channels)
        self._given = given
        self._begun = False

    @property
    def header(self) -> str:
        """What stands above the rows."""
        return self._csv([csv_columns(self._labels, given=self._given)], "channel") if self._form == "csv" else ""

    def lines(self, name: str, timeline: Timeline, channel: Channel = "mix") -> str:
        """Return the lines for one recording."""
        if self._form == "vtt":
            return timeline.to_webvtt()
        if self._form == "table":
            return self._table(titled(name, channel), timeline)
        if self._form == "csv":
            rows = csv_rows(timeline, name)
            if self._top_k is not None:
                for row, segment in zip(rows, timeline, strict=True):
                    kept = dict(segment.top(self._top_k))
                    row[-1 - len(segment.probabilities) : -1] = map(kept.get, segment.probabilities)
            return self._csv(rows, channel)
        about = {"file": name, **_channel_field(channel)}
        if self._form == "jsonl":
            model = {"model": timeline.model}
            parts = [self._keep_most(segment.to_dict()) for segment in timeline]
            return "".join(json_line({**about, **part, **model}) + "\n" for part in parts)
        whole = timeline.to_dict()
        for part in (*whole["segments"], *whole.get("speakers", ())):
            self._keep_most(part)
        return json_line({**about, **whole, "file": name}) + "\n"

    def _keep_most(self, part: dict[str, Any]) -> dict[str, Any]:
        """Leave only the most probable labels in what goes to JSON."""
        if self._top_k is not None and part["speech"]:
            ranked = sorted(part["probabilities"].items(), key=lambda item: -item[1])
            part["probabilities"] = dict(ranked[: self._top_k])
        return part

    def _table(self, name: str, timeline: Timeline) -> str:
        text = "\n" * self._begun + cut(name, table_width(), end=True) + "\n"
        self._begun = True
        if timeline.given:
            return text + self._table_of_speakers(timeline)
        text += self._line("start", "end", "emotion", "score", "next")
        for segment in timeline:
            ranked = [f"{cut(label, self._emotion)} {score:.2f}" for label, score in segment.top(self._top_k or 2)]
            others = ranked[segment.label is not None :]
            text += self._line(clock(segment.start), clock(segment.end), *_answer(segment), others[0] if others else "")
            if len(others) > 1 and self._top_k is not None:
                text += " " * 24 + wrapped("then " + ", ".join(others[1:]), table_width(), 24) + "\n"
        return text

    def _table_of_speakers(self, timeline: Timeline) -> str:
        speaker = min(max(len("speaker"), *(columns_of(segment.speaker or "") for segment in timeline)), 16)
        room = table_width() - (8 + 2 + 8 + 2 + speaker + 2 + self._emotion + 2 + 5 + 2)

        def line(start: str, end: str, name: str | None, emotion: str, score: str, words: str) -> str:
            who = padded(cut(printable(name or "-"), speaker), speaker)
            cells = (f"{start:>8}", f"{end:>8}", who, self._padded(emotion), f"{score:>5}", cut(words, room))
            return "  ".join(cells).rstrip() + "\n"

        text = line("start", "end", "speaker", "emotion", "score", "text")
        for each in timeline:
            words = printable(" ".join((each.text or "").split()))
            text += line(clock(each.start), clock(each.end), each.speaker, *_answer(each), words)
        text += "\n" + line("segments", "speech", "speaker", "emotion", "score", "")
        for one in timeline.speakers():
            text += line(str(one.segments), clock(one.speech), one.speaker, *_answer(one), "")
        return text

    def _line(self, start: str, end: str, emotion: str, score: str, following: str) -> str:
        return f"{start:>10}  {end:>10}  {self._padded(emotion)}  {score:>5}  {following}".rstrip() + "\n"


def _answer(answer: Prediction | Segment | Speaker) -> tuple[str, str]:
    """Return the cells for the emotion and its score."""
    if answer.label is None:
        return ("(unsure)", "") if answer.speech else ("(nobody)", "")
    return answer.label, f"{answer.score:.2f}"


def _channel_field(channel: Channel) -> dict[str, int]:
    """Return the field of JSON that says which channel a row is about; ``mix`` has none."""
    return {} if channel == "mix" else {"channel": channel}


def titled(name: str, channel: Channel) -> str:
    """Return the name of a piece in a table; other formats have a field for the channel."""
    return name if channel == "mix" else f"{name} channel {channel}"
