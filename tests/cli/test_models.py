"""``models`` and ``convert`` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result

from official_weights import official_state, save
from speech_emotion_vit.cli import convert as convert_module
from speech_emotion_vit.cli import models as models_module
from speech_emotion_vit.errors import ConfigError, SpeechEmotionError, WeightsError
from speech_emotion_vit.model.config import ClassifierConfig, ModelConfig
from speech_emotion_vit.model.vit import SpectrogramViT
from speech_emotion_vit.weights import manifest, resolve
from speech_emotion_vit.weights.checkpoint import load_checkpoint, save_checkpoint, save_folder
from speech_emotion_vit.weights.manifest import CORPUS_LABELS, Manifest, Metric, WeightEntry, dump_entry, write_manifest

TINY = ClassifierConfig(
    labels=("low", "high"), model=ModelConfig(num_classes=2, dim=16, depth=1, heads=1, head_dim=8, mlp_dim=16)
)


def run(command: click.Command, *arguments: str | Path) -> Result:
    result = CliRunner().invoke(command, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, (SystemExit, SpeechEmotionError)):
        raise result.exception
    return result


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """A package with two bundled models in `tmp_path`."""
    torch.manual_seed(0)
    metric = Metric(name="UA", value=0.4625, protocol="speaker", split="test", clips=10, speakers=2)
    entries = {}
    for name in ("first", "second"):
        file = tmp_path / f"{name}.safetensors"
        save_checkpoint(file, SpectrogramViT(TINY.model), TINY)
        entries[name] = WeightEntry(
            name=name,
            file=file.name,
            sha256=resolve.sha256_file(file),
            size_bytes=file.stat().st_size,
            config=TINY,
            trained_on="nothing",
            recipe="none",
            metrics=(metric,),
            license="MIT",
            citation="none",
        )
    remote = {"repo_id": "org/repo", "revision": "1" * 40, "filename": "model.safetensors"}
    entries["remote"] = replace(entries["first"], name="remote", file=None, metrics=(), **remote)
    content = Manifest(default="first", models=entries)
    write_manifest(tmp_path / "manifest.json", content)
    monkeypatch.setattr(resolve, "WEIGHTS_FOLDER", tmp_path)
    for module in (resolve, manifest):
        monkeypatch.setattr(module, "load_manifest", lambda: content)
    return content


def test_list(package: Manifest) -> None:
    listed = rows(run(models_module.command, "list"))
    assert [row["name"] for row in listed] == ["first", "second", "remote"]
    assert [row["default"] for row in listed] == ["yes", "", ""]
    assert [row["where"] for row in listed] == ["bundled", "bundled", "org/repo"]
    assert [row["score"] for row in listed] == ["UA 46.2 % (speaker, 10 clips)"] * 2 + [None]
    table = run(models_module.command, "list", "--format", "table").stdout.splitlines()
    assert table[0].split() == ["name", "score", "where", "size"]
    assert len({line.index("bundled") for line in table[1:4:2]} | {table[0].index("where")}) == 1
    assert table[1].startswith("first (default)  UA 46.2 % (speaker, 10 clips)")
    assert table[2] == "  low, high"


@pytest.mark.parametrize("name", list(manifest.load_manifest().models))
def test_tables_of_what_is_published_fit_80_columns(name: str) -> None:
    for arguments in (["list"], ["info", name], ["verify", name]):
        lines = run(models_module.command, *arguments, "--format", "table").stdout.splitlines()
        assert max(len(line) for line in lines if "safetensors" not in line) <= 80  # a path stays whole
        assert any(name in line for line in lines)


def test_info(package: Manifest, tmp_path: Path) -> None:
    (record,) = rows(run(models_module.command, "info", "second"))
    assert record == json.loads(json.dumps({"name": "second", **dump_entry(package.get("second"))}))
    table = run(models_module.command, "info", "second", "--format", "table").stdout
    assert "protocol=speaker" in table
    assert "clips=10" in table
    # The configuration of a lone file is in the file.
    (record,) = rows(run(models_module.command, "info", tmp_path / "first.safetensors"))
    assert record["labels"] == ["low", "high"]
    assert record["path"] == str(tmp_path / "first.safetensors")
    folder = save_folder(tmp_path / "folder", SpectrogramViT(TINY.model), TINY)
    assert rows(run(models_module.command, "info", folder))[0]["model"]["dim"] == 16


def test_download_of_a_bundled_model_says_where_it_is(package: Manifest, tmp_path: Path) -> None:
    (record,) = rows(run(models_module.command, "download", "first"))
    assert record["path"] == str(tmp_path / "first.safetensors")
    assert record["sha256"] == package.get("first").sha256


def test_verify_all_bundled(package: Manifest, tmp_path: Path) -> None:
    verified = rows(run(models_module.command, "verify"))
    assert [(row["name"], row["status"]) for row in verified] == [("first", "ok"), ("second", "ok")]
    assert len(rows(run(models_module.command, "verify", "second"))) == 1

    (tmp_path / "first.safetensors").write_bytes(b"damaged")
    result = run(models_module.command, "verify")
    assert result.exit_code == 1
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["bad", "ok"]
    (line,) = result.stderr.splitlines()
    assert package.get("first").sha256 in line
    assert "reinstall" in line


def test_unknown_models(package: Manifest) -> None:
    for verb in ("info", "download"):
        result = run(models_module.command, verb, "base")
        assert isinstance(result.exception, WeightsError)
        assert "choose one of first, second, remote" in str(result.exception)
    result = run(models_module.command, "verify", "base")
    assert result.exit_code == 1
    assert "choose one of first, second, remote" in result.stderr
    assert run(models_module.command, "verify", "--revision", "main").exit_code == 2


def test_convert(tmp_path: Path) -> None:
    path = save(tmp_path / "student.ckpt", official_state("student", 7))
    (record,) = rows(run(convert_module.command, path, "--output", tmp_path / "savee", "--dataset", "savee"))
    assert record["kind"] == "student"
    assert record["parameters"] == 1_417_991
    assert record["labels"] == list(CORPUS_LABELS["savee"])
    resolved = resolve.resolve_model(tmp_path / "savee")
    assert load_checkpoint(resolved.weights, resolved.config)[1].labels == CORPUS_LABELS["savee"]

    again = run(convert_module.command, path, "--output", tmp_path / "savee", "--dataset", "savee")
    assert isinstance(again.exception, ConfigError)
    assert "is there already" in str(again.exception)

    (record,) = rows(run(convert_module.command, path, "-o", tmp_path / "own", "--labels", "a, b,c,d,e,f,g"))
    assert record["labels"] == list("abcdefg")


def test_convert_refuses(tmp_path: Path) -> None:
    path = save(tmp_path / "student.ckpt", official_state("student", 7))
    ambiguous = run(convert_module.command, path, "--output", tmp_path / "out")
    assert isinstance(ambiguous.exception, WeightsError)
    assert "--dataset" in str(ambiguous.exception)
    missing = run(convert_module.command, tmp_path / "gone.ckpt", "--output", tmp_path / "out")
    assert isinstance(missing.exception, WeightsError)
    both = run(convert_module.command, path, "-o", tmp_path / "out", "--labels", "a", "--dataset", "savee")
    assert both.exit_code == 2
    assert run(convert_module.command, path, "-o", tmp_path / "out", "--labels", "").exception is not None
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("models", ["--help"]), ("models", ["list"]), ("models", ["verify", "--help"]), ("convert", ["--help"])],
)
def test_help_and_list_import_nothing_heavy(module: str, arguments: list[str]) -> None:
    code = (
        f"import sys, importlib\n"
        f"command = importlib.import_module('speech_emotion_vit.cli.{module}').command\n"
        f"command({arguments!r}, standalone_mode=False)\n"
        f"heavy = {{'torch', 'numpy', 'huggingface_hub', 'safetensors'}} & set(sys.modules)\n"
        f"sys.exit(str(heavy) if heavy else 0)"
    )
    source = str(Path(resolve.__file__).resolve().parents[2])
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {source!r})\n{code}"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "speech-emotion-vit" in result.stdout or arguments == ["list"]
