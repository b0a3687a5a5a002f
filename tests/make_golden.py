"""Store the bundled model's probabilities on the example clips: ``python tests/make_golden.py``."""

from __future__ import annotations

import json

from helpers import CLIPS, ROOT
from speech_emotion_vit import EmotionClassifier

if __name__ == "__main__":
    classifier = EmotionClassifier(device="cpu")
    clips = {clip.name: classifier.predict(clip).probabilities for clip in CLIPS}
    target = ROOT / "tests" / "data" / "golden.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"model": classifier.name, "clips": clips}, indent=2) + "\n")
