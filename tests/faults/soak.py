"""Let one classifier hear clips in a loop, and print how the memory of its process grows.

python tests/faults/soak.py --hours 1.0
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

CLIPS = sorted((Path(__file__).parent.parent.parent / "examples" / "clips").glob("*.flac"))


def resident() -> float:
    """Memory of this process in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def soak(hours: float) -> dict[str, float]:
    """Hear `hours` of audio, from files, bytes, batches, timelines and streams, and bad files among them."""
    import soundfile

    from speech_emotion_vit import AudioError, EmotionClassifier

    classifier = EmotionClassifier()
    samples, rate = soundfile.read(CLIPS[0], dtype="float32")
    bad = CLIPS[0].read_bytes()[:3000]
    heard, started, marks = 0.0, time.time(), [resident()]
    warm = 0.05 * hours * 3600  # seconds of audio until caches and pools have their size
    begin = 0.0
    while heard < hours * 3600:
        predictions = classifier.predict_batch([*CLIPS, CLIPS[1].read_bytes(), bad], errors="return")
        heard += sum(getattr(prediction, "duration", 0.0) for prediction in predictions)
        heard += classifier.timeline(samples, sampling_rate=rate).duration
        stream = classifier.stream(sampling_rate=rate)
        stream.push(samples)
        stream.flush()
        heard += stream.duration
        with contextlib.suppress(AudioError):
            classifier.embed(b"no audio")
        if not begin and heard > warm:
            begin = resident()
        marks.append(resident())
    return {
        "hours": heard / 3600,
        "minutes": (time.time() - started) / 60,
        "mib_after_warming_up": begin,
        "mib_at_the_end": resident(),
        "mib_highest": max(marks),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0, help="of audio")
    print(json.dumps({key: round(value, 3) for key, value in soak(parser.parse_args().hours).items()}))
