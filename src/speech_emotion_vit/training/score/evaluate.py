"""Evaluation: any model on any corpus and protocol, labels mapped by name; and the scoring that training shares."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from ...errors import DatasetError
from ...model.build import Network
from ...weights.checkpoint import load_network
from ...weights.resolve import ResolvedModel
from ..data.augment import VERSIONS
from ..data.corpora import LABELLED, ORIGINAL, Corpus, Utterance, find_corpus, named
from ..data.features import describe_faults, load_inputs
from ..data.labels import map_labels
from ..data.protocols import (
    FEWEST_LABELS,
    Fold,
    Protocol,
    Split,
    make_split,
    number_of_folds,
    parts_to_score,
    score_all,
)
from ..data.rows import Rows, make_rows, restrict
from .metrics import (
    Floats,
    Scores,
    mean_probabilities,
    negative_log_likelihood,
    score_clips,
    unweighted_average_recall,
    weighted_accuracy,
)
from .provenance import WHAT_COUNTS, TrainingRecord, training_record

if TYPE_CHECKING:
    from accelerate import Accelerator

SCORE_BATCH = 128  # rows that are scored at once

Record = dict[str, float]


@torch.no_grad()
def score_rows(network: Network, rows: Rows, accelerator: Accelerator | None = None) -> Floats:
    """Return the logits `[rows, classes]` of a network in eval mode; all processes share the work.

    A class that a row cannot have gets `IMPOSSIBLE`.
    """
    logits = torch.zeros(len(rows), network.config.num_classes, device=rows.device)
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    batches = rows.by_length(SCORE_BATCH)[rank::world]
    for batch in tqdm(batches, desc="scores", leave=False, disable=None if rank == 0 else True):
        index = torch.from_numpy(batch).to(rows.device)
        logits[index] = restrict(network.head(network.embed(*rows.inputs(batch))).float(), rows.mask(batch))
    if accelerator is not None and world > 1:
        logits = accelerator.reduce(logits, reduction="sum")
    return logits.double().cpu().numpy()


def validation_record(logits: Floats, rows: Rows) -> Record:
    """Return WA, UA and negative log likelihood of the clips of `rows`; NaN if a logit is not finite."""
    if not np.isfinite(logits).all():
        return dict.fromkeys(("validation_wa", "validation_ua", "validation_nll"), math.nan)
    probabilities = mean_probabilities(logits, rows.owners)
    predictions = probabilities.argmax(axis=1)
    return {
        "validation_wa": weighted_accuracy(rows.clip_targets, predictions),
        "validation_ua": unweighted_average_recall(rows.clip_targets, predictions),
        "validation_nll": negative_log_likelihood(rows.clip_targets, probabilities),
    }


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of `evaluate_model`."""

    scores: dict[str, Scores]
    """Scores of each corpus, over its own labels, by name."""
    clips: tuple[Utterance, ...]
    """The clips that were scored."""
    labels: tuple[str, ...]
    """Labels that model and corpora have in common, in the model's order."""
    probabilities: Floats
    """Probabilities of the clips `[clips, labels]`; 0 for labels that the clip's corpus does not have."""
    heard: int
    """How many of these clips, or of their speakers (``speaker``) or corpora (``corpus``), the model was trained on."""
    notes: tuple[str, ...]
    """For the reader of the scores: the split, what was left out, how labels were mapped."""


def evaluate_model(
    model: ResolvedModel,
    *,
    corpus: Corpus,
    data_dir: Path,
    protocol: Protocol,
    fold: Fold = None,
    seed: int = 0,
    part: str = "test",
    device: torch.device,
    strict: bool = False,
    cache: Path | None = None,
) -> Evaluation:
    """Score a model on the clips of one part of a split.

    Labels are matched by `map_labels`. Clips whose label the model does not know are left out. Probabilities are those
    of the corpus's labels and sum to 1: the question is which of the corpus's emotions it is.

    Args:
        model: the model.
        corpus: which corpus.
        data_dir: its folder.
        protocol: how it is split; ``paper`` cuts long clips to the first window, as published.
        fold: of a cross-validation; None scores all of its folds' test clips, so all clips.
        seed: of the split.
        part: ``test``, ``validation`` or ``train``.
        device: where the network runs.
        strict: refuse a corpus with anything missing, extra or unreadable.
        cache: folder of the features.

    Raises:
        WeightsError: the model cannot be read.
        DatasetError: the corpus is not there, is not as published with `strict`, or shares fewer than two labels with
            the model.
    """
    network, config = load_network(model, device)
    utterances, renamed = _with_labels_of_model(corpus.read(data_dir), config.labels)
    split = _split(utterances, protocol, fold, seed)
    clips = split.parts[part]
    notes = [f"{protocol} protocol, {part} clips: {split.note}", *renamed]
    if split.left_out:
        notes.append(
            f"{len(split.left_out)} known defects are in no part: "
            + ", ".join(f"{name} ({corpus.defects[name]})" for name in split.left_out)
        )
    frontend = replace(config.frontend, long_clips="truncate") if protocol == "paper" else config.frontend
    by_id = {utterance.id: utterance for utterance in (*utterances, *clips)}
    features = load_inputs(list(by_id.values()), frontend, cache=cache, title=corpus.title)
    wrong = corpus.remarks(data_dir, utterances) + describe_faults(features)
    if strict and wrong:
        raise DatasetError(f"{data_dir}: {'; '.join(wrong)}: repair it, or leave out --strict")
    notes += wrong
    present = {label for labels in split.labels.values() for label in labels}
    common = tuple(label for label in config.labels if label in present)
    if len(common) < FEWEST_LABELS:
        raise DatasetError(
            f"the model and {corpus.title} share {', '.join(common) or 'no label'}, and a score needs {FEWEST_LABELS} "
            f"labels: the model knows {', '.join(config.labels)}; the corpus has {', '.join(sorted(present))}: rename "
            "these, or choose another model"
        )
    notes += _label_notes(config.labels, [clip.label for clip in clips], common)
    clips = tuple(clip for clip in clips if clip.label in common)
    record = training_record(model)
    known = record.among(utterances, protocol, features.contents)
    count = sum(clip.recording in known for clip in clips)
    notes += _leak_notes(record, count, len(clips), protocol)
    if not clips:
        remedy = "pass --fold: without one every clip is tested" if not split.train else "choose another part or fold"
        raise DatasetError(f"{corpus.title}, {protocol}: there is no {part} clip to score: {remedy}")
    rows = make_rows(clips, features, config.labels, frontend, device=device, possible=split.labels)
    logits = score_rows(network, rows)
    if not np.isfinite(logits).all():
        raise DatasetError(f"{model.name}: its answers on {corpus.title} are not finite: choose another model")
    probabilities = mean_probabilities(logits, rows.owners, config.temperature)
    chosen = [config.labels.index(label) for label in common]
    return Evaluation(
        scores=scores_by_corpus("", rows.utterances, probabilities, config.labels, split.labels),
        clips=tuple(rows.utterances),
        labels=common,
        probabilities=probabilities[:, chosen],
        heard=count,
        notes=tuple(notes),
    )


def _with_labels_of_model(utterances: list[Utterance], labels: Sequence[str]) -> tuple[list[Utterance], list[str]]:
    """Return utterances with the model's names for labels that mean the same, and a note on the renamed ones."""
    same = map_labels(sorted({utterance.label for utterance in utterances}), labels)
    renamed = [f"{label} is {name}" for label, name in same.items() if label != name]
    notes = [f"labels taken for the model's own: {', '.join(renamed)}"] if renamed else []
    return [replace(u, label=same.get(u.label, u.label)) for u in utterances], notes


def unknown_corpora(model: ResolvedModel, data_dir: Path | None) -> list[str]:
    """Return the labelled corpora in a folder that a model was not trained on.

    Args:
        model: the model, for its record.
        data_dir: a folder that holds a folder for each corpus; None: where corpora are kept.

    Raises:
        DatasetError: there is none.
    """
    known = training_record(model).corpora
    names = [name for name in LABELLED if name not in known]
    present = [name for name in names if _is_present(name, data_dir)]
    if not present:
        raise DatasetError(
            f"{data_dir or 'the data folder'}: has none of the corpora that {model.name} was not trained on: "
            f"{', '.join(names) or 'it was trained on all of them'}: pass --dataset and its --data-dir"
        )
    return present


def _is_present(name: str, data_dir: Path | None) -> bool:
    if data_dir is not None:
        return (data_dir / name).is_dir()
    try:
        find_corpus(name, None)
    except DatasetError:
        return False
    return True


def _split(utterances: list[Utterance], protocol: Protocol, fold: Fold, seed: int) -> Split:
    if protocol == "corpus" or (fold is None and number_of_folds(utterances, protocol)):
        return score_all(utterances, protocol)
    versions = tuple(VERSIONS) if protocol == "paper" else (ORIGINAL,)
    return make_split(utterances, protocol=protocol, versions=versions, fold=fold, seed=seed)


def _leak_notes(record: TrainingRecord, count: int, total: int, protocol: Protocol) -> list[str]:
    if count:
        what = WHAT_COUNTS[protocol]
        return [f"LEAK: the model was trained on {what}{count} of these {total} clips: this is no score of new ones"]
    if record.unknown:
        return [f"what {named(record.unknown)} was trained on is not on record: this may be no score of new clips"]
    return []


def _label_notes(known: tuple[str, ...], labels: list[str], common: tuple[str, ...]) -> list[str]:
    notes = []
    outside = Counter(label for label in labels if label not in known)
    if outside:
        listed = ", ".join(f"{count} {label}" for label, count in sorted(outside.items()))
        notes.append(f"left out because the model does not know their label: {listed}")
    unused = [label for label in known if label not in common]
    if unused:
        notes.append(f"taken out of the model's answer because the corpus has none: {', '.join(unused)}")
    return notes


def scores_by_corpus(
    part: str,
    clips: Sequence[Utterance],
    probabilities: Floats,
    labels: Sequence[str],
    possible: Mapping[str, Sequence[str]],
) -> dict[str, Scores]:
    """Return the scores of clips, of several corpora one by one, each over its own labels.

    Args:
        part: the name of the scores, followed by that of the corpus if `possible` has several.
        clips: the clips that were scored.
        probabilities: `[clips, classes]`, 0 where a clip cannot have a label.
        labels: of the classes.
        possible: by corpus, the labels that its clips can have: `Split.labels`.
    """
    found = {}
    several = len(possible) > 1
    for name, scored in parts_to_score(clips).items():
        ids, corpus = {clip.id for clip in scored}, scored[0].corpus
        names = [label for label in labels if label in possible[corpus]]
        rows = [row for row, clip in enumerate(clips) if clip.id in ids]  # a clip may be tested by several folds
        columns = [labels.index(label) for label in names]
        targets = np.array([names.index(clips[row].label) for row in rows], dtype=np.int64)
        title = name if several else name.removeprefix(corpus).strip(", ")
        found[f"{part} {title}".strip()] = score_clips(
            probabilities[np.ix_(rows, columns)], targets, [clips[row].speaker for row in rows], names
        )
    return found
