"""``speech-emotion-vit explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..errors import printable
from ._options import device_option, model_option, revision_option, selection_options
from ._streams import keep_inputs, standard_input

if TYPE_CHECKING:
    from ..audio.reader import Channel


@click.command("explain")
@click.argument("clip", metavar="CLIP")
@click.option(
    "--output", "-o", required=True, type=click.Path(dir_okay=False), metavar="F", help="Picture: .png, .svg or .pdf."
)
@selection_options("mix")
@click.option("--start", type=float, metavar="S", help="Beginning of the window in a long clip.  [default: chosen]")
@model_option
@revision_option
@device_option
def command(
    clip: str,
    output: str,
    channel: Channel,
    track: int | None,
    start: float | None,
    model: str | None,
    revision: str | None,
    device: str,
) -> None:
    """Draw the waveform, the log-Mel image and the network's attention over time.

    CLIP is a file, or - for standard input. Of a clip longer than a window, the window with the highest probability of
    the answer is drawn, or the one that begins at --start. Needs matplotlib: pip install 'speech-emotion-vit[plot]'.

    \b
    Examples:
      speech-emotion-vit explain clip.wav --output picture.png
      speech-emotion-vit explain call.flac --start 62.5 --output minute.svg
    """
    from ..classifier import EmotionClassifier

    classifier = EmotionClassifier(model, device=device, revision=revision)
    keep_inputs(output, [0 if clip == "-" else clip], model, revision)
    explanation = classifier.explain(
        standard_input() if clip == "-" else clip, channel=channel, track=track, start=start
    )
    explanation.save(output)
    prediction = explanation.prediction
    where = f"{explanation.start:.2f}-{explanation.end:.2f} s"
    answer = "nobody speaks" if prediction.label is None else f"{prediction.label} {prediction.score:.2f}"
    click.echo(f"{printable(output)}: {answer} in {where}")
    for warning in prediction.warnings:
        click.echo(f"Warning: {printable(clip)}: {warning}", err=True)
