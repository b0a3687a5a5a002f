"""``predict --timeline``: a row per segment instead of a row per clip."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING, Any

import click

from ..prediction import timeline_header
from ._rows import json_line

if TYPE_CHECKING:
    from ..audio.reader import AudioInput
    from ..classifier import EmotionClassifier
    from ..prediction import Timeline


def header(form: str, width: int, labels: tuple[str, ...]) -> str:
    """Return what stands above the rows."""
    if form == "table":
        return f"{'clip':<{width}}  {'start':>10}  {'end':>10}  {'emotion':<9}  {'score':>5}  next\n"
    return timeline_header(labels) if form == "csv" else ""


def rows(form: str, width: int, timeline: Timeline) -> str:
    """Return one line per segment."""
    if form == "csv":
        return timeline.to_csv(header=False)
    if form == "jsonl":
        lines = [{"file": timeline.file, **segment.to_dict(), "model": timeline.model} for segment in timeline]
        return "".join(f"{json_line(line)}\n" for line in lines)
    text = ""
    for segment in timeline:
        (label, score), (second, less) = [*segment.top(2), ("", 0.0)][:2]
        answer = "(silence)" if segment.silent else f"{label:<9}  {score:>5.2f}  {second} {less if second else 0:.2f}"
        text += f"{timeline.file:<{width}}  {_clock(segment.start)}  {_clock(segment.end)}  {answer}".rstrip() + "\n"
    return text


def run(classifier: EmotionClassifier, name: str, audio: AudioInput, **options: Any) -> Timeline:
    """Return the timeline of one clip, with a progress bar at a terminal and its warnings on stderr.

    Raises:
        AudioError: nothing of it can be read.
        ConfigError: an option is out of range.
    """
    from tqdm import tqdm

    from ..audio.decode import announced_seconds
    from ..audio.reader import describe

    shown = sys.stderr.isatty()
    total = announced_seconds(audio) if shown and isinstance(audio, str) else None
    with tqdm(
        total=total,
        unit="s",
        desc=describe(name),
        leave=False,
        disable=not shown,
        bar_format="{desc}: {n:.0f} of {total:.0f} s |{bar}| {elapsed} < {remaining}" if total else None,
    ) as bar:

        def progress(seconds: float) -> None:
            bar.update(seconds - bar.n)

        timeline = classifier.timeline(audio, progress=progress, **options)
    for warning in timeline.warnings:
        click.echo(f"Warning: {describe(name)}: {warning}", err=True)
    return dataclasses.replace(timeline, file=name)


def _clock(seconds: float) -> str:
    tenths = round(seconds * 10)
    return f"{tenths // 36_000:02}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"
