"""Evaluation: any model on any corpus and protocol, labels mapped by name; and the scoring that training shares."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...errors import DatasetError
from ...model.build import Network
from ...model.config import ClassifierConfig
from ...weights.resolve import ResolvedModel
from ..data.corpora import ORIGINAL, Corpus, Utterance, named, remarks
from ..data.dataset import describe_faults
from ..data.features import load_features
from ..data.labels import map_labels
from ..data.paper import VERSIONS
from ..data.protocols import FEWEST_LABELS, Fold, Protocol, Split, make_split, number_of_folds, score_all
from ..data.rows import Rows, restrict
from .metrics import (
    Floats,
    Scores,
    mean_probabilities,
    negative_log_likelihood,
    score_clips,
    unweighted_average_recall,
    weighted_accuracy,
)
from .provenance import WHAT_COUNTS, Heard, heard_by

if TYPE_CHECKING:
    from accelerate import Accelerator

LEAST = 1e-200  # of a sum that can still be divided by
SCORE_BATCH = 128  # rows that are scored at once

Record = dict[str, float]


@torch.no_grad()
def score_rows(network: Network, rows: Rows, accelerator: Accelerator | None = None) -> Floats:
    """Return the logits `[rows, classes]` of a network in eval mode, the work shared by all processes.

    Those of classes that a row cannot have are as good as minus infinity.
    """
    logits = torch.zeros(len(rows), network.config.num_classes, device=rows.device)
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    for batch in rows.by_length(SCORE_BATCH)[rank::world]:
        index = torch.from_numpy(batch).to(rows.device)
        logits[index] = restrict(network.head(network.embed(rows.images(batch))).float(), rows.mask(batch))
    if accelerator is not None and world > 1:
        logits = accelerator.reduce(logits, reduction="sum")
    return logits.double().cpu().numpy()


def validation_record(logits: Floats, rows: Rows) -> Record:
    """Return WA, UA and negative log likelihood of the clips of `rows`."""
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

    scores: Scores
    """Scores on the clips that could be scored."""
    clips: tuple[Utterance, ...]
    """These clips."""
    probabilities: Floats
    """Their probabilities `[clips, labels]`, in the order of ``scores.labels``."""
    heard: int
    """How many of these clips, or of their speakers (``speaker``) or corpora (``corpus``), the model has heard."""
    notes: tuple[str, ...]
    """What a reader of the scores must know: the split, what was left out, how labels were mapped."""


def evaluate_model(
    network: Network,
    config: ClassifierConfig,
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
    """Score a network on the items of one part of a split.

    Clips whose label the model does not know are left out. Labels the corpus does not have are taken out of the
    model's answer and the rest is made to sum to 1: the question is which of the corpus's emotions it is.

    Args:
        network: the model, in eval mode.
        config: its labels, front-end and temperature.
        model: where it is from, and so what it was trained on.
        corpus: which corpus.
        data_dir: where it is.
        protocol: how it is split; ``paper`` cuts long clips to the first window, as published.
        fold: of a cross-validation; None scores all of its folds' test clips, so all clips.
        seed: of the split.
        part: ``test``, ``validation`` or ``train``.
        device: where the network is.
        strict: refuse a corpus with anything missing, extra or unreadable.
        cache: of features.

    Raises:
        DatasetError: the corpus is not there, is not as published with `strict`, or shares no label with the model.
    """
    utterances = corpus.read(data_dir)
    split = _split(utterances, protocol, fold, seed)
    clips: tuple[Utterance, ...] = {"test": split.test, "validation": split.validation, "train": split.train}[part]
    notes = [f"{protocol} protocol, {part} clips: {split.note}"]
    if split.left_out:
        notes.append(
            f"{len(split.left_out)} known defects are in no part: "
            + ", ".join(f"{name} ({corpus.defects[name]})" for name in split.left_out)
        )
    frontend = replace(config.frontend, long_clips="truncate") if protocol == "paper" else config.frontend
    wanted = {utterance.id: utterance for utterance in (*utterances, *clips)}
    features = load_features(list(wanted.values()), frontend, cache=cache, title=corpus.title)
    wrong = remarks(corpus, data_dir, utterances) + describe_faults(features)
    if strict and wrong:
        raise DatasetError(f"{data_dir}: {'; '.join(wrong)}: repair it, or leave out --strict")
    notes += wrong
    there = {label for labels in split.labels.values() for label in labels}
    same = map_labels(sorted(there), config.labels)
    if renamed := {label: name for label, name in same.items() if label != name}:
        notes.append("labels taken for the model's own: " + ", ".join(f"{a} is {b}" for a, b in renamed.items()))
        clips = tuple(replace(clip, label=same.get(clip.label, clip.label)) for clip in clips)
    asked = {name: tuple({same.get(label, label) for label in labels}) for name, labels in split.labels.items()}
    common = [label for label in config.labels if label in same.values()]
    if len(common) < FEWEST_LABELS:
        raise DatasetError(
            f"the model and {corpus.title} share {len(common)} labels, which is no score: it knows "
            f"{', '.join(config.labels)}; the corpus has {', '.join(sorted(there))}: rename the labels that mean the "
            "same, or choose another model"
        )
    notes += _label_notes(config.labels, [clip.label for clip in clips], common)
    clips = tuple(clip for clip in clips if clip.label in common)
    heard = heard_by(model)
    known = heard.among(utterances, protocol, features.contents)
    count = sum(clip.recording in known for clip in clips)
    notes += _heard_notes(heard, count, len(clips), protocol)
    if not clips:
        remedy = "pass --fold: without one every clip is tested" if not split.train else "choose another part or fold"
        raise DatasetError(f"{corpus.title}, {protocol}: there is no {part} clip to score: {remedy}")
    possible = asked if len(asked) > 1 else None
    rows = Rows(clips, features, config.labels, device=device, possible=possible)
    chosen = [config.labels.index(label) for label in common]
    logits = score_rows(network, rows)
    if not np.isfinite(logits).all():
        raise DatasetError(f"{model.name}: its answers on {corpus.title} are not finite: choose another model")
    probabilities = mean_probabilities(logits, rows.owners, config.temperature)[:, chosen]
    sums = probabilities.sum(axis=1, keepdims=True)
    # Of an answer that is all another label's nothing is left to divide: then these labels alone are asked.
    alone = mean_probabilities(logits[:, chosen], rows.owners, config.temperature)
    probabilities = np.where(sums > LEAST, probabilities / np.maximum(sums, LEAST), alone)
    targets = np.array([common.index(clip.label) for clip in rows.utterances], dtype=np.int64)
    return Evaluation(
        scores=score_clips(probabilities, targets, [clip.speaker for clip in rows.utterances], common),
        clips=tuple(rows.utterances),
        probabilities=probabilities,
        heard=count,
        notes=tuple(notes),
    )


def _split(utterances: list[Utterance], protocol: Protocol, fold: Fold, seed: int) -> Split:
    if protocol == "corpus" or (fold is None and number_of_folds(utterances, protocol)):
        return score_all(utterances, protocol)
    versions = tuple(VERSIONS) if protocol == "paper" else (ORIGINAL,)
    return make_split(utterances, protocol=protocol, versions=versions, fold=fold, seed=seed)


def _heard_notes(heard: Heard, count: int, total: int, protocol: Protocol) -> list[str]:
    if count:
        what = WHAT_COUNTS[protocol]
        return [f"LEAK: the model was trained on {what}{count} of these {total} clips: this is no score of new ones"]
    if heard.unknown:
        return [f"what {named(heard.unknown)} was trained on is not on record: this may be no score of new clips"]
    return []


def _label_notes(known: tuple[str, ...], labels: list[str], common: list[str]) -> list[str]:
    notes = []
    outside = Counter(label for label in labels if label not in known)
    if outside:
        listed = ", ".join(f"{count} {label}" for label, count in sorted(outside.items()))
        notes.append(f"left out because the model does not know their label: {listed}")
    unused = [label for label in known if label not in common]
    if unused:
        notes.append(f"taken out of the model's answer because the corpus has none: {', '.join(unused)}")
    return notes
