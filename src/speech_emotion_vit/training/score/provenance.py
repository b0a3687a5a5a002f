"""What a network has heard, so that no score is of clips that it, or a network it learnt from, was trained on."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import DatasetError, SpeechEmotionError, TrainingError
from ...weights.resolve import ResolvedModel, resolve_model
from ..data.corpora import Utterance, named
from ..data.protocols import Protocol, Split
from ..folder import RUN_FILE, SPLIT_FILE, read_json

OWN_CLIPS = "folder"  # the corpus of one's own clips: a name that does not say which
WHAT_COUNTS = {"corpus": "the corpora of ", "speaker": "speakers of ", "random": "", "paper": ""}


@dataclass
class Heard:
    """Training clips of a network and of the one that it started from, as ``corpus/name``.

    What was heard without labels does not count: nothing about an emotion can be learnt from it.
    """

    speakers: set[str] = field(default_factory=set)
    """Speakers any of whose clips may have been heard."""
    clips: dict[str, str] = field(default_factory=dict)
    """Speaker by clip, where the clips are on record."""
    contents: set[str] = field(default_factory=set)
    """SHA-256 of the files of clips, where these are on record."""
    unknown: list[str] = field(default_factory=list)
    """Models among them that nobody says it of."""

    @property
    def corpora(self) -> set[str]:
        """Published corpora of which anything was heard."""
        return {name.split("/", 1)[0] for name in (*self.speakers, *self.clips)}

    def among(self, utterances: Sequence[Utterance], protocol: Protocol, contents: Mapping[str, str]) -> set[str]:
        """Return the recordings among `utterances` that were heard.

        Args:
            utterances: all of a corpus; one's own clips are known by their content alone, because any folder may have
                any names.
            protocol: what a score is to mean. Under ``speaker`` all clips of a voice that was heard count, under
                ``corpus`` all of a corpus of which any was.
            contents: SHA-256 of the files by recording.
        """
        heard = [
            utterance
            for utterance in utterances
            if utterance.recording in self.clips
            or utterance.speaker in self.speakers
            or contents.get(utterance.recording) in self.contents
        ]
        if protocol == "corpus":
            corpora = {utterance.corpus for utterance in heard}
            return {utterance.recording for utterance in utterances if utterance.corpus in corpora}
        if protocol == "speaker":
            voices = {utterance.speaker for utterance in heard}
            return {utterance.recording for utterance in utterances if utterance.speaker in voices}
        return {utterance.recording for utterance in heard}


def heard_by(model: str | ResolvedModel | None) -> Heard:
    """Return what is on record: in the manifest, or in the folder of the run that trained the model.

    Args:
        model: name, folder or file, or what they were resolved to; None is the default model.

    Raises:
        WeightsError: the model cannot be found or verified.
    """
    heard, read = Heard(), set[Path]()
    _add(heard, model if isinstance(model, ResolvedModel) else resolve_model(model), read)
    return heard


def _add(heard: Heard, model: ResolvedModel, read: set[Path]) -> None:
    """Add to `heard` what is on record of a model and of those before it, but for the folders that were `read`."""
    if model.entry is not None:
        by_corpus = model.entry.heard.items()
        heard.speakers |= {f"{corpus}/{speaker}" for corpus, speakers in by_corpus for speaker in speakers}
        return
    # The weights lie in the run's folder, or in that of their role in it.
    # A link is followed if need be, and of "model.safetensors" the folder has a name only in full.
    paths = (Path(os.path.abspath(model.weights)), model.weights.resolve())
    places = [place for path in paths for place in path.parents[:2]]
    folder = next((place for place in places if (place / SPLIT_FILE).is_file()), None)
    if folder in read:
        return
    try:
        if folder is None:
            raise TrainingError("nobody says what it was trained on")
        read.add(folder)
        run = read_json(folder / RUN_FILE)
        corpus, before = run["corpus"], str(run["recipe"]["start"])
        with open(folder / SPLIT_FILE, newline="", encoding="utf-8") as file:
            train = [row for row in csv.DictReader(file) if row["part"] == "train"]
        if corpus == OWN_CLIPS:
            heard.contents |= {row["content"] for row in train if row["content"]}
        else:
            heard.clips |= {row["utterance"]: row["speaker"] for row in train}
            heard.contents |= {row["content"] for row in train if row.get("content")}
    except (SpeechEmotionError, OSError, KeyError, TypeError, ValueError, AttributeError, csv.Error):
        heard.unknown.append(model.name)  # files of another program, or of a hand that changed them
        return
    if before:
        try:
            _add(heard, resolve_model(before, local_files_only=True), read)
        except SpeechEmotionError:  # not on this machine any more
            heard.unknown.append(before)


def versions_of(models: Sequence[str]) -> list[str]:
    """Return what a run's record says it learnt from: a name may stand for another file tomorrow.

    Raises:
        WeightsError: one cannot be found or verified.
    """
    return [f"{resolved.name}@{resolved.revision}" for resolved in map(resolve_model, models)]


def require_unheard(
    models: Sequence[str],
    split: Split,
    utterances: Sequence[Utterance],
    contents: Mapping[str, str],
) -> list[str]:
    """Refuse models that have heard test clips, under ``speaker`` test speakers, and return what else is to be said.

    Args:
        models: what a run starts from.
        split: of the run.
        utterances: of its corpus.
        contents: SHA-256 of its files by recording.

    Raises:
        DatasetError: one has.
        WeightsError: one cannot be found or verified.
    """
    remarks = []
    for model in models:
        heard = heard_by(model)
        known = heard.among(utterances, split.protocol, contents)
        what = WHAT_COUNTS[split.protocol]
        if shared := _names(split.test, known):
            raise DatasetError(
                f"the {split.protocol} split leaks: {model} was trained on {what}{len(shared)} test clips: "
                f"{named(shared)}: start from a model that was not"
            )
        if shared := _names(split.validation, known):
            remarks.append(f"{model} was trained on {what}{len(shared)} validation clips, so they flatter the run")
        if heard.unknown:
            remarks.append(f"what {named(heard.unknown)} was trained on is not on record, so leaks cannot be ruled out")
    return remarks


def _names(utterances: Sequence[Utterance], among: set[str]) -> list[str]:
    return sorted({utterance.recording for utterance in utterances} & among)
