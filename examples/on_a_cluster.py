"""Answer all recordings in a folder, or in Parquet files, on the machines of a Ray cluster.

pip install "speech-emotion-vit[ray]"
python examples/on_a_cluster.py recordings/ emotions/
"""

import sys

import pyarrow.dataset

from speech_emotion_vit.cluster import predict_on_ray

source, output = sys.argv[1:]
for progress in predict_on_ray(source, output, resume=True):
    print(f"{progress.before + progress.answered} of {progress.total}", end="\r", file=sys.stderr)

table = pyarrow.dataset.dataset(output).to_table(columns=["label"])
for count in table["label"].value_counts().to_pylist():
    print(f"{count['values']}: {count['counts']}")
