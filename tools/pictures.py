"""Draw the pictures of README.md and of the site with the default model, from the example clips.

python tools/pictures.py          writes docs/assets/timeline.png and docs/assets/explain.png

Run it after the default model changes. Pictures differ in their bytes between versions of matplotlib, so nothing checks
them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from speech_emotion_vit import EmotionClassifier

ROOT = Path(__file__).resolve().parent.parent
CLIPS = ROOT / "examples" / "clips"
ASSETS = ROOT / "docs" / "assets"
RATE = 16_000  # Hz, of the clips
PAUSE = 0.5  # seconds between two clips

if __name__ == "__main__":
    classifier = EmotionClassifier()
    pause = np.zeros(int(PAUSE * RATE), np.float32)
    parts: list[np.ndarray] = []
    starts: dict[str, float] = {}
    for path in sorted(CLIPS.glob("*.flac")):
        starts[path.stem] = sum(map(len, parts)) / RATE
        parts += [soundfile.read(path, dtype="float32")[0], pause]
    timeline = classifier.timeline(np.concatenate(parts), sampling_rate=RATE, hop=0.25, window=2.0, smoothing=0.5)
    figure = timeline.plot()
    lines = figure.axes[0]
    lines.set_ylim(0, 1.15)
    for name, start in starts.items():
        lines.axvline(start, color="0.6", linewidth=0.8, linestyle="--")
        lines.text(start + 0.05, 1.03, name, color="0.3", fontsize="small")
    figure.suptitle("Six clips, one after the other. Above the lines: what each speaker meant", fontsize="medium")
    figure.set_size_inches(9, 3.4)
    figure.savefig(ASSETS / "timeline.png", dpi=110)
    figure = classifier.explain(CLIPS / "happiness.flac").plot()
    figure.set_size_inches(9, 5)
    figure.savefig(ASSETS / "explain.png", dpi=110)
