"""SAVEE: four British men, seven emotions, sentences of which most belong to one emotion."""

from __future__ import annotations

import re
from pathlib import PurePath

from .base import Corpus, Parsed, qualified

CODES = {"a": "anger", "d": "disgust", "f": "fear", "h": "happiness", "n": "neutral", "sa": "sadness", "su": "surprise"}
NAME = "savee"

_FILE = re.compile(r"(?:(DC|JE|JK|KL)_)?(a|d|f|h|n|sa|su)(\d\d)")
_SPEAKERS = ("DC", "JE", "JK", "KL")
_COMMON = ("01", "02", "03")  # of 15 sentences per emotion only these are the same for all


def _published() -> list[str]:
    """Return 480 names: per speaker 15 of each emotion, 30 neutral."""
    return [
        f"{speaker}_{code}{number:02}"
        for speaker in _SPEAKERS
        for code in CODES
        for number in range(1, 31 if code == "n" else 16)
    ]


def _parse(path: PurePath) -> Parsed | None:
    match = _FILE.fullmatch(path.stem)
    speaker = "" if match is None else match[1] or path.parent.name
    if match is None or speaker not in _SPEAKERS:
        return None
    code, number = match[2], match[3]
    return Parsed(f"{speaker}_{code}{number}", CODES[code], speaker, number if number in _COMMON else f"{code}{number}")


SAVEE = Corpus(
    name=NAME,
    title="SAVEE",
    language="English",
    source="http://kahlan.eps.surrey.ac.uk/savee/",
    license="research use, by registration",
    free=False,
    citation="Haq and Jackson, Speaker-Dependent Audio-Visual Emotion Recognition, AVSP 2009",
    layout="AudioData/DC/a01.wav and 479 more, or flat, DC_a01.wav",
    labels=tuple(CODES.values()),
    parse=_parse,
    published=qualified(NAME, _published()),
    leave_one_out=True,
    common_sentences=frozenset(_COMMON),
)
