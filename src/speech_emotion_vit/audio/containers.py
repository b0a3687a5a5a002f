"""What the headers of audio files say that libsndfile does not tell: how much is announced, and whether more follows.

libsndfile's log says some of it, but also shows titles, which may look like anything. Nothing read here is trusted: a
size leads to a place that is read, or past the end of the file.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

_MOST_CHUNKS = 1000  # that are looked through for the one of the samples
# Bytes that writers announce who cannot go back to say how many there are: ffmpeg, sox and ALSA in a pipe.
_STREAMED = (range(0x7EFF_0000, 0x7F01_0000), range(0x7FFF_0000, 0x8001_0000), range(0xFFFF_0000, 1 << 32))
_OF_FRAMES = re.compile(rb"(?:Xing|Info)...[\x01\x03\x05\x07\x09\x0b\x0d\x0f]|VBRI", re.DOTALL)  # how many follow
_MPEG_FRAME = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")  # the start of one, layer III
_MPEG_KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # of MPEG 1, layer III
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # of MPEG 2 and 2.5
)
_MPEG_RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG 1; of MPEG 2 half, of 2.5 a quarter
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS", b"3DI")  # what may stand between or behind the frames of an MP3
_MANY_FRAMES = 20  # in a piece: 22 of the longest fit in, a random one has 3 that look like it
_PIECE = 1 << 15  # bytes
_MOST_PIECES = 32  # of what follows the announced end are looked through
_TRAILER = 4096  # bytes that may follow the chunks of a WAV unnoticed
_LARGEST_OGG_PAGE = 65_307  # bytes
_OGG_HEADER = 27  # bytes before the lengths of a page's parts, whose number is the last of them
_TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # every byte with its bits the other way round
_OPUS_HOLE = 4800  # samples at 48 kHz, 0.1 s
_OGG_BEGINNING, _OGG_END = 2, 4  # flags of the first and the last page of a stream


class SeekableFile(Protocol):
    """What is needed of a file; none of it raises."""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place and return it."""


def is_streamed(size: int) -> bool:
    """Return whether a size is one that stands for an unknown one."""
    return size == 0 or any(size in sizes for sizes in _STREAMED)


class Container:
    """The container of an open recording.

    Args:
        file: the whole of it; where it stands is changed here and in every method.
        kind: its format, as libsndfile names it.
        coding: of its samples, as libsndfile names it.
        frames: how many libsndfile expects.
    """

    def __init__(self, file: SeekableFile, kind: str, coding: str, frames: int) -> None:
        self._file = file
        self._kind = kind
        self._coding = coding
        self._start = _after_id3(file)
        self._data = self._data_chunk()
        self.frames: int | None = self._announced(frames)
        """How many the header promises, None where it does not say."""
        self.flac_block = int.from_bytes(self._read_at(self._start + 10, 2), "big") if kind == "FLAC" else 0
        """How many at most are one frame of a FLAC."""

    def has_more(self, place: int) -> bool:
        """Return whether audio follows at `place`, where libsndfile ends, for the header announces no more.

        That is so of recordings joined byte by byte, and of writers that did not come to correct their header. Tags,
        padding and further chunks are no audio.
        """
        if self._kind == "OGG":
            return self._is_chained()
        if self._kind == "MP3":
            return any(len(_MPEG_FRAME.findall(piece)) >= _MANY_FRAMES for piece in self._pieces(place))
        if self._kind == "FLAC" and (first := self._first_flac_frame()):
            pattern = re.compile(re.escape(first[:3]) + b"[" + re.escape(first[3:]) + b"]")
            return sum(len(pattern.findall(piece)) for piece in self._pieces(place)) > 1
        if self._kind in ("WAV", "WAVEX") and self._data is not None:
            return self._follows_no_chunk(max(place, sum(self._data)))  # a codec may leave a part of its last block
        return False

    def is_cut_off(self) -> bool:
        """Return whether an Ogg stream, which does not say how long it is, lacks its last page or a part of it."""
        if self._kind != "OGG":
            return False
        page = self._last_ogg_page()
        return len(page) < _length_of_ogg_page(page) or not page[5] & _OGG_END

    def _announced(self, frames: int) -> int | None:
        if frames >= 1 << 62:  # streamed FLAC: the largest integer
            return None
        if self._kind == "MP3" and not self._counts_frames():  # libsndfile has guessed, from the size of the file
            return None
        if self._data is None:
            return frames
        start, size = self._data
        present = self._file.seek(0, os.SEEK_END) - start
        if not 0 < present < size < 1 << 62 or is_streamed(size):
            # An MP3 in a WAV begins and ends with what no encoder was given, and headers differ in counting it.
            return None if self._coding.startswith("MPEG") else frames
        return max(frames, round(frames * size / present))  # libsndfile has shortened it to what is there

    def _counts_frames(self) -> bool:
        """Return whether the first frame of an MP3 says how many follow."""
        head = self._read_at(self._start, 4096)
        first = _MPEG_FRAME.search(head)
        return first is not None and _OF_FRAMES.search(head, first.start(), first.start() + 64) is not None

    def _data_chunk(self) -> tuple[int, int] | None:
        """Return where the samples of a WAV, AIFF, AU or W64 begin and how many bytes of them are announced."""
        start = self._start
        head = self._read_at(start, 24)
        kind, order = head[:4], _byte_order(head)
        if kind in (b".snd", b"dns."):
            return start + int.from_bytes(head[4:8], order), int.from_bytes(head[8:12], order)
        if kind == b"riff":  # W64: the size is that of the file
            return start, int.from_bytes(head[16:24], order)
        if kind not in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
            return None
        place, size_of_rf64 = start + 12, 0
        for _ in range(_MOST_CHUNKS):
            header = self._read_at(place, 24)
            name, size = header[:4], int.from_bytes(header[4:8], order)
            if name == b"ds64":
                size_of_rf64 = int.from_bytes(header[16:24], order)
            if name in (b"data", b"SSND"):
                return place + 8, size_of_rf64 if kind == b"RF64" and size == 0xFFFF_FFFF else size
            if len(header) < 8:
                return None
            place += 8 + size + size % 2
        return None

    def _follows_no_chunk(self, place: int) -> bool:
        """Return whether what a WAV holds from `place` on is neither chunks and tags nor padding."""
        order = _byte_order(self._read_at(self._start, 4))
        for _ in range(_MOST_CHUNKS):
            header = self._read_at(place, 9)
            if header[:1] == b"\0":  # after an odd number of bytes
                place, header = place + 1, header[1:]
            if not all(0x20 <= byte < 0x7F for byte in header[:3]):
                return self._file.seek(0, os.SEEK_END) - place > _TRAILER and any(map(any, self._pieces(place)))
            if len(header) < 8:
                return False
            size = int.from_bytes(header[4:8], order)
            place += 8 + size + size % 2
        return False

    def _first_flac_frame(self) -> bytes:
        """Return how the frames of a FLAC begin, with every arrangement of channels as the bytes from the fourth on."""
        place = self._start + 4
        for _ in range(_MOST_CHUNKS):
            block = self._read_at(place, 4)
            place += 4 + int.from_bytes(block[1:], "big")
            if len(block) < 4 or block[0] & 0x80:  # the last
                break
        frame = self._read_at(place, 4)
        return frame[:3] + bytes(channels << 4 | frame[3] & 15 for channels in range(11)) if len(frame) == 4 else b""

    def _is_chained(self) -> bool:
        """Return whether the last page of an Ogg file is of none of the streams that it begins with."""
        place, serials = 0, set()
        for _ in range(_MOST_CHUNKS):
            page = self._read_at(place, _OGG_HEADER + 255)
            if page[:4] != b"OggS" or len(page) < _OGG_HEADER or not page[5] & _OGG_BEGINNING:
                break
            serials.add(page[14:18])
            place += _length_of_ogg_page(page)
        last = self._last_ogg_page()
        return len(last) >= _OGG_HEADER and bool(serials) and last[14:18] not in serials

    def _last_ogg_page(self) -> bytes:
        tail = self._read_at(max(0, self._file.seek(0, os.SEEK_END) - _LARGEST_OGG_PAGE), _LARGEST_OGG_PAGE)
        return tail[tail.rfind(b"OggS") :]

    def _pieces(self, place: int) -> Iterator[bytes]:
        """Yield what the file holds from `place` on, up to 1 MiB."""
        for number in range(_MOST_PIECES):
            if not (piece := self._read_at(place + number * _PIECE, _PIECE)):
                break
            yield piece

    def _read_at(self, place: int, size: int) -> bytes:
        self._file.seek(place)
        return self._file.read(size)


def _byte_order(head: bytes) -> Literal["little", "big"]:
    return "big" if head[:4] in (b".snd", b"RIFX", b"FORM") else "little"


def _after_id3(file: SeekableFile) -> int:
    """Return where a file begins after the tags, such as a picture of the cover, that precede an MP3 and others."""
    place = 0
    for _ in range(_MOST_CHUNKS):
        file.seek(place)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        footer = 10 if head[5] & 0x10 else 0
        place += 10 + footer + sum(byte % 128 << 7 * (3 - index) for index, byte in enumerate(head[6:]))
    return place


def unwritten_sizes(file: SeekableFile) -> dict[int, bytes]:
    """Return what should stand where in a header whose writer never came to say how many samples follow.

    libsndfile takes a size of none at its word.
    """
    file.seek(0)
    kind = file.read(12)[:4]
    end = file.seek(0, os.SEEK_END)
    if kind in (b".snd", b"dns."):
        file.seek(8)
        return {8: b"\xff" * 4} if is_streamed(int.from_bytes(file.read(4), _byte_order(kind))) and end > 28 else {}
    if kind not in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
        return {}
    order, place, long_size = _byte_order(kind), 12, None
    for _ in range(_MOST_CHUNKS):
        file.seek(place)
        header = file.read(24)
        name, size = header[:4], int.from_bytes(header[4:8], order)
        if name == b"ds64":
            long_size = place + 16
            if int.from_bytes(header[16:24], order):
                return {}
        elif name in (b"data", b"SSND"):
            before = 8 if name == b"SSND" else 0  # bytes of the chunk
            present = end - place - 8
            if present <= before or _is_chunk(file, place + 8 + before, end, order):
                return {}
            if long_size is not None and size == 0xFFFF_FFFF:
                return {long_size: present.to_bytes(8, order)}
            return {place + 4: min(present, 0xFFFF_FFFF).to_bytes(4, order)} if size in (0, before) else {}
        if len(header) < 8:
            return {}
        place += 8 + size + size % 2
    return {}


def _is_chunk(file: SeekableFile, place: int, end: int, order: Literal["little", "big"]) -> bool:
    """Return whether there is a whole chunk at `place`, and no samples."""
    file.seek(place)
    header = file.read(8)
    printable = all(0x20 <= byte < 0x7F for byte in header[:4])
    return len(header) == 8 and printable and place + 8 + int.from_bytes(header[4:], order) <= end


def damaged_frames(file: SeekableFile) -> int:
    """Return how many places of an MP3 are no frame where one must be, 0 of other files, by going from frame to frame.

    libsndfile reads nothing behind such a place.
    """
    place = start = _after_id3(file)
    damaged = 0
    while True:
        file.seek(place)
        head = file.read(10)
        if size := _mpeg_frame_size(head):
            place += size
            continue
        if place == start:  # no MP3
            return 0
        file.seek(place)
        piece = file.read(_PIECE)
        following = _next_mpeg_frame(piece)
        if head.startswith(_TAGS) or following is None:  # what is behind a tag is for the decoder
            return damaged
        place += following
        damaged += 1


def _mpeg_frame_size(head: bytes) -> int:
    """Return how many bytes a frame of MPEG audio, layer III, has by its header; 0 if it is none."""
    if len(head) < 4 or not _MPEG_FRAME.match(head):
        return 0
    old, kbits, rate, padding = not head[1] & 8, head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if kbits in (0, 15) or rate == 3:
        return 0
    hertz = _MPEG_RATES[rate] >> (old + (not head[1] & 16))
    return (72_000 if old else 144_000) * _MPEG_KBITS[old][kbits] // hertz + padding


def _next_mpeg_frame(piece: bytes) -> int | None:
    """Return where in a piece of a file the next frame begins that two more follow; None if there is none."""
    for found in _MPEG_FRAME.finditer(piece, 1):
        place = found.start()
        for _ in range(3):
            size = _mpeg_frame_size(piece[place : place + 4])
            if not size:
                break
            place += size
        else:
            return found.start()
    return None


def damaged_size(file: SeekableFile) -> dict[int, bytes]:
    """Return what should stand where in the index of an MP4, if one size of a sample in it must be wrong.

    Samples that follow each other without a gap fill the rest of the file's data. Where their sizes say otherwise, and
    only one of them can be the reason, it is corrected: FFmpeg finds nothing behind it.
    """
    boxes = _boxes(file)
    sizes, places, data = boxes.get(b"stsz", []), boxes.get(b"stco", []), boxes.get(b"mdat", [])
    if not len(sizes) == len(places) == len(data) == 1:
        return {}
    file.seek(places[0][0] + 4)
    count = int.from_bytes(file.read(4), "big")
    first = int.from_bytes(file.read(4), "big")
    start, size = sizes[0]
    file.seek(start + 4)
    head = file.read(8)
    if not count or head[:4] != bytes(4) or not 1 < int.from_bytes(head[4:], "big") == size // 4 - 3:
        return {}
    listed = np.frombuffer(file.read(size - 12), ">u4").astype(np.int64)
    excess = int(listed.sum()) - (sum(data[0]) - first)  # less than nothing where something else is between them
    right = listed - excess
    changed = (listed ^ right)[:, None] >> np.arange(0, 32, 8) & 255
    (found,) = ((right > 0) & (right <= np.sort(listed)[-2]) & ((changed > 0).sum(axis=1) == 1)).nonzero()
    if excess <= 0 or len(found) != 1:
        return {}
    return {start + 12 + 4 * int(found[0]): int(right[found[0]]).to_bytes(4, "big")}


def _boxes(file: SeekableFile) -> dict[bytes, list[tuple[int, int]]]:
    """Return the places and sizes of what the boxes of an MP4 hold, by their names; none of other files."""
    file.seek(0)
    if file.read(8)[4:] != b"ftyp":
        return {}
    found: dict[bytes, list[tuple[int, int]]] = {}
    rest = [(0, file.seek(0, os.SEEK_END))]
    for _ in range(_MOST_CHUNKS):
        if not rest:
            break
        place, end = rest.pop()
        file.seek(place)
        header = file.read(8)
        size, name = int.from_bytes(header[:4], "big"), header[4:]
        if size < 8 or place + size > end:
            continue
        found.setdefault(name, []).append((place + 8, size - 8))
        rest.append((place + size, end))
        if name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            rest.append((place + 8, place + size))
    return found


@dataclass(frozen=True)
class OggPages:
    """What the pages of an Ogg file say."""

    streams: int
    """How many begin at its start: audio, pictures, and others."""
    damaged: bool
    """Whether a page is lost or was changed, or times leave a hole: what follows is early if a decoder ignores it."""


def ogg_pages(file: SeekableFile) -> OggPages | None:
    """Return what the pages of an Ogg file say, by reading all of it; None of other files."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return None
    numbers: dict[bytes, int] = {}  # of the last page of every stream
    opus: dict[bytes, int] = {}  # where it ended, in samples, in streams of that coding
    streams, place, faults, beginning = 0, 0, 0, True
    while faults < _MOST_CHUNKS:
        file.seek(place)
        head = file.read(_OGG_HEADER)
        lengths = file.read(head[-1]) if len(head) == _OGG_HEADER else b""
        body = file.read(sum(lengths))
        if head[:4] != b"OggS" or len(body) < sum(lengths) or not lengths:
            following = _find(file, b"OggS", place + 1)
            if following is None:  # tags, padding, a part of a page, or the end
                break
            place, faults = following, faults + 1
            continue
        begins, serial, number = bool(head[5] & _OGG_BEGINNING), head[14:18], int.from_bytes(head[18:22], "little")
        beginning = beginning and begins
        streams += beginning
        if begins and body[:8] == b"OpusHead":
            opus[serial] = -1
        elif serial in opus and (end := int.from_bytes(head[6:14], "little", signed=True)) > 0:
            if opus[serial] >= 0 and end - opus[serial] - _opus_samples(lengths, body) > _OPUS_HOLE:
                faults += 1
            opus[serial] = end
        if head[22:26] != _ogg_checksum(head[:22] + bytes(4) + head[26:] + lengths + body):
            faults += 1
        else:
            faults += not begins and numbers.get(serial, number - 1) != number - 1
            numbers[serial] = number
        place += len(head) + len(lengths) + len(body)
    return OggPages(streams, faults > 0)


def _opus_samples(lengths: bytes, body: bytes) -> int:
    """Return how many samples, at 48 kHz, are in the packets that begin on a page (RFC 6716, 3.1)."""
    samples, place, begins = 0, 0, True
    for length in lengths:
        if begins and length:
            kind, code = body[place] >> 3, body[place] & 3
            if kind < 12:
                size = (480, 960, 1920, 2880)[kind % 4]
            elif kind < 16:
                size = (480, 960)[kind % 2]
            else:
                size = (120, 240, 480, 960)[kind % 4]
            several = body[place + 1] & 63 if code == 3 and length > 1 else 1
            samples += size * (1, 2, 2, several)[code]
        begins = length < 255
        place += length
    return samples


def _ogg_checksum(page: bytes) -> bytes:
    """Return the checksum of a page: CRC-32 of the bits the other way round than zlib takes them, from 0."""
    turned = zlib.crc32(page.translate(_TURNED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{turned:032b}"[::-1], 2).to_bytes(4, "little")


def _find(file: SeekableFile, words: bytes, place: int) -> int | None:
    """Return the first place of `words` from `place` on."""
    kept = b""
    file.seek(place)
    while piece := file.read(_PIECE):
        if (found := (kept + piece).find(words)) >= 0:
            return place - len(kept) + found
        place += len(piece)
        kept = (kept + piece)[1 - len(words) :]
    return None


def _length_of_ogg_page(page: bytes) -> int:
    """Return how many bytes a page has, by its header; one without a whole header is as long as that at least."""
    lengths = page[_OGG_HEADER : _OGG_HEADER + page[_OGG_HEADER - 1]] if len(page) >= _OGG_HEADER else b""
    return _OGG_HEADER + len(lengths) + sum(lengths)
