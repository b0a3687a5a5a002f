"""Results as rows: a table at a terminal, JSON Lines in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from ..errors import printable

C = TypeVar("C", bound=Callable[..., Any])

Row = Mapping[str, object]


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


def echo_rows(rows: Sequence[Row], form: str | None, *, columns: Sequence[str] | None = None) -> None:
    """Print rows of equal keys; a table shows `columns`, JSON Lines everything."""
    if (form or ("table" if sys.stdout.isatty() else "jsonl")) == "jsonl":
        for row in rows:
            click.echo(json_line(row))
        return
    shown = list(columns or (rows[0] if rows else ()))
    cells = [shown, *([_cell(row[key]) for key in shown] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def echo_record(record: Row, form: str | None) -> None:
    """Print one record: a line per value in a table, one line of JSON elsewhere."""
    if (form or ("table" if sys.stdout.isatty() else "jsonl")) == "jsonl":
        click.echo(json_line(record))
        return
    width = max(map(len, record))
    for key, value in record.items():
        click.echo(f"{key:<{width}}  {_cell(value)}".rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_cell(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ("; " if value and isinstance(value[0], Mapping) else ", ").join(map(_cell, value))
    return printable(str(value))
