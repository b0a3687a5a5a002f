"""The manifest: one record per published model, and nothing about a model is written down in a second place."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn

from msgspec import Meta

from ..decoding import decode
from ..errors import ConfigError, WeightsError, quoted
from ..files import read_text, whole_file
from ..model.config import ClassifierConfig

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

Text = Annotated[str, Meta(pattern=r"\S", description="a text")]
Name = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]*\Z", description="lower-case letters, digits, '.', '_' and '-'")
]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="64 lower-case hex digits")]
Commit = Annotated[str, Meta(pattern=r"^[0-9a-f]{40}\Z", description="a commit of 40 lower-case hex digits")]
Repository = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z", description="org/repo")]
File = Annotated[  # every part starts with a letter or digit, so nothing is absolute, hidden, or climbs
    str,
    Meta(
        pattern=r"^([A-Za-z0-9][\w.-]*/)*[A-Za-z0-9][\w.-]*\.safetensors\Z",
        description="a relative .safetensors name without '..'",
    ),
]
Count = Annotated[int, Meta(ge=1)]
Fraction = Annotated[float, Meta(ge=0, le=1, description="a fraction from 0 to 1")]
Interval = Annotated[tuple[Fraction, Fraction], Meta(description="[low, high] with 0 <= low <= high <= 1")]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measured score, with what it takes to know what it means."""

    name: Text
    """``UA`` (mean recall), ``WA`` (accuracy), ``macro-F1``, ``ECE``."""
    value: Fraction
    """A fraction from 0 to 1."""
    protocol: Text
    """``speaker``, ``random`` or ``paper``: how training and test were kept apart."""
    split: Text
    """What was scored: ``test``, ``dev``, ``cross-validation``."""
    clips: Count
    """Number of clips scored."""
    speakers: Count
    """Number of speakers in them."""
    seeds: Count | None = None
    """Number of trainings averaged, where more than the file at hand was scored."""
    interval: Interval | None = None
    """95 % interval over speakers."""
    note: Text | None = None
    """What else a reader must know."""

    def __post_init__(self) -> None:
        if self.interval is not None and self.interval[0] > self.interval[1]:
            raise ConfigError(f"interval must be [low, high] with low <= high, not {quoted(self.interval)}")


@dataclass(frozen=True, kw_only=True)
class WeightEntry:
    """One published model: where its file is, how to know it, what it is, and what it is worth."""

    name: Name
    """What the user asks for."""
    sha256: Digest
    """Digest of the whole file, 64 lower-case hex digits."""
    size_bytes: Count
    """Size of the file in bytes."""
    config: ClassifierConfig
    """Labels, temperature, front-end and network."""
    trained_on: Text
    """Corpus and speakers."""
    recipe: Text
    """Name of the training recipe."""
    metrics: tuple[Metric, ...]
    """Scores; the first one is the headline."""
    license: Text
    """Licence of the weights, with what the corpus asks for."""
    citation: Text
    """What to cite."""
    file: File | None = None
    """Name in the package's ``weights`` folder, where the file is bundled."""
    repo_id: Repository | None = None
    """Hub repository, where it is (also) there."""
    revision: Commit | None = None
    """Commit in that repository, 40 hex digits."""
    filename: File | None = None
    """Name in that repository."""
    heard: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Speakers by corpus that it, or what it started from or was taught by, was trained on."""
    teacher: Repository | None = None
    """Hub repository of the speech encoder whose frames it matched; None where there was none."""
    backbone: Name | None = None
    """Name of the model whose tensors are this one's, all but the head; None where the file holds all of them."""
    backbone_sha256: Digest | None = None
    """Digest of that model's file."""

    def __post_init__(self) -> None:
        if self.file is None and self.repo_id is None:
            raise ConfigError("neither file nor repo_id is given: say where the weights are")
        place = {"revision": self.revision, "filename": self.filename}
        if self.repo_id is None and (lost := [name for name, value in place.items() if value is not None]):
            raise ConfigError(f"{', '.join(lost)} without repo_id: add repo_id or remove it")
        if self.repo_id is not None and (lost := [name for name, value in place.items() if value is None]):
            raise ConfigError(f"{', '.join(lost)} missing: a file on the Hub has both")
        if self.backbone is not None and self.backbone_sha256 is None:
            raise ConfigError("backbone_sha256 is missing: say which file of the backbone it is")

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
            raise WeightsError(f"no model is called {quoted(name)}: choose one of {', '.join(self.models)}")
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
    places = ("file", "repo_id", "revision", "filename", "teacher", "backbone", "backbone_sha256")
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


_REMEDY = "correct the manifest, or reinstall speech-emotion-vit"


def _parse_manifest(values: object, where: str) -> Manifest:
    if not isinstance(values, dict):
        raise WeightsError(f"{where}: must be a JSON object, not {quoted(values)}: {_REMEDY}")
    known = {field.name for field in dataclasses.fields(Manifest)}
    if unknown := sorted(set(values) - known):
        raise WeightsError(f"{where}: unknown fields {quoted(unknown)}: correct it, or upgrade speech-emotion-vit")
    if missing := sorted(known - set(values)):
        raise WeightsError(f"{where}: {', '.join(missing)} missing: {_REMEDY}")
    version, default, entries = (values[name] for name in ("schema_version", "default", "models"))
    if type(version) is not int or version != SCHEMA_VERSION:
        raise WeightsError(
            f"{where}: schema_version is {quoted(version)}, this speech-emotion-vit reads {SCHEMA_VERSION}: upgrade it"
        )
    if not isinstance(entries, dict):
        raise WeightsError(f"{where}: models must be a JSON object of models by name, not {quoted(entries)}: {_REMEDY}")
    models = {name: _parse_entry(name, entry, where) for name, entry in entries.items()}
    if not isinstance(default, str) or default not in models:
        names = ", ".join(models) or "there are none"
        raise WeightsError(f"{where}: default must be one of the models, {names}, not {quoted(default)}: {_REMEDY}")
    for entry in models.values():
        _require_backbone(entry, models, where)
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
    where = f"{where}: model {name!r}"
    if not isinstance(values, dict):
        raise WeightsError(f"{where} must be a JSON object, not {quoted(values)}: {_REMEDY}")
    if missing := [key for key in _CONFIG_KEYS if values.get(key) is None]:
        raise WeightsError(f"{where}: {', '.join(missing)} missing: {_REMEDY}")
    own = {key: value for key, value in values.items() if key not in _CONFIG_KEYS}
    try:
        config = ClassifierConfig.from_dict({key: values[key] for key in _CONFIG_KEYS})
        return decode(WeightEntry, {**own, "name": name, "config": config}, "its record")
    except ConfigError as error:
        raise WeightsError(f"{where}: {error}: {_REMEDY}") from error
