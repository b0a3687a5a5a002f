"""Tables of scores in Markdown, and the model card of a run, with the front matter that the Hub reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...weights.card import LANGUAGES, PLACE, CardFacts, complete_card
from ...weights.manifest import Metric, load_manifest
from ..data.corpora import CORPORA, Corpus
from .metrics import Scores

PROTOCOL_MEANING = {
    "corpus": "no recording of the test corpus was in training: new speakers in new rooms, perhaps another language",
    "speaker": "no speaker of a test clip was in training: new speakers",
    "random": "speakers of the test clips were in training, with other clips: known speakers, new clips",
    "paper": "test clips have other versions of the same recording in training: how well the network recalls "
    "recordings, comparable with the published numbers only",
}
LIMITS = (
    "It knows the voices, languages and recordings named under Data. On others, and on emotions that are spoken and "
    "not acted or the other way round, expect less than these scores. Not for decisions about people."
)
PART_MEANING = {
    "validation": "speakers who chose the epoch",
    "speaker": "new speakers of a training corpus",
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


def flat_scores(results: Mapping[str, Any]) -> dict[str, Scores]:
    """Return the scores of ``results.json`` by ``<role>, <part>``."""
    return {
        f"{role}, {part}": Scores.from_dict(values)
        for role, parts in results["scores"].items()
        for part, values in parts.items()
    }


def model_card(run: Mapping[str, Any], results: Mapping[str, Any], corpus: Corpus) -> str:
    """Return the model card in Markdown.

    Args:
        run: what ``run.json`` holds.
        results: what ``results.json`` holds.
        corpus: the training corpus.
    """
    scores = flat_scores(results)
    parts = [
        f"# Speech emotion, {corpus.title}, {run['protocol']} protocol, recipe `{run['recipe']['name']}`",
        f"{_what(run, results)} {_calibration(run, results)}",
        f"## Scores\n\n{_scores(run, scores, corpus)}",
        *_confusions(results["model"], scores),
        f"## Training\n\n{_training(run, results)}",
        f"## Use\n\n{_use(run, results)}",
        f"## Limits\n\n{LIMITS}",
        f"## Data\n\n{_data(run, corpus)}",
        f"## Recipe\n\n```json\n{json.dumps({**run['recipe'], 'stages': list(run['stages'].values())}, indent=2)}\n```",
    ]
    return complete_card("\n\n".join(parts) + "\n", _facts(run, results, corpus))


def _facts(run: Mapping[str, Any], results: Mapping[str, Any], corpus: Corpus) -> CardFacts:
    """Return the front matter of the card."""
    names = [name for name in corpus.name.split("+") if CORPORA[name].labels]
    metrics = [
        Metric(
            name="UA",
            value=scores.ua,
            interval=scores.ua_interval,
            protocol=run["protocol"],
            split=part.split(", ", 1)[1],
            clips=scores.clips,
            speakers=max(1, scores.speakers),
        )
        for part, scores in flat_scores(results).items()
        if part.startswith(results["model"])
    ]
    return CardFacts(
        license="other",
        base_model=run["base_model"],
        datasets=tuple(names),
        language=tuple(dict.fromkeys(LANGUAGES[name] for name in names)),
        metrics=tuple(metrics),
        scored_on=corpus.title,
    )


def _what(run: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    final = results["model"]
    text = f"The {final} ({results['parameters'][final]:,} parameters) recognises {', '.join(run['labels'])} in speech."
    if run["learnt_from"]:
        text += f" It builds on {', '.join(run['learnt_from'])}, named below with its licence."
    return text


def _calibration(run: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the sentence on the temperature."""
    final = results["model"]
    value = f"{results['temperature'][final]:.3f}"
    if run["fold"] == "all":
        return f"Every fold has a temperature of its own, {value} in the mean."
    if note := results["calibrated_on"][final]:
        return f"Probabilities are calibrated with temperature {value}, fitted on {note}."
    if "head" in run["stages"]:
        return "Probabilities are calibrated on training clips that were left out in turn."
    return "Probabilities are not calibrated: no clip was held out for it."


def _scores(run: Mapping[str, Any], scores: Mapping[str, Scores], corpus: Corpus) -> str:
    if not scores:
        return "No clip was held out: no score is measured on this file."
    parts = {part for name in scores for part in PART_MEANING if name.split(", ", 1)[1].startswith(part)}
    lines = [
        scores_table(scores),
        "Percent; in brackets the 95 % interval over speakers, which is wide where they are few. One seed: "
        f"{run['seed']}. WA is accuracy, UA the mean recall of the classes. ECE is the error of the probabilities; it "
        "is uncertain if the row has fewer than some hundreds of clips.",
        f"**What it measures**: {PROTOCOL_MEANING[run['protocol']]}. {run['split']['note']}.".replace("..", ".")
        + "".join(f" `{part}`: {PART_MEANING[part]}." for part in sorted(parts)),
    ]
    if run["split"].get("leakage"):
        share = percent(run["split"]["leakage"])
        lines.append(f"**Leak**: {share} % of the test clips have a version of the same recording in training.")
    if left_out := run["split"].get("left_out"):
        reasons = ", ".join(f"`{name}` ({corpus.defects[name]})" for name in left_out)
        lines.append(f"Known defects, neither trained nor scored on: {reasons}.")
    if run["remarks"]:
        lines.append("The corpus as found: " + "; ".join(run["remarks"]) + ".")
    return "\n\n".join(lines)


def _confusions(final: str, scores: Mapping[str, Scores]) -> list[str]:
    tested = [name for name in scores if name.startswith(f"{final}, test")]
    chosen = tested or [name for name in scores if name.startswith(f"{final}, validation")]
    return [f"## Confusion: {name}\n\n{confusion_table(scores[name])}" for name in chosen]


def _training(run: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    lines = ["| stage | epochs | minutes |", "|---|---|---|"]
    for stage, seconds in results["seconds"].items():
        lines.append(f"| {stage} | {results['epochs'][stage]} | {seconds / 60:.1f} |")
    machine, built = run["hardware"], run["versions"]
    about = (
        f"On {machine['device']}, {machine['cores']} cores, {machine['processes']} processes, "
        f"precision {run['precision']}; {', '.join(f'{name} {version}' for name, version in built.items())}."
    )
    return "\n".join(lines) + f"\n\n{about}"


def _use(run: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    place, lines = PLACE, []
    if run["fold"] == "all":
        place += "/final"
        lines.append(
            f"The scores are of {results['folds']} networks, in the folders `fold-0` to `fold-{results['folds'] - 1}`. "
            "For one network of all clips repeat the command with `--fold final`: it goes into the folder `final`.\n"
        )
    code = (
        "from speech_emotion_vit import EmotionClassifier",
        "",
        f'print(EmotionClassifier("{place}").predict("clip.wav"))',
    )
    return "\n".join([*lines, "```python", *code, "```"])


def _data(run: Mapping[str, Any], corpus: Corpus) -> str:
    lines = [f"- {corpus.title}: {corpus.source}; licence: {corpus.license}. {corpus.citation}".strip()]
    for name in (name for stage in run["stages"].values() for name in stage.get("audio", ())):
        if name in CORPORA and name not in corpus.name.split("+"):
            other = CORPORA[name]
            lines.append(f"- {other.title}, without labels: {other.source}; licence: {other.license}. {other.citation}")
        elif name not in CORPORA:
            lines.append(f"- {name}, without labels")
    if run["teacher"]:
        about = run["teacher"]
        lines.append(f"- Frames were matched to those of {about['credit']}; licence: {about['license']}.")
    models = load_manifest().models
    for name in run["learnt_from"]:
        entry = models.get(name.split("@")[0])
        licence = f"licence: {entry.license}" if entry else "its own card names its data and licence"
        lines.append(f"- It builds on {name}; {licence}.")
    return "\n".join(lines)
