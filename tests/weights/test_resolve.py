"""Models from the Hub, through its real client and a server on loopback; and from folders, files and the package."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub_client import (
    CONFIG,
    CONTENT,
    DIGEST,
    Ask,
    cached,
    environment,
    finish,
    free_port,
    repository,
    request,
    spoil,
    start_worker,
)
from hub_server import MAIN, HubServer
from speech_emotion_vit.errors import ConfigError, IntegrityError, WeightsError
from speech_emotion_vit.weights import resolve
from speech_emotion_vit.weights.manifest import Manifest, WeightEntry, load_manifest, write_manifest


def entry(repo_id: str | None = None, **changes: Any) -> WeightEntry:
    fields: dict[str, Any] = {
        "name": "tiny",
        "sha256": DIGEST,
        "size_bytes": len(CONTENT),
        "config": CONFIG,
        "trained_on": "nothing",
        "recipe": "none",
        "metrics": (),
        "license": "MIT",
        "citation": "none",
    }
    if repo_id is not None:
        fields |= {"repo_id": repo_id, "revision": MAIN, "filename": "model.safetensors"}
    return WeightEntry(**{**fields, **changes})


def manifest_of(tmp_path: Path, *entries: WeightEntry) -> Path:
    path = tmp_path / "manifest.json"
    write_manifest(path, Manifest(default=entries[0].name, models={each.name: each for each in entries}))
    return path


def git_hash(content: bytes) -> str:
    return (
        subprocess.run(["git", "hash-object", "--stdin"], input=content, capture_output=True, check=True)
        .stdout.decode()
        .strip()
    )


def test_fresh_download_of_a_repository(ask: Ask, server: HubServer, repo_id: str, tmp_path: Path) -> None:
    answer = ask(repo_id, tmp_path)
    assert (answer["name"], answer["revision"], answer["sha256"]) == (repo_id, MAIN, DIGEST)
    assert Path(answer["weights"]).read_bytes() == CONTENT
    assert answer["labels"] == ["low", "high"]
    assert answer["torch"] is False
    assert server.requests[repo_id, "GET", "model.safetensors"] == 1


def test_valid_cache_of_a_commit_makes_no_request(ask: Ask, server: HubServer, repo_id: str, tmp_path: Path) -> None:
    first = ask(repo_id, tmp_path, revision=MAIN)
    before = server.count(repo_id)
    assert before > 0
    assert ask(repo_id, tmp_path, revision=MAIN) == first
    assert ask(repo_id, tmp_path, "verify_model", revision=MAIN) == first
    assert server.count(repo_id) == before


def test_valid_cache_of_a_manifest_entry_makes_no_request(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path
) -> None:
    manifest = str(manifest_of(tmp_path, entry(repo_id)))
    first = ask("tiny", tmp_path / "cache", "download_model", manifest=manifest)
    assert (first["name"], first["revision"], first["sha256"]) == ("tiny", MAIN, DIGEST)
    assert server.requests[repo_id, "GET", "config.json"] == 0  # the manifest says what it is
    before = server.count(repo_id)
    assert ask("tiny", tmp_path / "cache", manifest=manifest) == first
    assert server.count(repo_id) == before == 3  # is it there, what is it, and the file


def test_a_branch_is_looked_up_and_not_downloaded_again(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path
) -> None:
    first = ask(repo_id, tmp_path, revision="main")
    assert ask(repo_id, tmp_path, revision="main") == first
    assert server.count(repo_id, "GET") == 2
    assert server.requests[repo_id, "HEAD", "config.json"] == 3  # two before the download, one to look it up again


@pytest.mark.parametrize("known", [True, False])
def test_a_download_that_is_corrupt_once_is_repeated(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path, known: bool
) -> None:
    server.repositories[repo_id].corrupt = 1
    more = {"manifest": str(manifest_of(tmp_path, entry(repo_id)))} if known else {}
    answer = ask("tiny" if known else repo_id, tmp_path / "cache", **more)
    assert Path(answer["weights"]).read_bytes() == CONTENT
    assert server.requests[repo_id, "GET", "model.safetensors"] == 2


@pytest.mark.parametrize("known", [True, False])
def test_a_download_that_stays_corrupt_is_refused_and_not_kept(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path, known: bool
) -> None:
    server.repositories[repo_id].corrupt = 99
    more = {"manifest": str(manifest_of(tmp_path, entry(repo_id)))} if known else {}
    answer = ask("tiny" if known else repo_id, tmp_path / "cache", **more)
    assert answer["error"] == "IntegrityError"
    bad = hashlib.sha256(bytes(byte ^ 0xFF for byte in CONTENT)).hexdigest()
    assert DIGEST in answer["message"]
    assert bad in answer["message"]
    assert str(tmp_path / "cache") in answer["message"]
    assert server.requests[repo_id, "GET", "model.safetensors"] == 2
    assert cached(tmp_path / "cache") == []


def test_a_corrupt_cache_is_mended(ask: Ask, server: HubServer, repo_id: str, tmp_path: Path) -> None:
    weights = Path(ask(repo_id, tmp_path, revision=MAIN)["weights"])
    spoil(weights)
    assert ask(repo_id, tmp_path, revision=MAIN)["sha256"] == DIGEST
    assert weights.read_bytes() == CONTENT
    assert server.requests[repo_id, "GET", "model.safetensors"] == 2
    assert len(cached(tmp_path)) == 2  # the blob and the link to it


@pytest.mark.parametrize("call", ["resolve_model", "verify_model"])
def test_a_corrupt_cache_without_network_is_an_error(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path, call: str
) -> None:
    weights = Path(ask(repo_id, tmp_path, revision=MAIN)["weights"])
    spoil(weights)
    before = server.count(repo_id)
    more = {"local_files_only": True} if call == "resolve_model" else {}
    answer = ask(repo_id, tmp_path, call, revision=MAIN, **more)
    assert answer["error"] == "IntegrityError"
    assert DIGEST in answer["message"]
    assert str(weights) in answer["message"]
    assert server.count(repo_id) == before
    assert cached(tmp_path) == []


def test_a_corrupt_cache_that_cannot_be_fetched_again_names_both(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path
) -> None:
    spoil(Path(ask(repo_id, tmp_path, revision=MAIN)["weights"]))
    del server.repositories[repo_id]
    answer = ask(repo_id, tmp_path, revision=MAIN)
    assert answer["error"] == "IntegrityError"
    assert DIGEST in answer["message"]
    assert "no such repository" in answer["message"]
    assert cached(tmp_path) == []


def test_an_announced_digest_that_is_none_is_not_taken_for_one(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path
) -> None:
    server.repositories[repo_id].etags["model.safetensors"] = "2" * 32  # an MD5, as some mirrors have it
    assert ask(repo_id, tmp_path)["sha256"] is None
    answer = ask(repo_id, tmp_path, "verify_model")
    assert answer["error"] == "WeightsError"
    assert "nobody announced a digest" in answer["message"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_not_large_is_verified_by_the_hash_of_git(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path, name: str
) -> None:
    hub = server.repositories[repo_id]
    hub.lfs, hub.damaged, hub.corrupt = (), name, 1
    first = ask(repo_id, tmp_path)
    assert first["sha256"] == DIGEST
    weights = Path(first["weights"])
    assert weights.readlink().name == hub.etag("model.safetensors")
    assert len(weights.readlink().name) == 40
    spoil(weights.with_name(name))
    before = server.requests[repo_id, "GET", name]
    assert before == 2
    assert ask(repo_id, tmp_path, "verify_model", revision=MAIN)["error"] == "IntegrityError"
    assert ask(repo_id, tmp_path, revision=MAIN) == first
    assert weights.with_name(name).read_bytes() == hub.files[name]
    assert server.requests[repo_id, "GET", name] == 3


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_not_large_and_stays_corrupt_is_refused(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path, name: str
) -> None:
    hub = server.repositories[repo_id]
    hub.lfs, hub.damaged, hub.corrupt = (), name, 99
    answer = ask(repo_id, tmp_path)
    assert answer["error"] == "IntegrityError"
    assert f"git's hash is {git_hash(bytes(byte ^ 0xFF for byte in hub.files[name]))}" in answer["message"]
    assert f"announced is {git_hash(hub.files[name])}" in answer["message"]
    assert list(tmp_path.rglob(name)) == []


def test_a_cache_without_links_is_verified_by_asking(ask: Ask, server: HubServer, repo_id: str, tmp_path: Path) -> None:
    weights = Path(ask(repo_id, tmp_path, revision=MAIN)["weights"])
    weights.unlink()
    weights.write_bytes(CONTENT)  # what the client leaves where the file system has no links
    before = server.count(repo_id)
    assert ask(repo_id, tmp_path, revision=MAIN)["sha256"] == DIGEST
    assert server.count(repo_id) == before + 1
    assert ask(repo_id, tmp_path, revision=MAIN, local_files_only=True)["sha256"] is None
    weights.write_bytes(CONTENT[::-1])
    assert ask(repo_id, tmp_path, revision=MAIN)["sha256"] == DIGEST
    assert weights.read_bytes() == CONTENT


def test_a_cut_download_is_resumed(ask: Ask, server: HubServer, repo_id: str, tmp_path: Path) -> None:
    server.repositories[repo_id].cut = 1
    answer = ask(repo_id, tmp_path)
    if "error" in answer:  # clients before 1.0 leave the second try to the caller
        assert answer["error"] == "DownloadError"
        assert cached(tmp_path) == []
        answer = ask(repo_id, tmp_path)
    assert answer["sha256"] == DIGEST
    assert Path(answer["weights"]).read_bytes() == CONTENT
    assert server.requests[repo_id, "GET", "model.safetensors"] == 2


@pytest.mark.parametrize("surplus", [100, -100])
def test_a_wrong_length_is_refused(ask: Ask, server: HubServer, repo_id: str, tmp_path: Path, surplus: int) -> None:
    server.repositories[repo_id].surplus = surplus
    answer = ask(repo_id, tmp_path)
    assert answer["error"] == "DownloadError"
    assert "\n" not in answer["message"]
    assert cached(tmp_path) == []
    if surplus < 0:  # what is too long stays in the way of clients before 1.0
        server.repositories[repo_id].surplus = 0
        assert ask(repo_id, tmp_path)["sha256"] == DIGEST


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"status": 401, "error_code": "RepoNotFound"}, "no such repository"),
        ({"status": 404, "error_code": "RepoNotFound"}, "no such repository"),
        ({"status": 403, "error_code": "GatedRepo"}, "accept the terms"),
        ({"status": 403}, "access denied (status 403)"),
        ({"files": {"README.md": b"hello"}}, "no such file: a model needs config.json and model.safetensors"),
    ],
)
def test_what_the_hub_refuses_is_one_line_with_a_remedy(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    server.repositories[repo_id] = replace(repository(), **changes)
    answer = ask(repo_id, tmp_path)
    assert answer["error"] == "DownloadError"
    assert said in answer["message"]
    assert repo_id in answer["message"]
    assert "\n" not in answer["message"]
    assert cached(tmp_path) == []


def test_missing_repository(ask: Ask, server: HubServer, tmp_path: Path) -> None:
    answer = ask("nobody/nothing", tmp_path)
    assert answer["error"] == "DownloadError"
    assert "nobody/nothing" in answer["message"]
    assert "models list" in answer["message"]


def test_missing_revision(ask: Ask, repo_id: str, tmp_path: Path) -> None:
    answer = ask(repo_id, tmp_path, revision="v9")
    assert answer["error"] == "DownloadError"
    assert "no such branch, tag or commit" in answer["message"]


def test_a_config_that_is_not_ours(ask: Ask, server: HubServer, repo_id: str, tmp_path: Path) -> None:
    server.repositories[repo_id].files["config.json"] = b'{"model_type": "bert"}'
    answer = ask(repo_id, tmp_path)
    assert answer["error"] == "WeightsError"
    assert "model_type" in answer["message"]


def test_a_cache_that_cannot_be_written(ask: Ask, repo_id: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    answer = ask(repo_id, tmp_path / "file" / "cache")
    assert answer["error"] == "DownloadError"
    assert "cannot be written" in answer["message"]
    assert "cache_dir" in answer["message"]


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_offline(ask: Ask, server: HubServer, repo_id: str, tmp_path: Path, by: str) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    first = ask(repo_id, full)
    before = server.count(repo_id)
    if by == "argument":
        answers = [ask(repo_id, cache, local_files_only=True) for cache in (empty, full)]
    else:
        worker = start_worker(server.url, tmp_path / "home", HF_HUB_OFFLINE="1")
        answers = finish(worker, *(request(repo_id, cache) for cache in (empty, full)))
    assert answers[0]["error"] == "DownloadError"
    assert "network is switched off" in answers[0]["message"]
    assert answers[1] == first
    assert server.count(repo_id) == before


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_is_down_does_not_matter_once_cached(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path, status: int
) -> None:
    first = ask(repo_id, tmp_path)
    server.repositories[repo_id].status = status
    assert ask(repo_id, tmp_path) == first


def test_where_nobody_answers_a_misspelt_name_is_asked_for_once_and_said_in_one_line(tmp_path: Path) -> None:
    """The client alone asks seven times in half a minute, and says so each time."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        calls = []
        thread = threading.Thread(target=lambda: calls.extend(hang_up(deaf)))
        thread.start()
        run = subprocess.run(
            [sys.executable, "-m", "speech_emotion_vit", "models", "download", "org/mispelt"],
            env=environment(f"http://127.0.0.1:{deaf.getsockname()[1]}", tmp_path),
            capture_output=True,
            text=True,
            timeout=60,
        )
        deaf.shutdown(socket.SHUT_RDWR)  # ends the thread
        thread.join()
    assert run.returncode == 1
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith("Error: org/mispelt: config.json could not be fetched from http://127.0.0.1:")
    assert "the spelling (speech-emotion-vit models list)" in line
    assert len(calls) == 1


def hang_up(listener: socket.socket) -> Iterator[object]:
    """Accept every call and end it at once, until the listener is shut down."""
    with contextlib.suppress(OSError):
        while True:
            connection, address = listener.accept()
            connection.close()
            yield address


def test_labels_of_strangers_are_bounded(ask: Ask, server: HubServer, repo_id: str, tmp_path: Path) -> None:
    for number, label in enumerate(["x" * 65, "=1+1", "@cmd", "+1", "-1", " low", "low\x1b[2J", "low\u202e"]):
        config = {**CONFIG.to_dict(), "labels": [label, "high"]}
        server.repositories[f"{repo_id}-{number}"] = hub = repository()
        hub.files["config.json"] = json.dumps(config).encode()
        answer = ask(f"{repo_id}-{number}", tmp_path)
        assert answer["error"] == "WeightsError", label
        assert "a label must be printable, at most 64 characters" in answer["message"]
        assert len(answer["message"]) < 600
        assert answer["message"].isprintable()


def test_an_endpoint_that_is_none(tmp_path: Path) -> None:
    (answer,) = finish(start_worker("nonsense://127.0.0.1", tmp_path), request("org/repo", tmp_path / "cache"))
    assert answer["error"] == "DownloadError"
    assert "HF_ENDPOINT" in answer["message"]


def test_an_unreachable_hub_does_not_matter_once_cached(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path
) -> None:
    first = ask(repo_id, tmp_path / "cache")
    closed = f"http://127.0.0.1:{free_port()}"
    assert finish(start_worker(closed, tmp_path), request(repo_id, tmp_path / "cache")) == [first]


@pytest.mark.parametrize("model", ["org/a--b", "org/" + "x" * 100, "org/x.git"])
def test_a_name_the_hub_does_not_allow(ask: Ask, tmp_path: Path, model: str) -> None:
    answer = ask(model, tmp_path)
    assert answer["error"] == "WeightsError"
    assert model in answer["message"]
    assert "speech-emotion-vit models list" in answer["message"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("dying", "check the network"),
        ("unavailable", "the server is in trouble (status 503): try again later"),
        ("throttled", "too many requests: try again later"),
    ],
)
def test_a_network_that_fails_for_good(slow: dict[str, subprocess.Popen[str]], case: str, said: str) -> None:
    output, errors = slow[case].communicate(timeout=90)
    (line,) = output.splitlines()
    answer = json.loads(line)
    assert "thrown while" not in errors
    assert "Retrying" not in errors
    assert answer["error"] == "DownloadError"
    assert said in answer["message"]
    assert "\n" not in answer["message"]


# What follows needs no Hub.


def no_models() -> Manifest:
    return Manifest(default="tiny", models={"tiny": entry(file="tiny.safetensors")})


def test_a_bundled_model_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "WEIGHTS_FOLDER", tmp_path)
    (tmp_path / "tiny.safetensors").write_bytes(CONTENT)
    manifest = load_manifest(manifest_of(tmp_path, entry(file="tiny.safetensors")))
    for model in ("tiny", None):
        resolved = resolve.resolve_model(model, manifest=manifest)
        assert resolved.weights == tmp_path / "tiny.safetensors"
        assert resolved.config == CONFIG
        assert resolved.entry == manifest.get("tiny")
        assert resolved.revision == DIGEST[:12]
    assert resolve.verify_model("tiny", manifest=manifest).sha256 == DIGEST

    (tmp_path / "tiny.safetensors").write_bytes(CONTENT[:-1])
    with pytest.raises(IntegrityError, match="reinstall") as raised:
        resolve.resolve_model("tiny", manifest=manifest)
    for part in (DIGEST, hashlib.sha256(CONTENT[:-1]).hexdigest(), str(tmp_path / "tiny.safetensors")):
        assert part in str(raised.value)
    assert (tmp_path / "tiny.safetensors").exists()  # the package's files are not ours to delete

    (tmp_path / "tiny.safetensors").unlink()
    with pytest.raises(WeightsError, match="missing: reinstall"):
        resolve.resolve_model("tiny", manifest=manifest)


def test_the_model_under_a_head_is_verified_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "WEIGHTS_FOLDER", tmp_path)
    (tmp_path / "tiny.safetensors").write_bytes(CONTENT)
    (tmp_path / "head.safetensors").write_bytes(b"head")
    digest = hashlib.sha256(b"head").hexdigest()
    head = entry(name="head", file="head.safetensors", sha256=digest, backbone="tiny", backbone_sha256=DIGEST)
    manifest = load_manifest(manifest_of(tmp_path, entry(file="tiny.safetensors"), head))
    resolved = resolve.resolve_model("head", manifest=manifest)
    assert (resolved.weights, resolved.backbone) == (tmp_path / "head.safetensors", tmp_path / "tiny.safetensors")
    assert resolved.revision == digest[:12]
    assert resolve.resolve_model("tiny", manifest=manifest).backbone is None

    (tmp_path / "tiny.safetensors").write_bytes(CONTENT[:-1])
    with pytest.raises(IntegrityError, match=r"tiny\.safetensors: SHA-256 is"):
        resolve.resolve_model("head", manifest=manifest)


def test_a_revision_the_manifest_does_not_pin_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"no revision 'v2'.*comes with the package"):
        resolve.resolve_model("tiny", revision="v2", manifest=no_models())
    pinned = Manifest(default="tiny", models={"tiny": entry("org/repo")})
    with pytest.raises(WeightsError, match=rf"no revision 'v2'.*pins it to {MAIN}"):
        resolve.resolve_model("tiny", revision="v2", manifest=pinned)


def test_a_local_folder_and_a_local_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    (tmp_path / "model.safetensors").write_bytes(CONTENT)
    (tmp_path / "other.safetensors").write_bytes(CONTENT)
    for model in (tmp_path, str(tmp_path), tmp_path / "model.safetensors"):
        resolved = resolve.resolve_model(model, manifest=no_models())
        assert resolved.weights == tmp_path / "model.safetensors"
        assert resolved.config == CONFIG
        assert (resolved.name, resolved.revision) == (str(model), DIGEST[:12])
    assert resolve.resolve_model(tmp_path / "other.safetensors").config is None
    with pytest.raises(WeightsError, match="leave revision out"):
        resolve.resolve_model(tmp_path, revision="main")
    with pytest.raises(WeightsError, match="nobody announced"):
        resolve.verify_model(str(tmp_path), manifest=no_models())


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nothing", "choose one of tiny"),
        ("", "choose one of tiny"),
        ("a/b/c", "choose one of tiny"),
        ("runs/gone.safetensors", "choose one of tiny"),
        ("../up", "choose one of tiny"),
        ("null\0byte", "choose one of tiny"),
        (Path("gone"), "neither a folder nor a .safetensors file"),
        (Path("gone.safetensors"), "cannot be read"),
    ],
)
def test_what_is_not_there_lists_what_is(model: str | Path, said: str) -> None:
    with pytest.raises(WeightsError) as raised:
        resolve.resolve_model(model, manifest=no_models())
    assert said in str(raised.value)
    assert not isinstance(raised.value, IntegrityError)


def test_local_things_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no config.json and no model.safetensors"):
        resolve.resolve_model(str(tmp_path), manifest=no_models())
    (tmp_path / "model.safetensors").write_bytes(CONTENT)
    with pytest.raises(WeightsError, match=r"no config.json in this folder"):
        resolve.resolve_model(tmp_path)
    (tmp_path / "student.ckpt").write_bytes(b"PK\x03\x04")
    with pytest.raises(WeightsError, match="speech-emotion-vit convert"):
        resolve.resolve_model(str(tmp_path / "student.ckpt"), manifest=no_models())
    with pytest.raises(ConfigError, match="give a name, a path"):
        resolve.resolve_model(5, manifest=no_models())  # type: ignore[arg-type]


def test_the_models_there_are() -> None:
    assert [each.name for each in resolve.list_models(manifest=no_models())] == ["tiny"]
