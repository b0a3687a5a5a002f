"""Where results go."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import IO

from ..errors import ConfigError
from ..files import whole_file


@contextlib.contextmanager
def results(output: str | None) -> Iterator[IO[str]]:
    """Yield the stream for results: the file `output`, written whole or not at all, or standard output.

    Names that the encoding of the stream does not have are written with backslashes.

    Raises:
        ConfigError: nothing can be written there.
    """
    if output is not None:
        with whole_file(output) as path, open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
        return
    try:
        with _own_stdout() as stream:
            yield stream
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader has seen enough
            raise
        raise ConfigError(f"standard output: cannot be written ({error.strerror}): use --output") from error


@contextlib.contextmanager
def _own_stdout() -> Iterator[IO[str]]:
    """Keep standard output for this package: decoders written in C print to it too, and go to standard error."""
    try:
        number = sys.stdout.fileno()
        sys.stdout.flush()
        descriptor = os.dup(number)
    except (OSError, ValueError, AttributeError, io.UnsupportedOperation):  # not a real file: a test, a notebook
        yield sys.stdout
        return
    try:
        with contextlib.suppress(OSError):  # without standard error, nothing is kept apart
            os.dup2(2, number)
        with open(descriptor, "w", encoding=sys.stdout.encoding, errors="backslashreplace", closefd=False) as stream:
            yield stream
    finally:
        os.dup2(descriptor, number)
        os.close(descriptor)
