"""A corpus as training reads it: utterances and labels, and its features, which are computed once and kept on disk.

Features are log-Mel images or waveforms, memory-mapped. A store of them is keyed by what is computed and by the content
of every file, so nothing stale is ever read. It is written under another name and renamed once complete: an
interruption loses time only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ...audio.reader import AudioReader, Samples, windows, without_offset
from ...audio.speech import DECISION, WEIGHTS_SHA256, keep_speech
from ...errors import AudioError, ConfigError, DatasetError, one_line, printable
from ...files import open_regular
from ...model.config import ClassifierConfig, FrameViTConfig, FrontendConfig, ModelConfig
from ...model.frontend import LogMel
from .augment import VERSIONS, alter
from .corpora import CORPORA, ORIGINAL, Corpus, Utterance, audio_files, find_corpus, named

FORMAT = 2  # raise it when what a store holds changes for the same key
BLOCK = 64  # utterances handed to the threads at a time
FULL_SCALE = 32767  # of 16-bit samples
ANOTHER = "set SPEECH_EMOTION_VIT_CACHE to another folder"
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError)  # what reading a damaged store may raise

COLUMNS = frozenset(("utterance", "version", "speaker", "label", "predicted"))  # of tables with a column per label

NetworkConfig: TypeAlias = ModelConfig | FrameViTConfig
Values = npt.NDArray[Any]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """What was computed of some utterances, one behind the other."""

    values: Values
    """Memory-mapped: images `[rows, n_mels, columns]` in half precision (error below 0.04 dB), several rows for a clip
    longer than the front-end's window; or samples `[samples]`, 16-bit or float32."""
    rows: dict[str, tuple[int, int]]
    """Utterance to its first row and the row after its last; the unreadable are not in it."""
    faults: dict[str, str]
    """Recording to why it could not be read."""
    key: str
    """Digest of what is computed and of every file: the store's name in the cache."""
    contents: dict[str, str] = field(default_factory=dict)
    """Recording to the SHA-256 of its file; the unreadable are not in it."""


def default_cache() -> Path:
    """Return where stores are kept: ``$SPEECH_EMOTION_VIT_CACHE``, else the user's cache folder."""
    if folder := os.environ.get("SPEECH_EMOTION_VIT_CACHE"):
        return Path(folder)
    import platformdirs

    return platformdirs.user_cache_path("speech-emotion-vit", appauthor=False) / "features"


def load_inputs(utterances: Sequence[Utterance], frontend: FrontendConfig, *, cache: Path | None, title: str) -> Store:
    """Return what rows are made of: images, or speech for a front-end without columns; arguments as `load_values`."""
    if frontend.columns is None:
        return load_speech(utterances, frontend.sampling_rate, cache=cache, title=title)
    return load_features(utterances, frontend, cache=cache, title=title)


def load_features(
    utterances: Sequence[Utterance], frontend: FrontendConfig, *, cache: Path | None = None, title: str = "features"
) -> Store:
    """Return the images of `utterances`, each in its version; arguments as `load_values`.

    Each is resampled, downmixed and cut into windows as a prediction does.
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
    return load_values(utterances, about, compute, cache=cache, title=title)


def load_waveforms(
    utterances: Sequence[Utterance], sampling_rate: int, *, cache: Path | None = None, title: str = "audio"
) -> Store:
    """Return the 16-bit samples of original `utterances` at `sampling_rate` Hz; arguments as `load_values`.

    The mean is removed and the peak set to full scale, so that 16 bits lose nothing of a quiet recording.
    """

    def compute(utterance: Utterance) -> Values:
        waveform = read_waveform(utterance.path, sampling_rate)
        waveform = waveform - waveform.mean()
        peak = float(np.abs(waveform).max())
        samples: Values = np.round(waveform * (FULL_SCALE / peak if peak else 0.0)).astype(np.int16)
        return samples

    return load_values(utterances, {"sampling_rate": sampling_rate}, compute, cache=cache, title=title)


def load_speech(
    utterances: Sequence[Utterance], sampling_rate: int, *, cache: Path | None = None, title: str = "speech"
) -> Store:
    """Return the samples of original `utterances` that a prediction uses, float32 with a peak of 1; as `load_values`.

    These are the parts with speech, or the whole clip where there is no speech. They are exact, because a head that was
    fitted to 16-bit samples with their mean and the zeros at the end had other weights, by a tenth of their length.
    """

    def compute(utterance: Utterance) -> Values:
        waveform = read_waveform(utterance.path, sampling_rate)
        kept, _ = keep_speech(waveform, sampling_rate)
        speech = without_offset(kept if len(kept) else waveform)
        speech = np.trim_zeros(speech, "b") if speech.any() else speech  # zeros at the end are padding
        samples: Values = speech / max(np.abs(speech).max(), np.finfo(np.float32).tiny)
        return samples

    about = {"sampling_rate": sampling_rate, "speech": [WEIGHTS_SHA256, *DECISION]}
    return load_values(utterances, about, compute, cache=cache, title=title)


def load_values(
    utterances: Sequence[Utterance],
    about: Mapping[str, object],
    compute: Callable[[Utterance], Values],
    *,
    cache: Path | None,
    title: str,
) -> Store:
    """Return what `compute` makes of `utterances`, from the cache or computed into it.

    Args:
        utterances: what to compute it of.
        about: all that decides what `compute` makes of a file, JSON-ready: part of the store's name.
        compute: makes an array of an utterance; all arrays agree in type and in shape behind the first axis. It runs in
            threads.
        cache: folder of the stores; `default_cache` if None.
        title: of the progress bar, which is shown on a terminal only.

    Raises:
        DatasetError: nothing could be computed, or the cache cannot be written.
    """
    cache = cache or default_cache()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        paths = list(dict.fromkeys(utterance.path for utterance in utterances))
        digests = dict(zip(paths, pool.map(_digest, paths), strict=True))
        contents = {utterance.id: digests[utterance.path] for utterance in utterances}
        content = {"format": FORMAT, "about": about, "files": list(contents.items())}
        store = cache / hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
        recordings = {utterance.recording: contents[utterance.id] for utterance in utterances}
        if os.path.exists(store):
            try:
                return _open(store, recordings)
            except DAMAGED:  # or made with other decoders
                shutil.rmtree(store, ignore_errors=True)
        if not os.path.exists(store):  # else it belongs to another user, or another process has just made it
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
    """Remove what interrupted processes left behind; no store takes a day to write."""
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


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A corpus, or several, that has been read, with its features."""

    corpus: Corpus
    """The facts about it."""
    utterances: tuple[Utterance, ...]
    """The original recordings."""
    labels: tuple[str, ...]
    """The labels in it, in alphabetical order: the order of the head."""
    features: Store
    """Images of the utterances in all versions, or, for a front-end without columns, their waveforms."""
    remarks: tuple[str, ...]
    """How the folder differs from the published corpus, and which files could not be read."""

    @cached_property
    def digest(self) -> str:
        """Digest of ids, labels, speakers and sentences; the digest of the audio is the name of the store."""
        lines = [[u.id, u.label, u.speaker, u.sentence] for u in self.utterances]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def load_data(
    corpus: Corpus,
    folder: Path,
    *,
    frontend: FrontendConfig,
    versions: Sequence[str] = (ORIGINAL,),
    network: Callable[[int], NetworkConfig],
    only: Sequence[str] = (),
    cache: Path | None = None,
    strict: bool = False,
) -> Dataset:
    """Read a corpus and its features.

    Args:
        corpus: which one.
        folder: where it is.
        frontend: of the features.
        versions: of every recording: names from `augment.VERSIONS`.
        network: makes the student's configuration from a number of labels.
        only: labels to which the corpus is restricted; none: all.
        cache: folder of the features.
        strict: refuse a corpus with anything missing, extra or unreadable.

    Raises:
        DatasetError: the corpus is not there, `strict` and not as published, or has labels that no model can have.
    """
    utterances = tuple(corpus.read(folder))
    found = corpus.remarks(folder, utterances)
    if only:
        utterances = tuple(utterance for utterance in utterances if utterance.label in only)
    _check_labels(folder, utterances, frontend, network)
    features = load_inputs(
        [utterance.altered(version) for version in versions for utterance in utterances],
        frontend,
        cache=cache,
        title=corpus.title,
    )
    found += describe_faults(features)
    read = {utterance.label for utterance in utterances if utterance.recording in features.contents}
    if unread := sorted({utterance.label for utterance in utterances} - read):  # no label, so perhaps no emotion
        found.append(f"{len(unread)} labels are left out because none of their clips can be read: {named(unread)}")
        utterances = tuple(utterance for utterance in utterances if utterance.label in read)
    for remark in found:
        logger.info("%s: %s", corpus.title, remark)
    if found and strict:
        raise DatasetError(f"{folder}: {'; '.join(found)}: repair it, or leave out --strict")
    counts = Counter(utterance.label for utterance in utterances)
    labels = tuple(sorted(counts))
    logger.info("labels: %s", ", ".join(f"{label} {counts[label]}" for label in labels))
    if len(labels) < 2:
        raise DatasetError(f"{folder}: only one label is there, {labels[0]}: at least two are needed")
    if single := [label for label in labels if counts[label] == 1]:
        raise DatasetError(
            f"{folder}: the labels {named(single)} have one clip each, which cannot both be learnt and tested: add "
            "clips, or take these labels out"
        )
    return Dataset(corpus=corpus, utterances=utterances, labels=labels, features=features, remarks=tuple(found))


def read_audio(names: Sequence[str], folder: Path) -> list[Utterance]:
    """Return the clips of folders, for training without labels.

    Args:
        names: corpora, without their official test speakers, or other folders of audio.
        folder: where these folders are.

    Raises:
        DatasetError: a folder is missing or has no audio.
    """
    found: list[Utterance] = []
    for name in names:
        place = folder / name
        if name in CORPORA:
            corpus, place = find_corpus(name, place)
            found += [clip for clip in corpus.read(place) if clip.speaker not in corpus.test_speakers]
            continue
        clips = [
            Utterance(
                id=f"{name}/{path.relative_to(place).with_suffix('')}", path=path, label="", speaker="", corpus=name
            )
            for path in (audio_files(place) if place.is_dir() else ())
        ]
        if not clips:
            raise DatasetError(
                f"{place}: no audio is here, but the recipe trains on it: add some, or change frames.audio"
            )
        found += clips
    return found


def _check_labels(
    folder: Path, utterances: Sequence[Utterance], frontend: FrontendConfig, network: Callable[[int], NetworkConfig]
) -> None:
    """Refuse labels that no model can have, before the features are computed."""
    labels = tuple(sorted({utterance.label for utterance in utterances}))
    for label in labels:
        if not label.isprintable() or label in COLUMNS:
            rule = "not be called as a column of a table" if label in COLUMNS else "be printable"
            where = next(utterance.path for utterance in utterances if utterance.label == label)
            raise DatasetError(
                f"{folder}: a label must {rule}, not {label!r}, as of {printable(str(where))}: rename it"
            )
    if len(labels) > 1:
        try:
            ClassifierConfig(labels=labels, model=network(len(labels)), frontend=frontend)
        except ConfigError as error:
            raise DatasetError(f"{folder}: {error}") from error


def describe_faults(features: Store) -> list[str]:
    """Return one remark that names and counts the files that could not be read, or none."""
    faults = features.faults
    if not faults:
        return []
    return [f"{len(faults)} files cannot be read and are left out: {named([faults[name] for name in sorted(faults)])}"]
