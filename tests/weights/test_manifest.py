"""The manifest is read strictly and written whole."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from speech_emotion_vit.errors import ConfigError, WeightsError
from speech_emotion_vit.model.config import ClassifierConfig, FrontendConfig, ModelConfig
from speech_emotion_vit.weights.manifest import (
    Manifest,
    Metric,
    WeightEntry,
    dump_entry,
    load_manifest,
    read_config_json,
    write_manifest,
)
from speech_emotion_vit.weights.resolve import WEIGHTS_FOLDER

CONFIG = ClassifierConfig(
    labels=("low", "high"),
    model=ModelConfig(num_classes=2, dim=16, depth=1, heads=1, head_dim=8, mlp_dim=16),
    frontend=FrontendConfig(top_db=60.0),
    temperature=1.25,
)
METRIC = Metric(
    name="UA", value=0.5, protocol="speaker", split="test", clips=10, speakers=2, interval=(0.4, 0.6), note="a note"
)
ENTRY = WeightEntry(
    name="tiny",
    file="tiny.safetensors",
    repo_id="org/repo",
    revision="0" * 40,
    filename="folder/model.safetensors",
    sha256="ab" * 32,
    size_bytes=1234,
    config=CONFIG,
    trained_on="two speakers",
    recipe="robust",
    metrics=(METRIC, replace(METRIC, name="ECE", value=0.0, seeds=3, interval=None, note=None)),
    license="MIT",
    citation="Someone, 2024",
)
BUNDLED = replace(ENTRY, name="bundled", repo_id=None, revision=None, filename=None, metrics=())
MANIFEST = Manifest(default="tiny", models={"tiny": ENTRY, "bundled": BUNDLED})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "weights_manifest.json"
    write_manifest(target, MANIFEST)
    return target


def test_what_is_written_is_read_back(path: Path) -> None:
    assert load_manifest(path) == MANIFEST
    assert load_manifest(path).get("tiny") == ENTRY
    text = path.read_text()
    write_manifest(path, load_manifest(path))
    assert path.read_text() == text
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_entry_is_flat_and_holds_the_whole_config() -> None:
    dumped = dump_entry(ENTRY)
    config = {key: dumped[key] for key in ("labels", "temperature", "frontend", "model")}
    assert ClassifierConfig.from_dict(config) == CONFIG
    assert dumped["metrics"][0]["interval"] == (0.4, 0.6)
    assert "seeds" not in dumped["metrics"][0]
    assert "repo_id" not in dump_entry(BUNDLED)


def test_a_head_names_the_very_model_it_stands_on(path: Path) -> None:
    head = replace(BUNDLED, name="head", sha256="cd" * 32, backbone="bundled", backbone_sha256=BUNDLED.sha256)
    write_manifest(path, replace(MANIFEST, models={**MANIFEST.models, "head": head}))
    assert load_manifest(path).get("head") == head

    upon = replace(head, name="upon", backbone="head", backbone_sha256=head.sha256)
    for wrong in (
        replace(head, backbone="absent"),
        replace(head, backbone_sha256="ef" * 32),  # retrained since
        upon,
    ):
        models = {**MANIFEST.models, "head": head, wrong.name: wrong}
        with pytest.raises(
            WeightsError, match=f"model {wrong.name!r}: its backbone '{wrong.backbone}'.*bundle it again"
        ):
            write_manifest(path, replace(MANIFEST, models=models))
    with pytest.raises(ConfigError, match="backbone_sha256 is missing"):
        replace(head, backbone_sha256=None)


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(WeightsError, match=r"'large'.*tiny, bundled"):
        MANIFEST.get("large")


def at(document: dict[str, Any], place: str) -> tuple[Any, Any]:
    """The container and the key of a dotted place."""
    *parents, key = place.split(".")
    container: Any = document
    for parent in parents:
        container = container[int(parent) if parent.isdigit() else parent]
    return container, key


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("schema_version", 2),
        ("schema_version", "1"),
        ("default", "absent"),
        ("default", 5),
        ("extra", 1),
        ("models", []),
        ("models.tiny", []),
        ("models.tiny.extra", 1),
        ("models.tiny.file", "../tiny.safetensors"),
        ("models.tiny.file", "/etc/tiny.safetensors"),
        ("models.tiny.file", "C:\\tiny.safetensors"),
        ("models.tiny.file", "a/../../tiny.safetensors"),
        ("models.tiny.file", ".hidden.safetensors"),
        ("models.tiny.file", "tiny.pt"),
        ("models.tiny.file", 3),
        ("models.tiny.filename", "a//b.safetensors"),
        ("models.tiny.filename", "../b.safetensors"),
        ("models.tiny.repo_id", "repo"),
        ("models.tiny.repo_id", "../repo"),
        ("models.tiny.revision", "main"),
        ("models.tiny.revision", "A" * 40),
        ("models.tiny.sha256", "ab" * 31),
        ("models.tiny.sha256", "AB" * 32),
        ("models.tiny.sha256", "ab" * 32 + "\n"),
        ("models.tiny.sha256", None),
        ("models.tiny.size_bytes", 0),
        ("models.tiny.size_bytes", 1.5),
        ("models.tiny.size_bytes", True),
        ("models.tiny.labels", ["low"]),
        ("models.tiny.labels", None),
        ("models.tiny.temperature", 0),
        ("models.tiny.model.depth", 10**9),
        ("models.tiny.model.width", 1),
        ("models.tiny.frontend.window", "boxcar"),
        ("models.tiny.license", " "),
        ("models.tiny.citation", 1),
        ("models.tiny.metrics", {}),
        ("models.tiny.metrics.0.value", 46.2),
        ("models.tiny.metrics.0.value", "0.5"),
        ("models.tiny.metrics.0.clips", -1),
        ("models.tiny.metrics.0.interval", [0.6, 0.4]),
        ("models.tiny.metrics.0.interval", [0.6]),
        ("models.tiny.metrics.0.extra", 1),
        ("models.tiny.metrics.1.seeds", 0),
        ("models.bundled.revision", "0" * 40),
        ("models.bundled.file", None),
    ],
)
def test_a_wrong_value_is_named(path: Path, place: str, value: object) -> None:
    document = json.loads(path.read_text())
    container, key = at(document, place)
    container[int(key) if key.isdigit() else key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(WeightsError) as raised:
        load_manifest(path)
    message = str(raised.value)
    assert str(path) in message
    assert key in message or place == "models.bundled.file"
    assert all(f"{name!r}" in message for name in place.split(".")[1:2])  # the model
    assert "\n" not in message


REQUIRED = ["schema_version", "default", "models"] + [
    f"models.tiny.{name}"
    for name in (
        *("revision", "filename", "sha256", "size_bytes", "labels", "temperature", "frontend", "model"),
        *("trained_on", "recipe", "metrics", "license", "citation"),
        *(f"metrics.0.{name}" for name in ("name", "value", "protocol", "split", "clips", "speakers")),
    )
]


@pytest.mark.parametrize("place", REQUIRED)
def test_a_missing_field_is_named(path: Path, place: str) -> None:
    document = json.loads(path.read_text())
    container, key = at(document, place)
    del container[key]
    path.write_text(json.dumps(document))
    with pytest.raises(WeightsError, match=rf"{key}.* missing"):
        load_manifest(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"schema_version": NaN}',
        b'{"default": "a", "default": "b"}',
        b"[" * 100_000,
        b" " * (5 * 2**20),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "manifest.json"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        load_manifest(file)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        load_manifest(tmp_path / "gone.json")


@pytest.mark.parametrize(
    "wrong",
    [
        replace(ENTRY, sha256="short"),
        replace(ENTRY, size_bytes=12.5),
        replace(ENTRY, metrics=(replace(METRIC, value=46.0),)),
        replace(ENTRY, metrics=(replace(METRIC, value=float("nan")),)),
        replace(ENTRY, metrics=(replace(METRIC, clips=object()),)),
        replace(ENTRY, name="another"),
    ],
)
def test_nothing_wrong_is_written(path: Path, wrong: WeightEntry) -> None:
    before = path.read_bytes()
    with pytest.raises(WeightsError):
        write_manifest(path, replace(MANIFEST, models={"tiny": wrong}))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write_manifest(tmp_path / "no" / "folder" / "manifest.json", MANIFEST)


def test_config_json(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(CONFIG.to_dict()))
    assert read_config_json(file) == CONFIG
    values = copy.deepcopy(CONFIG.to_dict())
    values["model"]["depth"] = "deep"
    file.write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=r"config.json: .*depth must be a whole number"):
        read_config_json(file)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_config_json(tmp_path / "gone.json")


def test_the_bundled_files_are_those_of_the_manifest() -> None:
    manifest = load_manifest()
    bundled = {entry.file: entry for entry in manifest.models.values() if entry.file}
    assert manifest.get(manifest.default).file in bundled
    assert {path.name for path in WEIGHTS_FOLDER.glob("*.safetensors")} == set(bundled)
    for name, entry in bundled.items():
        content = (WEIGHTS_FOLDER / name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (entry.sha256, entry.size_bytes)
        assert entry.metrics
