"""Where a network errs on CREMA-D's test speakers: write docs/ERRORS.md.

python scripts/errors.py ANSWERS CREMA-D

ANSWERS is what ``speech-emotion-vit evaluate --dataset crema-d --data-dir CREMA-D --output ANSWERS`` wrote; its
``predictions.csv`` holds an answer per clip. Sex, age and what listeners heard come from the corpus's own tables,
the level from the recordings.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
import soundfile

from speech_emotion_vit.files import whole_file

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "ERRORS.md"
LETTERS = {"A": "anger", "D": "disgust", "F": "fear", "H": "happiness", "N": "neutral", "S": "sadness"}
INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high", "XX": "not asked for"}
AGES = ((0, 29, "up to 29"), (30, 49, "30 to 49"), (50, 199, "50 and over"))


class Clip(NamedTuple):
    """A test clip, what was meant, heard and predicted."""

    sentence: str
    intensity: str
    label: str
    predicted: str
    heard: tuple[str, ...]
    sex: str
    age: str
    level: float


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def level_of(path: Path) -> float:
    """Return the level of a recording in dB below full scale."""
    samples, _ = soundfile.read(path)
    return float(10 * np.log10(np.mean(samples**2) + 1e-12))


def read(answers: Path, corpus: Path) -> list[Clip]:
    """Return the test clips."""
    heard = {row["FileName"]: row["VoiceVote"] for row in rows_of(corpus / "summaryTable.csv")}
    actors = {row["ActorID"]: row for row in rows_of(corpus / "VideoDemographics.csv")}
    recordings = {path.stem: path for path in (corpus / "AudioWAV").iterdir()}
    clips = []
    for row in rows_of(answers / "predictions.csv"):
        speaker, sentence, _, intensity = row["utterance"].split("_")
        age = int(actors[speaker]["Age"])
        clips.append(
            Clip(
                sentence=sentence,
                intensity=INTENSITIES[intensity[:2]],
                label=row["label"],
                predicted=row["predicted"],
                heard=tuple(LETTERS[letter] for letter in heard[row["utterance"]].split(":") if letter in LETTERS),
                sex=actors[speaker]["Sex"].lower(),
                age=next(name for low, high, name in AGES if low <= age <= high),
                level=level_of(recordings[row["utterance"]]),
            )
        )
    return clips


def unweighted(clips: Iterable[Clip], right: Callable[[Clip], float]) -> float:
    """Return the mean over the emotions of the share that is right, in percent."""
    by_label: dict[str, list[float]] = defaultdict(list)
    for clip in clips:
        by_label[clip.label].append(right(clip))
    return 100 * mean(map(mean, by_label.values()))


def model_right(clip: Clip) -> float:
    """Whether the network found what was meant."""
    return float(clip.predicted == clip.label)


def listeners_right(clip: Clip) -> float:
    """How far the listeners' majority is what was meant; of several equal ones, its share."""
    return (clip.label in clip.heard) / max(1, len(clip.heard))


def model_as_heard(clip: Clip) -> float:
    """Whether the network found what the listeners' majority heard."""
    return float(clip.predicted in clip.heard)


def table(clips: list[Clip], title: str, group: Callable[[Clip], str], order: Iterable[str] | None = None) -> list[str]:
    """Return a table of one property: UA of network and listeners, and how often the two agree."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[group(clip)].append(clip)
    lines = [f"| {title} | clips | network | listeners | network as heard |", "|---|---:|---:|---:|---:|"]
    for name in order or sorted(groups):
        if chosen := groups.get(name):
            agreement = 100 * mean(map(model_as_heard, chosen))
            scores = f"{unweighted(chosen, model_right):.1f} | {unweighted(chosen, listeners_right):.1f}"
            lines.append(f"| {name} | {len(chosen)} | {scores} | {agreement:.1f} |")
    return [*lines, ""]


def confusion(clips: list[Clip]) -> list[str]:
    """Return which emotions are taken for which, in percent of those meant."""
    labels = sorted(LETTERS.values())
    lines = [f"| meant | {' | '.join(labels)} |", "|---" + "|---:" * len(labels) + "|"]
    for label in labels:
        answers = [clip.predicted for clip in clips if clip.label == label]
        lines.append(
            f"| {label} | {' | '.join(f'{100 * answers.count(each) / len(answers):.0f}' for each in labels)} |"
        )
    return [*lines, ""]


def render(clips: list[Clip], name: str) -> str:
    """Return the document."""
    quartiles = np.quantile([clip.level for clip in clips], (0.25, 0.5, 0.75))
    levels = ("quietest quarter", "below the middle", "above the middle", "loudest quarter")
    certain = {True: "of one mind", False: "tied"}
    lines = [
        "# Where the network errs",
        "",
        f"Written by `python scripts/errors.py ANSWERS CREMA-D` from what `{name}` answers about {len(clips)} clips of",
        "CREMA-D's test speakers: `speech-emotion-vit evaluate --dataset crema-d --data-dir CREMA-D --output ANSWERS`.",
        "**network** and **listeners** are UA in percent of the intended emotion, the mean over the emotions in a row;",
        "listeners are the corpus's `VoiceVote`, the majority of those who heard the voice alone, a tie",
        "counted by its share. **network as heard** is how often the network says what that majority heard.",
        "",
        *table(clips, "all", lambda clip: "all clips"),
        *table(clips, "emotion", lambda clip: clip.label),
        "What is taken for what, in percent of the clips of an emotion:",
        "",
        *confusion(clips),
        *table(clips, "intensity", lambda clip: clip.intensity, INTENSITIES.values()),
        *table(clips, "sex", lambda clip: clip.sex),
        *table(clips, "age", lambda clip: clip.age, (name for _, _, name in AGES)),
        *table(clips, "level", lambda clip: levels[int(np.searchsorted(quartiles, clip.level))], levels),
        *table(clips, "listeners", lambda clip: certain[len(clip.heard) == 1], certain.values()),
        *table(clips, "sentence", lambda clip: clip.sentence),
        "Rows in which an emotion hardly occurs (loud or quiet clips, an intensity) say little of their own, since the",
        "groups are not matched for emotion or speaker.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    answers = Path(sys.argv[1])
    model = json.loads((answers / "scores.json").read_text(encoding="utf-8"))["model"]
    with whole_file(TARGET) as temporary:
        temporary.write_text(render(read(answers, Path(sys.argv[2])), model), encoding="utf-8")
