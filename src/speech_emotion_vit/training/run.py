"""An experiment: one run, or all folds of a cross-validation with their pooled score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..extras import TRAINING, require
from .data.corpora import Corpus
from .data.dataset import load_data
from .data.protocols import Fold, Protocol, number_of_folds
from .fit.stage_runner import Run, Stages
from .folder import locked, open_run
from .folds import pool_folds, pooled_temperature
from .pipeline import describe, run_training
from .recipes import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(device: str, precision: Literal["no", "bf16"]) -> Accelerator:
    """Return the accelerator for this process: device, precision and, under ``accelerate launch``, its companions.

    Raises:
        ConfigError: a package is missing that training needs.
    """
    for module in TRAINING:  # now, not after an hour
        require(module, "train")
    from accelerate import Accelerator

    return Accelerator(cpu=device == "cpu", mixed_precision=precision)


def train_corpus(
    *,
    corpus: Corpus,
    data_dir: Path,
    protocol: Protocol,
    recipe: Recipe,
    stages: Stages,
    fold: Fold | Literal["all"],
    seed: int,
    output: Path,
    accelerator: Accelerator,
    resume: bool = False,
    strict: bool = False,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train on one corpus and return the results, as ``results.json`` in `output` holds them.

    Where the protocol has folds, ``all`` runs each into a folder of its own and pools their test clips. ``final`` goes
    into a folder inside `output`, trains on everything but a published test set, for all epochs of the recipe, and
    takes the temperature from the run or the folds in `output`, which held speakers out.

    Raises:
        DatasetError: the corpus is not there or cannot be split so.
        TrainingError: the output folder is in use or holds another run, or training cannot go on.
    """
    main = accelerator.is_main_process
    quiet: Callable[[str], None] = lambda line: None  # noqa: E731
    with accelerator.main_process_first():
        data = load_data(
            corpus,
            data_dir,
            frontend=recipe.frontend,
            versions=recipe.versions,
            network=recipe.student_model,
            cache=cache,
            strict=strict,
            say=say if main else quiet,
        )
    folds = number_of_folds(data.utterances, protocol)
    run = Run(
        data=data,
        protocol=protocol,
        fold=None,
        recipe=recipe,
        stages=stages,
        seed=seed,
        folder=output,
        resume=resume,
        say=say if main else quiet,
    )
    if fold == "final":
        temperature = pooled_temperature(output)
        return run_training(replace(run, fold="final", folder=output / "final", temperature=temperature), accelerator)
    if fold == "all" or fold is None:
        if not folds:
            return run_training(run, accelerator)
        if main:
            with locked(output):
                open_run(output, describe(run, accelerator) | {"fold": "all"}, resume=resume)
        for index in range(folds):
            folder = output / f"fold-{index}"
            going_on = resume and (folder / "run.json").is_file()
            run_training(replace(run, fold=index, folder=folder, resume=going_on), accelerator)
        return pool_folds(output, data, folds) if main else {}
    return run_training(replace(run, fold=fold, folder=output / f"fold-{fold}"), accelerator)
