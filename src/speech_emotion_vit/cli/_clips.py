"""``predict``: a row per clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..timeline import csv_lines
from ._channels import channel_field, titled, with_channel
from ._rows import json_line
from ._table import clock, columns_of, cut, padded, table_width, wrapped

if TYPE_CHECKING:
    from ..audio.reader import Channel
    from ..prediction import Prediction


class Clips:
    """Rows for predictions in one form.

    Args:
        form: ``table``, ``csv``, ``jsonl`` or ``json``.
        labels: of the model.
        names: all that will have a row, for the width of their column.
        top_k: how many labels are told; None is two in a table, and else all.
        channels: whether every row is about one channel.
    """

    def __init__(
        self,
        form: str,
        labels: tuple[str, ...],
        names: list[str],
        top_k: int | None = None,
        *,
        channels: bool = False,
    ) -> None:
        self._channels = channels
        self._form = form
        self._labels = labels
        self._top_k = top_k
        self._emotion = min(max(map(columns_of, (*labels, "emotion", "(nobody)"))), 12)
        self._room = table_width()
        rest = self._emotion + 5 + (self._emotion + 5) + 7 + 7 + 5 * 2
        self._clip = max(4, min(max(map(columns_of, names), default=4), self._room - rest))

    @property
    def header(self) -> str:
        """What stands above the rows."""
        if self._form == "csv":
            header = csv_lines([["file", "label", "score", *self._labels, "duration", "speech", "model", "warnings"]])
            return with_channel(header, "channel" if self._channels else "mix")
        if self._form == "table":
            return self._line("clip", "emotion", "score", "next", "length", "speech")
        return ""

    def lines(self, name: str, prediction: Prediction, channel: Channel = "mix") -> str:
        """Return the lines for one clip."""
        told = prediction.top(self._top_k or len(self._labels))
        if self._form == "csv":
            values = dict(told)
            answer = [None, None] if not prediction.speech else [prediction.label, prediction.score]
            cells = [*answer, *map(values.get, self._labels), prediction.duration, prediction.speech]
            row = csv_lines([[name, *cells, prediction.model, "; ".join(prediction.warnings)]])
            return with_channel(row, channel)
        if self._form != "table":
            record = {"file": name, **channel_field(channel), **prediction.to_dict()}
            if self._top_k is not None:
                record["probabilities"] = dict(told)
            return json_line(record) + "\n"
        return self._table_row(titled(name, channel), prediction)

    def _table_row(self, name: str, prediction: Prediction) -> str:
        length, speech = clock(prediction.duration), clock(prediction.speech)
        if not prediction.speech:
            text = self._line(name, "(nobody)", "", "", length, speech)
        else:
            (label, score), *others = prediction.top(max(self._top_k or 2, 1))
            following = [f"{cut(other, self._emotion)} {less:.2f}" for other, less in others]
            answer = label, f"{score:.2f}"
            if prediction.label is None:  # below the threshold
                following = [f"{cut(label, self._emotion)} {score:.2f}", *following][: max(1, len(following))]
                answer = "(unsure)", ""
            text = self._line(name, *answer, following[0] if following else "", length, speech)
            if len(following) > 1:
                text += "  " + wrapped("then " + ", ".join(following[1:]), self._room, 2) + "\n"
        if prediction.warnings:
            text += "  " + wrapped("; ".join(prediction.warnings), self._room, 2) + "\n"
        return text

    def _line(self, clip: str, emotion: str, score: str, following: str, length: str, speech: str) -> str:
        cells = [
            padded(cut(clip, self._clip, end=True), self._clip),
            padded(cut(emotion, self._emotion), self._emotion),
            f"{score:>5}",
            padded(following, self._emotion + 5),
            f"{length:>7}",
            f"{speech:>7}",
        ]
        return "  ".join(cells).rstrip() + "\n"
