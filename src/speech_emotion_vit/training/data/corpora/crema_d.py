"""CREMA-D: 91 American actors, 12 sentences, six emotions."""

from __future__ import annotations

import re
from pathlib import PurePath

from .base import Corpus, Parsed, qualified

CODES = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happiness", "NEU": "neutral", "SAD": "sadness"}
NAME = "crema-d"

_FILE = re.compile(r"(10\d\d)_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX?)")
_SENTENCES = ("DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI")
# Never recorded or never released: three actors lack one sentence, two lack one neutral take.
_ABSENT = {
    *(f"{take}_{code}_XX" for take in ("1008_WSI", "1009_MTI", "1019_ITH") for code in CODES),
    "1002_TIE_NEU_XX",
    "1076_ITS_NEU_XX",
}
# One recording under two labels.
_SAME = (
    ("1006_TIE_HAP_XX", "1006_TIE_NEU_XX"),
    ("1013_WSI_DIS_XX", "1013_WSI_SAD_XX"),
    ("1017_IWW_ANG_XX", "1017_IWW_FEA_XX"),
)
# audEERING's split; the other 56 speakers train.
_TEST = (1048, 1069, 1071, 1074, 1076, 1077, 1078, 1079, 1082, 1083, 1084, 1086, 1087, 1088, 1089, 1090, 1091)
_VALIDATION = (
    *(1049, 1053, 1054, 1055, 1058, 1059, 1061, 1062, 1063, 1064, 1065, 1066, 1067, 1068, 1070, 1075, 1080, 1085),
)


def _published() -> list[str]:
    """Return 7442 names: 91 actors, 12 sentences, one of them at three intensities."""
    names = []
    for actor in range(1001, 1092):
        for sentence in _SENTENCES:
            for code in CODES:
                levels = ("LO", "MD", "HI") if sentence == "IEO" and code != "NEU" else ("XX",)
                names += [f"{actor}_{sentence}_{code}_{level}" for level in levels]
    return [name for name in names if name not in _ABSENT]


def _parse(path: PurePath) -> Parsed | None:
    match = _FILE.fullmatch(path.stem)
    if match is None:
        return None
    actor, sentence, code, level = match.groups()
    level = "XX" if level == "X" else level  # some copies have a name cut short
    return Parsed(f"{actor}_{sentence}_{code}_{level}", CODES[code], actor, sentence)


_DEFECTS = {
    "1076_MTI_SAD_XX": "all samples are zero",
    **{name: f"the same recording as {other}" for name, other in _SAME},
    **{name: f"the same recording as {other}" for other, name in _SAME},
}

CREMA_D = Corpus(
    name=NAME,
    title="CREMA-D",
    language="English",
    source="https://github.com/CheyneyComputerScience/CREMA-D",
    license="Open Database License 1.0, contents under the Database Contents License 1.0",
    free=True,
    citation="Cao et al., CREMA-D: Crowd-Sourced Emotional Multimodal Actors Dataset, IEEE Transactions on Affective "
    "Computing 5(4), 2014, doi 10.1109/TAFFC.2014.2336244",
    layout="AudioWAV/1001_DFA_ANG_XX.wav and 7441 more",
    labels=tuple(CODES.values()),
    parse=_parse,
    published=qualified(NAME, _published()),
    defects={f"{NAME}/{name}": why for name, why in _DEFECTS.items()},
    official_split="audEERING split 1.1.0",
    test_speakers=qualified(NAME, [str(speaker) for speaker in _TEST]),
    validation_speakers=qualified(NAME, [str(speaker) for speaker in _VALIDATION]),
)
