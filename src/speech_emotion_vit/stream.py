"""Emotion in live audio."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .audio.inputs import as_array, describe
from .audio.reader import Channel, MonoResampler, check_rate, pcm_blocks
from .errors import AudioError, ConfigError, quoted
from .prediction import Choice, Segment
from .windows import NOBODY, Segmenter, seconds

if TYPE_CHECKING:
    import torch


MAX_CHANNELS = 8  # of a first chunk that has fewer samples
MAX_GAP = 86_400.0  # seconds


class EmotionStream:
    """Live audio in, segments out: those of `EmotionClassifier.timeline` for the same audio, whatever the chunks are.

    `EmotionClassifier.stream` makes it. A segment is returned by the push that completes its window; the resampler
    delays audio at another rate than the model's by some milliseconds. At most two windows of audio are kept. Use it
    from one thread at a time. As a context manager it is closed at the end of the block, and segments that `flush` has
    not returned are lost.
    """

    def __init__(
        self,
        new_segmenter: Callable[[], Segmenter],
        choice: Choice,
        *,
        sampling_rate: int,
        target_rate: int,
        channel: Channel,
    ) -> None:
        self._new_segmenter, self._choice = new_segmenter, choice
        self._rate, self._target_rate = check_rate(sampling_rate, "stream"), target_rate
        self._channel = channel
        self._channels: int | None  # of the chunks, known from the first one
        self.reset()

    @property
    def sampling_rate(self) -> int:
        """Hz of the chunks."""
        return self._rate

    @property
    def duration(self) -> float:
        """Seconds of audio so far."""
        return self._mono.duration

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to trust the answers so far less, as in `Prediction.warnings`."""
        nobody = (NOBODY,) if self._segmenter.speechless else ()
        return (*nobody, *self._mono.warnings()) if self._mono.frames else ()

    def push(self, chunk: npt.NDArray[Any] | torch.Tensor, *, sampling_rate: int | None = None) -> list[Segment]:
        """Return the segments, possibly none, that a chunk completes.

        If the network fails, or Ctrl-C interrupts it, the chunk is not lost: the next call returns its segments too.

        Args:
            chunk: a numpy array or torch tensor, `[samples]` or `[channels, samples]`, of any length including none,
                float or integer PCM. The number of channels must not change. If there are more than 8 channels, the
                first chunk needs more samples than channels, because else it looks transposed.
            sampling_rate: Hz, for sources that give it with every chunk: it must be that of the stream.

        Raises:
            AudioError: the chunk has another type, shape, rate or channel count, or holds NaN or infinite values. The
                stream stays as it was.
            ConfigError: the stream has been flushed.
        """
        self._check_open()
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise AudioError(
                f"stream: a chunk at {quoted(sampling_rate)} Hz in a stream at {self.sampling_rate} Hz: flush it and "
                "start another, or resample the chunk"
            )
        frames = self._frames(chunk)
        if not frames.size:
            return []
        chunk = np.concatenate(list(pcm_blocks(frames, "stream")))
        samples = self._mono.push(chunk)  # whole, so that a refused one leaves no trace
        self._channels = frames.shape[1]
        return [*map(self._choice.apply, self._segmenter.push(samples))]

    def gap(self, duration: float) -> list[Segment]:
        """Return the segments, possibly none, that `duration` seconds of missing audio complete.

        They count as silence, so that the times of later segments are right.

        Raises:
            ConfigError: it is not a number from 0 to 86,400 seconds, a day, or the stream has been flushed.
        """
        self._check_open()
        if seconds("gap", duration) > MAX_GAP:
            raise ConfigError(
                f"gap must be at most {MAX_GAP:,.0f} seconds, not {quoted(duration)}: call reset() to begin anew"
            )
        missing = round(duration * self.sampling_rate)
        segments: list[Segment] = []
        while missing:
            step = min(missing, self.sampling_rate)
            segments += self._segmenter.push(self._mono.push(np.zeros((step, 1), np.float32)))
            missing -= step
        return [*map(self._choice.apply, segments)]

    def reset(self) -> None:
        """Begin anew: the next chunk starts a recording at 0 s, with any number of channels."""
        self._mono = MonoResampler(self._rate, self._target_rate, "stream", channel=self._channel)
        self._segmenter = self._new_segmenter()
        self._channels = None
        self._flushed = False

    def flush(self) -> list[Segment]:
        """Return the last segments; the last window ends where the audio ends. Only `reset` can follow."""
        if not self._flushed:
            self._segmenter.take(self._mono.finish())
            self._flushed = True
        # None the second time, unless the first was interrupted.
        return [*map(self._choice.apply, self._segmenter.finish())]

    def _check_open(self) -> None:
        if self._flushed:
            raise ConfigError("the stream has been flushed: call reset() to begin anew")

    def _frames(self, chunk: object) -> npt.NDArray[Any]:
        """Return `[frames, channels]`."""
        array = as_array(chunk, "stream")
        if array is None:
            raise AudioError(
                f"stream: a chunk must be a numpy array or a torch tensor, not {type(chunk).__name__}: "
                "for bytes use numpy.frombuffer(chunk, 'int16'), for audio that is missing gap(seconds)"
            )
        if array.ndim not in (1, 2):
            raise AudioError(f"stream: a chunk must be [samples] or [channels, samples], not {describe(array)}")
        if array.ndim == 1:
            frames = array[:, None]
        else:
            rows, columns = array.shape
            # sounddevice gives [samples, channels]. A first chunk of few columns, or the layout so far, shows that.
            turned = rows > MAX_CHANNELS >= columns if self._channels is None else rows != self._channels == columns
            frames = array if turned else array.T
        channels = frames.shape[1]
        if not array.size:
            return frames
        if self._channels is None and channels > max(len(frames), MAX_CHANNELS):
            raise AudioError(f"stream: {channels} channels of {len(frames)} samples: pass chunk.T")
        if self._channels not in (None, channels):
            raise AudioError(f"stream: a chunk of {channels} channels in a stream of {self._channels}: keep one layout")
        return frames

    def __enter__(self) -> EmotionStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.reset()
        self._flushed = True

    def __repr__(self) -> str:
        state = "flushed" if self._flushed else "open"
        return f"<EmotionStream {self.sampling_rate} Hz, {self.duration:.2f} s so far, {state}>"
