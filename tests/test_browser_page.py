"""The page of the site that runs a model: in Chromium, with the numbers of Python, and no audio leaves it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from browsers import Watched, chromium, served
from helpers import CLIPS, ROOT, nothings, speech
from speech_emotion_vit import EmotionClassifier

sys.path.insert(0, str(ROOT / "tools"))

import browser_page


def test_only_the_runtime_that_is_named_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "other.tgz").write_bytes(b"something else")
    with pytest.raises(SystemExit, match="not onnxruntime-web@"):
        browser_page.unpack(tmp_path / "other.tgz", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.tgz"]


def test_what_the_page_runs_is_said_beside_it(tmp_path: Path) -> None:
    browser_page.write_model("crema-d-paper", tmp_path)
    facts = json.loads((tmp_path / "model.json").read_text())
    assert facts["labels"] == list(EmotionClassifier("crema-d-paper", backend="onnx").labels)
    assert facts["bytes"] == (tmp_path / "model.onnx").stat().st_size
    assert (facts["model"], facts["sampling_rate"]) == ("crema-d-paper", 16_000)


RATES = {"telephone": 8_000, "studio": 48_000, "music": 44_100, "vorbis": 44_100}  # Hz; the others have 16,000
FORMATS = {"music": "mp3", "podcast": "mp3", "vorbis": "ogg"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    shutil.rmtree(folder / "assets" / "browser", ignore_errors=True)  # of the checkout, if it is there
    return folder


@pytest.fixture(scope="module")
def whole_site(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "site"
    shutil.copytree(site, folder)
    tool = [sys.executable, ROOT / "tools" / "browser_page.py", "--output", folder / "assets" / "browser"]
    subprocess.run(tool, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def opened(whole_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    heard = tmp_path_factory.mktemp("microphone") / "heard.wav"
    soundfile.write(heard, soxr.resample(speech(12.0), 16_000, 48_000), 48_000)
    arguments = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={heard}"]
    with served(whole_site) as base, chromium(*arguments) as browser:
        watched = Watched(browser, base, permissions=["microphone"], viewport={"width": 390, "height": 844})
        watched.page.goto(f"{base}browser/")
        watched.page.wait_for_selector("#try-file:enabled", state="attached")
        assert "Nothing is loaded yet" in watched.page.inner_text("#try-status")
        assert not [request for request in watched.requests if request.url.endswith((".onnx", ".wasm"))]
        yield watched


def answer_to(page: Any, clip: Path) -> dict[str, Any]:
    page.set_input_files("#try-file", str(clip))
    return answer_of(page, clip.name)


def answer_of(page: Any, name: str) -> dict[str, Any]:
    page.wait_for_function(
        "name => document.querySelector('#try-answer[data-answer]') && "
        "document.querySelector('#try-status').textContent.startsWith(name)",
        arg=f"{name}: ",
        timeout=120_000,
    )
    found: dict[str, Any] = json.loads(page.get_attribute("#try-answer", "data-answer"))
    return found


def clip_of(name: str, folder: Path) -> Path:
    path = folder / f"{name}.{FORMATS.get(name, 'wav')}"
    quieter = 0.7  # what lossy formats lift above full scale is cut off by browsers, and not by Python's decoders
    sounds = {
        "second": lambda: speech(1.0),
        "long": lambda: speech(10.0),
        "pauses": lambda: np.concatenate([np.zeros(40_000), speech(4.0), np.zeros(80_000), speech(3.0)]),
        "stereo": lambda: np.stack((speech(3.0), 0.2 * speech(3.0)[::-1]), axis=1),
        "nobody": lambda: nothings(4.0)["room"],
        "podcast": lambda: quieter * speech(5.0),
    }
    sounds |= {
        each: lambda rate=rate: soxr.resample(quieter * speech(5.0), 16_000, rate) for each, rate in RATES.items()
    }
    soundfile.write(path, sounds[name](), RATES.get(name, 16_000), format=path.suffix[1:])
    return path


@pytest.mark.browser
@pytest.mark.parametrize("name", ["clip", "second", "long", "pauses", "stereo", "nobody", "podcast", *RATES])
def test_the_answer_is_that_of_python(name: str, opened: Watched, tmp_path: Path) -> None:
    clip = CLIPS[0] if name == "clip" else clip_of(name, tmp_path)
    found = answer_to(opened.page, clip)
    expected = EmotionClassifier(browser_page.MODEL).predict(clip)
    assert found["labels"] == list(expected.probabilities)
    assert found["probabilities"] == pytest.approx(
        list(expected.probabilities.values()), abs=2e-3 if name in RATES else 1e-3
    )
    assert found["speech"] == pytest.approx(expected.speech, abs=1e-3)
    assert opened.page.inner_text(".try-label") == (expected.label or "nobody speaks")
    assert opened.errors == []


@pytest.mark.browser
def test_what_is_recorded_gets_an_answer(opened: Watched) -> None:
    opened.page.click("#try-record")
    opened.page.wait_for_function("document.querySelector('#try-record').textContent === 'Stop'")
    opened.page.wait_for_timeout(4_000)
    opened.page.click("#try-record")
    assert answer_of(opened.page, "The recording")["speech"] > 0.5
    assert opened.errors == []


@pytest.mark.browser
def test_what_is_no_recording_is_refused_and_the_next_one_heard(opened: Watched) -> None:
    opened.page.set_input_files("#try-file", str(ROOT / "README.md"))
    opened.page.wait_for_selector("#try-status.try-error")
    assert opened.page.inner_text("#try-status").startswith("README.md: this browser cannot read it.")
    assert answer_to(opened.page, CLIPS[1])["speech"] > 0.5
    assert opened.errors == []


@pytest.mark.browser
def test_nothing_is_sent_and_nobody_else_is_asked(opened: Watched) -> None:
    answer_to(opened.page, CLIPS[2])
    assert opened.strangers() == []
    assert {request.method for request in opened.requests} == {"GET"}
    assert len([request for request in opened.requests if request.url.endswith("model.onnx")]) == 1
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390  # nothing sticks out on a phone


@pytest.mark.browser
def test_a_site_without_the_model_says_what_is_missing(opened: Watched, site: Path) -> None:
    with served(site) as base:
        watched = Watched(opened.browser, base)
        watched.page.goto(f"{base}browser/")
        watched.page.wait_for_selector("#try-status.try-error")
        assert "python tools/browser_page.py" in watched.page.inner_text("#try-status")
        assert watched.page.is_disabled("#try-record")
        assert watched.strangers() == []
