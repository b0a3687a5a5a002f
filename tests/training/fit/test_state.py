from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from speech_emotion_vit.errors import TrainingError
from speech_emotion_vit.training.fit.loop import fit, load_state, save_state
from speech_emotion_vit.training.fit.stages import Supervised
from tiny_networks import STUDENT, TEACHER, eight_clips, job, network, quick


def test_a_state_of_another_network_is_refused(tmp_path: Path, accelerator: Any) -> None:
    short, rows = quick(epochs=1), eight_clips()
    fit(Supervised(network(STUDENT), rows), job(tmp_path, short), accelerator)
    with pytest.raises(TrainingError, match=r"does not fit this run .*remove it to repeat this stage"):
        fit(Supervised(network(TEACHER), rows), job(tmp_path, short), accelerator)
    (tmp_path / "teacher.state.safetensors").write_bytes(b"garbage")
    with pytest.raises(TrainingError, match="cannot be resumed from"):
        fit(Supervised(network(STUDENT), rows), job(tmp_path, short), accelerator)


@pytest.mark.parametrize(
    "change",
    [
        {"history": [{}]},
        {"history": ["x"]},
        {"history": None},
        {"step": None, "history": 3},
        {"history": [{"epoch": 1, "learning_rate": 1.0, "seconds": "x"}]},
    ],
)
def test_a_damaged_state_is_refused(tmp_path: Path, accelerator: Any, change: dict[str, Any]) -> None:
    short, rows = quick(epochs=1), eight_clips()
    fit(Supervised(network(STUDENT), rows), job(tmp_path, short), accelerator)
    path = tmp_path / "teacher.state.safetensors"
    groups, progress = load_state(path)
    save_state(path, groups, progress | change)
    with pytest.raises(TrainingError, match=r"does not fit this run .*remove it to repeat this stage"):
        fit(Supervised(network(STUDENT), rows), job(tmp_path, short), accelerator)
    for metadata in ({}, {"progress": "{"}, {"progress": "[]"}):
        save_file(load_file(path), path, metadata={"format": "1"} | metadata)
        with pytest.raises(TrainingError, match=r"does not say how far .*remove it to repeat this stage"):
            load_state(path)
