"""``predict``: the answers for pieces of audio, one after the other."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..errors import AudioError, ConfigError
from ._inputs import Piece
from ._tables import cut

if TYPE_CHECKING:
    from ..classifier import EmotionClassifier
    from ..prediction import Prediction
    from ..timeline import Timeline


def predictions(
    classifier: EmotionClassifier, pieces: list[Piece], track: int | None, options: dict[str, Any]
) -> Iterator[tuple[Piece, Prediction | AudioError]]:
    """Yield every piece with its prediction, or with the error of what cannot be read; `options` go to the model."""
    results = {
        channel: classifier.iter_predictions(
            [piece.source for piece in pieces if piece.channel == channel and not isinstance(piece.source, AudioError)],
            channel=channel,
            track=track,
            errors="return",
            **options,
        )
        for channel in {piece.channel for piece in pieces}
    }
    for piece in pieces:
        yield piece, piece.source if isinstance(piece.source, AudioError) else next(results[piece.channel])


def timelines(
    classifier: EmotionClassifier, pieces: list[Piece], track: int | None, options: dict[str, Any], segments: str | None
) -> Iterator[tuple[Piece, Timeline | AudioError]]:
    """Yield every piece with its timeline, as `predictions` does; `segments` is a file or a folder of segments."""
    from ..segments import find_segments, read_segments

    for number, piece in enumerate(pieces, 1):
        result: Timeline | AudioError
        selected = {"channel": piece.channel, "track": track, **options}
        try:
            if isinstance(piece.source, AudioError):
                raise piece.source
            if segments is not None:
                try:
                    selected["segments"] = read_segments(find_segments(segments, piece.name), piece.name)
                except ConfigError as error:  # the other recordings may have theirs
                    raise AudioError(str(error)) from error
            counted = f"{number}/{len(pieces)} " if len(pieces) > 1 else ""
            result = _timeline(classifier, piece, counted, selected)
        except AudioError as error:
            result = error
        yield piece, result


def _timeline(classifier: EmotionClassifier, piece: Piece, counted: str, options: dict[str, Any]) -> Timeline:
    """Return the timeline of one piece, with a progress bar at a terminal and its warnings on standard error."""
    from tqdm import tqdm

    from ..audio.decode import announced_seconds
    from ..audio.inputs import describe

    assert not isinstance(piece.source, AudioError)
    at_terminal = sys.stderr.isatty()
    total = announced_seconds(piece.source) if at_terminal and isinstance(piece.source, str) else None
    with tqdm(
        total=total,
        unit="s",
        desc=f"{counted}{cut(describe(piece.name), 30, end=True)}",
        leave=False,
        disable=not at_terminal,
        bar_format="{desc}: {n:.0f} of {total:.0f} s |{bar}| {elapsed} < {remaining}" if total else None,
    ) as bar:
        timeline = classifier.timeline(piece.source, progress=lambda seconds: bar.update(seconds - bar.n), **options)
    for warning in timeline.warnings:
        click.echo(f"Warning: {describe(piece.name)}: {warning}", err=True)
    return timeline


def segment_files(place: str, names: list[str]) -> list[str]:
    """Return the files of segments that will be read for recordings of these names."""
    from ..segments import find_segments

    found = []
    for name in names:
        with contextlib.suppress(ConfigError):  # `timelines` reports what is missing
            found.append(find_segments(place, name))
    return found
