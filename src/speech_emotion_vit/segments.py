"""Read the segments of a diarisation or a transcript: who speaks when, and which words.

The formats are RTTM (pyannote, NIST), SRT and WebVTT (Whisper, faster-whisper, WhisperX), CSV, Whisper's JSON and TSV,
and objects in memory: pairs, dictionaries, objects with ``start`` and ``end``, pyannote's annotations.
"""

from __future__ import annotations

import csv
import html
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple, TypeAlias, cast

from .errors import ConfigError, one_line, printable, quoted
from .files import read_text

MAX_BYTES = 64 * 2**20  # of a file of segments; a day of speech has one
MAX_COUNT = 500_000
LATEST = 1e9  # seconds
_RECODE = "save it as UTF-8, for example with iconv -f {} -t UTF-8"


SegmentsInput: TypeAlias = "str | os.PathLike[str] | Iterable[Any] | Mapping[str, Any]"


class Turn(NamedTuple):
    """One segment of a diarisation or a transcript."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    """Seconds from the start of the recording."""
    speaker: str | None = None
    text: str | None = None


def find_segments(place: str, recording: str) -> str:
    """Return the file of segments for a recording: `place`, or the one of the recording's name in the folder `place`.

    Raises:
        ConfigError: the folder has none, or several.
    """
    if not os.path.isdir(place):
        return place
    stem = PurePath(recording).stem
    found = [
        path
        for suffix in READERS
        for path in (
            os.path.join(place, f"{stem}{suffix}"),
            os.path.join(place, f"{os.path.basename(recording)}{suffix}"),
        )
        if os.path.isfile(path)
    ]
    if len(found) != 1:
        what = f"{len(found)} files, {', '.join(map(os.path.basename, found))}" if found else "no file"
        raise ConfigError(
            f"{printable(place)}: {printable(what)} with segments for {printable(os.path.basename(recording))}: "
            f"one is needed, such as {printable(stem)}.rttm"
        )
    return found[0]


def read_segments(source: object, recording: str) -> list[Turn]:
    """Return the segments of a recording, in the order of the source.

    Args:
        source: the path of a file, or segments in memory: ``(start, end)``, ``(start, end, speaker)`` or
            ``(start, end, speaker, text)`` in seconds, dictionaries or objects with these names, or an annotation of
            pyannote.
        recording: its name, which is looked up in a file about several recordings.

    Raises:
        ConfigError: it cannot be read, or has a wrong segment; the message says which one.
    """
    if isinstance(source, (str, os.PathLike)):
        turns = _read_file(os.fspath(source), recording)
        name = printable(os.fspath(source))
    else:
        turns = _in_memory(source)
        name = "segments"
    if not turns:
        raise ConfigError(f"{name}: there is no segment in it: pass at least one")
    return turns


def _read_file(path: str, recording: str) -> list[Turn]:
    name = printable(path)
    try:
        text = read_text(path, MAX_BYTES).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{name}: is not UTF-8 in line {line}: {_RECODE.format('WINDOWS-1252')}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: cannot be read ({one_line(error)}): check the path") from error
    if "\0" in text:  # ASCII in UTF-16 without a byte-order mark is valid UTF-8
        coding = "UTF-16BE" if text.startswith("\0") else "UTF-16LE"
        raise ConfigError(f"{name}: is not UTF-8, because it holds NUL characters: {_RECODE.format(coding)}")
    read = READERS.get(os.path.splitext(path)[1].lower()) or _by_content(text)
    if read is None:
        raise ConfigError(f"{name}: is no file of segments: its name must end in {', '.join(READERS)}")
    turns: list[Turn] = []
    try:
        for line, turn in read(text, recording):
            try:
                turns.append(_checked(*turn))
            except ValueError as error:
                raise ValueError(str(error), *([line] if line else [])) from error
            if len(turns) > MAX_COUNT:
                raise ValueError(f"there are more than {MAX_COUNT:,} segments")
    except (ValueError, LookupError, TypeError, csv.Error, RecursionError) as error:
        where = f"line {error.args[1]}: " if len(error.args) > 1 else ""
        message = printable(str(error.args[0]) if error.args else str(error))
        raise ConfigError(f"{name}: {where}{_short(message)}: correct the file") from error
    return turns


def _in_memory(source: Any) -> list[Turn]:
    if hasattr(source, "itertracks"):  # pyannote.core.Annotation
        items: Iterable[Any] = ((t.start, t.end, str(label)) for t, _, label in source.itertracks(yield_label=True))
    elif isinstance(source, Mapping):
        items = source.get("segments", ())
        if not items:
            raise ConfigError(f"segments: a dictionary must have 'segments', not {_short(', '.join(map(str, source)))}")
    elif hasattr(source, "to_dict") and hasattr(source, "columns"):  # a pandas table
        items = source.to_dict("records")
    else:
        items = source
    try:
        listed = iter(items)
    except TypeError as error:
        raise ConfigError(
            f"segments: cannot take {type(source).__name__}: pass (start, end) pairs in seconds or the path of a file"
        ) from error
    turns = []
    for number, item in enumerate(listed):
        try:
            turns.append(_turn_of(item))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"segments: number {number + 1} {_short(printable(str(error)))}") from error
        if len(turns) > MAX_COUNT:
            raise ConfigError(f"segments: there are more than {MAX_COUNT:,}: pass fewer")
    return turns


def _turn_of(item: Any) -> Turn:
    if isinstance(item, Mapping):
        values = [item.get(name) for name in Turn._fields]
    elif hasattr(item, "start") and hasattr(item, "end"):  # faster-whisper's, pyannote's; some of them are tuples
        values = [getattr(item, name, None) for name in Turn._fields]
    elif isinstance(item, (str, bytes)) or not hasattr(item, "__len__") or not 2 <= len(item) <= 4:
        raise ValueError(f"is {quoted(item)}, not (start, end), (start, end, speaker) or (start, end, speaker, text)")
    else:
        values = list(item)
    start, end, *more = values
    if any(isinstance(each, (str, bytes, bool)) or not hasattr(each, "__float__") for each in (start, end)):
        raise ValueError(f"has start {quoted(start)} and end {quoted(end)}: both must be numbers of seconds")
    return _checked(
        float(cast(Any, start)), float(cast(Any, end)), *(None if _missing(each) else str(each) for each in more)
    )


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _checked(start: float, end: float, speaker: str | None = None, text: str | None = None) -> Turn:
    if not (0 <= start <= LATEST and 0 <= end <= LATEST):  # also true for NaN
        raise ValueError(f"is from {start:g} to {end:g} s: times are seconds from the start of the recording")
    if end < start:
        raise ValueError(f"ends at {end:g} s, before it starts at {start:g} s")
    return Turn(start, end, (speaker or "").strip() or None, (text or "").strip() or None)


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."


Parts = Iterator[tuple[int, tuple[Any, ...]]]  # the line, and the arguments of a Turn


def _rttm(text: str, recording: str) -> Parts:
    """``SPEAKER uri channel start duration <NA> <NA> speaker <NA> <NA>``, and other types that are passed over."""
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1)]
    rows = [(number, row) for number, row in rows if row and row[0] == "SPEAKER"]
    for number, row in rows:
        if len(row) < 8:
            raise ValueError(f"{quoted(' '.join(row))} has {len(row)} fields, a SPEAKER line of RTTM has 10", number)
    names = list(dict.fromkeys(row[1] for _, row in rows))
    if len(names) > 1:
        stem = PurePath(recording).stem
        wanted = [name for name in names if name in (stem, os.path.basename(recording), recording)]
        if not wanted:
            raise ValueError(f"it is of {len(names)} recordings, {', '.join(names[:5])}: none is called {quoted(stem)}")
        rows = [(number, row) for number, row in rows if row[1] == wanted[0]]
    for number, row in rows:
        start, duration = _number(row[3], number), _number(row[4], number)
        yield number, (start, start + duration, None if row[7] == "<NA>" else row[7])


_ARROW = re.compile(r"^\s*(\S+)\s+-->\s+(\S+)(?:\s+.*)?$")
_TIME = re.compile(r"^(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,9}))?$")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]*)>")
_NAMED = re.compile(r"^\[([^\]\n]{1,64})\]:\s*")  # WhisperX
_TAG = re.compile(r"</?[a-zA-Z0-9:.][^>\n]*>|</>")


def _cues(text: str, recording: str) -> Parts:
    """SRT and WebVTT: a line with two times and an arrow, then lines of text up to an empty one."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        arrow = _ARROW.match(lines[number])
        number += 1
        if arrow is None:
            if "-->" in lines[number - 1]:
                raise ValueError(f"{quoted(lines[number - 1])} is no pair of times", number)
            continue
        at = number
        cue = []
        while number < len(lines) and lines[number].strip() and not _ARROW.match(lines[number]):
            cue.append(lines[number].strip())
            number += 1
        words = " ".join(cue)
        voice = _VOICE.search(words)
        words = _NAMED.sub("", words) if (named := _NAMED.match(words)) and voice is None else words
        speaker = voice[1] if voice else named[1] if named else None
        words = html.unescape(_TAG.sub("", words))
        yield at, (_time(arrow[1], at), _time(arrow[2], at), speaker and html.unescape(speaker), words)


_COLUMNS = {
    "start": ("start", "begin", "onset", "start_time", "start time", "start (s)", "from"),
    "end": ("end", "stop", "offset", "end_time", "end time", "end (s)", "to"),
    "duration": ("duration", "dur", "duration (s)"),
    "speaker": ("speaker", "who", "speaker_id", "spk", "voice"),
    "text": ("text", "transcript", "transcription", "words", "utterance"),
    "file": ("file", "path", "filename", "recording", "uri", "audio"),
}


def _table(text: str, recording: str) -> Parts:
    """CSV with or without names of columns; Whisper's TSV, whose times are milliseconds."""
    first = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    places = {"start": 0, "end": 1, "speaker": 2, "text": 3}
    scale = 1.0
    head = True
    for row in rows:
        number = rows.line_num
        if not any(cell.strip() for cell in row):
            continue
        if head:
            head = False
            names = [cell.strip().lower() for cell in row]
            named = {key: i for key, known in _COLUMNS.items() for i, name in enumerate(names) if name in known}
            if "start" in named:
                if not {"end", "duration"} & set(named):
                    raise ValueError(f"its columns are {', '.join(names)}: start and end are needed", number)
                places = named
                scale = 1e-3 if delimiter == "\t" and names == ["start", "end", "text"] else 1.0
                continue
        cells = {key: row[place].strip() for key, place in places.items() if place < len(row)}
        if not cells.get("start") or not (cells.get("end") or cells.get("duration")):
            raise ValueError(f"{quoted(delimiter.join(row))} has no start and end", number)
        if "file" in cells and not _same_recording(cells["file"], recording):
            continue
        start = scale * _time(cells["start"], number)
        end = scale * _time(cells["end"], number) if cells.get("end") else start + _time(cells["duration"], number)
        yield number, (start, end, cells.get("speaker"), cells.get("text"))


def _json(text: str, recording: str) -> Parts:
    """Whisper's and WhisperX's: ``{"segments": [{"start", "end", "text", "speaker"}]}``, or the list alone."""
    data = json.loads(text)
    items = data.get("segments") if isinstance(data, dict) else data
    if not isinstance(items, list):
        raise ValueError("has no list of segments")
    for number, item in enumerate(items, 1):
        try:
            yield 0, tuple(_turn_of(item))
        except (ValueError, TypeError) as error:
            raise ValueError(f"segment {number} {error}") from error


READERS: dict[str, Callable[[str, str], Parts]] = {
    ".rttm": _rttm,
    ".srt": _cues,
    ".vtt": _cues,
    ".csv": _table,
    ".tsv": _table,
    ".json": _json,
}
"""How to read a file of segments, by its suffix."""


def _by_content(text: str) -> Callable[[str, str], Parts] | None:
    begin = text.lstrip()[:4096]
    if begin.startswith("SPEAKER "):
        return _rttm
    if begin.startswith(("{", "[")):
        return _json
    return _cues if "-->" in begin else None


def _same_recording(name: str, recording: str) -> bool:
    return name == recording or PurePath(name).stem == PurePath(recording).stem


def _number(text: str, line: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{quoted(text)} is no number of seconds", line) from None


def _time(text: str, line: int) -> float:
    """Return seconds of ``12.5`` or ``1:02:03.500``, with a point or a comma."""
    clock = _TIME.match(text.strip())
    if clock is None:
        return _number(text.strip().replace(",", "."), line)
    hours, minutes, seconds, fraction = clock.groups()
    return 3600.0 * int(hours or 0) + 60.0 * int(minutes) + int(seconds) + float(f"0.{fraction or 0}")
