"""What people pass: taken where it can only be one thing, else answered with what works, in one short line."""

from __future__ import annotations

import array
import base64
import io
import math
import os
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from helpers import CLIPS, encoded, speech, tone
from speech_emotion_vit import AudioError, ConfigError, EmotionClassifier
from speech_emotion_vit.audio.reader import AudioReader

TONE = tone(440, 1.0)
INT16 = (TONE * 2**15).astype(np.int16)
WAV = encoded(TONE, subtype="FLOAT")


def read(source: Any, **options: Any) -> np.ndarray:
    return np.concatenate(list(AudioReader(source, **options)))


class Decoder:
    """Looks like torchcodec's AudioDecoder, which the datasets library gives."""

    def get_all_samples(self) -> Any:
        return types.SimpleNamespace(data=torch.from_numpy(TONE)[None], sample_rate=16_000, pts_seconds=0.0)


class AudioSegment:
    """Looks like pydub's."""

    def __init__(self, samples: np.ndarray) -> None:
        self.raw_data = np.ascontiguousarray(samples).tobytes()
        self.sample_width, self.channels, self.frame_rate = samples.itemsize, samples.shape[1], 16_000


KNOW_THEIR_RATE = {
    "scipy.io.wavfile.read, gradio": (16_000, TONE),
    "gradio in 16 bits": (16_000, INT16),
    "librosa.load, soundfile.read": (TONE, 16_000),
    "torchaudio.load": (torch.from_numpy(TONE)[None], 16_000),
    "a rate that numpy holds": (np.int64(16_000), TONE),
    "a rate that is a float": (TONE, 16_000.0),
    "a list and a rate": (TONE.tolist(), 16_000),
    "datasets": {"path": "gone.wav", "array": TONE, "sampling_rate": 16_000},
    "datasets, lists": {"array": TONE.tolist(), "sampling_rate": 16_000},
    "datasets, not decoded": {"path": None, "bytes": WAV},
    "pipeline of transformers": {"raw": TONE, "sampling_rate": 16_000},
    "pyannote": {"waveform": torch.from_numpy(TONE)[None], "sample_rate": 16_000},
    "torchcodec's samples": Decoder().get_all_samples(),
    "torchcodec's decoder": Decoder(),
    "pydub": AudioSegment(np.stack((INT16, INT16), axis=1)),
    "pydub in 32 bits": AudioSegment((TONE.astype(np.float64) * 2**31).astype(np.int32)[:, None]),
}


@pytest.mark.parametrize("source", KNOW_THEIR_RATE.values(), ids=KNOW_THEIR_RATE)
def test_what_knows_its_rate(source: Any) -> None:
    assert np.abs(read(source) - TONE).max() < 1e-4
    assert np.array_equal(read(source, sampling_rate=16_000, skip_rate=True), read(source))
    if not (isinstance(source, dict) and "bytes" in source):
        with pytest.raises(AudioError, match=r"has a rate of its own, 16000.*: leave out sampling_rate=8000"):
            read(source, sampling_rate=8_000)


SAMPLES = {
    "[n, 1] of sounddevice": TONE[:, None],
    "[n, 2] of soundfile": np.stack((1.5 * TONE, 0.5 * TONE), axis=1),
    "[1, 1, n]": TONE[None, None],
    "list": TONE.tolist(),
    "tuple": tuple(TONE.tolist()),
    "list of lists": [TONE.tolist(), TONE.tolist()],
    "array.array": array.array("f", TONE),
    "array.array of 16 bits": array.array("h", INT16),
    "memoryview of 16 bits": memoryview(INT16),
    "Series": pd.Series(TONE),
    "Series with an index": pd.Series(TONE, index=range(5, 5 + len(TONE))),
    "Series that may lack values": pd.Series(TONE, dtype="Float32"),
    "read-only": np.frombuffer(TONE.tobytes(), np.float32),
    "long double": TONE.astype(np.longdouble),
    "every second": np.repeat(TONE, 2)[::2],
    "big-endian": TONE.astype(">f4"),
    "on the graph": torch.from_numpy(TONE).requires_grad_() * 1.0,
    "bfloat16": torch.from_numpy(TONE).bfloat16(),
}


@pytest.mark.parametrize("source", SAMPLES.values(), ids=SAMPLES)
def test_what_needs_a_rate(source: Any) -> None:
    assert np.abs(read(source, sampling_rate=16_000) - TONE).max() < 3e-3
    with pytest.raises(AudioError, match=r"pass sampling_rate= in Hz"):
        read(source)


def test_a_file_that_soundfile_has_opened(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(WAV)
    with soundfile.SoundFile(tmp_path / "clip.wav") as sound:
        assert np.array_equal(read(sound), TONE)


def test_names_that_people_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my clip.wav"
    path.write_bytes(WAV)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in (str(path), "~/my clip.wav", path.as_uri(), f"file://localhost{tmp_path}/my%20clip.wav"):
        assert np.array_equal(read(name), TONE)
        assert np.array_equal(read(np.array(name)), TONE)
    for odd in ("~", "http:", "a*b.wav"):  # what is there is read, however it is called
        Path(odd).write_bytes(WAV)
        assert np.array_equal(read(odd), TONE)


BASE64 = base64.b64encode(bytes(range(256)) * 500).decode()


class Upload:
    """Looks like FastAPI's UploadFile."""

    async def read(self) -> bytes:
        return WAV


class Response:
    """Looks like that of requests."""

    content = WAV


REFUSED: dict[str, tuple[Any, str]] = {
    "address": ("https://example.org/a.wav", r"is an address, .*: predict\(urllib\.request\.urlopen\(address\)\.read"),
    "bucket": ("s3://bucket/a.wav", "download it and pass the path"),
    "other machine": ("file://host/a.wav", "is on another machine: copy the file here"),
    "pattern": ("?*r.wav", r"is a pattern, 1 file matches: call predict_batch\(sorted\(glob\.glob"),
    "quotes": ("'clip.wav'", r"no such file, but 'clip\.wav' is there: leave out what surrounds"),
    "line end": ("clip.wav\n", r"no such file, but 'clip\.wav' is there"),
    "Windows": ("folder\\clip.wav", r"but 'folder/clip\.wav' is there: write / for"),
    "empty": ("", "the name is empty: pass a path"),
    "link": ("link.wav", "no such file: it is a link to what is not there"),
    "nowhere": ("gone.wav", "no such file: check the path"),
    "base64": (BASE64, r"is text in base64 and no path: pass base64\.b64decode\(text\)"),
    "data URL": ("data:audio/wav;base64," + BASE64, r"pass base64\.b64decode\(text\)"),
    "bytes of base64": (BASE64.encode(), r"text in base64: pass base64\.b64decode\(text\)"),
    "bytes of a name": (b"clip.wav", r"holds the name of a file: pass os\.fsdecode\(name\)"),
    "raw samples": (INT16.tobytes(), r"if these are raw samples pass numpy\.frombuffer\(data, 'int16'\)"),
    "bytes in an array": (np.frombuffer(WAV, np.uint8), r"holds the bytes of a file: pass array\.tobytes\(\)"),
    "paths in an array": (np.array(["a.wav", "b.wav"]), "holds 2 paths: call predict_batch"),
    "Series of paths": (pd.Series(["a.wav", "b.wav"]), "holds 2 paths: call predict_batch"),
    "list of paths": (["a.wav", "b.wav"], "holds 2 pieces of audio: call predict_batch"),
    "path and rate": (("a.wav", 16_000), "files carry their own rate: pass a.wav alone"),
    "list of arrays": ([TONE, TONE], "holds 2 pieces of audio: call predict_batch"),
    "generator": ((name for name in ["a.wav"]), "for several pieces call predict_batch"),
    "empty list": ([], "holds no samples"),
    "list of integers": (INT16.tolist(), r"integers without a width: pass numpy\.array\(samples, 'int16'\)"),
    "uneven lists": ([[0.1, 0.2], [0.3]], "is no array of samples"),
    "table": (pd.DataFrame({"path": ["a.wav"]}), r"is a table: call predict_batch\(table\['path'\]\)"),
    "columns": ({"audio": ["a.wav", "b.wav"]}, r"holds columns: call predict_batch\(columns\['audio'\]\)"),
    "dict of something": ({"x": 1}, r"no audio under the keys of this dict \('x'\): pass \{'array': samples"),
    "dict without rate": ({"array": TONE}, r"no audio under the keys of this dict|pass sampling_rate="),
    "dict with the item": ({"audio_0": {"array": TONE, "sampling_rate": 1}}, r"pass the item \['audio_0'\] of it"),
    "nothing": (None, "nothing was recorded, or a value is missing"),
    "missing value": (math.nan, "nothing was recorded, or a value is missing"),
    "missing value of pandas": (pd.NA, "nothing was recorded, or a value is missing"),
    "number": (0.5, "a number alone is none"),
    "table of samples": (pd.DataFrame({"l": TONE, "r": TONE}), r"if its columns are channels, pass table\.to_numpy"),
    "objects": (TONE.astype(object), r"cannot take an array of object: .*, here array\.astype\('float32'\)"),
    "complex": (TONE.astype(complex), r"cannot take an array of complex128: .*, here array\.real"),
    "unsigned": (TONE.astype(np.uint16), r"of uint16: .*, here \(array - 32768\.0\) / 32768"),
    "0 Hz": (b"".join((encoded(TONE)[:24], bytes(4), encoded(TONE)[28:])), "its header says 0 Hz: correct it"),
    "upload": (Upload(), r"is read by await: pass upload\.file, or await upload\.read\(\)"),
    "response": (Response(), r"pass response\.content"),
    "batch": (np.zeros((100, 16_000)), r"100 channels: if every row is a clip, call predict_batch\(list\(array\)\)"),
    "24 bits of pydub": (
        types.SimpleNamespace(raw_data=bytes(30), sample_width=3, channels=1, frame_rate=16_000),
        r"3 bytes a sample: pass segment\.set_sample_width\(2\)",
    ),
}


@pytest.mark.parametrize(("source", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_says_what_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder")
    for name in ("clip.wav", "other.wav", "folder/clip.wav"):
        Path(name).write_bytes(WAV)
    os.symlink("nothing", "link.wav")
    needs_rate = isinstance(source, (list, np.ndarray, pd.Series))
    with pytest.raises(AudioError, match=said) as caught:
        read(source, sampling_rate=16_000 if needs_rate else None)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("scaled", "said"),
    [
        (TONE * 2**15, r"reach 16384, where 1 is full scale: they are 16-bit integers \(int16\): divide them by 32768"),
        (np.round(TONE * 100), r"they are 16-bit integers"),
        (np.round(TONE * 2**23), r"they are 24-bit integers \(int24\): divide them by 8388608$"),
        (TONE.astype(np.float64) * 2**31, r"they are 32-bit integers"),
        (INT16.astype(np.int32), r"int32 that reach 16384, .* pass array\.astype\('int16'\)"),
        (INT16.astype(np.int64), r"cannot take an array of int64: .*array\.astype\('int16'\)"),
    ],
)
def test_integers_on_the_wrong_scale_are_called_so(scaled: np.ndarray, said: str) -> None:
    with pytest.raises(AudioError, match=said):
        read(scaled, sampling_rate=16_000)
    if scaled.dtype.kind == "f":
        with pytest.raises(AudioError, match=said):
            read(encoded(scaled, subtype="FLOAT"))


@pytest.mark.parametrize("form", ["WAV", "AIFF", "CAF", "W64"])
def test_16_bit_integers_in_a_file_of_32_bits_are_called_so(form: str) -> None:
    def warnings(samples: np.ndarray) -> list[str]:
        target = io.BytesIO()
        soundfile.write(target, samples, 16_000, "PCM_32", format=form)
        reader = AudioReader(target.getvalue())
        assert len(np.concatenate(list(reader))) == len(samples)
        return [warning for warning in reader.warnings if "16-bit" in warning]

    (said,) = warnings(INT16.astype(np.int32))
    highest = np.abs(INT16.astype(int)).max()
    assert said.startswith(f"16-bit integers in a 32-bit file, by their level: they reach {highest}, where 2147483648")
    assert warnings(INT16.astype(np.int32) * 4) == []
    assert warnings(np.zeros(16_000, np.int32)) == []


def test_loud_and_quiet_audio_is_no_mistake_of_scale() -> None:
    spike = TONE.copy()
    spike[100] = 20_000.0
    for samples in (TONE * 20, TONE * 2, spike, (TONE * 2e5).astype(np.int32), np.zeros(100, np.int32)):
        assert len(read(samples, sampling_rate=16_000)) == len(samples)
    assert len(read(encoded(spike, subtype="FLOAT"))) == len(TONE)


def test_several_pieces_in_what_tables_and_arrays_hold(classifier: EmotionClassifier) -> None:
    names = [str(clip) for clip in CLIPS[:2]]
    expected = classifier.predict_batch(names)
    table = pd.DataFrame({"file": names, "other": [1, 2]}, index=[7, 3])
    for several in (
        table["file"],
        table["file"].to_numpy(),
        pd.Index(names),
        np.array(names),
        np.array([Path(name) for name in names], object),
        pd.array(names, dtype="string"),
        tuple(names),
        dict.fromkeys(names).keys(),
        (name for name in names),
    ):
        assert classifier.predict_batch(several) == expected
    waves = [soundfile.read(name, dtype="float32") for name in names]
    pairs = [soundfile.read(name, dtype="float32") for name in names]
    dicts = [{"array": samples, "sampling_rate": rate} for samples, rate in waves]
    for several in (pairs, dicts, pd.Series(dicts)):
        found = classifier.predict_batch(several)
        assert [p.probabilities for p in found] == [p.probabilities for p in expected]


@pytest.mark.parametrize(
    ("audios", "said"),
    [
        (pd.DataFrame({"id": [1], "clip": ["a.wav"]}), r"is a table: pass one of its columns, such as table\['clip'\]"),
        ({"a": TONE, "b": TONE}, r"holds a piece of audio under each key: pass list\(dict\.values\(\)\)"),
        ({"id": [1], "clip": ["a.wav"]}, r"is a dict: pass one of its columns, such as table\['clip'\]"),
        ("a.wav", "is one piece of audio: pass a list of such, or call predict"),
        (WAV, "is one piece of audio"),
        (TONE, "is one piece of audio"),
        (TONE.tolist(), "is one piece of audio"),
        (pd.Series(TONE), "is one piece of audio"),
        ((16_000, TONE), "is one piece of audio"),
        ({"array": TONE, "sampling_rate": 16_000}, "is one piece of audio"),
        (Decoder(), "is one piece of audio"),
        (np.array("a.wav"), "is one piece of audio"),
        (3, "audios must be a list of pieces of audio, not 3"),
        (None, "audios must be a list of pieces of audio, not None"),
    ],
)
def test_one_piece_is_not_several(classifier: EmotionClassifier, audios: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        classifier.predict_batch(audios, sampling_rate=16_000)


def test_bad_pieces_among_good_ones_are_returned_in_their_places(classifier: EmotionClassifier) -> None:
    found = classifier.predict_batch(
        [CLIPS[0], None, math.nan, (16_000, speech(2.0)), "https://example.org/a.wav", {"x": 1}], errors="return"
    )
    assert [isinstance(item, AudioError) for item in found] == [False, True, True, False, True, True]


def test_a_file_that_is_open_for_writing(tmp_path: Path) -> None:
    with (tmp_path / "clip.wav").open("wb") as file, pytest.raises(AudioError, match="is open for writing: open it"):
        read(file)


def test_what_is_given_in_wrong_places_is_cut_short(classifier: EmotionClassifier) -> None:
    for call in (
        lambda: classifier.predict(BASE64),
        lambda: classifier.predict([BASE64]),
        lambda: classifier.predict({BASE64: 1}),
        lambda: classifier.predict(TONE, sampling_rate=BASE64),  # type: ignore[arg-type]
        lambda: classifier.predict(TONE, sampling_rate=16_000, channel=BASE64),  # type: ignore[arg-type]
        lambda: classifier.predict_batch([CLIPS[0]], errors=BASE64),  # type: ignore[call-overload]
        lambda: classifier.predict_batch([CLIPS[0]], batch_size=BASE64),  # type: ignore[call-overload]
        lambda: classifier.timeline(CLIPS[0], hop=BASE64),  # type: ignore[arg-type]
        lambda: EmotionClassifier(BASE64),
        lambda: EmotionClassifier(device=BASE64),
        lambda: EmotionClassifier(backend=BASE64),  # type: ignore[arg-type]
        lambda: classifier.predict(io.BytesIO(BASE64.encode())),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011, any of ours
            call()
        assert type(caught.value).__module__ == "speech_emotion_vit.errors"
        assert len(str(caught.value)) < 500
