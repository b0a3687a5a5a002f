"""Many clips through one network: threads decode while it runs, and clips of similar length run together."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from .audio.reader import AudioInput, AudioReader, Channel, check_channel, check_track
from .backends.base import Backend, Floats
from .errors import AudioError
from .windows import SILENT_WEIGHT, ClipWindows, Window, padded

_PORTION = 16  # windows decoded at a time, 6 MB, because a clip may have any length
_AHEAD = 16  # clips being decoded ahead of the network
_POOL = 4  # batches that are gathered before they are sorted by length


class Clip:
    """One clip on its way through the network.

    Attributes:
        duration: seconds, once all of it has been read.
        speech: seconds of speech.
        warnings: reasons to trust the answer less.
        error: the error that reading it raised.
    """

    def __init__(self, source: AudioInput) -> None:
        self.duration = 0.0
        self.speech = 0.0
        self.warnings: tuple[str, ...] = ()
        self.error: AudioError | None = None
        self.source: AudioInput | None = source  # None once it has been opened
        self.complete = False  # all its windows have been gathered
        self.reader: AudioReader | None = None
        self.cut: ClipWindows | None = None
        self.windows: Iterator[Window] = iter(())
        self.waiting = 0  # windows in the pool
        self._weight = 0.0
        self._sums: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None

    def add(self, weight: float, probabilities: Floats, embedding: Floats) -> None:
        """Add the results of one window, `[classes]` and `[dim]`."""
        row = (weight * probabilities.astype(np.float64), weight * embedding.astype(np.float64))
        self._sums = row if self._sums is None else (self._sums[0] + row[0], self._sums[1] + row[1])
        self._weight += weight
        self.waiting -= 1

    def means(self) -> tuple[Floats, Floats]:
        """Return the weighted mean over the windows of probabilities `[classes]` and embedding `[dim]`."""
        assert self._sums is not None  # a clip without an error has a window
        return (self._sums[0] / self._weight).astype(np.float32), (self._sums[1] / self._weight).astype(np.float32)

    @property
    def ready(self) -> bool:
        """Whether all of it has been read and been through the network."""
        return self.complete and not self.waiting


class Batcher:
    """Run clips through a backend, in order, in bounded memory.

    Threads decode paths and bytes. Arrays and file objects are read when they are taken from the iterable, because
    their owner may change or close them afterwards. At most 4 batches and 16 portions of 16 windows are held: 200 MB
    with batches of 64 windows of 6 s, whatever the number and the length of the clips.

    Args:
        backend: the network.
        sampling_rate: Hz of the arrays among the clips.
        channel: of every clip, ``mix`` or the number of one.
        track: of every clip; None is the default one.
        vad_filter: whether parts without speech are left out.
        skip_rate: whether `sampling_rate` is ignored for files instead of refused.
        batch_size: windows that go through the network at once.
        threads: number of decoding threads; 0 decodes in the caller's thread.
        clip: class of the clips, for callers that collect more from every window.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        sampling_rate: int | None,
        vad_filter: bool,
        channel: Channel = "mix",
        track: int | None = None,
        batch_size: int = 16,
        threads: int = 0,
        skip_rate: bool = False,
        clip: type[Clip] = Clip,
    ) -> None:
        self._backend = backend
        self._sampling_rate = sampling_rate
        self._selection: dict[str, Any] = {"channel": check_channel(channel), "track": check_track(track)}
        self._vad_filter = vad_filter
        self._batch_size = batch_size
        self._threads = threads
        self._skip_rate = skip_rate
        self._clip = clip
        self._pool: list[tuple[Clip, Window]] = []

    def run(self, audios: Iterable[AudioInput]) -> Iterator[Clip]:
        """Yield every clip once all its windows have been through the network, in order."""
        order: deque[Clip] = deque()  # taken, not yet yielded
        decoding: deque[tuple[Clip, Future[tuple[list[Window], bool]]]] = deque()
        executor = ThreadPoolExecutor(self._threads, "decode") if self._threads else None
        try:
            for audio in audios:
                clip = self._clip(audio)
                order.append(clip)
                if executor is not None and isinstance(audio, (str, os.PathLike, bytes)):
                    decoding.append((clip, executor.submit(self._decode, clip)))
                    while len(decoding) >= _AHEAD:  # a long clip takes several turns
                        self._collect(decoding, executor)
                else:
                    while not clip.complete:
                        self._gather(clip, *self._decode(clip))
                while order and order[0].ready:
                    yield order.popleft()
            while decoding and executor is not None:
                self._collect(decoding, executor)
            self._drain()
            yield from order
        finally:
            if executor is not None:
                executor.shutdown(cancel_futures=True)

    def _collect(
        self, decoding: deque[tuple[Clip, Future[tuple[list[Window], bool]]]], executor: ThreadPoolExecutor
    ) -> None:
        """Wait for the first clip that is being decoded; a long one goes on, and stays first."""
        clip, future = decoding.popleft()
        portion, last = future.result()
        if not last:
            decoding.appendleft((clip, executor.submit(self._decode, clip)))
        self._gather(clip, portion, last)

    def _decode(self, clip: Clip) -> tuple[list[Window], bool]:
        """Return the next windows of a clip, and whether they are its last; runs in a thread."""
        try:
            if clip.reader is None:
                source: Any = clip.source
                clip.source = None
                frontend = self._backend.config.frontend
                clip.reader = AudioReader(
                    source,
                    sampling_rate=self._sampling_rate,
                    target_rate=frontend.sampling_rate,
                    skip_rate=self._skip_rate,
                    **self._selection,
                )
                clip.cut = ClipWindows(clip.reader, frontend, vad_filter=self._vad_filter)
                clip.windows = iter(clip.cut)
            portion = list(islice(clip.windows, _PORTION))
        except AudioError as error:
            clip.error = error
            return [], True
        if len(portion) == _PORTION:
            return portion, False
        assert clip.cut is not None  # made together with the reader
        clip.duration, clip.speech = clip.reader.duration, clip.cut.speech
        clip.warnings = (*clip.cut.warnings(), *clip.reader.warnings)
        return portion, True

    def _gather(self, clip: Clip, portion: list[Window], last: bool) -> None:
        clip.waiting += len(portion)
        clip.complete = last
        self._pool += [(clip, window) for window in portion]
        if len(self._pool) >= _POOL * self._batch_size:
            self._drain()

    def _drain(self) -> None:
        """Send the pool through the network, similar lengths together, because padding costs time too."""
        self._pool.sort(key=lambda item: len(item[1].samples))
        for first in range(0, len(self._pool), self._batch_size):
            group = self._pool[first : first + self._batch_size]
            results = self._backend.infer(padded([window.samples for _, window in group]))
            for (clip, window), *outputs in zip(group, *results, strict=True):
                clip.add(window.speech or SILENT_WEIGHT, *outputs)
        self._pool.clear()
