"""The pictures: a timeline and an explanation, in the same colours and on the same axis of time."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, printable
from .extras import require
from .files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .explain import Explanation
    from .timeline import Timeline

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
IMAGE_RANGE = 80.0  # dB from the darkest to the brightest
MEL_TICKS = (250, 500, 1000, 2000, 4000, 8000)  # Hz
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


def draw_timeline(timeline: Timeline) -> Figure:
    """Return the figure of `Timeline.plot`."""
    figures = require("matplotlib.figure", "plot")
    tints = colours(timeline.segments[0].probabilities)
    end = max(timeline.duration, *(segment.end for segment in timeline.segments))
    figure: Figure
    if timeline.given:
        names = [speaker.speaker for speaker in timeline.speakers()]
        figure = figures.Figure(figsize=(12, 1.6 + 0.5 * len(names)), layout="constrained")
        strip = figure.subplots()
        rows = {name: row for row, name in enumerate(names)}
        for segment in timeline.segments:
            colour = NOBODY if segment.label is None else tints[segment.label]
            strip.broken_barh(
                [(segment.start, segment.end - segment.start)], (rows[segment.speaker] - 0.4, 0.8), color=colour
            )
        strip.set_yticks(range(len(names)), [(name or "-")[:30] for name in names])
        plain(strip.get_yticklabels())
        strip.invert_yaxis()
        top = strip
    else:
        figure = figures.Figure(figsize=(12, 5), layout="constrained")
        top, strip = figure.subplots(2, 1, sharex=True, height_ratios=[5, 1])
        _draw_probabilities(top, timeline, tints)
        for stretch in timeline.stretches():
            colour = NOBODY if stretch.label is None else tints[stretch.label]
            strip.axvspan(stretch.start, stretch.end, color=colour, linewidth=0)
            if stretch.label is None:
                top.axvspan(stretch.start, stretch.end, color=NOBODY, linewidth=0, zorder=0)
        strip.set_yticks([])
    patch = require("matplotlib.patches", "plot").Patch
    handles = [patch(color=colour, label=label) for label, colour in tints.items()]
    unsure = ", or unsure" if timeline.segments[0].threshold else ""
    handles.append(patch(facecolor=NOBODY, edgecolor="0.7", label=f"nobody speaks{unsure}"))
    plain(top.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=False).get_texts())
    time_axis(strip, 0.0, end)
    figure.suptitle(title(timeline.file, timeline.model), fontsize="medium", parse_math=False)
    return figure


def _draw_probabilities(axes: Axes, timeline: Timeline, tints: dict[str, str]) -> None:
    step = -(-len(timeline.segments) // CURVE_POINTS)
    groups = [timeline.segments[first : first + step] for first in range(0, len(timeline.segments), step)]
    middles = [sum(s.start + s.end for s in group) / (2 * len(group)) for group in groups]
    spoken = [[segment for segment in group if segment.speech] for group in groups]
    rows = [[sum(s.probabilities[label] for s in g) / len(g) if g else float("nan") for g in spoken] for label in tints]
    if step > 1:  # curves of an hour cross each other everywhere
        axes.stackplot(middles, rows, colors=list(tints.values()), linewidth=0)
    else:
        for (label, colour), values in zip(tints.items(), rows, strict=True):
            marker = "o" if len(values) < 40 else ""
            axes.plot(middles, values, color=colour, label=label, marker=marker, markersize=3, linewidth=1.5)
    axes.set(ylim=(0, 1), ylabel="probability")
    axes.grid(alpha=0.3)


def draw_explanation(explanation: Explanation) -> Figure:
    """Return the figure of `Explanation.plot`."""
    import numpy as np

    figure: Figure = require("matplotlib.figure", "plot").Figure(figsize=(10, 6), layout="constrained")
    wave, image, attention = figure.subplots(3, 1, sharex=True, height_ratios=[2, 4, 2])
    times, bands = explanation.times, explanation.frequencies
    step = times[1] - times[0] if len(times) > 1 else explanation.end - explanation.start
    moments = explanation.start + np.arange(len(explanation.waveform)) / explanation.sampling_rate
    wave.plot(moments, explanation.waveform, color="0.3", linewidth=0.5)
    limit = 1.05 * max(float(np.abs(explanation.waveform).max()), 1e-6)
    wave.set(ylabel="waveform", ylim=(-limit, limit))

    extent = (times[0] - step / 2, times[-1] + step / 2, -0.5, len(bands) - 0.5)
    decibels = IMAGE_RANGE * (explanation.spectrogram - 1)
    seen = image.imshow(decibels, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-IMAGE_RANGE, vmax=0)
    figure.colorbar(seen, ax=image, pad=0.01, label="dB below the loudest")
    ticks = [tick for tick in MEL_TICKS if bands[0] <= tick <= bands[-1]]
    image.set_yticks(np.interp(ticks, bands, np.arange(len(bands))), [f"{t:g}" for t in ticks])
    image.set(ylabel="Mel band, Hz")

    covered = explanation.covered
    # In units of even attention over all columns, so that pictures of different clips can be compared.
    level = explanation.attention * len(explanation.attention)
    edges = np.append(times[covered] - step / 2, times[covered][-1] + step / 2)
    attention.stairs(level[covered], edges, fill=True, color="C1", alpha=0.8)
    attention.axhline(1, color="0.5", linewidth=0.8, linestyle="--")
    attention.set_ylabel("attention\n(1 = even)")
    time_axis(attention, explanation.start, explanation.end)
    attention.set_ylim(0, max(1.5, 1.1 * float(level[covered].max())))
    ranking = ", ".join(f"{label} {probability:.0%}" for label, probability in explanation.prediction.top(3))
    where = f"{minutes(explanation.start)} to {minutes(explanation.end)}"
    above = f"{ranking or 'nobody speaks'}\n{title(explanation.file, explanation.prediction.model)}, {where}"
    figure.suptitle(above, fontsize="medium", parse_math=False)
    return figure
