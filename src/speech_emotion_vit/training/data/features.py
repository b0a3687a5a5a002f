"""What is computed from audio once and kept on disk, memory-mapped: the log-Mel images of a corpus, or its waveforms.

A store is keyed by what is computed and by the content of every file, so nothing stale is ever read. It is written
under another name and renamed once complete: an interruption loses time only.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ...audio.reader import AudioReader, Samples, windows, without_offset
from ...audio.speech import DECISION, WEIGHTS_SHA256, keep_speech
from ...errors import AudioError, DatasetError, one_line
from ...files import open_regular
from ...model.config import FrontendConfig
from ...model.frontend import LogMel
from .corpora import Utterance, named
from .paper import VERSIONS, alter

FORMAT = 2  # raise it when what a store holds changes for the same key
BLOCK = 64  # utterances handed to the threads at a time
FULL_SCALE = 32767  # of 16-bit samples
ANOTHER = "set SPEECH_EMOTION_VIT_CACHE to another folder"
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError)  # what reading a damaged store may raise

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Store:
    """What was computed of some utterances, one behind the other."""

    values: Values
    """Memory-mapped: images `[rows, n_mels, columns]` in half precision, which costs under 0.04 dB, several rows for a
    clip longer than the front-end's window; or samples `[samples]`, 16-bit or float32."""
    rows: dict[str, tuple[int, int]]
    """Utterance to its first row and the row after its last; the unreadable are not in it."""
    faults: dict[str, str]
    """Recording to why it could not be read."""
    key: str
    """Digest of what is computed and of every file: the store's name in the cache."""
    contents: dict[str, str] = field(default_factory=dict)
    """Recording to the SHA-256 of its file; the unreadable are not in it."""

    def of(self, utterance: Utterance) -> Values:
        """Return the rows of one utterance.

        Raises:
            KeyError: it could not be read.
        """
        first, last = self.rows[utterance.id]
        return np.asarray(self.values[first:last])


def default_cache() -> Path:
    """Return where stores are kept: ``$SPEECH_EMOTION_VIT_CACHE``, else the user's cache folder."""
    if folder := os.environ.get("SPEECH_EMOTION_VIT_CACHE"):
        return Path(folder)
    import platformdirs

    return platformdirs.user_cache_path("speech-emotion-vit", appauthor=False) / "features"


def load_features(
    utterances: Sequence[Utterance],
    frontend: FrontendConfig,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    title: str = "features",
) -> Store:
    """Return the images of `utterances`, each in its version, from the cache or computed into it.

    Args:
        utterances: what to read; each is resampled, downmixed and cut into windows as a prediction does.
        frontend: how a waveform becomes an image.
        cache: folder of the stores; `default_cache` if None.
        workers: threads; the number of cores if None.
        title: of the progress bar, which is shown on a terminal only.

    Raises:
        DatasetError: nothing could be read, or the cache cannot be written.
    """
    network = LogMel(frontend)
    used = {utterance.version for utterance in utterances}

    def compute(utterance: Utterance) -> Values:
        waveform = read_waveform(utterance.path, frontend.sampling_rate)
        return make_images(alter(waveform, utterance, frontend), network)

    about = {
        "frontend": frontend.to_dict(),
        "versions": {name: dataclasses.asdict(VERSIONS[name]) for name in sorted(used)},
    }
    return load_values(utterances, about, compute, cache=cache, workers=workers, title=title)


def load_waveforms(
    utterances: Sequence[Utterance],
    sampling_rate: int,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    title: str = "audio",
) -> Store:
    """Return the 16-bit samples of `utterances`, from the cache or decoded into it.

    The mean is taken away and the peak set to full scale, so that 16 bits lose nothing of a quiet recording.

    Args:
        utterances: what to read; originals.
        sampling_rate: in Hz.
        cache: folder of the stores; `default_cache` if None.
        workers: threads; the number of cores if None.
        title: of the progress bar, which is shown on a terminal only.

    Raises:
        DatasetError: nothing could be read, or the cache cannot be written.
    """

    def compute(utterance: Utterance) -> Values:
        waveform = read_waveform(utterance.path, sampling_rate)
        waveform = waveform - waveform.mean()
        peak = float(np.abs(waveform).max())
        samples: Values = np.round(waveform * (FULL_SCALE / peak if peak else 0.0)).astype(np.int16)
        return samples

    return load_values(utterances, {"sampling_rate": sampling_rate}, compute, cache=cache, workers=workers, title=title)


def load_speech(
    utterances: Sequence[Utterance], sampling_rate: int, *, cache: Path | None = None, title: str = "speech"
) -> Store:
    """Return what a prediction hears of `utterances`, from the cache or decoded into it: float32, with a peak of 1.

    That is what somebody speaks in, or all of a clip in which nobody does. It is exact: in 16 bits, with no mean and
    with the zeros at the end, it gave a head whose weights were a tenth of their length away.

    Args:
        utterances: what to read; originals.
        sampling_rate: in Hz.
        cache: folder of the stores; `default_cache` if None.
        title: of the progress bar, which is shown on a terminal only.

    Raises:
        DatasetError: nothing could be read, or the cache cannot be written.
    """

    def compute(utterance: Utterance) -> Values:
        waveform = read_waveform(utterance.path, sampling_rate)
        kept, _ = keep_speech(waveform, sampling_rate)
        heard = without_offset(kept if len(kept) else waveform)
        heard = np.trim_zeros(heard, "b") if heard.any() else heard  # zeros at the end are padding, whoever put them
        samples: Values = heard / max(np.abs(heard).max(), np.finfo(np.float32).tiny)
        return samples

    about = {"sampling_rate": sampling_rate, "speech": [WEIGHTS_SHA256, *DECISION]}
    return load_values(utterances, about, compute, cache=cache, title=title)


def load_values(
    utterances: Sequence[Utterance],
    about: Mapping[str, object],
    compute: Callable[[Utterance], Values],
    *,
    cache: Path | None = None,
    workers: int | None = None,
    title: str = "values",
) -> Store:
    """Return what `compute` makes of `utterances`, from the cache or computed into it.

    Args:
        utterances: what to compute it of.
        about: all that decides what `compute` makes of a file, JSON-ready: part of the store's name.
        compute: makes an array of an utterance, of one type and shape but for the first axis; it runs in threads.
        cache: folder of the stores; `default_cache` if None.
        workers: threads; the number of cores if None.
        title: of the progress bar, which is shown on a terminal only.

    Raises:
        DatasetError: nothing could be computed, or the cache cannot be written.
    """
    cache = cache or default_cache()
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        paths = list(dict.fromkeys(utterance.path for utterance in utterances))
        digests = dict(zip(paths, pool.map(_digest, paths), strict=True))
        contents = {utterance.id: digests[utterance.path] for utterance in utterances}
        content = {"format": FORMAT, "about": about, "files": list(contents.items())}
        store = cache / hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
        recordings = {utterance.recording: contents[utterance.id] for utterance in utterances}
        if os.path.exists(store):
            try:
                return _open(store, recordings)
            except DAMAGED:  # or of other decoders
                shutil.rmtree(store, ignore_errors=True)
        if not os.path.exists(store):  # else it is another user's, or another process has just made it
            _build(store, utterances, about, compute, pool, title)
        try:
            return _open(store, recordings)
        except DAMAGED as error:
            raise DatasetError(f"{store}: cannot be used ({one_line(error)}): remove it, or {ANOTHER}") from error


def _open(store: Path, contents: Mapping[str, str]) -> Store:
    index = json.loads((store / "index.json").read_text(encoding="utf-8"))
    if index["faults"] and index["decoders"] != _decoders():
        raise ValueError(f"{store}: what could not be read then may be readable now")
    rows = {name: (first, last) for name, (first, last) in index["rows"].items()}
    total = max((last for _, last in rows.values()), default=0)
    file, dtype, shape = store / "values.bin", np.dtype(index["dtype"]), (total, *index["shape"])
    if file.stat().st_size != dtype.itemsize * int(np.prod(shape)):
        raise ValueError(f"{store}: its values are not those of the index")
    values = np.memmap(file, dtype, "r", shape=shape)
    faults: dict[str, str] = index["faults"]
    read = {name: content for name, content in contents.items() if name not in faults}
    return Store(values, rows, faults, store.name, read)


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


def _build(
    store: Path,
    utterances: Sequence[Utterance],
    about: Mapping[str, object],
    compute: Callable[[Utterance], Values],
    pool: ThreadPoolExecutor,
    title: str,
) -> None:
    def attempt(utterance: Utterance) -> Values | str:
        try:
            return compute(utterance)
        except AudioError as error:
            return str(error)

    rows: dict[str, tuple[int, int]] = {}
    faults: dict[str, str] = {}
    index: dict[str, object] = {"rows": rows, "faults": faults, "decoders": _decoders(), "about": about}
    filled = 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the utterances run in parallel, their small matrices need not
    try:
        with (
            _written(store) as temporary,
            open(temporary / "values.bin", "wb") as file,
            tqdm(total=len(utterances), desc=title, unit="clip", leave=False, disable=None) as bar,
        ):
            for start in range(0, len(utterances), BLOCK):
                block = utterances[start : start + BLOCK]
                for utterance, values in zip(block, pool.map(attempt, block), strict=True):
                    if isinstance(values, str):
                        faults[utterance.recording] = values
                    else:
                        file.write(np.ascontiguousarray(values).data)
                        rows[utterance.id] = (filled, filled + len(values))
                        filled += len(values)
                        index |= {"dtype": values.dtype.str, "shape": values.shape[1:]}
                bar.update(len(block))
            if not rows:
                raise DatasetError(f"none of {len(utterances)} files can be read: {named(list(faults.values()))}")
            (temporary / "index.json").write_text(json.dumps(index), encoding="utf-8")
    finally:
        torch.set_num_threads(threads)


def _remove_abandoned(cache: Path) -> None:
    """Remove what interrupted processes left behind; nobody writes a store for a day."""
    for part in cache.glob(".part-*"):
        with contextlib.suppress(OSError):  # it may have its name by now, or be gone
            if time.time() - part.stat().st_mtime > 86_400:
                shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _written(store: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `store` when the block ends well, and else disappears."""
    temporary = store.parent / f".part-{secrets.token_hex(8)}"
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(store.parent)
        temporary.mkdir()  # with the rights of any folder, which mkdtemp would not give: a cache may be shared
        yield temporary
        try:
            temporary.rename(store)
        except OSError:
            if not (store / "index.json").is_file():  # else another process was faster, with the same content
                raise
    except OSError as error:
        raise DatasetError(
            f"{store.parent}: the feature cache cannot be written ({error.strerror}): make room, or {ANOTHER}"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
