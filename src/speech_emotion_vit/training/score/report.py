"""What a run writes: weights as they ship, scores, tables, confusion matrices, model card; and the folds together."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import ConfigError, TrainingError, one_line
from ...extras import require
from ...files import whole_file
from ...model.build import Network
from ...model.config import ClassifierConfig, FrontendConfig
from ...weights.checkpoint import load_checkpoint, save_folder
from ..data.corpora import Corpus, Utterance
from ..data.features import Dataset
from ..data.protocols import Protocol, make_split
from ..data.rows import IMPOSSIBLE, Rows
from ..folder import RESULTS_FILE, RUN_FILE, locked, peak_memory, read_json, read_results, write_csv, write_json
from .card import flat_scores, model_card, percent, with_interval
from .evaluate import Evaluation, Record, score_rows, scores_by_corpus
from .metrics import Floats, Indices, Scores, cross_fitted, fit_temperature, mean_probabilities

PREDICTION_COLUMNS = ("utterance", "version", "speaker", "label", "predicted")
SMALLEST = 1e-7  # of a probability: tables have six decimals


def write_confusion(folder: Path, name: str, scores: Scores, heading: str = "") -> None:
    """Write a confusion matrix as ``confusion_<name>.csv`` and ``.png``, with model, corpus and protocol as heading."""
    rows = [(label, *row) for label, row in zip(scores.labels, scores.confusion, strict=True)]
    write_csv(folder / f"confusion_{name}.csv", ("true", *scores.labels), rows)
    _draw_confusion(folder / f"confusion_{name}.png", scores, heading)


def _draw_confusion(path: Path, scores: Scores, heading: str) -> None:
    figures = require("matplotlib.figure", "train")
    canvases = require("matplotlib.backends.backend_agg", "train")
    count = len(scores.labels)
    size = 1.8 + 0.75 * count  # inches
    figure = figures.Figure(figsize=(size, size), layout="constrained")
    canvases.FigureCanvasAgg(figure)  # draws without a display
    axes = figure.add_subplot()
    shares = [[value / max(1, sum(row)) for value in row] for row in scores.confusion]
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(count), scores.labels, rotation=45, ha="right")
    axes.set_yticks(range(count), scores.labels)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)  # a dollar in a label is a dollar
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    recalls = (
        f"UA {with_interval(scores.ua, scores.ua_interval)} %, WA {with_interval(scores.wa, scores.wa_interval)} %"
    )
    speakers = f" of {scores.speakers} speakers" if scores.speakers else ""
    lines = [heading, recalls, f"{scores.clips} clips{speakers}"]
    axes.set_title("\n".join(filter(None, lines)), fontsize=9, parse_math=False)
    for row in range(count):
        for column in range(count):
            share, clips = shares[row][column], scores.confusion[row][column]
            color = "white" if share > 0.5 else "black"
            text = f"{percent(share)}\n({clips})"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")


def write_report(folder: Path, run: Mapping[str, Any], results: Mapping[str, Any], corpus: Corpus) -> None:
    """Write the confusion matrices and the model card of a run.

    Args:
        folder: of the run.
        run: what ``run.json`` holds.
        results: what ``results.json`` holds.
        corpus: the training corpus.
    """
    for name, scores in flat_scores(results).items():
        write_confusion(folder, name.replace(", ", "_"), scores, f"{name}: {corpus.title}, protocol {run['protocol']}")
    with whole_file(folder / "README.md") as temporary:
        temporary.write_text(model_card(run, results, corpus), "utf-8", "backslashreplace")


def write_evaluation(folder: Path, model: str, corpus: Corpus, result: Evaluation) -> None:
    """Write the scores, the confusion matrices and every clip's probabilities of an evaluation.

    Raises:
        ConfigError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror}): choose another place") from error
    about = {"model": model, "corpus": corpus.name, "heard": result.heard, "notes": list(result.notes)}
    write_json(folder / "scores.json", about | {"scores": {name: s.to_dict() for name, s in result.scores.items()}})
    for name, scores in result.scores.items():
        heading = f"{model.partition('@')[0]} on {corpus.title}{f', {name}' if name else ''}"
        write_confusion(folder, name or "test", scores, heading)
    write_predictions(folder / "predictions.csv", result.clips, result.labels, result.probabilities)


def write_results(
    folder: Path,
    corpus: Corpus,
    labels: tuple[str, ...],
    *,
    frontend: FrontendConfig,
    networks: Mapping[str, Network],
    history: Mapping[str, Sequence[Record]],
    rows: Mapping[str, Rows],
    possible: Mapping[str, Sequence[str]],
    temperature: float | None,
    seconds: float,
) -> dict[str, Any]:
    """Save the networks, score the saved files, write all tables, and return what ``results.json`` holds.

    Args:
        folder: of the run, for the student or a teacher alone; a teacher beside a student goes into ``teacher``.
        corpus: the training corpus.
        labels: of the networks.
        frontend: of the networks.
        networks: ``teacher`` or ``student`` or both.
        history: the records of every stage.
        rows: the parts that are scored, by name: ``validation``, ``test`` and perhaps others; each may be empty.
        possible: by corpus, the labels that its clips can have: `Split.labels`.
        temperature: used if there are no clips to fit it to.
        seconds: duration of this run.
    """
    final = "student" if "student" in networks else "teacher"
    scores: dict[str, dict[str, Scores]] = {}
    calibrations: dict[str, Calibration] = {}
    for role, network in networks.items():
        place = folder if role == final else folder / role
        config = ClassifierConfig(labels=labels, model=network.config, frontend=frontend)
        save_folder(place, network, config)
        # Scored is the file that ships, in half precision.
        shipped, _ = load_checkpoint(place / "model.safetensors", device=rows["test"].device)
        logits = {part: score_rows(shipped, each) for part, each in rows.items() if len(each)}
        if not all(np.isfinite(values).all() for values in logits.values()):
            raise TrainingError(
                f"{place / 'model.safetensors'}: its answers are not finite in half precision: train anew with a lower "
                "learning_rate"
            )
        calibrations[role] = found = calibrate(logits, rows, temperature)
        save_folder(place, network, dataclasses.replace(config, temperature=found.temperature))
        scores[role] = {}
        for part, values in logits.items():
            clips = rows[part].utterances
            probabilities = found.held_out if part == found.part else None
            if probabilities is None:
                probabilities = mean_probabilities(values, rows[part].owners, found.temperature)
            write_predictions(place / f"predictions_{part}.csv", clips, labels, probabilities)
            scores[role] |= scores_by_corpus(part, clips, probabilities, labels, possible)
    before = read_results(folder)
    results = {
        "model": final,
        "temperature": {role: found.temperature for role, found in calibrations.items()},
        "calibrated_on": {role: found.note for role, found in calibrations.items()},
        "scores": {role: {part: s.to_dict() for part, s in parts.items()} for role, parts in scores.items()},
        "epochs": {name: len(records) for name, records in history.items()},
        "seconds": {name: sum(record["seconds"] for record in records) for name, records in history.items()},
        "seconds_this_time": seconds,
        "peak_memory": max(peak_memory() or 0, before.get("peak_memory") or 0) or None,
        "parameters": {role: sum(p.numel() for p in network.parameters()) for role, network in networks.items()},
    }
    write_json(folder / RESULTS_FILE, results)
    write_history(folder / "history.csv", history)
    write_report(folder, read_json(folder / RUN_FILE), results, corpus)
    return results


class Calibration(NamedTuple):
    """The temperature of a network."""

    temperature: float
    """The divisor of its logits."""
    note: str
    """What it was fitted to."""
    part: str = ""
    """The test part, if it was fitted to that; empty: it was not."""
    held_out: Floats | None = None
    """Probabilities of that part's clips `[clips, classes]`, each corpus at the temperature that fits the others."""


def calibrate(logits: Mapping[str, Floats], rows: Mapping[str, Rows], temperature: float | None) -> Calibration:
    """Return the temperature that fits the test corpora under ``corpus``, else validation clips, else the given one.

    Args:
        logits: of the rows of each part `[rows, classes]`.
        rows: the parts.
        temperature: the default.
    """
    if "test" in logits and "speaker" in rows:  # the test clips are of other corpora
        test = rows["test"]
        corpora = np.array([clip.corpus for clip in test.utterances])
        if len(names := sorted(set(corpora))) > 1:
            held_out, found = cross_fitted(logits["test"], test.owners, test.clip_targets, corpora)
            note = f"{len(corpora)} clips of corpora that it has not learnt from: {', '.join(names)}"
            return Calibration(found, note, "test", held_out)
    if "validation" in logits:
        each = rows["validation"]
        found = fit_temperature(logits["validation"], each.owners, each.clip_targets)
        return Calibration(found, f"the {len(each.utterances)} validation clips")
    if temperature is not None:
        return Calibration(temperature, "the runs that held clips out")
    return Calibration(1.0, "")


def write_predictions(path: Path, clips: Sequence[Utterance], labels: Sequence[str], probabilities: Floats) -> None:
    """Write every clip's label, prediction and probabilities `[clips, classes]`."""
    table = [
        (
            clip.recording,
            clip.version,
            clip.speaker,
            clip.label,
            labels[int(values.argmax())],
            *(f"{value:.6f}" for value in values),
        )
        for clip, values in zip(clips, probabilities, strict=True)
    ]
    write_csv(path, (*PREDICTION_COLUMNS, *labels), table)


def write_history(path: Path, history: Mapping[str, Sequence[Record]]) -> None:
    """Write the numbers of every epoch of every stage."""
    names = list(dict.fromkeys(name for records in history.values() for record in records for name in record))
    rows = [
        (stage, *(record.get(name, "") for name in names)) for stage, records in history.items() for record in records
    ]
    write_csv(path, ("stage", *names), rows)


def pooled_temperature(output: Path) -> float | None:
    """Return the temperature of the run in `output`, or of its folds; None where there is no run.

    It is the one that fits the test clips of all folds where folds calibrate each other, else the folds' mean.

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
    scored with the temperature that fits the other folds. The one that fits all folds is for a network that is trained
    on everything. All other folds keep their own.
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
        can_have = [[label in possible[clip.corpus] for label in data.labels] for clip in clips]
        logits = np.where(can_have, logits, IMPOSSIBLE)
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
        "note": f"{folds} folds, every clip tested by folds without training clips of its "
        + ("corpus" if protocol == "corpus" else "speaker"),
        "leakage": max(read_json(output / f"fold-{index}" / RUN_FILE)["split"]["leakage"] for index in range(folds)),
    }
    with locked(output):
        write_json(output / RUN_FILE, description)
        write_json(output / RESULTS_FILE, results)
        write_report(output, description, results, data.corpus)
    return results


def _test_logits(
    output: Path, each: Sequence[Mapping[str, Any]], role: str, place: str, labels: tuple[str, ...]
) -> tuple[list[str], Indices, Floats]:
    """Return the test clips of all folds, the fold of each, and their logits, computed from the tables.

    A logit is, up to a constant, the logarithm of the probability times the temperature that the probability was made
    with. A clip of several windows has one logit per class, that of the windows' mean probability.
    """
    clips: list[str] = []
    owners: list[int] = []
    values: list[list[float]] = []
    for index, result in enumerate(each):
        with open(output / f"fold-{index}" / place / "predictions_test.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                clips.append(row["utterance"])
                owners.append(index)
                probabilities = np.maximum([float(row.get(label, 0)) for label in labels], SMALLEST)
                values.append((np.log(probabilities) * result["temperature"][role]).tolist())
    return clips, np.array(owners, dtype=np.int64), np.array(values)


def _mean_temperature(results: Sequence[Mapping[str, Any]], role: str) -> float:
    return math.exp(sum(math.log(result["temperature"][role]) for result in results) / len(results))
