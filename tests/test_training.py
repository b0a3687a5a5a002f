from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from torch import Tensor

from corpus_factory import labelled_csv
from speech_emotion_vit.cli import main
from speech_emotion_vit.errors import ConfigError, DatasetError, TrainingError
from speech_emotion_vit.model.config import FrontendConfig, ModelConfig
from speech_emotion_vit.model.vit import SpectrogramViT
from speech_emotion_vit.training.data.augment import Augmentation
from speech_emotion_vit.training.data.features import FeatureStore
from speech_emotion_vit.training.data.protocols import Item
from speech_emotion_vit.training.data.rows import Rows, restrict
from speech_emotion_vit.training.fit import loop
from speech_emotion_vit.training.fit.head import embed_rows, fit_probe
from speech_emotion_vit.training.fit.loop import Job, fit, learning_rate, seed_of
from speech_emotion_vit.training.fit.losses import cross_entropy, feature_distance, soft_cross_entropy
from speech_emotion_vit.training.fit.pretrained import OwnHead
from speech_emotion_vit.training.fit.stages import Batch, Distillation, FrozenTeacher, Matching, Supervised, encode
from speech_emotion_vit.training.fit.state import load_state, save_state
from speech_emotion_vit.training.folder import (
    MAX_BYTES,
    locked,
    open_run,
    read_json,
    read_results,
    write_csv,
    write_json,
)
from speech_emotion_vit.training.folds import pooled_temperature
from speech_emotion_vit.training.recipes import RECIPES, ProbeSettings, Recipe, StageSettings
from speech_emotion_vit.training.run import make_accelerator
from speech_emotion_vit.training.score.evaluation import score_clips
from speech_emotion_vit.training.score.report import write_confusion
from speech_emotion_vit.training.score.scoring import score_rows

SIZE = 16
STUDENT = ModelConfig(
    num_classes=2,
    image_height=SIZE,
    image_width=SIZE,
    patch_height=SIZE,
    dim=32,
    depth=1,
    heads=2,
    head_dim=16,
    mlp_dim=32,
)
TEACHER = dataclasses.replace(STUDENT, depth=2, stem="conv6", coordinates=True)
COMPACT = dataclasses.replace(STUDENT, stem="strided", patch_width=2, dropout=0.2)
QUICK = StageSettings(epochs=25, batch_size=8, optimizer="adamw", learning_rate=3e-3, clip_norm=1.0)


def network(config: ModelConfig, seed: int = 0) -> SpectrogramViT:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SpectrogramViT(config)


def eight_clips(seed: int = 0, *, votes: bool = False) -> Rows:
    """Random images with random labels, and random votes if wanted: only memory helps."""
    rng = np.random.default_rng(seed)
    images = rng.random((8, SIZE, SIZE)).astype(np.float16)
    for row, image in enumerate(images):
        image[:, SIZE - row :] = 0
    names = [f"clip{i}" for i in range(8)]
    store = FeatureStore(images, {name: (i, i + 1) for i, name in enumerate(names)}, {}, "made-up")
    classes = {name: int(i % 3 == 0) for i, name in enumerate(names)}
    heard = {name: [[1 - side, side] for side in rng.random(2)] for name in names} if votes else None
    return Rows([Item(name, 0) for name in names], {0: store}, classes, device=torch.device("cpu"), votes=heard)


def job(folder: Path, name: str, settings: StageSettings = QUICK, **options: Any) -> Job:
    rows = eight_clips()
    return Job(
        **{
            "name": name,
            "settings": settings,
            "augmentation": Augmentation(),
            "top_db": 80.0,
            "num_classes": 2,
            "seed": 0,
            "train": rows,
            "validation": rows,
            "folder": folder,
            **options,
        }
    )


def digest(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))).hexdigest()


@pytest.fixture(scope="module")
def accelerator() -> Any:
    return make_accelerator("cpu", "no")


# Encoding on the fewest tokens -----------------------------------------------------------------------------------


def test_a_class_that_a_clip_cannot_have_gets_no_target_and_no_probability() -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0, 9.0], [1.5, 0.0, -0.5, 0.25]])
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    possible = torch.tensor([[True, True, True, False], [True, True, True, True]])
    expected = sum(
        cross_entropy(logits[i : i + 1, : 3 + i], targets[i : i + 1, : 3 + i], label_smoothing=0.3) for i in range(2)
    )
    assert cross_entropy(logits, targets, label_smoothing=0.3, possible=possible) == pytest.approx(expected / 2)
    assert restrict(logits, possible).softmax(dim=1)[0, 3] == 0
    assert restrict(logits, None) is logits


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


# Losses ----------------------------------------------------------------------------------------------------------


def test_losses_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])  # probabilities 1/4, 3/4
    target = torch.tensor([[0.0, 1.0]])
    assert float(cross_entropy(logits, target)) == pytest.approx(math.log(4 / 3))
    smooth = 0.9 * math.log(4 / 3) + 0.1 * (math.log(4) + math.log(4 / 3)) / 2
    assert float(cross_entropy(logits, target, label_smoothing=0.1)) == pytest.approx(smooth)
    assert float(feature_distance(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 5.0]]))) == 2
    assert float(soft_cross_entropy(logits, logits.softmax(dim=1), temperature=1.0)) == pytest.approx(
        -(math.log(1 / 4) / 4 + 3 * math.log(3 / 4) / 4)
    )


# Schedules and seeds ---------------------------------------------------------------------------------------------


def test_learning_rates_by_hand() -> None:
    halving = StageSettings(learning_rate=1e-4)
    rates = [learning_rate(halving, epoch) for epoch in (0, 9.99, 10, 10.01, 25, 50)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-4, 0.5e-4, 0.25e-4, 0.0625e-4])
    cosine = StageSettings(epochs=10, learning_rate=1.0, schedule="cosine", warmup_epochs=2.0)
    assert learning_rate(cosine, 0) == 0
    assert learning_rate(cosine, 1) == pytest.approx(0.5 * 0.5 * (1 + math.cos(0.1 * math.pi)))
    assert learning_rate(cosine, 5) == pytest.approx(0.5)
    assert learning_rate(cosine, 10) == pytest.approx(0)


def test_seeds_differ_in_every_part() -> None:
    seeds = {
        seed_of(s, name, epoch, step) for s in (0, 1) for name in ("a", "b") for epoch in (1, 2) for step in (0, 1)
    }
    assert len(seeds) == 16
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1)


# Stages ----------------------------------------------------------------------------------------------------------


def right(model: SpectrogramViT, rows: Rows) -> int:
    return int((score_rows(model, rows).argmax(axis=1) == rows.targets).sum())


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


def test_nothing_reaches_the_frozen_teacher(accelerator: Any) -> None:
    source = network(TEACHER)
    teacher = FrozenTeacher(source)
    stage = Distillation(network(STUDENT), teacher, alpha=1.0)
    stage.train()
    stage.requires_grad_(True)
    inner = teacher._network
    assert not any(p.requires_grad for p in inner.parameters())
    assert not inner.training
    assert {id(p) for p in stage.parameters()}.isdisjoint({id(p) for p in inner.parameters()})
    source.head.weight.data.zero_()  # the caller's own is another one
    assert bool(inner.head.weight.any())


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


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_changes_the_head_alone_and_tells_what_is_linear(classes: int) -> None:
    """Bright rows in another place per class; every speaker says each class once."""
    rng = np.random.default_rng(0)
    images = rng.random((4 * classes, SIZE, SIZE)).astype(np.float16) * np.float16(0.3)
    for row, image in enumerate(images):
        image[4 * (row % classes) : 4 * (row % classes) + 3] += 0.5
    names = [f"clip{i}" for i in range(len(images))]
    store = FeatureStore(images, {name: (i, i + 1) for i, name in enumerate(names)}, {}, "made-up")
    rows = Rows(
        [Item(name, 0) for name in names],
        {0: store},
        {name: i % classes for i, name in enumerate(names)},
        device=torch.device("cpu"),
    )
    probed = network(dataclasses.replace(COMPACT, num_classes=classes, pooling="contour_statistics")).eval()
    before = {name: tensor.clone() for name, tensor in probed.state_dict().items()}
    speakers = [str(i // classes) for i in range(len(images))]
    settings = ProbeSettings(copies=1)
    record = fit_probe(probed, rows, speakers, settings, Augmentation(frequency_warp=0.01), seed=0)
    after = probed.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == {"head.weight", "head.bias"}
    assert record["left_out_ua"] == 1.0


@pytest.mark.parametrize("balanced", [True, False])
def test_a_probe_is_ridge_regression_on_standardised_embeddings(balanced: bool) -> None:
    from sklearn.linear_model import RidgeClassifier
    from sklearn.preprocessing import StandardScaler

    rows = eight_clips()  # three of one label, five of the other
    probed = network(COMPACT).eval()
    record = fit_probe(
        probed, rows, list("abcdefgh"), ProbeSettings(copies=0, balanced=balanced), Augmentation(), seed=0
    )
    with torch.no_grad():
        embeddings = probed.embed(rows.images(np.arange(8))).double().numpy()
    scaled = StandardScaler().fit_transform(embeddings)
    machine = RidgeClassifier(alpha=record["penalty"] * 8, class_weight="balanced" if balanced else None)
    margins = machine.fit(scaled, rows.targets).decision_function(scaled)
    np.testing.assert_allclose(score_rows(probed, rows), np.stack((-margins, margins), axis=1), atol=1e-3)


def test_corpora_of_a_mixture_weigh_the_same_in_a_probe() -> None:
    """And so do the labels of each; a label that a corpus does not have is learnt from it as absent."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    images = np.random.default_rng(0).random((13, SIZE, SIZE)).astype(np.float16)
    labels = [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 1, 1]  # of nine clips and of four
    weights = [1 / 6] * 6 + [1 / 3] * 3 + [1 / 2] * 4
    names = [f"clip{i}" for i in range(13)]
    store = FeatureStore(images, {name: (i, i + 1) for i, name in enumerate(names)}, {}, "made-up")
    possible = {name: (i < 9, True, i >= 9) for i, name in enumerate(names)}
    rows = Rows(
        [Item(name, 0) for name in names],
        {0: store},
        dict(zip(names, labels, strict=True)),
        device=torch.device("cpu"),
        possible=possible,
    )
    probed = network(dataclasses.replace(COMPACT, num_classes=3)).eval()
    record = fit_probe(probed, rows, names, ProbeSettings(copies=0), Augmentation(), seed=0)
    scaled = StandardScaler().fit_transform(embed_rows(probed, rows, Augmentation(), 0).double())
    targets = 2 * np.eye(3)[labels] - 1
    ridge = Ridge(alpha=record["penalty"] * sum(weights)).fit(scaled, targets, weights)
    allowed = np.array(list(possible.values()))
    np.testing.assert_allclose(score_rows(probed, rows)[allowed], ridge.predict(scaled)[allowed], atol=1e-3)
    assert record["left_out_nll"] < np.log(3)  # of two labels each, not of three


def test_a_head_that_is_kept_has_its_share_beside_one_that_reads_the_rest() -> None:
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    rows = eight_clips()
    own = OwnHead(("a", "b"), torch.randn(2, COMPACT.dim), torch.randn(2))
    both = network(dataclasses.replace(COMPACT, pooling="stem_statistics")).eval()
    settings = ProbeSettings(copies=0, balanced=False, keep=0.75)
    record = fit_probe(both, rows, list("abcdefgh"), settings, Augmentation(), seed=0, own=own)
    embeddings = embed_rows(both, rows, Augmentation(), 0)
    kept = embeddings[:, : COMPACT.dim] @ own.weight.T + own.bias
    rest = StandardScaler().fit_transform(embeddings[:, COMPACT.dim :].double())
    margins = Ridge(alpha=record["penalty"] * 8).fit(rest, 2 * rows.targets - 1).predict(rest)
    factors = (score_rows(both, rows) - 0.75 * kept.numpy()) / np.stack((-margins, margins), axis=1)
    # A quarter over the temperature that fits what is left out: high, for there is nothing to learn in these images.
    np.testing.assert_allclose(factors, factors.mean(), rtol=0.02)
    assert 0 < factors.mean() < 0.25
    contours = network(dataclasses.replace(COMPACT, pooling="contour_statistics")).eval()
    all_else = contours.config.embedding_dim - contours.config.contour_dim
    own = OwnHead(("a", "b"), torch.randn(2, all_else), torch.randn(2))
    fit_probe(contours, rows, list("abcdefgh"), settings, Augmentation(), seed=0, own=own)
    assert contours.head.weight[:, all_else:].abs().amax() > 0  # also where contours are all there is to add
    assert record["temperature"] == 1.0


@pytest.mark.parametrize(("contour_weight", "copies_weight"), [(0.5, 0.5), (8.0, 4.0)])
def test_a_probe_hears_contours_and_copies_by_their_weights(contour_weight: float, copies_weight: float) -> None:
    """Ridge regression on values standardised by the images, those of contours stretched, copies as weighted clips."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    rows, augmentation = eight_clips(), Augmentation(equalizer=0.05)
    probed = network(dataclasses.replace(COMPACT, pooling="contour_statistics")).eval()
    settings = ProbeSettings(copies=2, balanced=False, contour_weight=contour_weight, copies_weight=copies_weight)
    record = fit_probe(probed, rows, list("abcdefgh"), settings, augmentation, seed=0)
    plain = embed_rows(probed, rows, Augmentation(), 0).double().numpy()
    copies = [embed_rows(probed, rows, augmentation, seed_of(0, f"probe {copy}")).double().numpy() for copy in (0, 1)]
    scaled = StandardScaler().fit(plain).transform(np.concatenate((plain, *copies)))
    scaled[:, plain.std(axis=0) < 1e-6] = 0
    contours = probed.config.contour_dim
    scaled[:, -contours:] *= np.sqrt(contour_weight * (scaled.shape[1] - contours) / contours)
    weights = np.repeat([1.0, copies_weight / 2, copies_weight / 2], 8)
    ridge = Ridge(alpha=record["penalty"] * weights.sum()).fit(scaled, np.tile(2 * rows.targets - 1, 3), weights)
    margins = ridge.predict(scaled[:8])
    np.testing.assert_allclose(score_rows(probed, rows), np.stack((-margins, margins), axis=1), atol=1e-3)


def test_a_probe_tries_the_penalties_of_its_recipe() -> None:
    rows = eight_clips()
    recipe = RECIPES["robust"].with_values({"probe.penalties": "[7, 0.5]"})
    assert Recipe.from_dict(recipe.to_dict()).probe.penalties == (7.0, 0.5)
    for penalties in ((7.0,), (0.01,)):
        settings = ProbeSettings(copies=0, penalties=penalties)
        record = fit_probe(network(COMPACT).eval(), rows, list("abcdefgh"), settings, Augmentation(), seed=0)
        assert record["penalty"] == penalties[0]


def test_a_penalty_that_is_lost_in_rounding_is_raised() -> None:
    from speech_emotion_vit.training.fit.head import _heads, _Sums

    sums = _Sums(2, 1)
    covariance = torch.tensor([[1.0, 1.0001], [1.0001, 1.0]], dtype=torch.float64)  # of no data, but for rounding
    cross = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    for value, found in zip(sums.values, (1.0, torch.zeros(2), torch.zeros(1), covariance, cross), strict=True):
        value += found
    (low, (lost, _)), (high, (kept, _)) = _heads([sums], [1e-5, 1e-3])
    assert (low, high) == (1e-5, 1e-3)
    torch.testing.assert_close(kept, torch.linalg.solve(covariance + 1e-3 * torch.eye(2), cross).T)
    torch.testing.assert_close(lost, kept)


def test_a_probe_needs_every_class_and_some_clips_to_leave_out() -> None:
    rows = eight_clips()
    probed = network(dataclasses.replace(COMPACT, num_classes=3)).eval()
    with pytest.raises(DatasetError, match="have 2 of 3 labels"):
        fit_probe(probed, rows, ["a"] * 8, ProbeSettings(), Augmentation(), seed=0)
    store = FeatureStore(np.ones((2, SIZE, SIZE), np.float16), {"a": (0, 1), "b": (1, 2)}, {}, "made-up")
    few = Rows([Item("a", 0), Item("b", 0)], {0: store}, {"a": 0, "b": 1}, device=torch.device("cpu"))
    with pytest.raises(DatasetError, match="no label has 3 training clips"):
        fit_probe(network(COMPACT), few, ["a", "b"], ProbeSettings(), Augmentation(), seed=0)
    with pytest.raises(ConfigError, match=r"probe\.contour_weight must be from 0 to 100, not -1\.0"):
        RECIPES["robust"].with_values({"probe.contour_weight": "-1"})
    with pytest.raises(ConfigError, match=r"probe\.copies must be from 0 to 100, not 101"):
        RECIPES["robust"].with_values({"probe.copies": "101"})
    with pytest.raises(ConfigError, match=r"probe\.copies_weight must be from 0 to 100, not -0\.5"):
        RECIPES["robust"].with_values({"probe.copies_weight": "-0.5"})
    with pytest.raises(ConfigError, match=r"probe\.keep must be from 0 to 0\.95, not 1\.0"):
        RECIPES["robust"].with_values({"probe.keep": "1"})


def test_classes_can_be_weighed() -> None:
    images = eight_clips().images(np.arange(4))
    from speech_emotion_vit.training.fit.stages import Batch

    model = network(STUDENT)
    targets = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 1]), 2).float()
    heavy = Supervised(model, class_weights=torch.tensor([0.0, 2.0]))(Batch(images, targets))["cross_entropy"]
    alone = Supervised(model)(Batch(images[3:], targets[3:]))["cross_entropy"]
    assert float(heavy.detach()) == pytest.approx(float(alone.detach()) * 2 / 4, rel=1e-4)


# The loop --------------------------------------------------------------------------------------------------------

ALL_ON = dataclasses.replace(QUICK, epochs=6, average=0.9, drop=0.5, batch_size=3, schedule="cosine", warmup_epochs=1.0)
AUGMENTED = Augmentation(frequency_warp=0.05, equalizer=0.05, mixup=0.4)


@pytest.mark.parametrize(
    ("config", "votes_weight"), [(STUDENT, 0.0), (COMPACT, 0.0), (COMPACT, 0.5)], ids=["paper", "compact", "votes"]
)
def test_an_epoch_at_a_time_is_bit_exact(
    tmp_path: Path, accelerator: Any, monkeypatch: pytest.MonkeyPatch, config: ModelConfig, votes_weight: float
) -> None:
    def run(name: str, model: SpectrogramViT) -> list[dict[str, Any]]:
        rows = eight_clips(votes=votes_weight > 0)
        options = {"augmentation": AUGMENTED, "train": rows, "validation": rows}
        return fit(
            Supervised(model, votes_weight=votes_weight), job(tmp_path / name, "x", ALL_ON, **options), accelerator
        )

    whole = network(config)
    history = run("a", whole)
    from speech_emotion_vit.training.fit import loop

    store = loop._Fit._store
    calls = 0

    def stop(self: Any) -> None:
        nonlocal calls
        calls += 1
        store(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop._Fit, "_store", stop)
    for start in range(6):
        torch.manual_seed(time.monotonic_ns() % 1000)  # nothing may depend on the global generator
        model = network(config, seed=start)  # after the first epoch the state replaces it
        with pytest.raises(KeyboardInterrupt):
            run("b", model)
    pieces = network(config, seed=6)
    again = run("b", pieces)
    assert calls == 6
    assert digest(whole.state_dict()) == digest(pieces.state_dict())
    assert [r | {"seconds": 0} for r in history] == [r | {"seconds": 0} for r in again]


def test_a_loss_that_is_not_finite_stops_with_an_explanation(tmp_path: Path, accelerator: Any) -> None:
    model = network(STUDENT)
    model.head.bias.data.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"x: the loss is not finite in epoch 1.*lower x\.learning_rate") as error:
        fit(Supervised(model), job(tmp_path, "x"), accelerator)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [math.inf, 1e38])
@pytest.mark.parametrize("validated", [True, False])
def test_a_last_step_that_breaks_the_network_stops_with_an_explanation(
    tmp_path: Path, accelerator: Any, monkeypatch: pytest.MonkeyPatch, value: float, validated: bool
) -> None:
    model = network(STUDENT)

    def explode(self: Any) -> None:
        for parameter in model.parameters():
            parameter.data.fill_(value)

    monkeypatch.setattr(loop._Fit, "_average", explode)
    monkeypatch.setattr(loop._Fit, "_check", lambda *arguments: None)  # which looked before that step
    rows = eight_clips()
    none = Rows(
        [], {0: FeatureStore(rows.images(np.arange(8))[:, 0].half().numpy(), {}, {}, "")}, {}, device=rows.device
    )
    settings = dataclasses.replace(QUICK, epochs=1)
    options = {} if validated else {"validation": none}
    if value == 1e38 and not validated:  # finite weights are kept; what ships is scored again
        fit(Supervised(model), job(tmp_path, "x", settings, **options), accelerator)
        return
    with pytest.raises(
        TrainingError, match=r"x: .* not finite after epoch 1: train anew with a lower x\.learning_rate"
    ):
        fit(Supervised(model), job(tmp_path, "x", settings, **options), accelerator)
    assert list(tmp_path.iterdir()) == []


def test_the_best_epoch_is_kept_and_patience_ends_a_stage(tmp_path: Path, accelerator: Any) -> None:
    settings = dataclasses.replace(QUICK, epochs=60, patience=3, learning_rate=1e-2)
    model = network(STUDENT)
    history = fit(Supervised(model), job(tmp_path, "x", settings), accelerator)
    scores = [record["validation_ua"] for record in history]
    best = scores.index(max(scores))
    assert len(history) == best + 1 + 3 < 60
    progress = load_state(tmp_path / "x.state.safetensors")[1]
    assert progress["done"]
    assert progress["best_epoch"] == best + 1


def test_without_validation_items_the_last_epoch_is_kept(tmp_path: Path, accelerator: Any) -> None:
    rows = eight_clips()
    nothing = Rows([], rows_stores(), {}, device=torch.device("cpu"))
    settings = dataclasses.replace(QUICK, epochs=4, patience=1)
    model = network(STUDENT)
    history = fit(Supervised(model), job(tmp_path, "x", settings, train=rows, validation=nothing), accelerator)
    assert len(history) == 4
    assert "validation_ua" not in history[0]
    groups, _ = load_state(tmp_path / "x.state.safetensors")
    assert digest(groups["kept"]) == digest(groups["network"])


def rows_stores() -> dict[int, FeatureStore]:
    return {0: FeatureStore(np.zeros((1, SIZE, SIZE), np.float16), {}, {}, "made-up")}


def test_the_papers_stem_learns_the_same_in_pieces(
    tmp_path: Path, accelerator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, losses = [], []
    for chunk in (3, 8):
        monkeypatch.setattr(loop, "STEM_CHUNK", chunk)
        stage = Supervised(network(TEACHER))
        record = fit(stage, job(tmp_path / str(chunk), "x", dataclasses.replace(QUICK, epochs=1)), accelerator)[0]
        losses.append(record["cross_entropy"])
        weights.append(torch.cat([tensor.flatten() for tensor in stage.network.state_dict().values()]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert (weights[0] - weights[1]).abs().mean() < 1e-4


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


def test_a_state_of_another_network_is_refused(tmp_path: Path, accelerator: Any) -> None:
    short = dataclasses.replace(QUICK, epochs=1)
    fit(Supervised(network(STUDENT)), job(tmp_path, "x", short), accelerator)
    with pytest.raises(TrainingError, match=r"does not fit this run .*remove it to repeat this stage"):
        fit(Supervised(network(TEACHER)), job(tmp_path, "x", short), accelerator)
    (tmp_path / "x.state.safetensors").write_bytes(b"garbage")
    with pytest.raises(TrainingError, match="cannot be resumed from"):
        fit(Supervised(network(STUDENT)), job(tmp_path, "x", short), accelerator)


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
    short = dataclasses.replace(QUICK, epochs=1)
    fit(Supervised(network(STUDENT)), job(tmp_path, "x", short), accelerator)
    path = tmp_path / "x.state.safetensors"
    groups, progress = load_state(path)
    save_state(path, groups, progress | change)
    with pytest.raises(TrainingError, match=r"does not fit this run .*remove it to repeat this stage"):
        fit(Supervised(network(STUDENT)), job(tmp_path, "x", short), accelerator)
    for metadata in ({}, {"progress": "{"}, {"progress": "[]"}):
        save_file(load_file(path), path, metadata={"format": "1"} | metadata)
        with pytest.raises(TrainingError, match=r"does not say how far .*remove it to repeat this stage"):
            load_state(path)


# Recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_survive_json(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.name == name
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_the_paper_recipe_is_the_papers() -> None:
    recipe = RECIPES["paper"]
    for stage in (recipe.teacher, recipe.match, recipe.student):
        assert (stage.epochs, stage.optimizer, stage.learning_rate, stage.halve_every) == (50, "adam", 1e-4, 10)
        assert (stage.schedule, stage.batch_size, stage.weight_decay, stage.drop) == ("halving", 32, 0.0, 0.0)
    assert recipe.alpha == 10
    assert recipe.versions == (0, 1, 2, 3)
    assert recipe.frontend == FrontendConfig(long_clips="truncate")
    assert not recipe.augmentation.active
    assert recipe.student_model(6) == ModelConfig.student(6)
    assert recipe.teacher_model(6) == ModelConfig.teacher(6)


def test_every_value_of_a_recipe_has_its_reason() -> None:
    import ast

    from helpers import ROOT

    undocumented = []
    for name in ("recipes.py", "data/augment.py"):
        tree = ast.parse((ROOT / "src" / "speech_emotion_vit" / "training" / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for member, following in zip(node.body, [*node.body[1:], None], strict=True):
                    is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                    if isinstance(member, ast.AnnAssign) and not is_text:
                        undocumented.append(f"{node.name}.{ast.unparse(member.target)}")
    assert undocumented == []


def test_values_are_changed_by_name() -> None:
    recipe = RECIPES["robust"].with_values(
        {
            "student.learning_rate": "1e-3",
            "versions": "[0, 3]",
            "augmentation.noise": "0.2",
            "compact_patch_width": "16",
        }
    )
    assert recipe.student.learning_rate == 1e-3
    assert recipe.versions == (0, 3)
    assert recipe.augmentation.noise == 0.2
    assert recipe.student_model(6).patch_width == 16
    assert RECIPES["paper"].with_values({"patch_width": "16"}).student_model(6).patch_width == 16
    without = RECIPES["paper"].with_values({"teacher_stem": "false", "teacher_coordinates": "false"})
    assert without.teacher_model(6) == dataclasses.replace(ModelConfig.student(6), depth=6)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"student.lr": "1"}, r"no value 'student\.lr': it has .*student\.learning_rate"),
        ({"alpha": "much"}, r"alpha must be float, not 'much'"),
        ({"alpha": "-1"}, r"alpha must be from 0"),
        ({"student.epochs": "0"}, r"epochs must be from 1"),
        ({"student.epochs": "1.5"}, r"epochs must be int"),
        ({"student.optimizer": "sgd"}, r"optimizer must be one of adam, adamw, not 'sgd'"),
        ({"versions": "[1]"}, r"versions must be different and contain 0"),
        ({"temperature_factor": "0.4"}, r"temperature_factor must be from 0.5 to 2, not 0.4"),
        ({"versions": "[0, 7]"}, r"versions must be from 0 to 3"),
        ({"probe.penalties": "[]"}, r"probe\.penalties must be numbers above 0 and up to 1e6, not \(\)"),
        ({"probe.penalties": "[1, 0]"}, r"probe\.penalties must be numbers above 0"),
        ({"probe.penalties": "[true]"}, r"penalties must be a list of numbers"),
        ({"probe.penalties": "1"}, r"penalties must be a list of numbers, not 1"),
        ({"student_network": "paper", "patch_width": "5"}, r"not a multiple"),
        (
            {"compact_patch_width": "32"},
            r"a strided stem makes tokens of 128 rows and 1, 2, 4, 8, 16 columns, not of 128 x 32",
        ),
        ({"frontend.top_db": "0"}, r"top_db must be from 1"),
        ({"frontend.floor": "1"}, r"floor must be from 0\.0 to 0\.9, not 1\.0"),
    ],
)
def test_senseless_values_are_refused_by_name(change: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        RECIPES["robust"].with_values(change)


@pytest.mark.parametrize("name", ["x/../../y", "", "..", "a\0b", "a\udce9", "a b", "x" * 65, "a\n"])
def test_a_name_that_is_no_folders_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name must be 1 to 64 letters"):
        Recipe.from_dict({"name": name})


def test_unknown_keys_of_a_recipe_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown keys"):
        Recipe.from_dict(RECIPES["paper"].to_dict() | {"epochs": 3})


# Run folders -----------------------------------------------------------------------------------------------------


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(TrainingError, match="another process is writing there"):  # noqa: SIM117
        with locked(tmp_path / "run"):
            pass
    with locked(tmp_path / "run"):
        pass


def test_a_run_is_resumed_only_by_the_same_run(tmp_path: Path) -> None:
    description = {
        "corpus": "savee",
        "protocol": "speaker",
        "fold": 0,
        "seed": 0,
        "recipe": {"alpha": 10.0},
        "mode": "distilled",
        "precision": "no",
    }
    open_run(tmp_path, description, resume=False)
    with pytest.raises(TrainingError, match="holds a run already: pass --resume"):
        open_run(tmp_path, description, resume=False)
    open_run(tmp_path, description, resume=True)
    with pytest.raises(TrainingError, match=r"holds another run \(seed 0 there, 1 now\)"):
        open_run(tmp_path, description | {"seed": 1}, resume=True)
    with pytest.raises(TrainingError, match=r"holds another run \(precision 'no' there, 'bf16' now\)"):
        open_run(tmp_path, description | {"precision": "bf16"}, resume=True)
    with pytest.raises(TrainingError, match=r"another run \(recipe: alpha differ\)"):
        open_run(tmp_path, description | {"recipe": {"alpha": 5.0}}, resume=True)
    open_run(tmp_path, description | {"recipe": {"alpha": 10.0, "repeats": 1}}, resume=True)  # a default of later
    open_run(tmp_path, description | {"recipe": {"alpha": 10.0, "probe": ProbeSettings().__dict__}}, resume=True)
    with pytest.raises(TrainingError, match=r"another run \(recipe: probe differ\)"):
        open_run(tmp_path, description | {"recipe": {"alpha": 10.0, "probe": {"penalties": [1.0]}}}, resume=True)
    with pytest.raises(TrainingError, match=r"another run \(recipe: repeats differ\)"):
        open_run(tmp_path, description | {"recipe": {"alpha": 10.0, "repeats": 2}}, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(TrainingError, match="is not empty and holds no run"):
        open_run(tmp_path / "other", description, resume=True)


def test_the_network_of_all_clips_may_come_first(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    for fold in ("all", None):
        open_run(tmp_path, {"fold": fold}, resume=False)
        (tmp_path / "run.json").unlink()


def test_a_damaged_record_of_a_run_is_named(tmp_path: Path) -> None:
    description = {"fold": None, "recipe": {}, "split": {"note": ""}, "remarks": []}
    open_run(tmp_path, description, resume=False)
    for change in ({"recipe": None}, {"recipe": "abc"}, {"split": {}}, {"remarks": "x"}):
        write_json(tmp_path / "run.json", description | change)
        with pytest.raises(TrainingError, match=rf"run\.json: is damaged \({next(iter(change))}.*another --output"):
            open_run(tmp_path, description, resume=True)
    for results in ({}, {"epochs": 3}, {"epochs": {}, "peak_memory": "x"}):
        write_json(tmp_path / "results.json", results)
        with pytest.raises(TrainingError, match=r"results\.json: is damaged .*: remove it"):
            read_results(tmp_path)
        with pytest.raises(TrainingError, match=r"a results\.json in it is damaged"):
            pooled_temperature(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no FIFOs")
def test_only_regular_files_of_sensible_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    for name, complaint in (("fifo", "no"), ("zero", "not a regular"), ("large", f"more than {MAX_BYTES} bytes")):
        with pytest.raises(TrainingError, match=rf"{name}: cannot be read \(.*{complaint}"):
            read_json(tmp_path / name)


def test_names_that_are_no_utf_8_are_written_as_their_escapes(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "fr\udcf6h"})
    assert read_json(tmp_path / "a.json") == {"name": "fr\udcf6h"}
    write_csv(tmp_path / "a.csv", ["name"], [["fr\udcf6h"]])
    assert "fr\\udcf6h" in (tmp_path / "a.csv").read_text()


def test_a_dollar_in_a_label_is_a_dollar(tmp_path: Path) -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    scores = score_clips(probabilities, np.array([0, 1]), ["a", "b"], ["$x^^y$", "joy"])
    write_confusion(tmp_path, "test", scores)
    assert (tmp_path / "confusion_test.png").stat().st_size > 1000


# Whole runs in processes of their own ----------------------------------------------------------------------------

SMALL = [
    *("--set", "frontend.n_mels=32", "--set", "frontend.columns=32", "--set", "patch_height=32"),
    *("--set", "teacher.epochs=4", "--set", "match.epochs=4", "--set", "student.epochs=6"),
    # Two processes share nine clips as five and four, which the teacher's stem would take in two pieces and in one.
    *("--set", "teacher.batch_size=9", "--set", "match.batch_size=8", "--set", "student.batch_size=8"),
    # The paper's networks see each clip alone; BatchNorm would see which clips share a process.
    *("--set", "teacher_network=paper", "--set", "student_network=paper", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_csv(tmp_path_factory.mktemp("corpus"), ["anger", "fear"], ["p", "q", "r", "s", "t"], 3)


def command(table: Path, output: Path, *more: str) -> list[str]:
    return [
        *("train", "--dataset", "folder", "--data-dir", str(table), "--cache-dir", str(table.parent / "cache")),
        *("--output", str(output), *SMALL, *more),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def train(table: Path, output: Path, *more: str) -> Result:
    """In this process, with as many threads as the others have: their number decides the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return CliRunner().invoke(main, command(table, output, *more))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def uninterrupted(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "whole"
    done = train(table, output)
    assert done.exit_code == 0, done.stderr
    return output


def comparable(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text())
    with open(folder / "history.csv", newline="") as file:
        history = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    assert len(history) == 14
    return {
        "weights": digest(load_file(folder / "model.safetensors")),
        "teacher": digest(load_file(folder / "teacher" / "model.safetensors")),
        "scores": results["scores"],
        "temperature": results["temperature"],
        "history": history,
    }


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX")
@pytest.mark.parametrize("moment", ["teacher", "student"])
def test_a_killed_run_resumes_to_the_same_bits(table: Path, uninterrupted: Path, tmp_path: Path, moment: str) -> None:
    output = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "speech_emotion_vit", *command(table, output)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    waiting = time.monotonic() + 60
    while not (output / "state" / f"{moment}.state.safetensors").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < waiting
        time.sleep(0.005)
    if moment == "teacher":
        process.send_signal(signal.SIGSTOP)  # it holds the folder, but does not go on
        concurrent = train(table, output, "--resume")
        assert "another process is writing there" in concurrent.stderr
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "results.json").exists()
    refused = train(table, output)
    assert refused.exit_code == 1
    assert "holds a run already: pass --resume" in refused.stderr
    resumed = train(table, output, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert f"{moment}: goes on after epoch" in resumed.stderr
    assert comparable(output) == comparable(uninterrupted)


def test_an_earlier_stage_does_not_replace_a_later_ones_results(
    table: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(uninterrupted, output)
    for stage in ("teacher", "match"):
        refused = train(table, output, "--resume", "--stage", stage)
        assert refused.exit_code == 1
        assert f"has been through stage student, which --stage {stage} would undo" in refused.stderr
    assert comparable(output) == comparable(uninterrupted)
    peak = json.loads((output / "results.json").read_text())
    (output / "results.json").write_text(json.dumps(peak | {"peak_memory": 1 << 60}))
    assert train(table, output, "--resume").exit_code == 0
    assert json.loads((output / "results.json").read_text())["peak_memory"] == 1 << 60  # of all processes of the run
    assert comparable(output) == comparable(uninterrupted)


def test_two_processes_score_as_one(table: Path, uninterrupted: Path, tmp_path: Path) -> None:
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
            *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
            *("-m", "speech_emotion_vit", *command(table, tmp_path / "two")),
        ],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert launched.returncode == 0, launched.stderr
    run = json.loads((tmp_path / "two" / "run.json").read_text())
    assert run["hardware"]["processes"] == 2
    one, two = (comparable(folder)["scores"]["student"]["validation"] for folder in (uninterrupted, tmp_path / "two"))
    assert two["clips"] == one["clips"] == 6
    assert two["ua"] == pytest.approx(one["ua"], abs=0.17)  # one clip of six
    assert two["nll"] == pytest.approx(one["nll"], rel=0.05, abs=0.01)
    first = [comparable(folder)["history"][0]["cross_entropy"] for folder in (uninterrupted, tmp_path / "two")]
    assert float(first[1]) == pytest.approx(float(first[0]), rel=1e-3)  # the same batches, divided


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_bfloat16_on_a_processor_leaves_the_slow_kernel_alone(precision: str, tmp_path: Path) -> None:
    # A process has one precision, so this is another one.
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from torch.profiler import profile\n"
        "from test_training import TEACHER, StageSettings, job, make_accelerator, network\n"
        "from speech_emotion_vit.training.fit.loop import fit\n"
        "from speech_emotion_vit.training.fit.stages import Supervised\n"
        "stage, accelerator = Supervised(network(TEACHER)), make_accelerator('cpu', sys.argv[1])\n"
        "with profile() as seen:\n"
        "    fit(stage, job(Path(sys.argv[2]), 'teacher', StageSettings(epochs=1)), accelerator)\n"
        "print(any('flash' in event.key and 'backward' in event.key for event in seen.key_averages()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, precision, tmp_path],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(precision == "no")]
