"""Open regular files only, find files in folders, and write files whole or not at all."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from .errors import ConfigError, one_line, printable

_OF_SYSTEMS = frozenset({"Thumbs.db", "desktop.ini", "Icon\r"})


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file for reading. A folder, FIFO or device would fail late, block, or never end.

    Raises:
        OSError: it cannot be opened, or is no regular file; ``strerror`` says what it is.
        ValueError: no file can have this name.
    """
    _require_regular(os.stat(path), path)  # before it is opened: opening some devices does something
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb", opener=_without_waiting))
        _require_regular(os.fstat(file.fileno()), path)  # it may be another file by now
        stack.pop_all()
    return file


def read_text(path: str | os.PathLike[str], limit: int) -> str:
    """Return the text of a regular file of at most `limit` bytes, in UTF-8, or in UTF-16 with a byte-order mark.

    Raises:
        OSError: it cannot be opened, is no regular file or is larger.
        ValueError: it is neither, or no file can have this name.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes", os.fspath(path))
    return data.decode("utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8")


def find_files(folder: str | os.PathLike[str], suffixes: Set[str]) -> tuple[list[str], list[OSError], list[str]]:
    """Return all files below `folder` with one of `suffixes`, the errors of unreadable folders, and all other files.

    Links are followed once. A folder that is also linked from elsewhere is read in its own place, so the order of the
    file system does not matter. Files that systems add by themselves, and other hidden files, are left out.
    """
    found: list[str] = []
    closed: list[OSError] = []
    others: list[str] = []
    seen = set()
    folders, links = [os.fspath(folder)], list[str]()
    while folders or links:
        place = folders.pop(0) if folders else links.pop(0)
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back, or to what has been read
            continue
        seen.add(real)
        try:
            names = sorted(os.listdir(place))
        except OSError as error:
            closed.append(error)
            continue
        for name in names:
            path = os.path.join(place, name)
            if name == "__MACOSX" or name.startswith("._"):
                continue
            if os.path.isdir(path):
                (links if os.path.islink(path) else folders).append(path)
            elif os.path.splitext(name)[1].lower() in suffixes:
                found.append(path)
            elif not name.startswith(".") and name not in _OF_SYSTEMS:
                others.append(path)
    return sorted(found), closed, others


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _require_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory: pass the files in it", os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file: copy its content to one", os.fspath(path))


def refuse_inputs(output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str] | int]) -> None:
    """Refuse an `output` that is one of the `inputs`, which are paths and file descriptors.

    Raises:
        ConfigError: it is one of them, perhaps under another name.
    """
    try:
        place = os.stat(output)
    except (OSError, ValueError):  # nothing is there
        return
    for each in inputs:
        try:
            same = os.path.samestat(place, os.stat(each))
        except (OSError, ValueError):
            continue
        if same:
            name = "standard input" if isinstance(each, int) else printable(os.fspath(each))
            raise ConfigError(f"{printable(os.fspath(output))}: is read too, as {name}: choose another place")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`. It replaces `path` if the block succeeds; else it is deleted.

    A link is followed. Only a regular file is replaced, and its permissions stay.

    Raises:
        ConfigError: nothing can be written there.
    """
    name = printable(os.fspath(path)) or "''"
    try:
        place = Path(os.path.realpath(path))
        replaceable = place.is_file() or not place.exists()
        mode = place.stat().st_mode & 0o777 if place.is_file() else None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: cannot be written ({one_line(error)}): choose another place") from error
    if not replaceable:
        raise ConfigError(f"{name}: is not a regular file: choose another place")
    temporary = place.parent / f".{secrets.token_hex(8)}.part"
    try:  # before the file exists, because a signal may come at any time
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else mode | 0o600))
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if mode is not None:
            with contextlib.suppress(OSError):  # some file systems have none
                os.chmod(temporary, mode)
        os.replace(temporary, place)
    except OSError as error:
        raise ConfigError(f"{name}: cannot be written ({one_line(error)}): choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)


def saved_text(text: str, path: str | os.PathLike[str] | None, end: str = "") -> str:
    """Return `text`, and write it with `end` after it to `path`, if that is given.

    Raises:
        ConfigError: nothing can be written there.
    """
    if path is not None:
        with whole_file(path) as temporary:
            temporary.write_bytes(f"{text}{end}".encode("utf-8", "backslashreplace"))
    return text
