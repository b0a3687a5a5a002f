"""Answer all recordings in a folder, or in Parquet files, on the machines of a Ray cluster.

pip install "speech-emotion-vit[ray]"
python examples/on_a_cluster.py recordings/ emotions/ [WORKERS]
"""

import sys
import time

import pyarrow.dataset

from speech_emotion_vit.cluster import predict_on_ray

source, output, *workers = sys.argv[1:]
first = None
for progress in predict_on_ray(source, output, resume=True, workers=int(workers[0]) if workers else None):
    print(f"{progress.before + progress.answered} of {progress.total}", end="\r", file=sys.stderr)
    if progress.answered and first is None:  # the workers have started
        first, start = progress.answered, time.perf_counter()

if first is not None and progress.answered > first:
    speed = (progress.answered - first) / (time.perf_counter() - start)
    print(f"{speed:.0f} recordings per second after the first {first}", file=sys.stderr)
table = pyarrow.dataset.dataset(output).to_table(columns=["label"])
for count in table["label"].value_counts().to_pylist():
    print(f"{count['values']}: {count['counts']}")
