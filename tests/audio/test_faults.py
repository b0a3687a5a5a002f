"""Audio that nobody should have made, from objects that nobody should pass: a result or one `AudioError`."""

from __future__ import annotations

import gc
import io
import os
import socket
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faults import unprivileged
from fuzz import inputs
from helpers import CLIPS, tone
from speech_emotion_vit import AudioError
from speech_emotion_vit.audio.decode import announced_seconds
from speech_emotion_vit.audio.reader import AudioReader, describe

TONE = tone(440, 1.0)


def read(source: Any, **options: Any) -> tuple[np.ndarray, AudioReader]:
    reader = AudioReader(source, **options)
    return np.concatenate(list(reader)), reader


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(AudioError) as caught:
        read(source, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


def wav(samples: np.ndarray = TONE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16_000, **{"format": "WAV", "subtype": "PCM_16", **options})
    return buffer.getvalue()


# Damage. The long form is tests/fuzz/fuzz_audio.py; these are its first inputs, and what it found.


def test_damaged_files_of_every_container_are_read_or_refused() -> None:
    outcomes, messages = {"read": 0, "refused": 0}, []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(600):
            _, data = inputs.make(0, number)
            try:
                samples, reader = read(data)
            except AudioError as error:
                outcomes["refused"] += 1
                messages.append(str(error))
            else:
                outcomes["read"] += 1
                assert np.isfinite(samples).all()
                assert 0 < reader.duration < 3600
    assert min(outcomes.values()) > 60
    assert all(map(str.isprintable, messages))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_recording_cut_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    _, content = data.draw(st.sampled_from(inputs.seeds()))
    cut = content[: data.draw(st.integers(0, len(content)))]
    try:
        whole, part = read(content)[0], read(cut)[0]
    except AudioError:
        return
    assert len(part) <= len(whole) + 4096  # some decoders fill up their last block


def list_of_files(path: Path) -> bytes:
    return b"ffconcat version 1.0\nfile " + str(path).encode() + b"\n"


def playlist(port: int) -> bytes:
    return b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\nhttp://127.0.0.1:%d/a.ts\n#EXT-X-ENDLIST\n" % port


def session(port: int) -> bytes:
    return b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio %d RTP/AVP 0\n" % port


def manifest(port: int) -> bytes:
    return (
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        b'mediaPresentationDuration="PT4S"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" '
        b'bandwidth="1"><BaseURL>http://127.0.0.1:%d/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>'
    ) % port


@pytest.mark.parametrize("suffix", [".wav", ".m4a", ".m3u8", ".sdp", ".ffconcat", ".mpd"])
def test_a_file_reaches_nothing_beyond_itself(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg follows lists of files and opens addresses on the network, whatever the name of the file."""
    (tmp_path / "secret.wav").write_bytes(wav())
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.setblocking(False)
        for content in (
            list_of_files(Path("secret.wav")),
            list_of_files(tmp_path / "secret.wav"),
            playlist(port),
            session(port),
            manifest(port),
        ):
            (tmp_path / f"clip{suffix}").write_bytes(content)
            assert "is not audio" in refused(tmp_path / f"clip{suffix}")
            assert "is not audio" in refused(content)
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()


def test_many_channels_do_not_crash_pyav() -> None:
    """PyAV reads beyond its 8 planes; what libsndfile refuses of 64 channels reaches it."""
    frames = np.repeat(tone(440, 0.5)[:, None], 64, axis=1)
    data = wav(frames, subtype="FLOAT").replace(b"fact", b"\xff\xffct", 1)  # libsndfile gives up, FFmpeg goes on
    with pytest.raises(soundfile.SoundFileError):
        soundfile.SoundFile(io.BytesIO(data))
    code = (
        "import sys, numpy; from speech_emotion_vit.audio.reader import AudioReader\n"
        "sys.stdout.buffer.write(numpy.concatenate(list(AudioReader(sys.stdin.buffer.read()))).tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done
    assert np.abs(np.frombuffer(done.stdout, np.float32) - frames[:, 0]).max() < 1e-6


def test_a_decoder_that_goes_on_after_the_end_is_stopped() -> None:
    """A W64 in GSM 6.10 whose sizes are nonsense makes libsndfile deliver months of samples."""
    data = bytearray(wav(tone(440, 0.1), format="W64", subtype="GSM610"))
    place = data.index(b"data\xf3\xac\xd3\x11") + 16
    data[place : place + 8] = struct.pack("<q", -6763364303287353240)
    for source in (bytes(data), io.BytesIO(data)):
        try:
            samples, reader = read(source)
        except AudioError:
            continue
        assert len(samples) < 1 << 20
        assert reader.warnings[0].startswith("truncated")


@pytest.mark.parametrize(
    "text",
    [
        b"x\ndata : 99999999999999999999 (should be 1)\nSSND : 0x (should be y)\n",
        b"x\ndata : 012 (should be 013)\n",
        b"x\ndata : 100000 (should be 1)\n",
        b"x\n*** Calculated frame count 1 does not match value from 'ds64' chunk of 999999999999999999.\n",
    ],
)
def test_text_in_a_file_that_looks_like_a_log_is_only_text(text: bytes) -> None:
    text += bytes(2 - len(text) % 2)
    chunk = b"LIST" + struct.pack("<I", 12 + len(text)) + b"INFOINAM" + struct.pack("<I", len(text)) + text
    for content in (wav() + chunk, wav()[:36] + chunk + wav()[36:]):
        data = content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
        samples, reader = read(data)
        assert len(samples) == 16_000
        assert reader.warnings == ()


def test_an_extreme_float_in_a_stereo_file_is_refused_without_a_numpy_warning() -> None:
    for pair in ((np.inf, -np.inf), (3e38, 3e38), (np.nan, 0.0)):
        frames = np.zeros((100, 2), np.float32)
        frames[7] = pair
        assert "sample 7 is" in refused(wav(frames, subtype="FLOAT"))
        assert "sample 7 is" in refused(frames.T, sampling_rate=16_000)


def test_denormals_are_silence_and_take_no_longer() -> None:
    samples, reader = read(np.full(160_000, 1e-40, np.float32), sampling_rate=48_000)
    assert reader.warnings == ()
    assert np.abs(samples).max() < 1e-30


def test_a_file_that_shrinks_while_it_is_read_is_truncated(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(wav(np.tile(TONE, 120)))
    reader = AudioReader(path)
    blocks = iter(reader)
    first = next(blocks)
    os.truncate(path, 2 * len(first) + 1000)
    rest = sum(map(len, blocks))
    assert rest < 16_000
    assert reader.warnings[0].startswith("truncated: ")


def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(wav())
    path.chmod(0)
    code = "import sys; from speech_emotion_vit.audio.reader import AudioReader; AudioReader(sys.argv[1])"
    done = subprocess.run([*unprivileged(), sys.executable, "-c", code, path], capture_output=True, text=True)
    assert f"AudioError: {path}: cannot be opened: Permission denied" in done.stderr


def test_a_file_exchanged_for_a_fifo_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(wav())
    status = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(os, "stat", lambda *_, **__: status)
    assert "is not a regular file" in refused(path)


def test_the_length_to_expect_is_asked_of_the_file_alone(tmp_path: Path) -> None:
    """libsndfile looks for a companion of what it does not know, by name, and would wait for this one for ever."""
    (tmp_path / "clip.wav").write_bytes(wav())
    (tmp_path / "garbage.wav").write_bytes(b"garbage" * 9)
    os.mkfifo(tmp_path / "._garbage.wav")
    assert announced_seconds(str(tmp_path / "clip.wav")) == soundfile.info(tmp_path / "clip.wav").duration
    for name in ("garbage.wav", "._garbage.wav", "none.wav", "", "nul\0"):
        assert announced_seconds(str(tmp_path / name)) is None


def test_names_are_harmless_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "a\nb\x1b[2J\u202e.wav"
    assert describe(path).isprintable()
    assert refused(path).endswith("a\\nb\\x1b[2J\\u202e.wav: no such file: check the path")


def test_less_than_one_sample_is_no_audio() -> None:
    assert "shorter than one sample at 16000 Hz" in refused(TONE[:1], sampling_rate=384_000)
    assert len(read(TONE[:1], sampling_rate=16_000)[0]) == 1


# Objects.


class Odd(io.BytesIO):
    """A file object that misbehaves in one way."""

    def __init__(self, way: str) -> None:
        super().__init__(wav())
        self.way, self.reads = way, 0

    def read(self, size: int | None = -1) -> Any:
        self.reads += 1
        if size == 0 or self.reads < 4:
            return super().read(size)
        if self.way == "disk":
            raise OSError(5, "Input/output error")
        if self.way == "bug":
            raise ZeroDivisionError("a bug\nof the caller")
        if self.way == "interrupt":
            raise KeyboardInterrupt
        if self.way == "text":
            return "text"
        if self.way == "none":
            return None
        if self.way == "much":
            return super().read()
        return super().read(min(size or 0, 7))


@pytest.mark.parametrize(
    ("way", "said"), [("disk", "Input/output error"), ("bug", "a bug of the caller"), ("text", "str")]
)
def test_a_file_object_that_fails_is_an_error(way: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    message = refused(Odd(way))
    assert "cannot be read: " in message
    assert said in message
    assert capfd.readouterr().err == ""


def test_an_interrupt_in_a_callback_is_an_interrupt(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        read(Odd("interrupt"))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("way", ["little", "much", "none"])
def test_a_file_object_that_gives_another_size_is_understood(way: str) -> None:
    try:
        samples, _ = read(Odd(way))
    except AudioError:
        assert way == "none"
        return
    assert np.array_equal(samples, read(wav())[0]) or way == "none"


class Only:
    """An object with `read` and nothing else."""

    def __init__(self, content: bytes) -> None:
        self.read = io.BytesIO(content).read


class Endless:
    def read(self, size: int = -1) -> bytes:
        return bytes(max(0, size))


def test_an_object_with_nothing_but_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(read(Only(wav()))[0]) == 16_000
    monkeypatch.setattr("speech_emotion_vit.audio.decode.MAX_STREAM_BYTES", 1 << 22)
    assert "more than 4 MiB in a stream that cannot seek" in refused(Endless())
    assert "is open as text" in refused(io.StringIO("text"))


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_pipe_and_a_socket(kind: str) -> None:
    if kind == "pipe":
        here, there = os.pipe()
    else:
        here, there = (end.detach() for end in socket.socketpair())

    def send() -> None:
        with open(there, "wb") as target:
            target.write(wav())

    thread = threading.Thread(target=send)
    thread.start()
    with open(here, "rb") as source:
        assert len(read(source)[0]) == 16_000
    thread.join()


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/null"])
def test_an_open_device_ends(device: str) -> None:
    with open(device, "rb") as file:
        assert "<stdin>" not in refused(file)


def test_a_closed_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip.wav").write_bytes(wav())
    with (tmp_path / "clip.wav").open("rb") as file:
        pass
    assert "closed file" in refused(file)


def test_files_are_closed_whatever_happens(tmp_path: Path) -> None:
    bad = TONE.copy()
    bad[100] = np.nan
    contents = {"nan.wav": wav(bad, subtype="FLOAT"), "good.wav": wav(), "text.wav": b"text", "rate.wav": wav()}
    contents["rate.wav"] = contents["rate.wav"][:24] + struct.pack("<I", 1_000_000) + contents["rate.wav"][28:]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        for name in contents:
            try:
                for _ in AudioReader(tmp_path / name):
                    break
            except AudioError:
                pass
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 1


@pytest.mark.parametrize(
    "array",
    [
        TONE.astype(">f4"),
        TONE.astype(">f8"),
        (TONE * 32_767).astype(">i2"),
        np.stack((TONE, TONE)).astype(">f4"),
        np.asfortranarray(np.stack((TONE, TONE))),
        np.broadcast_to(TONE, (4, len(TONE))),
        np.repeat(TONE, 3)[::3],
        TONE[::-1].copy()[::-1],
        np.ma.masked_array(TONE).filled(0.0),
    ],
    ids=[
        "big",
        "big double",
        "big int16",
        "big stereo",
        "fortran",
        "broadcast",
        "stride",
        "negative",
        "filled",
    ],
)
def test_arrays_of_every_layout_are_the_same_audio(array: np.ndarray) -> None:
    array.flags.writeable = False
    assert np.abs(read(array, sampling_rate=16_000)[0] - TONE).max() < 1e-4


def test_a_memory_mapped_array(tmp_path: Path) -> None:
    TONE.tofile(tmp_path / "samples")
    mapped = np.memmap(tmp_path / "samples", np.float32, mode="r")
    assert np.array_equal(read(mapped, sampling_rate=16_000)[0], TONE)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array(0.5), r"shape must be"),
        (np.array([object()] * 100), "cannot take an array of object"),
        (np.array(["text"] * 100), "holds 100 paths: call predict_batch"),
        (np.zeros(100, [("left", "f4")]), "cannot take an array of"),
        (np.zeros(100, "datetime64[s]"), "cannot take an array of"),
        (np.zeros((2, 3, 4)), "shape must be"),
        (np.zeros((0, 100)), "shape must be"),
        (np.ma.masked_array(TONE, TONE > 0.4), "fill its gaps"),
        (np.ma.masked_all(100), "fill its gaps"),
    ],
)
def test_arrays_that_are_no_audio(array: np.ndarray, said: str) -> None:
    assert said in refused(array, sampling_rate=16_000)


def conjugated() -> torch.Tensor:
    """A view that is negative only on paper, as the imaginary part of a conjugate is."""
    return torch.complex(torch.zeros(16_000), -torch.from_numpy(TONE)).conj().imag


@pytest.mark.parametrize(
    "tensor",
    [
        torch.from_numpy(TONE).requires_grad_() * 1.0,
        torch.from_numpy(np.repeat(TONE, 2))[::2],
        torch.from_numpy(np.stack((TONE, TONE), axis=1)).T,
        torch.from_numpy(TONE).expand(3, -1),
        conjugated(),
    ],
    ids=["gradient", "stride", "transposed", "expanded", "negative bit"],
)
def test_tensors_of_every_layout_are_the_same_audio(tensor: torch.Tensor) -> None:
    assert np.abs(read(tensor, sampling_rate=16_000)[0] - TONE).max() < 1e-6


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.zeros(100, device="meta"), "cannot read a torch.strided tensor on meta"),
        (torch.zeros(100).to_sparse(), "cannot read a torch.sparse_coo tensor on cpu"),
        (torch.zeros(100, dtype=torch.complex64), "cannot take a tensor of torch.complex64"),
        (torch.zeros(100, dtype=torch.bool), "cannot take a tensor of torch.bool"),
        (torch.tensor(0.5), "shape must be"),
    ],
    ids=["meta", "sparse", "complex", "bool", "scalar"],
)
def test_tensors_that_are_no_audio(tensor: torch.Tensor, said: str) -> None:
    assert said in refused(tensor, sampling_rate=16_000)


def test_bytes_of_every_kind() -> None:
    data = wav()
    doubled = bytes(byte for byte in data for _ in range(2))
    for source in (bytearray(data), memoryview(data), memoryview(doubled)[::2]):
        assert len(read(source)[0]) == 16_000


@pytest.mark.parametrize("rate", [np.float32(16_000), np.int32(16_000), 16_000.0])
def test_rates_of_every_kind(rate: Any) -> None:
    assert len(read(TONE, sampling_rate=rate)[0]) == 16_000


@pytest.mark.parametrize("rate", [True, None, "16000", 0, -16_000, np.nan, np.inf, 10**400, 1e300, [16_000]])
def test_rates_that_are_none(rate: Any) -> None:
    refused(TONE, sampling_rate=rate)


def test_memory_is_bounded_by_the_window_and_not_by_the_length() -> None:
    """Two hours of silence in a FLAC of some kilobytes."""
    code = (
        "import io, resource, sys, numpy as np, soundfile\n"
        "from speech_emotion_vit.audio.reader import AudioReader, windows\n"
        "buffer = io.BytesIO()\n"
        "with soundfile.SoundFile(buffer, 'w', 16000, 1, format='FLAC', subtype='PCM_16') as sound:\n"
        "    for _ in range(120): sound.write(np.zeros(960_000, np.int16))\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "sum(1 for _ in AudioReader(buffer.getvalue()[:5000]))\n"
        "before = peak()\n"
        "seconds = sum(len(block) for block in AudioReader(buffer.getvalue())) / 16000\n"
        "print(seconds, len(buffer.getvalue()), peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    seconds, size, grown = map(float, done.stdout.split())
    assert seconds == 7200
    assert size < 1e6
    assert grown < 30  # MiB


def test_what_is_no_audio_is_not_read_whole(tmp_path: Path) -> None:
    with open(tmp_path / "disk.img", "wb") as file:
        file.truncate(256 << 20)
    code = (
        "import resource, sys\n"
        "from speech_emotion_vit import AudioError\n"
        "from speech_emotion_vit.audio.reader import AudioReader\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "def refuse(source):\n"
        "    try: AudioReader(source)\n"
        "    except AudioError as error: return str(error)\n"
        "refuse(b'no audio')\n"
        "before = peak()\n"
        "message = refuse(sys.argv[1])\n"
        "print(peak() - before, message)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "disk.img")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    grown, message = done.stdout.split(maxsplit=1)
    assert "is not audio but zeros alone" in message
    assert float(grown) < 30  # MiB


def test_pyav_survives_a_change_of_layout_on_the_way() -> None:
    """Two streams of raw AAC after each other, mono and stereo, of different rates."""
    parts = b""
    for rate, layout in ((48_000, "mono"), (24_000, "stereo")):
        target = io.BytesIO()
        with av.open(target, "w", format="adts") as container:
            stream = container.add_stream("aac", rate=rate, layout=layout)
            channels = 1 if layout == "mono" else 2
            samples = np.repeat(tone(440, 0.5, rate)[None], channels, axis=0)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate = rate
            resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate, frame_size=1024)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
        parts += target.getvalue()
    samples, reader = read(parts)
    assert reader.duration == pytest.approx(1.0, abs=0.15)
    spectrum = np.abs(np.fft.rfft(samples[9600:14_400]))
    assert spectrum.argmax() * 16_000 / 4800 == pytest.approx(440, abs=8)


def test_the_example_clips_are_read_as_before() -> None:
    for clip in CLIPS:
        samples, reader = read(clip)
        assert np.array_equal(samples, soundfile.read(clip, dtype="float32")[0])
        assert not any(warning.startswith(("truncated", "damaged")) for warning in reader.warnings)
