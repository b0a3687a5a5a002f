"""Corpora: a folder becomes a list of `Utterance`, one pure function per corpus.

The file names carry the labels in all three, so no list of labels is needed. Every reader takes any audio suffix
that soundfile reads, in a stable order, and `remarks` says where a folder differs from what was published.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..audio import AUDIO_SUFFIXES
from ..errors import DatasetError

MOST_NAMED = 8  # file names in one message; the rest is counted


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One recording of a corpus."""

    id: str
    """Its original file stem, unique in the corpus."""
    path: Path
    """The audio file."""
    label: str
    """English name of the emotion."""
    speaker: str
    """Who speaks; empty where unknown."""
    sentence: str
    """What is said, as the corpus codes it; empty where unknown."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What is known about a corpus before a file of it is opened."""

    name: str
    """Name on the command line and of the data folder."""
    title: str
    """Name in reports."""
    read: Callable[[Path], list[Utterance]]
    """Folder to utterances."""
    source: str
    """Where it is obtained."""
    license: str
    """Under which licence."""
    layout: str
    """What the folder must look like."""
    citation: str
    """What to cite."""
    composition: Mapping[tuple[str, str], int]
    """Published number of utterances by speaker and label."""
    defects: Mapping[str, str]
    """Utterance to what is wrong with it; neither trained nor scored on outside the ``paper`` protocol."""

    @property
    def size(self) -> int:
        """Published number of utterances."""
        return sum(self.composition.values())


# CREMA-D ---------------------------------------------------------------------------------------------------------

_CREMA_D_NAME = re.compile(r"(10\d\d)_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX?)")
_CREMA_D_LABELS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
_CREMA_D_SENTENCES = ("DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
# Never recorded or never released: three actors lack one sentence altogether, two lack one neutral take.
_CREMA_D_ABSENT = {
    *(f"{take}_{label}_XX" for take in ("1008_WSI", "1009_MTI", "1019_ITH") for label in _CREMA_D_LABELS),
    "1002_TIE_NEU_XX",
    "1076_ITS_NEU_XX",
}
_CREMA_D_SAME = (
    ("1006_TIE_HAP_XX", "1006_TIE_NEU_XX"),
    ("1013_WSI_DIS_XX", "1013_WSI_SAD_XX"),
    ("1017_IWW_ANG_XX", "1017_IWW_FEA_XX"),
)


def _crema_d_ids() -> list[str]:
    """Return the published 7442: 91 actors, 12 sentences, one of them at three intensities."""
    ids = []
    for actor in range(1001, 1092):
        for sentence in _CREMA_D_SENTENCES:
            for label in _CREMA_D_LABELS:
                levels = ("LO", "MD", "HI") if sentence == "IEO" and label != "NEU" else ("XX",)
                ids += [f"{actor}_{sentence}_{label}_{level}" for level in levels]
    return [name for name in ids if name not in _CREMA_D_ABSENT]


def _crema_d_id(stem: str) -> str | None:
    """Return the canonical utterance id of a file stem; some copies write ``_X`` for ``_XX``."""
    if not _CREMA_D_NAME.fullmatch(stem):
        return None
    return f"{stem}X" if stem.endswith("_X") else stem


def read_crema_d(folder: Path) -> list[Utterance]:
    """Read CREMA-D: ``AudioWAV/1001_DFA_ANG_XX.wav``, also without the ``AudioWAV`` folder.

    Raises:
        DatasetError: there is no file of the corpus in `folder`, or one twice.
    """
    utterances = []
    for path in _audio_files(folder):
        name = _crema_d_id(path.stem)
        if name is not None:
            speaker, sentence, code, _ = name.split("_")
            utterances.append(
                Utterance(id=name, path=path, label=_CREMA_D_LABELS[code], speaker=speaker, sentence=sentence)
            )
    return _checked(utterances, "crema-d", folder)


# EmoDB -----------------------------------------------------------------------------------------------------------

_EMODB_NAME = re.compile(r"(03|08|09|1[0-6])([ab]\d\d)([WLEAFTN])([a-f])")
_EMODB_LABELS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
# Released utterances by speaker, in the order W L E A F T N.
_EMODB_COUNTS = {
    "03": (14, 5, 1, 4, 7, 7, 11),
    "08": (12, 10, 0, 6, 11, 9, 10),
    "09": (13, 4, 8, 1, 4, 4, 9),
    "10": (10, 8, 1, 8, 4, 3, 4),
    "11": (11, 8, 2, 10, 8, 7, 9),
    "12": (12, 5, 2, 6, 2, 4, 4),
    "13": (12, 10, 8, 7, 10, 5, 9),
    "14": (16, 8, 8, 12, 8, 10, 7),
    "15": (13, 9, 5, 8, 6, 4, 11),
    "16": (14, 14, 11, 7, 11, 9, 5),
}


def read_emodb(folder: Path) -> list[Utterance]:
    """Read EmoDB: ``wav/03a01Fa.wav``, also without the ``wav`` folder.

    Raises:
        DatasetError: there is no file of the corpus in `folder`, or one twice.
    """
    utterances = []
    for path in _audio_files(folder):
        match = _EMODB_NAME.fullmatch(path.stem)
        if match:
            speaker, sentence, code, _ = match.groups()
            utterances.append(
                Utterance(id=path.stem, path=path, label=_EMODB_LABELS[code], speaker=speaker, sentence=sentence)
            )
    return _checked(utterances, "emodb", folder)


# SAVEE -----------------------------------------------------------------------------------------------------------

_SAVEE_NAME = re.compile(r"(?:(DC|JE|JK|KL)_)?(a|d|f|h|n|sa|su)(\d\d)")
_SAVEE_SPEAKERS = ("DC", "JE", "JK", "KL")
_SAVEE_LABELS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}


def read_savee(folder: Path) -> list[Utterance]:
    """Read SAVEE: ``AudioData/DC/a01.wav``, or the widespread flat copy ``DC_a01.wav``.

    Raises:
        DatasetError: there is no file of the corpus in `folder`, or one twice.
    """
    utterances = []
    for path in _audio_files(folder):
        match = _SAVEE_NAME.fullmatch(path.stem)
        if match:
            speaker = match[1] or path.parent.name
            if speaker in _SAVEE_SPEAKERS:
                sentence = f"{match[2]}{match[3]}"
                utterances.append(
                    Utterance(
                        id=f"{speaker}_{sentence}",
                        path=path,
                        label=_SAVEE_LABELS[match[2]],
                        speaker=speaker,
                        sentence=sentence,
                    )
                )
    return _checked(utterances, "savee", folder)


# A folder of the user's own --------------------------------------------------------------------------------------


def read_folder(source: Path) -> list[Utterance]:
    """Read one sub-folder per label, or a CSV file with the columns ``path,label`` and optionally ``speaker,sentence``.

    Paths in the CSV are relative to its folder. A sub-folder's audio may lie deeper; its speakers are unknown.

    Raises:
        DatasetError: there is nothing to read, a column or a file is missing, or a path occurs twice.
    """
    if source.is_file():
        return _checked(_read_csv(source), "folder", source)
    utterances = []
    for path in _audio_files(source):
        parts = path.relative_to(source).parts
        if len(parts) > 1:
            name = path.relative_to(source).with_suffix("").as_posix()
            utterances.append(Utterance(id=name, path=path, label=parts[0], speaker="", sentence=""))
    return _checked(utterances, "folder", source)


def _read_csv(source: Path) -> list[Utterance]:
    with open(source, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        missing = {"path", "label"} - set(rows.fieldnames or ())
        if missing:
            raise DatasetError(f"{source}: lacks the columns {sorted(missing)}: its first line must name path,label")
        utterances = []
        for line, row in enumerate(rows, start=2):
            path = source.parent / (row["path"] or "")
            if not path.is_file():
                raise DatasetError(f"{source}: line {line}: no such file: {path}")
            if not row["label"]:
                raise DatasetError(f"{source}: line {line}: the label is empty")
            utterances.append(
                Utterance(
                    id=Path(row["path"]).as_posix(),
                    path=path,
                    label=row["label"],
                    speaker=row.get("speaker") or "",
                    sentence=row.get("sentence") or "",
                )
            )
    return utterances


# Common ----------------------------------------------------------------------------------------------------------


def _audio_files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())


def _checked(utterances: list[Utterance], name: str, folder: Path) -> list[Utterance]:
    """Return `utterances` sorted by id; refuse none at all and any id that occurs twice."""
    if not utterances:
        raise DatasetError(f"{folder}: no file of the corpus is here. {describe_missing(name)}")
    twice = [name for name, count in Counter(utterance.id for utterance in utterances).items() if count > 1]
    if twice:
        raise DatasetError(f"{folder}: occurs more than once: {named(sorted(twice))}: keep one copy of each")
    return sorted(utterances, key=lambda utterance: utterance.id)


def named(names: Sequence[str]) -> str:
    """Return the first few of `names` and the number of the rest."""
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def describe_missing(name: str) -> str:
    """Return the one message for a corpus that is not there: where it is obtained, its licence, its layout."""
    corpus = CORPORA[name]
    return (
        f"{corpus.title} is obtained from {corpus.source} ({corpus.license}); expected is {corpus.layout}: "
        f"pass the folder with --data-dir, or put it where $SPEECH_EMOTION_VIT_DATA/{name} is"
    )


def remarks(corpus: Corpus, folder: Path, utterances: Sequence[Utterance]) -> list[str]:
    """Return how `folder` differs from the published composition, naming what is missing and what does not belong."""
    if not corpus.composition:
        return []
    found = []
    if corpus.name == "crema-d":
        missing = sorted(set(_crema_d_ids()) - {utterance.id for utterance in utterances})
        extra = sorted({utterance.id for utterance in utterances} - set(_crema_d_ids()))
        if missing:
            found.append(f"{len(missing)} of {corpus.size} utterances are missing: {named(missing)}")
        if extra:
            found.append(f"{len(extra)} utterances are not in the published corpus: {named(extra)}")
    else:
        counts = Counter((utterance.speaker, utterance.label) for utterance in utterances)
        cells = [
            f"speaker {speaker} {label} has {counts[speaker, label]} instead of {expected}"
            for (speaker, label), expected in corpus.composition.items()
            if counts[speaker, label] != expected
        ]
        if cells:
            found.append(f"{len(utterances)} utterances instead of {corpus.size}: {named(cells)}")
    read = {utterance.path for utterance in utterances}
    strangers = [path.name for path in _audio_files(folder) if path not in read]
    if strangers:
        found.append(f"{len(strangers)} audio files are not named like {corpus.title}'s: {named(strangers)}")
    return found


def _count(cells: Iterator[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
    return MappingProxyType(dict(Counter(cells)))


CORPORA: Mapping[str, Corpus] = MappingProxyType(
    {
        "crema-d": Corpus(
            name="crema-d",
            title="CREMA-D",
            read=read_crema_d,
            source="https://github.com/CheyneyComputerScience/CREMA-D",
            license="Open Database License 1.0, contents under the Database Contents License 1.0",
            layout="AudioWAV/1001_DFA_ANG_XX.wav and 7441 more",
            citation="Cao et al., CREMA-D: Crowd-Sourced Emotional Multimodal Actors Dataset, IEEE TAC 5(4), 2014",
            composition=_count((name[:4], _CREMA_D_LABELS[name[9:12]]) for name in _crema_d_ids()),
            defects=MappingProxyType(
                {
                    "1076_MTI_SAD_XX": "all samples are zero",
                    **{name: f"the same recording as {other}" for name, other in _CREMA_D_SAME},
                    **{name: f"the same recording as {other}" for other, name in _CREMA_D_SAME},
                }
            ),
        ),
        "emodb": Corpus(
            name="emodb",
            title="EmoDB",
            read=read_emodb,
            source="http://emodb.bilderbar.info",
            license="CC BY 4.0 as far as known",
            layout="wav/03a01Fa.wav and 534 more",
            citation="Burkhardt et al., A Database of German Emotional Speech, Interspeech 2005",
            composition=MappingProxyType(
                {
                    (speaker, label): count
                    for speaker, counts in _EMODB_COUNTS.items()
                    for label, count in zip(_EMODB_LABELS.values(), counts, strict=True)
                    if count
                }
            ),
            defects=MappingProxyType({}),
        ),
        "savee": Corpus(
            name="savee",
            title="SAVEE",
            read=read_savee,
            source="http://kahlan.eps.surrey.ac.uk/savee/",
            license="research use, by registration",
            layout="AudioData/DC/a01.wav and 479 more, or flat DC_a01.wav",
            citation="Haq and Jackson, Multimodal Emotion Recognition, in: Machine Audition, IGI Global, 2010",
            composition=MappingProxyType(
                {
                    (speaker, label): 30 if label == "neutral" else 15
                    for speaker in _SAVEE_SPEAKERS
                    for label in _SAVEE_LABELS.values()
                }
            ),
            defects=MappingProxyType({}),
        ),
        "folder": Corpus(
            name="folder",
            title="your own folder",
            read=read_folder,
            source="you",
            license="yours",
            layout="one sub-folder of audio per label, or a CSV file with the columns path,label,speaker",
            citation="",
            composition=MappingProxyType({}),
            defects=MappingProxyType({}),
        ),
    }
)
