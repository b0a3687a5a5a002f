"""The page to try it: what it shows, and, in Chromium, that it works and keeps to itself."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from browsers import Watched, chromium
from helpers import CLIPS, nothings, speech
from speech_emotion_vit import ConfigError, EmotionClassifier
from speech_emotion_vit.demo import answers, launch

MODEL = "crema-d-paper"

# The command line, and what it asks of the network.
SERVER = """
import json, sys
seen = open(sys.argv.pop(1), "a")
def note(event, arguments):
    if event in ("socket.bind", "socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        print(json.dumps([event, arguments[1][0]]), file=seen, flush=True)
    elif event == "socket.getaddrinfo":
        print(json.dumps([event, arguments[0]]), file=seen, flush=True)
sys.addaudithook(note)
from speech_emotion_vit.cli import main
main(["demo", *sys.argv[1:]], prog_name="speech-emotion-vit")
"""


def shown(path: Path | None, classifier: EmotionClassifier) -> list[tuple[Any, ...]]:
    return list(answers(None if path is None else str(path), "any", lambda name: classifier))


def test_label_timeline_and_explanation_come_one_after_the_other(classifier: EmotionClassifier) -> None:
    first, second, third = shown(CLIPS[0], classifier)
    expected = classifier.predict(CLIPS[0])
    assert [each[0] for each in (first, second, third)] == [expected.probabilities] * 3
    assert f"{expected.speech:.1f} s of speech in {expected.duration:.1f} s, answered by {MODEL}@" in first[1]
    assert first[2:] == (None, None)
    assert (second[2] is not None, second[3]) == (True, None)
    assert len(third[2].axes) == 2
    assert len(third[3].axes) == 4


def test_where_nobody_speaks_it_says_so(classifier: EmotionClassifier, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "room.wav", nothings(3.0)["room"], 16_000)
    ((label, remarks, *pictures),) = shown(tmp_path / "room.wav", classifier)
    assert label == "nobody speaks"
    assert "no speech" in remarks
    assert pictures == [None, None]


def test_a_bad_file_is_called_by_its_name_and_no_markup(classifier: EmotionClassifier, tmp_path: Path) -> None:
    path = tmp_path / "<b>.wav"
    path.write_bytes(b"<script>alert(1)</script>" * 50)
    ((label, remarks, *pictures),) = shown(path, classifier)
    assert (label, pictures) == (None, [None, None])
    assert "&lt;b&gt;.wav: " in remarks
    assert str(tmp_path) not in remarks
    assert "<script" not in remarks
    assert shown(None, classifier) == [(None, "", None, None)]


def test_without_gradio_it_says_how_to_get_it() -> None:
    code = "import sys; sys.modules['gradio'] = None; from speech_emotion_vit.cli import main; main(['demo'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "pip install 'speech-emotion-vit[demo]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_address_that_is_not_to_be_had_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port} \(.*choose another --host or --port"):
            launch(port=port)
    with pytest.raises(ConfigError, match=r"at 192\.0\.2\.1 \("):
        launch(host="192.0.2.1")


class Server:
    """The command in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.log = folder / "network.jsonl"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(self.log), "--model", MODEL],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self.temporary)},
        )
        line: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: line.put(self.process.stdout.readline()), daemon=True).start()  # type: ignore[union-attr]
        said = line.get(timeout=300)
        assert "; Ctrl-C ends it" in said, said or self.process.communicate()[1]
        self.address = said.partition(": open it")[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.process.kill()
    server.process.communicate()


@pytest.fixture(scope="module")
def opened(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    soundfile.write(heard, soxr.resample(speech(12.0), 16_000, 48_000), 48_000)
    arguments = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={heard}"]
    with chromium(*arguments) as browser:
        watched = Watched(browser, server.address, permissions=["microphone"], viewport={"width": 390, "height": 844})
        watched.page.set_default_timeout(120_000)
        watched.page.goto(server.address)
        watched.page.wait_for_selector("#recording input[type=file]", state="attached")
        yield watched


def upload(page: Any, path: Path) -> None:
    clear = page.locator("[aria-label=Clear]")
    if clear.count():
        clear.first.click()
    page.set_input_files("#recording input[type=file]", str(path))


@pytest.mark.browser
def test_an_uploaded_clip_gets_an_answer_with_pictures(opened: Watched) -> None:
    upload(opened.page, CLIPS[0])
    opened.page.wait_for_selector("#why img")
    expected = EmotionClassifier(MODEL).predict(CLIPS[0])
    lines = opened.page.inner_text("#emotion").split()
    assert lines[1] == expected.label
    assert f"{expected.score:.0%}" in lines
    assert f"answered by {expected.model}" in opened.page.inner_text("#remarks")
    assert opened.page.is_visible("#over-time img")
    assert opened.errors == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390  # nothing sticks out on a phone


@pytest.mark.browser
def test_another_model_hears_the_same_recording(opened: Watched) -> None:
    upload(opened.page, CLIPS[0])
    opened.page.wait_for_function(f"document.querySelector('#remarks').innerText.includes('{MODEL}@')")
    opened.page.click("#model input")
    opened.page.click("[role=option] >> text=emodb-paper >> nth=0")
    opened.page.wait_for_function("document.querySelector('#remarks').innerText.includes('emodb-paper@')")
    assert "boredom" in opened.page.inner_text("#emotion")
    assert opened.errors == []


@pytest.mark.browser
def test_a_bad_file_gets_a_reason(opened: Watched, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(np.random.default_rng(0).bytes(5_000))
    upload(opened.page, tmp_path / "bad.wav")
    opened.page.wait_for_selector("#remarks [role=alert]")
    assert opened.page.inner_text("#remarks").startswith("bad.wav: ")
    assert not opened.page.is_visible("#over-time img")
    opened.errors.clear()  # Gradio's player cannot play it either


@pytest.mark.browser
def test_what_is_recorded_gets_an_answer(opened: Watched) -> None:
    opened.page.reload()
    opened.page.click("[aria-label='Record audio']")
    opened.page.click("button.record-button")
    opened.page.wait_for_timeout(4_000)
    opened.page.click("button.stop-button")
    opened.page.wait_for_function("document.querySelector('#remarks').innerText.includes(' s of speech in ')")
    assert opened.errors == []


@pytest.mark.browser
def test_it_asks_nobody_else_and_leaves_nothing_behind(opened: Watched, server: Server) -> None:
    assert opened.strangers() == []
    asked = {tuple(json.loads(line)) for line in server.log.read_text().splitlines()}
    assert {event for event, _ in asked} >= {"socket.bind"}
    assert {host for _, host in asked} <= {"127.0.0.1", "localhost", "::1", ""}
    assert list(server.temporary.rglob("*.flac"))  # what was uploaded
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=60) == 0
    assert server.process.stderr.read() == ""  # type: ignore[union-attr]
    assert [path for path in server.temporary.rglob("*") if path.is_file()] == []
