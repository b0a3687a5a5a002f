"""Pictures of timelines, and what all pictures share: a colour per emotion, the axis of time, titles, files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, printable
from .extras import require
from .files import whole_file
from .prediction import Segment

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
CURVE_POINTS = 150  # of a curve at most; more are averaged
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
# Seconds between marks of a time axis.
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)


def colours(labels: Iterable[str]) -> dict[str, str]:
    """Return a colour for every label: the one of its emotion, or the next free one."""
    others = 0
    found = {}
    for label in labels:
        name = label.strip().lower()
        known = COLOURS.get(_SAME.get(name, name))
        found[label] = known or _OTHERS[others % len(_OTHERS)]
        others += known is None
    return found


def title(file: str, model: str) -> str:
    """Return the title of a picture: the name of the file and of the model, without its revision."""
    name = os.path.basename(file) or file
    return f"{name if len(name) <= 60 else f'...{name[-57:]}'}, {model.partition('@')[0]}"


def minutes(seconds: float, _: object = None) -> str:
    """Return ``1:02``, or ``0:02.5`` if there is a fraction."""
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
    """Draw a dollar sign as it is, not as the start of a formula."""
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


def draw_speakers(segments: Sequence[Segment], names: Sequence[str | None], end: float, above: str) -> Figure:
    """Return a figure with a row for each of the speakers `names`, and the label of every segment in it."""
    figure: Figure = require("matplotlib.figure", "plot").Figure(
        figsize=(12, 1.6 + 0.5 * len(names)), layout="constrained"
    )
    axes = figure.subplots()
    tints = colours(segments[0].probabilities)
    rows = {name: row for row, name in enumerate(names)}
    for segment in segments:
        colour = NOBODY if segment.label is None else tints[segment.label]
        axes.broken_barh(
            [(segment.start, segment.end - segment.start)], (rows[segment.speaker] - 0.4, 0.8), color=colour
        )
    axes.set_yticks(range(len(names)), [(name or "-")[:30] for name in names])
    plain(axes.get_yticklabels())
    axes.invert_yaxis()
    _add_legend(axes, tints, unsure=bool(segments[0].threshold))
    time_axis(axes, 0.0, end)
    figure.suptitle(above, fontsize="medium", parse_math=False)
    return figure


def draw_probabilities(
    segments: Sequence[Segment], stretches: Sequence[tuple[float, float, str | None]], end: float, above: str
) -> Figure:
    """Return a figure of every probability over time, above the label of every stretch `(start, end, label)`."""
    figure: Figure = require("matplotlib.figure", "plot").Figure(figsize=(12, 5), layout="constrained")
    top, strip = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
    tints = colours(segments[0].probabilities)
    step = -(-len(segments) // CURVE_POINTS)
    groups = [segments[first : first + step] for first in range(0, len(segments), step)]
    middles = [sum(s.start + s.end for s in group) / (2 * len(group)) for group in groups]
    spoken = [[segment for segment in group if segment.speech] for group in groups]
    rows = [[sum(s.probabilities[label] for s in g) / len(g) if g else float("nan") for g in spoken] for label in tints]
    if step > 1:  # the curves of an hour would cross each other everywhere
        top.stackplot(middles, rows, colors=list(tints.values()), linewidth=0)
    else:
        marker = "o" if len(middles) < 40 else ""
        for (label, colour), values in zip(tints.items(), rows, strict=True):
            top.plot(middles, values, color=colour, label=label, marker=marker, markersize=3, linewidth=1.5)
    top.set(ylim=(0, 1), ylabel="probability")
    top.grid(alpha=0.3)
    for start, stop, winner in stretches:
        strip.axvspan(start, stop, color=NOBODY if winner is None else tints[winner], linewidth=0)
        if winner is None:
            top.axvspan(start, stop, color=NOBODY, linewidth=0, zorder=0)
    strip.set_yticks([])
    _add_legend(top, tints, unsure=bool(segments[0].threshold))
    time_axis(strip, 0.0, end)
    figure.suptitle(above, fontsize="medium", parse_math=False)
    return figure


def _add_legend(axes: Axes, tints: dict[str, str], *, unsure: bool) -> None:
    patch = require("matplotlib.patches", "plot").Patch
    handles = [patch(color=colour, label=label) for label, colour in tints.items()]
    grey = f"nobody speaks{', or unsure' * unsure}"
    handles.append(patch(facecolor=NOBODY, edgecolor="0.7", label=grey))
    plain(axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=False).get_texts())
