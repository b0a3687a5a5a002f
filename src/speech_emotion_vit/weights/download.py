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
from reprlib import repr as quoted  # a server may announce anything
from typing import Any

from ..errors import DownloadError, IntegrityError, WeightsError, one_line
from ..files import open_regular
from ..model.config import CONFIG_FILE, WEIGHTS_FILE

MAX_WAIT = 60  # seconds a server may ask to wait before the next try; beyond, the caller decides

_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")  # SHA-256 of a large file, git's own hash of any other
LIBRARY = "speech-emotion-vit"  # as which the Hub sees its client
_CLIENT_LOGGERS = ("huggingface_hub.file_download", "huggingface_hub.utils._http")
_TRIES = re.compile("thrown while requesting|Retrying in|Error while downloading")  # what the client says of each try
_log = logging.getLogger(__name__)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file of any size as 64 hex digits.

    Raises:
        WeightsError: it cannot be read.
    """
    return _digest_file(path, git=False)


def _digest_file(path: str | os.PathLike[str], *, git: bool) -> str:
    """Return the SHA-256 of a file, or the SHA-1 that git calls it by: of ``blob SIZE``, a zero and the content."""
    try:
        with open_regular(path) as file:
            if git:
                digest = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
            else:
                digest = hashlib.sha256()
            while block := file.read(2**20):
                digest.update(block)
    except (OSError, ValueError) as error:  # no file can have a name with a zero in it
        raise WeightsError(f"{path}: cannot be read ({one_line(error)}): check the path and its permissions") from error
    return digest.hexdigest()


def fault_of(path: Path, digest: str) -> str | None:
    """Return what is wrong with a file that should have this digest, None if nothing is.

    Args:
        path: the file.
        digest: its SHA-256, 64 hex digits, or git's hash of it, 40 hex digits.
    """
    git = len(digest) == 40
    try:
        found = _digest_file(path, git=git)
    except WeightsError as error:
        return str(error)
    name = "git's hash" if git else "SHA-256"
    return None if found == digest else f"{path}: {name} is {found}, announced is {digest}"


class HubRepository:
    """One repository, seen through the Hub's own client and its cache."""

    def __init__(self, repo_id: str, cache_dir: str | os.PathLike[str] | None, local_files_only: bool) -> None:
        self.repo_id = repo_id
        self.cache_dir = None if cache_dir is None else os.path.expanduser(cache_dir)
        self.local_files_only = local_files_only

    def fetch_verified(self, filename: str, revision: str | None, sha256: str | None = None) -> tuple[Path, bool]:
        """Return the file, and whether it was compared with a digest: `sha256`, or the one that the Hub announces.

        The client itself looks at sizes only, and at nothing once the file is cached. A bad file is taken out of the
        cache and fetched once more.
        """
        path = self.fetch(filename, revision)
        digest = sha256 or self._announced(path, filename)
        if digest is not None and (fault := fault_of(path, digest)):
            with _alone_with(path, fault):
                self._mend(path, filename, digest)
        return path, digest is not None

    def _mend(self, path: Path, filename: str, digest: str) -> None:
        """Bring a file in order that had a fault when it was last looked at; another process may have done so."""
        if not (fault := fault_of(path, digest)):
            return
        _discard(path, fault)
        if self.local_files_only:
            raise IntegrityError(f"{fault}: removed from the cache: fetch it again with local_files_only=False")
        try:
            self.fetch(filename, _commit_of(path))
        except DownloadError as error:
            raise IntegrityError(f"{fault}: removed from the cache, and not fetched again: {error}") from error
        if fault := fault_of(path, digest):
            _discard(path, fault)
            raise IntegrityError(
                f"{fault}, again after a second download: removed from the cache: try another network, without "
                f"proxy or mirror, or tell the owner of {self.repo_id}"
            )

    def fetch(self, filename: str, revision: str | None) -> Path:
        """Return the file in the cache, downloaded if it is not there; no request if `revision` is a cached commit."""
        from huggingface_hub import errors, hf_hub_download

        try:
            with patience():
                self._require_answer(filename, revision)
                return Path(
                    hf_hub_download(
                        self.repo_id,
                        filename,
                        revision=revision,
                        cache_dir=self.cache_dir,
                        local_files_only=self.local_files_only,
                        library_name=LIBRARY,
                    )
                )
        except errors.HFValidationError as error:
            raise WeightsError(
                f"{self.repo_id}: neither a model here nor a name the Hub allows: check the spelling "
                "(speech-emotion-vit models list)"
            ) from error
        except client_errors() as error:
            raise DownloadError(self._explain(error, filename, revision)) from error

    def _require_answer(self, filename: str, revision: str | None) -> None:
        """Ask once for a file that is not in the cache.

        The client would ask six times where nobody answers, and wait up to a minute each time, though what is behind
        it is mostly a misspelt name or a machine without a network. Only a Hub that says it is busy is asked again.
        """
        from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

        if self.local_files_only or constants.HF_HUB_OFFLINE:
            return
        cached = try_to_load_from_cache(self.repo_id, filename, cache_dir=self.cache_dir, revision=revision)
        if isinstance(cached, str):
            return
        try:
            get_hf_file_metadata(hf_hub_url(self.repo_id, filename, revision=revision), library_name=LIBRARY)
        except errors.HfHubHTTPError as error:
            status = getattr(error.response, "status_code", 0)
            if status != 429 and status < 500:
                raise

    def _announced(self, path: Path, filename: str) -> str | None:
        """Return the digest the Hub announced for a cached file: the name of the blob the cache links to."""
        etag: str | None = None
        with contextlib.suppress(OSError):
            etag = Path(os.readlink(path)).name
        if etag is None and not self.local_files_only:  # a file system without links: the cache has forgotten it
            from huggingface_hub import get_hf_file_metadata, hf_hub_url

            commit = _commit_of(path)
            try:
                with patience():
                    etag = get_hf_file_metadata(hf_hub_url(self.repo_id, filename, revision=commit)).etag
            except client_errors() as error:
                _log.warning("%s is not verified: %s", path, self._explain(error, filename, commit))
        elif etag is None:
            _log.warning("%s is not verified: offline nobody says what it should be, for its cache has no links", path)
        if etag is not None and not _DIGEST.fullmatch(etag):
            _log.warning("%s is not verified: %s announces %s, which is no digest", path, self.repo_id, quoted(etag))
            return None
        return etag

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
        if busy := busy_hub(cause):
            return f"{what}: {busy}"
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return f"{what}: {error.strerror}: make room, give another cache_dir, or set HF_HOME"
        if isinstance(error, OSError) and error.filename is not None:
            return (
                f"{what}: {error.filename} cannot be written ({error.strerror}): give another cache_dir, or set HF_HOME"
            )
        reason = " ".join(str(cause).split())[:200] or type(cause).__name__
        return (
            f"{what}: {reason}: check the network, HF_ENDPOINT and proxies, or, if you meant a model or folder here, "
            "the spelling (speech-emotion-vit models list)"
        )


def busy_hub(error: BaseException) -> str | None:
    """Return what to do where the Hub cannot answer at the moment, None where the error is another."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", 0)
    if response is not None and status == 429:
        wait = _asked_wait(response.headers)
        return f"too many requests: try again {f'in {wait} s' if wait else 'later'}"
    return f"the server is in trouble (status {status}): try again later" if status >= 500 else None


def client_errors() -> tuple[type[Exception], ...]:
    """Return what the Hub client raises when something is wrong with the request, the network or the disk."""
    from huggingface_hub import errors

    # The client lets errors of its HTTP library through, and changed that library twice. Its own HTTP error derives
    # from that library's base class, whichever it is. RuntimeError comes from its Xet transfers, ValueError from its
    # checks of names.
    own = (errors.EntryNotFoundError, errors.HfHubHTTPError, getattr(errors, "XetDownloadError", OSError))
    return (OSError, ValueError, RuntimeError, *own, *errors.HfHubHTTPError.__bases__)


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Let the client give up where the server wants it to wait for long, and not count its tries aloud.

    It would sleep for as long as it is told. What comes of all tries is one error, or none.
    """
    from huggingface_hub import get_session

    hooks = getattr(get_session(), "event_hooks", {}).get("response", [])
    hooks.append(_refuse_long_wait)
    quiet = _Quiet()
    for name in _CLIENT_LOGGERS:
        logging.getLogger(name).addFilter(quiet)
    try:
        yield
    finally:
        hooks.remove(_refuse_long_wait)
        for name in _CLIENT_LOGGERS:
            logging.getLogger(name).removeFilter(quiet)


class _Quiet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _TRIES.search(str(record.msg))


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


def _snapshots_of(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "snapshots")


def _cache_of(path: Path) -> Path:
    return _snapshots_of(path).parent.parent


def _commit_of(path: Path) -> str:
    """Return the commit that a cached file is of: ``snapshots/COMMIT/NAME``, a name with folders in it perhaps."""
    return path.relative_to(_snapshots_of(path)).parts[0]


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
