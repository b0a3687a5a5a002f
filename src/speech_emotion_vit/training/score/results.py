"""The results of a run: weights as they ship, their scores, and every table a reader may want."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import TrainingError
from ...model.build import Network
from ...model.config import ClassifierConfig, FrontendConfig
from ...weights.checkpoint import load_checkpoint, save_folder
from ..data.dataset import Data
from ..data.rows import Rows
from ..data.waveforms import VERSIONS
from ..folder import RESULTS_FILE, RUN_FILE, peak_memory, read_json, read_results, write_csv, write_json
from .evaluation import Scores, score_clips
from .metrics import Floats, fit_temperature, mean_probabilities
from .report import write_report
from .scoring import Record, score_rows

PREDICTION_COLUMNS = ("utterance", "version", "speaker", "label", "predicted")


def write_results(
    folder: Path,
    data: Data,
    *,
    frontend: FrontendConfig,
    networks: Mapping[str, Network],
    history: Mapping[str, Sequence[Record]],
    rows: Mapping[str, Rows],
    temperature: float | None,
    temperature_factor: float,
    seconds: float,
) -> dict[str, Any]:
    """Save the networks, score the saved files, write all tables, and return what ``results.json`` holds.

    Args:
        folder: of the run; the student, or a teacher without one, goes right there, a teacher beside it.
        data: the corpus.
        frontend: what the networks were trained with.
        networks: ``teacher`` or ``student`` or both.
        history: the records of every stage.
        rows: ``validation`` and ``test``; either may be empty.
        temperature: what to store where there are no validation clips to fit it on.
        temperature_factor: what one that is fitted here is multiplied by.
        seconds: how long this took.
    """
    final = "student" if "student" in networks else "teacher"
    scores: dict[str, dict[str, Scores]] = {}
    temperatures: dict[str, float] = {}
    for role, network in networks.items():
        place = folder if role == final else folder / role
        config = ClassifierConfig(labels=data.labels, model=network.config, frontend=frontend)
        save_folder(place, network, config)
        # What is scored is the file that ships, in half precision.
        shipped, _ = load_checkpoint(place / "model.safetensors", device=rows["test"].device)
        logits = {part: score_rows(shipped, rows[part]) for part in ("validation", "test") if len(rows[part])}
        if not all(np.isfinite(values).all() for values in logits.values()):
            raise TrainingError(
                f"{place / 'model.safetensors'}: its answers are not finite in half precision: train anew with a lower "
                "learning_rate or with clip_norm 1"
            )
        fitted = temperature or 1.0
        if "validation" in logits:
            part = rows["validation"]
            fitted = temperature_factor * fit_temperature(logits["validation"], part.owners, part.clip_targets)
        save_folder(place, network, dataclasses.replace(config, temperature=fitted))
        temperatures[role] = fitted
        scores[role] = {}
        for name, values in logits.items():
            probabilities = mean_probabilities(values, rows[name].owners, fitted)
            write_predictions(place / f"predictions_{name}.csv", data, rows[name], probabilities)
            clips = [item.utterance for item in rows[name].items]
            scores[role] |= scores_by_member(name, clips, probabilities, data)
    before = read_results(folder)
    results = {
        "model": final,
        "temperature": temperatures,
        "scores": {role: {part: s.to_dict() for part, s in parts.items()} for role, parts in scores.items()},
        "epochs": {name: len(records) for name, records in history.items()},
        "seconds": {name: sum(record["seconds"] for record in records) for name, records in history.items()},
        "seconds_this_time": seconds,
        "peak_memory": max(peak_memory() or 0, before.get("peak_memory") or 0) or None,
        "parameters": {role: sum(p.numel() for p in network.parameters()) for role, network in networks.items()},
    }
    write_json(folder / RESULTS_FILE, results)
    write_history(folder / "history.csv", history)
    write_report(folder, read_json(folder / RUN_FILE), results, data.corpus)
    return results


def write_predictions(path: Path, data: Data, rows: Rows, probabilities: Floats) -> None:
    """Write every clip's label, prediction and probabilities `[clips, classes]`."""
    speakers, labels = data.speakers, data.labels
    table = [
        (
            item.utterance,
            VERSIONS[item.version].name,
            speakers[item.utterance],
            labels[int(target)],
            labels[int(values.argmax())],
            *(f"{value:.6f}" for value in values),
        )
        for item, target, values in zip(rows.items, rows.clip_targets, probabilities, strict=True)
    ]
    write_csv(path, (*PREDICTION_COLUMNS, *labels), table)


def write_history(path: Path, history: Mapping[str, Sequence[Record]]) -> None:
    """Write the numbers of every epoch of every stage."""
    names = list(dict.fromkeys(name for records in history.values() for record in records for name in record))
    rows = [
        (stage, *(record.get(name, "") for name in names)) for stage, records in history.items() for record in records
    ]
    write_csv(path, ("stage", *names), rows)


def scores_by_member(part: str, clips: Sequence[str], probabilities: Floats, data: Data) -> dict[str, Scores]:
    """Return the scores of clips, of a mixture's corpora one by one, each over its own labels.

    Args:
        part: what was scored; the name of the scores, in a mixture with that of the corpus behind it.
        clips: utterances.
        probabilities: `[clips, classes]`, 0 where a clip cannot have a label.
        data: knows who said what in which corpus.
    """
    member_of, classes, speakers = data.member_of, data.classes, data.speakers
    found = {}
    for member, labels in data.members.items():
        chosen = [index for index, clip in enumerate(clips) if member_of[clip] == member]
        if chosen:
            columns = [data.labels.index(label) for label in labels]
            targets = np.array([columns.index(classes[clips[index]]) for index in chosen], dtype=np.int64)
            found[f"{part} {member}".strip()] = score_clips(
                probabilities[np.ix_(chosen, columns)], targets, [speakers[clips[index]] for index in chosen], labels
            )
    return found
