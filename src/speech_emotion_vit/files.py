"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import ConfigError


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends well, and else disappears.

    Raises:
        ConfigError: nothing can be written there.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error.strerror}): choose another place") from error
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's own mode is for the owner alone
        os.replace(temporary, target)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error.strerror}): choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)
