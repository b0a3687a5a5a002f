"""``predict --timeline``: a row per segment instead of a row per clip."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from ..prediction import timeline_header

if TYPE_CHECKING:
    from ..audio import AudioInput
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
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
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

    from ..audio import describe

    with tqdm(
        total=_announced(audio),
        unit="s",
        desc=describe(name),
        leave=False,
        disable=not sys.stderr.isatty(),
        bar_format="{desc}: {n:.0f} of {total:.0f} s |{bar}| {elapsed} < {remaining}" if _announced(audio) else None,
    ) as bar:

        def progress(seconds: float) -> None:
            bar.update(seconds - bar.n)

        timeline = classifier.timeline(audio, progress=progress, **options)
    for warning in timeline.warnings:
        click.echo(f"Warning: {describe(name)}: {warning}", err=True)
    return dataclasses.replace(timeline, file=name)


def _announced(audio: AudioInput) -> float | None:
    """Return the length in seconds that a file says it has, for the progress bar alone."""
    import soundfile

    try:
        return float(soundfile.info(audio).duration) if isinstance(audio, str) and os.path.isfile(audio) else None
    except (soundfile.SoundFileError, TypeError, ValueError):
        return None


def _clock(seconds: float) -> str:
    tenths = round(seconds * 10)
    return f"{tenths // 36_000:02}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"
