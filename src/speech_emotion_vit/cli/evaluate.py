"""``speech-emotion-vit evaluate``."""

from __future__ import annotations

import click

from ..errors import ConfigError, printable
from ._corpus import corpus_options


@click.command("evaluate", short_help="Score a model on a corpus.")
@corpus_options
@click.option("--model", "-m", metavar="M", help="Model name, Hub repository, folder or file.  [default: bundled]")
@click.option("--revision", metavar="R", help="Branch, tag or commit of a Hub repository.")
@click.option(
    "--fold", type=click.IntRange(min=0), metavar="K", help="One fold of a cross-validation.  [default: all clips]"
)
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Which items of the split.",
)
@click.option("--device", default="auto", show_default=True, metavar="D", help="auto, cpu, cuda, cuda:1, ...")
@click.option("--output", "-o", type=click.Path(file_okay=False), metavar="D", help="Write tables and pictures here.")
def command(
    dataset: str,
    data_dir: str | None,
    protocol: str,
    seed: int,
    strict: bool,
    cache_dir: str | None,
    model: str | None,
    revision: str | None,
    fold: int | None,
    part: str,
    device: str,
    output: str | None,
) -> None:
    """Score a model on a corpus: WA, UA, macro-F1, calibration error, confusion, 95 % intervals over speakers.

    Labels are mapped by name: clips whose label the model does not know are left out, and said to be.

    \b
    Examples:
      speech-emotion-vit evaluate --dataset crema-d --data-dir CREMA-D
      speech-emotion-vit evaluate --dataset savee --model runs/mine -o scores
      speech-emotion-vit evaluate --dataset emodb --model crema-d
    """
    import sys
    from pathlib import Path
    from typing import Any, cast

    from ..backends.torch import find_device
    from ..extras import require
    from ..training.data.corpora import find_corpus
    from ..training.score.evaluate import evaluate_model
    from ..training.score.report import confusion_table, scores_table, write_evaluation
    from ..weights.checkpoint import load_network
    from ..weights.resolve import resolve_model
    from ._rows import json_line

    if output:
        require("matplotlib", "train")  # now, not after the scoring
    corpus, folder = find_corpus(dataset, Path(data_dir) if data_dir else None)
    resolved = resolve_model(model, revision=revision)
    place = find_device(device)
    network, config = load_network(resolved, place)
    if config.frontend.columns is None:
        raise ConfigError(
            f"{resolved.name} hears clips of any length, and evaluate scores windows of one width: its scores "
            "are those of tools/taught_by_whisper.py; or name another with --model"
        )
    result = evaluate_model(
        network,
        config,
        resolved,
        corpus=corpus,
        data_dir=folder,
        protocol=cast(Any, protocol),
        fold=fold,
        seed=seed,
        part=part,
        device=place,
        strict=strict,
        cache=Path(cache_dir) if cache_dir else None,
    )
    name = f"{resolved.name}@{resolved.revision}"
    for note in result.notes:
        click.echo(printable(note), err=True)
    if sys.stdout.isatty():
        click.echo(scores_table({printable(name): result.scores}))
        click.echo()
        click.echo(confusion_table(result.scores))
    else:
        click.echo(
            json_line(
                {"model": name, "dataset": dataset, "protocol": protocol, "part": part, "heard": result.heard}
                | result.scores.to_dict()
            )
        )
    if output:
        write_evaluation(Path(output), name, corpus, result)
        click.echo(f"written to {printable(output)}", err=True)
