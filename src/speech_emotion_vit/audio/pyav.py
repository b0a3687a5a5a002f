"""What libsndfile does not know, read by FFmpeg through PyAV: packet by packet, each at the time the file gives it.

Imported only where PyAV is installed. A packet that is damaged is lost alone, and where the times leave a hole there is
silence, so that whatever follows keeps its time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from ..errors import AudioError, one_line, printable
from .sndfile import loss

# FFmpeg also reads lists of other files and addresses on the network: these demuxers read one file alone.
_DEMUXERS = (
    *("aac", "ac3", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "dsf", "dts", "eac3", "flac", "flv", "gsm"),
    *("loas", "matroska,webm", "mlp", "mov,mp4,m4a,3gp,3g2,mj2", "mp3", "mpc", "mpc8", "mpeg", "mpegts", "nut"),
    *("ogg", "rm", "shn", "tak", "truehd", "tta", "w64", "wav", "wv"),
)
_OPTIONS = {"format_whitelist": ",".join(_DEMUXERS), "protocol_whitelist": ""}
_TELLING = ("ape", "flac", "flv", "matroska", "mov", "tta", "wv")  # whose headers say how long they are
_BLOCK_VALUES = 1 << 16  # values (frames x channels) gathered from the small pieces of a codec, 256 KiB
_MOST_TRIES = 100  # in a row, to go on behind a place that the demuxer cannot read

_SLACK = 0.25  # seconds that encoders add at the start and the end
_HOLE = 0.1  # seconds; what is shorter is no hole, as with FFmpeg's aresample=async=1
_ROUNDED = 0.002  # seconds; some formats have times in whole milliseconds
_BACK = 1.0  # seconds; times that fall back by more begin anew, as where recordings were joined
_MOST_SILENCE = 3600.0  # seconds that fill holes, or as many as the file says it has, up to a day
_DAY = 86_400.0  # seconds

_SUBTYPES = {"pcm_mulaw": "ULAW", "pcm_alaw": "ALAW", "pcm_u8": "PCM_U8", "pcm_s8": "PCM_S8", "pcm_s32le": "PCM_32"}

Block = npt.NDArray[np.float32]


class AvAudio:
    """One audio track of a file, opened: iterate once for its blocks `[frames, channels]` of float32.

    Args:
        file: the whole of it, which keeps errors for its `check`; see `decode.py`.
        name: what messages call it.
        track: the number of the track; None is the one marked as default.
        stack: closes what is opened here.

    Raises:
        ValueError: it is nothing that FFmpeg knows.
        AudioError: it has no such track.
    """

    def __init__(self, file: Any, name: str, track: int | None, stack: contextlib.ExitStack) -> None:
        self._file, self._name = file, name
        self.remarks: list[str] = []
        """Why what came out is not all that was recorded; complete at the end."""
        self._streamed = _is_streamed_avi(file)
        try:
            self._container: Any = stack.enter_context(
                av.open(file, mode="r", container_options=_OPTIONS, metadata_errors="replace")
            )
        except (av.FFmpegError, OSError) as error:
            raise ValueError(one_line(error)) from error
        self._stream = self._choose(track)
        if hasattr(av.stream, "Discard"):  # not before PyAV 16
            for stream in self._container.streams:
                if stream is not self._stream:
                    stream.discard = av.stream.Discard.all  # hours of pictures need not be read
        self.rate = int(self._stream.rate)
        self.channels = int(self._stream.codec_context.channels)
        self.subtype = _SUBTYPES.get(self._stream.codec_context.name, "")
        """The coding as libsndfile names it, where its level needs attention."""
        self._times = _Times(self.rate, self._origin(), self._length())
        self._lost = 0  # packets
        self._lost_since = 0  # the last good one
        self._first_lost = 0.0  # seconds

    def __iter__(self) -> Iterator[Block]:
        gathered: list[Block] = []
        values = 0
        for block in self._times.place(self._frames()):
            gathered.append(block)
            values += block.size
            if values >= _BLOCK_VALUES:
                yield np.concatenate(gathered)
                gathered, values = [], 0
        if gathered:
            yield np.concatenate(gathered)
        self._file.check(self._name)
        self._remark()

    def _choose(self, track: int | None) -> Any:
        streams = list(self._container.streams.audio)
        known = [stream for stream in streams if stream.codec_context is not None and stream.rate]
        if not known:
            raise ValueError("no audio that PyAV knows")
        if track is not None:
            if track >= len(streams):
                raise AudioError(f"{self._name}: has {tracks(len(streams))}: track={track} is not there")
            if streams[track] not in known:
                raise AudioError(f"{self._name}: track {track} has a coding that PyAV does not know: choose another")
            return streams[track]
        # As ffmpeg does: the default flag decides, then the number of channels, then the order.
        best = max(known, key=lambda stream: (_is_default(stream), stream.codec_context.channels))
        if len(streams) > 1:
            title = best.metadata.get("title") or best.metadata.get("language", "und")
            said = "" if title == "und" else f" ({printable(title[:40])})"  # undetermined
            self.remarks.append(f"{tracks(len(streams))}: {streams.index(best)}{said} was heard, choose with track=")
        return best

    def _origin(self) -> float | None:
        """Return where time begins, in seconds: with the track that begins first, be it of pictures.

        None is with the sound, where that is all there is.
        """
        start = self._container.start_time
        return None if start is None or len(self._container.streams) == 1 else float(start) / 1e6

    def _length(self) -> float | None:
        """Return how long the file is, in seconds; None of formats that do not say, for which FFmpeg guesses."""
        form, duration = self._container.format.name.partition(",")[0], self._container.duration
        if not duration or form not in _TELLING:
            return None
        return float(duration - (self._container.start_time or 0) * (form == "matroska")) / 1e6

    def _announced(self) -> float | None:
        """Return how long the header says the track is; None where it does not."""
        stream = self._stream
        if self._container.format.name.startswith(("mov", "avi")) and stream.duration and not self._streamed:
            return float(stream.duration * stream.time_base)
        return self._length() if len(self._container.streams) == 1 else None

    def _packets(self) -> Iterator[Any]:
        """Yield the packets of the track, None for what the demuxer cannot read."""
        tries = 0
        packets = self._container.demux(self._stream)
        while tries < _MOST_TRIES:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError, ValueError):
                self._file.check(self._name)
                tries += 1
                packets = self._container.demux(self._stream)
                packet = None
            else:
                tries = 0
            yield packet

    def _frames(self) -> Iterator[_Frame]:
        convert = _Converter(self.rate)
        lost = False
        for packet in self._packets():
            self._file.check(self._name)
            try:
                found = None if packet is None else [(frame.time, convert(frame)) for frame in packet.decode()]
            except (av.FFmpegError, ValueError):
                found = None if packet.size else []  # the last one is empty and asks for what is left
            if found is None:
                self._first_lost = self._first_lost if self._lost else self._times.seconds
                self._lost += 1
                self._lost_since += 1
                lost = True
                continue
            for time, block in found:
                if len(block):
                    yield _Frame(block, time, lost)
                    lost, self._lost_since = False, 0

    def _remark(self) -> None:
        times, announced = self._times, self._announced()
        heard = times.seconds - times.late
        truncated = announced is not None and heard < announced - _SLACK
        within = self._lost - self._lost_since
        if within:
            self.remarks.append(loss(within, "packet", self._first_lost, times.patched))
        if truncated:
            # An AVI counts the parts of a hole, too, and FFmpeg leaves them out.
            what = "incomplete" if self._container.format.name == "avi" else "truncated"
            self.remarks.append(f"{what}: {heard:.2f} of {announced:.2f} s could be read")
        elif self._lost_since:
            self.remarks.append(loss(self._lost_since, "packet", times.seconds, 0.0))
        self.remarks += times.remarks()


@dataclass(frozen=True)
class _Frame:
    """What a decoder gave: samples `[frames, channels]`, their time in seconds, and whether a loss came before."""

    block: Block
    time: float | None
    after_loss: bool


class _Times:
    """Frames put where their times say: silence in holes, and nothing else moved.

    A jump counts once the next frame confirms it, for a damaged time stands alone.
    """

    def __init__(self, rate: int, origin: float | None, length: float | None) -> None:
        self._rate = rate
        self._origin = origin  # seconds; None is the time of the first frame
        self._most = min(max(_MOST_SILENCE, length or 0.0), _DAY)  # seconds of silence
        self._done = 0  # samples
        self._filled = 0.0  # seconds of silence
        self.late = 0.0  # of them before the first frame
        self.patched = 0.0  # of them for what was lost
        self._holes: list[float] = []  # where the others are
        self._restarts: list[float] = []  # where times began anew

    @property
    def seconds(self) -> float:
        """How long what was given is."""
        return self._done / self._rate

    def place(self, frames: Iterator[_Frame]) -> Iterator[Block]:
        """Yield what is in the frames, and silence where nothing is."""
        held: _Frame | None = None  # behind a jump that is to be confirmed
        for frame in frames:
            if held is not None:
                if self._confirms(frame, held):
                    yield from self._jump(held)
                yield self._counted(held.block)
            held = frame if self._jumps(frame) else None
            if held is None:
                yield self._counted(frame.block)
        if held is not None:
            yield self._counted(held.block)

    def remarks(self) -> Iterator[str]:
        """Yield what was done to keep the times."""
        if self.late:
            yield f"begins {self.late:.2f} s after the pictures or the other tracks: that time is silent"
        if self._holes:
            number = "a hole" if len(self._holes) == 1 else f"{len(self._holes)} holes"
            seconds = self._filled - self.late - self.patched
            yield f"{number} of {seconds:.2f} s, {_places(self._holes)}: filled with silence"
        if self._restarts:
            yield f"its times jump {_places(self._restarts)}: taken as if nothing were missing there"

    def _gap(self, frame: _Frame) -> float:
        """Return how many seconds are missing before a frame; fewer than none where times fall back."""
        if frame.time is None:
            return 0.0
        if self._origin is None:
            self._origin = frame.time - self.seconds
        return frame.time - self._origin - self.seconds

    def _jumps(self, frame: _Frame) -> bool:
        gap = self._gap(frame)
        return gap > (1 / self._rate if frame.after_loss else _HOLE) or gap < -_BACK

    def _confirms(self, frame: _Frame, held: _Frame) -> bool:
        if frame.time is None or held.time is None:
            return False
        beyond = frame.time - held.time - len(held.block) / self._rate
        return abs(beyond) < _HOLE or (frame.after_loss and beyond > 0)

    def _jump(self, frame: _Frame) -> Iterator[Block]:
        gap = self._gap(frame)
        assert self._origin is not None
        if not 0 < gap <= self._most - self._filled:
            self._restarts.append(self.seconds)
            self._origin += gap
            return
        if not self._done:
            self.late = gap
        elif frame.after_loss:
            self.patched += gap
        else:
            self._holes.append(self.seconds)
        self._filled += gap
        channels = frame.block.shape[1]
        step = max(1, _BLOCK_VALUES // channels)
        missing, size = round(gap * self._rate), len(frame.block)
        if frame.after_loss and abs(missing - (whole := round(missing / size) * size)) < _ROUNDED * self._rate:
            missing = whole  # frames
        for start in range(0, missing, step):
            yield self._counted(np.zeros((min(step, missing - start), channels), np.float32))

    def _counted(self, block: Block) -> Block:
        self._done += len(block)
        return block


class _Converter:
    """Frames of any kind become `[frames, channels]` of float32, all at one rate and in the layout of the first."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._shape: tuple[Any, ...] = ()
        self._layout: Any = None

    def __call__(self, frame: Any) -> Block:
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if shape != self._shape:  # may change on the way
            self._shape = shape
            self._layout = self._layout or frame.layout
            # Packed, for planes beyond 8 make PyAV crash.
            self._resampler = av.AudioResampler(format="flt", layout=self._layout, rate=self._rate)
        frame.pts = None
        found = [piece.to_ndarray().reshape(-1, piece.layout.nb_channels) for piece in self._resampler.resample(frame)]
        return np.concatenate(found) if found else np.zeros((0, self._layout.nb_channels), np.float32)


def _is_streamed_avi(file: Any) -> bool:
    """Return whether a file is an AVI whose sizes were never written; so is its length."""
    file.seek(0)
    head = file.read(12)
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    return head[8:] == b"AVI " and not 0 < int.from_bytes(head[4:8], "little") <= end


def tracks(number: int) -> str:
    """Return how many audio tracks there are and how they are numbered."""
    return "one audio track, 0" if number == 1 else f"{number} audio tracks, 0 to {number - 1}"


def _places(seconds: list[float]) -> str:
    return f"at {seconds[0]:.2f} s" if len(seconds) == 1 else f"the first at {seconds[0]:.2f} s"


def _is_default(stream: Any) -> bool:
    """Return whether the file calls a track its default; PyAV gives a flag, in newer versions one that is a number."""
    disposition = stream.disposition
    return bool(int(getattr(disposition, "value", disposition)) & 1)
