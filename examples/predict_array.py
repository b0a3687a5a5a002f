"""Tell the emotion in samples that are already in memory, at any rate and with any number of channels.

python examples/predict_array.py examples/clips/anger.flac
"""

import sys

import soundfile

from speech_emotion_vit import EmotionClassifier

frames, sampling_rate = soundfile.read(sys.argv[1], always_2d=True)  # [samples, channels]
classifier = EmotionClassifier()
print(classifier.predict(frames.T, sampling_rate=sampling_rate))  # arrays are [channels, samples]
print(f"embedding: {classifier.embed(frames.T, sampling_rate=sampling_rate).shape[0]} values")
