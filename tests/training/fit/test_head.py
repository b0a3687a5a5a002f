from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from corpus_factory import labelled_csv
from speech_emotion_vit.errors import ConfigError, DatasetError
from speech_emotion_vit.training.data.corpora.savee import CODES
from speech_emotion_vit.training.data.specaugment import Augmentation
from speech_emotion_vit.training.fit.head import embed_rows, fit_probe
from speech_emotion_vit.training.fit.loop import seed_of
from speech_emotion_vit.training.fit.pretrained import OwnHead
from speech_emotion_vit.training.fit.state import load_state, save_state
from speech_emotion_vit.training.recipes import RECIPES, ProbeSettings, Recipe
from speech_emotion_vit.training.score.evaluate import score_rows
from speech_emotion_vit.weights.checkpoint import load_checkpoint
from tiny_networks import COMPACT, SIZE, eight_clips, made_up_rows, network, right
from training_runs import SMALL, fail, results_of, succeed


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_changes_the_head_alone_and_tells_what_is_linear(classes: int) -> None:
    """Bright rows in another place per class; every speaker says each class once."""
    rng = np.random.default_rng(0)
    images = rng.random((4 * classes, SIZE, SIZE)).astype(np.float16) * np.float16(0.3)
    for row, image in enumerate(images):
        image[4 * (row % classes) : 4 * (row % classes) + 3] += 0.5
    rows = made_up_rows(images, [i % classes for i in range(len(images))])
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
    corpora = ["one"] * 9 + ["other"] * 4
    rows = made_up_rows(images, labels, corpora=corpora, possible={"one": "01", "other": "12"})
    probed = network(dataclasses.replace(COMPACT, num_classes=3)).eval()
    record = fit_probe(probed, rows, [str(i) for i in range(13)], ProbeSettings(copies=0), Augmentation(), seed=0)
    scaled = StandardScaler().fit_transform(embed_rows(probed, rows, Augmentation(), 0).double())
    targets = 2 * np.eye(3)[labels] - 1
    ridge = Ridge(alpha=record["penalty"] * sum(weights)).fit(scaled, targets, weights)
    allowed = np.array([(i < 9, True, i >= 9) for i in range(13)])
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
    """Eight clips say nothing about most of 64 values, so without it nothing can be solved."""
    rows = eight_clips()
    for penalty in (1e-300, 1e-30):
        settings = ProbeSettings(copies=0, penalties=(penalty,))
        probed = network(COMPACT).eval()
        record = fit_probe(probed, rows, list("abcdefgh"), settings, Augmentation(), seed=0)
        assert record["penalty"] == penalty
        assert right(probed, rows) == 8


def test_a_probe_needs_every_class_and_some_clips_to_leave_out() -> None:
    rows = eight_clips()
    probed = network(dataclasses.replace(COMPACT, num_classes=3)).eval()
    with pytest.raises(DatasetError, match="have 2 of 3 labels"):
        fit_probe(probed, rows, ["a"] * 8, ProbeSettings(), Augmentation(), seed=0)
    few = made_up_rows(np.ones((2, SIZE, SIZE)), [0, 1])
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


def test_a_probe_gives_a_trained_network_the_labels_of_a_few_clips(place: Path, savee: Path, tmp_path: Path) -> None:
    """The bundled default, its weights as they are, tells SAVEE's seven emotions."""
    from speech_emotion_vit import EmotionClassifier

    arguments = ("train", "--dataset", "savee", "--data-dir", savee, "--cache-dir", place / "cache", "--device", "cpu")
    arguments += ("--stage", "probe", "--set", "probe.copies=1", "--output", tmp_path, "--fold", "0")
    result = succeed(*arguments)
    assert "probe: a new head for crema-d@" in result.stderr
    assert "42 training, 0 validation, 14 test clips" in result.stderr  # speakers that train are left out in turn
    classifier, base = EmotionClassifier(tmp_path / "fold-0"), EmotionClassifier("crema-d")
    assert list(classifier.labels) == sorted(CODES.values())
    clip = next(iter(sorted(savee.glob("*.wav"))))
    np.testing.assert_array_equal(classifier.embed(clip)[: len(base.embed(clip))], base.embed(clip))
    assert results_of(tmp_path / "fold-0")["ua"] > 2 / 7  # tones as loud and high as the label says; chance is 1/7
    described = json.loads((tmp_path / "fold-0" / "run.json").read_text())
    assert described["mode"] == "probe"
    with open(tmp_path / "fold-0" / "history.csv", newline="") as file:
        (record,) = csv.DictReader(file)
    assert classifier.config.temperature == pytest.approx(float(record["temperature"]))
    weights = (tmp_path / "fold-0" / "model.safetensors").read_bytes()
    succeed(*arguments, "--resume")
    with open(tmp_path / "fold-0" / "history.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [record]  # its seconds too: nothing was fitted again
    assert (tmp_path / "fold-0" / "model.safetensors").read_bytes() == weights
    assert "another model" in fail(*arguments, "--recipe", "paper", "--fold", "1")


def test_a_probe_leaves_out_what_its_score_is_about(place: Path, savee: Path, tmp_path: Path) -> None:
    common = ("--cache-dir", place / "cache", *SMALL)  # a small network, for the bundled one takes a minute
    own = ("--dataset", "folder", "--data-dir", labelled_csv(tmp_path, ["anger", "fear"], ["a", "b", "c", "d", "e"], 1))
    succeed("train", *own, *common, "--stage", "supervised", "--output", tmp_path / "own")
    arguments = ("train", "--dataset", "savee", "--data-dir", savee, *common, "--stage", "probe")
    arguments += ("--set", f"initial_weights={tmp_path / 'own'}", "--set", "probe.copies=0")
    result = succeed(*arguments, "--protocol", "random", "--output", tmp_path / "random")
    assert "on training clips left out" in result.stderr
    arguments += ("--set", "probe.contour_weight=0", "--set", "frontend.floor=0.2", "--fold", "0")
    result = succeed(*arguments, "--output", tmp_path / "speaker")
    assert "on training speakers left out" in result.stderr
    configs = [json.loads((tmp_path / each / "config.json").read_text()) for each in ("random", "speaker/fold-0")]
    assert [config["model"]["pooling"] for config in configs] == ["contour_statistics", "stem_statistics"]
    assert [config["frontend"]["floor"] for config in configs] == [0.0, 0.2]
    unlike = ("--set", f"initial_weights={tmp_path / 'speaker' / 'fold-0'}", "--set", "frontend.floor=0")
    message = fail(*arguments, *unlike, "--output", tmp_path / "unlike")
    assert "its front-end is" in message
    assert "set its values, or choose another model" in message


def test_a_probe_beside_the_networks_own_head(tmp_path: Path) -> None:
    """On speakers it has heard, calibrated on others; not where there is nothing to add."""
    table = labelled_csv(tmp_path / "mine", ["anger", "neutral"], ["a", "b", "c", "d", "e"], 2)
    common = ("train", "--dataset", "folder", "--data-dir", table, "--cache-dir", tmp_path / "cache", *SMALL)
    common += ("--set", "probe.copies=0", "--set", "probe.keep=0.5")
    succeed(*common, "--stage", "supervised", "--output", tmp_path / "own")
    probe = ("--stage", "probe", "--set", f"initial_weights={tmp_path / 'own'}")
    result = succeed(*common, *probe, "--output", tmp_path / "both")
    assert f"probe: a head beside that of {tmp_path / 'own'}" in result.stderr
    assert "12 training, 4 validation, 4 test clips" in result.stderr
    own, both = (load_checkpoint(tmp_path / each / "model.safetensors") for each in ("own", "both"))
    width = own[1].model.embedding_dim
    expected = 0.5 / own[1].temperature * own[0].head.weight
    torch.testing.assert_close(both[0].head.weight[:, :width], expected, rtol=1e-3, atol=1e-4)  # half precision
    assert (own[1].model.pooling, both[1].model.pooling) == ("statistics", "contour_statistics")
    assert "fitted on the validation clips." in (tmp_path / "both" / "README.md").read_text()
    succeed(*common, *probe, "--set", "temperature_factor=1.25", "--output", tmp_path / "calm")
    assert "fitted on the validation clips and multiplied by 1.25." in (tmp_path / "calm" / "README.md").read_text()
    calm = load_checkpoint(tmp_path / "calm" / "model.safetensors")
    assert calm[1].temperature == pytest.approx(1.25 * both[1].temperature)
    probe = ("--stage", "probe", "--set", f"initial_weights={tmp_path / 'both'}")
    error = fail(*common, *probe, "--output", tmp_path / "again")
    assert f"probe.keep: the head of {tmp_path / 'both'}" in error
    assert "reads all there is: there is nothing to add, set it to 0" in error
    result = succeed(*common, "--stage", "supervised", *probe[2:], "--output", tmp_path / "on")
    assert f"student: starts from {tmp_path / 'both'}" in result.stderr
    assert ", but for the head, since what it reads differs" in result.stderr


def test_copies_of_a_probe_are_masked_unless_told_otherwise(tmp_path: Path) -> None:
    table = labelled_csv(tmp_path / "mine", ["anger", "neutral"], ["a", "b", "c", "d", "e"], 2)
    common = ("train", "--dataset", "folder", "--data-dir", table, "--cache-dir", tmp_path / "cache", *SMALL)
    succeed(*common, "--stage", "supervised", "--output", tmp_path / "own")
    common += ("--stage", "probe", "--set", f"initial_weights={tmp_path / 'own'}", "--set", "probe.copies=1")
    recipes = {
        "masked": [],
        "told": ["probe.masks=false"],
        "none": ["augmentation.frequency_masks=0", "augmentation.time_masks=0"],
    }
    for name, changes in recipes.items():
        succeed(*common, *(part for change in changes for part in ("--set", change)), "--output", tmp_path / name)
    masked, told, none = (load_checkpoint(tmp_path / name / "model.safetensors")[0].head.weight for name in recipes)
    torch.testing.assert_close(told, none, rtol=0, atol=0)
    assert not torch.equal(masked, told)


def test_a_head_for_other_labels_cannot_be_kept(place: Path, savee: Path, tmp_path: Path) -> None:
    arguments = ("train", "--dataset", "savee", "--data-dir", savee, "--cache-dir", place / "cache", "--device", "cpu")
    arguments += ("--stage", "probe", "--set", "probe.keep=0.5", "--output", tmp_path, "--fold", "0")
    error = fail(*arguments)
    assert "probe.keep: crema-d@" in error
    assert "knows anger, disgust, fear, happiness, neutral, sadness: its head cannot be kept, set it to 0" in error


def test_a_damaged_state_of_a_probe_is_refused(tmp_path: Path) -> None:
    table = labelled_csv(tmp_path / "mine", ["anger", "neutral"], ["a", "b", "c", "d", "e"], 2)
    common = ("train", "--dataset", "folder", "--data-dir", table, "--cache-dir", tmp_path / "cache", *SMALL)
    succeed(*common, "--stage", "supervised", "--output", tmp_path / "own")
    probe = ("--stage", "probe", "--set", f"initial_weights={tmp_path / 'own'}", "--set", "probe.copies=0")
    succeed(*common, *probe, "--output", tmp_path / "run")
    path = tmp_path / "run" / "state" / "probe.state.safetensors"
    groups, fitted = load_state(path)
    head = groups["head"]
    for damaged, known, complaint in (
        ({}, fitted, "does not fit this run"),
        ({name: tensor[:1] for name, tensor in head.items()}, fitted, "does not fit this run"),
        (head, {name: value for name, value in fitted.items() if name != "temperature"}, "'temperature'"),
        (head, fitted | {"left_out_ua": -1.0}, "left_out_ua is -1.0"),
    ):
        save_state(path, {"head": damaged}, known)
        error = fail(*common, *probe, "--output", tmp_path / "run", "--resume")
        assert "probe.state.safetensors: " in error
        assert complaint in error
        assert "remove it to repeat this stage" in error
