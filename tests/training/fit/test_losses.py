from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speech_emotion_vit.training.data.rows import restrict
from speech_emotion_vit.training.fit import stages
from speech_emotion_vit.training.fit.head import embed_rows
from speech_emotion_vit.training.fit.loop import fit
from speech_emotion_vit.training.fit.stages import Distillation, FeatureMatching, Supervised, feature_distance
from speech_emotion_vit.training.recipes import MatchStage, StudentStage
from tiny_networks import QUICK, STUDENT, TEACHER, digest, eight_clips, job, made_up_rows, network, quick, right

EVERYTHING = np.arange(8)


def as_stage(kind: type[Any], **changes: Any) -> Any:
    return kind(**{name: getattr(QUICK, name) for name in ("batch_size", "learning_rate")}, **changes)


def test_eight_clips_are_learnt_by_heart_through_all_three_stages(tmp_path: Path, accelerator: Any) -> None:
    rows, teacher = eight_clips(), network(TEACHER)
    history = fit(Supervised(teacher, rows), job(tmp_path, validated=teacher), accelerator)
    assert right(teacher, rows) == 8
    assert history[-1]["cross_entropy"] < history[0]["cross_entropy"]

    before = digest(teacher.state_dict())
    reference = embed_rows(teacher, rows)
    student = network(STUDENT, seed=1)
    student.head.load_state_dict(teacher.head.state_dict())
    matching = FeatureMatching(student, rows, reference)
    history = fit(matching, job(tmp_path, as_stage(MatchStage, epochs=40)), accelerator)
    assert history[-1]["matching"] < 0.5 * history[0]["matching"]
    assert torch.equal(student.head.weight, teacher.head.weight)

    stage = Distillation(student, rows, reference, alpha=10.0)
    history = fit(stage, job(tmp_path, as_stage(StudentStage, epochs=25), validated=student), accelerator)
    assert set(history[0]) >= {"cross_entropy", "matching", "validation_ua", "learning_rate"}
    assert right(student, rows) == 8
    assert not torch.equal(student.head.weight, teacher.head.weight)
    assert digest(teacher.state_dict()) == before


def test_losses_are_cross_entropy_and_alpha_times_the_distance() -> None:
    rows, student, teacher = eight_clips(), network(STUDENT).eval(), network(TEACHER, seed=1).eval()
    reference = embed_rows(teacher, rows)
    embedding = embed_rows(student, rows)
    logits = student.head(embedding)
    entropy = torch.nn.functional.cross_entropy(logits, torch.from_numpy(rows.targets))
    distance = (embedding - reference).abs().mean()
    for stage, expected in (
        (Supervised(student, rows), {"cross_entropy": entropy}),
        (FeatureMatching(student, rows, reference), {"matching": distance}),
        (Distillation(student, rows, reference, alpha=3.0), {"cross_entropy": entropy, "matching": 3 * distance}),
    ):
        losses = stage(stage.batch(EVERYTHING, 0))
        assert losses.keys() == expected.keys()
        for name, value in expected.items():
            assert float(losses[name].detach()) == pytest.approx(float(value.detach()), rel=1e-4)
    assert float(feature_distance(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 5.0]]))) == 2


def test_a_class_that_a_clip_cannot_have_is_not_asked_about() -> None:
    images = eight_clips().inputs(EVERYTHING)[0][:, 0].numpy()
    corpora = ["one"] * 4 + ["other"] * 4
    rows = made_up_rows(images, [0, 1, 0, 1, 1, 2, 1, 2], corpora=corpora, possible={"one": "01", "other": "12"})
    model = network(dataclasses.replace(STUDENT, num_classes=3)).eval()
    stage = Supervised(model, rows)
    loss = float(stage(stage.batch(EVERYTHING, 0))["cross_entropy"].detach())
    logits = model.head(embed_rows(model, rows))
    one = torch.nn.functional.cross_entropy(logits[:4, :2], torch.tensor([0, 1, 0, 1]))
    other = torch.nn.functional.cross_entropy(logits[4:, 1:], torch.tensor([0, 1, 0, 1]))
    assert loss == pytest.approx(float((one + other).detach() / 2), rel=1e-4)
    mask = torch.tensor([[True, False]])
    assert restrict(torch.tensor([[0.0, 9.0]]), mask).softmax(dim=1)[0, 1] == 0
    assert restrict(logits, None) is logits


def test_nothing_reaches_the_teacher() -> None:
    rows, teacher, student = eight_clips(), network(TEACHER), network(STUDENT)
    reference = embed_rows(teacher, rows)
    stage = Distillation(student, rows, reference, alpha=1.0)
    stage.train().requires_grad_(True)
    assert {id(p) for p in stage.parameters()} == {id(p) for p in student.parameters()}
    sum(stage(stage.batch(EVERYTHING, 0)).values()).backward()
    assert not reference.requires_grad
    assert all(p.grad is None for p in teacher.parameters())
    assert not any("reference" in name for name in stage.state_dict())


def test_the_papers_stem_learns_the_same_in_pieces(
    tmp_path: Path, accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, losses = [], []
    for piece in (3, 8):
        monkeypatch.setattr(stages, "STEM_PIECE", piece)
        stage = Supervised(network(TEACHER), eight_clips())
        assert stage.piece == piece
        record = fit(stage, job(tmp_path / str(piece), quick(epochs=1)), accelerator)[0]
        losses.append(record["cross_entropy"])
        weights.append(torch.cat([tensor.flatten() for tensor in stage.network.state_dict().values()]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert (weights[0] - weights[1]).abs().mean() < 1e-4
