"""Emotion along a recording: its segments, speakers and stretches, as tables, subtitles and pictures."""

from __future__ import annotations

import csv
import html
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .extras import require
from .files import saved_text
from .pictures import draw_probabilities, draw_speakers, save_picture, title
from .prediction import RankedLabels, Segment

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_FORMULA = frozenset("=+-@\t\r")  # begins a formula of a spreadsheet; a quote before it makes it a text
_TOUCHING = 1e-6  # seconds; rounding between the end of one window and the start of the next


@dataclass(frozen=True)
class Speaker(RankedLabels):
    """The emotion of one speaker over a whole recording."""

    speaker: str | None
    """Name; None stands for all segments without one."""
    segments: int
    """Number of the speaker's segments."""
    duration: float
    """Length of these segments in seconds."""
    probabilities: dict[str, float]
    """Mean of every probability over the segments, weighted by the speech in each."""
    speech: float
    """Seconds of speech in them."""
    threshold: float = 0.0
    """Least probability of a label."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready types."""
        return {
            "speaker": self.speaker,
            "segments": self.segments,
            "duration": self.duration,
            "speech": self.speech,
            "label": self.label,
            "score": self.score,
            "probabilities": dict(self.probabilities),
        }


@dataclass(frozen=True)
class Stretch:
    """A part of a recording with one label throughout."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    """Seconds from the start of the recording."""
    label: str | None
    """None if there is no speech, or if no label reaches the threshold."""
    score: float
    """Mean probability of the label over the segments it comes from."""


@dataclass(frozen=True, repr=False)
class Timeline:
    """Emotion probabilities along a recording."""

    segments: tuple[Segment, ...]
    """One per window, in order of time; at least one."""
    file: str
    """Name of the recording."""
    duration: float
    """Length of what could be read, in seconds."""
    model: str
    """Name and revision of the model that answered."""
    warnings: tuple[str, ...] = ()
    """As in `Prediction`, and why the recording could not be read to its end."""
    given: bool = False
    """Whether the segments come from a diarisation or a transcript; they keep its order and may overlap."""

    def speakers(self) -> list[Speaker]:
        """Return the emotion of every speaker, in the order in which they first speak."""
        groups: dict[str | None, list[Segment]] = {}
        for segment in sorted(self.segments, key=lambda each: each.start):
            groups.setdefault(segment.speaker, []).append(segment)
        return [
            Speaker(
                speaker,
                len(theirs),
                sum(segment.end - segment.start for segment in theirs),
                {
                    label: sum(each.speech * each.probabilities[label] for each in theirs) / (speech or 1.0)
                    for label in theirs[0].probabilities
                },
                speech,
                theirs[0].threshold,
            )
            for speaker, theirs in groups.items()
            for speech in [sum(segment.speech for segment in theirs)]
        ]

    def stretches(self) -> list[Stretch]:
        """Return the recording cut into stretches of one label each, which do not overlap.

        Every moment belongs to the segment whose middle is nearest, and neighbours with the same label become one.
        Segments of a diarisation or a transcript stay as they are.
        """
        if self.given:
            return [Stretch(s.start, s.end, s.label, s.score) for s in sorted(self.segments, key=lambda s: s.start)]
        stretches: list[Stretch] = []
        scores: list[float] = []
        middles = [(segment.start + segment.end) / 2 for segment in self.segments]
        borders = [(one + other) / 2 for one, other in pairwise(middles)]
        limits = zip([0.0, *borders], [*borders, self.segments[-1].end], self.segments, strict=True)
        for low, high, segment in limits:
            start, end = max(low, segment.start), min(high, segment.end)
            label = segment.label
            joined = bool(stretches) and stretches[-1].label == label and start - stretches[-1].end < _TOUCHING
            if joined:
                scores.append(segment.score)
                start = stretches.pop().start
            else:
                scores = [segment.score]
            stretches.append(Stretch(start, end, label, sum(scores) / len(scores)))
        return stretches

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready types."""
        return {
            "file": self.file,
            "duration": self.duration,
            "model": self.model,
            "warnings": list(self.warnings),
            "segments": [segment.to_dict() for segment in self.segments],
            **({"speakers": [speaker.to_dict() for speaker in self.speakers()]} if self.given else {}),
        }

    def to_json(self, path: str | os.PathLike[str] | None = None, *, indent: int | None = None) -> str:
        """Return `to_dict` as JSON, and write it to `path`."""
        return saved_text(json.dumps(self.to_dict(), ensure_ascii=False, indent=indent), path, "\n")

    def to_csv(self, path: str | os.PathLike[str] | None = None, *, header: bool = True) -> str:
        """Return one line per segment: file, start and end in seconds, label, score, every probability, speech.

        Without speech, label, score and probabilities are empty. Segments of a diarisation or a transcript have the
        columns speaker and text after their end.

        Args:
            path: a file to write it to.
            header: whether a line with the names of the columns comes first.
        """
        rows = csv_rows(self, self.file)
        if header:
            rows.insert(0, csv_columns(self.segments[0].probabilities, given=self.given))
        return saved_text(csv_lines(rows), path)

    def to_webvtt(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return subtitles for a player: one cue per stretch with its label, none without speech.

        Each segment of a diarisation or a transcript is one cue, with its speaker and text.

        Args:
            path: a file to write it to.
        """
        if self.given:
            theirs = map(_cue, sorted(self.segments, key=lambda segment: segment.start))
            return saved_text("\n".join(["WEBVTT\n", *theirs]), path)
        cues = [
            f"{_clock(s.start)} --> {_clock(s.end)}\n{html.escape(s.label, quote=False)} {s.score:.0%}\n"
            for s in self.stretches()
            if s.label is not None
        ]
        return saved_text("\n".join(["WEBVTT\n", *cues]), path)

    def to_frame(self) -> pandas.DataFrame:
        """Return a table in audformat's segmented layout.

        The index is file, start and end (`Timedelta`); the columns are label, score, every probability, and speech in
        seconds. Without speech, all but the last are missing.

        Raises:
            ConfigError: pandas is not installed.
        """
        pd = require("pandas", "frame")
        index = pd.MultiIndex.from_arrays(
            [
                [self.file] * len(self.segments),
                pd.to_timedelta([segment.start for segment in self.segments], unit="s").as_unit("ns"),  # audformat's
                pd.to_timedelta([segment.end for segment in self.segments], unit="s").as_unit("ns"),
            ],
            names=["file", "start", "end"],
        )
        columns = ["label", "score", *self.segments[0].probabilities]
        nobody = [None, *[float("nan")] * (len(columns) - 1)]
        rows = [[*(_answer_cells(s) if s.speech else nobody), s.speech] for s in self.segments]
        frame = pd.DataFrame(rows, index=index, columns=[*columns, "speech"])
        if self.given:
            frame.insert(0, "speaker", [s.speaker for s in self.segments])
            frame.insert(1, "text", [s.text for s in self.segments])
        return frame

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Return a matplotlib figure: every probability over time, and below it the label of every stretch.

        Parts without speech are grey. The probabilities of a long recording are means over some seconds, stacked on
        each other. Segments of a diarisation or a transcript have one row per speaker.

        Args:
            path: a file to write it to: PNG, SVG or PDF by its suffix.

        Raises:
            ConfigError: matplotlib is not installed, or nothing can be written there.
        """
        end = max(self.duration, *(segment.end for segment in self.segments))
        if self.given:
            names = [speaker.speaker for speaker in self.speakers()]
            figure = draw_speakers(self.segments, names, end, title(self.file, self.model))
        else:
            stretches = [(stretch.start, stretch.end, stretch.label) for stretch in self.stretches()]
            figure = draw_probabilities(self.segments, stretches, end, title(self.file, self.model))
        if path is not None:
            save_picture(figure, path)
        return figure

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __len__(self) -> int:
        return len(self.segments)

    def __repr__(self) -> str:
        stretches = self.stretches()
        nobody = "nobody or unsure" if self.segments[0].threshold else "nobody"
        first = [f"{s.label or nobody} {s.start:.1f}-{s.end:.1f}" for s in stretches[:4]]
        more = f", {len(stretches) - 4} more" if len(stretches) > 4 else ""
        notes = f", warnings: {'; '.join(self.warnings)}" if self.warnings else ""
        count = f"{len(self.segments)} segment{'s' if len(self.segments) > 1 else ''}"
        return f"<Timeline {count}: {', '.join(first)}{more} ({self.duration:.2f} s, {self.model}{notes})>"


def csv_columns(labels: Iterable[str], *, given: bool) -> list[object]:
    """Return the names of the columns of `csv_rows`; `given` is that of the timeline."""
    others = ["speaker", "text"] if given else []
    return ["file", "start", "end", *others, "label", "score", *labels, "speech"]


def csv_rows(timeline: Timeline, name: str) -> list[list[object]]:
    """Return the cells of a row per segment; `name` is what the recording is called there."""
    return [
        [name, s.start, s.end, *([s.speaker, s.text] if timeline.given else []), *_answer_cells(s), s.speech]
        for s in timeline.segments
    ]


def _cue(segment: Segment) -> str:
    """Return a segment of a diarisation or a transcript as WebVTT."""
    text = " ".join((segment.text or "").split())
    parts = [f"[{segment.label} {segment.score:.0%}]" if segment.label is not None else "", text]
    words = html.escape(" ".join(filter(None, parts)), quote=False) or "[-]"
    who = f"<v {html.escape(segment.speaker, quote=False)}>" if segment.speaker else ""
    return f"{_clock(segment.start)} --> {_clock(max(segment.end, segment.start + 0.001))}\n{who}{words}\n"


def _answer_cells(answer: Segment) -> list[object]:
    """Return label, score and every probability as cells of a table; empty without speech."""
    if not answer.speech:
        return [""] * (2 + len(answer.probabilities))
    return [answer.label, answer.score, *answer.probabilities.values()]


def csv_lines(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([csv_cell(value) if isinstance(value, str) else value for value in row] for row in rows)
    return text.getvalue()


def csv_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: foreign labels, names and words may look like one."""
    return f"'{text}" if text[:1] in _FORMULA and text != "-" else text


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"
