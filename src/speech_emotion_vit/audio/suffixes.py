"""How files are named that can be read, and the search of a folder for them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

from ..errors import printable
from ..files import find_files, open_regular

_OF_LIBSNDFILE = (
    *("aif", "aifc", "aiff", "au", "avr", "bwf", "caf", "flac", "htk", "iff", "ircam", "m1a", "m2a", "mp1", "mp2"),
    *("mp3", "mpa", "mpga", "nist", "oga", "ogg", "opus", "paf", "pvf", "rf64", "sds", "sf", "snd", "sph"),
    *("svx", "voc", "w64", "wav", "wave", "wavex", "wve", "xi"),
)
_OF_PYAV = (
    *("3g2", "3ga", "3gp", "3gpp", "3gpp2", "aac", "ac3", "adts", "amr", "ape", "asf", "avi", "awb", "divx", "dsf"),
    *("dts", "eac3", "ec3", "f4a", "f4v", "flv", "gsm", "latm", "loas", "m2t", "m2ts", "m4a", "m4b", "m4r", "m4v"),
    *("mk3d", "mka", "mkv", "mlp", "mov", "mp4", "mpc", "mpe", "mpeg", "mpg", "mts", "nut", "ogm", "ogv", "ogx", "qt"),
    *("ra", "rm", "rmvb", "shn", "spx", "tak", "thd", "ts", "tta", "vob", "weba", "webm", "wma", "wmv", "wv"),
)
AV_SUFFIXES = frozenset(f".{name}" for name in _OF_PYAV)
"""Of files that need PyAV, in lower case."""
AUDIO_SUFFIXES = AV_SUFFIXES | {f".{name}" for name in _OF_LIBSNDFILE}
"""Of the files that a search of a folder takes for audio, in lower case."""

_SOURCE_CODE = frozenset({".ts", ".mts"})  # may be TypeScript, too, and not a transport stream
_MOST_NAMED = 5  # kinds of files


@dataclass(frozen=True)
class Search:
    """What a folder holds, however deep."""

    paths: list[str]
    """Files that are named like audio."""
    closed: list[OSError]
    """Why other folders cannot be searched."""
    others: Counter[str]
    """How many other files there are, by their suffix."""

    def passed_over(self) -> str | None:
        """Return what to say of the other files; None where there are none."""
        count = self.others.total()
        if not count:
            return None
        ranked = sorted(self.others.items(), key=lambda item: (-item[1], item[0] == "", item[0]))
        kinds = [f"{number} {suffix or 'without suffix'}" for suffix, number in ranked[:_MOST_NAMED]]
        rest = len(self.others) - _MOST_NAMED
        if rest > 0:
            kinds.append(f"{rest} more kinds" if rest > 1 else "1 more kind")
        files = "1 file is" if count == 1 else f"{count} files are"
        return f"{files} passed over, not named like audio: {', '.join(kinds)}"


def find_audio(folder: str | os.PathLike[str]) -> Search:
    """Return what is named like audio in `folder`, however deep, and what is not."""
    paths, closed, others = find_files(folder, AUDIO_SUFFIXES)
    kept = [path for path in paths if not _is_source_code(path)]
    kinds = Counter(_kind(name) for name in others)
    kinds.update(_kind(path) for path in set(paths) - set(kept))
    return Search(kept, closed, kinds)


def _kind(path: str) -> str:
    return printable(os.path.splitext(path)[1].lower()[:12])


def _is_source_code(path: str) -> bool:
    """Return whether a file is named like a transport stream and is none: they have a G every 188 or 192 bytes."""
    if os.path.splitext(path)[1].lower() not in _SOURCE_CODE:
        return False
    try:
        with open_regular(path) as file:
            head = file.read(400)
    except OSError:  # for whoever reads it to say
        return False
    return head[0:377:188] != b"GGG" and head[4:389:192] != b"GGG"
