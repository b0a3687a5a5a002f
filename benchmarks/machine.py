"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import re
import time
from importlib import metadata
from pathlib import Path


def processor() -> str:
    try:
        return re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()).group(1)  # type: ignore[union-attr]
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()


def memory_gigabytes() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (ValueError, OSError, AttributeError):
        return None


def load_average() -> float | None:
    """Return how many processes wanted a core over the last minute: above 0 before the run, timings are disturbed."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def version_of(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def matrix_rate() -> float:
    """Return multiply-accumulates per second of a 1024 x 1024 float32 product in torch: the best of 60."""
    import torch

    one, other = torch.randn(2, 1024, 1024)
    best = float("inf")
    for _ in range(60):
        before = time.perf_counter()
        torch.mm(one, other)
        best = min(best, time.perf_counter() - before)
    return 1024**3 / best


def install_megabytes(names: tuple[str, ...]) -> float | None:
    """Return the size of the installed files of distributions and everything they require, in MB."""
    from packaging.requirements import Requirement

    waiting, seen, size = list(names), set(), 0
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in names:
                return None
            continue
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            size += path.stat().st_size if path.is_file() else 0
        editable = name == "speech-emotion-vit"  # its files are in the checkout
        if editable and size < 1_000_000:
            package = Path(__file__).resolve().parent.parent / "src" / "speech_emotion_vit"
            size += sum(path.stat().st_size for path in package.rglob("*") if path.is_file())
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return size / 1e6
