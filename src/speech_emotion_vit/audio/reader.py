"""Audio in: whatever a user has, read in blocks, as mono float32 at the rate the model wants.

Nothing here trusts a header: memory is bounded by the block, not by the length a file announces.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from ..errors import AudioError, ConfigError, printable, quoted
from .decode import EncodedAudio
from .inputs import as_array, as_frames, describe, is_encoded, unpack
from .on_device import OnDevice, on_device
from .sndfile import BLOCK_VALUES
from .stereo import Stereo

if TYPE_CHECKING:
    import torch

Samples: TypeAlias = npt.NDArray[np.float32]
AudioInput: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | npt.NDArray[Any] | torch.Tensor"
    " | Sequence[float] | tuple[Any, Any] | Mapping[str, Any] | HasSamples"
)
Channel: TypeAlias = int | Literal["mix"]
"""What of several channels is heard: the mean of all, or the one of this number; 0 is the first."""


class HasSamples(Protocol):
    """What torchcodec returns, and others like it."""

    @property
    def data(self) -> Any:
        """The samples, an array or a tensor."""

    @property
    def sample_rate(self) -> int:
        """Hz."""


MIN_RATE = 4_000  # Hz; below it there is no speech band left
MAX_RATE = 384_000  # Hz; the highest rate converters are sold for
OFFSET_LEAST = 1e-6  # -120 dB below full scale; less is no fault of a sound card
OFFSET_SHARE = 0.05  # of the level of what is heard makes a mean an offset
CLIPPED_LEVEL = 0.999  # of the highest level that the samples' coding has
CLIPPED_SHARE = 1e-3  # of the samples at that level make a clipped recording
SHORT_SECONDS = 0.3  # an emotion is hardly ever heard in less
MAX_VALUE = 2.0**31  # float samples beyond the largest integer format are not audio
_LEAST_INT16 = 64  # of 32768 at least is reached by what is recorded in 16 bits, and no noise of a converter
_LOUDEST = 16.0  # floats beyond, 24 dB over full scale, are no loud recording if they are whole numbers


def check_rate(rate: float | None, name: str) -> int:
    """Return `rate` in Hz as an int.

    Raises:
        AudioError: it is not a whole number from 4000 to 384000.
    """
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.integer, np.floating)) or rate != rate // 1:
        raise AudioError(f"{name}: sampling rate must be a whole number of Hz, not {quoted(rate)}")
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
        raise ConfigError(f"channel must be 'mix' or a number from 0, the first, not {quoted(channel)}")
    return int(channel)


def check_track(track: int | None) -> int | None:
    """Return `track`.

    Raises:
        ConfigError: it is neither None nor a whole number from 0.
    """
    if track is None:
        return None
    if isinstance(track, bool) or not isinstance(track, (int, np.integer)) or track < 0:
        raise ConfigError(f"track must be None or a number from 0, the first audio track, not {quoted(track)}")
    return int(track)


class MonoResampler:
    """Blocks of any rate and channel count in, mono float32 at `target_rate` out, in the order they come.

    Args:
        rate: Hz of what comes in.
        target_rate: Hz of what goes out.
        name: what messages call it.
        full_scale: the highest level that can come in, where it is clipped.
        channel: ``mix``, or the number of the channel that goes out.
        check_scale: whether integers in floats are refused; not for what is decoded, where damage can be as loud.
        resampler: what resamples in soxr's place.

    Raises:
        ConfigError: `channel` is no such thing.
    """

    def __init__(
        self,
        rate: int,
        target_rate: int,
        name: str,
        full_scale: float = 1.0,
        channel: Channel = "mix",
        check_scale: bool = True,
        resampler: OnDevice | None = None,
    ) -> None:
        self.rate, self.target_rate, self.name = rate, target_rate, name
        self._check_scale = check_scale
        self._channel = check_channel(channel)
        self._clipped_level = CLIPPED_LEVEL * full_scale
        self.frames = 0
        self.highest = 0.0
        """The highest level that came in; 1 is full scale."""
        self._sum = 0.0
        self._energy = 0.0
        self._clipped = 0
        self._stereo: Stereo | None = None
        self._resampler: Any = resampler
        if rate != target_rate and resampler is None:
            self._resampler = soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="HQ")

    @property
    def duration(self) -> float:
        """Seconds that came in."""
        return self.frames / self.rate

    @np.errstate(all="ignore")  # what the caller has set may make an exception of an underflow
    def push(self, block: Samples) -> Samples:
        """Return the mono samples `[samples]`, possibly none, that a block `[frames, channels]` makes known.

        Raises:
            AudioError: a value is NaN, infinite, or beyond any PCM format, or the chosen channel is not there.
        """
        block = self._selected(block)
        highest = float(np.maximum(block.max(initial=0.0), -block.min(initial=0.0)))  # a NaN stays one
        if not highest <= MAX_VALUE:  # also true for NaN
            self._refuse_value(block)
        if self._check_scale and highest > _LOUDEST and _are_integers(block):
            self._refuse_scale(highest)
        self.highest = max(self.highest, highest)
        if block.shape[1] == 2:
            self._stereo = self._stereo or Stereo(self.rate)
            self._stereo.push(block)
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
        if self._stereo is not None and (warning := self._stereo.warning()):
            yield warning
        if self.duration < SHORT_SECONDS:
            yield f"shorter than {SHORT_SECONDS} s"
        if self.rate < self.target_rate:
            yield f"upsampled from {self.rate} Hz"

    def first_refused(self, block: Samples) -> int:
        """Return the first frame of a block `[frames, channels]` with a value that `push` refuses."""
        return int(np.argmin((np.abs(self._selected(block)) <= MAX_VALUE).all(axis=1)))

    def _selected(self, block: Samples) -> Samples:
        """Return the channels of a block that are used: all of them, or one `[frames, 1]`."""
        if self._channel == "mix":
            return block
        _require_channel(self._channel, block.shape[1], self.name)
        return block[:, self._channel : self._channel + 1]

    def _refuse_scale(self, highest: float) -> None:
        bits = next(bits for bits in (16, 24, 32) if highest <= 2 ** (bits - 1))  # 8 are rare, and 16 may be quiet
        raise AudioError(
            f"{self.name}: floats that reach {highest:.0f}, where 1 is full scale: they are {bits}-bit integers "
            f"(int{bits}): divide them by {2 ** (bits - 1)}"
            + (f", or pass them as an array of int{bits}" if bits != 24 else "")
        )

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


def _are_integers(block: Samples) -> bool:
    """Return whether floats are on the scale of integers: whole numbers, or, resampled, mostly over full scale."""
    return bool((block == np.rint(block)).all()) or float(np.median(np.abs(block))) > 1.0


class AudioReader:
    """One piece of audio, read once, in blocks of mono float32 at `target_rate`.

    Iterate over it for the blocks; `duration` and `warnings` are complete once the iteration has ended; if with an
    error, they are those of what came before it.

    Args:
        source: a path, encoded bytes, a binary file object, an array or a tensor `[samples]` or `[channels, samples]`,
            and what `inputs.unpack` knows besides.
        sampling_rate: Hz; needed for arrays and tensors, refused for everything that carries its own.
        target_rate: Hz of the blocks.
        channel: ``mix``, or the number of the channel to hear.
        track: the number of the audio track of a file that has several; None is the default one.
        skip_rate: whether `sampling_rate` is only for what has no rate of its own.

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
        skip_rate: bool = False,
    ) -> None:
        self.name = describe(source)
        self._channel, track = check_channel(channel), check_track(track)
        given, own = unpack(source, self.name)
        own = own.item() if isinstance(own, np.generic) else own
        if own is not None or (skip_rate and is_encoded(given)):
            if sampling_rate not in (None, own) and not skip_rate:
                raise AudioError(
                    f"{self.name}: has a rate of its own, {quoted(own)}: "
                    f"leave out sampling_rate={quoted(sampling_rate)}"
                )
            sampling_rate = own
        self.file = printable(os.fsdecode(given)) if isinstance(given, (str, os.PathLike)) else self.name
        """What results call it: the name, and all of it."""
        self.target_rate = target_rate
        self.duration = 0.0
        self.warnings: tuple[str, ...] = ()
        self._encoded: EncodedAudio | None = None
        self._full_scale = 1.0
        self._raw: Iterable[Samples]
        array = as_array(given, self.name)
        self._array: object = None if array is None else given
        if isinstance(given, soundfile.SoundFile):
            self.channels, self._raw = given.channels, _sound_blocks(given)
        elif array is not None:
            if sampling_rate is None:
                raise AudioError(f"{self.name}: an array does not know its rate: pass sampling_rate= in Hz")
            if track:
                raise AudioError(f"{self.name}: an array has no tracks: leave out track={track}")
            frames = as_frames(array, self.name)
            self.channels = frames.shape[1]
            self._raw = pcm_blocks(frames, self.name)
        else:
            if sampling_rate is not None:
                raise AudioError(
                    f"{self.name}: files carry their own rate: leave out sampling_rate={quoted(sampling_rate)}, "
                    "or decode the file and pass the array; for raw samples numpy.frombuffer(data, 'int16')"
                )
            self._raw = self._encoded = EncodedAudio(given, self.name, track)
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
        floats = self._encoded is None or self._encoded.holds_floats
        channel = None if self._channel == "mix" else self._channel
        resampler = on_device(self._array, channel, self.rate, self.target_rate)
        self._array = None
        mono = MonoResampler(self.rate, self.target_rate, self.name, self._full_scale, self._channel, floats, resampler)
        given = 0
        try:
            for block in self._raw:
                refused = None
                try:
                    samples = mono.push(block)
                except AudioError as error:
                    refused = error
                    samples = mono.push(block[: mono.first_refused(block)])  # what came before it is good
                self.duration = mono.duration
                given += len(samples)
                if len(samples):
                    yield samples
                if refused is not None:
                    raise refused
        finally:
            self.close()
            remarks = () if self._encoded is None else self._encoded.remarks
            if self._encoded is not None and self._encoded.holds_32_bits and (small := _small_scale(mono.highest)):
                remarks += (small,)
            self.warnings = (*remarks, *mono.warnings())  # of a part, too, if it breaks off
        if not mono.frames:
            raise AudioError(f"{self.name}: no samples{f' ({remarks[0]})' if remarks else ''}")
        samples = mono.finish()
        if not given + len(samples):
            raise AudioError(f"{self.name}: shorter than one sample at {self.target_rate} Hz")
        if len(samples):
            yield samples


def _sound_blocks(sound: soundfile.SoundFile) -> Iterator[Samples]:
    """Yield what is left to read of a file that the caller has opened with soundfile."""
    step = max(1, BLOCK_VALUES // sound.channels)
    while len(block := sound.read(step, dtype="float32", always_2d=True)):
        yield block


def pcm_blocks(frames: npt.NDArray[Any], name: str) -> Iterator[Samples]:
    """Return float32 blocks of `frames` `[frames, channels]`, float or integer PCM.

    Raises:
        AudioError: the values are of another kind.
    """
    kind = frames.dtype.newbyteorder("=")  # astype below swaps the bytes where it must
    if kind == np.uint8:
        scale, offset = 1.0 / 128.0, -1.0
    elif kind in (np.int8, np.int16, np.int32):
        if kind == np.int32:
            _refuse_small(frames, name)
        scale, offset = 1.0 / -float(np.iinfo(kind).min), 0.0
    elif kind.kind == "f":
        scale, offset = 1.0, 0.0
    else:
        how = "pass floats or integer PCM up to 32 bit"
        raise AudioError(f"{name}: cannot take an array of {str(frames.dtype)[:40]}: {how}{_instead_of(frames)}")
    return _scaled_blocks(frames, scale, offset)


def _instead_of(frames: npt.NDArray[Any]) -> str:
    """Return what to pass instead of an array of another kind, where that is clear."""
    kind = frames.dtype.kind
    if kind == "i" and np.abs(frames).max(initial=0) < 2**15:
        return ", here array.astype('int16'), which holds them all"
    if kind == "O" and isinstance(frames.flat[0], (int, float)):
        return ", here array.astype('float32')"
    if kind == "c":
        return ", here array.real"
    if frames.dtype == np.uint16:
        return ", here (array - 32768.0) / 32768"
    return ""


def _refuse_small(frames: npt.NDArray[Any], name: str) -> None:
    """Refuse 16-bit integers in 32: on that scale they are below -96 dB, where nothing is recorded."""
    highest = max(int(frames.max(initial=0)), -int(frames.min(initial=0)))
    if _LEAST_INT16 <= highest <= 2**15:
        raise AudioError(
            f"{name}: int32 that reach {highest}, where {2**31} is full scale: they are 16-bit integers (int16): "
            "pass array.astype('int16')"
        )


def _small_scale(highest: float) -> str | None:
    """Return what to say of a 32-bit file whose highest level is that of 16-bit integers; None of others."""
    value = round(highest * 2**31)
    if not _LEAST_INT16 <= value <= 2**15:
        return None
    return f"16-bit integers in a 32-bit file, by their level: they reach {value}, where {2**31} is full scale"


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
