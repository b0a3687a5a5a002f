"""Results as rows: a table at a terminal, 80 columns wide, and JSON Lines in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from ..errors import printable
from ._table import aligned, table_width, wrapped

C = TypeVar("C", bound=Callable[..., Any])

Row = Mapping[str, object]

_MANY = 16  # values of a list that a table shows


def json_line(values: Mapping[str, object]) -> str:
    """Return one line of JSON that commands no terminal: what cannot be printed is escaped, and read as it was."""
    text = json.dumps(values, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def format_option(command: C) -> C:
    """Add ``--format`` as the argument ``form``."""
    option = click.option(
        "--format",
        "form",
        type=click.Choice(["table", "jsonl"]),
        help="Output format.  [default: table at a terminal, jsonl elsewhere]",
    )
    return option(command)


def form_is_table(form: str | None) -> bool:
    """Return whether people read what is printed."""
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
    indent = min(max(map(len, record)) + 2, 16)  # a SHA-256 fits behind it
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
