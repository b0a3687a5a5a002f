"""Many machines: Ray Data carries file names or Parquet rows to workers, each of which has a model and writes Parquet.

A worker writes the answers of a batch as one file that appears whole or not at all, and whose name follows from what is
in it. So whatever is killed, and whatever Ray then does again, no answer is lost and none is there twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .audio.inputs import describe
from .audio.suffixes import find_audio
from .classifier import EmotionClassifier
from .errors import AudioError, ConfigError, one_line, printable
from .extras import require
from .files import find_files, whole_file
from .weights.resolve import resolve_model

if TYPE_CHECKING:
    import pyarrow

_AUDIO_COLUMNS = ("audio", "file", "path", "filename", "file_name")
_WORKER_CPUS = 0.9  # of a core: the rest is for the reader, or workers on all cores would wait for it without end
_READER_CPUS = 0.1
_DOOR_SECONDS = 5.0  # for a cluster to accept a connection
_FAILED = "_failed"  # readers of Parquet ignore names that begin with _


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    total: int
    """Recordings, those of earlier runs among them."""
    before: int
    """Those that earlier runs have answered."""
    answered: int
    """Those that this run has answered so far."""
    failed: int
    """Those that could not be read so far."""


class _Worker:
    """One model in one process of Ray.

    Args:
        output: folder to write to.
        column: of the batches that holds audio, or names of files.
        key: column that tells recordings apart.
        model: options of `EmotionClassifier`.
        options: of `EmotionClassifier.predict_batch`.
    """

    def __init__(self, output: str, column: str, key: str, model: dict[str, Any], options: dict[str, Any]) -> None:
        self._output, self._column, self._key, self._options = Path(output), column, key, options
        self._classifier = EmotionClassifier(**model)

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        """Write the answers to a batch, and return how many there are and how many recordings failed."""
        import pyarrow as pa

        batch = batch.combine_chunks()
        audios = batch[self._column].to_pylist()
        found = list(self._classifier.iter_predictions(audios, errors="return", **self._options))
        names = pa.table({"file": [_name(audio) for audio in audios], self._key: _keys(audios, self._key)})
        good = pa.array([not isinstance(each, AudioError) for each in found])
        answers = [each for each in found if not isinstance(each, AudioError)]
        text, real = pa.string(), pa.float32()
        columns = [("label", text), ("score", real)]
        columns += [(label, real) for label in (answers[0].probabilities if answers else ())]
        columns += [("duration", pa.float64()), ("speech", pa.float64()), ("model", text), ("warnings", pa.list_(text))]
        rows = [{**each.to_dict(), **each.probabilities} for each in answers]
        table = names.filter(good)
        for part in (pa.Table.from_pylist(rows, pa.schema(columns)), batch.filter(good)):
            for name in part.column_names:
                if name not in (self._column, self._key, "file"):
                    taken = name in table.column_names
                    table = table.append_column(f"{name}_given" if taken else name, part[name])
        self._write(self._output, table)
        errors = pa.array([str(each) for each in found if isinstance(each, AudioError)], pa.string())
        failed = names.filter(pa.array([isinstance(each, AudioError) for each in found]))
        self._write(self._output / _FAILED, failed.append_column("error", errors))
        return pa.table({"answered": [len(table)], "failed": [len(failed)]})

    def _write(self, folder: Path, table: pyarrow.Table) -> None:
        import pyarrow.parquet as pq

        if not len(table):
            return
        digest = hashlib.sha256("\0".join(table[self._key].to_pylist()).encode("utf-8", "surrogateescape"))
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / f"part-{digest.hexdigest()[:32]}.parquet") as temporary:
            pq.write_table(table, temporary)


def _keys(audios: Iterable[Any], key: str) -> list[str]:
    """Return what tells recordings apart: their names, or the digests of their contents."""
    if key == "file":
        return [str(audio) for audio in audios]
    return [hashlib.sha256(_content(audio)).hexdigest() for audio in audios]


def _content(audio: Any) -> bytes:
    content = audio if isinstance(audio, bytes) else (audio or {}).get("bytes")
    return content if content is not None else str((audio or {}).get("path")).encode("utf-8", "surrogateescape")


def _name(audio: Any) -> str | None:
    return audio if isinstance(audio, str) else audio.get("path") if isinstance(audio, dict) else None


def predict_on_ray(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    address: str | None = None,
    resume: bool = False,
    model: dict[str, Any] | None = None,
    workers: int | None = None,
    recordings: int = 32,
    **options: Any,
) -> Iterator[Progress]:
    """Answer recordings on all machines of a Ray cluster, and yield how far that is.

    Args:
        source: a folder that is searched for audio, names of files, or Parquet: a file or a folder of such, with a
            column ``audio``, ``file`` or ``path`` that holds names, contents, or both as Hugging Face has them.
        output: a folder that all machines see. It gets Parquet files: one row for each recording, with the other
            columns of a Parquet source; what failed is in the folder ``_failed`` in it.
        address: of the cluster, ``host:port`` or ``ray://host:port``; None is the one that runs here, or else one that
            is started for this job and ends with the process.
        resume: keep what earlier runs have left in `output`, and do the rest; what failed is tried again.
        model: options of `EmotionClassifier`, such as ``{"model": "crema-d"}``.
        workers: processes with a model each; by default one for every CPU of the cluster.
        recordings: that a worker gets at once, and writes to one file.
        options: of `EmotionClassifier.predict_batch`.

    Raises:
        ConfigError: Ray or pyarrow is not installed, the cluster is not there, or source or output is no such thing.
        WeightsError: the model cannot be found.
    """
    pa, pq = require("pyarrow", "ray"), require("pyarrow.parquet", "ray")
    place = Path(os.path.abspath(output))
    options_of_model = dict(model or {})
    before = _answered(place, resume, options_of_model)
    rows, column, key = _source(source)
    ray, data = require("ray", "ray"), require("ray.data", "ray")
    if not ray.is_initialized():
        _connect(ray, address)
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # `Progress` says how far it is
    context = data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    keys = ray.put(before)

    def rest(batch: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """Yield the rows of groups in Parquet files that are still to do."""
        done = ray.get(keys)
        for path, group in zip(batch["path"].to_pylist(), batch["group"].to_pylist(), strict=True):
            table = pq.ParquetFile(path).read_row_group(group)
            todo = [each not in done for each in _keys(table[column].to_pylist(), key)]
            yield table.filter(pa.array(todo, pa.bool_()))

    if isinstance(rows, list):
        total = len(rows)
        todo = [row for row in rows if row not in before]
        blocks = [pa.table({column: todo[first : first + recordings]}) for first in range(0, len(todo), recordings)]
        dataset = data.from_arrow(blocks) if blocks else None
    else:
        # Ray's own reader needs a whole core to list the files, and waits for ever where the workers have them all.
        files = [(path, pq.ParquetFile(path).metadata) for path in rows[0]]
        total = sum(facts.num_rows for _, facts in files)
        groups = [(path, group) for path, facts in files for group in range(facts.num_row_groups)]
        pieces = [pa.table({"path": [path], "group": [group]}) for path, group in groups]
        dataset = data.from_arrow(pieces) if pieces else None
        if dataset is not None:
            dataset = dataset.map_batches(rest, batch_format="pyarrow", batch_size=1, num_cpus=_READER_CPUS)
    known = len(before)
    answered = failed = 0
    yield Progress(total, known, answered, failed)
    if dataset is None:
        return
    size = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    size = min(size, math.ceil(max(1, total - known) / recordings))  # no worker without work
    results = dataset.map_batches(
        _Worker,
        fn_constructor_args=(str(place), column, key, options_of_model, options),
        compute=data.ActorPoolStrategy(size=size),
        batch_format="pyarrow",
        batch_size=recordings,
        num_cpus=_WORKER_CPUS,
    )
    try:
        for row in results.iter_rows():
            answered, failed = answered + row["answered"], failed + row["failed"]
            yield Progress(total, known, answered, failed)
    except ray.exceptions.RayError as error:
        cause = one_line(getattr(error, "cause", None) or error)
        raise ConfigError(
            f"the cluster gave up ({cause[-300:]}): what is done is there, go on with --resume"
        ) from error


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start one on this machine where no address is known.

    Ray waits minutes for an address that does not answer. So a plain connection is tried first.

    Raises:
        ConfigError: there is no cluster at the address.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    known = address
    if address in (None, "auto"):
        folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
        with contextlib.suppress(OSError):  # the cluster that `ray start` has started here last
            known = Path(folder, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip()
    try:
        if known not in (None, "", "auto", "local"):
            host, _, port = known.removeprefix("ray://").rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=_DOOR_SECONDS).close()
            except OSError:
                if address is not None:
                    raise
                address = "local"  # the cluster has ended without a word
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        remedy = "start one with ray start, or choose another address"
        if isinstance(error.__cause__, getattr(ray.exceptions, "AuthenticationError", ())):
            remedy = "the cluster asks for a token, set RAY_AUTH_MODE=token"
        place = printable(known or "this machine")
        raise ConfigError(f"no Ray cluster at {place} ({one_line(error)}): {remedy}") from error


def _source(source: Any) -> tuple[list[str] | tuple[list[str]], str, str]:
    """Return names of recordings, or those of Parquet files in a tuple, with the columns of audio and of keys."""
    if isinstance(source, (str, os.PathLike)):
        name = os.path.abspath(source)
        if os.path.isdir(name):
            found = find_audio(name)
            if found.paths:
                return list(found.paths), "file", "file"
            tables, *_ = find_files(name, frozenset({".parquet"}))
            if not tables:
                raise ConfigError(f"{describe(source)}: holds neither audio nor Parquet: choose another folder")
            return (tables,), *_columns(tables[0])
        if name.endswith(".parquet"):
            return ([name],), *_columns(name)
        source = [source]
    return list(dict.fromkeys(os.path.abspath(each) for each in source)), "file", "file"


def _columns(path: str) -> tuple[str, str]:
    """Return the columns of audio and of keys in a Parquet file."""
    pa, pq = require("pyarrow", "ray"), require("pyarrow.parquet", "ray")
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{printable(path)}: cannot be read as Parquet ({one_line(error)}): check it") from error
    for name in _AUDIO_COLUMNS:
        if name in schema.names:
            return name, "file" if pa.types.is_string(schema.field(name).type) else "sha256"
    known = ", ".join(_AUDIO_COLUMNS)
    raise ConfigError(f"{printable(path)}: no column of audio ({', '.join(schema.names)}): call one of them {known}")


def _answered(place: Path, resume: bool, model: dict[str, Any]) -> frozenset[str]:
    """Return the keys of what earlier runs have answered, and remove what they say of failures."""
    parts = sorted(place.glob("part-*.parquet"))
    with contextlib.suppress(OSError):
        if not resume and (parts or os.listdir(place)):
            raise ConfigError(f"{printable(str(place))}: is not empty: choose another folder, or resume with --resume")
    if place.exists() and not place.is_dir():
        raise ConfigError(f"{printable(str(place))}: is no folder: choose another place")
    resolved = resolve_model(
        model.get("model"),
        revision=model.get("revision"),
        cache_dir=model.get("cache_dir"),
        local_files_only=model.get("local_files_only", False),
    )
    name = f"{resolved.name}@{resolved.revision}"
    shutil.rmtree(place / _FAILED, ignore_errors=True)
    found: set[str] = set()
    pa, pq = require("pyarrow", "ray"), require("pyarrow.parquet", "ray")
    for part in parts:
        try:
            names = pq.read_schema(part).names
            key = "sha256" if "sha256" in names else "file"
            table = pq.read_table(part, columns=[key, "model"])
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(f"{printable(str(part))}: cannot be read ({one_line(error)}): remove it") from error
        others = set(table["model"].to_pylist()) - {name}
        if others:
            raise ConfigError(
                f"{printable(str(place))}: --resume found answers of {printable(others.pop())}, not of {name}: "
                "choose another output, or that --model"
            )
        found.update(table[key].to_pylist())
    return frozenset(found)
