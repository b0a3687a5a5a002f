"""A corpus as training sees it: utterances, labels, and features in every version that is wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...errors import ConfigError, DatasetError
from ...model.config import ClassifierConfig, FrontendConfig, ModelConfig
from .catalogue import Corpus, remarks
from .corpora import Utterance, named, possible_labels
from .features import FeatureStore, load_features
from .waveforms import VERSIONS

COLUMNS = frozenset(("utterance", "version", "speaker", "label", "predicted"))  # of tables with a column per label


@dataclass(frozen=True, kw_only=True)
class Data:
    """A corpus that has been read, with its features."""

    corpus: Corpus
    """What is known about it."""
    utterances: tuple[Utterance, ...]
    """What is in the folder."""
    labels: tuple[str, ...]
    """The labels in it, in alphabetical order: the order of the head."""
    stores: Mapping[int, FeatureStore]
    """Features by version."""
    remarks: tuple[str, ...]
    """How the folder differs from the published corpus, and which files could not be read."""

    @cached_property
    def classes(self) -> dict[str, int]:
        """Label index by utterance."""
        return {utterance.id: self.labels.index(utterance.label) for utterance in self.utterances}

    @cached_property
    def members(self) -> dict[str, tuple[str, ...]]:
        """The labels of every corpus of a mixture, in order; elsewhere all labels under an empty name."""
        found = possible_labels(self.utterances)
        return {corpus: tuple(label for label in self.labels if label in found[corpus]) for corpus in sorted(found)}

    @cached_property
    def member_of(self) -> dict[str, str]:
        """Corpus by utterance; empty names but in a mixture."""
        return {utterance.id: utterance.corpus for utterance in self.utterances}

    @cached_property
    def possible(self) -> dict[str, tuple[bool, ...]] | None:
        """Whether a clip can have each label, by utterance; None where all can have all.

        In a mixture a clip of one corpus never has a label that only another one has: its speakers were not asked to.
        """
        members = self.members
        if len(members) == 1:
            return None
        return {u.id: tuple(label in members[u.corpus] for label in self.labels) for u in self.utterances}

    @cached_property
    def votes(self) -> dict[str, list[list[float]]] | None:
        """What listeners heard by utterance, `[2][classes]`, level labels sharing; None where nobody was asked.

        All zeros for a clip of another corpus, where one of a mixture has votes.
        """
        if not any(utterance.votes for utterance in self.utterances):
            return None
        unheard = [[0.0] * len(self.labels)] * 2
        return {
            u.id: [[(label in heard) / len(heard) for label in self.labels] for heard in u.votes] or unheard
            for u in self.utterances
        }

    @cached_property
    def speakers(self) -> dict[str, str]:
        """Speaker by utterance."""
        return {utterance.id: utterance.speaker for utterance in self.utterances}

    @cached_property
    def contents(self) -> dict[str, str]:
        """SHA-256 of the audio file by utterance, of those that can be read."""
        return contents_of(self.stores)

    @cached_property
    def digest(self) -> str:
        """Digest of who says what under which label; the stores are named by digests of the audio."""
        lines = [[u.id, u.label, u.speaker, u.sentence, *u.votes] for u in self.utterances]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def load_data(
    corpus: Corpus,
    folder: Path,
    *,
    frontend: FrontendConfig,
    versions: Sequence[int],
    network: Callable[[int], ModelConfig],
    cache: Path | None = None,
    strict: bool = False,
    say: Callable[[str], None],
    progress: Callable[[str], Callable[[int, int], None]] | None = None,
) -> Data:
    """Read a corpus and make or find the features of the versions that are wanted.

    Args:
        corpus: which one.
        folder: where it is.
        frontend: how waveforms become images.
        versions: of every recording, 0 being the original: indices of `waveforms.VERSIONS`.
        network: makes the student's configuration from a number of labels.
        cache: of features.
        strict: refuse a corpus with anything missing, extra or unreadable.
        say: gets one line per remark.
        progress: makes a callback from a title.

    Raises:
        DatasetError: the corpus is not there, `strict` and not as published, or has labels that no model can have.
    """
    utterances = tuple(corpus.read(folder))
    _check_labels(folder, utterances, frontend, network)
    found = remarks(corpus, folder, utterances)
    stores = {
        version: load_features(
            utterances,
            frontend,
            version=version,
            cache=cache,
            progress=progress(f"{corpus.title}, {VERSIONS[version].name}") if progress else None,
        )
        for version in versions
    }
    found += describe_faults(stores)
    heard = {utterance.label for utterance in utterances if any(utterance.id in s.rows for s in stores.values())}
    if silent := sorted({utterance.label for utterance in utterances} - heard):  # no label, so perhaps no emotion
        found.append(f"{len(silent)} labels are left out, for none of their clips can be read: {named(silent)}")
        utterances = tuple(utterance for utterance in utterances if utterance.label in heard)
    for remark in found:
        say(f"{corpus.title}: {remark}")
    if found and strict:
        raise DatasetError(f"{folder}: {'; '.join(found)}: repair it, or leave out --strict")
    labels = tuple(sorted({utterance.label for utterance in utterances}))
    if len(labels) < 2:
        raise DatasetError(f"{folder}: only one label is there, {labels[0]}: at least two are needed")
    return Data(corpus=corpus, utterances=utterances, labels=labels, stores=stores, remarks=tuple(found))


def _check_labels(
    folder: Path, utterances: Sequence[Utterance], frontend: FrontendConfig, network: Callable[[int], ModelConfig]
) -> None:
    """Refuse labels that no model can have: now, not after an hour."""
    labels = tuple(sorted({utterance.label for utterance in utterances}))
    for label in labels:
        if not label.isprintable() or label in COLUMNS:
            rule = "not be called as a column of a table" if label in COLUMNS else "be printable"
            where = next(utterance.path for utterance in utterances if utterance.label == label)
            raise DatasetError(f"{folder}: a label must {rule}, not {label!r}, as of {where}: rename it")
    if len(labels) > 1:
        try:
            ClassifierConfig(labels=labels, model=network(len(labels)), frontend=frontend)
        except ConfigError as error:
            raise DatasetError(f"{folder}: {error}") from error


def contents_of(stores: Mapping[int, FeatureStore]) -> dict[str, str]:
    """Return the SHA-256 of the audio file by utterance, of those that can be read."""
    return {name: content for store in stores.values() for name, content in store.contents.items()}


def describe_faults(stores: Mapping[int, FeatureStore]) -> list[str]:
    """Return one remark that names and counts the files that could not be read, or none."""
    faults = {name: fault for store in stores.values() for name, fault in store.faults.items()}
    if not faults:
        return []
    return [f"{len(faults)} files cannot be read and are left out: {named([faults[name] for name in sorted(faults)])}"]
