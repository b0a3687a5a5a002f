"""A temperature for CREMA-D from every speaker that does not test: are the 18 that validate as hard as the others?

python scripts/strangers.py tables CREMA-D FOLDER     write group-1.csv to group-3.csv
python scripts/strangers.py fit RUN RUN RUN RUN       print what fits each run's validation clips, and all of them

A table holds out a third of the 56 training speakers and trains on the others and on the 18; the 17 that test are in
none. Train with each, and with the published split, by one recipe:

speech-emotion-vit train --dataset folder --data-dir FOLDER/group-1.csv --recipe robust --stage teacher --output RUN
speech-emotion-vit train --dataset crema-d --data-dir CREMA-D --recipe robust --stage teacher --output RUN
"""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np

from speech_emotion_vit.training.catalogue import find_corpus
from speech_emotion_vit.training.metrics import confusion_matrix, fit_temperature, unweighted_average_recall
from speech_emotion_vit.training.protocols import CREMA_D_TEST, CREMA_D_VALIDATION

GROUPS = 3


def tables(data: Path, output: Path) -> None:
    """Write the tables of all groups of training speakers."""
    corpus, data = find_corpus("crema-d", data)
    clips = [u for u in corpus.read(data) if u.id not in corpus.defects and u.speaker not in CREMA_D_TEST]
    training = sorted({clip.speaker for clip in clips} - CREMA_D_VALIDATION)
    output.mkdir(parents=True, exist_ok=True)
    for group in range(GROUPS):
        held = set(training[group::GROUPS])
        with open(output / f"group-{group + 1}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "speaker", "sentence", "split"))
            for clip in clips:
                part = "validation" if clip.speaker in held else "train"
                path = os.path.relpath(clip.path.resolve(), output.resolve())
                writer.writerow((path, clip.label, clip.speaker, clip.sentence, part))


def fit(runs: list[Path]) -> None:
    """Print UA and temperature of each run's validation clips, and of those of all runs together."""
    found = []
    for run in runs:
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        model = results["model"]
        with open(run / "predictions_validation.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        labels = sorted({row["label"] for row in rows})
        probabilities = np.array([[float(row[label]) for label in labels] for row in rows])
        logits = np.log(np.maximum(probabilities, 1e-7)) * results["temperature"][model]
        targets = np.array([labels.index(row["label"]) for row in rows])
        found.append((str(run), len({row["speaker"] for row in rows}), logits, targets))
    all_logits, all_targets = (np.concatenate([group[part] for group in found]) for part in (2, 3))
    found.append(("all", sum(group[1] for group in found), all_logits, all_targets))
    for name, speakers, logits, targets in found:
        ua = unweighted_average_recall(confusion_matrix(targets, logits.argmax(axis=1), logits.shape[1]))
        temperature = fit_temperature(logits, np.arange(len(logits)), targets)
        print(f"{name}: {speakers} speakers, {len(targets)} clips, UA {ua:.1%}, temperature {temperature:.3f}")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "tables":
        tables(Path(sys.argv[2]), Path(sys.argv[3]))
    elif len(sys.argv) > 2 and sys.argv[1] == "fit":
        fit([Path(run) for run in sys.argv[2:]])
    else:
        sys.exit(__doc__)
