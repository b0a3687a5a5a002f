"""What a run leaves behind: weights as they ship, their scores, tables, confusion matrices and the model card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigError, TrainingError
from ...extras import require
from ...files import whole_file
from ...model.build import Network
from ...model.config import ClassifierConfig, FrontendConfig
from ...weights.checkpoint import load_checkpoint, save_folder
from ..data.corpora import Corpus, Utterance
from ..data.dataset import Dataset
from ..data.protocols import parts_to_score
from ..data.rows import Rows
from ..folder import RESULTS_FILE, RUN_FILE, peak_memory, read_json, read_results, write_csv, write_json
from .evaluate import Evaluation, Record, score_rows
from .metrics import Floats, Scores, fit_temperature, mean_probabilities, score_clips

PREDICTION_COLUMNS = ("utterance", "version", "speaker", "label", "predicted")

PROTOCOL_MEANING = {
    "corpus": "no recording of the test corpus was heard in training: a stranger in another room, perhaps another "
    "language",
    "speaker": "speakers of the test clips were never heard in training: a new voice",
    "random": "speakers of the test clips were heard in training, their clips were not: known voices, new clips",
    "paper": "test items have other versions of the same recording in training: how well the network recalls "
    "recordings, comparable with the published numbers only",
}


def percent(value: float) -> str:
    """Return a share as a percentage with one decimal, without the sign."""
    return f"{100.0 * value:.1f}"


def with_interval(value: float, interval: Sequence[float] | None) -> str:
    """Return ``51.3 (46.9 to 55.2)``, or the value alone where there is no interval."""
    return percent(value) + (f" ({percent(interval[0])} to {percent(interval[1])})" if interval else "")


def scores_table(rows: Mapping[str, Scores]) -> str:
    """Return a Markdown table of scores in percent, one row per name."""
    lines = [
        "| | clips | speakers | WA | UA | macro-F1 | ECE |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {s.clips} | {s.speakers or '?'} | {with_interval(s.wa, s.wa_interval)} "
        f"| {with_interval(s.ua, s.ua_interval)} | {percent(s.macro_f1)} | {percent(s.ece)} |"
        for name, s in rows.items()
    ]
    return "\n".join(lines)


def confusion_table(scores: Scores) -> str:
    """Return a Markdown table of the confusion matrix with the recall of each class in percent."""
    lines = [
        f"| true \\ predicted | {' | '.join(scores.labels)} | recall |",
        "|---" * (len(scores.labels) + 2) + "|",
    ]
    for index, (label, row) in enumerate(zip(scores.labels, scores.confusion, strict=True)):
        recall = percent(row[index] / sum(row)) if sum(row) else ""
        lines.append(f"| {label} | {' | '.join(map(str, row))} | {recall} |")
    return "\n".join(lines)


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
    said = f"UA {with_interval(scores.ua, scores.ua_interval)} %, WA {with_interval(scores.wa, scores.wa_interval)} %"
    whose = f" of {scores.speakers} speakers" if scores.speakers else ""
    lines = [heading, said, f"{scores.clips} clips{whose}"]
    axes.set_title("\n".join(filter(None, lines)), fontsize=9, parse_math=False)
    for row in range(count):
        for column in range(count):
            share, clips = shares[row][column], scores.confusion[row][column]
            color = "white" if share > 0.5 else "black"
            text = f"{percent(share)}\n({clips})"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")


def flat_scores(results: Mapping[str, Any]) -> dict[str, Scores]:
    """Return the scores of ``results.json`` by ``<role>, <part>``."""
    return {
        f"{role}, {part}": Scores.from_dict(values)
        for role, parts in results["scores"].items()
        for part, values in parts.items()
    }


def write_report(folder: Path, run: Mapping[str, Any], results: Mapping[str, Any], corpus: Corpus) -> None:
    """Write the confusion matrices and the model card of a run.

    Args:
        folder: of the run.
        run: what ``run.json`` holds.
        results: what ``results.json`` holds.
        corpus: what was trained on.
    """
    for name, scores in flat_scores(results).items():
        write_confusion(folder, name.replace(", ", "_"), scores, f"{name}: {corpus.title}, protocol {run['protocol']}")
    with whole_file(folder / "README.md") as temporary:
        temporary.write_text(model_card(run, results, corpus), "utf-8", "backslashreplace")


def model_card(run: Mapping[str, Any], results: Mapping[str, Any], corpus: Corpus) -> str:
    """Return the model card in Markdown; the arguments are those of `write_report`."""
    scores = flat_scores(results)
    final = results["model"]
    lines = [
        "---",
        "library_name: speech-emotion-vit",
        "pipeline_tag: audio-classification",
        "tags: [speech-emotion-recognition, vision-transformer, log-mel-spectrogram]",
        "---",
        f"# Speech emotion, {corpus.title}, {run['protocol']} protocol, recipe `{run['recipe']['name']}`",
        "",
        f"The {final} ({results['parameters'][final]:,} parameters) tells {', '.join(run['labels'])} from speech. "
        f"{_calibration(run, results)}",
        "",
        "## Scores",
        "",
    ]
    lines += [scores_table(scores), ""] if scores else ["No clip was held out: no score is measured on this file.", ""]
    if scores:
        lines += [
            "Percent; in brackets the 95 % interval over speakers, which is wide where they are few. One seed: "
            f"{run['seed']}. WA is accuracy, UA the mean recall of the classes; ECE, the error of the probabilities, "
            "rests on as many clips as the row says and is itself uncertain below some hundreds.",
            "",
            f"**What it measures**: {PROTOCOL_MEANING[run['protocol']]}. {run['split']['note']}.".replace("..", "."),
            "",
        ]
    if run["split"].get("leakage"):
        share = percent(run["split"]["leakage"])
        lines += [f"**Leak**: {share} % of the test items have a version of the same recording in training.", ""]
    left_out = run["split"].get("left_out")
    if left_out:
        reasons = ", ".join(f"`{name}` ({corpus.defects.get(name, 'defect')})" for name in left_out)
        lines += [f"Known defects, neither trained nor scored on: {reasons}.", ""]
    if run["remarks"]:
        lines += ["The corpus as found: " + "; ".join(run["remarks"]) + ".", ""]
    tested = [name for name in scores if name.startswith(f"{final}, test")]
    for name in tested or [name for name in scores if name.startswith(f"{final}, validation")]:
        lines += [f"## Confusion: {name}", "", confusion_table(scores[name]), ""]
    lines += ["## Training", "", "| stage | epochs | minutes |", "|---|---|---|"]
    for stage, seconds in results["seconds"].items():
        lines.append(f"| {stage} | {results['epochs'][stage]} | {seconds / 60:.1f} |")
    machine, built = run["hardware"], run["versions"]
    lines += [
        "",
        f"On {machine['device']}, {machine['cores']} cores, {machine['processes']} processes, "
        f"precision {run['precision']}; {', '.join(f'{name} {version}' for name, version in built.items())}.",
        "",
        "## Use",
        "",
    ]
    place = "path/to/this/folder"
    if run["fold"] == "all":
        place += "/final"
        lines += [
            f"The scores are of {results['folds']} networks, in the folders `fold-0` to `fold-{results['folds'] - 1}`. "
            "For one network of all clips repeat the command with `--fold final`: it goes into the folder `final`.",
            "",
        ]
    lines += [
        "```python",
        "from speech_emotion_vit import EmotionClassifier",
        "",
        f'print(EmotionClassifier("{place}").predict("clip.wav"))',
        "```",
        "",
        "## Limits",
        "",
        "It knows the voices, languages and recordings named under Data. On others, and on emotions that are spoken "
        "and not acted or the other way round, expect less than these scores. Not for decisions about people.",
        "",
        "## Data",
        "",
        f"{corpus.title}: {corpus.source}; licence: {corpus.license}. {corpus.citation}".strip(),
        "",
        "## Recipe",
        "",
        "```json",
        json.dumps(run["recipe"], indent=2),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _calibration(run: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return on what the temperature was fitted."""
    final = results["model"]
    value = f"{results['temperature'][final]:.3f}"
    calibrated = f"Probabilities are calibrated with temperature {value}"
    if run["fold"] == "all":
        return f"Every fold has a temperature of its own, {value} in the mean."
    if any(part.startswith("validation") for part in results["scores"][final]):
        factor = run["recipe"].get("temperature_factor", 1.0)
        return f"{calibrated}, fitted on the validation clips{f' and multiplied by {factor:g}' * (factor != 1)}."
    if run["fold"] == "final" and results["temperature"][final] != 1.0:
        return f"{calibrated}, that of the runs that held clips out."
    if run["mode"] == "probe":
        return f"{calibrated}, fitted on training clips that were left out in turn."
    return "Probabilities are not calibrated: no clip was held out for it."


def write_evaluation(folder: Path, model: str, corpus: Corpus, result: Evaluation) -> None:
    """Write the scores, the confusion matrix and every clip's probabilities of an evaluation.

    Raises:
        ConfigError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error.strerror}): choose another place") from error
    scores = result.scores
    about = {"model": model, "corpus": corpus.name, "heard": result.heard, "notes": list(result.notes)}
    write_json(folder / "scores.json", about | scores.to_dict())
    write_confusion(folder, "test", scores, f"{model.partition('@')[0]} on {corpus.title}")
    rows = [
        (
            clip.recording,
            clip.version,
            clip.speaker,
            clip.label,
            scores.labels[int(values.argmax())],
            *(f"{value:.6f}" for value in values),
        )
        for clip, values in zip(result.clips, result.probabilities, strict=True)
    ]
    header = ("utterance", "version", "speaker", "label", "predicted", *scores.labels)
    write_csv(folder / "predictions.csv", header, rows)


def write_results(
    folder: Path,
    data: Dataset,
    *,
    frontend: FrontendConfig,
    networks: Mapping[str, Network],
    history: Mapping[str, Sequence[Record]],
    rows: Mapping[str, Rows],
    possible: Mapping[str, Sequence[str]],
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
        possible: by corpus, the labels that its clips can have: `Split.labels`.
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
            clips = rows[name].utterances
            write_predictions(place / f"predictions_{name}.csv", clips, data.labels, probabilities)
            scores[role] |= scores_by_corpus(name, clips, probabilities, data.labels, possible)
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


def scores_by_corpus(
    part: str,
    clips: Sequence[Utterance],
    probabilities: Floats,
    labels: Sequence[str],
    possible: Mapping[str, Sequence[str]],
) -> dict[str, Scores]:
    """Return the scores of clips, of several corpora one by one, each over its own labels.

    Args:
        part: what was scored; the name of the scores, with that of the corpus behind it if `possible` knows several.
        clips: what was scored.
        probabilities: `[clips, classes]`, 0 where a clip cannot have a label.
        labels: of the classes.
        possible: by corpus, the labels that its clips can have: `Split.labels`.
    """
    found = {}
    several = len(possible) > 1
    for name, scored in parts_to_score(clips).items():
        ids, corpus = {clip.id for clip in scored}, scored[0].corpus
        names = [label for label in labels if label in possible[corpus]]
        rows = [row for row, clip in enumerate(clips) if clip.id in ids]  # a clip is there once per fold that tests it
        columns = [labels.index(label) for label in names]
        targets = np.array([names.index(clips[row].label) for row in rows], dtype=np.int64)
        title = name if several else name.removeprefix(corpus).strip(", ")
        found[f"{part} {title}".strip()] = score_clips(
            probabilities[np.ix_(rows, columns)], targets, [clips[row].speaker for row in rows], names
        )
    return found
