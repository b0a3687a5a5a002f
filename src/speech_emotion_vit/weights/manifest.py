"""The manifest: one record per published model, and nothing about a model is written down in a second place."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ..errors import ConfigError, WeightsError
from ..files import read_text, whole_file
from ..model.config import ClassifierConfig, as_float

SCHEMA_VERSION = 1
MANIFEST_FILE = "weights_manifest.json"

# Classes of the corpora, English names in alphabetical order: the order of the official networks' outputs.
CORPUS_LABELS = {
    "crema-d": ("anger", "disgust", "fear", "happiness", "neutral", "sadness"),
    "emodb": ("anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness"),
    "savee": ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
}

MAX_JSON_BYTES = 4 * 2**20  # far above any honest manifest, far below what hurts
_CONFIG_KEYS = ("labels", "temperature", "frontend", "model")
_HEX_64 = (r"[0-9a-f]{64}", "64 lower-case hex digits")
_HEX_40 = (r"[0-9a-f]{40}", "a commit of 40 lower-case hex digits")
_NAME = (r"[a-z0-9][a-z0-9._-]*", "lower-case letters, digits, '.', '_' and '-'")
_REPO = (r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", "org/repo")
# Every part starts with a letter or digit, so nothing is absolute, hidden, or climbs.
_FILE = (r"([A-Za-z0-9][\w.-]*/)*[A-Za-z0-9][\w.-]*\.safetensors", "a relative .safetensors name without '..'")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measured score, with what it takes to know what it means."""

    name: str
    """``UA`` (mean recall), ``WA`` (accuracy), ``macro-F1``, ``ECE``."""
    value: float
    """A fraction from 0 to 1."""
    protocol: str
    """``speaker``, ``random`` or ``paper``: how training and test were kept apart."""
    split: str
    """What was scored: ``test``, ``dev``, ``cross-validation``."""
    clips: int
    """Number of clips scored."""
    speakers: int
    """Number of speakers in them."""
    seeds: int | None = None
    """Number of trainings averaged, where more than the file at hand was scored."""
    interval: tuple[float, float] | None = None
    """95 % interval over speakers."""
    note: str | None = None
    """What else a reader must know."""


@dataclass(frozen=True, kw_only=True)
class WeightEntry:
    """One published model: where its file is, how to know it, what it is, and what it is worth."""

    name: str
    """What the user asks for."""
    sha256: str
    """Digest of the whole file, 64 lower-case hex digits."""
    size_bytes: int
    """Size of the file in bytes."""
    config: ClassifierConfig
    """Labels, temperature, front-end and network."""
    trained_on: str
    """Corpus and speakers."""
    recipe: str
    """Name of the training recipe."""
    metrics: tuple[Metric, ...]
    """Scores; the first one is the headline."""
    license: str
    """Licence of the weights, with what the corpus asks for."""
    citation: str
    """What to cite."""
    file: str | None = None
    """Name in the package's ``weights`` folder, where the file is bundled."""
    repo_id: str | None = None
    """Hub repository, where it is (also) there."""
    revision: str | None = None
    """Commit in that repository, 40 hex digits."""
    filename: str | None = None
    """Name in that repository."""
    heard: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Speakers by corpus that it, or what it started from or was taught by, was trained on."""
    backbone: str | None = None
    """Name of the model whose tensors are this one's, all but the head; None where the file holds all of them."""
    backbone_sha256: str | None = None
    """Digest of that model's file."""

    @property
    def size(self) -> str:
        """Size of the file for people, with the model whose file it needs beside it, if any."""
        return f"{self.size_bytes / 1e6:.1f} MB" if self.backbone is None else f"a head on {self.backbone}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All published models."""

    default: str
    """Name of the model used when none is asked for."""
    models: Mapping[str, WeightEntry]
    """Name to record."""
    schema_version: int = SCHEMA_VERSION
    """Layout of the file."""

    def get(self, name: str) -> WeightEntry:
        """Return the record of `name`.

        Raises:
            WeightsError: there is none; the message lists the names there are.
        """
        if name not in self.models:
            raise WeightsError(f"no model is called {name!r}: choose one of {', '.join(self.models)}")
        return self.models[name]


def load_manifest(path: str | os.PathLike[str] | None = None) -> Manifest:
    """Read the manifest: `path`, else the one beside the weights, else the one at the root of the checkout.

    Raises:
        WeightsError: there is none, or a field of it is missing, unknown or wrong.
    """
    if path is None:
        folder = Path(__file__).resolve().parent
        places = [folder / MANIFEST_FILE]
        if folder.parents[1].name == "src":
            places.append(folder.parents[2] / MANIFEST_FILE)
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            searched = " and ".join(map(str, places))
            raise WeightsError(f"no {MANIFEST_FILE}: looked for {searched}: reinstall speech-emotion-vit")
        path = found
    where = os.fspath(path)
    return _parse_manifest(parse_json(_read_text(Path(path)), where), where)


def dump_entry(entry: WeightEntry) -> dict[str, Any]:
    """Return the record as it stands in the manifest under its name."""
    places = ("file", "repo_id", "revision", "filename", "backbone", "backbone_sha256")
    source = {key: getattr(entry, key) for key in places}
    return {
        **{key: value for key, value in source.items() if value is not None},
        "sha256": entry.sha256,
        "size_bytes": entry.size_bytes,
        **entry.config.to_dict(),
        "trained_on": entry.trained_on,
        "heard": {corpus: list(speakers) for corpus, speakers in entry.heard.items()},
        "recipe": entry.recipe,
        "metrics": [{k: v for k, v in vars(metric).items() if v is not None} for metric in entry.metrics],
        "license": entry.license,
        "citation": entry.citation,
    }


def write_manifest(path: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write the manifest, whole or not at all, if it would be read back as the same.

    Raises:
        WeightsError: a value is wrong; nothing is written.
        ConfigError: nothing can be written there.
    """
    where = os.fspath(path)
    document = {
        "schema_version": manifest.schema_version,
        "default": manifest.default,
        "models": {name: dump_entry(entry) for name, entry in manifest.models.items()},
    }
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{where}: not written, a value is not JSON ({error}): use plain Python types") from error
    if _parse_manifest(parse_json(text, where), where) != manifest:
        raise WeightsError(f"{where}: not written, a model's name differs from its key: use one name")
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_config_json(path: str | os.PathLike[str]) -> ClassifierConfig:
    """Read a model folder's ``config.json``.

    Raises:
        WeightsError: it is missing, no JSON, or not a configuration of this package.
    """
    return parse_config(_read_text(Path(path)), os.fspath(path))


def parse_config(text: str, where: str) -> ClassifierConfig:
    """Return the configuration in JSON `text`; `where` names its origin in messages.

    Raises:
        WeightsError: it is no JSON, or not a configuration of this package.
    """
    try:
        return ClassifierConfig.from_dict(parse_json(text, where))
    except ConfigError as error:
        raise WeightsError(f"{where}: {error}: is this a model of speech-emotion-vit?") from error


def parse_json(text: str, where: str) -> object:
    """Parse strict JSON: no NaN, no key twice.

    Raises:
        WeightsError: it is not that.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{where}: not valid JSON ({error}): correct or replace the file") from error


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError(f"a key stands twice in {[key for key, _ in pairs]}")
    return values


def _read_text(path: Path) -> str:
    try:
        return read_text(path, MAX_JSON_BYTES)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror}): check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path}: not UTF-8 text ({error.reason}): correct or replace the file") from error


class _Record:
    """A JSON object whose fields are taken out and checked one by one; what is left at the end is unknown."""

    def __init__(self, values: object, where: str) -> None:
        self.where = where
        if not isinstance(values, dict):
            self.fail("the value", values, "a JSON object")
        self.values = dict(values)

    def fail(self, field: str, value: object, wanted: str) -> NoReturn:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        raise WeightsError(
            f"{self.where}: {field} is {shown}, must be {wanted}: correct the manifest, or reinstall speech-emotion-vit"
        )

    def take(self, field: str, kind: type[T], wanted: str) -> T:
        if field not in self.values:
            raise WeightsError(f"{self.where}: {field} is missing: add it, or reinstall speech-emotion-vit")
        value = self.values.pop(field)
        if kind is float:
            value = as_float(value)
        if type(value) is not kind:  # bool is an int, but not a count
            self.fail(field, value, wanted)
        return value

    def text(self, field: str, rule: tuple[str, str] = (r".*\S.*", "a text")) -> str:
        pattern, wanted = rule
        value = self.take(field, str, wanted)
        if not re.fullmatch(pattern, value, re.DOTALL):
            self.fail(field, value, wanted)
        return value

    def optional_text(self, field: str, rule: tuple[str, str] = (r".*\S.*", "a text")) -> str | None:
        return self.text(field, rule) if self.values.get(field) is not None else self.values.pop(field, None)

    def texts_by_name(self, field: str) -> dict[str, tuple[str, ...]]:
        values = self.take(field, dict, "a JSON object of lists of texts")
        for value in values.values():
            if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
                self.fail(field, value, "a JSON object of lists of texts")
        return {name: tuple(texts) for name, texts in values.items()}

    def count(self, field: str) -> int:
        value = self.take(field, int, "a whole number of at least 1")
        if value < 1:
            self.fail(field, value, "a whole number of at least 1")
        return value

    def finish(self) -> None:
        if self.values:
            raise WeightsError(
                f"{self.where}: unknown fields {sorted(self.values)}: correct the manifest, or upgrade "
                "speech-emotion-vit"
            )


def _parse_manifest(values: object, where: str) -> Manifest:
    record = _Record(values, where)
    version = record.take("schema_version", int, f"{SCHEMA_VERSION}")
    if version != SCHEMA_VERSION:
        raise WeightsError(
            f"{where}: schema_version is {version}, this speech-emotion-vit reads {SCHEMA_VERSION}: upgrade it"
        )
    entries = record.take("models", dict, "a JSON object of models by name")
    models = {name: _parse_entry(name, entry, where) for name, entry in entries.items()}
    default = record.text("default", _NAME)
    if default not in models:
        record.fail("default", default, f"one of the models: {', '.join(models) or 'there are none'}")
    for entry in models.values():
        _require_backbone(entry, models, where)
    record.finish()
    return Manifest(schema_version=version, default=default, models=models)


def _require_backbone(entry: WeightEntry, models: Mapping[str, WeightEntry], where: str) -> None:
    """Refuse a head for a network that is not there, is another by now, or has its tensors elsewhere itself."""
    if entry.backbone is None:
        return
    under = models.get(entry.backbone)
    if under is None or under.backbone is not None or under.sha256 != entry.backbone_sha256:
        raise WeightsError(
            f"{where}: model {entry.name!r}: its backbone {entry.backbone!r} with SHA-256 {entry.backbone_sha256} is "
            "not among the models that hold all of their tensors: bundle it again, or reinstall speech-emotion-vit"
        )


def _parse_entry(name: str, values: object, where: str) -> WeightEntry:
    record = _Record(values, f"{where}: model {name!r}")
    if not re.fullmatch(_NAME[0], name):
        record.fail("the name", name, _NAME[1])
    file = record.optional_text("file", _FILE)
    repo_id = record.optional_text("repo_id", _REPO)
    if file is None and repo_id is None:
        raise WeightsError(f"{record.where}: neither file nor repo_id is given: say where the weights are")
    if repo_id is None:
        for field in ("revision", "filename"):
            if record.values.pop(field, None) is not None:
                raise WeightsError(f"{record.where}: {field} without repo_id: add repo_id or remove {field}")
    config = {key: record.values.pop(key, None) for key in _CONFIG_KEYS}
    absent = [key for key, value in config.items() if value is None]
    if absent:
        raise WeightsError(f"{record.where}: {', '.join(absent)} missing: add it, or reinstall speech-emotion-vit")
    try:
        parsed = ClassifierConfig.from_dict(config)
    except ConfigError as error:
        raise WeightsError(f"{record.where}: {error}: correct the manifest, or reinstall speech-emotion-vit") from error
    backbone = record.optional_text("backbone", _NAME)
    metrics = record.take("metrics", list, "a list")
    entry = WeightEntry(
        name=name,
        file=file,
        repo_id=repo_id,
        revision=None if repo_id is None else record.text("revision", _HEX_40),
        filename=None if repo_id is None else record.text("filename", _FILE),
        backbone=backbone,
        backbone_sha256=None if backbone is None else record.text("backbone_sha256", _HEX_64),
        sha256=record.text("sha256", _HEX_64),
        size_bytes=record.count("size_bytes"),
        config=parsed,
        trained_on=record.text("trained_on"),
        heard=record.texts_by_name("heard"),
        recipe=record.text("recipe"),
        metrics=tuple(_parse_metrics(metrics, record.where)),
        license=record.text("license"),
        citation=record.text("citation"),
    )
    record.finish()
    return entry


def _parse_metrics(metrics: list[object], where: str) -> Iterator[Metric]:
    for index, values in enumerate(metrics):
        record = _Record(values, f"{where}: metrics[{index}]")
        interval = record.values.pop("interval", None)
        if interval is not None:
            fractions = isinstance(interval, list) and len(interval) == 2 and all(map(_is_fraction, interval))
            if not fractions or interval[0] > interval[1]:
                record.fail("interval", interval, "[low, high] with 0 <= low <= high <= 1")
            interval = (float(interval[0]), float(interval[1]))
        value = record.take("value", float, "a fraction from 0 to 1")
        if not _is_fraction(value):
            record.fail("value", value, "a fraction from 0 to 1")
        metric = Metric(
            name=record.text("name"),
            value=value,
            protocol=record.text("protocol"),
            split=record.text("split"),
            clips=record.count("clips"),
            speakers=record.count("speakers"),
            seeds=record.count("seeds") if record.values.get("seeds") is not None else record.values.pop("seeds", None),
            interval=interval,
            note=record.optional_text("note"),
        )
        record.finish()
        yield metric


def _is_fraction(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
