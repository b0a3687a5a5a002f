"""What a model was trained on, so that no score is of clips that it, or a model that it started from, has seen."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import DatasetError, SpeechEmotionError
from ...weights.resolve import ResolvedModel, resolve_model
from ..data.corpora import Utterance, named
from ..data.protocols import Protocol, Split
from ..folder import RUN_FILE, SPLIT_FILE, read_json

OWN_CLIPS = "folder"  # the corpus of one's own clips: a name that does not say which
WHAT_COUNTS = {"corpus": "the corpora of ", "speaker": "speakers of ", "random": "", "paper": ""}


@dataclass
class TrainingRecord:
    """Training clips of a model and of the models that it started from, as ``corpus/name``.

    Clips that were used without their labels do not count: nothing about an emotion can be learnt from them.
    """

    speakers: set[str] = field(default_factory=set)
    """Speakers any of whose clips may be among them."""
    clips: dict[str, str] = field(default_factory=dict)
    """Speaker by clip, where the clips are on record."""
    contents: set[str] = field(default_factory=set)
    """SHA-256 of the files of clips, where these are on record."""
    unknown: list[str] = field(default_factory=list)
    """Models that have no such record."""

    @property
    def corpora(self) -> set[str]:
        """Published corpora that have a clip among them."""
        return {name.split("/", 1)[0] for name in (*self.speakers, *self.clips)}

    def among(self, utterances: Sequence[Utterance], protocol: Protocol, contents: Mapping[str, str]) -> set[str]:
        """Return the recordings among `utterances` that count as known to the model.

        Args:
            utterances: all of a corpus. One's own clips are recognised by their content alone, because any folder may
                have any names.
            protocol: what a score is to mean. Under ``speaker`` all clips of a known voice count, under ``corpus`` all
                clips of a corpus that has a known clip.
            contents: SHA-256 of the files by recording.
        """
        known = [
            utterance
            for utterance in utterances
            if utterance.recording in self.clips
            or utterance.speaker in self.speakers
            or contents.get(utterance.recording) in self.contents
        ]
        if protocol in ("corpus", "speaker"):
            groups = {getattr(utterance, protocol) for utterance in known}
            known = [utterance for utterance in utterances if getattr(utterance, protocol) in groups]
        return {utterance.recording for utterance in known}


def training_record(model: str | ResolvedModel | None) -> TrainingRecord:
    """Return what the manifest, or the folder of the run that trained the model, has on record.

    Args:
        model: name, folder or file, or what they were resolved to; None is the default model.

    Raises:
        WeightsError: the model cannot be found or verified.
    """
    record, read = TrainingRecord(), set[Path]()
    _add(record, model if isinstance(model, ResolvedModel) else resolve_model(model), read)
    return record


def _add(record: TrainingRecord, model: ResolvedModel, read: set[Path]) -> None:
    """Add what is on record of a model and of those before it, except for the folders that were `read`."""
    if model.entry is not None:
        by_corpus = model.entry.heard.items()
        record.speakers |= {f"{corpus}/{speaker}" for corpus, speakers in by_corpus for speaker in speakers}
        return
    # The weights lie in the run's folder, or in that of their role in it. A link may lead there.
    # Of "model.safetensors" alone the folder has a name only in full.
    paths = (Path(os.path.abspath(model.weights)), model.weights.resolve())
    places = [place for path in paths for place in path.parents[:2]]
    folder = next((place for place in places if (place / SPLIT_FILE).is_file()), None)
    if folder is None:
        record.unknown.append(model.name)
        return
    if folder in read:
        return
    read.add(folder)
    try:
        run = read_json(folder / RUN_FILE)
        corpus, before = run["corpus"], str(run["recipe"]["start"])
        with open(folder / SPLIT_FILE, newline="", encoding="utf-8") as file:
            train = [row for row in csv.DictReader(file) if row["part"] == "train"]
        record.contents |= {row["content"] for row in train if row["content"]}
        if corpus != OWN_CLIPS:
            record.clips |= {row["utterance"]: row["speaker"] for row in train}
    except (SpeechEmotionError, OSError, LookupError, TypeError, ValueError, AttributeError, csv.Error):
        record.unknown.append(model.name)  # files of another program, or changed by hand
        return
    if before:
        try:
            _add(record, resolve_model(before, local_files_only=True), read)
        except SpeechEmotionError:  # not on this machine any more
            record.unknown.append(before)


def require_unknown(
    model: str, split: Split, utterances: Sequence[Utterance], contents: Mapping[str, str]
) -> list[str]:
    """Refuse a model that knows test clips, under ``speaker`` test speakers, and return remarks on the rest.

    Args:
        model: what a run starts from.
        split: of the run.
        utterances: of its corpus.
        contents: SHA-256 of its files by recording.

    Raises:
        DatasetError: it knows some.
        WeightsError: it cannot be found or verified.
    """
    record, remarks = training_record(model), []
    known, what = record.among(utterances, split.protocol, contents), WHAT_COUNTS[split.protocol]
    if shared := sorted({clip.recording for clip in split.test} & known):
        raise DatasetError(
            f"the {split.protocol} split leaks: {model} was trained on {what}{len(shared)} test clips: "
            f"{named(shared)}: start from a model that was not"
        )
    if shared := sorted({clip.recording for clip in split.validation} & known):
        remarks.append(f"{model} was trained on {what}{len(shared)} validation clips, so they flatter the run")
    if record.unknown:
        remarks.append(f"what {named(record.unknown)} was trained on is not on record, so leaks cannot be ruled out")
    return remarks
