"""Answers for the segments of a diarisation or a transcript, in one pass over the recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .audio.reader import SHORT_SECONDS, AudioReader, Samples
from .backends.base import Backend
from .batch import Batcher
from .errors import AudioError
from .prediction import Segment
from .segments import Turn
from .windows import require_batch_size

_LONGEST = 300.0  # seconds of one segment that are held at once; a longer one is answered in parts


def answer_turns(
    backend: Backend,
    turns: list[Turn],
    reader: AudioReader,
    progress: Callable[[float], object] | None,
    *,
    batch_size: int,
    vad_filter: bool,
) -> tuple[list[Segment], AudioError | None]:
    """Return the segments with the answers that `EmotionClassifier.predict` gives for their samples, in their order.

    Segments may overlap, come in any order and reach beyond the end: then the samples that exist are used. Memory is
    bounded by the segments that are open at the same time, 5 minutes of each at most.

    Returns:
        The segments, and the error that ended the recording early, if there was one.
    """
    rate, labels = backend.config.frontend.sampling_rate, backend.config.labels
    batcher = Batcher(backend, sampling_rate=rate, batch_size=require_batch_size(batch_size), vad_filter=vad_filter)
    bounds = [(round(turn.start * rate), round(turn.end * rate)) for turn in turns]
    owners: list[int] = []  # the segment of each piece that has been sent
    fault: AudioError | None = None

    def pieces() -> Iterator[Samples]:
        """Yield the samples of every segment once it has ended, long ones in parts."""
        nonlocal fault
        waiting = sorted(range(len(turns)), key=lambda index: turns[index].start, reverse=True)
        held: dict[int, list[Samples]] = {}
        position = 0
        try:
            for block in reader:
                end = position + len(block)
                while waiting and bounds[waiting[-1]][0] < end:
                    held[waiting.pop()] = []
                for index, parts in list(held.items()):
                    first, last = bounds[index]
                    part = block[max(0, first - position) : max(0, last - position)]
                    if len(part):
                        parts.append(part.copy())
                    if last <= end or sum(map(len, parts)) >= _LONGEST * rate:
                        held[index] = []
                        if parts:
                            owners.append(index)
                            yield np.concatenate(parts)
                    if last <= end:
                        del held[index]
                position = end
                if progress is not None:
                    progress(reader.duration)
        except AudioError as error:
            fault = error
        for index, parts in held.items():
            if parts:
                owners.append(index)
                yield np.concatenate(parts)

    sums = np.zeros((len(turns), len(labels)))
    speech = np.zeros(len(turns))
    for number, clip in enumerate(batcher.run(pieces())):
        if clip.error is None and clip.speech:
            sums[owners[number]] += clip.speech * clip.means()[0]
            speech[owners[number]] += clip.speech
    segments = [
        Segment(
            turn.start,
            turn.end,
            dict(zip(labels, map(float, total / (spoken or 1.0)), strict=True)),
            float(spoken),
            speaker=turn.speaker,
            text=turn.text,
        )
        for turn, total, spoken in zip(turns, sums, speech, strict=True)
    ]
    return segments, fault


def remarks(turns: list[Turn], duration: float) -> Iterator[str]:
    """Yield warnings about segments that do not fit a recording of `duration` seconds."""
    tenth = 0.1  # transcripts round, and their last segment may end a little late
    counts = {
        "begin after the end of the recording": sum(turn.start >= duration for turn in turns),
        "end after the end of the recording": sum(turn.start < duration < turn.end - tenth for turn in turns),
        "are empty": sum(turn.start == turn.end for turn in turns),
        f"are shorter than {SHORT_SECONDS} s": sum(0 < turn.end - turn.start < SHORT_SECONDS for turn in turns),
    }
    for what, count in counts.items():
        if count:
            yield f"segments that {what}: {count} of {len(turns)}"
