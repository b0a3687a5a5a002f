"""The folds of a cross-validation together: pooled scores, and a temperature for what has no validation clips."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import TrainingError, one_line
from ..data.corpora import Utterance
from ..data.features import Dataset
from ..data.protocols import Protocol, make_split
from ..data.rows import IMPOSSIBLE
from ..folder import RESULTS_FILE, RUN_FILE, locked, read_json, write_json
from .evaluate import scores_by_corpus
from .metrics import Floats, Indices, Scores, cross_fitted, mean_probabilities
from .report import write_report

LEAST = 1e-7  # of a probability: tables have six decimals


def pooled_temperature(output: Path) -> float | None:
    """Return what fits all folds' test clips where these were calibrated by each other, else the folds' mean.

    Of a run without folds it is the run's own; None where there is no run.

    Raises:
        TrainingError: a run's results are damaged.
    """
    try:
        if (output / RESULTS_FILE).is_file():
            there = read_json(output / RESULTS_FILE)
            model = there["model"]
            fitted: float | None = there.get("cross_fitted_temperature", {}).get(model)
            if fitted is not None or "folds" not in there:
                return float(fitted or there["temperature"][model])
        found = [read_json(path) for path in sorted(output.glob(f"fold-*/{RESULTS_FILE}"))]
        return _mean_temperature(found, found[0]["model"]) if found else None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(
            f"{output}: a {RESULTS_FILE} in it is damaged ({one_line(error)}): run its fold anew, or choose another"
        ) from error


def pool_folds(output: Path, data: Dataset, folds: int) -> dict[str, Any]:
    """Score the test clips of all folds together and write the result beside them.

    Folds without validation clips, and those of ``corpus``, get a temperature by cross-fitting: the clips of a fold are
    scored with the one that fits those of the other folds, and what fits all of them is for a network that is trained
    on everything. Other folds keep their own, those of several corpora too, since that is what a network of all of them
    has.
    """
    each = [read_json(output / f"fold-{index}" / RESULTS_FILE) for index in range(folds)]
    final = each[0]["model"]
    protocol: Protocol = read_json(output / "fold-0" / RUN_FILE)["protocol"]
    possible: dict[str, tuple[str, ...]] = {}
    for index in range(folds):
        split = make_split(data.utterances, protocol=protocol, fold=index)
        possible |= {clip.corpus: split.labels[clip.corpus] for clip in split.test}
    about = {utterance.id: utterance for utterance in data.utterances}
    scores: dict[str, dict[str, Any]] = {}
    fitted: dict[str, float] = {}
    for role, found in each[0]["scores"].items():
        names, owners, logits = _test_logits(output, each, role, "" if role == final else role, data.labels)
        clips = [about[name] for name in names]
        logits = np.where([_can_have(clip, data.labels, possible) for clip in clips], logits, IMPOSSIBLE)
        temperatures = np.array([result["temperature"][role] for result in each])[owners]
        probabilities = mean_probabilities(logits / temperatures[:, None], np.arange(len(clips)))
        if protocol == "corpus" or not any(part.startswith("validation") for part in found):
            targets = np.array([data.labels.index(clip.label) for clip in clips])
            probabilities, fitted[role] = cross_fitted(logits, np.arange(len(clips)), targets, owners)
        pooled: dict[str, Scores] = scores_by_corpus("test", clips, probabilities, data.labels, possible)
        scores[role] = {part: values.to_dict() for part, values in pooled.items()}
    stages = each[0]["seconds"]
    results = {
        "model": final,
        "folds": folds,
        "temperature": {role: _mean_temperature(each, role) for role in scores},
        "cross_fitted_temperature": fitted,
        "scores": scores,
        "test_ua_by_fold": {
            role: {part: [r["scores"][role][part]["ua"] for r in each if part in r["scores"][role]] for part in parts}
            for role, parts in scores.items()
        },
        "epochs": {stage: sum(result["epochs"][stage] for result in each) for stage in stages},
        "seconds": {stage: sum(result["seconds"][stage] for result in each) for stage in stages},
        "parameters": each[0]["parameters"],
        "peak_memory": max((result.get("peak_memory") or 0 for result in each), default=0) or None,
    }
    description = read_json(output / "fold-0" / RUN_FILE) | {"fold": "all"}
    description["split"] = {
        "note": f"{folds} folds, every clip tested by the folds that never heard its "
        + ("corpus" if protocol == "corpus" else "speaker"),
        "leakage": max(read_json(output / f"fold-{index}" / RUN_FILE)["split"]["leakage"] for index in range(folds)),
    }
    with locked(output):
        write_json(output / RUN_FILE, description)
        write_json(output / RESULTS_FILE, results)
        write_report(output, description, results, data.corpus)
    return results


def _can_have(clip: Utterance, labels: Sequence[str], possible: Mapping[str, Sequence[str]]) -> list[bool]:
    return [label in possible[clip.corpus] for label in labels]


def _test_logits(
    output: Path, each: Sequence[Mapping[str, Any]], role: str, place: str, labels: tuple[str, ...]
) -> tuple[list[str], Indices, Floats]:
    """Return the test clips of all folds, the fold of each, and their logits as far as the tables tell them.

    The logarithm of a probability, times the temperature it was made with, is a logit but for a constant; of a clip of
    several windows it is that of their mean.
    """
    clips: list[str] = []
    owners: list[int] = []
    values: list[list[float]] = []
    for index, result in enumerate(each):
        with open(output / f"fold-{index}" / place / "predictions_test.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                clips.append(row["utterance"])
                owners.append(index)
                probabilities = np.maximum([float(row.get(label, 0)) for label in labels], LEAST)
                values.append((np.log(probabilities) * result["temperature"][role]).tolist())
    return clips, np.array(owners, dtype=np.int64), np.array(values)


def _mean_temperature(results: Sequence[Mapping[str, Any]], role: str) -> float:
    return math.exp(sum(math.log(result["temperature"][role]) for result in results) / len(results))
