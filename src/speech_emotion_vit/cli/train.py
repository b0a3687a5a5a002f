"""``speech-emotion-vit train``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from reprlib import repr as cut

import click

from ..errors import printable
from ._options import corpus_options


@click.command("train")
@corpus_options
@click.option(
    "--recipe",
    "preset",
    default="paper",
    show_default=True,
    metavar="R",
    help="base, small, research, paper, or a JSON file.",
)
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="Change one value that the stages of the recipe read."
)
@click.option("--stages", metavar="A,B", help="Only these stages of the recipe.  [default: all]")
@click.option(
    "--teacher",
    type=click.Path(file_okay=False, exists=True),
    metavar="D",
    help="Folder of the speech encoder that teaches all but paper.  [default: openai/whisper-base on the Hub]",
)
@click.option(
    "--fold", metavar="K", help="A fold of a cross-validation, all, or final: all but test data.  [default: all]"
)
@click.option("--output", "-o", type=click.Path(file_okay=False), metavar="D", help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Continue the run in the output folder.")
@click.option(
    "--precision",
    type=click.Choice(["no", "bf16"]),
    help="bf16 trains in mixed precision: faster on a GPU and on processors with AVX512-BF16 or AMX.  [default: "
    "bf16 for base and small, no for paper]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu"]),
    default="auto",
    show_default=True,
    help="auto: a GPU if there is one.",
)
def command(
    dataset: str | None,
    data_dir: str | None,
    protocol: str | None,
    seed: int,
    strict: bool,
    cache_dir: str | None,
    preset: str,
    changes: tuple[str, ...],
    stages: str | None,
    teacher: str | None,
    fold: str | None,
    output: str | None,
    resume: bool,
    precision: str | None,
    device: str,
) -> None:
    """Train on a corpus, score on its test clips, and write the run to one folder.

    All recipes except paper name their training corpora: these are folders in --data-dir, and the other corpora there
    are only for tests. Without --output the folder is runs/DATASET-PROTOCOL-RECIPE-SEED. After an interruption, the
    same command with --resume continues the run.

    \b
    Examples:
      speech-emotion-vit train --dataset savee --data-dir SAVEE
      speech-emotion-vit train --recipe research --data-dir CORPORA --teacher WHISPER
      speech-emotion-vit train --recipe base --data-dir CORPORA --protocol speaker --stages frames,head
      speech-emotion-vit train --dataset crema-d --set student.epochs=30 --set student.alpha=5
      speech-emotion-vit train --dataset folder --data-dir my.csv --protocol random
      accelerate launch --multi_gpu --num_processes 2 -m speech_emotion_vit train --dataset emodb
    """
    import sys
    from pathlib import Path
    from typing import Any, cast

    from ..errors import ConfigError, WeightsError, one_line
    from ..files import read_text
    from ..training.recipes import RECIPES, Recipe
    from ..training.run import make_accelerator, train_corpus
    from ..training.score.card import flat_scores, scores_table
    from ..weights.manifest import MAX_JSON_BYTES, parse_json
    from ._tables import json_line

    if preset in RECIPES:
        recipe = RECIPES[preset]
    elif preset.endswith(".json"):
        try:
            recipe = Recipe.from_dict(parse_json(read_text(Path(preset), MAX_JSON_BYTES), preset))
        except (OSError, ValueError, WeightsError) as error:
            raise ConfigError(f"{preset}: is no recipe ({one_line(error)}): correct the file") from error
    else:
        raise ConfigError(f"recipe must be one of {', '.join(RECIPES)} or a .json file, not {cut(preset)}")
    if stages is not None:
        recipe = recipe.only(tuple(stages.split(",")))
    recipe = recipe.with_values(_assignments(changes))
    chosen = protocol or ("speaker" if dataset or not recipe.corpora else "corpus")
    accelerator = make_accelerator(device, cast(Any, precision or recipe.precision))
    name = "-".join(part for part in (dataset, chosen, recipe.name, str(seed)) if part)
    target = Path(output) if output else Path("runs") / name
    with _log_to_stderr(accelerator.is_main_process):
        results = train_corpus(
            recipe,
            dataset=dataset,
            data_dir=Path(data_dir) if data_dir else None,
            protocol=cast(Any, chosen),
            fold=cast(Any, _fold(fold)),
            seed=seed,
            output=target,
            accelerator=accelerator,
            teacher=Path(teacher) if teacher else None,
            resume=resume,
            strict=strict,
            cache=Path(cache_dir) if cache_dir else None,
        )
    if not accelerator.is_main_process:
        return
    scores = flat_scores(results)
    if sys.stdout.isatty():
        click.echo(scores_table(scores))
    else:
        for part, values in scores.items():
            click.echo(json_line({"scores": part, **values.to_dict()}))
    click.echo(f"written to {printable(str(target))}", err=True)


def _assignments(changes: tuple[str, ...]) -> dict[str, str]:
    for change in changes:
        if "=" not in change:
            raise click.BadParameter(f"{cut(change)} is not NAME=VALUE", param_hint="--set")
    return {name: value for name, _, value in (change.partition("=") for change in changes)}


def _fold(text: str | None) -> int | str | None:
    if text is None or text in ("all", "final"):
        return text or "all"
    if text.isdecimal() and len(text) < 10:  # Python refuses to read thousands of digits
        return int(text)
    raise click.BadParameter(f"{cut(text)} is not a number, all or final", param_hint="--fold")


@contextlib.contextmanager
def _log_to_stderr(enabled: bool) -> Iterator[None]:
    """Print the package's log lines on standard error while the block runs."""
    package = logging.getLogger("speech_emotion_vit")
    handler, level = _Lines(), package.level
    if enabled:
        package.addHandler(handler)
        package.setLevel(logging.INFO)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(level)


class _Lines(logging.Handler):
    """One line of plain text a record."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(printable(record.getMessage()), err=True)
