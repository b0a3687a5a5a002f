"""``speech-emotion-vit convert``."""

from __future__ import annotations

from pathlib import Path

import click

from ..weights.manifest import CORPUS_LABELS
from ._options import format_option
from ._tables import echo_record


@click.command("convert")
@click.argument("checkpoint", metavar="OFFICIAL.CKPT")
@click.option("--output", "-o", required=True, metavar="DIR", help="Folder for config.json and model.safetensors.")
@click.option("--labels", metavar="A,B,C", help="Class names in the order of the outputs.")
@click.option(
    "--dataset", type=click.Choice(list(CORPUS_LABELS)), help="Corpus it was trained on, which gives the labels."
)
@format_option
def command(checkpoint: str, output: str, labels: str | None, dataset: str | None, form: str | None) -> None:
    """Turn an official checkpoint of Kim & Lee into config.json and model.safetensors.

    The tensors show whether it is a student or a teacher; no code in the file is run. With 6 classes the labels are
    CREMA-D's; with 7, --dataset or --labels is needed.

    \b
    Examples:
      speech-emotion-vit convert student.ckpt --output models/crema-d-official
      speech-emotion-vit convert student.ckpt --output official --dataset savee
      speech-emotion-vit predict clip.wav --model models/savee-official
    """
    from ..errors import ConfigError
    from ..model.config import CONFIG_FILE, WEIGHTS_FILE
    from ..weights.checkpoint import save_folder
    from ..weights.convert import convert_official

    if labels is not None and dataset is not None:
        raise click.UsageError("--labels and --dataset say the same thing: give one of them")
    there = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if (Path(output) / name).exists()]
    if there:
        raise ConfigError(f"{output}: {' and '.join(there)} is there already: choose another folder or remove it first")
    given = None if labels is None else [label.strip() for label in labels.split(",")]
    model, config = convert_official(checkpoint, labels=CORPUS_LABELS[dataset] if dataset else given)
    folder = save_folder(output, model, config)
    kind = "teacher" if config.model.stem == "conv6" else "student"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    echo_record(
        {"path": str(folder), "kind": kind, "parameters": parameters, "labels": list(config.labels)},
        form,
    )
