"""Networks that die, disks that fill, and many processes at once, through the real client."""

from __future__ import annotations

import json
import select
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from faults import limited, read_only, small_disk, unprivileged
from hub_client import CONTENT, DIGEST, Ask, cached, finish, repository, request, spoil, start_worker
from hub_server import MAIN, HubServer
from speech_emotion_vit.weights import download


def ask_together(server: HubServer, repo_id: str, home: Path, cache: Path, processes: int) -> list[dict[str, Any]]:
    """Let processes of their own all start, and then ask at the same moment."""
    workers = [start_worker(server.url, home) for _ in range(processes)]
    first = json.dumps(request(str(home / "nothing.safetensors"), cache)) + "\n"
    for worker in workers:  # an error that imports everything
        worker.stdin.write(first)
        worker.stdin.flush()
    for worker in workers:
        assert "error" in json.loads(worker.stdout.readline())
    for worker in workers:
        worker.stdin.write(json.dumps(request(repo_id, cache, revision=MAIN)) + "\n")
        worker.stdin.flush()
    answers = [json.loads(worker.stdout.readline()) for worker in workers]
    for worker in workers:
        worker.communicate(timeout=60)
    return answers


@pytest.mark.parametrize("processes", [2, 8])
def test_processes_that_download_at_once_share_one_download(
    server: HubServer, repo_id: str, tmp_path: Path, processes: int
) -> None:
    answers = ask_together(server, repo_id, tmp_path, tmp_path / "cache", processes)
    assert [answer.get("sha256", answer) for answer in answers] == [DIGEST] * processes
    assert server.requests[repo_id, "GET", "model.safetensors"] == 1
    weights = Path(answers[0]["weights"])
    assert weights.read_bytes() == CONTENT

    spoil(weights)
    answers = ask_together(server, repo_id, tmp_path, tmp_path / "cache", processes)
    assert [answer.get("sha256", answer) for answer in answers] == [DIGEST] * processes
    assert weights.read_bytes() == CONTENT
    assert len(cached(tmp_path / "cache")) == 2  # the blob and the link to it


def test_a_bad_file_is_mended_by_one_process_at_a_time(server: HubServer, repo_id: str, tmp_path: Path) -> None:
    """Else one would take out of the cache what the other has just fetched."""
    cache = tmp_path / "cache"
    (first,) = finish(start_worker(server.url, tmp_path), request(repo_id, cache))
    weights = Path(first["weights"])
    spoil(weights)
    worker = start_worker(server.url, tmp_path)
    with download._alone_with(weights, "as if this process were mending it"):
        worker.stdin.write(json.dumps(request(repo_id, cache, revision=MAIN)) + "\n")
        worker.stdin.flush()
        assert select.select([worker.stdout], [], [], 4.0)[0] == []
        assert weights.exists()
        weights.resolve().write_bytes(CONTENT)
    assert json.loads(worker.stdout.readline())["sha256"] == DIGEST
    worker.communicate(timeout=60)
    assert server.requests[repo_id, "GET", "model.safetensors"] == 1  # it saw that all was well by then


def test_the_token_goes_to_the_hub_and_to_no_other_host(server: HubServer, repo_id: str, tmp_path: Path) -> None:
    with HubServer() as storage:
        storage.repositories[repo_id] = repository()
        server.repositories[repo_id].storage = storage.url
        worker = start_worker(server.url, tmp_path, HF_TOKEN="hf_secret")
        (answer,) = finish(worker, request(repo_id, tmp_path / "cache"))
        assert answer["sha256"] == DIGEST
        assert server.tokens[repo_id] == {"Bearer hf_secret"}
        assert storage.requests[repo_id, "GET", "model.safetensors"] == 1
        assert storage.tokens[repo_id] == {None}


def test_bytes_of_another_host_are_verified_too(ask: Ask, server: HubServer, repo_id: str, tmp_path: Path) -> None:
    with HubServer() as storage:
        storage.repositories[repo_id] = repository(corrupt=99)
        server.repositories[repo_id].storage = storage.url
        answer = ask(repo_id, tmp_path)
    assert answer["error"] == "IntegrityError"
    assert cached(tmp_path) == []


@pytest.mark.parametrize("wait", [3600, 10**30])
def test_nobody_sleeps_for_as_long_as_a_server_says(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path, wait: int
) -> None:
    server.repositories[repo_id].status = 429
    server.repositories[repo_id].retry_after = str(wait)
    started = time.monotonic()
    answer = ask(repo_id, tmp_path)
    assert time.monotonic() - started < 45
    assert answer["error"] == "DownloadError"
    assert "too many requests: try again" in answer["message"]
    if wait == 3600:
        assert answer["message"].endswith("in 3600 s")


def test_a_short_wait_is_kept_or_reported(ask: Ask, server: HubServer, repo_id: str, tmp_path: Path) -> None:
    server.repositories[repo_id].refusals = 1
    answer = ask(repo_id, tmp_path)
    if "error" in answer:  # clients before 1.0 leave the second try to the caller
        assert "too many requests" in answer["message"]
        answer = ask(repo_id, tmp_path)
    assert answer["sha256"] == DIGEST


def test_a_cached_model_needs_no_answer_of_a_throttling_hub(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path
) -> None:
    first = ask(repo_id, tmp_path)
    server.repositories[repo_id].status = 429
    server.repositories[repo_id].retry_after = "3600"
    started = time.monotonic()
    assert ask(repo_id, tmp_path) == first
    assert time.monotonic() - started < 45  # older clients try again for 23 s


@pytest.mark.parametrize("by", ["limit", "disk"])
def test_a_full_disk_is_named_and_leaves_nothing_behind(
    server: HubServer, repo_id: str, tmp_path: Path, by: str
) -> None:
    cache = tmp_path / "cache"
    with small_disk(cache, kilobytes=24) as mounted:
        if by == "disk" and not mounted:
            pytest.skip("this user may not mount a small disk; the limit on file sizes is tested")
        prefix = limited(0.02) if by == "limit" else []
        folder = tmp_path / "limited" if by == "limit" else cache
        (answer,) = finish(start_worker(server.url, tmp_path, prefix=prefix), request(repo_id, folder))
        assert answer["error"] == "DownloadError"
        assert "make room, give another cache_dir" in answer["message"]
        assert "\n" not in answer["message"]
        assert cached(folder) == []
        if by == "limit":
            (answer,) = finish(start_worker(server.url, tmp_path), request(repo_id, folder))
            assert answer["sha256"] == DIGEST


def test_a_read_only_cache_serves_what_it_has(server: HubServer, repo_id: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (first,) = finish(start_worker(server.url, tmp_path / "home"), request(repo_id, cache))
    server.repositories["org/another"] = repository()
    with read_only(cache):
        worker = start_worker(server.url, tmp_path / "home", prefix=unprivileged())
        online, offline, missing = finish(
            worker,
            request(repo_id, cache),
            request(repo_id, cache, local_files_only=True),
            request("org/another", cache),
        )
    assert online == offline == first
    assert missing["error"] == "DownloadError"
    assert "cannot be written" in missing["message"]


def test_a_bad_file_in_a_read_only_cache_is_refused(server: HubServer, repo_id: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (first,) = finish(start_worker(server.url, tmp_path / "home"), request(repo_id, cache))
    spoil(Path(first["weights"]))
    with read_only(cache):
        worker = start_worker(server.url, tmp_path / "home", prefix=unprivileged())
        (answer,) = finish(worker, request(repo_id, cache, revision=MAIN))
    assert answer["error"] == "IntegrityError"
    assert "delete it yourself" in answer["message"]


@pytest.mark.parametrize("content", [b"", CONTENT[:1000]])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_cache_cut_short_is_mended(
    ask: Ask, server: HubServer, repo_id: str, tmp_path: Path, name: str, content: bytes
) -> None:
    first = ask(repo_id, tmp_path, revision=MAIN)
    cut = Path(first["weights"]).with_name(name)
    cut.resolve().write_bytes(content)
    assert ask(repo_id, tmp_path, revision=MAIN) == first
    assert cut.read_bytes() == server.repositories[repo_id].files[name]


@pytest.mark.parametrize(
    ("case", "said"),
    [("failing", "the server is in trouble (status 500): try again later"), ("silent", "check the network")],
)
def test_a_hub_that_fails_or_is_silent_is_given_up(
    slow: dict[str, subprocess.Popen[str]], case: str, said: str
) -> None:
    (line,) = slow[case].communicate(timeout=90)[0].splitlines()
    answer = json.loads(line)
    assert answer["error"] == "DownloadError"
    assert said in answer["message"]
    assert "\n" not in answer["message"]
