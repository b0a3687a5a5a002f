"""Inputs that nobody should send: every container, damaged in every way, the same for the same seed and number."""

from __future__ import annotations

import functools
import io
import random
import struct
from typing import Any

import av
import numpy as np
import soundfile

AV_CODECS = {"m4a": "aac", "aac": "aac", "mp4": "aac", "webm": "libopus", "mka": "aac", "wma": "wmav2", "3gp": "aac"}
INTERESTING = (0, 1, 2, 3, 4, 6, 16, 64, 255, 256, 1024, 4000, 16_000, 384_000, 1_000_000, 0x7F, 0x80, 0x7FFF, 0x8000)
INTERESTING += (0xFFFF, 0x10000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xF000_0000, 1 << 40, (1 << 63) - 1, 1 << 63)
FLOATS = (float("nan"), float("inf"), float("-inf"), 1e-40, 5e-324, 1e30, 3.4e38, 1.7e308, -0.0)
LENGTHS = (1, 7, 160, 1600, 4800)  # samples


class Pipe(io.RawIOBase):
    """A stream without seek, as a socket or a pipe is one."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self.data.readinto(buffer)


@functools.lru_cache
def seeds() -> list[tuple[str, bytes]]:
    """One small good file of every container, encoding and a few shapes: [(suffix, content)]."""
    rng = np.random.default_rng(0)
    found = []
    for form in soundfile.available_formats():
        if form in ("RAW", "SD2"):  # one has no header, the other's is a second file, "._" in the working folder
            continue
        for number, subtype in enumerate(soundfile.available_subtypes(form)):
            channels = 1 + number % 2
            samples = 0.3 * rng.standard_normal((LENGTHS[number % len(LENGTHS)], channels))
            for rate in (16_000, 48_000):
                buffer = io.BytesIO()
                try:
                    soundfile.write(buffer, np.clip(samples, -1, 1), rate, format=form, subtype=subtype)
                except (soundfile.SoundFileError, ValueError):
                    continue  # a pair that the library lists and cannot write
                if len(buffer.getvalue()) > 16:
                    found.append((form.lower(), buffer.getvalue()))
                break
    for channels in (6, 64):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.zeros((100, channels)), 384_000, format="WAV", subtype="FLOAT")
        found.append(("wav", buffer.getvalue()))
    return found + [(suffix, _encode_av(suffix, codec)) for suffix, codec in AV_CODECS.items()]


def _encode_av(suffix: str, codec: str) -> bytes:
    samples = (0.3 * np.random.default_rng(0).standard_normal((1, 9600))).astype(np.float32)
    target = io.BytesIO()
    form = {"m4a": "ipod", "aac": "adts", "mka": "matroska", "wma": "asf"}.get(suffix, suffix)
    with av.open(target, "w", format=form) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        stream.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=48_000, frame_size=stream.frame_size or 960
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return target.getvalue()


def make(seed: int, number: int) -> tuple[str, bytes]:
    """Return suffix and content of input `number`."""
    rng = random.Random(f"{seed}:{number}")
    suffix, content = rng.choice(seeds())
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 4))):
        rng.choice(_MUTATIONS)(rng, data)
    if rng.random() < 0.1:
        suffix = rng.choice(["wav", "mp3", "raw", "flac", "m4a", "webm", "txt", "ogg"])
    return suffix, bytes(data[: 1 << 18])


def _place(rng: random.Random, data: bytearray) -> int:
    """Return a place, half of the time in the first bytes, where headers are."""
    return rng.randrange(max(1, min(len(data), rng.choice((48, 200, 1 << 30, 1 << 30)))))


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[_place(rng, data) :]


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 4, 32))):
        if data:
            data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 4, 64))):
        if data:
            data[_place(rng, data)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _number(rng: random.Random, data: bytearray) -> None:
    size, order = rng.choice((2, 4, 4, 8)), rng.choice(("little", "big"))
    value = (rng.choice(INTERESTING) + rng.choice((0, 0, -1, 1))) % (1 << 8 * size)
    place = _place(rng, data) & rng.choice((~0, ~1, ~3))
    data[place : place + size] = value.to_bytes(size, order)


def _float(rng: random.Random, data: bytearray) -> None:
    code = rng.choice(("<f", ">f", "<d", ">d"))
    piece = struct.pack(code, min(rng.choice(FLOATS), 3.4e38) if code[1] == "f" else rng.choice(FLOATS))
    piece *= rng.choice((1, 1, 100))
    place = len(data) - len(piece) * rng.randrange(1, 4)
    if place > 0:
        data[place : place + len(piece)] = piece


def _delete(rng: random.Random, data: bytearray) -> None:
    place = _place(rng, data)
    del data[place : place + rng.choice((1, 2, 4, 8, 100, 2000))]


def _repeat(rng: random.Random, data: bytearray) -> None:
    place, size = _place(rng, data), rng.choice((1, 4, 8, 24, 500))
    data[place:place] = data[place : place + size] * rng.choice((1, 1, 2, 50))


def _insert(rng: random.Random, data: bytearray) -> None:
    place = _place(rng, data)
    data[place:place] = rng.randbytes(rng.choice((1, 4, 8, 128)))


def _splice(rng: random.Random, data: bytearray) -> None:
    _, other = rng.choice(seeds())
    data[_place(rng, data) :] = other[rng.randrange(len(other)) :]


def _wrap(rng: random.Random, data: bytearray) -> None:
    """Junk or a tag in front, as MP3s have it, or behind."""
    tag = b"ID3\x04\0\0" + bytes(rng.choice((0, 0, 1, 127)) for _ in range(4))
    data[0:0] = rng.choice((tag + bytes(rng.randrange(200)), rng.randbytes(rng.randrange(2000)), b"\0" * 512, b"RIFF"))
    data += rng.choice((b"", b"TAG" + bytes(125), rng.randbytes(100)))


def _shuffle(rng: random.Random, data: bytearray) -> None:
    size = rng.choice((4, 27, 64, 1000))
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    rng.shuffle(pieces)
    data[:] = b"".join(pieces)


def _nothing(rng: random.Random, data: bytearray) -> None:
    data[:] = rng.randbytes(rng.choice((0, 1, 12, 44, 5000)))


_MUTATIONS = [_cut, _flip, _flip, _overwrite, _number, _number, _number, _float, _delete, _repeat, _insert, _splice]
_MUTATIONS += [_wrap, _shuffle, _nothing]
