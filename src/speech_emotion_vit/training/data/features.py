"""Features: the log-Mel images of a whole corpus, on disk, memory-mapped.

A store is keyed by the front-end's values, the version of augmentation and the content of every file, so nothing
stale is ever read. It is written under another name and renamed once complete: an interruption loses time only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ...audio.reader import AudioReader, Samples, windows
from ...errors import AudioError, DatasetError, one_line
from ...files import open_regular
from ...model.config import FrontendConfig
from ...model.frontend import LogMel
from .corpora import Utterance, named
from .waveforms import VERSIONS, make_version

FORMAT = 1  # raise it when what a store holds changes for the same key
BLOCK = 64  # utterances handed to the threads at a time
ANOTHER = "set SPEECH_EMOTION_VIT_CACHE to another folder"
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError)  # what reading a damaged store may raise

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FeatureStore:
    """Images of a corpus in one version. A clip longer than the front-end's window has several rows."""

    images: npt.NDArray[np.float16]
    """`[rows, n_mels, columns]`, memory-mapped; the half precision costs under 0.04 dB."""
    rows: dict[str, tuple[int, int]]
    """Utterance to its first row and the row after its last; the unreadable are not in it."""
    faults: dict[str, str]
    """Utterance to why it could not be read."""
    key: str
    """Digest of the front-end, the version and every file: the store's name in the cache."""
    contents: dict[str, str] = field(default_factory=dict)
    """Utterance to the SHA-256 of its file; the unreadable are not in it."""


def default_cache() -> Path:
    """Return where stores are kept: ``$SPEECH_EMOTION_VIT_CACHE``, else the user's cache folder."""
    if folder := os.environ.get("SPEECH_EMOTION_VIT_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or str(Path.home() / ".cache")
    return Path(base) / "speech-emotion-vit" / "features"


def load_features(
    utterances: Sequence[Utterance],
    frontend: FrontendConfig,
    *,
    version: int = 0,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> FeatureStore:
    """Return the images of `utterances` in one version, from the cache or computed into it.

    Args:
        utterances: what to read; each is resampled, downmixed and cut into windows as a prediction does.
        frontend: how a waveform becomes an image.
        version: 0 for the originals, 1 to 3 for `waveforms.VERSIONS`.
        cache: folder of the stores; `default_cache` if None.
        workers: threads; the number of cores if None.
        progress: called with the number done and the number in all.

    Raises:
        DatasetError: nothing could be read, or the cache cannot be written.
    """
    folder = cache or default_cache()
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    with pool:
        digests = list(pool.map(_digest, [utterance.path for utterance in utterances]))
        contents = {utterance.id: digest for utterance, digest in zip(utterances, digests, strict=True)}
        store = folder / _key(utterances, digests, frontend, version)
        if os.path.exists(store):
            try:
                return _open(store, contents)
            except DAMAGED:  # or of other decoders
                shutil.rmtree(store, ignore_errors=True)
        if not os.path.exists(store):  # else it is another user's, or another process has just made it
            _build(store, utterances, frontend, version, pool, progress)
        try:
            return _open(store, contents)
        except DAMAGED as error:
            raise DatasetError(f"{store}: cannot be used ({one_line(error)}): remove it, or {ANOTHER}") from error


def _open(store: Path, contents: dict[str, str]) -> FeatureStore:
    index = json.loads((store / "index.json").read_text(encoding="utf-8"))
    if index["faults"] and index["decoders"] != _decoders():
        raise ValueError(f"{store}: what could not be read then may be readable now")
    images = np.load(store / "images.npy", mmap_mode="r")
    rows = {name: (first, last) for name, (first, last) in index["rows"].items()}
    if len(images) != max((last for _, last in rows.values()), default=0):
        raise ValueError(f"{store}: {len(images)} images are not those of the index")
    return FeatureStore(images, rows, index["faults"], store.name, {name: contents[name] for name in rows})


def _decoders() -> list[str]:
    """Return what decides which files can be read."""
    versions = []
    for package in ("soundfile", "av"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{package} {metadata.version(package)}")
    return versions


def read_waveform(path: Path, sampling_rate: int) -> Samples:
    """Return a whole file as mono float32 `[samples]` at `sampling_rate` Hz.

    Raises:
        AudioError: it cannot be read.
    """
    return np.concatenate(list(AudioReader(path, target_rate=sampling_rate)))


def make_images(waveform: Samples, frontend: LogMel) -> npt.NDArray[np.float16]:
    """Return the images `[windows, n_mels, columns]` of one waveform `[samples]`."""
    c = frontend.config
    if c.long_clips == "truncate":
        cut: Iterable[Samples] = [waveform[: c.window_samples]]
    else:
        cut = windows([waveform], c.window_samples, c.hop_samples)
    with torch.no_grad():
        images = [frontend(torch.from_numpy(np.ascontiguousarray(window))[None])[0, 0].half().numpy() for window in cut]
    return np.stack(images)


def _digest(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _key(utterances: Sequence[Utterance], digests: Sequence[str], frontend: FrontendConfig, version: int) -> str:
    content = {
        "format": FORMAT,
        "frontend": frontend.to_dict(),
        "version": dataclasses.asdict(VERSIONS[version]),
        "files": [[utterance.id, digest] for utterance, digest in zip(utterances, digests, strict=True)],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _build(
    store: Path,
    utterances: Sequence[Utterance],
    config: FrontendConfig,
    version: int,
    pool: ThreadPoolExecutor,
    progress: Progress | None,
) -> None:
    frontend = LogMel(config)

    def compute(utterance: Utterance) -> npt.NDArray[np.float16] | str:
        try:
            waveform = read_waveform(utterance.path, config.sampling_rate)
        except AudioError as error:
            return str(error)
        return make_images(make_version(waveform, version, config, key=utterance.id), frontend)

    rows: dict[str, tuple[int, int]] = {}
    faults: dict[str, str] = {}
    blocks: list[npt.NDArray[np.float16]] = []
    filled = 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the utterances run in parallel, their small matrices need not
    try:
        for start in range(0, len(utterances), BLOCK):
            block = utterances[start : start + BLOCK]
            for utterance, images in zip(block, pool.map(compute, block), strict=True):
                if isinstance(images, str):
                    faults[utterance.id] = images
                else:
                    rows[utterance.id] = (filled, filled + len(images))
                    filled += len(images)
                    blocks.append(images)
            if progress is not None:
                progress(min(start + BLOCK, len(utterances)), len(utterances))
    finally:
        torch.set_num_threads(threads)
    if not blocks:
        raise DatasetError(f"none of {len(utterances)} files can be read: {named(list(faults.values()))}")
    index = {"rows": rows, "faults": faults, "decoders": _decoders(), "frontend": config.to_dict()}
    _write(store, np.concatenate(blocks), index)


def _remove_abandoned(cache: Path) -> None:
    """Remove what interrupted processes left behind; nobody writes a store for a day."""
    for part in cache.glob(".part-*"):
        with contextlib.suppress(OSError):  # it may have its name by now, or be gone
            if time.time() - part.stat().st_mtime > 86_400:
                shutil.rmtree(part, ignore_errors=True)


def _write(store: Path, images: npt.NDArray[np.float16], index: dict[str, object]) -> None:
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(store.parent)
        temporary = store.parent / f".part-{secrets.token_hex(8)}"
        temporary.mkdir()  # with the rights of any folder, which mkdtemp would not give: a cache may be shared
    except OSError as error:
        raise DatasetError(
            f"{store.parent}: the feature cache cannot be written ({error.strerror}): {ANOTHER}"
        ) from error
    try:
        np.save(temporary / "images.npy", images)
        (temporary / "index.json").write_text(json.dumps(index), encoding="utf-8")
        try:
            temporary.rename(store)
        except OSError:
            if not (store / "index.json").is_file():  # else another process was faster, with the same content
                raise
    except OSError as error:
        raise DatasetError(
            f"{store}: the feature cache cannot be written ({error.strerror}): make room, or {ANOTHER}"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
