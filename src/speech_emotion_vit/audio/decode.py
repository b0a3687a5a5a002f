"""Encoded audio: what libsndfile or FFmpeg knows, as blocks of float32. Nothing in it is trusted.

Memory is bounded by the block, not by the length a header announces, and a file reaches nothing beyond itself: no other
file, no network.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from ..errors import AudioError, one_line
from ..files import open_regular
from .containers import Container

BLOCK_VALUES = 1 << 18  # values (frames x channels) decoded at a time, 1 MiB of float32
_LARGEST_READ = 8 * BLOCK_VALUES  # bytes, what a block of the widest samples takes
SPOOL_BYTES = 1 << 24  # of a stream that cannot seek are kept in memory, the rest in a temporary file
MAX_STREAM_BYTES = 1 << 31  # of such a stream are read at all: 18 hours of 16-bit mono at 16 kHz

# FFmpeg also reads lists of other files and addresses on the network: these demuxers read one file alone.
_AV_DEMUXERS = (
    *("aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "eac3", "flac", "flv", "matroska,webm"),
    *("mov,mp4,m4a,3gp,3g2,mj2", "mp3", "mpegts", "ogg", "tta", "w64", "wav", "wv"),
)
_AV_OPTIONS = {"format_whitelist": ",".join(_AV_DEMUXERS), "protocol_whitelist": ""}
_AV_SLACK = 0.25  # seconds that encoders add at the start and the end
AV_SUFFIXES = frozenset(
    f".{name}" for name in ("m4a", "m4b", "aac", "mp4", "webm", "wma", "mka", "mkv", "3gp", "amr", "ac3", "ape", "wv")
)
"""Of files that need PyAV."""

_FULL_SCALE = {"ULAW": 32_124 / 32_768, "ALAW": 32_256 / 32_768, "PCM_U8": 127 / 128, "PCM_S8": 127 / 128}
_AV_CODECS = {"pcm_mulaw": "ULAW", "pcm_alaw": "ALAW", "pcm_u8": "PCM_U8", "pcm_s8": "PCM_S8"}

Block = npt.NDArray[np.float32]


class EncodedAudio:
    """An encoded recording, opened: iterate once for its blocks `[frames, channels]` of float32.

    Args:
        source: a path, bytes, or a binary file object.
        name: what messages call it.

    Raises:
        AudioError: it is not audio or cannot be opened. Iterating raises the same where reading fails.
    """

    rate: int
    """Hz, as the header says."""

    full_scale: float = 1.0
    """The level at which it is clipped: the highest that its coding has."""

    def __init__(self, source: Any, name: str) -> None:
        self.name = name
        self.fault: str | None = None  # why less came out than was announced; known at the end
        self._stack = contextlib.ExitStack()
        weakref.finalize(self, self._stack.close)
        try:
            self._file = _Calm(self._binary(source))
            self.rate, self._blocks = self._open(source)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Block]:
        try:
            yield from self._blocks()
        finally:
            self.close()

    def close(self) -> None:
        """Close what was opened here, but not the caller's file object."""
        self._stack.close()

    def _binary(self, source: Any) -> Any:
        """Return a file object that can seek."""
        if isinstance(source, (str, os.PathLike)):
            try:
                file = self._stack.enter_context(open_regular(source))
                empty = not file.peek(1)
            except FileNotFoundError as error:
                raise AudioError(f"{self.name}: no such file: check the path") from error
            except (OSError, ValueError) as error:
                raise AudioError(f"{self.name}: cannot be opened: {one_line(error)}") from error
            if empty:
                raise AudioError(f"{self.name}: the file is empty")
            return file
        if isinstance(source, (bytes, bytearray, memoryview)):
            return io.BytesIO(bytes(source))
        if not hasattr(source, "read"):
            raise AudioError(
                f"{self.name}: cannot read audio from {type(source).__name__}: pass a path, bytes, "
                "a binary file object, an array or a tensor"
            )
        try:
            if isinstance(source.read(0), str):
                raise AudioError(f"{self.name}: is open as text: open it with mode 'rb'")
            seekable = source.seekable() if hasattr(source, "seekable") else hasattr(source, "seek")
            return source if seekable else self._spooled(source)
        except AudioError:
            raise
        except Exception as error:  # whatever the caller's object does
            raise AudioError(f"{self.name}: cannot be read: {one_line(error)}") from error

    def _spooled(self, source: Any) -> Any:
        spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115, the stack closes it
        self._stack.enter_context(spool)
        read = 0
        while piece := source.read(1 << 16):
            read += spool.write(piece)
            if read > MAX_STREAM_BYTES:
                raise AudioError(
                    f"{self.name}: more than {MAX_STREAM_BYTES >> 20} MiB in a stream that cannot seek: "
                    "write it to a file and pass the path"
                )
        spool.seek(0)
        return spool

    def _open(self, source: Any) -> tuple[int, Any]:
        try:
            sound = self._stack.enter_context(_Sequential(self._file))
        except (soundfile.SoundFileError, TypeError, ValueError) as error:
            self._file.check(self.name)
            opened = self._open_with_av()
            self._file.check(self.name)
            if opened is None:
                raise AudioError(f"{self.name}: {_reason(error, source)}") from error
            return opened
        self.full_scale = _FULL_SCALE.get(sound.subtype, 1.0)
        return sound.samplerate, lambda: self._soundfile_blocks(sound)

    def _soundfile_blocks(self, sound: _Sequential) -> Iterator[Block]:
        place = self._file.tell()
        container = Container(self._file, sound.format, sound.frames)
        self._file.seek(place)
        step = max(1, min(BLOCK_VALUES // sound.channels, sound.frames))
        # libsndfile turns integers to floats in pieces of 8 KiB, each a call back to Python, but reads 16 bits at once.
        kind: type[np.generic] = np.int16 if sound.subtype == "PCM_16" else np.float32
        done = 0
        while self.fault is None and done < sound.frames:  # beyond, libsndfile gives nothing, whatever is there
            block = np.zeros((step, sound.channels), kind)
            before, self._file.ended = self._file.filled, False
            try:
                block = sound.read(out=block)
            except soundfile.SoundFileError as error:
                block = block[: max(0, sound.tell() - done)]  # what was decoded before the damage is good
                self.fault = f"damaged after {(done + len(block)) / sound.samplerate:.2f} s: {one_line(error)}"
            self._file.check(self.name)
            invented = len(block) == step and self._file.ended and self._file.filled == before
            if invented or not len(block):  # some decoders go on after the end, for as long as the header claims
                break
            done += len(block)
            yield block if kind is np.float32 else block * np.float32(2.0**-15)
        announced = container.frames
        if self.fault is None and announced is not None and done < announced:
            self.fault = (
                f"truncated: {done / sound.samplerate:.2f} of {announced / sound.samplerate:.2f} s could be read"
            )
        if self.fault is None and container.has_more(self._file.tell()):
            how = "ffmpeg -ignore_length 1" if sound.format in ("WAV", "WAVEX") else "ffmpeg"
            self.fault = (
                f"incomplete: {done / sound.samplerate:.2f} s were read, for its header says that it ends there, "
                f"but more audio follows: convert the file with {how}"
            )
        if self.fault is None and container.is_cut_off():
            self.fault = f"truncated after {done / sound.samplerate:.2f} s: the last page of the Ogg stream is missing"

    def _open_with_av(self) -> tuple[int, Any] | None:
        """Open what libsndfile does not know with PyAV, where that extra is installed; None if it cannot either."""
        try:
            import av
        except ImportError:
            return None
        self._file.seek(0)
        try:
            container = self._stack.enter_context(
                av.open(self._file, mode="r", container_options=_AV_OPTIONS, metadata_errors="replace")
            )
        except (av.FFmpegError, OSError, ValueError):
            return None
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
        if not streams or not streams[0].rate:
            return None
        self.full_scale = _FULL_SCALE.get(_AV_CODECS.get(streams[0].codec_context.name, ""), 1.0)
        return streams[0].rate, lambda: self._av_blocks(container, streams[0])

    def _av_blocks(self, container: Any, stream: Any) -> Iterator[Block]:
        import av

        done, rate = 0, stream.rate
        layout: tuple[Any, ...] = ()
        try:
            for frame in container.decode(stream):
                self._file.check(self.name)
                if layout != (frame.format.name, frame.layout.name, frame.sample_rate):  # may change on the way
                    layout = (frame.format.name, frame.layout.name, frame.sample_rate)
                    resampler = av.AudioResampler(format="flt", rate=rate)  # planes beyond 8 make PyAV crash
                for converted in resampler.resample(frame):
                    samples: Any = converted.to_ndarray()
                    block: Block = samples.reshape(-1, converted.layout.nb_channels)
                    done += len(block)
                    yield block
        except (av.FFmpegError, ValueError) as error:
            self.fault = f"damaged after {done / rate:.2f} s: {one_line(error)}"
        self._file.check(self.name)
        announced = _announced_seconds(container, stream)
        if self.fault is None and announced is not None and done / rate < announced - _AV_SLACK:
            self.fault = f"truncated: {done / rate:.2f} of {announced:.2f} s could be read"


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """Read from start to end, without the seek that soundfile otherwise adds to every read."""

    def seekable(self) -> bool:
        return False


class _Calm:
    """A binary file as decoders see it.

    They are written in C, through which no exception passes: it is kept for `check`. They also guess from names
    (``.raw`` is read as headerless data), so there is none.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._error: BaseException | None = None
        self._lost = False
        self.filled = 0  # bytes handed out
        self.ended = False  # the end has been met

    def read(self, size: int) -> bytes:
        size = min(size, _LARGEST_READ)  # libsndfile wants the whole of a file that it takes for a resource fork
        missing = size
        pieces: list[bytes] = []
        try:
            while missing > 0 and (piece := self._file.read(missing)):
                missing -= len(piece)
                pieces.append(bytes(piece))
        except BaseException as error:
            self._error = self._error or error
        data = b"".join(pieces)[:size]
        self.filled += len(data)
        self.ended = self.ended or not data
        return data

    def readinto(self, buffer: Any) -> int:
        """Do as `read`: without this method soundfile meets an AttributeError at every read."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            if whence == os.SEEK_CUR:  # files of different kinds disagree on places before the start
                offset, whence = self._file.tell() + offset, os.SEEK_SET
            self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):  # a misled decoder asks for impossible places
            self._lost = True
        except BaseException as error:
            self._error, self._lost = self._error or error, True
        return self.tell()

    def tell(self) -> int:
        if self._lost:
            self._lost = False
            return -1
        try:
            return int(self._file.tell())
        except BaseException as error:
            self._error = self._error or error
            return -1

    def check(self, name: str) -> None:
        """Raise what went wrong since the last call, if anything did."""
        error, self._error = self._error, None
        if isinstance(error, Exception):
            raise AudioError(f"{name}: cannot be read: {one_line(error)}") from error
        if error is not None:  # KeyboardInterrupt and the like
            raise error


def announced_seconds(path: str) -> float | None:
    """Return the length that a file says it has, to show how far one is; None where it does not say."""
    try:
        with open_regular(path) as file:
            return float(soundfile.info(_Calm(file)).duration)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError):
        return None


def _announced_seconds(container: Any, stream: Any) -> float | None:
    """Return how long the header says the stream is; None of formats that do not say, for which FFmpeg guesses."""
    if container.format.name.startswith("mov") and stream.duration:
        return float(stream.duration * stream.time_base)
    if container.format.name.startswith("matroska") and container.duration and len(container.streams) == 1:
        return float(container.duration) / 1e6  # microseconds, of the longest stream
    return None


def _reason(error: Exception, source: Any) -> str:
    if isinstance(source, (str, os.PathLike)) and "av" not in sys.modules:
        suffix = Path(os.fsdecode(source)).suffix.lower()
        if suffix in AV_SUFFIXES:
            return f"{suffix} needs PyAV: pip install 'speech-emotion-vit[formats]'"
    return f"is not audio that can be read ({one_line(error)}): convert it to WAV or FLAC"
