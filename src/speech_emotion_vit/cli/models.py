"""``speech-emotion-vit models``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ._options import download_option, format_option, revision_option
from ._streams import error_line
from ._tables import echo_record, echo_rows, form_is_table

if TYPE_CHECKING:
    from ..weights.manifest import WeightEntry
    from ..weights.resolve import ResolvedModel


@click.group("models")
def command() -> None:
    """List, describe, download and verify models.

    \b
    Examples:
      speech-emotion-vit models list
      speech-emotion-vit models info crema-d
      speech-emotion-vit models verify
    """


@command.command("list")
@format_option
def list_command(form: str | None) -> None:
    """List the published models.

    \b
    Example:
      speech-emotion-vit models list
    """
    from ..weights.manifest import load_manifest

    manifest = load_manifest()
    rows = [
        {
            "name": name,
            "default": "yes" if name == manifest.default else "",
            "labels": list(entry.config.labels),
            "score": _headline(entry),
            "where": "bundled" if entry.file else entry.repo_id,
            "size": entry.size,
            "trained_on": entry.trained_on,
            "license": entry.license,
        }
        for name, entry in manifest.models.items()
    ]
    if form_is_table(form):
        rows = [{**row, "name": f"{row['name']}{' (default)' * bool(row['default'])}"} for row in rows]
    echo_rows(rows, form, columns=("name", "score", "where", "size"), below="labels")


@command.command("info")
@click.argument("model", metavar="M")
@revision_option
@download_option
@format_option
def info_command(model: str, revision: str | None, cache_dir: str | None, form: str | None) -> None:
    """Describe a model: configuration, source and scores.

    M is a published name (no network is used), a folder, a .safetensors file, or a Hub repository org/repo.

    \b
    Examples:
      speech-emotion-vit models info crema-d
      speech-emotion-vit models info org/repo --format jsonl
    """
    from ..weights.manifest import dump_entry, load_manifest
    from ..weights.resolve import resolve_model

    manifest = load_manifest()
    if model in manifest.models and revision is None:
        echo_record({"name": model, **dump_entry(manifest.models[model])}, form)
        return
    resolved = resolve_model(model, revision=revision, cache_dir=cache_dir)
    config = resolved.config
    if config is None:  # only the file itself has it
        from ..weights.checkpoint import load_checkpoint

        _, config = load_checkpoint(resolved.weights)
    echo_record({**_found(resolved), **config.to_dict()}, form)


@command.command("download")
@click.argument("model", metavar="M")
@revision_option
@download_option
@format_option
def download_command(model: str, revision: str | None, cache_dir: str | None, form: str | None) -> None:
    """Download and verify a model, so that it can be used offline.

    M is a published name or a Hub repository org/repo.

    \b
    Examples:
      speech-emotion-vit models download crema-d
      speech-emotion-vit models download org/repo --revision v1.0
    """
    from ..weights.resolve import download_model

    echo_record(_found(download_model(model, revision=revision, cache_dir=cache_dir)), form)


@command.command("verify")
@click.argument("model", metavar="[M]", required=False)
@revision_option
@download_option
@format_option
def verify_command(model: str | None, revision: str | None, cache_dir: str | None, form: str | None) -> None:
    """Compare the SHA-256 of files on this machine with the announced ones.

    M is a published name or a downloaded Hub repository; without M all bundled models are verified. A bad file in the
    download cache is removed. The exit status is 1 if a file is bad.

    \b
    Examples:
      speech-emotion-vit models verify
      speech-emotion-vit models verify org/repo
    """
    from ..weights.resolve import list_models

    if model is None and revision is not None:
        raise click.UsageError("--revision needs a model")
    names = [entry.name for entry in list_models() if entry.file] if model is None else [model]
    rows = [_verdict(name, revision, cache_dir) for name in names]
    echo_rows(rows, form, columns=("status", "name", "revision"), below="path")
    if any(row["status"] == "bad" for row in rows):
        raise SystemExit(1)


def _verdict(name: str, revision: str | None, cache_dir: str | None) -> dict[str, object]:
    from ..errors import WeightsError
    from ..weights.resolve import verify_model

    try:
        return {"status": "ok", **_found(verify_model(name, revision=revision, cache_dir=cache_dir))}
    except WeightsError as error:  # the other models are still verified
        click.echo(f"Error: {error_line(error)}", err=True)
        return {"status": "bad", "name": name, "revision": revision, "path": None, "sha256": None}


def _found(resolved: ResolvedModel) -> dict[str, object]:
    return {
        "name": resolved.name,
        "revision": resolved.revision,
        "path": str(resolved.weights),
        "sha256": resolved.sha256,
    }


def _headline(entry: WeightEntry) -> str | None:
    if not entry.metrics:
        return None
    first = entry.metrics[0]
    return f"{first.name} {100 * first.value:.1f} % ({first.protocol}, {first.clips} clips)"
