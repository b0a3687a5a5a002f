"""Workers of every kind give the numbers of one process, and memory stays where it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import CLIPS, ROOT
from speech_emotion_vit import EmotionClassifier

# A process of its own, because what it forks must not hold this one's threads; at the top of a file, as spawn needs it.
WORKERS = """
import json, multiprocessing, sys, threading, warnings
from speech_emotion_vit import EmotionClassifier

shared = None

def in_fork(clip):
    return shared.predict(clip).probabilities

def in_own(clip):
    return EmotionClassifier().predict(clip).probabilities

if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads: that is the point
    method, *clips = sys.argv[1:]
    if method == "fork":
        shared = EmotionClassifier()
        threads = [threading.Thread(target=shared.predict, args=(clips[0],)) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    with multiprocessing.get_context(method).Pool(2) as pool:
        print(json.dumps(pool.map(in_fork if method == "fork" else in_own, clips)))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_numbers_of_one_process(tmp_path: Path, method: str) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    command = [sys.executable, tmp_path / "workers.py", method, *CLIPS[:3]]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}  # with one thread there is nothing to wait for
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    classifier = EmotionClassifier()
    for clip, probabilities in zip(CLIPS, json.loads(done.stdout), strict=False):
        assert probabilities == pytest.approx(classifier.predict(clip).probabilities, abs=1e-5)


def test_memory_stays_flat_while_clips_go_by() -> None:
    """The long form: ``python tests/faults/soak.py --hours 1.0``."""
    command = [sys.executable, ROOT / "tests" / "faults" / "soak.py", "--hours", "0.05"]
    figures = json.loads(
        subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        ).stdout
    )
    assert figures["hours"] >= 0.05
    assert figures["mib_highest"] - figures["mib_after_warming_up"] < 15
