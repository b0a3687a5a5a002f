"""The folder of a run: its description and results as files, and the lock that is held while it is written."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import TrainingError, one_line
from ..files import read_text, whole_file

PACKAGES = ("speech-emotion-vit", "torch", "numpy", "soundfile", "soxr", "audiomentations", "accelerate")
RUN_FILE = "run.json"
RESULTS_FILE = "results.json"
SPLIT_FILE = "split.csv"
COMPARED = ("corpus", "protocol", "fold", "seed", "recipe", "stages", "data", "features", "precision")
"""What a resumed run must have in common with the run that it goes on with."""
MAX_BYTES = 64 * 2**20  # of a JSON file: far more than any run writes


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8", "backslashreplace")


def read_json(path: Path) -> dict[str, Any]:
    """Return what `write_json` wrote.

    Raises:
        TrainingError: the file is missing or damaged.
    """
    try:
        values = json.loads(read_text(path, MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path}: cannot be read ({one_line(error)}): choose another --output") from error
    if not isinstance(values, dict):
        raise TrainingError(f"{path}: is not a JSON object: choose another --output")
    return values


def read_results(folder: Path) -> dict[str, Any]:
    """Return the results of the run in `folder`, nothing where it has none yet.

    Raises:
        TrainingError: the file is damaged.
    """
    path = folder / RESULTS_FILE
    if not path.is_file():
        return {}
    values = read_json(path)
    whole = isinstance(values.get("epochs"), dict) and type(values.get("peak_memory")) in (int, type(None))
    if not whole:
        raise TrainingError(f"{path}: is damaged (epochs or peak_memory): remove it, it is written anew")
    return values


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table whole or not at all."""
    with (
        whole_file(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def versions() -> dict[str, str]:
    """Return the versions of Python, the system and the packages a result depends on."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def open_run(folder: Path, description: Mapping[str, Any], *, resume: bool) -> None:
    """Write the description of a new run into its folder, or check that the folder holds the run to be resumed.

    A resumed run may have more stages than before; the stages that it had must be the same.

    Raises:
        TrainingError: there is a run already and `resume` is false, or it is another run.
    """
    path = folder / RUN_FILE
    if path.is_file():
        if not resume:
            raise TrainingError(f"{folder}: holds a run already: pass --resume to go on with it, or another --output")
        stored, given = read_json(path), json.loads(json.dumps(description))
        before, stages = stored.get("stages"), given.get("stages", {})
        if isinstance(before, dict) and before and before.items() <= stages.items():
            stored["stages"] = stages
        if differing := [
            _difference(k, stored.get(k), given.get(k)) for k in COMPARED if stored.get(k) != given.get(k)
        ]:
            raise TrainingError(
                f"{folder}: holds another run ({'; '.join(differing)}): repeat its options or pass another --output"
            )
        write_json(path, description)
        return
    # Folds may have been run one by one, and the network of all clips first.
    expected = ("fold-", "state", ".") if description["fold"] == "all" else (".",)
    there = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if any(name != "final" and not name.startswith(expected) for name in there):
        raise TrainingError(f"{folder}: is not empty and holds no run: pass another --output")
    write_json(path, description)


def _difference(key: str, stored: Any, given: Any) -> str:
    if isinstance(stored, dict) and isinstance(given, dict):
        inner = sorted(name for name in stored.keys() | given.keys() if stored.get(name) != given.get(name))
        return f"{key}: {', '.join(inner)} differ"
    return f"{key} {stored!r} there, {given!r} now"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `folder` for this process; the system releases it when the process ends, however it ends.

    Raises:
        TrainingError: another process holds the lock, or the folder cannot be made.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = lock.acquire()
    except Timeout as error:
        raise TrainingError(
            f"{folder}: another process is writing there: wait for it, or pass another --output"
        ) from error
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error.strerror}): pass another --output") from error
    with held:
        yield


def hardware(device: str) -> dict[str, Any]:
    """Return the hardware that a training time depends on."""
    return {"device": device, "cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}


def peak_memory() -> int | None:
    """Return the peak memory of this process in bytes, memory-mapped features included; None on Windows."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
