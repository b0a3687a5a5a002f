"""Use an exported model with onnxruntime and soundfile alone.

speech-emotion-vit export base --output base.onnx
python examples/onnx_predict.py base.onnx examples/clips/anger.flac
"""

import json
import sys

import onnxruntime
import soundfile

model, clip = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
properties = session.get_modelmeta().custom_metadata_map

samples, rate = soundfile.read(clip, dtype="float32", always_2d=True)
if rate != int(properties["sampling_rate"]):
    sys.exit(f"{clip}: {rate} Hz: resample it to {properties['sampling_rate']} Hz first")

# All the rest is in the file: it leaves out what nobody speaks in, cuts windows and averages them.
probabilities, speech = session.run(["probabilities", "speech"], {"waveform": samples.mean(axis=1)})

if not speech:
    sys.exit(f"{clip}: nobody speaks")
print(f"{speech:.2f} s of speech")
for label, probability in sorted(
    zip(json.loads(properties["labels"]), probabilities, strict=True), key=lambda p: -p[1]
):
    print(f"{label:<10} {probability:.4f}")
