"""Tell the emotion in what the microphone hears, once a second, until Ctrl-C.

pip install sounddevice
python examples/microphone.py --window 3
"""

import argparse
import queue
import sys

import numpy as np

from speech_emotion_vit import EmotionClassifier

try:
    import sounddevice
except (ImportError, OSError) as error:  # OSError: the PortAudio library is missing
    sys.exit(f"this example needs sounddevice ({error}): pip install sounddevice, and PortAudio from your system")

parser = argparse.ArgumentParser(description="Tell the emotion in what the microphone hears.")
parser.add_argument("--hop", type=float, default=1.0, help="seconds between answers")
parser.add_argument("--window", type=float, default=4.0, help="seconds of audio per answer, at most 4")
parser.add_argument("--device", default=None, help="name or number of the microphone: python -m sounddevice")
options = parser.parse_args()

classifier = EmotionClassifier()
device = int(options.device) if (options.device or "").isdecimal() else options.device
rate = int(sounddevice.query_devices(device, "input")["default_samplerate"])
stream = classifier.stream(rate, hop=options.hop, window=options.window)
chunks: queue.Queue[np.ndarray] = queue.Queue()

# The callback must return at once, so the network runs in the loop below.
with sounddevice.InputStream(
    samplerate=rate, device=device, channels=1, callback=lambda frames, *_: chunks.put(frames[:, 0].copy())
):
    print(f"listening at {rate} Hz; the first answer comes after {options.window:g} s", file=sys.stderr)
    try:
        while True:
            for segment in stream.push(chunks.get()):
                ranking = "  ".join(f"{label} {probability:4.0%}" for label, probability in segment.top(3))
                print(f"{segment.end:7.1f} s  {'(nobody speaks)' if segment.label is None else ranking}", flush=True)
    except KeyboardInterrupt:
        pass
