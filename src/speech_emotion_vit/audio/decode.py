"""Encoded audio: what libsndfile or FFmpeg knows, as blocks of float32. Nothing in it is trusted.

Memory is bounded by the block, not by the length a header announces, and a file reaches nothing beyond itself: no other
file, no network.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import soundfile

from ..errors import AudioError, one_line
from ..files import open_regular
from .containers import damaged_frames, damaged_size, ogg_pages, unwritten_sizes
from .inputs import ENCODED, missing
from .kinds import HEAD, is_base64, what_it_is, what_it_may_be
from .sndfile import BLOCK_VALUES, SndAudio
from .suffixes import AV_SUFFIXES

if TYPE_CHECKING:
    from .pyav import AvAudio

_LARGEST_READ = 8 * BLOCK_VALUES  # bytes, what a block of the widest samples takes
SPOOL_BYTES = 1 << 24  # of a stream that cannot seek are kept in memory, the rest in a temporary file
_LONG_TEXT = 1 << 15  # bytes; more than any audio format begins with
MAX_STREAM_BYTES = 1 << 31  # of such a stream are read at all: 18 hours of 16-bit mono at 16 kHz

_FULL_SCALE = {"ULAW": 32_124 / 32_768, "ALAW": 32_256 / 32_768, "PCM_U8": 127 / 128, "PCM_S8": 127 / 128}

Block = npt.NDArray[np.float32]


class EncodedAudio:
    """An encoded recording, opened: iterate once for its blocks `[frames, channels]` of float32.

    Args:
        source: a path, bytes, or a binary file object.
        name: what messages call it.
        track: the number of the audio track; None is the one marked as default.

    Raises:
        AudioError: it is not audio or cannot be opened. Iterating raises the same where reading fails.
    """

    def __init__(self, source: Any, name: str, track: int | None = None) -> None:
        self.name = name
        self._track = track
        self._stack = contextlib.ExitStack()
        weakref.finalize(self, self._stack.close)
        try:
            self._file = _GuardedFile(self._binary(source))
            self._audio = self._open(source)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Block]:
        try:
            yield from self._audio
        finally:
            self.close()

    @property
    def rate(self) -> int:
        """Hz, as the header says."""
        return self._audio.rate

    @property
    def channels(self) -> int:
        """How many there are, as the header says."""
        return self._audio.channels

    @property
    def full_scale(self) -> float:
        """The level at which it is clipped: the highest that its coding has."""
        return _FULL_SCALE.get(self._audio.subtype, 1.0)

    @property
    def holds_32_bits(self) -> bool:
        """Whether its samples are stored as integers of 32 bits."""
        return self._audio.subtype == "PCM_32"

    @property
    def holds_floats(self) -> bool:
        """Whether its samples are stored as floats, on whatever scale."""
        return self._audio.subtype in ("FLOAT", "DOUBLE")

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why what came out is not all that was recorded; complete at the end."""
        return tuple(self._audio.remarks)

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
                raise AudioError(f"{self.name}: {missing(os.fsdecode(source))}") from error
            except (OSError, ValueError) as error:
                if getattr(error, "errno", None) == errno.ENAMETOOLONG and is_base64(os.fsdecode(source)):
                    raise AudioError(f"{self.name}: {missing(os.fsdecode(source))}") from error
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
            return source if seekable else self._stack.enter_context(spooled(source, self.name))
        except AudioError:
            raise
        except io.UnsupportedOperation as error:
            raise AudioError(f"{self.name}: is open for writing: open it with mode 'rb'") from error
        except Exception as error:  # whatever the caller's object does
            raise AudioError(f"{self.name}: cannot be read: {one_line(error)}") from error

    def _open(self, source: Any) -> SndAudio | AvAudio:
        """Open it with libsndfile, or with PyAV what that does not know or cannot put in its time."""
        head = beginning(self._file)
        self._file.check(self.name)
        if what := what_it_is(head):
            raise AudioError(f"{self.name}: is not audio but {what}")
        damaged = damaged_size(self._file)
        self._file.corrections = damaged or unwritten_sizes(self._file)
        pages = ogg_pages(self._file)
        lost = damaged_frames(self._file)
        with_av = lost > 0 or (pages is not None and (pages.damaged or pages.streams > 1))
        if with_av and (audio := self._open_with_av()) is not None:
            if lost:
                places = "1 place is" if lost == 1 else f"{lost} places are"
                audio.remarks.append(f"damaged: {places} no MP3, and passed over")
            return audio
        self._file.seek(0)
        try:
            sound = SndAudio(self._file, self.name, self._stack)
        except ValueError as error:
            self._file.check(self.name)
            audio = None if with_av else self._open_with_av()
            if audio is None:
                raise AudioError(f"{self.name}: {_reason(one_line(error), source, head)}") from error
            if damaged:
                audio.remarks.append("damaged: a wrong size in its index is corrected")
            return audio
        if self._track:
            raise AudioError(f"{self.name}: has one audio track, 0: track={self._track} is not there")
        if pages is not None and pages.damaged:
            sound.remarks.append(
                "damaged: pages of the Ogg stream are lost, and what follows them is early: "
                "pip install 'speech-emotion-vit[formats]' keeps the times"
            )
        return sound

    def _open_with_av(self) -> AvAudio | None:
        """Open it with PyAV, where that extra is installed; None if it cannot."""
        try:
            from .pyav import AvAudio
        except ImportError:
            return None
        self._file.seek(0)
        try:
            return AvAudio(self._file, self.name, self._track, self._stack)
        except AudioError:
            raise
        except ValueError:
            return None
        finally:
            self._file.check(self.name)


@contextlib.contextmanager
def spooled(source: Any, name: str) -> Iterator[Any]:
    """Yield a file that can seek with all that a stream holds.

    Raises:
        AudioError: it is larger than 2 GiB, cannot be read, or the temporary folder has no place for it.
    """
    spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115, below
    try:
        read = 0
        while piece := source.read(1 << 16):
            if not read and (what := what_it_is(piece[:HEAD]) or _endless(piece)):
                raise AudioError(f"{name}: is not audio but {what}")
            read += len(piece)
            if read > MAX_STREAM_BYTES:
                raise AudioError(
                    f"{name}: more than {MAX_STREAM_BYTES >> 20} MiB in a stream that cannot seek: "
                    "write it to a file and pass the path"
                )
            try:
                spool.write(piece)
                spool.flush()
            except OSError as error:
                raise AudioError(
                    f"{name}: a stream that cannot seek is kept in the temporary folder, which failed "
                    f"({one_line(error)}): set TMPDIR to one with space, or pass the path of a file"
                ) from error
        spool.seek(0)
        yield spool
    finally:
        with contextlib.suppress(OSError):  # what could not be written fails once more
            spool.close()


def _endless(piece: bytes) -> str | None:
    """Return what a stream is that begins with nothing but text, which may never end."""
    return what_it_may_be(piece) if len(piece) > _LONG_TEXT and b"\0" not in piece else None


class _GuardedFile:
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
        self.corrections: dict[int, bytes] = {}  # place -> what stands there instead

    def read(self, size: int) -> bytes:
        size = min(size, _LARGEST_READ)  # libsndfile wants the whole of a file that it takes for a resource fork
        missing, place = size, 0
        pieces: list[bytes] = []
        try:
            place = self._file.tell() if self.corrections else 0
            while missing > 0 and (piece := self._file.read(missing)):
                missing -= len(piece)
                pieces.append(bytes(piece))
        except BaseException as error:
            self._error = self._error or error
        data = b"".join(pieces)[:size]
        for there, right in self.corrections.items():
            if place < there + len(right) and there < place + len(data):
                corrected = bytearray(data)
                for number, byte in enumerate(right, there - place):
                    if 0 <= number < len(data):
                        corrected[number] = byte
                data = bytes(corrected)
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
            return float(soundfile.info(_GuardedFile(file)).duration)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError):
        return None


def beginning(file: Any) -> bytes:
    """Return the first bytes of a file that can seek."""
    file.seek(0)
    return bytes(file.read(HEAD))


def _reason(fault: str, source: Any, head: bytes) -> str:
    if isinstance(source, (bytes, bytearray)) and len(source) < 4096 and _is_name(bytes(source)):
        return "holds the name of a file: pass os.fsdecode(name)"
    if what := what_it_may_be(head):
        return f"is not audio but {what}"
    if isinstance(source, (str, os.PathLike)) and "av" not in sys.modules:
        suffix = Path(os.fsdecode(source)).suffix.lower()
        if suffix in AV_SUFFIXES:
            return f"{suffix} needs PyAV: pip install 'speech-emotion-vit[formats]'"
    how = "convert it to WAV or FLAC"
    if head[:4] in (b"RIFF", b"RF64") and head[12:16] == b"fmt " and head[24:28] == bytes(4):
        return "its header says 0 Hz: correct it, or pass the samples with sampling_rate="
    if isinstance(source, (bytes, bytearray, memoryview)) and not head.startswith(ENCODED):
        how += ", or if these are raw samples pass numpy.frombuffer(data, 'int16') with sampling_rate="
    return f"is not audio that can be read ({fault}): {how}"


def _is_name(content: bytes) -> bool:
    try:
        return os.path.isfile(content)
    except ValueError:  # no name holds zeros
        return False
