"""Store the bundled model's probabilities on the example clips, or compare with the stored ones.

python tests/make_golden.py
python tests/make_golden.py --check 1e-4
"""

from __future__ import annotations

import argparse
import json

from helpers import CLIPS, ROOT
from speech_emotion_vit import EmotionClassifier

TARGET = ROOT / "tests" / "data" / "golden.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", type=float, metavar="TOLERANCE", help="compare, and fail beyond this difference")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    classifier = EmotionClassifier(device=options.device)
    clips = {clip.name: classifier.predict(clip).probabilities for clip in CLIPS}
    if options.check is None:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(json.dumps({"model": classifier.name, "clips": clips}, indent=2) + "\n")
        return 0
    stored = json.loads(TARGET.read_text())
    assert stored["model"] == classifier.name, f"the stored values are of {stored['model']}"
    assert stored["clips"].keys() == clips.keys()
    largest = max(
        abs(values[label] - stored["clips"][name][label]) for name, values in clips.items() for label in values
    )
    print(f"largest difference from the stored probabilities: {largest:.2g}, allowed: {options.check:g}")
    return 0 if largest <= options.check else 1


if __name__ == "__main__":
    raise SystemExit(main())
