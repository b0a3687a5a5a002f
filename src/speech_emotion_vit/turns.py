"""Answers for segments that others have cut, in one pass over a recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .audio.reader import SHORT_SECONDS, AudioReader, Samples
from .backends.base import Backend
from .batch import Batcher
from .errors import AudioError
from .prediction import Segment
from .segments import Turn
from .windows import require_batch_size

_LONGEST = 300.0  # seconds held at once: what is longer is heard in parts


class TurnAnswers:
    """Say of every segment what `EmotionClassifier.predict` says of its samples.

    Segments may overlap, come in any order and reach beyond the end: what of them is there is heard. Memory is bounded
    by those that are open at the same time, 5 minutes of each at most.

    Args:
        backend: the network.
        turns: the segments.
        batch_size: windows that go through the network at once.
        options: more for `Batcher`.

    Attributes:
        fault: what ended the recording early.
    """

    def __init__(self, backend: Backend, turns: list[Turn], *, batch_size: int, **options: Any) -> None:
        self._backend = backend
        self._turns = turns
        self._rate = backend.config.frontend.sampling_rate
        self._batcher = Batcher(backend, sampling_rate=self._rate, batch_size=require_batch_size(batch_size), **options)
        self._sent: list[int] = []  # of which segment each piece is
        self.fault: AudioError | None = None

    def run(self, reader: AudioReader, progress: Callable[[float], object] | None = None) -> tuple[Segment, ...]:
        """Return the segments with their answers, in the order they were given."""
        labels = self._backend.config.labels
        sums = np.zeros((len(self._turns), len(labels)))
        speech = np.zeros(len(self._turns))
        for number, clip in enumerate(self._batcher.run(self._pieces(reader, progress))):
            if clip.error is None and clip.speech:
                turn = self._sent[number]
                sums[turn] += clip.speech * clip.means()[0]
                speech[turn] += clip.speech
        return tuple(
            Segment(
                turn.start,
                turn.end,
                dict(zip(labels, map(float, total / (spoken or 1.0)), strict=True)),
                float(spoken),
                speaker=turn.speaker,
                text=turn.text,
            )
            for turn, total, spoken in zip(self._turns, sums, speech, strict=True)
        )

    def _pieces(self, reader: AudioReader, progress: Callable[[float], object] | None) -> Iterator[Samples]:
        """Yield the samples of every segment once it has ended, long ones in parts."""
        waiting = sorted(range(len(self._turns)), key=lambda index: self._turns[index].start, reverse=True)
        held: dict[int, list[Samples]] = {}
        position = 0
        try:
            for block in reader:
                end = position + len(block)
                while waiting and self._first(waiting[-1]) < end:
                    held[waiting.pop()] = []
                for index in list(held):
                    part = block[max(0, self._first(index) - position) : max(0, self._last(index) - position)]
                    if len(part):
                        held[index].append(part.copy())
                    if self._last(index) <= end:
                        yield from self._piece(index, held.pop(index))
                    elif sum(map(len, held[index])) >= _LONGEST * self._rate:
                        yield from self._piece(index, held[index])
                        held[index] = []
                position = end
                if progress is not None:
                    progress(reader.duration)
        except AudioError as error:
            self.fault = error
        for index, parts in held.items():
            yield from self._piece(index, parts)

    def _piece(self, index: int, parts: list[Samples]) -> Iterator[Samples]:
        if any(map(len, parts)):
            self._sent.append(index)
            yield np.concatenate(parts)

    def _first(self, index: int) -> int:
        return round(self._turns[index].start * self._rate)

    def _last(self, index: int) -> int:
        return round(self._turns[index].end * self._rate)


def remarks(turns: list[Turn], duration: float) -> Iterator[str]:
    """Yield what is wrong with segments of a recording of `duration` seconds."""
    tenth = 0.1  # transcripts round, and their last segment may end a little late
    counts = {
        "begin behind the end of the recording": sum(turn.start >= duration for turn in turns),
        "end behind the end of the recording": sum(turn.start < duration < turn.end - tenth for turn in turns),
        "are empty": sum(turn.start == turn.end for turn in turns),
        f"are shorter than {SHORT_SECONDS} s": sum(0 < turn.end - turn.start < SHORT_SECONDS for turn in turns),
    }
    for what, count in counts.items():
        if count:
            yield f"segments that {what}: {count} of {len(turns)}"
