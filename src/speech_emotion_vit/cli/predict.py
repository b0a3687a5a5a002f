"""``speech-emotion-vit predict``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

import click

from ..errors import AudioError, ConfigError, printable
from ..model.config import TIMELINE_HOP
from ._channels import Piece, selection_options, split, titled
from ._clips import Clips
from ._inputs import listed, sources
from ._output import SUFFIXES, Done, Output, done, written
from ._ray import HERE, predict_on_cluster
from ._signals import Stopped
from ._streams import error_line, keep_inputs, standard_output
from ._tally import Tally
from ._timeline import Segments, files_of_segments, timeline_of, turns_of

if TYPE_CHECKING:
    from ..backends.load import BackendName
    from ..classifier import EmotionClassifier
    from ..prediction import Prediction
    from ..timeline import Timeline


@click.command("predict", short_help="Tell the emotion in audio files.")
@click.argument("clips", nargs=-1, metavar="CLIP...")
@click.option("--from", "lists", multiple=True, metavar="F", help="Read names, one a line, from F, or - for stdin.")
@click.option("--model", "-m", metavar="M", help="Model name, Hub repository, folder or file.  [default: bundled]")
@click.option("--revision", metavar="R", help="Branch, tag or commit of a Hub repository.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "jsonl", "json", "csv", "vtt"]),
    help="Output format; vtt are subtitles of a timeline.  [default: table at a terminal, by the suffix of --output, "
    "jsonl elsewhere]",
)
@click.option("--output", "-o", type=click.Path(), metavar="F", help="Write the results to this file, as they come.")
@click.option("--resume", is_flag=True, help="Go on where an earlier run left --output: keep its rows, do the rest.")
@click.option("--top-k", type=click.IntRange(min=1), metavar="K", help="Tell only the K most probable labels.")
@click.option(
    "--labels", metavar="A,B", help="Choose among these labels of the model only, two at least, joined by commas."
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Tell no label that is less probable.  [default: 0]",
)
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
@selection_options("mix", "split")
@click.option("--no-vad-filter", is_flag=True, help="Hear everything, and give every sound an emotion.")
@click.option("--timeline", is_flag=True, help="A row per window of 4 s instead of a row per clip.")
@click.option(
    "--segments",
    metavar="F",
    help="A row per segment of a diarisation or transcript: RTTM, SRT, WebVTT, CSV or Whisper's JSON, or a folder with "
    "one for each CLIP, by its name.",
)
@click.option(
    "--plot", metavar="P", help="Draw the timeline of one recording, too: .png, .svg or .pdf.  Needs the extra plot."
)
@click.option("--hop", type=float, metavar="S", help=f"Seconds between windows.  [default: {TIMELINE_HOP:g}]")
@click.option("--window", type=float, metavar="S", help="Seconds of a window, at most 4.  [default: 4]")
@click.option(
    "--ray",
    is_flag=False,
    flag_value=HERE,
    metavar="[ADDRESS]",
    help="Use the machines of a Ray cluster, the one that runs here or at ADDRESS, and write Parquet files to the "
    "folder --output.  CLIP may be Parquet, too, and comes before --ray.  Needs the extra ray.",
)
@click.option("--smoothing", type=float, metavar="S", help="Time constant of an average over windows.  [default: 0]")
def command(
    clips: tuple[str, ...],
    lists: tuple[str, ...],
    model: str | None,
    revision: str | None,
    form: str | None,
    output: str | None,
    resume: bool,
    top_k: int | None,
    labels: str | None,
    threshold: float | None,
    device: str,
    backend: BackendName,
    batch_size: int | None,
    channel: Any,
    track: int | None,
    no_vad_filter: bool,
    timeline: bool,
    segments: str | None,
    plot: str | None,
    hop: float | None,
    window: float | None,
    ray: str | None,
    smoothing: float | None,
) -> None:
    """Tell the emotion in audio files.

    CLIP is a file, a folder that is searched for audio, a pattern such as 'calls/**/*.wav' in quotes, or - for standard
    input. A file that fails is reported on stderr, the rest go on, and the exit status is 1. A long job may be stopped
    at any time: what is done is in --output, and --resume goes on.

    \b
    Examples:
      speech-emotion-vit predict clip.wav
      speech-emotion-vit predict recordings/ --output emotions.csv
      speech-emotion-vit predict recordings/ --output emotions.csv --resume
      speech-emotion-vit predict clip.wav --labels anger,neutral --threshold 0.7
      speech-emotion-vit predict call.flac --timeline --hop 0.5
      speech-emotion-vit predict call.flac --timeline --output call.vtt
      speech-emotion-vit predict call.wav --channel split
      speech-emotion-vit predict call.flac --segments call.rttm
      speech-emotion-vit predict call.flac --timeline --smoothing 5 --plot a.png
      find . -name '*.wav' | speech-emotion-vit predict --from - --format csv
      speech-emotion-vit predict recordings/ --output emotions/ --ray
      cat clip.ogg | speech-emotion-vit predict - --format jsonl
    """
    from tqdm import tqdm

    from ..audio.inputs import describe
    from ..classifier import EmotionClassifier
    from ..prediction import Choice

    if not clips and not lists:
        raise click.UsageError("Missing argument 'CLIP...': a file, a folder, - for standard input, or --from a list")
    if "-" in clips and "-" in lists:
        raise click.UsageError("standard input is a clip or a list of names, not both")
    given = {"hop": hop, "window": window, "smoothing": smoothing, "batch_size": batch_size}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    chosen: dict[str, Any] = {} if threshold is None else {"threshold": threshold}
    if labels is not None:
        chosen["labels"] = [label.strip() for label in labels.split(",")]
    if segments is not None and (misplaced := sorted(set(options) - {"batch_size"})):
        raise click.UsageError(f"--{misplaced[0]} is for windows, not for --segments")
    timeline = timeline or segments is not None
    if plot is not None and not timeline:
        raise click.UsageError("--plot goes with --timeline or --segments")
    if not timeline and (misplaced := sorted(set(options) - {"batch_size"})):
        raise click.UsageError(f"--{misplaced[0]} goes with --timeline")
    if resume and output is None:
        raise click.UsageError("--resume goes with --output, the file of the run to go on with")
    if ray is not None:
        others = {"--format": form, "--top-k": top_k, "--timeline or --segments": timeline or None}
        others["--channel split"] = channel if channel == "split" else None
        if misplaced := [name for name, value in others.items() if value is not None]:
            raise click.UsageError(f"{misplaced[0]} does not go with --ray")
        chosen.update(options, channel=channel, track=track)
        told_of = {"model": model, "revision": revision, "device": device, "backend": backend}
        names = [*clips, *(name for each in lists for name in listed(each))]
        predict_on_cluster(ray, names, output, resume, {**told_of, "vad_filter": not no_vad_filter}, chosen)
        return
    if output is not None and os.path.isdir(output):
        raise click.BadParameter(f"File {printable(output)!r} is a directory.", param_hint="'--output' / '-o'")
    shown = output is None and sys.stdout.isatty()
    by_name = None if output is None else SUFFIXES.get(os.path.splitext(output)[1].lower())
    form = form or by_name or ("table" if shown else "jsonl")
    if form == "vtt" and not timeline:
        raise click.UsageError("--format vtt goes with --timeline")

    classifier = EmotionClassifier(
        model, device=device, revision=revision, backend=backend, vad_filter=not no_vad_filter
    )
    files = list(sources([*clips, *(name for each in lists for name in listed(each))]))
    read: list[str | int] = [0 if name == "-" else name for name, _ in files]
    read += [] if segments is None else files_of_segments(segments, files)
    for written_to in (output, plot):
        keep_inputs(written_to, read, model, revision)
    found = [piece for name, source in files for piece in split(name, source, channel, track)]
    if (form == "vtt" or plot is not None) and len(found) > 1:
        what = "subtitles are" if form == "vtt" else "a picture is"
        raise click.UsageError(f"{what} of one recording, not of {len(found)}: call once for each")
    if segments is not None and len(files) > 1 and not os.path.isdir(segments):
        raise click.UsageError("--segments is of one recording: pass a folder with a file for each")
    if form == "table" or (form == "csv" and shown):  # a terminal obeys what JSON escapes
        found = [piece._replace(name=describe(piece.name)) for piece in found]
    told = Choice(classifier.labels, **{"labels": None, "threshold": 0.0, **chosen}).labels
    options.update(chosen)
    rows: Clips | Segments = (
        Segments(form, told, top_k, channels=channel != "mix", given=segments is not None)
        if timeline
        else Clips(form, told, [titled(*piece[::2]) for piece in found], top_k, channels=channel != "mix")
    )
    before = Done()
    if resume and output is not None:
        before = done(output, form, rows.header, timeline=timeline)
        if before.model not in (None, classifier.name):
            raise ConfigError(
                f"{printable(output)}: --resume found answers of {printable(before.model)}, not of {classifier.name}: "
                "choose another output, or that --model"
            )
    todo = [piece for piece in found if (written(piece.name, form), str(piece.channel)) not in before.pieces]
    tally = Tally(len(found), before=len(found) - len(todo))
    with ExitStack() as stack:
        place = output if output is not None else stack.enter_context(standard_output())
        sink = stack.enter_context(Output(place, form, rows.header, kept=before.kept))
        hidden = timeline or len(todo) < 2 or not sys.stderr.isatty()  # a timeline has a bar of its own
        bar = stack.enter_context(
            tqdm(total=len(found), initial=tally.before, unit="file", leave=False, disable=hidden)
        )
        try:
            results = (
                _timelines(classifier, todo, track, options, segments)
                if timeline
                else _predictions(classifier, todo, track, options)
            )
            for piece, result in results:
                bar.clear()
                if isinstance(result, AudioError):
                    click.echo(f"Error: {error_line(result)}", err=True)
                else:
                    if plot is not None:
                        result.plot(plot)  # type: ignore[union-attr]  # a timeline, as said above
                    sink.add(rows.lines(piece.name, cast(Any, result), piece.channel))  # each has its own results
                tally.add(piece.name, result)
                bar.update()
        except (KeyboardInterrupt, Stopped) as stopped:
            stopped.args = (tally.interrupted(output, form),)
            raise
    for line in tally.closing(classifier.config.frontend, job=output is not None or sys.stderr.isatty()):
        click.echo(line, err=True)
    if tally.failed:
        raise SystemExit(1)


def _predictions(
    classifier: EmotionClassifier, todo: list[Piece], track: int | None, options: dict[str, Any]
) -> Iterator[tuple[Piece, Prediction | AudioError]]:
    predictions = {
        channel: classifier.iter_predictions(
            [piece.source for piece in todo if piece.channel == channel and not isinstance(piece.source, AudioError)],
            channel=channel,
            track=track,
            errors="return",
            **options,
        )
        for channel in {piece.channel for piece in todo}
    }
    for piece in todo:
        yield piece, piece.source if isinstance(piece.source, AudioError) else next(predictions[piece.channel])


def _timelines(
    classifier: EmotionClassifier, todo: list[Piece], track: int | None, options: dict[str, Any], segments: str | None
) -> Iterator[tuple[Piece, Timeline | AudioError]]:
    for number, piece in enumerate(todo, 1):
        counted = f"{number}/{len(todo)} " if len(todo) > 1 else ""
        selected = {"channel": piece.channel, "track": track, **options}
        try:
            if isinstance(piece.source, AudioError):
                raise piece.source
            if segments is not None:
                selected["segments"] = turns_of(segments, piece.name)
            result: Timeline | AudioError = timeline_of(classifier, piece.name, piece.source, counted, **selected)
        except AudioError as error:
            result = error
        yield piece, result
