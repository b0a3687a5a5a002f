"""Write results to a file as they come, and continue the file of an interrupted run."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from ..errors import ConfigError, one_line, printable
from ..timeline import csv_cell
from ._signals import Stopped

if TYPE_CHECKING:
    from types import TracebackType

SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".vtt": "vtt", ".txt": "table"}
"""The format of an output, by the suffix of its name."""


class Output:
    """Write results one after the other to a stream or a file.

    The first result replaces the old content of the file, and every result is in the file as soon as it is added. The
    file has whole results only, and is valid JSON once it is closed.

    Args:
        place: a stream, or the path of a file.
        form: ``json`` puts the results into one list; in every other form they follow each other.
        header: text above the results.
        kept: bytes at the beginning of the file that stay, with earlier results; 0 starts a new file.
    """

    def __init__(self, place: IO[str] | str, form: str, header: str, *, kept: int = 0) -> None:
        self._path = place if isinstance(place, str) else None
        self._stream = None if isinstance(place, str) else place
        self._json = form == "json"
        self._header = "[" if self._json else header
        self._kept = kept
        self._more = kept > 0
        self._begun = False

    def __enter__(self) -> Output:
        if self._path is not None:
            _require_writable(self._path)
        elif not self._json:  # a table's header comes before the first result
            self._put(self._header)
            self._begun = True
        return self

    def add(self, text: str) -> None:
        """Write one result, a number of whole lines.

        Raises:
            ConfigError: the file cannot be written; it keeps the earlier results.
            OSError: the stream cannot be written.
        """
        if self._json:
            text = f"{',' * self._more}\n{text.rstrip()}"
        self._write(text)
        self._more = True

    def _write(self, text: str) -> None:
        if not self._begun and not self._kept:
            text = self._header + text
        self._put(text)
        self._begun = True

    def _put(self, text: str) -> None:
        if self._path is None:
            assert self._stream is not None
            self._stream.write(text)
            self._stream.flush()
            return
        data = text.encode("utf-8", "backslashreplace")
        if not self._begun and not self._kept:
            from ..files import whole_file

            with whole_file(self._path) as path:
                path.write_bytes(data)
        else:
            _append(self._path, data, self._kept if not self._begun else None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            if self._json or not self._begun:
                self._write("\n]\n" if self._json else "")
        elif self._json and self._begun and (self._path or isinstance(error, (KeyboardInterrupt, Stopped))):
            with contextlib.suppress(ConfigError, OSError):  # there is an error already
                self._write("\n]\n")


def _append(path: str, data: bytes, cut: int | None) -> None:
    """Write `data` whole or not at all: at the end of a file, or from byte `cut` on."""
    try:
        with open(path, "r+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END) if cut is None else file.seek(cut)
            file.truncate(end)
            view = memoryview(data)
            try:
                while view:
                    view = view[file.write(view) :]
            except BaseException:
                file.truncate(end)
                raise
    except OSError as error:
        name = printable(path)
        raise ConfigError(
            f"{name}: cannot be written ({one_line(error)}): what is done is there, make room and use --resume"
        ) from error


def written(name: str, form: str) -> str:
    """Return the name of a recording as a file of earlier results has it."""
    return name if form != "csv" else csv_cell(name).encode("utf-8", "backslashreplace").decode("utf-8")


def _require_writable(path: str) -> None:
    """Raise now, not with the first result, if nothing can be written at `path`."""
    from ..files import whole_file

    class Probe(Exception):
        pass

    if os.path.isfile(path) and not os.access(path, os.W_OK):
        raise ConfigError(f"{printable(path)}: cannot be written (it is read-only): choose another place")
    with contextlib.suppress(Probe), whole_file(path):
        raise Probe  # nothing takes its place


@dataclass
class Done:
    """The content of a file of earlier results."""

    pieces: set[tuple[str, str]] = field(default_factory=set)
    """The recordings, by name and channel."""
    kept: int = 0
    """Bytes that hold whole results."""
    model: str | None = None
    """Name of the model in the last row."""


def done(path: str, form: str, header: str, *, timeline: bool) -> Done:
    """Return the results of an interrupted run in the file `path`, which need not exist.

    Raises:
        ConfigError: it has other content, or cannot be read.
    """
    name = printable(path)
    if form not in ("jsonl", "json", "csv"):
        raise ConfigError(f"--resume cannot go on in a {form}: use --format csv, jsonl or json")
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return Done()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: cannot be read ({one_line(error)}): choose another output") from error
    found = Done()
    last, before = None, 0  # the recording of the last rows, and the bytes before them
    try:
        for row, end in _csv_rows(data, header) if form == "csv" else _json_rows(data, form, timeline):
            piece = str(row["file"]), str(row.get("channel", "mix"))
            if piece != last:
                last, before = piece, found.kept
                found.pieces.add(piece)
            found.kept = end
            found.model = str(row["model"]) if "model" in row else None
    except (ValueError, LookupError, csv.Error) as error:
        raise ConfigError(
            f"{name}: --resume found what this command does not write there ({one_line(error)}): "
            "choose another output, or leave out --resume to replace it"
        ) from error
    if timeline and form != "json" and last is not None:  # some of its rows may be missing: it is done again
        found.pieces.discard(last)
        found.kept = before
    return found


def _json_rows(data: bytes, form: str, timeline: bool) -> Iterator[tuple[dict[str, object], int]]:
    """Yield every whole row of JSON, a line each, and the byte where it ends, before the comma of a list."""
    if form == "jsonl":
        data = data[: data.rfind(b"\n") + 1]  # what follows was written in part
    end = 0
    lines = data.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        text = line.strip().rstrip(b",")
        if text not in (b"", b"[", b"]"):
            try:
                row = json.loads(text)
            except ValueError:
                if form == "json" and number == len(lines):
                    return
                raise
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no row")
            if ("start" in row or "segments" in row) != timeline:
                raise ValueError(f"line {number} is {'a clip' if timeline else 'a segment'}")
            yield row, end + len(line if form == "jsonl" else line.rstrip().rstrip(b","))
        end += len(line)


def _csv_rows(data: bytes, header: str) -> Iterator[tuple[dict[str, object], int]]:
    """Yield every whole row of CSV and the byte where it ends."""
    data = data[: data.rfind(b"\n") + 1]  # what follows was written in part
    end = 0

    def lines() -> Iterator[str]:
        nonlocal end
        for line in io.BytesIO(data):
            end += len(line)
            yield line.decode("utf-8")

    columns = next(csv.reader(io.StringIO(header, newline="")))
    rows = csv.reader(lines(), strict=True)
    if next(rows, columns) != columns:
        raise ValueError("another header")
    while True:
        try:
            values = next(rows, None)
        except csv.Error:
            if end == len(data):  # the end of a quoted line break is missing
                return
            raise
        if values is None:
            return
        if len(values) != len(columns):
            raise ValueError(f"{len(values)} values for {len(columns)} columns")
        yield dict(zip(columns, values, strict=True)), end
