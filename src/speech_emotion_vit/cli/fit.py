"""``speech-emotion-vit fit``."""

from __future__ import annotations

import click

from ..errors import ConfigError, printable
from ._options import device_option


@click.command("fit")
@click.argument("source", type=click.Path(exists=True), metavar="DIR|CSV")
@click.option(
    "--output", "-o", type=click.Path(file_okay=False), required=True, metavar="D", help="Folder for the model."
)
@click.option("--base", "-b", metavar="M", help="Model whose network is used.  [default: bundled]")
@device_option
@click.option("--skip", is_flag=True, help="Leave out clips that cannot be read.")
def command(source: str, output: str, base: str | None, device: str, skip: bool) -> None:
    """Fit a model to your own labels: a few hundred clips take less than a minute.

    DIR has one folder of audio per label. A CSV file has the columns path,label and, if you know it, speaker: then new
    voices are scored. The scores are a table at a terminal and JSON in a pipe.

    \b
    Examples:
      speech-emotion-vit fit recordings --output my-model
      speech-emotion-vit fit clips.csv --output my-model
      speech-emotion-vit predict clip.wav --model my-model
    """
    import sys
    from collections import Counter
    from pathlib import Path

    from tqdm import tqdm

    from ..errors import AudioError
    from ..training.data.corpora import CORPORA, read_folder
    from ..training.fit.own_labels import fit_head
    from ..training.folder import write_json
    from ._tables import json_line

    folder = Path(output)
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: is not empty: choose another --output")
    utterances = read_folder(Path(source))
    for remark in CORPORA["folder"].remarks(Path(source), utterances):
        click.echo(f"Note: {printable(remark)}", err=True)
    counts = Counter(each.label for each in utterances)
    click.echo(printable("labels: " + ", ".join(f"{label} {counts[label]}" for label in sorted(counts))), err=True)
    try:
        with tqdm(total=len(utterances), unit="clip", leave=False, disable=None) as bar:
            model = fit_head(
                [each.path for each in utterances],
                [each.label for each in utterances],
                [each.speaker for each in utterances],
                base=base,
                device=device,
                errors="skip" if skip else "raise",
                progress=lambda done, total: bar.update(done - bar.n),
            )
    except AudioError as error:
        raise AudioError(f"{error.__cause__ or error} (--skip leaves such clips out)") from error
    model.save(folder)
    evaluation = model.evaluation
    assert evaluation is not None  # fit_head made it
    write_json(folder / "evaluation.json", evaluation.to_dict())
    if sys.stdout.isatty():
        click.echo("\n".join(map(printable, str(evaluation).splitlines())))
    else:
        click.echo(json_line(evaluation.to_dict()))
    click.echo(f"written to {printable(output)}", err=True)
