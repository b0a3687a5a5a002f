"""Weights are written in float16 and read strictly."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from speech_emotion_vit.errors import ConfigError, WeightsError
from speech_emotion_vit.model.config import ClassifierConfig, FrontendConfig, ModelConfig
from speech_emotion_vit.model.vit import SpectrogramViT
from speech_emotion_vit.weights.checkpoint import (
    load_checkpoint,
    load_weights,
    read_config_json,
    save_checkpoint,
    save_folder,
)
from speech_emotion_vit.weights.tensors import parameter_count

TINY = ModelConfig(num_classes=2, dim=16, depth=1, heads=1, head_dim=8, mlp_dim=16)
CONFIG = ClassifierConfig(labels=("low", "high"), model=TINY, frontend=FrontendConfig(top_db=60.0), temperature=1.25)
TEACHER = replace(CONFIG, model=replace(TINY, stem="conv6", coordinates=True))


@pytest.fixture
def model() -> SpectrogramViT:
    torch.manual_seed(0)
    return SpectrogramViT(TINY)


@pytest.fixture
def path(tmp_path: Path, model: SpectrogramViT) -> Path:
    target = tmp_path / "tiny.safetensors"
    save_checkpoint(target, model, CONFIG)
    return target


def rewrite(path: Path, config: ClassifierConfig | None = CONFIG, **changes: torch.Tensor | None) -> None:
    """Write the file again with tensors added, replaced or left out, by name with '__' for '.'."""
    tensors: dict[str, Any] = load_file(path)
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, path, {"config": json.dumps(config.to_dict())} if config else None)


@pytest.mark.parametrize("config", [CONFIG, TEACHER])
def test_what_is_saved_is_loaded(tmp_path: Path, config: ClassifierConfig) -> None:
    torch.manual_seed(0)
    model = SpectrogramViT(config.model)
    save_checkpoint(tmp_path / "m.safetensors", model, config, extra_metadata={"version": "0.1"})
    assert {tensor.dtype for tensor in load_file(tmp_path / "m.safetensors").values()} == {torch.float16}
    loaded, found = load_checkpoint(tmp_path / "m.safetensors")
    assert found == config
    assert not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())
    image = torch.rand(2, 1, 128, 128)
    assert torch.allclose(loaded(image), model.eval()(image), atol=2e-2)
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


def test_loading_leaves_the_random_state_alone(path: Path) -> None:
    before = torch.get_rng_state()
    load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_file_may_be_overwritten_while_the_network_is_in_use(path: Path) -> None:
    rewrite(path, head__bias=torch.ones(2))  # float32 on disk: nothing to convert
    loaded, _ = load_checkpoint(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert loaded.head.bias.tolist() == [1.0, 1.0]


def test_a_folder_has_the_layout_of_the_hub(tmp_path: Path, model: SpectrogramViT) -> None:
    folder = save_folder(tmp_path / "new" / "folder", model, CONFIG)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert read_config_json(folder / "config.json") == CONFIG
    assert load_checkpoint(folder / "model.safetensors", read_config_json(folder / "config.json"))[1] == CONFIG


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig.student(6),
        ModelConfig.teacher(7),
        TINY,
        TEACHER.model,
        replace(TINY, patch_height=16, patch_width=16, depth=3, heads=2, coordinates=True),
    ],
)
def test_the_parameters_are_counted_without_building(config: ModelConfig) -> None:
    built = sum(parameter.numel() for parameter in SpectrogramViT(config).parameters())
    assert parameter_count(config) == built


def test_a_head_alone_stands_on_the_other_tensors_of_a_model(tmp_path: Path, path: Path, model: SpectrogramViT) -> None:
    config = replace(CONFIG, labels=("low", "middle", "high"), model=replace(TINY, num_classes=3))
    network = SpectrogramViT(config.model)
    network.load_state_dict({**model.state_dict(), "head.weight": torch.rand(3, 16), "head.bias": torch.rand(3)})
    head = tmp_path / "head.safetensors"
    save_checkpoint(head, network, config, backbone="tiny")
    assert set(load_file(head)) == {"head.weight", "head.bias"}

    loaded, found = load_checkpoint(head, backbone=path)
    assert found == config
    arrays, same = load_weights(head, config, backbone=path)
    assert same == config
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())
        assert arrays[name].tolist() == tensor.half().float().tolist()

    for load in (load_checkpoint, load_weights):
        with pytest.raises(WeightsError, match="head alone of a network whose other tensors are those of tiny: use"):
            load(head)
        with pytest.raises(WeightsError, match="holds 20 tensors beside its head's: leave the backbone out"):
            load(path, backbone=path)
        with pytest.raises(WeightsError, match="not a safetensors file"):
            load(head, backbone=__file__)
    rewrite(path, norm__weight=None)
    with pytest.raises(WeightsError, match=r"1 missing: norm\.weight"):
        load_checkpoint(head, backbone=path)


def test_missing_unexpected_and_wrongly_shaped_tensors_are_listed(path: Path) -> None:
    rewrite(path, norm__weight=None, head__bias=torch.zeros(3), surprise=torch.zeros(4))
    with pytest.raises(WeightsError) as raised:
        load_checkpoint(path)
    message = str(raised.value)
    assert "1 missing: norm.weight [16]" in message
    assert "1 unexpected: surprise [4]" in message
    assert "1 wrongly shaped: head.bias [3] instead of [2]" in message
    assert str(path) in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(path: Path, model: SpectrogramViT, value: float) -> None:
    rewrite(path, head__bias=torch.tensor([0.0, value]))
    with pytest.raises(WeightsError, match=r"NaN, infinite.*head\.bias"):
        load_checkpoint(path)
    before = path.read_bytes()
    with torch.no_grad():
        model.head.bias[1] = value
    with pytest.raises(WeightsError, match=r"not written.*head\.bias"):
        save_checkpoint(path, model, CONFIG)
    assert path.read_bytes() == before


def test_values_beyond_float16_are_not_written(tmp_path: Path, model: SpectrogramViT) -> None:
    with torch.no_grad():
        model.head.bias[0] = 1e5
    with pytest.raises(WeightsError, match=r"head\.bias"):
        save_checkpoint(tmp_path / "m.safetensors", model, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_integers_are_no_weights(path: Path) -> None:
    rewrite(path, head__bias=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(WeightsError, match=r"no floating-point values: head\.bias"):
        load_checkpoint(path)


def test_a_giant_is_refused_before_it_is_built(path: Path) -> None:
    giant = replace(TINY, dim=2048, depth=48, heads=64, head_dim=256, mlp_dim=8192)
    assert parameter_count(giant) > 8e9
    rewrite(path, replace(CONFIG, model=giant))
    started = time.perf_counter()
    with pytest.raises(WeightsError, match="not those of the network it is meant for"):
        load_checkpoint(path)
    assert time.perf_counter() - started < 1.0


def test_config_and_file_must_agree(path: Path) -> None:
    colder = replace(CONFIG, temperature=0.5)
    assert load_checkpoint(path, colder)[1] == colder
    for key, other in (
        ("labels", replace(CONFIG, labels=("high", "low"))),
        ("frontend", replace(CONFIG, frontend=FrontendConfig())),
        ("model", replace(CONFIG, model=replace(TINY, heads=2, head_dim=4))),  # the same tensors
    ):
        with pytest.raises(WeightsError, match=rf"{key} of its metadata differ"):
            load_checkpoint(path, other)
    rewrite(path, None)
    assert load_checkpoint(path, CONFIG)[1] == CONFIG
    with pytest.raises(WeightsError, match="no config in its metadata"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"labels": ["a"]}', '{"labels": ["a"], "model": {"num_classes": -1}}']
)
def test_metadata_that_is_no_config(path: Path, text: str) -> None:
    save_file(load_file(path), path, {"config": text})
    with pytest.raises(WeightsError, match="metadata"):
        load_checkpoint(path)


def test_damaged_files(path: Path, tmp_path: Path) -> None:
    content = path.read_bytes()
    for damaged in (content[:-1], content[:40], content[:8] + b"{" * (len(content) - 8), content + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="damaged"):
            load_checkpoint(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        load_checkpoint(tmp_path / "gone.safetensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["student.ckpt", "model.safetensors"])
def test_pickles_are_never_loaded(tmp_path: Path, model: SpectrogramViT, name: str, zipped: bool) -> None:
    torch.save({"model_state_dict": model.state_dict()}, tmp_path / name, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="speech-emotion-vit convert"):
        load_checkpoint(tmp_path / name, CONFIG)


@pytest.mark.parametrize("content", [b"", b"short", b"\0" * 100, b"RIFF" * 10])
def test_other_files_are_no_weights(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_checkpoint(tmp_path / "model.safetensors", CONFIG)


def test_what_does_not_describe_the_network_is_not_saved(tmp_path: Path, model: SpectrogramViT) -> None:
    with pytest.raises(WeightsError, match="the config says"):
        save_checkpoint(tmp_path / "m.safetensors", model, TEACHER)
    with pytest.raises(WeightsError, match="choose other keys"):
        save_checkpoint(tmp_path / "m.safetensors", model, CONFIG, extra_metadata={"config": "mine"})
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="choose another place"):
        save_folder(tmp_path / "file", model, CONFIG)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
