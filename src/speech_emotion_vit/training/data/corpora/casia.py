"""CASIA, its free part: four Mandarin speakers, 50 sentences, each in six emotions."""

from __future__ import annotations

import re
from pathlib import PurePath

from .base import Corpus, Parsed, qualified

CODES = {
    "angry": "anger",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}
NAME = "casia"

_SPEAKERS = ("ZhaoZuoxiang", "liuchanhg", "wangzhe", "zhaoquanyin")
_SENTENCES = tuple(map(str, range(201, 251)))
_WORDS = re.compile(r"[/\\_-]")


def _parse(path: PurePath) -> Parsed | None:
    """Read sentence, emotion and speaker in any order: copies have them in folders or in the name of the file."""
    words = _WORDS.split(path.with_suffix("").as_posix())
    found = [[word for word in words if word in known] for known in (_SPEAKERS, CODES, _SENTENCES)]
    if not all(found):
        return None
    speaker, code, sentence = (each[-1] for each in found)
    return Parsed(f"{speaker}-{code}-{sentence}", CODES[code], speaker, sentence)


CASIA = Corpus(
    name=NAME,
    title="CASIA",
    language="Mandarin",
    source="http://www.chineseldc.org",
    license="research use",
    free=False,
    citation="Institute of Automation, Chinese Academy of Sciences, CASIA Mandarin Emotional Speech Corpus, ChineseLDC",
    layout="liuchanhg/angry/201.wav and 1199 more, or flat, 201-angry-liuchanhg.wav",
    labels=tuple(CODES.values()),
    parse=_parse,
    published=qualified(
        NAME, [f"{speaker}-{code}-{sentence}" for speaker in _SPEAKERS for code in CODES for sentence in _SENTENCES]
    ),
    leave_one_out=True,
)
