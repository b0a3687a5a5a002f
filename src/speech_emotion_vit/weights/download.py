"""Files from the Hub through its own client: verified, mended, and with an explanation of what went wrong."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DownloadError, IntegrityError, WeightsError, one_line
from ..files import open_regular
from ..model.config import CONFIG_FILE, WEIGHTS_FILE

MAX_WAIT = 60  # seconds a server may ask to wait before the next try; beyond, the caller decides

_SHA256 = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger(__name__)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file of any size as 64 hex digits.

    Raises:
        WeightsError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while block := file.read(2**20):
                digest.update(block)
    except (OSError, ValueError) as error:  # no file can have a name with a zero in it
        raise WeightsError(f"{path}: cannot be read ({one_line(error)}): check the path and its permissions") from error
    return digest.hexdigest()


def fault_of(path: Path, sha256: str) -> str | None:
    """Return what is wrong with a file that should have this digest, None if nothing is."""
    try:
        found = sha256_file(path)
    except WeightsError as error:
        return str(error)
    return None if found == sha256 else f"{path}: SHA-256 is {found}, announced is {sha256}"


class HubRepository:
    """One repository, seen through the Hub's own client and its cache."""

    def __init__(self, repo_id: str, cache_dir: str | os.PathLike[str] | None, local_files_only: bool) -> None:
        self.repo_id = repo_id
        self.cache_dir = None if cache_dir is None else os.path.expanduser(cache_dir)
        self.local_files_only = local_files_only

    def fetch_verified(self, filename: str, revision: str, sha256: str | None) -> tuple[Path, str | None]:
        """Return the file and the digest it has: `sha256`, or the one the Hub announces.

        The client itself looks at sizes only, and at nothing once the file is cached. A bad file is taken out of the
        cache and fetched once more.
        """
        path = self.fetch(filename, revision)
        sha256 = sha256 or self._announced(path, filename, revision)
        if sha256 is not None and (fault := fault_of(path, sha256)):
            with _alone_with(path, fault):
                self._mend(path, filename, revision, sha256)
        return path, sha256

    def _mend(self, path: Path, filename: str, revision: str, sha256: str) -> None:
        """Bring a file in order that had a fault when it was last looked at; another process may have done so."""
        if not (fault := fault_of(path, sha256)):
            return
        _discard(path, fault)
        if self.local_files_only:
            raise IntegrityError(f"{fault}: removed from the cache: fetch it again with local_files_only=False")
        try:
            self.fetch(filename, revision)
        except DownloadError as error:
            raise IntegrityError(f"{fault}: removed from the cache, and not fetched again: {error}") from error
        if fault := fault_of(path, sha256):
            _discard(path, fault)
            raise IntegrityError(
                f"{fault}, again after a second download: removed from the cache: try another network, without "
                f"proxy or mirror, or tell the owner of {self.repo_id}"
            )

    def fetch(self, filename: str, revision: str | None) -> Path:
        """Return the file in the cache, downloaded if it is not there; no request if `revision` is a cached commit."""
        from huggingface_hub import errors, hf_hub_download

        try:
            with _bounded_waits():
                return Path(
                    hf_hub_download(
                        self.repo_id,
                        filename,
                        revision=revision,
                        cache_dir=self.cache_dir,
                        local_files_only=self.local_files_only,
                        library_name="speech-emotion-vit",
                    )
                )
        except errors.HFValidationError as error:
            raise WeightsError(
                f"{self.repo_id}: neither a model here nor a name the Hub allows: check the spelling "
                "(speech-emotion-vit models list)"
            ) from error
        except _client_errors() as error:
            raise DownloadError(self._explain(error, filename, revision)) from error

    def _announced(self, path: Path, filename: str, revision: str) -> str | None:
        """Return the SHA-256 the Hub announced for a cached file: the name of the blob the cache links to."""
        etag: str | None = None
        with contextlib.suppress(OSError):
            etag = Path(os.readlink(path)).name
        if etag is None and not self.local_files_only:  # a file system without links: the cache has forgotten it
            from huggingface_hub import get_hf_file_metadata, hf_hub_url

            try:
                with _bounded_waits():
                    etag = get_hf_file_metadata(hf_hub_url(self.repo_id, filename, revision=revision)).etag
            except _client_errors() as error:
                _log.warning("%s is not verified: %s", path, self._explain(error, filename, revision))
        elif etag is None:
            _log.warning("%s is not verified: offline nobody says what it should be, for its cache has no links", path)
        return etag if etag is not None and _SHA256.fullmatch(etag) else None

    def _explain(self, error: Exception, filename: str, revision: str | None) -> str:
        """Return one line: what failed, and what to do about it."""
        from huggingface_hub import constants, errors

        endpoint, at = constants.ENDPOINT, f" at revision {revision}" if revision else ""
        what = f"{self.repo_id}: {filename}{at} could not be fetched from {endpoint}"
        cause = error.__cause__ or error  # the client wraps what went wrong in "not in the cache either"
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(error, errors.GatedRepoError):
            return f"{what}: access is restricted: accept the terms at {endpoint}/{self.repo_id} and run hf auth login"
        if isinstance(error, errors.RepositoryNotFoundError):
            return (
                f"{what}: no such repository, or a private one, nor a model or folder of that name here: check the "
                "spelling (speech-emotion-vit models list), or run hf auth login"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return f"{what}: no such branch, tag or commit: check revision"
        if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            return f"{what}: the repository has no such file: a model needs {CONFIG_FILE} and {WEIGHTS_FILE}"
        if self.local_files_only or constants.HF_HUB_OFFLINE:
            return (
                f"{what}: it is not in the cache, and the network is switched off: allow it once, by "
                "local_files_only=False and without HF_HUB_OFFLINE"
            )
        if status in (401, 403):
            return f"{what}: access denied (status {status}): run hf auth login, or check HF_TOKEN"
        if status == 429:
            wait = _asked_wait(cause.response.headers)  # type: ignore[attr-defined]
            return f"{what}: too many requests: try again {f'in {wait} s' if wait else 'later'}"
        if status is not None and status >= 500:
            return f"{what}: the server is in trouble (status {status}): try again later"
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return f"{what}: {error.strerror}: make room, give another cache_dir, or set HF_HOME"
        if isinstance(error, OSError) and error.filename is not None:
            return (
                f"{what}: {error.filename} cannot be written ({error.strerror}): give another cache_dir, or set HF_HOME"
            )
        reason = " ".join(str(cause).split())[:200] or type(cause).__name__
        return f"{what}: {reason}: check the network, HF_ENDPOINT and proxies, and try again"


def _client_errors() -> tuple[type[Exception], ...]:
    """Return what the Hub client raises when something is wrong with the request, the network or the disk."""
    from huggingface_hub import errors

    # The client lets errors of its HTTP library through, and changed that library twice. Its own HTTP error derives
    # from that library's base class, whichever it is. RuntimeError comes from its Xet transfers, ValueError from its
    # checks of names.
    own = (errors.EntryNotFoundError, errors.HfHubHTTPError, getattr(errors, "XetDownloadError", OSError))
    return (OSError, ValueError, RuntimeError, *own, *errors.HfHubHTTPError.__bases__)


@contextlib.contextmanager
def _bounded_waits() -> Iterator[None]:
    """Let the client give up where the server wants it to wait for long; it would sleep for as long as it is told."""
    from huggingface_hub import get_session

    hooks = getattr(get_session(), "event_hooks", {}).get("response", [])
    hooks.append(_refuse_long_wait)
    try:
        yield
    finally:
        hooks.remove(_refuse_long_wait)


def _refuse_long_wait(response: Any) -> None:
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    if _asked_wait(response.headers) > MAX_WAIT:
        response.read()
        hf_raise_for_status(response)


def _asked_wait(headers: Mapping[str, str]) -> int:
    """Return how many seconds an answer asks to wait, 0 where it does not say."""
    texts = (headers.get("Retry-After", ""), *re.findall(r";\s*t=(\d+)", headers.get("RateLimit", "")))
    return max(int(text[:18]) if re.fullmatch(r"\d+", text) else 0 for text in texts)


@contextlib.contextmanager
def _alone_with(path: Path, fault: str) -> Iterator[None]:
    """Keep other processes from mending the same file at the same time: one would remove what the other fetched."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    lock = _cache_of(path) / ".locks" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()}.lock"
    try:
        lock.parent.mkdir(exist_ok=True)
        lock.touch()
    except OSError as error:
        raise IntegrityError(f"{fault}: it cannot be removed ({error.strerror}): delete it yourself") from error
    with WeakFileLock(lock):
        yield


def _cache_of(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "snapshots").parent.parent


def _discard(path: Path, fault: str) -> None:
    """Take a bad file out of the cache: the link in the snapshot and everything in the cache it leads to."""
    cache = _cache_of(path)
    chain = [path]
    while chain[-1].is_symlink():
        chain.append(Path(os.path.normpath(chain[-1].parent / os.readlink(chain[-1]))))
    try:
        for place in chain:
            if cache in place.parents:
                place.unlink(missing_ok=True)
    except OSError as error:
        raise IntegrityError(f"{fault}: it cannot be removed ({error.strerror}): delete it yourself") from error
