"""From a model folder to a repository of the Hub, in one commit, by the Hub's own client."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .backends.export import onnx_bytes
from .errors import ConfigError, PublishError, one_line, quoted
from .model.config import CONFIG_FILE, WEIGHTS_FILE
from .weights.card import CARD_FILE, PLACE, CardFacts, card_for, gaps
from .weights.checkpoint import load_arrays
from .weights.download import LIBRARY, busy_hub, client_errors, patience
from .weights.resolve import resolve_model

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ONNX_FILE = "model.onnx"
MESSAGE = "Upload a model of speech-emotion-vit"  # of the commit

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What was sent to the Hub, or would be."""

    repo_id: str
    """The repository, ``org/name``."""
    files: Mapping[str, int]
    """Name in the repository to size in bytes."""
    card: str
    """The model card, as sent."""
    missing: tuple[str, ...]
    """What people look for in the card's front matter and do not find: ``license``, ``language``, ``datasets``."""
    commit: str | None
    """The commit, a `revision` to load it by; None after a dry run."""
    url: str | None
    """Where it can be looked at; None after a dry run."""


def publish(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    onnx: bool = False,
    private: bool = False,
    revision: str | None = None,
    facts: CardFacts | None = None,
    message: str = MESSAGE,
    dry_run: bool = False,
) -> Publication:
    """Send ``config.json``, ``model.safetensors`` and ``README.md`` of a folder to the Hub, and nothing else of it.

    The model is loaded first, as strictly as for use. The repository is made if it is not there. All files are one
    commit, so nobody gets half of them. Who may write is said by the token of ``hf auth login``, or ``HF_TOKEN``.

    Args:
        folder: with ``config.json`` and ``model.safetensors``; a ``README.md`` in it is the card, else one is made.
        repo_id: the repository, ``org/name``.
        onnx: send the ONNX file too, as ``model.onnx``.
        private: let nobody see it but the owner; a repository that is there must be private already.
        revision: branch to commit to, made if it is not there; the main branch by default.
        facts: what the card says, beside what it says already.
        message: of the commit.
        dry_run: look and say what would be sent; no connection is made.

    Raises:
        WeightsError: the folder holds no model, or a damaged one.
        ConfigError: the name or the card is not one that the Hub takes.
        PublishError: the Hub cannot be reached, or does not take it.
    """
    _require_name(repo_id)
    resolved = resolve_model(Path(folder))
    _, config = load_arrays(resolved)  # what cannot be read here is of no use there
    card = card_for(resolved, config, facts).replace(PLACE, repo_id)
    contents: dict[str, bytes | Path] = {
        CARD_FILE: card.encode(),
        CONFIG_FILE: resolved.weights.with_name(CONFIG_FILE),
        WEIGHTS_FILE: resolved.weights,
    }
    if onnx:
        contents[ONNX_FILE] = onnx_bytes(replace(resolved, name=repo_id))
    publication = Publication(
        repo_id=repo_id,
        files={name: len(each) if isinstance(each, bytes) else each.stat().st_size for name, each in contents.items()},
        card=card,
        missing=tuple(gaps(card)),
        commit=None,
        url=None,
    )
    if dry_run:
        return publication
    commit, url = _send(repo_id, contents, private=private, revision=revision, message=message)
    return replace(publication, commit=commit, url=url)


def _require_name(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ConfigError(f"{repo_id[:100]!r} is no name the Hub allows ({one_line(error)[:200]})") from error
    if not _REPOSITORY.fullmatch(repo_id):
        raise ConfigError(f"{quoted(repo_id)} does not say whose repository it is: give org/name")


def _send(
    repo_id: str, contents: Mapping[str, bytes | Path], *, private: bool, revision: str | None, message: str
) -> tuple[str, str]:
    """Make the repository if need be, and the commit; return its name and address."""
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise PublishError(
            f"{repo_id}: nobody is logged in: run hf auth login, or set HF_TOKEN to a token with write access"
        )
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=each if isinstance(each, bytes) else str(each))
        for name, each in contents.items()
    ]
    # The client looks for keys in answers that need not be there.
    faults: tuple[type[Exception], ...] = (KeyError, *client_errors())
    api = HfApi(library_name=LIBRARY)
    try:
        with patience():
            _prepare(api, repo_id, private=private, revision=revision)
            commit = api.create_commit(repo_id, operations, commit_message=message, revision=revision)
    except PublishError:
        raise
    except faults as error:
        raise PublishError(_explain(error, repo_id)) from error
    return commit.oid, commit.commit_url


def _prepare(api: HfApi, repo_id: str, *, private: bool, revision: str | None) -> None:
    api.create_repo(repo_id, exist_ok=True, private=private or None)
    if private and not api.model_info(repo_id).private:
        raise PublishError(
            f"{repo_id}: is there already, and public: nothing was sent: make it private in its settings, or choose "
            "another name"
        )
    if revision is not None:
        api.create_branch(repo_id, branch=revision, exist_ok=True)


def _explain(error: Exception, repo_id: str) -> str:
    """Return one line: what failed, and what to do about it."""
    from huggingface_hub import constants

    endpoint, owner = constants.ENDPOINT, repo_id.partition("/")[0]
    what = f"{repo_id}: could not be published on {endpoint}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if constants.HF_HUB_OFFLINE:
        return f"{what}: the network is switched off by HF_HUB_OFFLINE: unset it"
    if status == 401:
        return f"{what}: the token is not valid: run hf auth login, or set HF_TOKEN to another"
    if status in (403, 404):  # a repository of others is missing for who may not see it
        return f"{what}: the token may not write for {owner}: check the name, and that the token has write access"
    if status in (409, 412):
        return f"{what}: somebody else changes it at the moment: try again"
    if busy := busy_hub(error):
        return f"{what}: {busy}"
    if status is not None:
        said = getattr(error, "server_message", None) or str(error)
        return f"{what}: {' '.join(said.split())[:200]} (status {status}): correct it and try again"
    return f"{what}: {' '.join(str(error).split())[:200]}: check the network, HF_ENDPOINT and proxies, and try again"
