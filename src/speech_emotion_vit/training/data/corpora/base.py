"""What a corpus is: the facts about it, and how its files become `Utterance` objects."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

from ....audio.suffixes import Search, find_audio
from ....errors import DatasetError, one_line

MOST_NAMED = 8  # file names in one message; the rest is counted
ORIGINAL = "original"
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One recording of a corpus, or one of its altered versions."""

    id: str
    """Unique among all corpora: ``crema-d/1001_DFA_ANG_XX``; a path or a name of the user's own recordings. The id of
    a version has the version's name behind it: ``crema-d/1001_DFA_ANG_XX+noise``."""
    path: Path
    """The audio file."""
    label: str
    """English name of the emotion; empty where the corpus has no labels."""
    speaker: str
    """The speaker, unique among all corpora: ``crema-d/1001``; empty where unknown."""
    sentence: str = ""
    """The sentence, as the corpus codes it; empty where unknown."""
    corpus: str = "folder"
    """Name of the corpus; ``folder`` for the user's own recordings."""
    part: str = ""
    """``train``, ``validation`` or ``test`` if the user's own table names it; else empty."""
    version: str = ORIGINAL
    """``original``, or how the recording is altered when it is read."""

    @property
    def recording(self) -> str:
        """Id of the original recording."""
        return self.id if self.version == ORIGINAL else self.id.removesuffix(f"+{self.version}")

    def altered(self, version: str) -> Utterance:
        """Return this recording in another version; in ``original`` it is itself."""
        if version == ORIGINAL:
            return self
        return dataclasses.replace(self, id=f"{self.id}+{version}", version=version)


class Parsed(NamedTuple):
    """What is read from the name of a file."""

    id: str
    """The canonical file stem, unique in the corpus."""
    label: str
    """English name of the emotion; empty where there is none."""
    speaker: str
    """As the corpus codes it; empty where unknown."""
    sentence: str
    """As the corpus codes it; empty where unknown."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The facts about a corpus, known before one of its files is opened."""

    name: str
    """Name on the command line and of the data folder."""
    title: str
    """Name in reports."""
    language: str
    """The language or languages spoken."""
    source: str
    """Where it is obtained."""
    license: str
    """Under which licence."""
    free: bool
    """Whether a model that everybody may use, businesses too, may be trained on it."""
    citation: str
    """What to cite."""
    layout: str
    """What the folder must look like."""
    labels: tuple[str, ...]
    """Its emotions in alphabetical order; empty where there are none."""
    parse: Callable[[PurePath], Parsed | None]
    """Reads a file's path inside the corpus; returns None for a file that does not belong to it."""
    published: frozenset[str] = frozenset()
    """Ids of the published utterances; empty where there is no such list."""
    defects: Mapping[str, str] = field(default_factory=dict)
    """Id to what is wrong with it. Such a clip is neither trained nor scored on, except under ``paper``."""
    official_split: str = ""
    """Name of the official split by speakers; empty where there is none."""
    test_speakers: frozenset[str] = frozenset()
    """Test speakers of the official split."""
    validation_speakers: frozenset[str] = frozenset()
    """Validation speakers of the official split."""
    leave_one_out: bool = False
    """Whether ``speaker`` leaves each speaker out in turn. Without this and an official split, speakers are drawn."""
    common_sentences: frozenset[str] = frozenset()
    """The sentences that are spoken in every emotion, if others are not, so that their words give the emotion away."""

    def read(self, folder: Path) -> list[Utterance]:
        """Return the utterances in `folder`, in the order of their ids.

        Raises:
            DatasetError: there is no file of the corpus in `folder`, or one occurs twice.
        """
        found = []
        for path in audio_files(folder):
            parsed = self.parse(path.relative_to(folder))
            if parsed is not None:
                found.append(
                    Utterance(
                        id=f"{self.name}/{parsed.id}",
                        path=path,
                        label=parsed.label,
                        speaker=f"{self.name}/{parsed.speaker}" if parsed.speaker else "",
                        sentence=parsed.sentence,
                        corpus=self.name,
                    )
                )
        return checked(found, folder, self.layout)

    def remarks(self, folder: Path, utterances: Sequence[Utterance]) -> list[str]:
        """Return how `folder` differs from the published corpus, given the utterances that `read` found in it."""
        found = search_remarks(folder, others=False)
        present = {utterance.id for utterance in utterances}
        if missing := sorted(self.published - present):
            found.append(f"{len(missing)} of {len(self.published)} utterances are missing: {named(missing)}")
        if self.published and (extra := sorted(present - self.published)):
            found.append(f"{len(extra)} utterances are not in the published corpus: {named(extra)}")
        read = {utterance.path for utterance in utterances}
        if others := [path.name for path in audio_files(folder) if path not in read]:
            found.append(f"{len(others)} audio files are not named like {self.title}'s: {named(others)}")
        return found


def qualified(name: str, ids: Sequence[str] | frozenset[str]) -> frozenset[str]:
    """Return ids or speakers of the corpus `name` as they are among all corpora."""
    return frozenset(f"{name}/{each}" for each in ids)


def audio_files(folder: Path) -> Iterator[Path]:
    """Yield the files in `folder` and below that are named like audio, in a stable order; links are followed.

    Raises:
        DatasetError: the folder cannot be read.
    """
    yield from (path for path in map(Path, _search(folder).paths) if path.is_file())


def search_remarks(folder: Path, *, others: bool) -> list[str]:
    """Return remarks on what looks like audio in `folder` and cannot be read, with `others` also on all other files.

    Raises:
        DatasetError: the folder cannot be read.
    """
    found = _search(folder)
    closed = [Path(fault.filename) for fault in found.closed]
    lost = [path for path in map(Path, found.paths) if not path.is_file()]
    remarks = []
    for paths, what in ((closed, "folders cannot be read"), (lost, "names of audio lead to no file")):
        if paths:
            names = named([as_utf8(str(path.relative_to(folder))) for path in paths])
            remarks.append(f"{len(paths)} {what} and are left out: {names}")
    if others and (passed_over := found.passed_over()) is not None:
        remarks.append(passed_over)
    return remarks


def _search(folder: Path) -> Search:
    found = find_audio(folder)
    for fault in found.closed:
        if Path(fault.filename) == folder:
            raise DatasetError(f"{folder}: cannot be read ({one_line(fault)}): check its permissions") from fault
    return found


def as_utf8(name: str) -> str:
    """Return `name` as valid UTF-8: bytes of a file name that are not UTF-8 become escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def checked(utterances: Sequence[Utterance], folder: Path, layout: str) -> list[Utterance]:
    """Return `utterances` sorted by id.

    Raises:
        DatasetError: there are none, or an id occurs twice.
    """
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
