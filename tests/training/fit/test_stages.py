from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speech_emotion_vit.training.data.specaugment import Augmentation
from speech_emotion_vit.training.fit.loop import fit
from speech_emotion_vit.training.fit.stages import Batch, Distillation, FrozenTeacher, Matching, Supervised, encode
from tiny_networks import COMPACT, QUICK, SIZE, STUDENT, TEACHER, digest, eight_clips, job, network, right
from training_runs import SMALL, fail


def test_encoding_without_padding_is_the_networks_own_feature() -> None:
    rows = eight_clips()
    images = rows.images(np.arange(8))
    for config in (STUDENT, TEACHER):
        model = network(config)
        assert torch.allclose(encode(model, images), model.forward_features(images).embedding, atol=1e-5)


def test_dropping_keeps_the_best_scored_columns_and_the_share_of_padding() -> None:
    model = network(STUDENT)
    images = eight_clips().images(np.arange(8))
    order = torch.rand(8, SIZE, generator=torch.Generator().manual_seed(0))
    for row in range(8):
        real = SIZE - row
        kept = order[row, :real].topk(math.ceil(real / 2)).indices
        patches = torch.cat((images[row, 0].T[kept], torch.zeros(1, SIZE)))[None]
        bias = torch.zeros(1, len(kept) + 1)
        bias[0, -1] = math.log(row / 2) if row else -math.inf
        expected = model.forward_patches(patches, bias).embedding
        assert torch.allclose(
            encode(model, images[row : row + 1], drop=0.5, order=order[row : row + 1]), expected, atol=1e-5
        )
    together = encode(model, images, drop=0.5, order=order)
    alone = torch.cat([encode(model, images[i : i + 1], drop=0.5, order=order[i : i + 1]) for i in range(8)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_dropping_in_a_network_with_a_stem_takes_half_of_all_patches() -> None:
    model = network(TEACHER)
    images = eight_clips().images(np.arange(2))
    order = torch.rand(2, SIZE, generator=torch.Generator().manual_seed(0))
    patches = model.patches(images)
    expected = torch.cat(
        [model.forward_patches(patches[i, order[i].topk(SIZE // 2).indices][None]).embedding for i in range(2)]
    )
    assert torch.allclose(encode(model, images, drop=0.5, order=order), expected, atol=1e-5)


def test_gradients_of_thinned_batches_are_finite() -> None:
    model = network(STUDENT)
    order = torch.rand(8, SIZE)
    encode(model, eight_clips().images(np.arange(8)), drop=0.5, order=order).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.patch_embedding.projection.weight.grad is not None


def test_eight_clips_are_learnt_by_heart_through_all_three_stages(tmp_path: Path, accelerator: Any) -> None:
    rows = eight_clips()
    teacher_network = network(TEACHER)
    history = fit(Supervised(teacher_network), job(tmp_path, "teacher"), accelerator)
    assert right(teacher_network, rows) == 8
    assert history[-1]["cross_entropy"] < history[0]["cross_entropy"]

    teacher = FrozenTeacher(teacher_network)
    before = digest(teacher.state_dict()), digest(teacher_network.state_dict())
    student = network(STUDENT, seed=1)
    student.head.load_state_dict(teacher_network.head.state_dict())
    matching = Matching(student, teacher)
    last = dataclasses.replace(QUICK, keep_best=False, epochs=40)
    history = fit(matching, job(tmp_path, "match", last), accelerator)
    assert history[-1]["matching"] < 0.5 * history[0]["matching"]
    assert torch.equal(student.head.weight, teacher_network.head.weight)

    history = fit(Distillation(student, teacher, alpha=10.0, soft_weight=1.0), job(tmp_path, "student"), accelerator)
    assert set(history[0]) >= {"cross_entropy", "matching", "soft_labels", "validation_ua", "learning_rate"}
    assert right(student, rows) == 8
    assert not torch.equal(student.head.weight, teacher_network.head.weight)
    assert (digest(teacher.state_dict()), digest(teacher_network.state_dict())) == before


def test_nothing_reaches_the_frozen_teacher() -> None:
    source = network(dataclasses.replace(TEACHER, dropout=0.5))
    teacher, student = FrozenTeacher(source), network(STUDENT)
    images = eight_clips().images(np.arange(8))
    features = teacher.features(images)
    logits = teacher.logits(features)
    stage = Distillation(student, teacher, alpha=1.0)
    stage.train()
    stage.requires_grad_(True)
    assert {id(p) for p in stage.parameters()} == {id(p) for p in student.parameters()}
    for parameter in source.parameters():  # the caller's own is another one
        parameter.data.zero_()
    again = teacher.features(images)
    assert not again.requires_grad
    torch.testing.assert_close(again, features, rtol=0, atol=0)  # nothing is dropped: it stays in eval mode
    torch.testing.assert_close(teacher.logits(again), logits, rtol=0, atol=0)


def test_known_features_of_the_teacher_are_the_same_loss(tmp_path: Path, accelerator: Any) -> None:
    teacher = FrozenTeacher(network(TEACHER))
    rows = eight_clips()
    reference = teacher.features(rows.images(np.arange(8)))
    weights = []
    for known in (None, reference):
        student = network(STUDENT)
        settings = dataclasses.replace(QUICK, epochs=2)
        fit(
            Matching(student, teacher),
            job(tmp_path / str(known is None), "match", settings, reference=known),
            accelerator,
        )
        weights.append(student.state_dict())
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])


def test_classes_can_be_weighed() -> None:
    images = eight_clips().images(np.arange(4))
    from speech_emotion_vit.training.fit.stages import Batch

    model = network(STUDENT)
    targets = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 1]), 2).float()
    heavy = Supervised(model, class_weights=torch.tensor([0.0, 2.0]))(Batch(images, targets))["cross_entropy"]
    alone = Supervised(model)(Batch(images[3:], targets[3:]))["cross_entropy"]
    assert float(heavy.detach()) == pytest.approx(float(alone.detach()) * 2 / 4, rel=1e-4)


def test_several_teachers_teach_the_mean_of_their_answers() -> None:
    teachers = [FrozenTeacher(network(COMPACT, seed)) for seed in (1, 2)]
    student = network(COMPACT, 3).eval()
    stage = Supervised(student, teachers=teachers, soft_weight=0.5, soft_temperature=2.0)
    rows = eight_clips()
    images = rows.images(np.arange(8))
    losses = stage(Batch(images, torch.nn.functional.one_hot(torch.from_numpy(rows.targets), 2).float()))
    wanted = sum(torch.softmax(teacher.logits(teacher.features(images)) / 2, dim=1) for teacher in teachers) / 2
    expected = -(wanted * torch.log_softmax(student(images) / 2, dim=1)).sum(dim=1).mean() * 4 * 0.5
    assert losses["soft_labels"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert "soft_labels" not in Supervised(student)(Batch(images, torch.eye(2).repeat(4, 1)))


def test_a_teacher_hears_each_clip_without_the_noise(
    tmp_path: Path, accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: dict[float, Batch] = {}
    forward = Supervised.forward

    def recording(self: Supervised, batch: Batch) -> dict[str, torch.Tensor]:
        batches[noise] = batch
        return forward(self, batch)

    monkeypatch.setattr(Supervised, "forward", recording)
    for noise in (0.0, 0.6):
        augmentation = Augmentation(time_warp=0.1, time_masks=1, time_mask_columns=8, noise=noise)
        settings = dataclasses.replace(QUICK, epochs=1)
        fit(
            Supervised(network(COMPACT)),
            job(tmp_path / str(noise), "x", settings, augmentation=augmentation),
            accelerator,
        )
    plain, noisy = batches[0.0], batches[0.6]
    torch.testing.assert_close(noisy.teacher_images, plain.images)
    assert (noisy.images >= noisy.teacher_images).all()
    assert 0 < (noisy.images > noisy.teacher_images).flatten(1).any(dim=1).sum() < len(noisy.images)
    teacher, student = FrozenTeacher(network(COMPACT, 1)), network(COMPACT, 2).eval()
    expected = (student.embed(noisy.images) - teacher.features(plain.images)).abs().mean()
    for stage in (Matching(student, teacher), Distillation(student, teacher, alpha=1.0, soft_weight=1.0)):
        assert stage(noisy)["matching"].item() == pytest.approx(expected.item(), rel=1e-5)
    soft = Supervised(student, teachers=[teacher], soft_weight=1.0, soft_temperature=1.0)
    wanted = teacher.logits(teacher.features(plain.images)).softmax(dim=1)
    told = -(wanted * student(noisy.images).log_softmax(dim=1)).sum(dim=1).mean()
    assert soft(noisy)["soft_labels"].item() == pytest.approx(told.item(), rel=1e-5)


def test_features_of_different_width_are_not_matched(place: Path, savee: Path) -> None:
    arguments = ("--data-dir", savee, "--cache-dir", place / "cache", "--set", "student_network=paper", *SMALL)
    message = fail("train", "--dataset", "savee", "--output", place / "widths", *arguments)
    assert "the teacher's feature has 576 values, the student's 256" in message
    assert "set teacher_network and student_network alike" in message
