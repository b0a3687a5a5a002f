"""A corpus as training sees it: utterances, labels, and images in every version that is wanted."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...errors import ConfigError, DatasetError, printable
from ...model.config import ClassifierConfig, FrontendConfig, ModelConfig
from .corpora import ORIGINAL, Corpus, Utterance, named, remarks
from .features import Store, load_features

COLUMNS = frozenset(("utterance", "version", "speaker", "label", "predicted"))  # of tables with a column per label


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A corpus, or several, that has been read, with its images."""

    corpus: Corpus
    """What is known about it."""
    utterances: tuple[Utterance, ...]
    """The originals in the folder."""
    labels: tuple[str, ...]
    """The labels in it, in alphabetical order: the order of the head."""
    features: Store
    """Images of the utterances in all versions."""
    remarks: tuple[str, ...]
    """How the folder differs from the published corpus, and which files could not be read."""

    @cached_property
    def digest(self) -> str:
        """Digest of who says what under which label; the store is named by a digest of the audio."""
        lines = [[u.id, u.label, u.speaker, u.sentence] for u in self.utterances]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def load_data(
    corpus: Corpus,
    folder: Path,
    *,
    frontend: FrontendConfig,
    versions: Sequence[str] = (ORIGINAL,),
    network: Callable[[int], ModelConfig],
    cache: Path | None = None,
    strict: bool = False,
    say: Callable[[str], None],
) -> Dataset:
    """Read a corpus and make or find the images of the versions that are wanted.

    Args:
        corpus: which one.
        folder: where it is.
        frontend: how waveforms become images.
        versions: of every recording: names from `paper.VERSIONS`.
        network: makes the student's configuration from a number of labels.
        cache: of images.
        strict: refuse a corpus with anything missing, extra or unreadable.
        say: gets one line per remark.

    Raises:
        DatasetError: the corpus is not there, `strict` and not as published, or has labels that no model can have.
    """
    utterances = tuple(corpus.read(folder))
    _check_labels(folder, utterances, frontend, network)
    found = remarks(corpus, folder, utterances)
    features = load_features(
        [utterance.altered(version) for version in versions for utterance in utterances],
        frontend,
        cache=cache,
        title=corpus.title,
    )
    found += describe_faults(features)
    read = {utterance.label for utterance in utterances if utterance.recording in features.contents}
    if unread := sorted({utterance.label for utterance in utterances} - read):  # no label, so perhaps no emotion
        found.append(f"{len(unread)} labels are left out because none of their clips can be read: {named(unread)}")
        utterances = tuple(utterance for utterance in utterances if utterance.label in read)
    for remark in found:
        say(f"{corpus.title}: {remark}")
    if found and strict:
        raise DatasetError(f"{folder}: {'; '.join(found)}: repair it, or leave out --strict")
    counts = Counter(utterance.label for utterance in utterances)
    labels = tuple(sorted(counts))
    say("labels: " + ", ".join(f"{label} {counts[label]}" for label in labels))
    if len(labels) < 2:
        raise DatasetError(f"{folder}: only one label is there, {labels[0]}: at least two are needed")
    if single := [label for label in labels if counts[label] == 1]:
        raise DatasetError(
            f"{folder}: the labels {named(single)} have one clip each, which cannot both be learnt and tested: add "
            "clips, or take these labels out"
        )
    return Dataset(corpus=corpus, utterances=utterances, labels=labels, features=features, remarks=tuple(found))


def _check_labels(
    folder: Path, utterances: Sequence[Utterance], frontend: FrontendConfig, network: Callable[[int], ModelConfig]
) -> None:
    """Refuse labels that no model can have: now, not after an hour."""
    labels = tuple(sorted({utterance.label for utterance in utterances}))
    for label in labels:
        if not label.isprintable() or label in COLUMNS:
            rule = "not be called as a column of a table" if label in COLUMNS else "be printable"
            where = next(utterance.path for utterance in utterances if utterance.label == label)
            raise DatasetError(
                f"{folder}: a label must {rule}, not {label!r}, as of {printable(str(where))}: rename it"
            )
    if len(labels) > 1:
        try:
            ClassifierConfig(labels=labels, model=network(len(labels)), frontend=frontend)
        except ConfigError as error:
            raise DatasetError(f"{folder}: {error}") from error


def describe_faults(features: Store) -> list[str]:
    """Return one remark that names and counts the files that could not be read, or none."""
    faults = features.faults
    if not faults:
        return []
    return [f"{len(faults)} files cannot be read and are left out: {named([faults[name] for name in sorted(faults)])}"]
