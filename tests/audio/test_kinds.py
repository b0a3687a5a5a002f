"""What is no recording, though its name says so: named, with what helps."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_files import encode
from fuzz.inputs import Pipe
from helpers import encoded, speech
from speech_emotion_vit import AudioError
from speech_emotion_vit.audio.reader import AudioReader

WAV = encoded(speech(2.0))


def packed(kind: str) -> bytes:
    target = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:  # stored: an MP3 in it is there to be found
            archive.writestr("clip.mp3", encoded(speech(9.0), format="MP3", subtype="MPEG_LAYER_III"))
    else:
        with tarfile.open(fileobj=target, mode="w") as archive:
            entry = tarfile.TarInfo("clip.wav")
            entry.size = len(WAV)
            archive.addfile(entry, io.BytesIO(WAV))
    return target.getvalue()


def saved(array: np.ndarray) -> bytes:
    target = io.BytesIO()
    np.save(target, array)
    return target.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 64044\n"
KINDS: dict[str, tuple[bytes, str]] = {
    "lfs": (POINTER, "a Git LFS pointer, not the recording: git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s64044--4d7a2146.wav\n", "git annex get"),
    "gzip": (gzip.compress(WAV), "compressed by gzip: gunzip it"),
    "bzip2": (bz2.compress(WAV), "compressed by bzip2"),
    "xz": (lzma.compress(WAV), "compressed by xz"),
    "zip": (packed("zip"), "a ZIP archive: unzip it"),
    "tar": (packed("tar"), "a tar archive"),
    "html": (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>", "a web page (HTML)"),
    "html in capitals": (b"<HTML><BODY>Sign in</BODY></HTML>", "a web page (HTML)"),
    "html in utf-16": ("<html><body>Sign in".encode("utf-16"), "a web page (HTML)"),
    "html after a comment": (b"\n<!-- saved -->\n<!DOCTYPE html><html>404", "a web page (HTML)"),
    "webp": (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(200), "a picture (WebP)"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(300), "a picture (HEIF or AVIF)"),
    "pickle": (pickle.dumps(speech(1.0)), "a Python pickle, which is not opened: pass the array in it"),
    "word": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a Microsoft Office document"),
    "xml": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "<Error><Code>AccessDenied"),
    "json": (b'{"error": {"code": 404, "message": "clip not found"}}\n', '{"error": {"code": 404'),
    "long json": (json.dumps([{"text": "word " * 9}] * 999).encode(), "JSON ([{"),
    "text": (b"see the wiki for the recordings\n", "text (see the wiki for the recordings)"),
    "base64": (base64.b64encode(WAV), "base64: pass base64.b64decode(text)"),
    "base64 in lines": (base64.encodebytes(WAV), "base64: pass base64.b64decode(text)"),
    "data url": (b"data:audio/wav;base64," + base64.b64encode(WAV), "base64"),
    "playlist": (b"#EXTM3U\nclip.wav\n", "a playlist: pass the files that it names"),
    "pdf": (b"%PDF-1.7\n" + bytes(999), "a PDF document"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(999), "a picture (PNG)"),
    "npy": (saved(speech(1.0)), "pass numpy.load(path) with sampling_rate="),
    "midi": (b"MThd\0\0\0\6\0\1\0\1\0\x60", "MIDI"),
    "zeros": (bytes(100_000), "zeros alone"),
    "mp4 without index": (
        encode("mp4", np.repeat(speech(4.0), 3))[:20_000],
        "an MP4 whose index of samples is missing",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_recording_is_named_with_what_helps(tmp_path: Path, kind: str) -> None:
    content, said = KINDS[kind]
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    for source in (path, content, io.BytesIO(content), Pipe(content)):
        with pytest.raises(AudioError) as caught:
            AudioReader(source)
        message = str(caught.value)
        assert "is not audio but " in message
        assert said in message
        assert message.isprintable()
        assert len(message) < 300 + len(str(path))


@pytest.mark.parametrize("form", sorted(set(soundfile.available_formats()) - {"RAW", "SD2"}))
def test_no_recording_is_taken_for_something_else(form: str) -> None:
    """Some begin with a kilobyte of text."""
    data = encoded(0.3 * speech(4.0), 16_000, format=form, subtype=soundfile.default_subtype(form))
    for source in (data, Pipe(data)):
        assert sum(map(len, AudioReader(source))) > 20_000


def test_text_without_end_is_refused_at_its_beginning() -> None:
    """`yes | speech-emotion-vit predict -` is the fault of the input, and said before gigabytes of it are kept."""
    command = f"yes | {sys.executable} -m speech_emotion_vit predict -"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == f"Error: <stdin>: is not audio but text ({'y ' * 28}y...): pass the recording\n"


FULL = """
import io, resource, signal, sys
from speech_emotion_vit import AudioError, EmotionClassifier
class Pipe(io.RawIOBase):
    def __init__(self, data): self.data = io.BytesIO(data)
    def readable(self): return True
    def readinto(self, buffer): return self.data.readinto(buffer)
good = open(sys.argv[1], "rb").read()
large = good[:44] + bytes(30 << 20)
classifier = EmotionClassifier("crema-d-paper")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
for result in classifier.predict_batch([good, Pipe(large), good], errors="return"):
    print(result if isinstance(result, AudioError) else type(result).__name__)
"""


def test_a_full_temporary_folder_is_one_error_and_loses_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(WAV)
    command = [sys.executable, "-c", FULL, tmp_path / "clip.wav"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    first, error, last = done.stdout.splitlines()
    assert first == last == "Prediction"
    assert "a stream that cannot seek is kept in the temporary folder, which failed (File too large)" in error
    assert "set TMPDIR to one with space, or pass the path of a file" in error
