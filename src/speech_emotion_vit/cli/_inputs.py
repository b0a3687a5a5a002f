"""The audio that arguments name: files, folders, patterns, standard input, lists of names, and their channels."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import click

from ._streams import standard_input

if TYPE_CHECKING:
    from ..audio.reader import AudioInput, Channel
    from ..errors import AudioError

    Source: TypeAlias = "tuple[str, AudioInput | AudioError]"  # a name, and the audio or the error why there is none

_STANDARD_INPUT = frozenset({"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})


def listed(place: str) -> list[str]:
    """Return the names in a file, or with ``-`` on standard input: one a line, or parted by NUL as `find -print0` does.

    Raises:
        ConfigError: there are none, or they cannot be read.
    """
    from ..audio.inputs import describe
    from ..errors import AudioError, ConfigError, one_line

    name = "standard input" if place in _STANDARD_INPUT else describe(place)
    try:
        if place in _STANDARD_INPUT:
            data = standard_input("a list of names").read()
        else:
            with open(place, "rb") as file:
                data = file.read()
    except AudioError as error:
        raise ConfigError(str(error)) from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: cannot be read ({one_line(error)}): check the path") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # Windows' PowerShell writes UTF-16, which is full of NULs
        data = os.fsencode(data.decode("utf-16", "replace"))
    lines = data.split(b"\0") if b"\0" in data else data.removeprefix(b"\xef\xbb\xbf").splitlines()
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        raise ConfigError(f"{name}: holds no name: write one a line")
    return names


def sources(clips: Iterable[str]) -> Iterator[Source]:
    """Yield name and source of every piece of audio that the arguments name; the source may be an `AudioError`."""
    for clip in clips:
        yield from _sources(clip)


def _sources(clip: str) -> Iterator[Source]:
    from ..audio.inputs import describe
    from ..audio.suffixes import AUDIO_SUFFIXES, find_audio
    from ..errors import AudioError, one_line

    if _is_standard_input(clip):
        try:
            yield "-", standard_input()
        except AudioError as fault:
            yield "-", fault
        return
    if not os.path.lexists(clip):
        if clip.startswith("~") and os.path.lexists(there := os.path.expanduser(clip)):  # quoted, or out of a list
            clip = there
        elif glob.has_magic(clip):
            matched = sorted(glob.glob(os.path.expanduser(clip), recursive=True))
            if not matched:
                yield clip, AudioError(f"{describe(clip)}: matches no file: check the pattern")
            files = [path for path in matched if not os.path.isdir(path)]
            for path in files or matched:  # of folder/** the files: its folders hold no others
                yield from _sources(path)
            return
    if not os.path.isdir(clip):
        yield clip, clip
        return
    search = find_audio(clip)
    yield from ((path, path) for path in search.paths)
    if passed_over := search.passed_over():
        click.echo(f"Note: {describe(clip)}: {passed_over}", err=True)
    for error in search.closed:
        yield error.filename, AudioError(f"{describe(error.filename)}: cannot be searched: {one_line(error)}")
    if not search.paths and not search.closed:
        known = " ".join(sorted(AUDIO_SUFFIXES & {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".m4a"}))
        yield clip, AudioError(f"{describe(clip)}: no audio in this folder: looked for {known} and the like")


def _is_standard_input(clip: str) -> bool:
    """Return whether a name is that of standard input; /dev/stdin is, unless it is a regular file."""
    if clip == "-" or clip not in _STANDARD_INPUT or sys.stdin is None:
        return clip == "-"
    try:
        return not stat.S_ISREG(os.stat(clip).st_mode)
    except OSError:
        return True


class Piece(NamedTuple):
    """One piece of audio, with its own row or timeline."""

    name: str
    source: AudioInput | AudioError
    """The audio, or the error why there is none."""
    channel: Channel = "mix"


def split(name: str, source: AudioInput | AudioError, channel: Any, track: int | None) -> Iterator[Piece]:
    """Yield a source with the given channel, or once with each of its channels if that is ``split``."""
    from ..audio.decode import spooled
    from ..audio.reader import AudioReader
    from ..errors import AudioError

    if channel != "split" or isinstance(source, AudioError):
        yield Piece(name, source, "mix" if channel == "split" else channel)
        return
    try:
        if not isinstance(source, (str, bytes)):  # a stream can be read only once
            with spooled(source, name) as spool:
                source = bytes(spool.read())
        with AudioReader(source, track=track) as reader:
            channels = reader.channels
    except AudioError as error:
        yield Piece(name, error)
        return
    yield from (Piece(name, source, number) for number in range(channels))
