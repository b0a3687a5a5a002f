"""A corpus as training sees it: utterances, labels, and images in every version that is wanted."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from ...errors import ConfigError, DatasetError, printable
from ...model.config import ClassifierConfig, FrameViTConfig, FrontendConfig, ModelConfig
from .corpora import CORPORA, ORIGINAL, Corpus, Utterance, audio_files, find_corpus, named, remarks
from .features import Store, load_features, load_speech

NetworkConfig: TypeAlias = ModelConfig | FrameViTConfig

logger = logging.getLogger(__name__)

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
    """Images of the utterances in all versions, or, for a front-end without columns, their waveforms."""
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
    network: Callable[[int], NetworkConfig],
    only: Sequence[str] = (),
    cache: Path | None = None,
    strict: bool = False,
) -> Dataset:
    """Read a corpus and make or find the images of the versions that are wanted.

    Args:
        corpus: which one.
        folder: where it is.
        frontend: how waveforms become images.
        versions: of every recording: names from `paper.VERSIONS`.
        network: makes the student's configuration from a number of labels.
        cache: of images.
        only: the labels that are wanted; none: all.
        strict: refuse a corpus with anything missing, extra or unreadable.

    Raises:
        DatasetError: the corpus is not there, `strict` and not as published, or has labels that no model can have.
    """
    utterances = tuple(corpus.read(folder))
    found = remarks(corpus, folder, utterances)
    if only:
        utterances = tuple(utterance for utterance in utterances if utterance.label in only)
    _check_labels(folder, utterances, frontend, network)
    features = load_inputs(
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
        logger.info("%s: %s", corpus.title, remark)
    if found and strict:
        raise DatasetError(f"{folder}: {'; '.join(found)}: repair it, or leave out --strict")
    counts = Counter(utterance.label for utterance in utterances)
    labels = tuple(sorted(counts))
    logger.info("labels: %s", ", ".join(f"{label} {counts[label]}" for label in labels))
    if len(labels) < 2:
        raise DatasetError(f"{folder}: only one label is there, {labels[0]}: at least two are needed")
    if single := [label for label in labels if counts[label] == 1]:
        raise DatasetError(
            f"{folder}: the labels {named(single)} have one clip each, which cannot both be learnt and tested: add "
            "clips, or take these labels out"
        )
    return Dataset(corpus=corpus, utterances=utterances, labels=labels, features=features, remarks=tuple(found))


def load_inputs(utterances: Sequence[Utterance], frontend: FrontendConfig, *, cache: Path | None, title: str) -> Store:
    """Return what rows are made of: images, or, for a front-end without columns, the speech; see `load_features`."""
    if frontend.columns is None:
        return load_speech(utterances, frontend.sampling_rate, cache=cache, title=title)
    return load_features(utterances, frontend, cache=cache, title=title)


def read_audio(names: Sequence[str], folder: Path) -> list[Utterance]:
    """Return the clips of folders that are heard without their labels.

    Args:
        names: corpora, which are taken without their official test speakers, or other folders of audio.
        folder: what holds these folders.

    Raises:
        DatasetError: a folder is missing or has no audio.
    """
    found: list[Utterance] = []
    for name in names:
        place = folder / name
        if name in CORPORA:
            corpus, place = find_corpus(name, place)
            found += [clip for clip in corpus.read(place) if clip.speaker not in corpus.test_speakers]
            continue
        clips = [
            Utterance(
                id=f"{name}/{path.relative_to(place).with_suffix('')}", path=path, label="", speaker="", corpus=name
            )
            for path in (audio_files(place) if place.is_dir() else ())
        ]
        if not clips:
            raise DatasetError(
                f"{place}: no audio is here, which the recipe wants heard: add some, or change frames.audio"
            )
        found += clips
    return found


def _check_labels(
    folder: Path, utterances: Sequence[Utterance], frontend: FrontendConfig, network: Callable[[int], NetworkConfig]
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
