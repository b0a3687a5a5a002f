"""``speech-emotion-vit train``."""

from __future__ import annotations

from reprlib import repr as shown

import click

from ._corpus import corpus_options


@click.command("train", short_help="Train teacher and student on a corpus.")
@corpus_options
@click.option(
    "--recipe",
    "preset",
    default="robust",
    show_default=True,
    metavar="R",
    help="robust, paper, or a JSON file.",
)
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change one value of the recipe.")
@click.option(
    "--stage",
    type=click.Choice(["all", "teacher", "match", "student", "supervised", "probe"]),
    default="all",
    show_default=True,
    help="How far to go; supervised: the student alone; probe: a new head for a trained network, for few clips.",
)
@click.option(
    "--fold", metavar="K", help="A fold of a cross-validation, all, or final: all but test data.  [default: all]"
)
@click.option("--output", "-o", type=click.Path(file_okay=False), metavar="D", help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Go on with the run in the output folder.")
@click.option(
    "--precision",
    type=click.Choice(["no", "bf16"]),
    default="no",
    show_default=True,
    help="bf16 trains in mixed precision, which pays on a GPU and on processors with AVX512-BF16 or AMX.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu"]),
    default="auto",
    show_default=True,
    help="auto: a GPU where there is one.",
)
def command(
    dataset: str,
    data_dir: str | None,
    protocol: str,
    seed: int,
    strict: bool,
    cache_dir: str | None,
    preset: str,
    changes: tuple[str, ...],
    stage: str,
    fold: str | None,
    output: str | None,
    resume: bool,
    precision: str,
    device: str,
) -> None:
    """Train on a corpus, score on its test items, and write one folder that describes itself.

    Without --output the folder is runs/DATASET-PROTOCOL-RECIPE-STAGE-SEED. After an interruption the same command
    with --resume goes on from the last whole epoch.

    \b
    Examples:
      speech-emotion-vit train --dataset savee --data-dir SAVEE
      speech-emotion-vit train --dataset crema-d --stage supervised --output runs/student
      speech-emotion-vit train --dataset crema-d --set student.epochs=30 --set alpha=5
      speech-emotion-vit train --dataset folder --data-dir my.csv --protocol random
      speech-emotion-vit train --dataset emodb --stage probe
      accelerate launch --multi_gpu --num_processes 2 -m speech_emotion_vit train --dataset emodb
    """
    import sys
    from pathlib import Path
    from typing import Any, cast

    from ..errors import ConfigError, WeightsError, one_line, printable
    from ..files import read_text
    from ..training.data.corpora import find_corpus
    from ..training.recipes import RECIPES, Recipe
    from ..training.run import make_accelerator, train_corpus
    from ..training.score.report import flat_scores, scores_table
    from ..weights.manifest import MAX_JSON_BYTES, parse_json
    from ._rows import json_line

    corpus, folder = find_corpus(dataset, Path(data_dir) if data_dir else None)
    if preset in RECIPES:
        recipe = RECIPES[preset]
    elif preset.endswith(".json"):
        try:
            recipe = Recipe.from_dict(parse_json(read_text(Path(preset), MAX_JSON_BYTES), preset))
        except (OSError, ValueError, WeightsError) as error:
            raise ConfigError(f"{preset}: is no recipe ({one_line(error)}): correct the file") from error
    else:
        raise ConfigError(f"recipe must be one of {', '.join(RECIPES)} or a .json file, not {preset!r}")
    recipe = recipe.with_values(_assignments(changes))
    accelerator = make_accelerator(device, cast(Any, precision))
    target = Path(output) if output else Path("runs") / f"{dataset}-{protocol}-{recipe.name}-{stage}-{seed}"
    results = train_corpus(
        corpus=corpus,
        data_dir=folder,
        protocol=cast(Any, protocol),
        recipe=recipe,
        stages=cast(Any, stage),
        fold=cast(Any, _fold(fold)),
        seed=seed,
        output=target,
        accelerator=accelerator,
        resume=resume,
        strict=strict,
        cache=Path(cache_dir) if cache_dir else None,
        say=lambda line: click.echo(printable(line), err=True),
    )
    if not accelerator.is_main_process:
        return
    scores = flat_scores(results)
    if sys.stdout.isatty():
        click.echo(scores_table(scores))
    else:
        for name, values in scores.items():
            click.echo(json_line({"scores": name, **values.to_dict()}))
    click.echo(f"written to {printable(str(target))}", err=True)


def _assignments(changes: tuple[str, ...]) -> dict[str, str]:
    for change in changes:
        if "=" not in change:
            raise click.BadParameter(f"{change!r} is not NAME=VALUE", param_hint="--set")
    return {name: value for name, _, value in (change.partition("=") for change in changes)}


def _fold(text: str | None) -> int | str | None:
    if text is None or text in ("all", "final"):
        return text or "all"
    if text.isdecimal() and len(text) < 10:  # Python refuses to read thousands of digits
        return int(text)
    raise click.BadParameter(f"{shown(text)} is not a number, all or final", param_hint="--fold")
