"""Names of emotions: synonyms, and spellings of the same label."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ...errors import DatasetError

SYNONYMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "anger": ("angry", "ang", "annoyed", "mad"),
        "boredom": ("bored", "bor"),
        "disgust": ("disgusted", "dis"),
        "fear": ("fearful", "afraid", "fea", "scared", "anxiety", "anxious"),
        "happiness": ("happy", "hap", "joy", "joyful", "joyous", "glad"),
        "neutral": ("calm", "neu", "neutrality", "normal"),
        "sadness": ("sad", "sorrow", "unhappy"),
        "surprise": ("surprised", "sur", "ps", "pleasant surprise"),
    }
)
_MEANING = {word: name for name, words in SYNONYMS.items() for word in (name, *words)}
# Letters of other alphabets that look like Latin ones.
_LOOKALIKES = str.maketrans("аеорсухіјѕһοαρν", "aeopcyxijshoapv")


def spelling(label: str) -> str:
    """Return `label` in lower case, in Unicode's normal form NFKC, with single blanks for blanks, ``_`` and ``-``."""
    plain = unicodedata.normalize("NFKC", label).casefold().replace("_", " ").replace("-", " ")
    return " ".join(plain.split())


def meaning(label: str) -> str:
    """Return the name this package has for the emotion `label`, ``anger`` for ``Angry``; else its `spelling`."""
    return _MEANING.get(spelling(label), spelling(label))


def is_emotion(label: str) -> bool:
    """Return whether `label` is a word for an emotion in `SYNONYMS`."""
    return spelling(label) in _MEANING


def unify(labels: Iterable[str]) -> dict[str, str]:
    """Return by label the most frequent of all labels with the same `spelling`.

    Args:
        labels: one per clip.

    Raises:
        DatasetError: two of them look the same but have letters of different alphabets.
    """
    counts = Counter(labels)
    same: dict[str, list[str]] = defaultdict(list)
    alike: dict[str, set[str]] = defaultdict(set)
    for label in sorted(counts):
        same[spelling(label)].append(label)
        alike[spelling(label).translate(_LOOKALIKES)].add(spelling(label))
    for spellings in alike.values():
        if len(spellings) > 1:
            listed = ", ".join(f"{each} ({ascii(each)[1:-1]})" for each in sorted(spellings))
            raise DatasetError(f"labels look the same and are not: {listed}: write them with the same letters")
    return {label: max(group, key=lambda each: (counts[each], each)) for group in same.values() for label in group}


def map_labels(labels: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return by label the one of `known` with the same name, or else the only one with the same meaning, if any."""
    by_meaning: dict[str, list[str]] = defaultdict(list)
    for label in known:
        by_meaning[meaning(label)].append(label)
    found = {}
    for label in labels:
        same = by_meaning[meaning(label)]
        if label in same or len(same) == 1:
            found[label] = label if label in same else same[0]
    return found
