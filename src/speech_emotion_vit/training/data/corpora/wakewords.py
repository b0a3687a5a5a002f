"""The recordings of Picovoice's wake-word benchmark: short English phrases, many rooms, no emotions."""

from __future__ import annotations

from pathlib import PurePath

from .base import Corpus, Parsed

NAME = "wakewords"

_WORDS = ("alexa", "computer", "jarvis", "smart_mirror", "snowboy", "view_glass")


def _parse(path: PurePath) -> Parsed | None:
    word = path.parent.name.replace(" ", "_")
    return Parsed(f"{word}/{path.stem}", "", "", word) if word in _WORDS else None


WAKEWORDS = Corpus(
    name=NAME,
    title="Picovoice wake words",
    language="English",
    source="https://github.com/Picovoice/wake-word-benchmark",
    license="Apache License 2.0",
    free=True,
    citation="Picovoice, Wake Word Benchmark, https://github.com/Picovoice/wake-word-benchmark",
    layout="alexa/0.flac and more",
    labels=(),
    parse=_parse,
)
