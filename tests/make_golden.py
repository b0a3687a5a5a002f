"""Store probabilities of the default model and of the paper's on the example clips, or compare with the stored ones.

python tests/make_golden.py
python tests/make_golden.py --check 1e-4
"""

from __future__ import annotations

import argparse
import json

from helpers import CLIPS, ROOT
from speech_emotion_vit import EmotionClassifier

MODELS = (None, "crema-d-paper", "emodb-paper", "savee-paper")  # None is the default
TARGET = ROOT / "tests" / "data" / "golden.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=float, metavar="TOLERANCE", help="compare, and fail beyond this difference")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    models = {}
    for name in MODELS:
        classifier = EmotionClassifier(name, device=options.device, vad_filter=False)  # the network alone
        models[classifier.name] = {clip.name: classifier.predict(clip).probabilities for clip in CLIPS}
    if options.check is None:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(json.dumps({"models": models}, indent=2) + "\n")
        return 0
    stored = json.loads(TARGET.read_text())["models"]
    assert stored.keys() == models.keys(), f"the stored values are of {', '.join(stored)}"
    largest = 0.0
    for model, clips in models.items():
        assert stored[model].keys() == clips.keys()
        for name, values in clips.items():
            largest = max(largest, *(abs(values[label] - stored[model][name][label]) for label in values))
    print(f"largest difference from the stored probabilities: {largest:.2g}, allowed: {options.check:g}")
    return 0 if largest <= options.check else 1


if __name__ == "__main__":
    raise SystemExit(main())
