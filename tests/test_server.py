"""`examples/server.py` as a process of its own, and what posts to it on loopback."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import soundfile

from helpers import CLIPS, ROOT

if TYPE_CHECKING:
    from speech_emotion_vit import EmotionClassifier


class Server:
    """A running server.

    Args:
        options: of its command line.
        log: where its log goes.
    """

    def __init__(self, log: Path, *options: object) -> None:
        self.log = log
        command = [sys.executable, ROOT / "examples" / "server.py", "--port", 0, *options]
        with log.open("w") as file:
            self.process = subprocess.Popen([str(word) for word in command], stderr=file)
        while not (found := re.search(r"running on (http://127\.0\.0\.1:(\d+))", log.read_text())):
            assert self.process.poll() is None, log.read_text()
            time.sleep(0.05)
        self.port = int(found[2])
        self.client = httpx.Client(base_url=found[1], timeout=60, trust_env=False)

    def post(self, content: object, field: str = "file") -> httpx.Response:
        return self.client.post("/predict", files={field: ("clip", content)})  # type: ignore[dict-item]

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(each) for each in children if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]

    def peak(self) -> int:
        """MB of memory that the process had at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) // 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    running = Server(
        log,
        "--model",
        "crema-d-paper",
        "--backend",
        "onnx",
        "--max-mb",
        5,
        "--send-seconds",
        8,
        "--hear-seconds",
        2,
        "--max-waiting",
        20,
    )
    yield running
    running.client.close()
    running.process.terminate()
    running.process.wait(30)
    assert "Traceback" not in log.read_text()


def test_a_clip_gets_the_answer_of_predict(server: Server, classifier: EmotionClassifier) -> None:
    response = server.post(CLIPS[0].read_bytes())
    assert response.status_code == 200
    answer, expected = response.json(), classifier.predict(CLIPS[0]).to_dict()
    assert answer.pop("probabilities") == pytest.approx(expected.pop("probabilities"), abs=1e-4)
    assert answer.pop("score") == pytest.approx(expected.pop("score"), abs=1e-4)
    assert answer == expected


BAD = {
    "empty": (b"", "file", 422, "is not audio but empty"),
    "html": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "file", 422, "a web page (HTML)"),
    "broken": (CLIPS[0].read_bytes()[:60], "file", 422, "<60 bytes>"),
    "wrong field": (CLIPS[0].read_bytes(), "audio", 422, "Field required"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_clip_is_answered_in_words(server: Server, kind: str) -> None:
    content, field, status, said = BAD[kind]
    response = server.post(content, field)
    assert response.status_code == status
    assert said in str(response.json()["detail"])


def test_what_is_no_form_is_refused(server: Server) -> None:
    assert server.client.post("/predict", content=CLIPS[0].read_bytes()).status_code == 422
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert server.client.post("/predict", content=b"--y nonsense", headers=headers).status_code == 400
    assert server.client.get("/predict").status_code == 405


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in chunks"])
def test_200_mb_are_refused_and_not_kept(server: Server, announced: bool) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="clip"\r\n\r\n'
    megabytes = (head, *[bytes(1_000_000)] * 200, b"\r\n--x--\r\n")
    headers = {"content-type": "multipart/form-data; boundary=x"}
    if announced:
        headers["content-length"] = str(sum(map(len, megabytes)))
    before = server.peak()
    response = server.client.post("/predict", content=iter(megabytes), headers=headers)
    assert (response.status_code, response.json()["detail"]) == (413, "more than 5 MB")
    assert server.peak() - before < 20


def test_who_sends_too_slowly_is_told_so(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\nConnection: close\r\n"
        connection.sendall((head + "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n").encode())
        answer = b"".join(iter(lambda: connection.recv(10_000), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"sending took more than 8 s" in answer


def test_what_takes_too_long_is_stopped_and_the_next_one_heard(server: Server) -> None:
    small = io.BytesIO()  # and yet hours, with a click every second: of zeros alone six hours are heard in under 2 s
    clicks = np.repeat(np.tile(np.array([3000, -3000], np.int16), 2 * 3600), 8_000)
    soundfile.write(small, clicks, 8_000, format="FLAC", compression_level=0)
    before = server.workers()
    response = server.post(small.getvalue())
    assert (response.status_code, response.json()["detail"]) == (422, "hearing it takes more than 2 s: send less")
    assert server.post(CLIPS[1].read_bytes()).status_code == 200
    assert not set(before) & set(server.workers())


def test_a_process_that_dies_has_a_successor(server: Server) -> None:
    before = server.workers()
    for worker in before:
        os.kill(worker, signal.SIGKILL)
    while set(before) & set(server.workers()):
        time.sleep(0.05)
    time.sleep(0.3)  # until the pool knows
    assert server.post(CLIPS[2].read_bytes()).status_code == 200
    assert server.client.get("/health").json()["status"] == "ok"


def test_sixteen_clients_at_once_get_their_own_answers(server: Server) -> None:
    alone = [server.post(clip.read_bytes()).json() for clip in CLIPS]
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda n: server.post(CLIPS[n % 6].read_bytes()).json(), range(64)))
    for number, answer in enumerate(answers):
        assert answer == alone[number % 6]


def test_too_many_are_told_to_come_again(server: Server) -> None:
    clip = io.BytesIO()
    soundfile.write(clip, np.tile(soundfile.read(CLIPS[0])[0], 5), 16_000, format="FLAC")
    with ThreadPoolExecutor(40) as clients:
        responses = list(clients.map(lambda _: server.post(clip.getvalue()), range(40)))
    codes = [response.status_code for response in responses]
    assert set(codes) == {200, 503}
    assert codes.count(200) >= 20
    assert {r.headers["retry-after"] for r in responses if r.status_code == 503} == {"1"}


def test_health_and_metrics(server: Server, classifier: EmotionClassifier) -> None:
    health = server.client.get("/health").json()
    assert health == {"status": "ok", "model": classifier.name, "labels": list(classifier.labels)}

    def values() -> dict[str, float]:
        response = server.client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=")
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in response.text.splitlines()
            if line[0] != "#"
        }

    before = values()
    server.post(CLIPS[0].read_bytes())
    server.post(b"")
    after = values()
    grown = {name: value - before.get(name, 0) for name, value in after.items() if name.startswith("emotion_")}
    assert grown['emotion_requests_total{status="200"}'] == 1
    assert grown['emotion_requests_total{status="422"}'] == 1
    assert grown["emotion_seconds_count"] == 2
    assert grown["emotion_audio_seconds_total"] == pytest.approx(soundfile.info(CLIPS[0]).duration)
    assert after["emotion_waiting"] == 0


def test_without_the_model_it_does_not_start(tmp_path: Path) -> None:
    command = [
        sys.executable,
        ROOT / "examples" / "server.py",
        "--port",
        "0",
        "--model",
        tmp_path / "none",
        "--backend",
        "onnx",
    ]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "none" in done.stderr


def test_the_container_has_the_packages_that_the_documentation_lists() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    listed = re.findall(r"^pip install (numpy .*onnxruntime)$", (ROOT / "docs/guide/onnx.md").read_text(), re.MULTILINE)
    project = (ROOT / "pyproject.toml").read_text()
    server = re.findall(r'"([\w-]+)>=', re.findall(r"^server = \[(.*)\]$", project, re.MULTILINE)[0])
    installed = re.findall(r"pip install --no-cache-dir ([\w \\\n-]+) &&", dockerfile)[0].replace("\\\n", " ").split()
    assert installed == [*listed[0].split(), *server]


def test_a_stop_waits_for_the_answers(server: Server) -> None:
    clip = io.BytesIO()
    soundfile.write(clip, np.tile(soundfile.read(CLIPS[0])[0], 20), 16_000, format="FLAC")
    with ThreadPoolExecutor(8) as clients:
        waiting = [clients.submit(server.post, clip.getvalue()) for _ in range(8)]
        while "emotion_waiting 8.0" not in server.client.get("/metrics").text:
            assert not any(each.done() for each in waiting)
        server.process.terminate()
        assert [each.result().status_code for each in waiting] == [200] * 8
    assert server.process.wait(30) in (0, -signal.SIGTERM)
    with pytest.raises(httpx.ConnectError):
        server.client.get("/health")
