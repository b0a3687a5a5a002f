"""What all pictures share: one colour per emotion, minutes and seconds, titles, and files that appear whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, printable
from .files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Found by a random search within each hue for the largest least distance (CIE 1976) of any two, as they are and as seen
# without red or green cones (Machado et al. 2009): 34.
COLOURS = {
    "anger": "#a61022",
    "disgust": "#67d977",
    "fear": "#54165a",
    "happiness": "#fcdb03",
    "neutral": "#7e7e82",
    "sadness": "#0459ce",
    "surprise": "#f14900",
    "boredom": "#64c7fa",
    "calm": "#c1e3d9",
}
NOBODY = "#f0f0f0"
_SAME = {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "happy": "happiness",
    "joy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
    "bored": "boredom",
}
_OTHERS = ("#8c564b", "#e377c2", "#17becf", "#bcbd22", "#393b79", "#ad494a", "#637939", "#843c39", "#7b4173", "#5254a3")
_STEPS = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    14400,
    43200,
)  # seconds between marks


def colours(labels: Iterable[str]) -> dict[str, str]:
    """Return the colour of every label: that of its emotion, or the next of those left for others."""
    others = 0
    found = {}
    for label in labels:
        name = label.strip().lower()
        known = COLOURS.get(_SAME.get(name, name))
        found[label] = known or _OTHERS[others % len(_OTHERS)]
        others += known is None
    return found


def title(file: str, model: str) -> str:
    """Return what stands above a picture: the file's name and the model's, without its revision."""
    name = os.path.basename(file) or file
    return f"{name if len(name) <= 60 else f'...{name[-57:]}'}, {model.partition('@')[0]}"


def minutes(seconds: float, _: object = None) -> str:
    """Return ``1:02``, or ``0:02.5`` where there are parts of a second."""
    tenths = round(seconds * 10)
    whole, rest = divmod(abs(tenths), 600)
    text = f"{rest // 10:02}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{'-' * (tenths < 0)}{f'{whole // 60}:{whole % 60:02}' if whole >= 60 else whole}:{text}"


def time_axis(axes: Axes, start: float, end: float) -> None:
    """Mark seconds from `start` to `end` as minutes and seconds, 12 times at most."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    span = max(end - start, 1e-3)
    step = next((step for step in _STEPS if span / step <= 12), 86400)
    axes.set_xlim(start, start + span)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(minutes))
    axes.set_xlabel("minutes:seconds" if end < 3600 else "hours:minutes:seconds")


def plain(texts: Iterable[Any]) -> None:
    """Draw a dollar in a label as a dollar."""
    for text in texts:
        text.set_parse_math(False)


def save_picture(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a picture to a file, whole or not at all: PNG, SVG or PDF by its suffix.

    Raises:
        ConfigError: the suffix is unknown, or nothing can be written there.
    """
    suffix = os.path.splitext(os.fspath(path))[1].lower().lstrip(".")
    if suffix not in ("png", "svg", "pdf"):
        raise ConfigError(f"{printable(os.fspath(path))}: a picture is .png, .svg or .pdf")
    with whole_file(path) as temporary:
        figure.savefig(temporary, format=suffix, dpi=150)
