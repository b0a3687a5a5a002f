from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_files import pieces
from helpers import CLIPS, encoded, tone
from speech_emotion_vit import AudioError
from speech_emotion_vit.audio.decode import EncodedAudio
from speech_emotion_vit.audio.reader import AudioReader, describe, windows

TONE = tone(440, 1.0)


def read(source: Any, **options: Any) -> tuple[np.ndarray, AudioReader]:
    reader = AudioReader(source, **options)
    return np.concatenate(list(reader)), reader


@pytest.mark.parametrize(
    ("form", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "FLOAT", 1e-7),
        ("WAV", "DOUBLE", 1e-7),
        ("WAV", "ULAW", 2e-2),
        ("FLAC", "PCM_16", 1e-4),
        ("AIFF", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 5e-2),
        ("OGG", "OPUS", 5e-2),
        ("MP3", "MPEG_LAYER_III", 5e-2),
        ("CAF", "PCM_16", 1e-4),
    ],
)
def test_every_container_is_read_from_a_path_from_bytes_and_from_a_file(
    tmp_path: Path, form: str, subtype: str, tolerance: float
) -> None:
    path = tmp_path / f"clip.{form.lower()}"
    soundfile.write(path, TONE, 16_000, format=form, subtype=subtype)
    samples, reader = read(path)
    middle = slice(4000, 12_000)
    assert np.abs(samples[middle] - TONE[middle]).max() < tolerance
    assert reader.duration == pytest.approx(1.0, abs=0.15)
    assert reader.warnings == ()
    for source in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        assert np.array_equal(read(source)[0], samples)
    with path.open("rb") as file:
        assert np.array_equal(read(file)[0], samples)


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "FLAC", "AIFF", "AU", "CAF", "W64", "RF64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_16_bits_become_the_floats_that_libsndfile_makes_of_them(form: str, channels: int) -> None:
    samples = np.random.default_rng(0).integers(-32_768, 32_768, (150_001, channels), dtype=np.int16)
    samples[:2] = [[-32_768], [32_767]]
    data = encoded(samples, format=form)
    blocks = np.concatenate(list(EncodedAudio(data, "clip")))
    assert blocks.dtype == np.float32
    assert np.array_equal(blocks, soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0])


def encoded_by_pyav(path: Path, codec: str, samples: np.ndarray) -> bytes:
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(format=stream.format, rate=48_000, frame_size=stream.frame_size or 960)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path.read_bytes()


BY_PYAV = pytest.mark.parametrize(("suffix", "codec"), [("m4a", "aac"), ("webm", "libopus"), ("mka", "aac")])


@BY_PYAV
def test_pyav_reads_what_soundfile_cannot(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    encoded_by_pyav(path, codec, tone(440, 1.0, 48_000))
    for source in (path, path.read_bytes()):
        decoded, reader = read(source)
        assert reader.rate == 48_000
        assert reader.duration == pytest.approx(1.0, abs=0.05)
        assert reader.warnings == ()
        spectrum = np.abs(np.fft.rfft(decoded[4000:12_000]))
        assert spectrum.argmax() * 2 == pytest.approx(440, abs=2)


@BY_PYAV
def test_what_pyav_reads_of_a_truncated_file_has_a_warning(tmp_path: Path, suffix: str, codec: str) -> None:
    noise = np.random.default_rng(0).standard_normal(4 * 48_000).astype(np.float32) * 0.1
    data = encoded_by_pyav(tmp_path / f"clip.{suffix}", codec, noise)
    samples, reader = read(data[: len(data) // 2])
    assert 10_000 < len(samples) < 40_000
    (warning,) = reader.warnings
    assert warning.startswith(("truncated: ", "damaged after "))


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 384_000])
def test_resampling_keeps_the_tone_and_the_length(rate: int) -> None:
    samples, reader = read(tone(440, 1.0, rate), sampling_rate=rate)
    assert len(samples) == pytest.approx(16_000, abs=2)
    middle = slice(2000, 14_000)
    assert np.abs(samples[middle] - TONE[middle]).max() < 2e-3
    assert reader.warnings == ((f"upsampled from {rate} Hz",) if rate < 16_000 else ())


def test_resampling_in_blocks_is_resampling_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = np.random.default_rng(0).standard_normal(100_000).astype(np.float32) * 0.1
    whole, _ = read(waveform, sampling_rate=44_100)
    monkeypatch.setattr("speech_emotion_vit.audio.reader.BLOCK_VALUES", 1000)
    pieces, _ = read(waveform, sampling_rate=44_100)
    assert np.abs(whole - pieces).max() < 1e-6


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.float64),
        lambda x: (x * 32_767).astype(np.int16),
        lambda x: (x.astype(np.float64) * (2**31 - 1)).astype(np.int32),
        lambda x: torch.from_numpy(x),
        lambda x: torch.from_numpy(x).double().requires_grad_(),
        lambda x: torch.from_numpy(np.stack((x, x))),
        lambda x: np.stack((1.5 * x, 0.5 * x)),
        lambda x: x[::-1][::-1],
    ],
    ids=["float64", "int16", "int32", "tensor", "gradient", "stereo tensor", "stereo", "strided"],
)
def test_arrays_and_tensors_of_any_kind_are_the_same_audio(convert: Callable[[np.ndarray], Any]) -> None:
    samples, _ = read(convert(TONE), sampling_rate=16_000)
    assert np.abs(samples - TONE).max() < 1e-4


def test_unsigned_and_signed_bytes_are_pcm() -> None:
    for array in ((TONE * 127 + 128).astype(np.uint8), (TONE * 127).astype(np.int8)):
        samples, _ = read(array, sampling_rate=16_000)
        assert np.abs(samples - TONE).max() < 2e-2


def test_half_precision_tensors() -> None:
    for kind in (torch.float16, torch.bfloat16):
        assert np.abs(read(torch.from_numpy(TONE).to(kind), sampling_rate=16_000)[0] - TONE).max() < 5e-3


def test_channels_of_a_file_are_averaged() -> None:
    samples, _ = read(encoded(np.stack((TONE, np.zeros_like(TONE), TONE, np.zeros_like(TONE)), axis=1)))
    assert np.abs(samples - TONE / 2).max() < 1e-4


@pytest.mark.parametrize(
    ("samples", "warning"),
    [
        (0.1 * TONE + 0.25, "constant offset of 0.25 removed"),
        (np.clip(8 * TONE, -1, 1), "clipped (83.5% of samples)"),
        (TONE[:2000], "shorter than 0.3 s"),
    ],
    ids=["offset", "clipped", "short"],
)
def test_doubtful_audio_is_read_with_a_warning(samples: np.ndarray, warning: str) -> None:
    assert read(samples, sampling_rate=16_000)[1].warnings == (warning,)


@pytest.mark.parametrize("form", ["WAV", "AIFF", "FLAC", "AU", "RF64", "W64", "OGG VORBIS", "OGG OPUS"])
def test_a_truncated_file_is_read_with_a_warning(form: str) -> None:
    noise = np.random.default_rng(0).standard_normal(64_000) * 0.1
    data = encoded(noise, **dict(zip(("format", "subtype"), form.split(), strict=False)))
    samples, reader = read(data[: len(data) // 2])
    assert 10_000 < len(samples) < 40_000
    (warning,) = reader.warnings
    assert warning.startswith(("truncated: ", "truncated after ", "damaged after "))
    if warning.startswith("truncated:"):
        assert warning.endswith(" of 4.00 s could be read")
    assert read(data[:-3])[1].warnings
    assert read(data)[1].warnings == ()


def test_a_wav_from_a_streaming_writer_is_not_called_truncated() -> None:
    data = bytearray(encoded(TONE))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    samples, reader = read(bytes(data))
    assert len(samples) == 16_000
    assert reader.warnings == ()


def mp3(samples: np.ndarray, bit_rate: int = 32_000, **options: str) -> bytes:
    """Return an MP3 with nothing before its frames, or with the options of FFmpeg."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0", **options}) as container:
        stream = container.add_stream("libmp3lame", rate=16_000, layout="mono")
        stream.bit_rate = bit_rate
        for start in range(0, len(samples), 576):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 576], format="fltp", layout="mono")
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def id3(content: bytes) -> bytes:
    return b"ID3\x04\0\0" + bytes(len(content) >> shift & 127 for shift in (21, 14, 7, 0)) + content


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


SPEECH = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * 0.1
NOISE = np.random.default_rng(1).bytes(100_000)  # a picture of a cover


def test_an_mp3_that_does_not_say_its_length_is_not_called_truncated() -> None:
    """libsndfile guesses it from the size of the file, with tags, and from the first frame."""
    rising = mp3(SPEECH, 24_000) + mp3(np.tile(SPEECH, 6), 128_000)
    for data, seconds in ((mp3(SPEECH), 2.0), (id3(NOISE) + mp3(SPEECH), 2.0), (rising, 14.0)):
        reader = read(data)[1]
        assert reader.duration == pytest.approx(seconds, abs=0.3)
        assert reader.warnings == ()


@pytest.mark.parametrize("tag", [b"", id3(NOISE)], ids=["plain", "cover"])
def test_an_mp3_that_says_its_length_is_truncated_where_less_is_there(tag: bytes) -> None:
    for data in (mp3(SPEECH, write_xing="1"), encoded(SPEECH, format="MP3", subtype="MPEG_LAYER_III")):
        assert read(tag + data)[1].warnings == ()
        (warning,) = read(tag + data[: len(data) // 2])[1].warnings
        assert warning.startswith("truncated: ")
        assert warning.endswith(" of 2.00 s could be read")


def stale(form: str, frames: int) -> bytes:
    """Return audio of 12 s whose header announces less."""
    data = bytearray(encoded(np.tile(SPEECH, 6), format=form))
    if form == "FLAC":
        data[21:26] = bytes([data[21] & 0xF0]) + struct.pack(">I", frames)
    else:
        place = data.index(b"data") + 4
        data[place : place + 4] = struct.pack("<I", 2 * frames)
    return bytes(data)


def joined(form: str, subtype: str) -> bytes:
    return b"".join(encoded(part, format=form, subtype=subtype) for part in (SPEECH, np.tile(SPEECH, 5)))


@pytest.mark.parametrize(
    "data",
    [
        joined("MP3", "MPEG_LAYER_III"),
        joined("MP3", "MPEG_LAYER_III") + b"TAG" + bytes(125),
        mp3(SPEECH, 128_000) + mp3(np.tile(SPEECH, 5), 24_000),
        joined("OGG", "VORBIS"),
        joined("OGG", "OPUS"),
        joined("FLAC", "PCM_16"),
        stale("FLAC", 32_000),
        stale("WAV", 32_000),
        stale("WAVEX", 32_000),
        stale("WAV", 32_000) + chunk(b"LIST", b"INFO" + NOISE),
    ],
    ids=[
        "mp3",
        "mp3 tag",
        "vbr",
        "vorbis",
        "opus",
        "flac",
        "stale flac",
        "stale wav",
        "stale wavex",
        "stale wav tag",
    ],
)
def test_audio_beyond_what_the_header_announces_has_a_warning(data: bytes) -> None:
    for source in (data, Pipe(data)):
        reader = read(source)[1]
        assert 1.9 < reader.duration < 4
        assert [warning.split(":")[0] for warning in reader.warnings] == ["incomplete"]
        assert f"{reader.duration:.2f} s were read" in reader.warnings[0]
        assert "convert the file with ffmpeg" in reader.warnings[0]


# What ffmpeg, sox, ALSA, GStreamer and speech services write into a pipe, and what a crash leaves.
UNKNOWN = [0, 0x7EFF_FFF0, 0x7F00_0000, 0x7FFF_F000, 0x7FFF_FF00, 0x7FFF_FFDB, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]


@pytest.mark.parametrize("whole", [None, 0, 8, 36, 0x7FFF_F024, 0xFFFF_FFFF])
@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RIFX", "AIFF", "AU"])
def test_a_size_that_was_never_written_is_no_fault(form: str, whole: int | None) -> None:
    order = ">" if form in ("RIFX", "AIFF", "AU") else "<"
    options = {"format": "WAV", "endian": "BIG"} if form == "RIFX" else {"format": form}
    data = bytearray(encoded(SPEECH, **options))
    place = {"AU": 8, "AIFF": data.find(b"SSND") + 4}.get(form, data.find(b"data") + 4)
    if whole is not None and form != "AU":
        data[4:8] = struct.pack(order + "I", whole)
    for size in [*UNKNOWN, 8] if form == "AIFF" else UNKNOWN:
        data[place : place + 4] = struct.pack(order + "I", size)
        for source in (bytes(data), Pipe(bytes(data))):
            samples, reader = read(source)
            assert np.abs(samples - SPEECH).max() < 1e-4, hex(size)
            assert reader.warnings == ()


def test_a_large_wav_whose_size_was_never_written() -> None:
    data = bytearray(encoded(SPEECH, format="RF64"))
    place = data.index(b"ds64") + 8
    data[place : place + 24] = bytes(24)
    samples, reader = read(bytes(data))
    assert len(samples) == len(SPEECH)
    assert reader.warnings == ()


def test_a_wav_that_holds_nothing_is_still_empty() -> None:
    for trailer in (b"", chunk(b"LIST", b"INFO" + NOISE), chunk(b"LIST", b"INFO") + chunk(b"id3 ", NOISE)):
        with pytest.raises(AudioError, match="no samples"):
            read(encoded(SPEECH[:0]) + trailer)


@pytest.mark.parametrize("codec", ["libmp3lame", "mp2"])
@pytest.mark.parametrize("seconds", [0.5, 1.37, 2.0])
def test_an_mp3_in_a_wav_is_not_called_truncated(codec: str, seconds: float) -> None:
    target = io.BytesIO()
    with av.open(target, "w", format="wav") as container:
        stream = container.add_stream(codec, rate=16_000, layout="mono", bit_rate=32_000)
        for packet in pieces(stream, SPEECH[: round(16_000 * seconds)], 16_000):
            container.mux(packet)
    reader = read(target.getvalue())[1]
    assert reader.duration == pytest.approx(seconds, abs=0.2)
    assert reader.warnings == ()
    cut = read(target.getvalue()[: len(target.getvalue()) // 2])[1]
    assert cut.duration == pytest.approx(seconds / 2, abs=0.2)


@pytest.mark.parametrize("form", ["wav", "w64", "aiff", "au", "caf", "flac", "ogg", "mp3", "avi", "webm", "mp4", "tta"])
def test_what_ffmpeg_writes_into_a_pipe_is_whole(form: str) -> None:
    class Sink(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, content: Any) -> int:
            self.data += bytes(content)
            return len(content)

    codec = {"flac": "flac", "ogg": "libopus", "mp3": "libmp3lame", "avi": "mp2", "webm": "libopus", "mp4": "aac"}
    codec |= {"tta": "tta", "aiff": "pcm_s16be", "au": "pcm_s16be"}
    sink = Sink()
    options = {"movflags": "frag_keyframe+empty_moov"} if form == "mp4" else {}
    with av.open(sink, "w", format=form, options=options) as container:
        stream = container.add_stream(codec.get(form, "pcm_s16le"), rate=16_000, layout="mono")
        for packet in pieces(stream, SPEECH, 16_000):
            container.mux(packet)
    reader = read(sink.data)[1]
    assert reader.duration == pytest.approx(2.0, abs=0.15)
    assert reader.warnings == ()


TRAILERS = {
    "none": b"",
    "ID3v1": b"TAG" + bytes(125),
    "APEv2": b"APETAGEX" + struct.pack("<IIII", 2000, len(NOISE) + 32, 1, 0xA000_0000) + bytes(8) + NOISE,
    "ID3v2": id3(NOISE),
    "zeros": bytes(100_000),
}


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64", "AIFF", "AU", "FLAC", "MP3", "OGG VORBIS", "OGG OPUS"])
def test_tags_and_padding_after_the_samples_are_no_audio(form: str, trailer: str) -> None:
    options = dict(zip(("format", "subtype"), form.split(), strict=False))
    data = mp3(SPEECH, write_xing="1") if form == "MP3" else encoded(SPEECH, **options)
    if form.startswith("OGG"):  # only the last 64 KiB are searched for the last page
        data += TRAILERS[trailer][:1000]
    else:
        data += TRAILERS[trailer]
    assert read(data)[1].warnings == ()


@pytest.mark.parametrize("length", [32_000, 31_999])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "IMA_ADPCM", "MS_ADPCM", "GSM610", "ULAW"])
def test_chunks_after_the_samples_are_no_audio(subtype: str, length: int) -> None:
    chunks = chunk(b"LIST", b"INFO" + NOISE) + chunk(b"id3 ", id3(NOISE)) + chunk(b"_PMX", NOISE)
    data = encoded(SPEECH[:length], subtype=subtype)
    for trailer in (chunks, chunks + bytes(3000), chunks[:-50_000]):
        assert read(data + trailer)[1].warnings == ()


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_clipping_is_found_at_the_highest_level_of_every_coding(subtype: str) -> None:
    (warning,) = read(encoded(np.clip(8 * TONE, -1, 1), subtype=subtype))[1].warnings
    assert warning.startswith("clipped (8")
    assert read(encoded(TONE * (0.93 / np.abs(TONE).max()), subtype=subtype))[1].warnings == ()
    if subtype in ("ULAW", "ALAW", "PCM_U8"):  # half of which is the positive one
        offset, warning = read(encoded(np.clip(8 * TONE, 0, 1), subtype=subtype))[1].warnings
        assert offset.startswith("constant offset of")
        assert warning.startswith("clipped (4")


def test_clipping_of_g711_is_found_by_pyav(tmp_path: Path) -> None:
    path = tmp_path / "call.mka"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_mulaw", rate=16_000, layout="mono")
        clipped = (np.clip(8 * TONE, -1, 1) * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(clipped[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert read(path)[1].warnings[0].startswith("clipped (8")


def test_warnings_of_what_came_before_a_bad_sample_are_kept() -> None:
    samples = np.clip(8 * tone(440, 6.0, 8000), -1, 1)
    samples[-10] = np.nan
    for source, options in ((samples, {"sampling_rate": 8000}), (encoded(samples, 8000, subtype="FLOAT"), {})):
        reader = AudioReader(source, **options)
        with pytest.raises(AudioError, match="sample 47990 is NaN"):
            list(reader)
        assert [warning.split()[0] for warning in reader.warnings] == ["clipped", "upsampled"]


def test_a_header_that_announces_gigabytes_costs_no_memory() -> None:
    data = bytearray(encoded(TONE))
    data[40:44] = struct.pack("<I", 0xF000_0000)
    samples, reader = read(bytes(data))
    assert len(samples) == 16_000
    assert reader.warnings[0].startswith("truncated: 1.00 of ")


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    def file(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    os.mkfifo(folder / "fifo.wav")
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    (folder / "dangling.wav").symlink_to(folder / "nowhere.wav")
    rate = bytearray(encoded(TONE))
    rate[24:28] = struct.pack("<I", 1_000_000)
    return {
        "missing": (folder / "no.wav", "no such file"),
        "dangling": (folder / "dangling.wav", "no such file"),
        "loop": (folder / "loop.wav", "cannot be opened"),
        "folder": (folder, "is a directory"),
        "fifo": (folder / "fifo.wav", "not a regular file"),
        "device": (Path("/dev/zero"), "not a regular file"),
        "empty": (file("empty.wav", b""), "the file is empty"),
        "text": (file("text.wav", b"these are words\n" * 100), "is not audio but text"),
        "header": (file("header.wav", encoded(TONE)[:20]), "is not audio that can be read"),
        "nothing": (file("nothing.wav", encoded(TONE[:0])), "no samples"),
        "rate": (file("rate.wav", bytes(rate)), "1000000 Hz is out of range: 4000 to 384000 Hz"),
        "null": (Path("a\0b.wav"), "cannot be opened"),
    }


BAD = ["missing", "dangling", "loop", "folder", "fifo", "device", "empty", "text", "header", "nothing", "rate", "null"]


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line_with_path_and_fault(tmp_path: Path, kind: str) -> None:
    path, message = bad_files(tmp_path)[kind]
    with pytest.raises(AudioError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(describe(path))
    assert "\n" not in str(caught.value)


def test_every_bad_file_above_is_tried(tmp_path: Path) -> None:
    assert list(bad_files(tmp_path)) == BAD


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_values_that_are_no_samples_are_named(value: float) -> None:
    samples = TONE.copy()
    samples[1234] = value
    with pytest.raises(AudioError, match=r"sample 1234 is (NaN|infinite|1e\+30, beyond any PCM format)"):
        read(samples, sampling_rate=16_000)
    with pytest.raises(AudioError, match="sample 1234 is"):
        read(encoded(samples, subtype="FLOAT"))


@pytest.mark.parametrize(
    ("source", "rate", "message"),
    [
        (TONE, None, "pass sampling_rate= in Hz"),
        (torch.from_numpy(TONE), None, "pass sampling_rate= in Hz"),
        (TONE, 3999, "3999 Hz is out of range: 4000 to 384000 Hz"),
        (TONE, 384_001, "out of range"),
        (TONE, 16_000.5, "whole number of Hz"),
        (TONE, "16k", "whole number of Hz"),
        (TONE, float("nan"), "whole number of Hz"),
        (TONE[:0], 16_000, "samples > 0"),
        (TONE.reshape(10, 10, -1), 16_000, r"shape must be \[samples\]"),
        (TONE.reshape(100, -1), 16_000, r"100 channels: if every row is a clip, call predict_batch\(list\(array\)\)"),
        (TONE > 0, 16_000, "cannot take an array of bool"),
        (TONE.astype(np.complex64), 16_000, "cannot take an array of complex64"),
        (TONE.astype(np.int64), 16_000, "cannot take an array of int64"),
        (torch.zeros(16_000, dtype=torch.int64), 16_000, "cannot take a tensor of torch.int64"),
        (CLIPS[0], 16_000, "files carry their own rate"),
        (encoded(TONE), 16_000, "files carry their own rate"),
        (b"", None, "is not audio but empty"),
        (3.5, None, "cannot read audio from float"),
        (io.StringIO("text"), None, "mode 'rb'"),
    ],
)
def test_bad_arguments_say_the_remedy(source: Any, rate: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        read(source, sampling_rate=rate)


def test_a_name_that_is_not_utf8_and_a_name_that_lies(tmp_path: Path) -> None:
    for name in (os.fsdecode(b"caf\xe9.wav"), "clip.mp3", "clip.raw", "clip"):
        path = tmp_path / name
        path.write_bytes(encoded(TONE))
        assert len(read(path)[0]) == 16_000
    describe(tmp_path / os.fsdecode(b"caf\xe9.wav")).encode("utf-8")


class Pipe(io.RawIOBase):
    """A stream without seek."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self.data.read(size)


def test_a_stream_that_cannot_seek() -> None:
    assert len(read(Pipe(encoded(TONE)))[0]) == 16_000


@given(length=st.integers(1, 400), size=st.integers(1, 100), hop=st.integers(1, 100), block=st.integers(1, 150))
@settings(max_examples=200, deadline=None)
def test_windows_cover_everything_once_in_order(length: int, size: int, hop: int, block: int) -> None:
    hop = min(hop, size)
    samples = np.arange(length, dtype=np.float32)
    cut = list(windows((samples[i : i + block] for i in range(0, length, block)), size, hop))
    starts = [0] if length <= size else [*range(0, length - size, hop), length - size]
    assert [int(window[0]) for window in cut] == starts
    assert all(np.array_equal(w, samples[s : s + size]) for w, s in zip(cut, starts, strict=True))


def test_integers_are_shares_of_their_lowest_value() -> None:
    """Exactly: 128 is silence among 8 bits, and only the lowest value is full scale."""
    for kind, silence in (("uint8", 128), ("int8", 0), ("int16", 0), ("int32", 0)):
        lowest, highest = np.iinfo(kind).min, np.iinfo(kind).max
        values = np.array([lowest, silence, highest], kind)
        full = silence - lowest
        heard = np.concatenate(list(AudioReader(np.resize(values, 300), sampling_rate=16_000)))
        np.testing.assert_array_equal(heard[:3], np.array([-1, 0, (highest - silence) / full], np.float32))
