"""A process with the Hub's real client, pointed at the server on loopback; pytest loads the fixtures from conftest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hub_server import HubServer, Repository
from speech_emotion_vit.model.config import ClassifierConfig, FrontendConfig, ModelConfig
from speech_emotion_vit.weights import resolve

CONFIG = ClassifierConfig(
    labels=("low", "high"),
    model=ModelConfig(num_classes=2, dim=16, depth=1, heads=1, head_dim=8, mlp_dim=16),
    frontend=FrontendConfig(top_db=60.0),
)
CONTENT = bytes(range(256)) * 100  # what is in the file is not this module's business, only its digest
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SOURCE = Path(resolve.__file__).resolve().parents[2]

Ask = Callable[..., dict[str, Any]]


def environment(endpoint: str, home: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith(("HF_", "HUGGING"))}
    # Xet, the Hub's other way to move large files, wants a host of its own.
    quiet = {
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    path = os.pathsep.join(filter(None, [str(SOURCE), kept.get("PYTHONPATH")]))
    return {**kept, **quiet, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": path, **more}


def start_worker(endpoint: str, home: Path, *, prefix: Sequence[str] = (), **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, str(Path(__file__).with_name("hub_worker.py"))],
        env=environment(endpoint, home, **more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(worker: subprocess.Popen[str], *requests: dict[str, Any]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    output, errors = worker.communicate(lines, timeout=60)
    answers = [json.loads(line) for line in output.splitlines()]
    assert len(answers) == len(requests), errors
    return answers


def request(model: str | Path, cache: Path, call: str = "resolve_model", **more: Any) -> dict[str, Any]:
    return {"call": call, "model": str(model), "cache_dir": str(cache), **more}


def repository(**changes: Any) -> Repository:
    files = {"config.json": json.dumps(CONFIG.to_dict()).encode(), "model.safetensors": CONTENT}
    return Repository(files=files, **changes)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        yield running


@pytest.fixture(scope="session")
def slow(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Cases in which the client waits and tries again, all started before the first test, to wait side by side."""
    server.repositories["slow/dying"] = repository(stall_after=1000)
    server.repositories["slow/unavailable"] = repository(status=503)
    server.repositories["slow/throttled"] = repository(status=429)
    server.repositories["slow/failing"] = repository(status=500)
    server.repositories["slow/silent"] = repository(silent=8.0)
    workers = {}
    for name in ("dying", "unavailable", "throttled", "failing", "silent"):
        home = tmp_path_factory.mktemp(name)
        timeouts = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"} if name == "silent" else {}
        workers[name] = worker = start_worker(server.url, home, **timeouts)
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(request(f"slow/{name}", home / "cache")) + "\n")
        worker.stdin.flush()
    yield workers
    for worker in workers.values():
        worker.kill()
        worker.communicate()


@pytest.fixture(scope="session")
def ask(server: HubServer, slow: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """One process with the real client, pointed at the server."""
    worker = start_worker(server.url, tmp_path_factory.mktemp("home"))
    assert worker.stdin is not None
    assert worker.stdout is not None

    def call(model: str | Path, cache: Path, name: str = "resolve_model", **more: Any) -> dict[str, Any]:
        worker.stdin.write(json.dumps(request(model, cache, name, **more)) + "\n")
        worker.stdin.flush()
        answer: dict[str, Any] = json.loads(worker.stdout.readline())
        return answer

    yield call
    finish(worker)


@pytest.fixture
def repo_id(server: HubServer, request: pytest.FixtureRequest) -> str:
    """A good repository of the test's own."""
    name = f"org/{re.sub('[^a-z0-9]+', '-', request.node.name.lower())[-60:].strip('-')}"
    server.repositories[name] = repository()
    return name


def cached(cache: Path) -> list[Path]:
    """All files in the cache that would be taken for the weights; some clients keep parts, to go on from there."""
    found = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".incomplete"]
    return [path for path in found if path.stat().st_size > 10_000]


def spoil(path: Path) -> None:
    """Change one byte of a cached file where it lies, so that its size stays."""
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.resolve().write_bytes(content)
