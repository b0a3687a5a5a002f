"""How much the level of a recording alone tells about the emotion that was meant, on new voices.

python scripts/level.py CORPUS FOLDER        CORPUS is crema-d, emodb or savee

A logistic regression on five numbers per clip in dB: peak, mean, and of 25 ms frames median and both twentieths.
CREMA-D is scored on its validation speakers, the others with one speaker left out at a time. An actor's distance to a
microphone that was never moved is no part of an emotion, but every corpus has it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from speech_emotion_vit.audio import AudioReader
from speech_emotion_vit.training.catalogue import find_corpus
from speech_emotion_vit.training.metrics import confusion_matrix, unweighted_average_recall
from speech_emotion_vit.training.protocols import CREMA_D_TEST, CREMA_D_VALIDATION

FRAME = 400  # samples


def levels(path: Path) -> npt.NDArray[np.float64]:
    """Return the five levels of a recording in dB."""
    samples = np.concatenate(list(AudioReader(path))).astype(np.float64)
    power = np.square(np.pad(samples, (0, -len(samples) % FRAME))).reshape(-1, FRAME).mean(axis=1) + 1e-10
    loudness = 10 * np.log10(power)
    peak, mean = 20 * np.log10(np.abs(samples).max() + 1e-5), 10 * np.log10(power.mean())
    return np.array([peak, mean, *np.percentile(loudness, (50, 95, 5))])


def main(name: str, folder: Path) -> None:
    """Print the UA."""
    corpus, folder = find_corpus(name, folder)
    clips = [clip for clip in corpus.read(folder) if clip.id not in corpus.defects]
    speakers = np.array([clip.speaker for clip in clips])
    labels, targets = np.unique([clip.label for clip in clips], return_inverse=True)
    values = np.stack([levels(clip.path) for clip in clips])
    if name == "crema-d":
        held = [np.isin(speakers, list(CREMA_D_VALIDATION))]
        usable = ~np.isin(speakers, list(CREMA_D_TEST))
    else:
        held = [speakers == speaker for speaker in np.unique(speakers)]
        usable = np.ones(len(clips), dtype=bool)
    predicted = np.full(len(clips), -1)
    for part in held:
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        predicted[part] = model.fit(values[usable & ~part], targets[usable & ~part]).predict(values[part])
    scored = predicted >= 0
    ua = unweighted_average_recall(confusion_matrix(targets[scored], predicted[scored], len(labels)))
    print(f"{corpus.title}: UA {ua:.1%} on {scored.sum()} clips, chance {1 / len(labels):.1%}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
