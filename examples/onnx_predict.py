"""Use an exported model with onnxruntime and soundfile alone.

speech-emotion-vit export crema-d --output crema-d.onnx
python examples/onnx_predict.py crema-d.onnx examples/clips/anger.flac
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile

model, clip = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
properties = session.get_modelmeta().custom_metadata_map
rate, window, hop = (int(properties[key]) for key in ("sampling_rate", "window_samples", "hop_samples"))

samples, clip_rate = soundfile.read(clip, dtype="float32", always_2d=True)
if clip_rate != rate:
    sys.exit(f"{clip}: {clip_rate} Hz: resample it to {rate} Hz first")
waveform = samples.mean(axis=1)

# Windows of 4 s every 2 s, the last one aligned to the end, and the mean over them.
last = max(0, len(waveform) - window)
starts = [*range(0, last, hop), last]
batch = np.stack([waveform[start : start + window] for start in starts])
probabilities, embedding = session.run(["probabilities", "embedding"], {"waveform": batch})
mean = probabilities.mean(axis=0)

for label, probability in sorted(zip(json.loads(properties["labels"]), mean, strict=True), key=lambda pair: -pair[1]):
    print(f"{label:<10} {probability:.4f}")
