from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpus_factory import write_clip
from speech_emotion_vit.training.data.augment import Augmentation
from speech_emotion_vit.training.data.corpora import CREMA_D_LABELS
from speech_emotion_vit.training.fit.loop import fit
from speech_emotion_vit.training.fit.stages import Batch, Distillation, FrozenTeacher, Matching, Supervised, encode
from tiny_networks import COMPACT, QUICK, SIZE, STUDENT, TEACHER, digest, eight_clips, job, network, right
from training_runs import SMALL, fail, succeed


def test_encoding_without_padding_is_the_networks_own_feature() -> None:
    rows = eight_clips()
    images = rows.images(np.arange(8))
    for config in (STUDENT, TEACHER):
        model = network(config)
        assert torch.allclose(encode(model, images), model.forward_features(images).embedding, atol=1e-5)


def test_dropping_keeps_the_best_scored_columns_and_the_share_of_padding() -> None:
    model = network(STUDENT)
    images = eight_clips().images(np.arange(8))
    scores = torch.rand(8, SIZE, generator=torch.Generator().manual_seed(0))
    for row in range(8):
        real = SIZE - row
        kept = scores[row, :real].topk(math.ceil(real / 2)).indices
        patches = torch.cat((images[row, 0].T[kept], torch.zeros(1, SIZE)))[None]
        bias = torch.zeros(1, len(kept) + 1)
        bias[0, -1] = math.log(row / 2) if row else -math.inf
        expected = model.forward_patches(patches, bias).embedding
        assert torch.allclose(
            encode(model, images[row : row + 1], drop=0.5, scores=scores[row : row + 1]), expected, atol=1e-5
        )
    together = encode(model, images, drop=0.5, scores=scores)
    alone = torch.cat([encode(model, images[i : i + 1], drop=0.5, scores=scores[i : i + 1]) for i in range(8)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_dropping_in_a_network_with_a_stem_takes_half_of_all_patches() -> None:
    model = network(TEACHER)
    images = eight_clips().images(np.arange(2))
    scores = torch.rand(2, SIZE, generator=torch.Generator().manual_seed(0))
    patches = model.patches(images)
    expected = torch.cat(
        [model.forward_patches(patches[i, scores[i].topk(SIZE // 2).indices][None]).embedding for i in range(2)]
    )
    assert torch.allclose(encode(model, images, drop=0.5, scores=scores), expected, atol=1e-5)


def test_gradients_of_thinned_batches_are_finite() -> None:
    model = network(STUDENT)
    scores = torch.rand(8, SIZE)
    encode(model, eight_clips().images(np.arange(8)), drop=0.5, scores=scores).sum().backward()
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
    torch.testing.assert_close(noisy.taught, plain.images)
    assert (noisy.images >= noisy.taught).all()
    assert 0 < (noisy.images > noisy.taught).flatten(1).any(dim=1).sum() < len(noisy.images)
    teacher, student = FrozenTeacher(network(COMPACT, 1)), network(COMPACT, 2).eval()
    expected = (student.embed(noisy.images) - teacher.features(plain.images)).abs().mean()
    for stage in (Matching(student, teacher), Distillation(student, teacher, alpha=1.0, soft_weight=1.0)):
        assert stage(noisy)["matching"].item() == pytest.approx(expected.item(), rel=1e-5)
    soft = Supervised(student, teachers=[teacher], soft_weight=1.0, soft_temperature=1.0)
    wanted = teacher.logits(teacher.features(plain.images)).softmax(dim=1)
    told = -(wanted * student(noisy.images).log_softmax(dim=1)).sum(dim=1).mean()
    assert soft(noisy)["soft_labels"].item() == pytest.approx(told.item(), rel=1e-5)


def test_what_listeners_heard_is_learnt_by_heads_that_are_thrown_away() -> None:
    model = network(COMPACT).eval()
    stage = Supervised(model, votes_weight=0.5)
    votes = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]).repeat(8, 1, 1)
    votes[6:] = 0  # nobody was asked
    batch = Batch(eight_clips().images(np.arange(8)), torch.eye(2).repeat(4, 1), votes=votes)
    assert stage(batch)["votes"].item() == pytest.approx(0.5 * 6 / 8 * 2 * math.log(2))  # its heads know nothing yet
    assert stage.votes_head is not None
    torch.manual_seed(0)
    torch.nn.init.normal_(stage.votes_head.weight)
    logits = (model.embed(batch.images) @ stage.votes_head.weight.T).reshape(8, 2, 2)
    losses = stage(batch)
    chances = logits.log_softmax(dim=2)
    expected = -(chances[:6, 0, 0] + 0.5 * chances[:6, 1].sum(dim=1)).sum() / 8 * 0.5
    assert losses["votes"].item() == pytest.approx(expected.item(), rel=1e-5)
    losses["votes"].backward()  # type: ignore[no-untyped-call]
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.blocks.parameters())
    assert not any("votes" in name for name in model.state_dict())
    assert "votes" not in Supervised(model)(batch)


def test_votes_are_learnt_where_there_are_any_and_not_mixed(place: Path, savee: Path, tmp_path: Path) -> None:
    common = ("--stage", "supervised", "--set", "votes_weight=0.5", "--cache-dir", place / "cache", *SMALL)
    message = fail("train", "--dataset", "savee", "--data-dir", savee, "--output", tmp_path / "none", *common)
    assert "votes_weight is for CREMA-D with its summaryTable.csv beside AudioWAV; set it to 0" in message
    rows = ["FileName,VoiceVote,MultiModalVote"]
    for number, (speaker, part) in enumerate((s, p) for s in ("1001", "1049", "1048") for p in CREMA_D_LABELS):
        write_clip(tmp_path / "AudioWAV" / f"{speaker}_DFA_{part}_XX.wav", CREMA_D_LABELS[part], seed=number)
        rows.append(f"{speaker}_DFA_{part}_XX,{part[0]}:N,{part[0]}")
    (tmp_path / "summaryTable.csv").write_text("\n".join(rows))
    arguments = ("train", "--dataset", "crema-d", "--data-dir", tmp_path, *common)
    succeed(*arguments, "--output", tmp_path / "run")
    with open(tmp_path / "run" / "history.csv", newline="") as file:
        losses = [float(row["votes"]) for row in csv.DictReader(file)]
    assert len(losses) == 3
    assert 0 < losses[-1] < losses[0]
    message = fail(*arguments, "--output", tmp_path / "mixup", "--set", "augmentation.mixup=0.4")
    assert "set augmentation.mixup or votes_weight to 0" in message


def test_features_of_different_width_are_not_matched(place: Path, savee: Path) -> None:
    arguments = ("--data-dir", savee, "--cache-dir", place / "cache", "--set", "student_network=paper", *SMALL)
    message = fail("train", "--dataset", "savee", "--output", place / "widths", *arguments)
    assert "the teacher's feature has 576 values, the student's 256" in message
    assert "set teacher_network and student_network alike" in message
