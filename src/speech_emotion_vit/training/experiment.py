"""An experiment: one run, or all folds of a cross-validation with their pooled score."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .catalogue import Corpus
from .dataset import Data, load_data
from .pipeline import Run, Stages, run_training
from .protocols import Fold, Protocol, number_of_folds
from .recipes import Recipe
from .report import write_report
from .results import scores_by_member
from .runs import RESULTS_FILE, RUN_FILE, locked, read_json, write_json

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(device: str, precision: Literal["no", "bf16"]) -> Accelerator:
    """Return the accelerator for this process: device, precision and, under ``accelerate launch``, its companions."""
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
    progress: Callable[[str], Callable[[int, int], None]] | None = None,
) -> dict[str, Any]:
    """Train on one corpus and return the results, as ``results.json`` in `output` holds them.

    Where the protocol has folds, ``all`` runs each into a folder of its own and pools their test clips; ``final``
    trains on everything and takes the temperature from the folds beside it.

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
            recipe,
            cache=cache,
            strict=strict,
            say=say if main else quiet,
            progress=progress if main else None,
        )
    folds = number_of_folds(data.utterances, corpus.name, protocol)
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
        folder = output / "final" if folds else output
        temperature = _pooled_temperature(output) if folds else None
        return run_training(replace(run, fold="final", folder=folder, temperature=temperature), accelerator)
    if fold == "all" or fold is None:
        if not folds:
            return run_training(run, accelerator)
        for index in range(folds):
            folder = output / f"fold-{index}"
            going_on = resume and (folder / "run.json").is_file()
            run_training(replace(run, fold=index, folder=folder, resume=going_on), accelerator)
        return _pool(output, data, folds) if main else {}
    return run_training(replace(run, fold=fold, folder=output / f"fold-{fold}"), accelerator)


def _pooled_temperature(output: Path) -> float | None:
    """Return the geometric mean of the folds' temperatures, None where there are none."""
    found = [read_json(path) for path in sorted(output.glob(f"fold-*/{RESULTS_FILE}"))]
    return _mean_temperature(found, found[0]["model"]) if found else None


def _pool(output: Path, data: Data, folds: int) -> dict[str, Any]:
    """Score the test clips of all folds together and write the result beside them."""
    each = [read_json(output / f"fold-{index}" / RESULTS_FILE) for index in range(folds)]
    final = each[0]["model"]
    scores = {}
    for role in each[0]["scores"]:
        rows: list[dict[str, str]] = []
        for index in range(folds):
            folder = output / f"fold-{index}" / ("" if role == final else role)
            with open(folder / "predictions_test.csv", newline="", encoding="utf-8") as file:
                rows += csv.DictReader(file)
        probabilities = np.array([[float(row[label]) for label in data.labels] for row in rows])
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        found = scores_by_member("test", [row["utterance"] for row in rows], probabilities, data)
        scores[role] = {part: values.to_dict() for part, values in found.items()}
    stages = each[0]["seconds"]
    results = {
        "model": final,
        "folds": folds,
        "temperature": {role: _mean_temperature(each, role) for role in scores},
        "scores": scores,
        "test_ua_by_fold": {
            role: {part: [r["scores"][role][part]["ua"] for r in each if part in r["scores"][role]] for part in parts}
            for role, parts in scores.items()
        },
        "epochs": {stage: sum(result["epochs"][stage] for result in each) for stage in stages},
        "seconds": {stage: sum(result["seconds"][stage] for result in each) for stage in stages},
        "parameters": each[0]["parameters"],
    }
    description = read_json(output / "fold-0" / RUN_FILE) | {"fold": "all"}
    description["split"] = {
        "note": f"{folds} folds, every clip tested once by the fold that never heard its speaker",
        "leakage": max(read_json(output / f"fold-{index}" / RUN_FILE)["split"]["leakage"] for index in range(folds)),
    }
    with locked(output):
        write_json(output / RUN_FILE, description)
        write_json(output / RESULTS_FILE, results)
        write_report(output, description, results, data.corpus)
    return results


def _mean_temperature(results: Sequence[Mapping[str, Any]], role: str) -> float:
    return math.exp(sum(math.log(result["temperature"][role]) for result in results) / len(results))
