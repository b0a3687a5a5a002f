"""Encoded audio for tests, made by FFmpeg through PyAV."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import av
import numpy as np

RATE = 48_000

# Container and codec, by a usual suffix.
FORMS = {
    "m4a": ("ipod", "aac"),
    "aac": ("adts", "aac"),
    "mka": ("matroska", "aac"),
    "ts": ("mpegts", "aac"),
    "ac3": ("ac3", "ac3"),
    "flac": ("flac", "flac"),
    "flv": ("flv", "aac"),
    "avi": ("avi", "aac"),
    "tta": ("tta", "tta"),
    "opus": ("ogg", "libopus"),
    "webm": ("webm", "libopus"),
    "mp4": ("mp4", "aac"),
    "wma": ("asf", "wmav2"),
    "wv": ("wv", "wavpack"),
}

Shift = Callable[[float], float]


def pieces(stream: Any, samples: np.ndarray, rate: int, shift: Shift | None = None) -> Iterator[Any]:
    """Yield the packets of mono samples; `shift` maps the time of a frame, in seconds, to the one it is given."""
    frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = rate, 0
    resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 1024)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        if shift is not None:
            part.pts = round(shift(part.pts / rate) * rate)
        yield from stream.encode(part)
    yield from stream.encode(None)


def encode(
    form: str,
    samples: np.ndarray | Sequence[np.ndarray],
    *,
    rate: int = RATE,
    shifts: Sequence[Shift | None] = (None,),
    pictures: float = 0.0,
    default: int | None = None,
    titles: Sequence[str] = (),
) -> bytes:
    """Return a file of one track, or of several.

    Args:
        form: a key of `FORMS`.
        samples: mono, of every track.
        rate: Hz.
        shifts: how the times of every track are changed.
        pictures: seconds of a film beside the sound.
        default: the track that is marked as such.
        titles: of the tracks.
    """
    container, codec = FORMS[form]
    several = [samples] if isinstance(samples, np.ndarray) else list(samples)
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        sources: list[Iterator[Any]] = []
        if pictures:
            film = output.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
            sources.append(_film(film, round(10 * pictures)))
        for number, each in enumerate(several):
            stream = output.add_stream(codec, rate=rate, layout="mono", bit_rate=64_000)
            if default is not None:
                stream.disposition = 1 if number == default else 0
            if number < len(titles):
                stream.metadata["title"] = titles[number]
            sources.append(pieces(stream, each, rate, shifts[number] if number < len(shifts) else None))
        for packet in sorted(
            (packet for source in sources for packet in source), key=lambda packet: (packet.dts or 0) * packet.time_base
        ):
            output.mux(packet)
    return target.getvalue()


def _film(stream: Any, count: int) -> Iterator[Any]:
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number % 256, np.uint8), format="rgb24")
        frame.pts = number
        yield from stream.encode(frame)
    yield from stream.encode(None)


def flipped(data: bytes, share: float, offset: int = 0) -> bytes:
    """Return the file with one byte changed, at a share of its length."""
    changed = bytearray(data)
    changed[int(len(data) * share) + offset] ^= 0xFF
    return bytes(changed)
