"""Reports: tables, confusion matrices and the model card of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...extras import require
from ...files import whole_file
from ..data.catalogue import Corpus
from ..data.waveforms import VERSIONS
from ..folder import write_csv, write_json
from .evaluation import Scores

if TYPE_CHECKING:
    from .assessment import Assessment

PROTOCOL_MEANING = {
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


def write_confusion(folder: Path, name: str, scores: Scores) -> None:
    """Write a confusion matrix as ``confusion_<name>.csv`` and ``.png``."""
    rows = [(label, *row) for label, row in zip(scores.labels, scores.confusion, strict=True)]
    write_csv(folder / f"confusion_{name}.csv", ("true", *scores.labels), rows)
    _draw_confusion(folder / f"confusion_{name}.png", scores)


def _draw_confusion(path: Path, scores: Scores) -> None:
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
    axes.set_title(f"WA {percent(scores.wa)} %, UA {percent(scores.ua)} %, {scores.clips} clips", fontsize=10)
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
        write_confusion(folder, name.replace(", ", "_"), scores)
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
            "Percent; in brackets the 95 % bootstrap interval over speakers. One seed: "
            f"{run['seed']}. WA is accuracy, UA the mean recall of the classes.",
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


def write_assessment(folder: Path, model: str, corpus: Corpus, result: Assessment) -> None:
    """Write the scores, the confusion matrix and every clip's probabilities of an assessment.

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
    write_confusion(folder, "test", scores)
    rows = [
        (
            item.utterance,
            VERSIONS[item.version].name,
            speaker,
            label,
            scores.labels[int(values.argmax())],
            *(f"{value:.6f}" for value in values),
        )
        for item, speaker, label, values in zip(
            result.items, result.speakers, result.targets, result.probabilities, strict=True
        )
    ]
    header = ("utterance", "version", "speaker", "label", "predicted", *scores.labels)
    write_csv(folder / "predictions.csv", header, rows)
