"""Count the answers that change when 6 s of faint noise follow a clip.

python tests/faults/noise_behind.py path/to/CREMA-D/AudioWAV --clips 150
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np

from speech_emotion_vit import EmotionClassifier
from speech_emotion_vit.audio.reader import AudioReader
from speech_emotion_vit.audio.suffixes import find_audio

SECONDS = 6
RATE = 16_000  # Hz


def changed(folder: Path, clips: int, level: float, model: str, seed: int) -> int:
    """Return how many of the clips get another label with noise of `level` dB below full scale behind them."""
    classifier = EmotionClassifier(model)
    paths = random.Random(seed).sample(find_audio(folder).paths, clips)
    count = 0
    for number, path in enumerate(paths):
        samples = np.concatenate(list(AudioReader(path, target_rate=RATE)))
        noise = np.random.default_rng(number).standard_normal(SECONDS * RATE) * 10 ** (level / 20)
        longer = np.concatenate((samples, noise.astype(np.float32)))
        before, after = (classifier.predict(each, sampling_rate=RATE).label for each in (samples, longer))
        count += before != after
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=150)
    parser.add_argument("--level", type=float, default=-60.0, help="of the noise, in dB below full scale")
    parser.add_argument("--seed", type=int, default=28, help="of the choice of clips")
    parser.add_argument("--model", default="base")
    options = parser.parse_args()
    number = changed(options.folder, options.clips, options.level, options.model, options.seed)
    print(f"{number} of {options.clips} answers of {options.model} change ({number / options.clips:.1%})")
