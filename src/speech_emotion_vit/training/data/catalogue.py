"""The catalogue: what is known about each corpus, where it is found on this machine, and how it differs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ...errors import ConfigError, DatasetError
from .corpora import (
    CREMA_D_LAYOUT,
    CREMA_D_SAME,
    EMODB_LAYOUT,
    FOLDER_LAYOUT,
    GENERAL_LAYOUT,
    SAVEE_LAYOUT,
    Utterance,
    audio_files,
    crema_d_ids,
    emodb_ids,
    named,
    overlooked,
    read_crema_d,
    read_emodb,
    read_folder,
    read_general,
    read_savee,
    savee_ids,
)


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
    published: frozenset[str]
    """Ids of the published utterances; empty where there is no such list."""
    defects: Mapping[str, str]
    """Utterance to what is wrong with it; neither trained nor scored on outside the ``paper`` protocol."""


_PUBLISHED: Mapping[str, Corpus] = MappingProxyType(
    {
        "crema-d": Corpus(
            name="crema-d",
            title="CREMA-D",
            read=read_crema_d,
            source="https://github.com/CheyneyComputerScience/CREMA-D",
            license="Open Database License 1.0, contents under the Database Contents License 1.0",
            layout=CREMA_D_LAYOUT,
            citation="Cao et al., CREMA-D: Crowd-Sourced Emotional Multimodal Actors Dataset, IEEE TAC 5(4), 2014",
            published=frozenset(crema_d_ids()),
            defects=MappingProxyType(
                {
                    "1076_MTI_SAD_XX": "all samples are zero",
                    **{name: f"the same recording as {other}" for name, other in CREMA_D_SAME},
                    **{name: f"the same recording as {other}" for other, name in CREMA_D_SAME},
                }
            ),
        ),
        "emodb": Corpus(
            name="emodb",
            title="EmoDB",
            read=read_emodb,
            source="http://emodb.bilderbar.info",
            license="CC BY 4.0 as far as known",
            layout=EMODB_LAYOUT,
            citation="Burkhardt et al., A Database of German Emotional Speech, Interspeech 2005",
            published=frozenset(emodb_ids()),
            defects=MappingProxyType({}),
        ),
        "savee": Corpus(
            name="savee",
            title="SAVEE",
            read=read_savee,
            source="http://kahlan.eps.surrey.ac.uk/savee/",
            license="research use, by registration",
            layout=SAVEE_LAYOUT,
            citation="Haq and Jackson, Multimodal Emotion Recognition, in: Machine Audition, IGI Global, 2010",
            published=frozenset(savee_ids()),
            defects=MappingProxyType({}),
        ),
    }
)

CORPORA: Mapping[str, Corpus] = MappingProxyType(
    {
        **_PUBLISHED,
        "general": Corpus(
            name="general",
            title="CREMA-D, EmoDB and SAVEE together",
            read=read_general,
            source="; ".join(corpus.source for corpus in _PUBLISHED.values()),
            license="; ".join(f"{corpus.title}: {corpus.license}" for corpus in _PUBLISHED.values()),
            layout=GENERAL_LAYOUT,
            citation="; ".join(corpus.citation for corpus in _PUBLISHED.values()),
            published=frozenset(f"{name}/{id_}" for name, corpus in _PUBLISHED.items() for id_ in corpus.published),
            defects=MappingProxyType(
                {f"{name}/{id_}": why for name, corpus in _PUBLISHED.items() for id_, why in corpus.defects.items()}
            ),
        ),
        "folder": Corpus(
            name="folder",
            title="your own folder",
            read=read_folder,
            source="you",
            license="yours",
            layout=FOLDER_LAYOUT,
            citation="",
            published=frozenset(),
            defects=MappingProxyType({}),
        ),
    }
)


def find_corpus(name: str, data_dir: Path | None) -> tuple[Corpus, Path]:
    """Return a corpus and where it is: `data_dir`, ``$SPEECH_EMOTION_VIT_DATA/<name>``, or the user's data folder.

    ``general`` is the folder that holds the three.

    Raises:
        ConfigError: there is no such corpus.
        DatasetError: it is in none of these places.
    """
    if name not in CORPORA:
        raise ConfigError(f"dataset must be one of {', '.join(CORPORA)}, not {name!r}")
    if data_dir is not None:
        if not data_dir.exists():
            raise DatasetError(f"{data_dir}: no such folder. {describe_missing(name)}")
        return CORPORA[name], data_dir
    places = [user_data_folder()]
    if root := os.environ.get("SPEECH_EMOTION_VIT_DATA"):
        places.insert(0, Path(root))
    places = places if name == "general" else [place / name for place in places]
    for place in places:
        if place.is_dir() and name != "folder":
            return CORPORA[name], place
    looked = " and ".join(map(str, places))
    raise DatasetError(f"{name} is not in {looked}. {describe_missing(name)}")


def user_data_folder() -> Path:
    """Return where the system keeps a user's data for this package."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return base / "speech-emotion-vit"


def describe_missing(name: str) -> str:
    """Return the one message for a corpus that is not there: where it is obtained, its licence, its layout."""
    corpus = CORPORA[name]
    if name == "folder":
        return f"recordings of your own are {corpus.layout}: pass them with --data-dir"
    return (
        f"{corpus.title} is obtained from {corpus.source} ({corpus.license}); expected is {corpus.layout}: "
        "pass the folder with --data-dir, or put it where $SPEECH_EMOTION_VIT_DATA"
        f"{'' if name == 'general' else f'/{name}'} is"
    )


def remarks(corpus: Corpus, folder: Path, utterances: Sequence[Utterance]) -> list[str]:
    """Return how `folder` differs from the published composition, naming what is missing and what does not belong.

    Of any folder it is said what in it was left out.
    """
    found = [] if folder.is_file() else overlooked(folder)
    if not corpus.published:
        if folder.is_dir() and (beside := [path.name for path in audio_files(folder) if path.parent == folder]):
            found.append(
                f"{len(beside)} clips beside the folders of labels have none and are left out: {named(beside)}"
            )
        return found
    there = {utterance.id for utterance in utterances}
    missing, extra = sorted(corpus.published - there), sorted(there - corpus.published)
    if missing:
        found.append(f"{len(missing)} of {len(corpus.published)} utterances are missing: {named(missing)}")
    if extra:
        found.append(f"{len(extra)} utterances are not in the published corpus: {named(extra)}")
    read = {utterance.path for utterance in utterances}
    strangers = [path.name for path in audio_files(folder) if path not in read]
    if strangers:
        found.append(f"{len(strangers)} audio files are not named like {corpus.title}'s: {named(strangers)}")
    return found
