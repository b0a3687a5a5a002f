"""What libsndfile knows: WAV, FLAC, MP3, Ogg and twenty more, as blocks of float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from ..errors import one_line
from .containers import Container

BLOCK_VALUES = 1 << 18  # values (frames x channels) decoded at a time, 1 MiB of float32
_MOST_LOSSES = 1000  # damaged places of a FLAC that are passed

Block = npt.NDArray[np.float32]


class SndAudio:
    """A recording that libsndfile reads, opened: iterate once for its blocks `[frames, channels]` of float32.

    Args:
        file: the whole of it, which keeps errors for its `check`; see `decode.py`.
        name: what messages call it.
        stack: closes what is opened here.

    Raises:
        ValueError: libsndfile does not know it.
    """

    def __init__(self, file: Any, name: str, stack: contextlib.ExitStack) -> None:
        self._file, self._name, self._stack = file, name, stack
        self.remarks: list[str] = []
        """Why what came out is not all that was recorded; complete at the end."""
        try:
            self._sound: Any = stack.enter_context(_Sequential(file))
        except (soundfile.SoundFileError, TypeError) as error:
            raise ValueError(one_line(error)) from error
        self.rate = int(self._sound.samplerate)
        self.channels = int(self._sound.channels)
        self.subtype = str(self._sound.subtype)
        place = file.tell()
        self.container = Container(file, self._sound.format, self.subtype, self._sound.frames)
        file.seek(place)
        self._step = max(1, min(BLOCK_VALUES // self.channels, self._sound.frames))  # frames in a block
        self._done = 0  # frames

    def __iter__(self) -> Iterator[Block]:
        lost: list[tuple[int, int]] = []  # where FLAC frames were damaged, and where it goes on
        while self._done < self._sound.frames:  # beyond, libsndfile gives nothing, whatever is there
            block, fault = self._read()
            self._file.check(self._name)
            if not len(block) and not fault:
                break
            self._done += len(block)
            yield block
            if not fault:
                continue
            place = self._pass_damage() if len(lost) < _MOST_LOSSES else None
            self._file.check(self._name)
            if place is None:
                self.remarks.append(f"damaged after {self._seconds(self._done)}: {fault}")
                break
            lost.append((self._done, place))
            while self._done < place:
                silence = np.zeros((min(self._step, place - self._done), self.channels), np.float32)
                self._done += len(silence)
                yield silence
        self._remark(lost)

    def _read(self) -> tuple[Block, str | None]:
        """Return the next block, empty at the end, and what stopped it before it was whole."""
        # libsndfile turns integers to floats in pieces of 8 KiB, each a call back to Python, but reads 16 bits at once.
        kind: type[np.generic] = np.int16 if self.subtype == "PCM_16" else np.float32
        block: Any = np.zeros((self._step, self.channels), kind)
        before, self._file.ended = self._file.filled, False
        fault = None
        try:
            block = self._sound.read(out=block)
        except soundfile.SoundFileError as error:
            fault = one_line(error)
            block = block[: max(0, self._sound.tell() - self._done)]  # what was decoded before the damage is good
        if not fault and len(block) == self._step and self._file.ended and self._file.filled == before:
            block = block[:0]  # some decoders go on after the end, for as long as the header claims
        return block if kind is np.float32 else block * np.float32(2.0**-15), fault

    def _pass_damage(self) -> int | None:
        """Go on behind a damaged frame of a FLAC and return where; None where nothing good follows, or of others.

        libsndfile reads no more from what it found damaged, so it is opened anew.
        """
        size = self.container.flac_block
        while size and self._done + size < self._sound.frames:
            self._file.seek(0)
            try:
                sound = self._stack.enter_context(_Sequential(self._file))
                sound.seek(self._done + size)
            except soundfile.SoundFileError:
                size *= 2  # more may be damaged
                continue
            self._sound = sound
            return self._done + size
        return None

    def _remark(self, lost: list[tuple[int, int]]) -> None:
        if lost:
            silent = sum(end - start for start, end in lost)
            self.remarks.append(loss(len(lost), "frame", lost[0][0] / self.rate, silent / self.rate))
        if self.remarks and not lost:
            return
        announced, form = self.container.frames, self._sound.format
        if announced is not None and self._done < announced:
            read = f"{self._seconds(self._done).removesuffix(' s')} of {self._seconds(announced)}"
            self.remarks.append(f"truncated: {read} could be read")
        elif self.container.has_more(self._file.tell()):
            how = "ffmpeg -ignore_length 1" if form in ("WAV", "WAVEX") else "ffmpeg"
            self.remarks.append(
                f"incomplete: {self._seconds(self._done)} were read, for its header says that it ends there, "
                f"but more audio follows: convert the file with {how}"
            )
        elif self.container.is_cut_off():
            self.remarks.append(
                f"truncated after {self._seconds(self._done)}: the last page of the Ogg stream is missing"
            )

    def _seconds(self, frames: int) -> str:
        return f"{frames / self.rate:.2f} s"


def loss(number: int, what: str, first: float, silent: float) -> str:
    """Return what is said of damaged parts that were left out, with the seconds of the first and of the silence."""
    parts = f"1 {what} was lost" if number == 1 else f"{number} {what}s were lost, the first"
    return f"damaged: {parts} after {first:.2f} s" + (f", {silent:.2f} s are silent instead" if silent else "")


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """Read from start to end, without the seek that soundfile otherwise adds to every read."""

    def seekable(self) -> bool:
        return False
