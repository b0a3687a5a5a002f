"""Weights and configurations that nobody should have made: refused on one line, before they cost anything."""

from __future__ import annotations

import copy
import json
import os
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from helpers import ROOT, speech
from speech_emotion_vit.classifier import EmotionClassifier
from speech_emotion_vit.errors import WeightsError
from speech_emotion_vit.model.config import ClassifierConfig, ModelConfig
from speech_emotion_vit.model.vit import SpectrogramViT
from speech_emotion_vit.weights.checkpoint import load_checkpoint, load_weights, save_checkpoint
from speech_emotion_vit.weights.convert import convert_official
from speech_emotion_vit.weights.manifest import load_manifest, parse_config
from speech_emotion_vit.weights.resolve import sha256_file

CONFIG = ClassifierConfig(
    labels=("low", "high"), model=ModelConfig(num_classes=2, dim=16, depth=1, heads=1, head_dim=8, mlp_dim=16)
)
BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8, "BOOL": 1, "I64": 8, "U16": 2, "X9": 2}
FLOATS = {"F64", "F32", "BF16", "F8_E4M3", "F8_E5M2"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "tiny.safetensors"
    save_checkpoint(target, SpectrogramViT(CONFIG.model), CONFIG)
    return target


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    raw = path.read_bytes()
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:end]), raw[end:]


def write(path: Path, header: dict[str, Any], body: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def refused(path: Path) -> str:
    """What both readers say."""
    messages = set()
    for load in (load_checkpoint, load_weights):
        started = time.perf_counter()
        with pytest.raises(WeightsError) as caught:
            load(path)
        assert time.perf_counter() - started < 5
        message = str(caught.value)
        assert str(path) in message
        assert message.isprintable()
        assert len(message) < 1000
        messages.add(message)
    return " or ".join(messages)


@pytest.mark.parametrize("kind", BYTES)
def test_every_type_of_value_is_a_float_or_refused(path: Path, kind: str) -> None:
    header, body = parts(path)
    moved = b""
    for name, tensor in header.items():
        if name != "__metadata__":
            start, end = tensor["data_offsets"]
            piece = body[start:end]
            if name == "head.bias":
                tensor["dtype"], piece = kind, bytes(2 * BYTES[kind])
            tensor["data_offsets"] = [len(moved), len(moved) + len(piece)]
            moved += piece
    write(path, header, moved)
    if kind in FLOATS:
        assert load_checkpoint(path)[0].head.bias.tolist() == [0.0, 0.0]
    else:
        refused(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data_offsets", [0, 2**62]),
        ("data_offsets", [2**62, 2**62 + 4]),
        ("data_offsets", [4, 0]),
        ("shape", [2**40, 2**40]),
        ("shape", [-1]),
        ("shape", [1, 2]),
    ],
)
def test_a_header_that_lies(path: Path, field: str, value: list[int]) -> None:
    header, body = parts(path)
    header["head.bias"][field] = value
    write(path, header, body)
    refused(path)


def test_what_is_no_number_is_no_answer(path: Path) -> None:
    header = {"config": json.dumps(CONFIG.to_dict())}
    save_file(load_file(path) | {"blocks.0.mlp.hidden.weight": torch.full((16, 16), 3e38)}, path, header)
    classifier = EmotionClassifier(path, device="cpu", vad_filter=False)
    for task in (classifier.predict, classifier.embed, classifier.timeline, classifier.explain):
        with pytest.raises(WeightsError, match=r"NaN or infinite values.*take an undamaged file"):
            task(speech(0.5), sampling_rate=16_000)


def test_types_that_numpy_lacks_are_called_so(path: Path) -> None:
    header = {"config": json.dumps(CONFIG.to_dict())}
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path, header)
    load_checkpoint(path)
    with pytest.raises(WeightsError, match="types that numpy lacks, BF16: save them as float16 or float32"):
        load_weights(path)


def test_the_same_network_is_the_same_file(path: Path) -> None:
    network, config = load_checkpoint(path)
    extra = dict.fromkeys(("a", "version", "trained_on", "b"), "text")
    written = set()
    for _ in range(8):
        save_checkpoint(path, network, config, extra_metadata=extra)
        written.add(path.read_bytes())
    assert len(written) == 1
    assert load_checkpoint(path)[1] == config


def test_a_transposed_tensor_is_named(path: Path) -> None:
    header, body = parts(path)
    header["head.weight"]["shape"].reverse()
    write(path, header, body)
    assert "head.weight [16, 2] instead of [2, 16]" in refused(path)


@pytest.mark.parametrize("claim", [2**63, 2**26, 100])
def test_a_header_that_claims_to_be_long(path: Path, claim: int) -> None:
    path.write_bytes(struct.pack("<Q", claim) + b"{" * min(claim, 2**20))
    assert "damaged safetensors file" in refused(path)


def place(values: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    values = copy.deepcopy(values)
    *parents, key = name.split(".")
    container = values
    for parent in parents:
        container = container[parent]
    container[key] = value
    return values


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temperature": 10**400}, "temperature must be a number"),
        ({"temperature": 1e-300}, "temperature must be a number from 0.001 to 1000"),
        ({"frontend.top_db": 10**400}, "top_db must be a number"),
        ({"frontend.window": "x" * 10**6}, "window must be one of"),
        ({"frontend.window": ["hann"]}, "window must be one of hamming, hann"),
        ({"x" * 10**6: 1}, "unknown keys"),
        ({"labels": ["a\x1b[2J", "b"]}, "a label must be printable"),
        ({"labels": ["x" * 10**6, "b"]}, "at most 64 characters"),
        ({"labels": [1, 2]}, "labels must be a list, each a text"),
        ({"labels": ["speech", "loud"]}, "labels cannot be called ['speech'], as other columns of a table are"),
        ({"frontend.f_min": 100.0, "frontend.f_max": 100.00000000000003}, "at least 1 Hz apart, not 100 and 100"),
        ({"model.dim": 10**400}, "dim must be a whole number from 1 to 2048"),
        ({"frontend.hop_length": 1, "frontend.window_seconds": 60.0}, "STFT values, more than"),
        ({"model.patch_height": 1}, "16384 patches per image are more than 4096"),
    ],
)
def test_a_config_that_asks_for_too_much(path: Path, changes: dict[str, Any], said: str) -> None:
    values = CONFIG.to_dict()
    for name, value in changes.items():
        values = place(values, name, value)
    header, body = parts(path)
    header["__metadata__"]["config"] = json.dumps(values)
    write(path, header, body)
    assert said in refused(path)


def test_an_image_too_large_for_a_stem() -> None:
    values = CONFIG.to_dict()
    values["model"] |= {"image_height": 512, "patch_height": 512, "image_width": 512, "stem": "conv6"}
    values["frontend"] |= {"n_mels": 512, "columns": 512}
    with pytest.raises(WeightsError, match="262144 pixels is more than a stem takes"):
        parse_config(json.dumps(values), "config.json")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "model.safetensors"
    os.mkfifo(fifo)
    for read in (load_checkpoint, convert_official, sha256_file, load_manifest):
        for wrong in (fifo, Path("/dev/zero")):
            with pytest.raises(WeightsError, match="is not a regular file"):
                read(wrong)


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    bomb = tmp_path / "official.ckpt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    assert bomb.stat().st_size < 50_000
    with pytest.raises(WeightsError, match="unpacks to 10,000,000 bytes"):
        convert_official(bomb)


def test_a_tensor_without_values_is_no_weight(tmp_path: Path) -> None:
    path = tmp_path / "official.ckpt"
    torch.save({"model_state_dict": {"mlp_head.weight": torch.zeros(6, 256, device="meta")}}, path)
    with pytest.raises(WeightsError, match="official"):
        convert_official(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
MANIFEST = json.loads((ROOT / "weights_manifest.json").read_text())


def places(values: object, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    found = [prefix] if prefix else []
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        found += places(value, (*prefix, key))
    return found


@given(where=st.sampled_from(places(MANIFEST)), value=JSON)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_anywhere_in_a_manifest_is_read_or_refused(
    tmp_path: Path, where: tuple[Any, ...], value: object
) -> None:
    document = copy.deepcopy(MANIFEST)
    container = document
    for key in where[:-1]:
        container = container[key]
    container[where[-1]] = value
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(document))
    message = ""
    try:
        load_manifest(file)
    except WeightsError as error:
        message = str(error)
    assert len(message) < 2000
    assert "\n" not in message


@given(content=st.binary(max_size=200), start=st.integers(0, 200))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_a_safetensors_file_are_read_or_refused(path: Path, content: bytes, start: int) -> None:
    raw = path.read_bytes()
    damaged = path.with_name("damaged.safetensors")
    damaged.write_bytes(raw[:start] + content + raw[start + len(content) :])
    message = ""
    try:
        load_checkpoint(damaged)
    except WeightsError as error:
        message = str(error)
    assert "\n" not in message
