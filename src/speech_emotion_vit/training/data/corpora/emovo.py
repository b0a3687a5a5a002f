"""EMOVO: six Italian actors, 14 sentences, each in seven emotions."""

from __future__ import annotations

import re
from pathlib import PurePath

from .base import Corpus, Parsed, qualified

CODES = {
    "rab": "anger",
    "dis": "disgust",
    "pau": "fear",
    "gio": "happiness",
    "neu": "neutral",
    "tri": "sadness",
    "sor": "surprise",
}
NAME = "emovo"

_FILE = re.compile(r"(dis|gio|neu|pau|rab|sor|tri)-([fm][123])-(b[123]|l[1-4]|n[1-5]|d[12])")
_SPEAKERS = ("f1", "f2", "f3", "m1", "m2", "m3")
_SENTENCES = ("b1", "b2", "b3", "l1", "l2", "l3", "l4", "n1", "n2", "n3", "n4", "n5", "d1", "d2")


def _parse(path: PurePath) -> Parsed | None:
    match = _FILE.fullmatch(path.stem)
    return None if match is None else Parsed(path.stem, CODES[match[1]], match[2], match[3])


EMOVO = Corpus(
    name=NAME,
    title="EMOVO",
    language="Italian",
    source="http://voice.fub.it/EMOVO",
    license="unknown: research use",
    free=False,
    citation="Costantini et al., EMOVO Corpus: an Italian Emotional Speech Database, LREC 2014",
    layout="f1/dis-f1-b1.wav and 587 more",
    labels=tuple(CODES.values()),
    parse=_parse,
    published=qualified(
        NAME, [f"{code}-{speaker}-{sentence}" for code in CODES for speaker in _SPEAKERS for sentence in _SENTENCES]
    ),
    leave_one_out=True,
)
