"""Tables for people: 80 columns wide, more where the terminal has more."""

from __future__ import annotations

import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence

WIDTH = 80
MORE = "..."


def table_width() -> int:
    """Return the columns there are: those of the terminal, 80 elsewhere."""
    try:
        return max(40, shutil.get_terminal_size((WIDTH, 24)).columns) if sys.stdout.isatty() else WIDTH
    except (AttributeError, ValueError):
        return WIDTH


def columns_of(text: str) -> int:
    """Return how many columns a text takes; Chinese letters take two, accents that stand alone none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def cut(text: str, width: int, *, end: bool = False) -> str:
    """Return a text of at most `width` columns: its beginning, or of a path its end, which says more."""
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
    """Return a text with spaces behind it."""
    return text + " " * (width - columns_of(text))


def wrapped(text: str, width: int, indent: int) -> str:
    """Return a text on lines of `width` columns, the first unindented; long words such as paths stay whole."""
    room = max(20, width - indent)
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return f"\n{' ' * indent}".join(lines)


def aligned(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield lines of cells in columns; what does not fit of the last column goes on below."""
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
