"""``speech-emotion-vit evaluate``."""

from __future__ import annotations

import click

from ..errors import printable
from ._options import corpus_options, device_option, model_option, revision_option


@click.command("evaluate")
@corpus_options
@model_option
@revision_option
@click.option(
    "--fold", type=click.IntRange(min=0), metavar="K", help="One fold of a cross-validation.  [default: all clips]"
)
@click.option(
    "--part",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="Part of the split to score.",
)
@device_option
@click.option("--output", "-o", type=click.Path(file_okay=False), metavar="D", help="Write tables and pictures here.")
def command(
    dataset: str | None,
    data_dir: str | None,
    protocol: str | None,
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

    Labels are mapped by name. Clips whose label the model does not know are left out, and a note says so. Without
    --dataset, every corpus in --data-dir is scored that the model was not trained on, and the mean over them is given.

    \b
    Examples:
      speech-emotion-vit evaluate --dataset crema-d --data-dir CREMA-D
      speech-emotion-vit evaluate --data-dir CORPORA --model base
      speech-emotion-vit evaluate --dataset savee --model runs/mine -o scores
    """
    import sys
    from pathlib import Path
    from typing import Any, cast

    from ..backends.torch import find_device
    from ..extras import require
    from ..training.data.corpora import find_corpus
    from ..training.score.card import confusion_table, scores_table
    from ..training.score.evaluate import evaluate_model, unknown_corpora
    from ..training.score.report import write_evaluation
    from ..weights.resolve import resolve_model
    from ._tables import json_line

    if output:
        require("matplotlib", "train")  # now, not after the scoring
    place = Path(data_dir) if data_dir else None
    resolved = resolve_model(model, revision=revision)
    names = [dataset] if dataset else unknown_corpora(resolved, place)
    chosen = protocol or ("speaker" if dataset else "corpus")
    where = find_device(device)
    name = f"{resolved.name}@{resolved.revision}"
    found = {}
    for each in names:
        corpus, folder = find_corpus(each, place if dataset or place is None else place / each)
        result = evaluate_model(
            resolved,
            corpus=corpus,
            data_dir=folder,
            protocol=cast(Any, chosen),
            fold=fold,
            seed=seed,
            part=part,
            device=where,
            strict=strict,
            cache=Path(cache_dir) if cache_dir else None,
        )
        for note in result.notes:
            click.echo(printable(note), err=True)
        for title, scores in result.scores.items():
            found[f"{'' if dataset else each} {title}".strip()] = scores
            if not sys.stdout.isatty():
                about = {"model": name, "dataset": each, "scores": title or each, "protocol": chosen, "part": part}
                click.echo(json_line({**about, "heard": result.heard, **scores.to_dict()}))
        if output:
            write_evaluation(Path(output) if dataset else Path(output) / each, name, corpus, result)
    if sys.stdout.isatty():
        click.echo(scores_table({printable(title or name): scores for title, scores in found.items()}))
        if len(found) == 1:
            click.echo()
            click.echo(confusion_table(next(iter(found.values()))))
    if not dataset:
        mean = sum(found[each].ua for each in names) / len(names)
        if sys.stdout.isatty():
            click.echo(f"\nmean UA over {len(names)} corpora never heard: {100 * mean:.1f} %")
        else:
            click.echo(json_line({"model": name, "scores": "mean", "corpora": names, "ua": mean}))
    if output:
        click.echo(f"written to {printable(output)}", err=True)
