"""Corpora: a folder becomes a list of `Utterance`, one pure function per corpus.

The file names carry the labels in all three, so no list of labels is needed. Every reader takes any audio suffix
that soundfile reads, in a stable order; `catalogue` knows what was published.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...audio.reader import AUDIO_SUFFIXES
from ...errors import DatasetError, one_line
from ...files import find_files

MOST_NAMED = 8  # file names in one message; the rest is counted

CREMA_D_LAYOUT = "AudioWAV/1001_DFA_ANG_XX.wav and 7441 more"
EMODB_LAYOUT = "wav/03a01Fa.wav and 534 more"
SAVEE_LAYOUT = "AudioData/DC/a01.wav and 479 more, or flat, DC_a01.wav"
FOLDER_LAYOUT = "one sub-folder of audio per label, or a CSV file with the columns path,label and perhaps speaker,split"
PARTS = ("train", "validation", "test")


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
    corpus: str = ""
    """In a mixture of corpora, the one it is from; its id and speaker then begin with that name."""
    part: str = ""
    """Where its table says so: ``train``, ``validation`` or ``test``."""
    votes: tuple[tuple[str, ...], ...] = ()
    """What most listeners heard, from the voice alone and with the face: a label, or several that are level."""


# CREMA-D ---------------------------------------------------------------------------------------------------------

_CREMA_D_NAME = re.compile(r"(10\d\d)_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX?)")
CREMA_D_LABELS = {
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
    *(f"{take}_{label}_XX" for take in ("1008_WSI", "1009_MTI", "1019_ITH") for label in CREMA_D_LABELS),
    "1002_TIE_NEU_XX",
    "1076_ITS_NEU_XX",
}
CREMA_D_SAME = (
    ("1006_TIE_HAP_XX", "1006_TIE_NEU_XX"),
    ("1013_WSI_DIS_XX", "1013_WSI_SAD_XX"),
    ("1017_IWW_ANG_XX", "1017_IWW_FEA_XX"),
)


def crema_d_ids() -> list[str]:
    """Return the published 7442: 91 actors, 12 sentences, one of them at three intensities."""
    ids = []
    for actor in range(1001, 1092):
        for sentence in _CREMA_D_SENTENCES:
            for label in CREMA_D_LABELS:
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
        DatasetError: there is no file of the corpus in `folder`, or one twice, or its table of votes is damaged.
    """
    utterances = []
    votes = _crema_d_votes(folder / "summaryTable.csv")
    for path in audio_files(folder):
        name = _crema_d_id(path.stem)
        if name is not None:
            speaker, sentence, code, _ = name.split("_")
            utterances.append(
                Utterance(
                    id=name,
                    path=path,
                    label=CREMA_D_LABELS[code],
                    speaker=speaker,
                    sentence=sentence,
                    votes=votes.get(name, ()),
                )
            )
    return _checked(utterances, folder, CREMA_D_LAYOUT)


def _crema_d_votes(table: Path) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return `Utterance.votes` by id; none where the corpus came without its tables."""
    if not table.is_file():
        return {}
    by_letter = {code[0]: label for code, label in CREMA_D_LABELS.items()}
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise csv.Error("it has no rows")
        return {
            row["FileName"]: tuple(
                tuple(by_letter[letter] for letter in row[column].split(":"))
                for column in ("VoiceVote", "MultiModalVote")
            )
            for row in rows
        }
    except (OSError, UnicodeError, KeyError, AttributeError, csv.Error) as error:
        raise DatasetError(f"{table}: is not CREMA-D's table of votes ({one_line(error)}): fetch it again") from error


# EmoDB -----------------------------------------------------------------------------------------------------------

_EMODB_NAME = re.compile(r"(03|08|09|1[0-6])([ab]\d\d)([WLEAFTN])([a-f])")
EMODB_LABELS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
# Released takes by speaker: sentences, each followed by label and version of its takes.
_EMODB_TAKES = {
    "03": (
        "a01 Fa Nc Wa a02 Fc Nc Ta Wb Wc a04 Ad Fd Lc Nc Ta Wc a05 Aa Fc Nd Tc Wa Wb a07 Fa Fb La Nc Wc b01 Fa Lb "
        "Nb Td Wa Wc b02 Aa La Na Tb Wb b03 Nb Tc Wc b09 La Nc Tc Wa b10 Ab Ec Na Nc Wb Wc"
    ),
    "08": (
        "a01 Ab Fd Lc Na Wa Wc a02 Ab Ac Fe La Na Tb Wc a04 Ff La Nc Tb Wc a05 Fe Lc Nb Ta Wa a07 Fd La Na Ta Tb "
        "Wc b01 Aa Fd Fe Lb Na Wa b02 Ff La Nb Tc Wd b03 Fe Lc Nb Tc Wd b09 Ab Fd Lc Nb Tb Wa Wc b10 Aa Fd La Nc "
        "Tc Wa"
    ),
    "09": (
        "a01 Ea Fa Nb Wb a02 Ea Eb La Wb a04 Fd La Nb Wa a05 Ed Lc Nb Tb Wb Wc a07 Eb Na Ta Wb Wd b01 Ea Na Wb b02 "
        "Na Tb Wc Wd b03 Ed Fa Fd Lb Nb Ta Wb b09 Ea Nd Wa b10 Aa Nd Wa"
    ),
    "10": (
        "a01 Ac Nb Wa a02 Ab Fa Lb Na Wa a04 Fd Nb Wa Wb a05 Aa Ld Tb Wb a07 Aa Ad La Ta Wb b01 Aa Ea Fa Lb b02 Aa "
        "La Na Wb b03 La Tb Wb b09 Ad Lb Wb b10 Fc Lc Wa"
    ),
    "11": (
        "a01 Aa Ab Ld Nd Wc a02 Ec Fb Ld Nc Tc Wc a04 Ac Fd Nd Wc a05 Ad Fb Fc Lc Na Td Wd a07 Ac Ld Ta Wc b01 Ab "
        "Eb Fc Lb Nc Wd b02 Ab Fd Na Td Wb b03 Fc Lc Nb Td Wa Wb b09 Ad Fd Ld Na Td Wa b10 Ad Ae Ld Nc Td Wa"
    ),
    "12": (
        "a01 Fb Lb Nb Wc a02 Ac Ec Nb Wa Wc a04 Wc a05 Ab Lb Nd Ta Wb a07 Ac La Wa b01 Ta Wa b02 Ad Ea Fb Na Wa Wb "
        "Wd b03 La Ta b09 Ac Td Wc b10 Ac Ld Wa"
    ),
    "13": (
        "a01 Ac Ea Ec Fd Lb Nb Wb a02 Ad Ec Fa Lc Nc Ta Wa a04 Ac Fc Lb Ta Wc a05 Aa Ea Lc Nb Tc Wa Wc a07 Fd Lb "
        "Na Tc Wb b01 Ab Ec Fc Ld Nc Wa b02 Fb Lc Nb Wa b03 Ac Ed Fd Lb Na Td Wc b09 Ab Ec Fb Fc La Na Wa b10 Ec "
        "Fa La Nc Wa Wc"
    ),
    "14": (
        "a01 Aa Ac Ea Na Wa Wc a02 Ab Ea Fd La Nc Tb Wa Wc a04 Aa Ed Lb Tb Tc Wb Wc a05 Aa Ac Fa Fb Lb Na Ta Tc Wa "
        "Wb a07 Aa Eb Fd Lc Ld Na Tc Wc b01 Ac Eb Fa Fc Na Wc b02 Aa Fb Na Tc Wb Wd b03 Ad Ed Lb Ta Wb b09 Ac Ea "
        "Fc Lb Td Wa Wc b10 Ad Eb Lb Nb Tc Wc"
    ),
    "15": (
        "a01 Ea Fb La Nb Wa a02 Ac Ea La Na Ta Wb Wd a04 Ab Ac Fd Nc Wa Wb a05 Eb Fb Lb Na Wa a07 Ac Eb Fa Fb Ld "
        "Nc b01 Ec Lb Na Wc b02 Aa Lb Nd Tc Wa Wc b03 Aa Lc Nb Tc Wa Wb b09 Ac Fa La Nb Ta Wb b10 Ac Lc Nb Nc Wa"
    ),
    "16": (
        "a01 Ec Fc Lb Nc Tb Wb a02 Ea Ec Lb Nb Tc Wb a04 Ab Ea Fa La Lc Nc Tc Wb Wc a05 Ab Ea Fc La Tb Wb Wc a07 "
        "Ea Fa Fb La Lb Nb Td Wa b01 Aa Eb Fa La Lc Tb Wa Wb b02 Aa Eb Fd Lb Wb b03 Ad Ea Fa Fd La Nb Ta Wb b09 Ab "
        "Eb Fb La Lb Wb b10 Aa Eb Fb Lb Tb Td Wa Wb"
    ),
}


def emodb_ids() -> list[str]:
    """Return the released 535."""
    ids = []
    for speaker, takes in _EMODB_TAKES.items():
        sentence = ""
        for word in takes.split():
            if len(word) == 3:
                sentence = word
            else:
                ids.append(f"{speaker}{sentence}{word}")
    return ids


def read_emodb(folder: Path) -> list[Utterance]:
    """Read EmoDB: ``wav/03a01Fa.wav``, also without the ``wav`` folder.

    Raises:
        DatasetError: there is no file of the corpus in `folder`, or one twice.
    """
    utterances = []
    for path in audio_files(folder):
        match = _EMODB_NAME.fullmatch(path.stem)
        if match:
            speaker, sentence, code, _ = match.groups()
            utterances.append(
                Utterance(id=path.stem, path=path, label=EMODB_LABELS[code], speaker=speaker, sentence=sentence)
            )
    return _checked(utterances, folder, EMODB_LAYOUT)


# SAVEE -----------------------------------------------------------------------------------------------------------

_SAVEE_NAME = re.compile(r"(?:(DC|JE|JK|KL)_)?(a|d|f|h|n|sa|su)(\d\d)")
_SAVEE_SPEAKERS = ("DC", "JE", "JK", "KL")
SAVEE_LABELS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}


def savee_ids() -> list[str]:
    """Return the published 480: per speaker 15 of each emotion, 30 neutral."""
    return [
        f"{speaker}_{code}{number:02}"
        for speaker in _SAVEE_SPEAKERS
        for code in SAVEE_LABELS
        for number in range(1, 31 if code == "n" else 16)
    ]


def read_savee(folder: Path) -> list[Utterance]:
    """Read SAVEE: ``AudioData/DC/a01.wav``, or the widespread flat copy ``DC_a01.wav``.

    Raises:
        DatasetError: there is no file of the corpus in `folder`, or one twice.
    """
    utterances = []
    for path in audio_files(folder):
        match = _SAVEE_NAME.fullmatch(path.stem)
        if match:
            speaker = match[1] or path.parent.name
            if speaker in _SAVEE_SPEAKERS:
                sentence = f"{match[2]}{match[3]}"
                utterances.append(
                    Utterance(
                        id=f"{speaker}_{sentence}",
                        path=path,
                        label=SAVEE_LABELS[match[2]],
                        speaker=speaker,
                        sentence=sentence,
                    )
                )
    return _checked(utterances, folder, SAVEE_LAYOUT)


# A folder of the user's own --------------------------------------------------------------------------------------


def read_folder(source: Path) -> list[Utterance]:
    """Read one sub-folder per label, or a CSV file: ``path,label`` and optionally ``speaker``, ``sentence``, ``split``.

    Paths in the CSV are relative to its folder. A sub-folder's audio may lie deeper; its speakers are unknown.

    Raises:
        DatasetError: there is nothing to read, a column or a file is missing, a path occurs twice, or a split is none.
    """
    if source.is_file():
        return _checked(_read_csv(source), source, FOLDER_LAYOUT)
    utterances = []
    for path in audio_files(source):
        parts = path.relative_to(source).parts
        if len(parts) > 1:
            name = _as_utf8(path.relative_to(source).with_suffix("").as_posix())
            utterances.append(Utterance(id=name, path=path, label=parts[0], speaker="", sentence=""))
    return _checked(utterances, source, FOLDER_LAYOUT)


def _read_csv(source: Path) -> list[Utterance]:
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = set(reader.fieldnames or ()), [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DatasetError(
            f"{source}: cannot be read as a table ({one_line(error)}): give a folder, or save the table as CSV in UTF-8"
        ) from error
    if missing := {"path", "label"} - columns:
        raise DatasetError(f"{source}: lacks the columns {sorted(missing)}: its first line must name path,label")
    utterances = []
    lines: dict[Path, int] = {}
    for line, row in rows:
        # A blank too many would be another voice, on the other side of a split.
        values = {name: (row.get(name) or "").strip() for name in ("path", "label", "speaker", "sentence", "split")}
        path = source.parent / values["path"]
        if not path.is_file():
            raise DatasetError(f"{source}: line {line}: no such file: {path}: paths are relative to the table's folder")
        if not values["label"]:
            raise DatasetError(f"{source}: line {line}: the label is empty: name it, or remove the line")
        if "split" in columns and values["split"] not in PARTS:
            raise DatasetError(
                f"{source}: line {line}: split is {values['split']!r}: write {', '.join(PARTS)} in every line, "
                "or leave the column out"
            )
        before = lines.setdefault(path.resolve(), line)
        if before != line:
            raise DatasetError(f"{source}: line {line}: {path} is the file of line {before}: keep one of the two")
        utterances.append(
            Utterance(
                id=_as_utf8(Path(values["path"]).as_posix()),
                path=path,
                label=values["label"],
                speaker=values["speaker"],
                sentence=values["sentence"],
                part=values["split"],
            )
        )
    return utterances


# Common ----------------------------------------------------------------------------------------------------------


# Several corpora together -----------------------------------------------------------------------------------------

GENERAL_LAYOUT = "the folders crema-d, emodb and savee, each as published"
_MEMBERS = {"crema-d": read_crema_d, "emodb": read_emodb, "savee": read_savee}


def read_general(folder: Path) -> list[Utterance]:
    """Return the utterances of CREMA-D, EmoDB and SAVEE in the sub-folders of these names.

    Raises:
        DatasetError: one of them is not there.
    """
    missing = [name for name in _MEMBERS if not (folder / name).is_dir()]
    if missing:
        raise DatasetError(f"{folder}: has no folder {' and no folder '.join(missing)}: expected is {GENERAL_LAYOUT}")
    return [
        dataclasses.replace(utterance, id=f"{name}/{utterance.id}", speaker=f"{name}/{utterance.speaker}", corpus=name)
        for name, read in _MEMBERS.items()
        for utterance in read(folder / name)
    ]


def possible_labels(utterances: Sequence[Utterance]) -> dict[str, set[str]]:
    """Return the labels of every corpus among `utterances`: what its listeners could have been asked for."""
    found: dict[str, set[str]] = {}
    for utterance in utterances:
        found.setdefault(utterance.corpus, set()).add(utterance.label)
    return found


def audio_files(folder: Path) -> Iterator[Path]:
    """Yield the files in `folder`, however deep, that are named like audio, in a stable order; links are followed.

    Raises:
        DatasetError: the folder cannot be read.
    """
    yield from (path for path in _found(folder)[0] if path.is_file())


def overlooked(folder: Path) -> list[str]:
    """Return one remark per kind of thing in `folder` that looks like audio, or may hold some, and cannot be read.

    Raises:
        DatasetError: the folder cannot be read.
    """
    found, closed = _found(folder)
    lost = [path for path in found if not path.is_file()]
    remarks = []
    for paths, what in ((closed, "folders cannot be read"), (lost, "names of audio lead to no file")):
        if paths:
            names = named([_as_utf8(str(path.relative_to(folder))) for path in paths])
            remarks.append(f"{len(paths)} {what} and are left out: {names}")
    return remarks


def _found(folder: Path) -> tuple[list[Path], list[Path]]:
    found, faults = find_files(folder, AUDIO_SUFFIXES)
    closed = [Path(fault.filename) for fault in faults]
    if folder in closed:
        raise DatasetError(f"{folder}: cannot be read ({one_line(faults[0])}): check its permissions") from faults[0]
    return [Path(path) for path in found], closed


def _as_utf8(name: str) -> str:
    """Return `name` as every table can hold it: bytes of a file name that are no UTF-8 become their escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _checked(utterances: list[Utterance], folder: Path, layout: str) -> list[Utterance]:
    """Return `utterances` sorted by id; refuse none at all and any id that occurs twice."""
    if not utterances:
        raise DatasetError(f"{folder}: no audio named as expected is here: expected is {layout}")
    twice = [name for name, count in Counter(utterance.id for utterance in utterances).items() if count > 1]
    if twice:
        raise DatasetError(f"{folder}: occurs more than once: {named(sorted(twice))}: keep one copy of each")
    return sorted(utterances, key=lambda utterance: utterance.id)


def named(names: Sequence[str]) -> str:
    """Return the first few of `names` and the number of the rest."""
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
