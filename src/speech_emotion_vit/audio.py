"""Audio in: whatever a user has, read in blocks, as mono float32 at the rate the model wants.

Nothing here trusts a header: memory is bounded by the block, not by the length a file announces.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from .errors import AudioError

if TYPE_CHECKING:
    import torch

Samples: TypeAlias = npt.NDArray[np.float32]
AudioInput: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | npt.NDArray[Any] | torch.Tensor"

MIN_RATE = 4_000  # Hz; below it there is no speech band left
MAX_RATE = 384_000  # Hz; the highest rate converters are sold for
BLOCK_VALUES = 1 << 18  # values (frames x channels) decoded at a time, 1 MiB of float32
SILENT_PEAK = 1e-4  # -80 dB below full scale
CLIPPED_LEVEL = 0.999  # of full scale
CLIPPED_SHARE = 1e-3  # of the samples at that level make a clipped recording
SHORT_SECONDS = 0.3  # an emotion is hardly ever heard in less
MAX_VALUE = 2.0**31  # float samples beyond the largest integer format are not audio
AUDIO_SUFFIXES = frozenset(
    f".{name.lower()}" for name in (*soundfile.available_formats(), "aif", "oga", "opus", "m4a", "aac", "mp4", "webm")
) - {".raw", ".mat4", ".mat5"}


def check_rate(rate: float, name: str) -> int:
    """Return `rate` in Hz as an int.

    Raises:
        AudioError: it is not a whole number from 4000 to 384000.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.integer, np.floating)) or rate != rate // 1:
        raise AudioError(f"{name}: sampling rate must be a whole number of Hz, not {rate!r}")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"{name}: sampling rate {int(rate)} Hz is out of range: {MIN_RATE} to {MAX_RATE} Hz")
    return int(rate)


def describe(source: object) -> str:
    """Return a short name of `source` for messages and tables."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source).encode("utf-8", "backslashreplace").decode()
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if hasattr(source, "shape"):
        return f"<{type(source).__name__} {list(source.shape)}>"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else f"<{type(source).__name__}>"


class AudioReader:
    """One piece of audio, read once, in blocks of mono float32 at `target_rate`.

    Iterate over it for the blocks; `duration` and `warnings` are complete once the iteration has ended.

    Args:
        source: a path, encoded bytes, a binary file object, an array or a tensor `[samples]` or `[channels, samples]`.
        sampling_rate: Hz; needed for arrays and tensors, refused for everything that carries its own.
        target_rate: Hz of the blocks.

    Raises:
        AudioError: it cannot be opened. Iterating raises the same where it cannot be read.
    """

    def __init__(self, source: AudioInput, *, sampling_rate: int | None = None, target_rate: int = 16_000) -> None:
        self.name = describe(source)
        self.target_rate = target_rate
        self.duration = 0.0
        self.warnings: tuple[str, ...] = ()
        self._fault: str | None = None
        array = _as_array(source, self.name)
        if array is not None:
            if sampling_rate is None:
                raise AudioError(f"{self.name}: an array does not know its rate: pass sampling_rate= in Hz")
            self.rate = check_rate(sampling_rate, self.name)
            self._raw = _array_blocks(array, self.name)
        else:
            if sampling_rate is not None:
                raise AudioError(
                    f"{self.name}: files carry their own rate: leave out sampling_rate={sampling_rate!r}, "
                    "or decode the file and pass the array"
                )
            self.rate, self._raw = self._open(source)

    def __iter__(self) -> Iterator[Samples]:
        resampler = None
        if self.rate != self.target_rate:
            resampler = soxr.ResampleStream(self.rate, self.target_rate, 1, dtype="float32", quality="HQ")
        frames = clipped = 0
        peak = 0.0
        for block in self._raw:
            mono = block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else block[:, 0]
            level = np.abs(block)
            highest = float(level.max(initial=0.0))
            if not highest <= MAX_VALUE:  # also true for NaN
                self._refuse_value(level, frames)
            frames += len(mono)
            peak = max(peak, highest)
            if highest >= CLIPPED_LEVEL:
                clipped += int((level >= CLIPPED_LEVEL).any(axis=1).sum())
            self.duration = frames / self.rate
            resampled = mono if resampler is None else resampler.resample_chunk(mono)
            if len(resampled):
                yield np.ascontiguousarray(resampled)
        if frames == 0:
            raise AudioError(f"{self.name}: no samples{f' ({self._fault})' if self._fault else ''}")
        if resampler is not None:
            tail = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            if len(tail):
                yield tail
        self.warnings = tuple(self._describe_faults(peak, clipped / frames))

    def _describe_faults(self, peak: float, clipped_share: float) -> Iterator[str]:
        if self._fault:
            yield self._fault
        if peak < SILENT_PEAK:
            yield "silent"
        if clipped_share >= CLIPPED_SHARE:
            yield f"clipped ({clipped_share:.1%} of samples)"
        if self.duration < SHORT_SECONDS:
            yield f"shorter than {SHORT_SECONDS} s"
        if self.rate < self.target_rate:
            yield f"upsampled from {self.rate} Hz"

    def _refuse_value(self, level: Samples, offset: int) -> None:
        index = int(np.argmin((level <= MAX_VALUE).all(axis=1)))
        worst = level[index].max()
        kind = "NaN" if np.isnan(worst) else "infinite" if np.isinf(worst) else f"{worst:.3g}, beyond any PCM format"
        raise AudioError(f"{self.name}: sample {offset + index} is {kind}: repair the recording")

    def _open(self, source: Any) -> tuple[int, Iterator[Samples]]:
        handle: Any
        if isinstance(source, (str, os.PathLike)):
            handle = _regular_file(source, self.name)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            handle = io.BytesIO(source)
        elif hasattr(source, "read"):
            handle = _seekable(source, self.name)
        else:
            raise AudioError(
                f"{self.name}: cannot read audio from {type(source).__name__}: pass a path, bytes, "
                "a binary file object, an array or a tensor"
            )
        try:
            sound = soundfile.SoundFile(_Nameless(handle) if hasattr(handle, "read") else handle)
        except (soundfile.SoundFileError, TypeError, ValueError) as error:
            if isinstance(handle, io.IOBase) and handle.seekable():
                handle.seek(0)
            opened = self._open_with_av(handle)
            if opened is None:
                raise AudioError(f"{self.name}: {_reason(error, handle)}") from error
            return opened
        try:
            rate = check_rate(sound.samplerate, self.name)
        except AudioError:
            sound.close()
            raise
        return rate, self._soundfile_blocks(sound, handle if handle is not source else None)

    def _soundfile_blocks(self, sound: soundfile.SoundFile, handle: Any) -> Iterator[Samples]:
        with contextlib.ExitStack() as stack:
            if isinstance(handle, io.IOBase):  # opened here, and soundfile closes only what it opened itself
                stack.enter_context(handle)
            stack.enter_context(sound)
            announced = _announced_frames(sound)
            shape = (max(1, BLOCK_VALUES // sound.channels), sound.channels)
            done = 0
            while self._fault is None:
                block = np.empty(shape, np.float32)
                try:
                    block = sound.read(out=block)
                except soundfile.SoundFileError as error:
                    block = block[: max(0, sound.tell() - done)]  # what was decoded before the damage is good
                    self._fault = f"damaged after {(done + len(block)) / sound.samplerate:.2f} s: {_short(error)}"
                if not len(block):
                    break
                done += len(block)
                yield block
            if self._fault is None and announced is not None and done < announced:
                self._fault = (
                    f"truncated: {done / sound.samplerate:.2f} of {announced / sound.samplerate:.2f} s could be read"
                )

    def _open_with_av(self, handle: Any) -> tuple[int, Iterator[Samples]] | None:
        """Open what libsndfile does not know with PyAV, where that extra is installed; None if it cannot either."""
        try:
            import av
        except ImportError:
            return None
        target = os.fsdecode(handle) if isinstance(handle, bytes) else handle
        try:
            container = av.open(target, mode="r")
        except (av.FFmpegError, OSError, ValueError):
            return None
        if not container.streams.audio or not container.streams.audio[0].rate:
            container.close()
            return None
        try:
            rate = check_rate(container.streams.audio[0].rate, self.name)
        except AudioError:
            container.close()
            raise
        return rate, self._av_blocks(container, rate)

    def _av_blocks(self, container: Any, rate: int) -> Iterator[Samples]:
        import av

        done = 0
        with container:
            resampler = av.AudioResampler(format="fltp", rate=rate)
            try:
                for frame in container.decode(audio=0):
                    for converted in resampler.resample(frame):
                        block = np.ascontiguousarray(converted.to_ndarray().T, dtype=np.float32)
                        done += len(block)
                        yield block
            except av.FFmpegError as error:
                self._fault = f"damaged after {done / rate:.2f} s: {_short(error)}"


class _Nameless:
    """A binary file without its name, from which soundfile would guess: ``.raw`` asks it for headerless data."""

    def __init__(self, file: Any) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _as_array(source: object, name: str) -> npt.NDArray[Any] | None:
    """Return `source` as a numpy array if it is an array or a tensor, else None."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.Tensor):
        tensor = source.detach().to("cpu")
        if not (tensor.is_floating_point() or tensor.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32)):
            raise AudioError(f"{name}: cannot take a tensor of {tensor.dtype}: pass floats or integer PCM up to 32 bit")
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # type: ignore[no-any-return]
    return source if isinstance(source, np.ndarray) else None


def _array_blocks(array: npt.NDArray[Any], name: str) -> Iterator[Samples]:
    """Return blocks `[frames, channels]` of an array `[samples]` or `[channels, samples]`."""
    if array.ndim not in (1, 2) or array.size == 0:
        raise AudioError(f"{name}: shape must be [samples] or [channels, samples] with samples > 0")
    frames = array[:, None] if array.ndim == 1 else array.T
    if frames.shape[1] > frames.shape[0]:
        raise AudioError(f"{name}: {frames.shape[1]} channels of {frames.shape[0]} samples: pass array.T")
    kind = array.dtype
    if kind == np.uint8:
        scale, offset = 1.0 / 128.0, -1.0
    elif kind in (np.int8, np.int16, np.int32):
        scale, offset = 1.0 / -float(np.iinfo(kind).min), 0.0
    elif kind in (np.float16, np.float32, np.float64):
        scale, offset = 1.0, 0.0
    else:
        raise AudioError(f"{name}: cannot take an array of {kind}: pass floats or integer PCM up to 32 bit")
    return _scaled_blocks(frames, scale, offset)


def _scaled_blocks(frames: npt.NDArray[Any], scale: float, offset: float) -> Iterator[Samples]:
    step = max(1, BLOCK_VALUES // frames.shape[1])
    for start in range(0, len(frames), step):
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused as such
            block = frames[start : start + step].astype(np.float32)
        if scale != 1.0:
            block = block * np.float32(scale) + np.float32(offset)
        yield block


def _regular_file(source: str | os.PathLike[str], name: str) -> bytes | str | BinaryIO:
    try:
        mode = os.stat(source).st_mode
    except FileNotFoundError as error:
        raise AudioError(f"{name}: no such file: check the path") from error
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be opened: {_short(error)}") from error
    if stat.S_ISDIR(mode):
        raise AudioError(f"{name}: is a directory: pass the files in it")
    if not stat.S_ISREG(mode):
        raise AudioError(f"{name}: is not a regular file: copy its content to one")
    try:
        with open(source, "rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise AudioError(f"{name}: cannot be opened: {_short(error)}") from error
    if empty:
        raise AudioError(f"{name}: the file is empty")
    # soundfile encodes names strictly, so what is not valid in the locale goes in as bytes.
    if Path(source).suffix.lower() == ".raw":
        return open(source, "rb")
    return os.fspath(source) if sys.platform == "win32" else os.fsencode(source)


def _seekable(source: Any, name: str) -> Any:
    try:
        if source.read(0) != b"":
            raise AudioError(f"{name}: is open as text: open it with mode 'rb'")
        return source if source.seekable() else io.BytesIO(source.read())
    except (OSError, ValueError) as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{name}: cannot be read: {_short(error)}") from error


def _announced_frames(sound: soundfile.SoundFile) -> int | None:
    """Return how many frames the header promises, None where it does not say.

    libsndfile silently shortens a WAV or AIFF to what is there and only notes so in its log, as
    ``data : 72818 (should be 36409)`` in bytes; streamed FLAC announces the largest integer.
    """
    promised = sound.frames if sound.frames < 1 << 62 else None
    for line in sound.extra_info.splitlines():
        tag, _, rest = line.partition(":")
        if tag.strip() in ("data", "SSND") and "(should be" in rest:
            announced, actual = (int(word) for word in rest.replace("(should be", " ").replace(")", " ").split()[:2])
            if actual > 0 and promised and announced < 0xFFFF_0000:  # streaming writers put the largest size there
                promised = round(promised * announced / actual)
    return promised


def _reason(error: Exception, handle: Any) -> str:
    text = _short(error)
    if isinstance(handle, bytes):
        suffix = Path(os.fsdecode(handle)).suffix.lower()
        if suffix in {".m4a", ".aac", ".mp4", ".webm", ".wma", ".mka", ".mkv"} and "av" not in sys.modules:
            return f"{suffix} needs PyAV: pip install 'speech-emotion-vit[formats]'"
    return f"is not audio that can be read ({text}): convert it to WAV or FLAC"


def _short(error: Exception) -> str:
    """Return the error's own words on one line, without a path or a trailing stop."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()).rstrip(".")


def windows(blocks: Iterable[Samples], size: int, hop: int) -> Iterator[Samples]:
    """Cut a stream of blocks into windows of `size` samples, `hop` apart, the last one aligned to the end.

    A stream no longer than `size` is one window of its own length. The windows are copies.
    """
    buffer = np.zeros(0, np.float32)
    start = 0  # of the next window, in the buffer
    for block in blocks:
        buffer = np.concatenate((buffer, block))
        while len(buffer) - start > size:  # strictly: something follows, so this window is not the last
            yield buffer[start : start + size].copy()
            start += hop
        spent = max(0, min(start, len(buffer) - size))  # the last window needs `size` samples before the end
        buffer, start = buffer[spent:], start - spent
    yield buffer[-size:].copy()
