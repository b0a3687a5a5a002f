"""Audio in: whatever a user has, read in blocks, as mono float32 at the rate the model wants.

Nothing here trusts a header: memory is bounded by the block, not by the length a file announces.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from ..errors import AudioError, ConfigError, printable, shown
from .decode import AV_SUFFIXES, EncodedAudio
from .sndfile import BLOCK_VALUES

if TYPE_CHECKING:
    import torch

Samples: TypeAlias = npt.NDArray[np.float32]
AudioInput: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | npt.NDArray[Any] | torch.Tensor"
)
Channel: TypeAlias = int | Literal["mix"]
"""What of several channels is heard: the mean of all, or the one of this number; 0 is the first."""

MIN_RATE = 4_000  # Hz; below it there is no speech band left
MAX_RATE = 384_000  # Hz; the highest rate converters are sold for
OFFSET_LEAST = 1e-6  # -120 dB below full scale; less is no fault of a sound card
OFFSET_SHARE = 0.05  # of the level of what is heard makes a mean an offset
CLIPPED_LEVEL = 0.999  # of the highest level that the samples' coding has
CLIPPED_SHARE = 1e-3  # of the samples at that level make a clipped recording
SHORT_SECONDS = 0.3  # an emotion is hardly ever heard in less
MAX_VALUE = 2.0**31  # float samples beyond the largest integer format are not audio
AUDIO_SUFFIXES = AV_SUFFIXES | frozenset(
    f".{name.lower()}" for name in (*soundfile.available_formats(), "aif", "aifc", "snd", "sph", "mp2", "oga", "opus")
) - {".raw", ".mat4", ".mat5"}
"""Of the files that a search of a folder takes for audio, in lower case."""


def check_rate(rate: float | None, name: str) -> int:
    """Return `rate` in Hz as an int.

    Raises:
        AudioError: it is not a whole number from 4000 to 384000.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.integer, np.floating)) or rate != rate // 1:
        raise AudioError(f"{name}: sampling rate must be a whole number of Hz, not {shown(rate)}")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"{name}: sampling rate {int(rate)} Hz is out of range: {MIN_RATE} to {MAX_RATE} Hz")
    return int(rate)


def check_channel(channel: Channel) -> Channel:
    """Return `channel`.

    Raises:
        ConfigError: it is neither ``mix`` nor a whole number from 0.
    """
    if isinstance(channel, str) and channel == "mix":
        return "mix"
    if isinstance(channel, bool) or not isinstance(channel, (int, np.integer)) or channel < 0:
        raise ConfigError(f"channel must be 'mix' or a number from 0, the first, not {shown(channel)}")
    return int(channel)


def check_track(track: int | None) -> int | None:
    """Return `track`.

    Raises:
        ConfigError: it is neither None nor a whole number from 0.
    """
    if track is None:
        return None
    if isinstance(track, bool) or not isinstance(track, (int, np.integer)) or track < 0:
        raise ConfigError(f"track must be None or a number from 0, the first audio track, not {shown(track)}")
    return int(track)


def describe(source: object) -> str:
    """Return a short name of `source` for messages and tables."""
    if isinstance(source, (str, os.PathLike)):
        return printable(os.fsdecode(source))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    with contextlib.suppress(AttributeError, TypeError, RuntimeError):  # a class has none, a nested tensor no sizes
        return f"<{type(source).__name__} {list(source.shape)}>"  # type: ignore[attr-defined]
    name = getattr(source, "name", None)
    return printable(name) if isinstance(name, str) else f"<{type(source).__name__}>"


class Intake:
    """Blocks of any rate and channel count in, mono float32 at `target_rate` out, in the order they come.

    Args:
        rate: Hz of what comes in.
        target_rate: Hz of what goes out.
        name: what messages call it.
        full_scale: the highest level that can come in, where it is clipped.
        channel: ``mix``, or the number of the channel that goes out.

    Raises:
        ConfigError: `channel` is no such thing.
    """

    def __init__(
        self, rate: int, target_rate: int, name: str, full_scale: float = 1.0, channel: Channel = "mix"
    ) -> None:
        self.rate, self.target_rate, self.name = rate, target_rate, name
        self._channel = check_channel(channel)
        self._clipped_level = CLIPPED_LEVEL * full_scale
        self.frames = 0
        self._sum = 0.0
        self._energy = 0.0
        self._clipped = 0
        self._resampler = None
        if rate != target_rate:
            self._resampler = soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="HQ")

    @property
    def duration(self) -> float:
        """Seconds that came in."""
        return self.frames / self.rate

    def push(self, block: Samples) -> Samples:
        """Return the mono samples `[samples]`, possibly none, that a block `[frames, channels]` makes known.

        Raises:
            AudioError: a value is NaN, infinite, or beyond any PCM format, or the chosen channel is not there.
        """
        block = self._heard(block)
        highest = float(np.maximum(block.max(initial=0.0), -block.min(initial=0.0)))  # a NaN stays one
        if not highest <= MAX_VALUE:  # also true for NaN
            self._refuse_value(block)
        mono = block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else block[:, 0]
        self.frames += len(mono)
        self._sum += float(mono.sum(dtype=np.float64))
        self._energy += float(np.square(mono, dtype=np.float64).sum())
        if highest >= self._clipped_level:
            self._clipped += int((np.abs(block) >= self._clipped_level).any(axis=1).sum())
        return np.ascontiguousarray(mono if self._resampler is None else self._resampler.resample_chunk(mono))

    def finish(self) -> Samples:
        """Return the last samples `[samples]`, possibly none, that the resampler held back."""
        if self._resampler is None:
            return np.zeros(0, np.float32)
        return np.ascontiguousarray(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))

    def warnings(self) -> Iterator[str]:
        """Yield why an answer about what came in deserves less trust."""
        if self.frames and offset_of(self._sum, self._energy, self.frames):
            yield f"constant offset of {self._sum / self.frames:.2g} removed"
        if self._clipped and self._clipped >= CLIPPED_SHARE * self.frames:
            yield f"clipped ({self._clipped / self.frames:.1%} of samples)"
        if self.duration < SHORT_SECONDS:
            yield f"shorter than {SHORT_SECONDS} s"
        if self.rate < self.target_rate:
            yield f"upsampled from {self.rate} Hz"

    def first_refused(self, block: Samples) -> int:
        """Return the first frame of a block `[frames, channels]` with a value that `push` refuses."""
        return int(np.argmin((np.abs(self._heard(block)) <= MAX_VALUE).all(axis=1)))

    def _heard(self, block: Samples) -> Samples:
        """Return what is heard of a block: all of it, or one channel `[frames, 1]`."""
        if self._channel == "mix":
            return block
        _require_channel(self._channel, block.shape[1], self.name)
        return block[:, self._channel : self._channel + 1]

    def _refuse_value(self, block: Samples) -> None:
        index = int(np.argmin((np.abs(block) <= MAX_VALUE).all(axis=1)))
        worst = np.abs(block[index]).max()
        kind = "NaN" if np.isnan(worst) else "infinite" if np.isinf(worst) else f"{worst:.3g}, beyond any PCM format"
        raise AudioError(f"{self.name}: sample {self.frames + index} is {kind}: repair the recording")


def _require_channel(channel: Channel, channels: int, name: str) -> None:
    if channel != "mix" and channel >= channels:
        known = "one channel, 0" if channels == 1 else f"{channels} channels, 0 to {channels - 1}"
        raise AudioError(f"{name}: has {known}: channel={channel} is not there")


def offset_of(total: float, energy: float, samples: int) -> float:
    """Return the mean of samples with this sum and sum of squares, 0 where it is no offset but part of the sound."""
    mean = total / samples
    spread = max(0.0, energy / samples - mean * mean) ** 0.5
    return mean if abs(mean) > max(OFFSET_LEAST, OFFSET_SHARE * spread) else 0.0


def without_offset(samples: Samples) -> Samples:
    """Return `samples` `[samples]` without the constant that a faulty sound card adds, if there is one."""
    mean = offset_of(float(samples.sum(dtype=np.float64)), float(np.vdot(samples, samples)), max(1, len(samples)))
    return samples - np.float32(mean) if mean else samples


def _first_refused(block: Samples) -> int:
    """Return the first frame of a block `[frames, channels]` with a value that is NaN or beyond any PCM format."""
    return int(np.argmin((np.abs(block) <= MAX_VALUE).all(axis=1)))


class AudioReader:
    """One piece of audio, read once, in blocks of mono float32 at `target_rate`.

    Iterate over it for the blocks; `duration` and `warnings` are complete once the iteration has ended; if with an
    error, they are those of what came before it.

    Args:
        source: a path, encoded bytes, a binary file object, an array or a tensor `[samples]` or `[channels, samples]`.
        sampling_rate: Hz; needed for arrays and tensors, refused for everything that carries its own.
        target_rate: Hz of the blocks.
        channel: ``mix``, or the number of the channel to hear.
        track: the number of the audio track of a file that has several; None is the default one.

    Raises:
        AudioError: it cannot be opened. Iterating raises the same where it cannot be read.
        ConfigError: `channel` or `track` is no such number.
    """

    def __init__(
        self,
        source: AudioInput,
        *,
        sampling_rate: int | None = None,
        target_rate: int = 16_000,
        channel: Channel = "mix",
        track: int | None = None,
    ) -> None:
        self.name = describe(source)
        self._channel, track = check_channel(channel), check_track(track)
        self.target_rate = target_rate
        self.duration = 0.0
        self.warnings: tuple[str, ...] = ()
        self._encoded: EncodedAudio | None = None
        self._full_scale = 1.0
        array = as_array(source, self.name)
        if array is not None:
            if sampling_rate is None:
                raise AudioError(f"{self.name}: an array does not know its rate: pass sampling_rate= in Hz")
            if track:
                raise AudioError(f"{self.name}: an array has no tracks: leave out track={track}")
            frames = _array_frames(array, self.name)
            self.channels = frames.shape[1]
            self._raw: Iterable[Samples] = pcm_blocks(frames, self.name)
        else:
            if sampling_rate is not None and is_encoded(source):
                raise AudioError(
                    f"{self.name}: files carry their own rate: leave out sampling_rate={shown(sampling_rate)}, "
                    "or decode the file and pass the array"
                )
            self._raw = self._encoded = EncodedAudio(source, self.name, track)
            self._full_scale = self._encoded.full_scale
            self.channels = self._encoded.channels
        try:
            self.rate = check_rate(sampling_rate if self._encoded is None else self._encoded.rate, self.name)
            _require_channel(self._channel, self.channels, self.name)
        except AudioError:
            self.close()
            raise

    def close(self) -> None:
        """Close what was opened here; reading to the end does so too."""
        if self._encoded is not None:
            self._encoded.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Samples]:
        intake = Intake(self.rate, self.target_rate, self.name, self._full_scale, self._channel)
        given = 0
        try:
            for block in self._raw:
                refused = None
                try:
                    samples = intake.push(block)
                except AudioError as error:
                    refused = error
                    samples = intake.push(block[: intake.first_refused(block)])  # what came before it is good
                self.duration = intake.duration
                given += len(samples)
                if len(samples):
                    yield samples
                if refused is not None:
                    raise refused
        finally:
            self.close()
            remarks = () if self._encoded is None else self._encoded.remarks
            self.warnings = (*remarks, *intake.warnings())  # of a part, too, if it breaks off
        if not intake.frames:
            raise AudioError(f"{self.name}: no samples{f' ({remarks[0]})' if remarks else ''}")
        samples = intake.finish()
        if not given + len(samples):
            raise AudioError(f"{self.name}: shorter than one sample at {self.target_rate} Hz")
        if len(samples):
            yield samples


def is_encoded(source: object) -> bool:
    """Return whether `source` is a file or the content of one, which has a rate of its own."""
    return isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(source, "read")


def as_array(source: object, name: str) -> npt.NDArray[Any] | None:
    """Return `source` as a numpy array if it is an array or a tensor, else None."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.Tensor):
        kind, place = source.dtype, source.device
        if not (source.is_floating_point() or kind in (torch.uint8, torch.int8, torch.int16, torch.int32)):
            raise AudioError(f"{name}: cannot take a tensor of {kind}: pass floats or integer PCM up to 32 bit")
        try:
            tensor = source.detach().to("cpu").resolve_neg()
            return (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # type: ignore[no-any-return]
        except (RuntimeError, TypeError) as error:
            raise AudioError(
                f"{name}: cannot read a {source.layout} tensor on {place}: pass a dense tensor that holds values"
            ) from error
    if np.ma.isMaskedArray(source):
        raise AudioError(f"{name}: cannot take a masked array: fill its gaps, with array.filled(0.0)")
    return np.asarray(source) if isinstance(source, np.ndarray) else None


def _array_frames(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return an array `[samples]` or `[channels, samples]` as `[frames, channels]`."""
    if array.ndim not in (1, 2) or array.size == 0:
        raise AudioError(f"{name}: shape must be [samples] or [channels, samples] with samples > 0")
    frames = array[:, None] if array.ndim == 1 else array.T
    if frames.shape[1] > frames.shape[0]:
        raise AudioError(f"{name}: {frames.shape[1]} channels of {frames.shape[0]} samples: pass array.T")
    return frames


def pcm_blocks(frames: npt.NDArray[Any], name: str) -> Iterator[Samples]:
    """Return float32 blocks of `frames` `[frames, channels]`, float or integer PCM.

    Raises:
        AudioError: the values are of another kind.
    """
    kind = frames.dtype.newbyteorder("=")  # astype below swaps the bytes where it must
    if kind == np.uint8:
        scale, offset = 1.0 / 128.0, -1.0
    elif kind in (np.int8, np.int16, np.int32):
        scale, offset = 1.0 / -float(np.iinfo(kind).min), 0.0
    elif kind in (np.float16, np.float32, np.float64):
        scale, offset = 1.0, 0.0
    else:
        raise AudioError(f"{name}: cannot take an array of {frames.dtype}: pass floats or integer PCM up to 32 bit")
    return _scaled_blocks(frames, scale, offset)


def _scaled_blocks(frames: npt.NDArray[Any], scale: float, offset: float) -> Iterator[Samples]:
    step = max(1, BLOCK_VALUES // frames.shape[1])
    for start in range(0, len(frames), step):
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused as such
            block = frames[start : start + step].astype(np.float32)
        if scale != 1.0:
            block = block * np.float32(scale) + np.float32(offset)
        yield block


def windows(blocks: Iterable[Samples], size: int, hop: int) -> Iterator[Samples]:
    """Cut a stream of blocks into windows of `size` samples, `hop` apart, the last one aligned to the end.

    A stream no longer than `size` is one window of its own length. A window holds no more memory than its own: it is a
    copy, or the whole block it came in.
    """
    buffer = np.zeros(0, np.float32)
    start = 0  # of the next window, in the buffer
    for block in blocks:
        buffer = np.concatenate((buffer, block)) if len(buffer) else block
        while len(buffer) - start > size:  # strictly: something follows, so this window is not the last
            yield buffer[start : start + size].copy()
            start += hop
        spent = max(0, min(start, len(buffer) - size))  # the last window needs `size` samples before the end
        buffer, start = buffer[spent:], start - spent
    yield buffer[-size:].copy() if len(buffer) > size else buffer
