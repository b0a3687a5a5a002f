"""``speech-emotion-vit predict``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from ..model.config import TIMELINE_HOP
from ..prediction import csv_lines
from . import _timeline
from ._rows import json_line
from ._streams import error_line, keep_inputs, results, standard_input

if TYPE_CHECKING:
    from ..audio.reader import AudioInput
    from ..backends.load import BackendName
    from ..classifier import EmotionClassifier
    from ..errors import AudioError
    from ..prediction import Prediction, Timeline


@click.command("predict", short_help="Tell the emotion in audio files.")
@click.argument("clips", nargs=-1, required=True, metavar="CLIP...")
@click.option("--model", "-m", metavar="M", help="Model name, Hub repository, folder or file.  [default: bundled]")
@click.option("--revision", metavar="R", help="Branch, tag or commit of a Hub repository.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "jsonl", "csv"]),
    help="Output format.  [default: table at a terminal, jsonl elsewhere]",
)
@click.option("--output", "-o", type=click.Path(dir_okay=False), metavar="F", help="Write the results to this file.")
@click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, cuda:1, ...")
@click.option(
    "--backend",
    type=click.Choice(["auto", "torch", "onnx"]),
    default="auto",
    show_default=True,
    help="What runs the network: torch, ONNX Runtime on the CPU, or torch where it is installed (auto).",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Windows of 4 s that go through the network at once.  [default: 64; 16 with --timeline]",
)
@click.option("--timeline", is_flag=True, help="A row per window of 4 s instead of a row per clip.")
@click.option("--hop", type=float, metavar="S", help=f"Seconds between windows.  [default: {TIMELINE_HOP:g}]")
@click.option("--window", type=float, metavar="S", help="Seconds of a window, at most 4.  [default: 4]")
@click.option("--smoothing", type=float, metavar="S", help="Time constant of an average over windows.  [default: 0]")
def command(
    clips: tuple[str, ...],
    model: str | None,
    revision: str | None,
    form: str | None,
    output: str | None,
    device: str,
    backend: BackendName,
    batch_size: int | None,
    timeline: bool,
    hop: float | None,
    window: float | None,
    smoothing: float | None,
) -> None:
    """Tell the emotion in audio files.

    CLIP is a file, a folder that is searched for audio, or - for standard input. A file that fails is reported on
    stderr, the rest go on, and the exit status is 1.

    \b
    Examples:
      speech-emotion-vit predict clip.wav
      speech-emotion-vit predict recordings/ --format csv --output emotions.csv
      speech-emotion-vit predict call.flac --timeline --hop 0.5
      cat clip.ogg | speech-emotion-vit predict - --format jsonl
    """
    from tqdm import tqdm

    from ..audio.reader import describe
    from ..classifier import EmotionClassifier
    from ..errors import AudioError
    from ..prediction import Prediction

    given = {"hop": hop, "window": window, "smoothing": smoothing, "batch_size": batch_size}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not timeline and (misplaced := sorted(set(options) - {"batch_size"})):
        raise click.UsageError(f"--{misplaced[0]} goes with --timeline")
    shown = output is None and sys.stdout.isatty()
    form = form or ("table" if shown else "jsonl")
    classifier = EmotionClassifier(model, device=device, revision=revision, backend=backend)
    sources = [source for clip in clips for source in _sources(clip)]
    keep_inputs(output, [0 if name == "-" else name for name, _ in sources], model, revision)
    escaped = form == "table" or (form == "csv" and shown)  # JSON has its own way
    names = [describe(name) if escaped else name for name, _ in sources]
    width = max(map(len, names))
    failures = 0

    with ExitStack() as stack:
        stream = stack.enter_context(results(output))
        quiet = timeline or len(sources) < 2 or not sys.stderr.isatty()  # a timeline has a bar of its own
        progress = tqdm(total=len(sources), unit="clip", disable=quiet)
        stack.callback(progress.close)
        stream.write((_timeline.header if timeline else _header)(form, width, classifier.labels))
        predictions = (
            iter(()) if timeline else classifier.iter_predictions(_readable(sources), errors="return", **options)
        )
        for name, (_, source) in zip(names, sources, strict=True):
            result: Prediction | Timeline | AudioError
            if isinstance(source, AudioError):
                result = source
            elif timeline:
                result = _timeline_or_error(classifier, name, source, options)
            else:
                result = next(predictions)
            progress.clear()
            if isinstance(result, AudioError):
                failures += 1
                click.echo(f"Error: {error_line(result)}", err=True)
            else:
                if isinstance(result, Prediction):
                    stream.write(_row(form, width, name, result))
                else:
                    stream.write(_timeline.rows(form, width, result))
                stream.flush()
            progress.update()
    if failures:
        click.echo(f"{failures} of {len(sources)} could not be read", err=True)
        raise SystemExit(1)


def _timeline_or_error(
    classifier: EmotionClassifier, name: str, audio: AudioInput, options: dict[str, Any]
) -> Timeline | AudioError:
    from ..errors import AudioError

    try:
        return _timeline.run(classifier, name, audio, **options)
    except AudioError as error:
        return error


def _sources(clip: str) -> Iterator[tuple[str, AudioInput | AudioError]]:
    """Yield name and source of every piece of audio behind one argument; an AudioError stands for what has none."""
    from ..audio.reader import AUDIO_SUFFIXES, describe
    from ..errors import AudioError, one_line
    from ..files import find_files

    if clip == "-":
        try:
            yield "-", standard_input()
        except AudioError as fault:
            yield "-", fault
        return
    if not os.path.isdir(clip):
        yield clip, clip
        return
    found, closed = find_files(clip, AUDIO_SUFFIXES)
    yield from ((path, path) for path in found)
    for error in closed:
        yield error.filename, AudioError(f"{describe(error.filename)}: cannot be searched: {one_line(error)}")
    if not found and not closed:
        known = " ".join(sorted(AUDIO_SUFFIXES & {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".m4a"}))
        yield clip, AudioError(f"{describe(clip)}: no audio in this folder: looked for {known} and the like")


def _readable(sources: list[tuple[str, AudioInput | AudioError]]) -> Iterator[AudioInput]:
    from ..errors import AudioError

    return (source for _, source in sources if not isinstance(source, AudioError))


def _header(form: str, width: int, labels: tuple[str, ...]) -> str:
    if form == "table":
        return f"{'clip':<{width}}  {'emotion':<9}  {'score':>5}  {'next':<15}  {'length':>9}  notes\n"
    if form == "csv":
        return csv_lines([["file", "label", "score", *labels, "duration", "model", "warnings"]])
    return ""


def _row(form: str, width: int, name: str, prediction: Prediction) -> str:
    if form == "table":
        (label, score), (second, less) = [*prediction.top(2), ("", 0.0)][:2]
        following = f"{second} {less:.2f}" if second else ""
        notes = "; ".join(prediction.warnings)
        line = f"{name:<{width}}  {label:<9}  {score:>5.2f}  {following:<15}  {prediction.duration:>7.2f} s  {notes}"
        return line.rstrip() + "\n"
    if form == "csv":
        values = [*prediction.probabilities.values(), prediction.duration, prediction.model]
        return csv_lines([[name, prediction.label, prediction.score, *values, "; ".join(prediction.warnings)]])
    return json_line({"file": name, **prediction.to_dict()}) + "\n"
