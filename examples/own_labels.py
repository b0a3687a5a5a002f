"""Fit a model to labels of your own and tell them in a clip.

python examples/own_labels.py clips.csv clip.wav

The table has the columns path,label,speaker; its paths are relative to the folder of the table.
"""

import csv
import sys
from pathlib import Path

from speech_emotion_vit import EmotionClassifier, fit_head

table = Path(sys.argv[1])
with table.open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))

model = fit_head(
    [table.parent / row["path"] for row in rows],
    [row["label"] for row in rows],
    [row["speaker"] for row in rows],
)
print(model.evaluation)
model.save("my-model")

print(EmotionClassifier("my-model").predict(sys.argv[2]))
