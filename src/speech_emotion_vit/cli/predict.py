"""``speech-emotion-vit predict``."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..audio import AudioInput
    from ..errors import AudioError
    from ..prediction import Prediction


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
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Windows of 4 s that go through the network at once.",
)
def command(
    clips: tuple[str, ...],
    model: str | None,
    revision: str | None,
    form: str | None,
    output: str | None,
    device: str,
    batch_size: int,
) -> None:
    """Tell the emotion in audio files.

    CLIP is a file, a folder that is searched for audio, or - for standard input. A file that fails is reported on
    stderr, the rest go on, and the exit status is 1.

    \b
    Examples:
      speech-emotion-vit predict clip.wav
      speech-emotion-vit predict recordings/ --format csv --output emotions.csv
      cat clip.ogg | speech-emotion-vit predict - --format jsonl
    """
    from tqdm import tqdm

    from ..audio import describe
    from ..classifier import EmotionClassifier
    from ..errors import AudioError
    from ..files import whole_file

    form = form or ("table" if output is None and sys.stdout.isatty() else "jsonl")
    classifier = EmotionClassifier(model, device=device, revision=revision)
    sources = [source for clip in clips for source in _sources(clip)]
    names = [describe(name) for name, _ in sources]
    width = max(map(len, names))
    failures = 0

    with ExitStack() as stack:
        stream: IO[str] = sys.stdout
        if output is not None:
            stream = stack.enter_context(open(stack.enter_context(whole_file(output)), "w", encoding="utf-8"))
        progress = tqdm(total=len(sources), unit="clip", disable=len(sources) < 2 or not sys.stderr.isatty())
        stack.callback(progress.close)
        stream.write(_header(form, width, classifier.labels))
        results = classifier.iter_predictions(_readable(sources), batch_size=batch_size, errors="return")
        for name, (_, source) in zip(names, sources, strict=True):
            result = source if isinstance(source, AudioError) else next(results)
            progress.clear()
            if isinstance(result, AudioError):
                failures += 1
                click.echo(f"Error: {result}", err=True)
            else:
                stream.write(_row(form, width, name, result))
                stream.flush()
            progress.update()
    if failures:
        click.echo(f"{failures} of {len(sources)} could not be read", err=True)
        raise SystemExit(1)


def _sources(clip: str) -> Iterator[tuple[str, AudioInput | AudioError]]:
    """Yield name and source of every piece of audio behind one argument; an AudioError stands for what has none."""
    from ..audio import AUDIO_SUFFIXES, describe
    from ..errors import AudioError

    if clip == "-":
        yield "-", sys.stdin.buffer.read()
        return
    if not os.path.isdir(clip):
        yield clip, clip
        return
    found = False
    for folder, folders, files in os.walk(clip):
        folders.sort()
        for file in sorted(files):
            if os.path.splitext(file)[1].lower() in AUDIO_SUFFIXES:
                found = True
                path = os.path.join(folder, file)
                yield path, path
    if not found:
        known = " ".join(sorted(AUDIO_SUFFIXES & {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".m4a"}))
        yield clip, AudioError(f"{describe(clip)}: no audio in this folder: looked for {known} and the like")


def _readable(sources: list[tuple[str, AudioInput | AudioError]]) -> Iterator[AudioInput]:
    from ..errors import AudioError

    return (source for _, source in sources if not isinstance(source, AudioError))


def _header(form: str, width: int, labels: tuple[str, ...]) -> str:
    if form == "table":
        return f"{'clip':<{width}}  {'emotion':<9}  {'score':>5}  {'next':<15}  {'length':>9}  notes\n"
    if form == "csv":
        return _csv(["file", "label", "score", *labels, "duration", "model", "warnings"])
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
        return _csv([name, prediction.label, prediction.score, *values, "; ".join(prediction.warnings)])
    return json.dumps({"file": name, **prediction.to_dict()}, ensure_ascii=False) + "\n"


def _csv(values: list[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
