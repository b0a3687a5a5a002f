"""URDU: natural speech of 29 people in Urdu talk shows, four emotions."""

from __future__ import annotations

import re
from pathlib import PurePath

from .base import Corpus, Parsed, qualified

CODES = {"A": "anger", "H": "happiness", "N": "neutral", "S": "sadness"}
NAME = "urdu"

_FILE = re.compile(r"(S[FM]\d{1,2})_F\d{1,2}_([AHNS])0\d{1,3}")
# Clips by emotion and speaker, in the order of their numbers. Most speakers have one emotion only.
_CLIPS = {
    "A": {"SM1": 22, "SM2": 28, "SM3": 2, "SM4": 48},
    "H": {
        "SF1": 12,
        "SF2": 2,
        "SF3": 2,
        "SF4": 4,
        "SF5": 4,
        "SF6": 14,
        "SF7": 6,
        "SF8": 2,
        "SM17": 2,
        "SM18": 2,
        "SM19": 2,
        "SM3": 2,
        "SM5": 8,
        "SM6": 10,
        "SM7": 28,
    },
    "N": {"SF9": 4, "SM20": 10, "SM21": 4, "SM22": 2, "SM3": 8, "SM5": 72},
    "S": {"SF10": 2, "SF11": 4, "SM23": 6, "SM24": 38, "SM25": 40, "SM26": 2, "SM27": 4, "SM6": 4},
}


def _published() -> list[str]:
    """Return 400 names: ``SM1_F6_A06`` is the sixth clip of that man and the sixth of all in that emotion."""
    names = []
    for code, clips in _CLIPS.items():
        speakers = [(speaker, take) for speaker, count in clips.items() for take in range(1, count + 1)]
        names += [f"{speaker}_F{take}_{code}0{number}" for number, (speaker, take) in enumerate(speakers, start=1)]
    return names


def _parse(path: PurePath) -> Parsed | None:
    match = _FILE.fullmatch(path.stem)
    return None if match is None else Parsed(path.stem, CODES[match[2]], match[1], "")


URDU = Corpus(
    name=NAME,
    title="URDU",
    language="Urdu",
    source="https://github.com/siddiquelatif/URDU-Dataset",
    license="unknown: research use",
    free=False,
    citation="Latif et al., Cross Lingual Speech Emotion Recognition: Urdu vs. Western Languages, FIT 2018",
    layout="Angry/SM1_F1_A01.wav and 399 more",
    labels=tuple(CODES.values()),
    parse=_parse,
    published=qualified(NAME, _published()),
)
