"""From what the user calls a model to a file on this machine whose SHA-256 has been checked."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, IntegrityError, WeightsError, quoted
from ..model.config import CONFIG_FILE, WEIGHTS_FILE, ClassifierConfig
from .download import HubRepository, fault_of, sha256_file
from .manifest import Manifest, WeightEntry, load_manifest, read_config_json

__all__ = [
    "WEIGHTS_FOLDER",
    "ResolvedModel",
    "download_model",
    "list_models",
    "resolve_model",
    "sha256_file",
    "verify_model",
]

WEIGHTS_FOLDER = Path(__file__).resolve().parent

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SHORT = 12  # digits of a digest that stand for the revision of a file without one


@dataclass(frozen=True, kw_only=True)
class ResolvedModel:
    """A model whose files are on this machine."""

    name: str
    """What it was asked for as."""
    revision: str
    """Commit on the Hub; for other files the first digits of their SHA-256."""
    weights: Path
    """The safetensors file."""
    backbone: Path | None = None
    """The safetensors file with all tensors but those of the head, where the first holds these alone."""
    repo_id: str | None = None
    """The repository of the Hub it was found in by that name."""
    config: ClassifierConfig | None
    """What the network is; None where only the metadata of the file says so."""
    entry: WeightEntry | None = None
    """Its record in the manifest, if it has one."""
    sha256: str | None = None
    """SHA-256 of the file, found to be what was announced; None where nobody announced a digest."""


def list_models(*, manifest: Manifest | None = None) -> tuple[WeightEntry, ...]:
    """Return the records of all published models.

    Raises:
        WeightsError: there is no manifest, or it is wrong.
    """
    return tuple((manifest or load_manifest()).models.values())


def resolve_model(
    model: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    manifest: Manifest | None = None,
) -> ResolvedModel:
    """Find a model, fetch it if need be, and verify it.

    Args:
        model: a name in the manifest, else a folder with ``config.json`` and ``model.safetensors`` or a
            ``.safetensors`` file, else a Hub repository ``org/repo`` with those two files. None is the default of
            the manifest. A path object is never taken for a name or a repository.
        revision: branch, tag or commit of a Hub repository; its main branch by default.
        cache_dir: where downloads are kept; the Hub client's cache by default.
        local_files_only: never use the network.
        manifest: the models there are; the package's own by default.

    Raises:
        WeightsError: nothing goes by that name, or files are missing in the folder.
        IntegrityError: the file has another SHA-256 than announced.
        DownloadError: the file could not be fetched or stored.
        ConfigError: an argument makes no sense.
    """
    if isinstance(model, os.PathLike):
        return _local(Path(model), revision)
    if not isinstance(model, str | None):
        raise ConfigError(f"model is {quoted(model)}: give a name, a path or a Hub repository org/repo")
    manifest = manifest or load_manifest()
    name = manifest.default if model is None else model
    if name in manifest.models:
        return _published(manifest, name, revision, cache_dir, local_files_only)
    if name and os.path.exists(os.path.expanduser(name)):
        return _local(Path(name), revision)
    if _REPOSITORY.fullmatch(name) and not name.endswith(".safetensors"):
        return _repository(name, revision, cache_dir, local_files_only)
    raise WeightsError(
        f"no model, file or folder is called {quoted(name)}: choose one of {', '.join(manifest.models)}, "
        "or give a folder, a .safetensors file, or a Hub repository org/repo"
    )


def download_model(
    model: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    manifest: Manifest | None = None,
) -> ResolvedModel:
    """Make sure that a model can be used without a network from now on.

    Raises:
        SpeechEmotionError: as `resolve_model`.
    """
    return resolve_model(model, revision=revision, cache_dir=cache_dir, manifest=manifest)


def verify_model(
    model: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    manifest: Manifest | None = None,
) -> ResolvedModel:
    """Compare the file on this machine with its announced digest, without using the network.

    Raises:
        IntegrityError: it has another one.
        WeightsError: it is not on this machine, or nobody announced a digest for it.
    """
    resolved = resolve_model(model, revision=revision, cache_dir=cache_dir, local_files_only=True, manifest=manifest)
    if resolved.sha256 is None:
        raise WeightsError(
            f"{resolved.weights}: nobody announced a digest to compare with: only models of the manifest and of the "
            "Hub can be verified"
        )
    return resolved


def _published(
    manifest: Manifest,
    name: str,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> ResolvedModel:
    entry = manifest.get(name)
    if revision is not None and revision != entry.revision:
        pinned = f"the manifest pins it to {entry.revision}" if entry.revision else "it comes with the package"
        raise WeightsError(
            f"{entry.name} has no revision {quoted(revision)}, {pinned}: leave revision out, or name the Hub repository"
        )
    bundled = None if entry.file is None else WEIGHTS_FOLDER / entry.file
    if bundled is not None and (bundled.is_file() or entry.repo_id is None):
        if not bundled.is_file():
            raise WeightsError(f"{bundled}: the bundled file of {entry.name} is missing: reinstall speech-emotion-vit")
        if fault := fault_of(bundled, entry.sha256):
            raise IntegrityError(f"{fault}: reinstall speech-emotion-vit")
        weights, commit = bundled, entry.sha256[:_SHORT]
    elif entry.repo_id is not None and entry.filename is not None and entry.revision is not None:
        hub = HubRepository(entry.repo_id, cache_dir, local_files_only)
        weights, _ = hub.fetch_verified(entry.filename, entry.revision, entry.sha256)
        commit = entry.revision
    else:
        raise WeightsError(f"{entry.name}: its record names no place to get it from: load the manifest from its file")
    backbone = None
    if entry.backbone is not None:
        backbone = _published(manifest, entry.backbone, None, cache_dir, local_files_only).weights
    return ResolvedModel(
        name=entry.name,
        revision=commit,
        weights=weights,
        backbone=backbone,
        config=entry.config,
        entry=entry,
        sha256=entry.sha256,
    )


def _local(path: Path, revision: str | None) -> ResolvedModel:
    if revision is not None:
        raise WeightsError(f"{path} has no revision {quoted(revision)}, it is on this machine: leave revision out")
    place = Path(os.path.expanduser(path))
    if place.is_dir():
        missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (place / name).is_file()]
        if missing:
            raise WeightsError(f"{path}: no {' and no '.join(missing)} in this folder: give a folder that has both")
        place /= WEIGHTS_FILE
    elif place.suffix != ".safetensors":
        raise WeightsError(
            f"{path}: neither a folder nor a .safetensors file: an official checkpoint is turned into one with: "
            "speech-emotion-vit convert FILE --output DIR"
        )
    config = place.with_name(CONFIG_FILE)
    return ResolvedModel(
        name=str(path),
        revision=sha256_file(place)[:_SHORT],
        weights=place,
        # A file of another name may stand beside a config that is not its own.
        config=read_config_json(config) if place.name == WEIGHTS_FILE and config.is_file() else None,
    )


def _repository(
    repo_id: str, revision: str | None, cache_dir: str | os.PathLike[str] | None, local_files_only: bool
) -> ResolvedModel:
    hub = HubRepository(repo_id, cache_dir, local_files_only)
    config, _ = hub.fetch_verified(CONFIG_FILE, revision)
    commit = config.parent.name  # snapshots/COMMIT/config.json: both files from one commit
    weights, verified = hub.fetch_verified(WEIGHTS_FILE, commit)
    return ResolvedModel(
        name=repo_id,
        revision=commit,
        repo_id=repo_id,
        weights=weights,
        config=read_config_json(config),
        sha256=sha256_file(weights) if verified else None,
    )
