"""Standard input and output, and the line of an error."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import IO, BinaryIO

from ..errors import AudioError, ConfigError, one_line, printable

_REASON = 200  # characters of another package's message that an error line repeats


def error_line(error: BaseException) -> str:
    """Return the message of an error on one line, without control characters.

    If it repeats a long message of the error that caused it, only the beginning of that is left.
    """
    text = _joined(str(error))
    cause = str(error.__cause__ or "")
    for words in (cause, *cause.splitlines()):
        words = _joined(words).rstrip(".")
        if len(words) > _REASON:
            text = text.replace(words, f"{words[:_REASON].rstrip()}...")
    return text


def _joined(text: str) -> str:
    return printable(" ".join(line.strip() for line in text.splitlines()))


def standard_input(wanted: str = "the content of an audio file") -> BinaryIO:
    """Return standard input, which must not be empty.

    Args:
        wanted: the expected content, for messages.

    Raises:
        ConfigError: it is closed.
        AudioError: it is empty or cannot be read.
    """
    if sys.stdin is None:
        raise ConfigError("standard input is closed: pass the name of a file")
    stream = sys.stdin.buffer
    try:
        empty = isinstance(stream, io.BufferedReader) and not stream.peek(1)
    except OSError as error:
        raise AudioError(f"standard input: cannot be read ({one_line(error)}): pass the name of a file") from error
    if empty:
        raise AudioError(f"standard input is empty: pass {wanted}")
    return stream


def keep_inputs(output: str | None, clips: Iterable[str | int], model: str | None, revision: str | None) -> None:
    """Refuse an output that is one of the clips, paths or file descriptors, or a file of a model on this machine.

    Raises:
        ConfigError: it is one of them, perhaps under another name.
    """
    if output is None or not os.path.exists(output):
        return
    from ..backends.export import model_files
    from ..files import refuse_inputs
    from ..weights.resolve import resolve_model

    resolved = resolve_model(model, revision=revision, local_files_only=True)
    refuse_inputs(output, [*clips, *model_files(resolved)])


@contextlib.contextmanager
def standard_output() -> Iterator[IO[str]]:
    """Yield standard output for results only.

    Characters that its encoding lacks are written with backslashes.

    Raises:
        ConfigError: nothing can be written there.
    """
    try:
        with _own_stdout() as stream:
            yield stream
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader has closed the pipe
            raise
        raise ConfigError(f"standard output: cannot be written ({error.strerror}): use --output") from error


@contextlib.contextmanager
def _own_stdout() -> Iterator[IO[str]]:
    """Redirect what decoders written in C print on standard output to standard error."""
    try:
        number = sys.stdout.fileno()
        sys.stdout.flush()
        descriptor = os.dup(number)
    except (OSError, ValueError, AttributeError, io.UnsupportedOperation):  # not a real file: a test, a notebook
        yield sys.stdout
        return
    try:
        with contextlib.suppress(OSError):  # there may be no standard error
            os.dup2(2, number)
        with open(descriptor, "w", encoding=sys.stdout.encoding, errors="backslashreplace", closefd=False) as stream:
            yield stream
    finally:
        os.dup2(descriptor, number)
        os.close(descriptor)
