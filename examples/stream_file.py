"""Play a file to the classifier as if it were live, and print the emotion of the last 4 s once a second.

python examples/stream_file.py examples/clips/sadness.flac
python examples/stream_file.py call.wav --hop 0.5 --speed 10     # ten times faster than it was spoken
"""

import argparse
import statistics
import time

import soundfile

from speech_emotion_vit import EmotionClassifier

parser = argparse.ArgumentParser(description="Play a file to the classifier as if it were live.")
parser.add_argument("file")
parser.add_argument("--hop", type=float, default=1.0, help="seconds between answers")
parser.add_argument("--window", type=float, default=None, help="seconds of audio per answer, at most 4")
parser.add_argument("--chunk", type=float, default=0.02, help="seconds per chunk")
parser.add_argument("--speed", type=float, default=1.0, help="1 is real time; 0 is as fast as it goes")
options = parser.parse_args()

classifier = EmotionClassifier()
latencies = []
with soundfile.SoundFile(options.file) as file:
    stream = classifier.stream(file.samplerate, hop=options.hop, window=options.window)
    size = max(1, round(options.chunk * file.samplerate))
    started = time.perf_counter()
    for frames in file.blocks(size, dtype="float32", always_2d=True):
        if options.speed:  # the chunk is there once it has been spoken
            spoken = (stream.duration + len(frames) / file.samplerate) / options.speed
            time.sleep(max(0.0, started + spoken - time.perf_counter()))
        heard = time.perf_counter()
        # The last chunk may have fewer samples than channels; the stream knows the layout by then.
        segments = stream.push(frames.T)
        if segments:
            latencies.append(time.perf_counter() - heard)
        for segment in segments:
            print(segment, flush=True)
    heard = time.perf_counter()
    segments = stream.flush()
    if segments:
        latencies.append(time.perf_counter() - heard)
    for segment in segments:
        print(segment)

if not latencies:
    raise SystemExit(f"{options.file}: no audio")
milliseconds = [1000 * latency for latency in latencies]
print(
    f"{len(latencies)} answers, {statistics.median(milliseconds):.1f} ms after the last sample of their window "
    f"(median; {max(milliseconds):.1f} ms at most)"
)
