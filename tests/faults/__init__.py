"""Real faults: processes without root's rights, small disks, files without permission."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_CAPABILITIES = "-dac_override,-dac_read_search"


def unprivileged() -> list[str]:
    """The beginning of a command line that obeys file permissions, which root does not."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv, "as root these tests need setpriv (util-linux)"
    return [setpriv, f"--bounding-set={_CAPABILITIES}", f"--inh-caps={_CAPABILITIES}"]


def limited(megabytes: float) -> list[str]:
    """The beginning of a command line that can write no file of more than so many megabytes."""
    code = "import os, resource, sys; n = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)); "
    return [sys.executable, "-c", code + "os.execv(sys.argv[2], sys.argv[2:])", str(int(megabytes * 1e6))]


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """Mount a file system of so many kilobytes on a new folder; False where this user may not mount."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], capture_output=True)
    if done.returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the permission to write from a folder and everything in it."""
    places = [place for place in (folder, *folder.rglob("*")) if not place.is_symlink()]
    modes = {place: place.stat().st_mode for place in places}
    for place in places:
        place.chmod(modes[place] & 0o555)
    try:
        yield
    finally:
        for place, mode in modes.items():
            place.chmod(mode)
