"""The corpora: what is known about each, where it is found on this machine, and how it differs there.

One file per corpus holds its layout, labels, speakers, counts, licence, citation, split and known defects. To add one,
write such a file and name it in `CORPORA`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ....errors import ConfigError, DatasetError, quoted
from .base import ORIGINAL, PARTS, Corpus, Utterance, audio_files, named, search_remarks
from .casia import CASIA
from .crema_d import CREMA_D
from .emodb import EMODB
from .emovo import EMOVO
from .own import LAYOUT as OWN_LAYOUT
from .own import read_folder
from .savee import SAVEE
from .urdu import URDU
from .wakewords import WAKEWORDS

__all__ = [
    "CORPORA",
    "FREE",
    "LABELLED",
    "ORIGINAL",
    "PARTS",
    "Corpus",
    "Utterance",
    "audio_files",
    "combine",
    "find_corpus",
    "named",
    "read_folder",
    "user_data_folder",
]


class _Own(Corpus):
    """The user's own recordings, in folders or a table."""

    def read(self, folder: Path) -> list[Utterance]:
        return read_folder(folder)

    def remarks(self, folder: Path, utterances: Sequence[Utterance]) -> list[str]:
        if folder.is_file():
            return []
        found = search_remarks(folder, others=True)
        if beside := [path.name for path in audio_files(folder) if path.parent == folder]:
            found.append(
                f"{len(beside)} clips beside the folders of labels have none and are left out: {named(beside)}"
            )
        return found


CORPORA: Mapping[str, Corpus] = MappingProxyType(
    {
        **{corpus.name: corpus for corpus in (CREMA_D, EMODB, SAVEE, EMOVO, CASIA, URDU, WAKEWORDS)},
        "folder": _Own(
            name="folder",
            title="your own folder",
            language="any",
            source="you",
            license="yours",
            free=True,
            citation="",
            layout=OWN_LAYOUT,
            labels=(),
            parse=lambda path: None,
        ),
    }
)
LABELLED = tuple(name for name, corpus in CORPORA.items() if corpus.labels)
FREE = tuple(name for name in LABELLED if CORPORA[name].free)


@dataclass(frozen=True, kw_only=True)
class _Several(Corpus):
    """Corpora as one, each in a folder of its name."""

    members: tuple[Corpus, ...]

    def read(self, folder: Path) -> list[Utterance]:
        missing = [member.name for member in self.members if not (folder / member.name).is_dir()]
        if missing:
            raise DatasetError(f"{folder}: has no folder {' and no folder '.join(missing)}: expected is {self.layout}")
        return [utterance for member in self.members for utterance in member.read(folder / member.name)]


def combine(names: Sequence[str]) -> Corpus:
    """Return the corpora `names` as one, called ``crema-d+emodb``: a folder with a sub-folder of each one's name.

    Raises:
        ConfigError: a name is unknown or occurs twice.
    """
    members = tuple(_published(name) for name in names)
    if len(set(names)) < len(names):
        raise ConfigError(f"a corpus is named twice: {'+'.join(names)}: name each once")
    if len(members) == 1:
        return members[0]
    titles = [member.title for member in members]
    return _Several(
        name="+".join(names),
        title=f"{', '.join(titles[:-1])} and {titles[-1]}",
        language=", ".join(dict.fromkeys(member.language for member in members)),
        source="; ".join(member.source for member in members),
        license="; ".join(f"{member.title}: {member.license}" for member in members),
        free=all(member.free for member in members),
        citation="; ".join(member.citation for member in members),
        layout=f"the folders {', '.join(names)}, each as published",
        labels=tuple(sorted({label for member in members for label in member.labels})),
        parse=lambda path: None,
        published=frozenset().union(*(member.published for member in members)),
        defects={name: why for member in members for name, why in member.defects.items()},
        members=members,
    )


def _published(name: str) -> Corpus:
    if name not in CORPORA or name == "folder":
        known = ", ".join(each for each in CORPORA if each != "folder")
        raise ConfigError(f"dataset must be one of {known}, several joined by +, or folder, not {quoted(name)}")
    return CORPORA[name]


def find_corpus(name: str, data_dir: Path | None) -> tuple[Corpus, Path]:
    """Return a corpus and where it is: `data_dir`, ``$SPEECH_EMOTION_VIT_DATA/<name>``, or the user's data folder.

    Args:
        name: of a corpus; several joined by ``+`` are in the folders of their names inside the place; or ``folder``.
        data_dir: where it is; None to search.

    Raises:
        ConfigError: there is no such corpus.
        DatasetError: it is in none of these places.
    """
    corpus = CORPORA["folder"] if name == "folder" else combine(name.split("+"))
    if data_dir is not None:
        if not data_dir.exists():
            raise DatasetError(f"{data_dir}: no such folder. {describe_missing(corpus)}")
        return corpus, data_dir
    places = [user_data_folder()]
    if root := os.environ.get("SPEECH_EMOTION_VIT_DATA"):
        places.insert(0, Path(root))
    if not isinstance(corpus, _Several):
        places = [place / name for place in places]
    for place in places:
        if place.is_dir() and name != "folder":
            return corpus, place
    raise DatasetError(f"{name} is not in {' and '.join(map(str, places))}. {describe_missing(corpus)}")


def user_data_folder() -> Path:
    """Return where the system keeps a user's data for this package."""
    import platformdirs

    return platformdirs.user_data_path("speech-emotion-vit", appauthor=False)


def describe_missing(corpus: Corpus) -> str:
    """Return the message for a corpus that is not there: where it is obtained, its licence, its layout."""
    if corpus.name == "folder":
        return f"recordings of your own are {corpus.layout}: pass them with --data-dir"
    place = "" if isinstance(corpus, _Several) else f"/{corpus.name}"
    return (
        f"{corpus.title} is obtained from {corpus.source} ({corpus.license}); expected is {corpus.layout}: "
        f"pass the folder with --data-dir, or put it where $SPEECH_EMOTION_VIT_DATA{place} is"
    )
