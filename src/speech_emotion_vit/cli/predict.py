"""``speech-emotion-vit predict``."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from ..errors import AudioError, ConfigError, printable
from ..model.config import TIMELINE_HOP
from ._answers import predictions, segment_files, timelines
from ._inputs import listed, sources, split
from ._options import device_option, model_option, revision_option, selection_options
from ._output import SUFFIXES, Done, Output, done, written
from ._ray import HERE, predict_on_cluster
from ._results import Clips, Segments, titled
from ._signals import Stopped
from ._streams import error_line, keep_inputs, standard_output
from ._tally import Tally

if TYPE_CHECKING:
    from ..backends.load import BackendName


@click.command("predict")
@click.argument("clips", nargs=-1, metavar="CLIP...")
@click.option("--from", "lists", multiple=True, metavar="F", help="Read names, one a line, from F, or - for stdin.")
@model_option
@revision_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "jsonl", "json", "csv", "vtt"]),
    help="Output format; vtt are subtitles of a timeline.  [default: table at a terminal, by the suffix of --output, "
    "jsonl elsewhere]",
)
@click.option("--output", "-o", type=click.Path(), metavar="F", help="Write the results to this file, as they come.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run: keep the rows of --output, do the rest.")
@click.option("--top-k", type=click.IntRange(min=1), metavar="K", help="Give only the K most probable labels.")
@click.option(
    "--labels", metavar="A,B", help="Only these labels of the model can be the answer: two or more, joined by commas."
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="P",
    help="Give no label that is less probable.  [default: 0]",
)
@device_option
@click.option(
    "--backend",
    type=click.Choice(["auto", "torch", "onnx"]),
    default="auto",
    show_default=True,
    help="Runs the network: torch, onnx (ONNX Runtime on the CPU), or auto: torch if it is installed.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Windows that go through the network at once.  [default: 64; 16 with --timeline]",
)
@selection_options("mix", "split")
@click.option("--no-vad-filter", is_flag=True, help="Keep parts without speech, and give every sound an emotion.")
@click.option("--timeline", is_flag=True, help="A row per window instead of a row per clip.")
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
@click.option(
    "--window", type=float, metavar="S", help="Seconds of a window, at most the model's, which is the default."
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value=HERE,
    metavar="[ADDRESS]",
    help="Use the machines of a Ray cluster, here or at ADDRESS, and write Parquet files to the folder --output.  CLIP "
    "may be Parquet, too, and comes before --ray.  Needs the extra ray.",
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
    threshold: float,
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
    input. A file that fails is reported on stderr, the others are still predicted, and the exit status is 1. A long job
    may be stopped at any time: the finished rows are in --output, and --resume continues it.

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

    given = {"hop": hop, "window": window, "smoothing": smoothing}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for_windows = f"--{min(options, default='')}"
    timeline = timeline or segments is not None
    at_terminal = output is None and sys.stdout.isatty()
    by_name = None if output is None else SUFFIXES.get(os.path.splitext(output)[1].lower())
    missing = "Missing argument 'CLIP...': a file, a folder, - for standard input, or --from a list"
    for wrong, message in (
        (not clips and not lists, missing),
        ("-" in clips and "-" in lists, "standard input is a clip or a list of names, not both"),
        (options and segments is not None, f"{for_windows} is for windows, not for --segments"),
        (options and not timeline, f"{for_windows} goes with --timeline"),
        (plot is not None and not timeline, "--plot goes with --timeline or --segments"),
        (resume and output is None, "--resume goes with --output, the file of the run to go on with"),
        (ray is not None and form is not None, "--format does not go with --ray"),
        (ray is not None and top_k is not None, "--top-k does not go with --ray"),
        (ray is not None and timeline, "--timeline or --segments does not go with --ray"),
        (ray is not None and channel == "split", "--channel split does not go with --ray"),
        ((form or by_name) == "vtt" and ray is None and not timeline, "--format vtt goes with --timeline"),
    ):
        if wrong:
            raise click.UsageError(message)
    asked = None if labels is None else [label.strip() for label in labels.split(",")]
    options |= {"labels": asked, "threshold": threshold}
    if batch_size is not None:
        options["batch_size"] = batch_size
    which: dict[str, Any] = {
        "revision": revision,
        "device": device,
        "backend": backend,
        "vad_filter": not no_vad_filter,
    }
    names = [*clips, *(name for each in lists for name in listed(each))]
    if ray is not None:
        options |= {"channel": channel, "track": track}
        predict_on_cluster(ray, names, output, resume, {"model": model, **which}, options)
        return
    if output is not None and os.path.isdir(output):
        raise click.BadParameter(f"File {printable(output)!r} is a directory.", param_hint="'--output' / '-o'")
    form = form or by_name or ("table" if at_terminal else "jsonl")

    classifier = EmotionClassifier(model, **which)
    files = list(sources(names))
    read: list[str | int] = [0 if name == "-" else name for name, _ in files]
    if segments is not None:
        read += segment_files(segments, [name for name, _ in files])
    for target in (output, plot):
        keep_inputs(target, read, model, revision)
    found = [piece for name, source in files for piece in split(name, source, channel, track)]
    if (form == "vtt" or plot is not None) and len(found) > 1:
        what = "subtitles are" if form == "vtt" else "a picture is"
        raise click.UsageError(f"{what} of one recording, not of {len(found)}: call once for each")
    if segments is not None and len(files) > 1 and not os.path.isdir(segments):
        raise click.UsageError("--segments is of one recording: pass a folder with a file for each")
    if form == "table" or (form == "csv" and at_terminal):  # control characters would reach the terminal; JSON escapes
        found = [piece._replace(name=describe(piece.name)) for piece in found]
    columns = Choice(classifier.labels, asked, threshold).labels
    rows: Clips | Segments
    if timeline:
        rows = Segments(form, columns, top_k, channels=channel != "mix", given=segments is not None)
    else:
        titles = [titled(piece.name, piece.channel) for piece in found]
        rows = Clips(form, columns, top_k, channels=channel != "mix", names=titles)
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
        hidden = timeline or len(todo) < 2 or not sys.stderr.isatty()  # a timeline has its own bar
        bar = stack.enter_context(
            tqdm(total=len(found), initial=tally.before, unit="file", leave=False, disable=hidden)
        )
        results: Any = (
            timelines(classifier, todo, track, options, segments)
            if timeline
            else predictions(classifier, todo, track, options)
        )
        try:
            for piece, result in results:
                bar.clear()
                if isinstance(result, AudioError):
                    click.echo(f"Error: {error_line(result)}", err=True)
                else:
                    if plot is not None:
                        result.plot(plot)
                    sink.add(rows.lines(piece.name, result, piece.channel))
                tally.add(piece.name, result)
                bar.update()
        except (KeyboardInterrupt, Stopped) as stopped:
            stopped.args = (tally.interrupted(output, form),)
            raise
    for line in tally.closing(classifier.config.frontend, job=output is not None or sys.stderr.isatty()):
        click.echo(line, err=True)
    if tally.failed:
        raise SystemExit(1)
