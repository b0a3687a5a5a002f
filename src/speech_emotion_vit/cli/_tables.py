"""Results as tables for people, 80 columns wide or as wide as the terminal, and as JSON Lines in a pipe."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import click

from ..errors import printable

Row = Mapping[str, object]

WIDTH = 80
MORE = "..."
_MANY = 16  # values of a list that a table shows


def json_line(values: Mapping[str, object]) -> str:
    """Return one line of JSON in which control characters are escaped."""
    text = json.dumps(values, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def form_is_table(form: str | None) -> bool:
    """Return whether to print a table."""
    return form == "table" or (form is None and sys.stdout.isatty())


def echo_rows(
    rows: Sequence[Row], form: str | None, *, columns: Sequence[str] | None = None, below: str | None = None
) -> None:
    """Print rows of equal keys; JSON Lines have everything, a table `columns`, and `below` on a line under each row."""
    if not form_is_table(form):
        for row in rows:
            click.echo(json_line(row))
        return
    shown = list(columns or (rows[0] if rows else ()))
    width = table_width()
    lines = aligned([shown, *([_cell(row[key]) for key in shown] for row in rows)], width)
    click.echo(next(lines))
    for row, line in zip(rows, lines, strict=True):
        click.echo(line)
        if below is not None and row[below] is not None:
            click.echo("  " + wrapped(_cell(row[below]), width, 2))


def echo_record(record: Row, form: str | None) -> None:
    """Print one record: a paragraph per value in a table, one line of JSON elsewhere."""
    if not form_is_table(form):
        click.echo(json_line(record))
        return
    indent = min(max(map(len, record)) + 2, 16)  # so that a SHA-256 fits
    for key, value in record.items():
        each = value if isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping) else [value]
        for number, part in enumerate(each):
            head = key if number == 0 else ""
            click.echo(f"{head:<{indent - 1}} {wrapped(_cell(part), table_width(), indent)}".rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_cell(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        if len(value) > _MANY:
            return f"{', '.join(map(_cell, value[:3]))}, ... {_cell(value[-1])} ({len(value)})"
        return ", ".join(map(_cell, value))
    return printable(str(value))


def table_width() -> int:
    """Return the width of the terminal in columns, or 80 elsewhere."""
    try:
        return max(40, shutil.get_terminal_size((WIDTH, 24)).columns) if sys.stdout.isatty() else WIDTH
    except (AttributeError, ValueError):
        return WIDTH


def columns_of(text: str) -> int:
    """Return the width of a text in columns: Chinese characters take two, combining accents none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def cut(text: str, width: int, *, end: bool = False) -> str:
    """Return a text of at most `width` columns: its beginning, or with `end` its end, for paths."""
    if columns_of(text) <= width:
        return text
    letters = list(reversed(text) if end else text)
    kept, room = [], width - len(MORE)
    for letter in letters:
        room -= columns_of(letter)
        if room < 0:
            break
        kept.append(letter)
    if not end:
        return "".join(kept) + MORE
    tail = "".join(reversed(kept))
    return MORE + tail[max(0, tail.find("/")) :]


def padded(text: str, width: int) -> str:
    """Return a text filled with spaces to `width` columns."""
    return text + " " * (width - columns_of(text))


def wrapped(text: str, width: int, indent: int) -> str:
    """Return a text on lines of `width` columns, the first unindented; long words such as paths stay whole."""
    room = max(20, width - indent)
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return f"\n{' ' * indent}".join(lines)


def aligned(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield lines of cells in columns; long text in the last column is wrapped."""
    widths = [max(map(columns_of, column)) for column in zip(*rows, strict=True)]
    indent = sum(widths[:-1]) + 2 * (len(widths) - 1)
    for row in rows:
        line = "".join(f"{padded(cell, wide)}  " for cell, wide in zip(row[:-1], widths[:-1], strict=True))
        yield (line + wrapped(row[-1], width, indent)).rstrip()


def clock(seconds: float) -> str:
    """Return ``1:02.5``, minutes and seconds, with hours where there are any."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours = f"{minutes // 60}:{minutes % 60:02}" if minutes >= 60 else f"{minutes}"
    return f"{hours}:{rest // 10:02}.{rest % 10}"
