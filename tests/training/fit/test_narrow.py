"""A small network as a part of a wide one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import speech
from speech_emotion_vit import FrameViT, FrontendConfig, LogMel
from speech_emotion_vit.model.config import FrameViTConfig
from speech_emotion_vit.training.fit import frames, narrow
from speech_emotion_vit.training.fit.frames import Examples
from speech_emotion_vit.training.fit.loop import fit
from speech_emotion_vit.training.fit.narrow import Narrowing, make_narrow
from speech_emotion_vit.training.recipes import NarrowStage
from tiny_networks import digest, eight_seconds, job

WIDE = FrameViTConfig(num_classes=2, stem=24, dim=48, heads=3, depth=2, mlp_dim=64, taps=3, pooled=(1, 2))
NARROW = dataclasses.replace(WIDE, stem=16, dim=32, heads=2, mlp_dim=32)
SHORT = NarrowStage(epochs=2, batch_size=4, learning_rate=3e-3)


def network(config: FrameViTConfig, seed: int = 0) -> FrameViT:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = FrameViT(config)
        for block in made.blocks:
            torch.nn.init.normal_(block.convolution.weight, std=0.2)  # type: ignore[union-attr, arg-type]
    return made.eval()


@pytest.fixture
def images() -> list[Tensor]:
    """Sixteen seconds of something like speech."""
    parts = torch.from_numpy(speech(16.0)).split(64_000)
    return [LogMel(FrontendConfig.frames())(part[None])[..., :400] for part in parts]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SHORTEST": 25, "LONGEST": 50}.items():
        monkeypatch.setattr(frames, name, value)


def narrowing(cache: Path, seed: int = 0) -> Narrowing:
    return Narrowing(
        network(NARROW, seed),
        network(WIDE),
        Examples(eight_seconds()),
        FrontendConfig.frames(),
        size=4,
        seed=0,
        cache=cache,
        device=torch.device("cpu"),
    )


def test_with_all_channels_it_is_the_wide_network(images: list[Tensor]) -> None:
    """Every regression then has an exact answer, so each weight is where it belongs."""
    wide, copy = network(WIDE), network(WIDE, seed=1)
    make_narrow(copy, wide, images)
    with torch.no_grad():
        for found, expected in zip(*(each.forward_features(images[0]).tokens for each in (copy, wide)), strict=True):
            assert float((found - expected).square().mean() / expected.var()) < 0.02


def test_it_tells_more_of_the_wide_network_than_a_random_one(images: list[Tensor]) -> None:
    def explained(one: FrameViT) -> float:
        with torch.no_grad():
            inputs, outputs = (
                torch.cat([each.forward_features(image).tokens[-1].flatten(0, 1) for image in images])
                for each in (one, network(WIDE))
            )
            return narrow.fit_linear(torch.nn.Linear(32, 48), inputs, outputs)

    made = network(NARROW, seed=1)
    before = explained(made)
    make_narrow(made, network(WIDE), images)
    assert 1 - explained(made) < (1 - before) / 2


def test_it_comes_nearer_to_the_wide_network_and_its_head_stays(tmp_path: Path, accelerator: Any) -> None:
    whole = narrowing(tmp_path / "cache")
    head = whole.network.head.weight.clone()
    batch = whole.batch(np.arange(4), 0)
    with torch.no_grad():  # regression leaves little to learn of eight seconds
        for parameter in whole.network.blocks.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    before = sum(float(loss.detach()) for loss in whole(batch).values())
    fit(whole, job(tmp_path / "longer", dataclasses.replace(SHORT, epochs=20, learning_rate=1e-3)), accelerator)
    assert sum(float(loss.detach()) for loss in whole(batch).values()) < before
    assert torch.equal(whole.network.head.weight, head)


def test_it_goes_on_after_a_stop(tmp_path: Path, accelerator: Any) -> None:
    whole = narrowing(tmp_path / "cache")
    fit(whole, job(tmp_path / "whole", SHORT), accelerator)

    def stop(name: str, value: float, epoch: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(narrowing(tmp_path / "cache"), job(tmp_path / "parts", SHORT, log=stop), accelerator)
    resumed = narrowing(tmp_path / "cache", seed=1)
    fit(resumed, job(tmp_path / "parts", SHORT), accelerator)
    assert digest(resumed.network.state_dict()) == digest(whole.network.state_dict())


def test_examples_are_made_once_and_are_what_the_wide_network_answers(tmp_path: Path) -> None:
    stage = narrowing(tmp_path)
    batches = stage.batches(4, np.random.default_rng(0))
    stage.batch(batches[0], 0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(narrow.PASSES * 8))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(files) == narrow.PASSES * 2
    batch = narrowing(tmp_path).batch(batches[0][1:3], 0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == files
    with torch.no_grad():
        outputs = network(WIDE).forward_features(batch.images).tokens
    torch.testing.assert_close(batch.tokens, torch.stack(outputs[1:], dim=1), atol=0.1, rtol=0.1)  # made in bfloat16
