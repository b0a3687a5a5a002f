"""A Hugging Face Hub on loopback: real HTTP, the resolve protocol, and every way to misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote, urlsplit

MAIN = "1" * 40


@dataclass
class Repository:
    """One repository with one commit, which is also its main branch."""

    files: dict[str, bytes]
    commit: str = MAIN
    etags: dict[str, str] = field(default_factory=dict)
    """File to ETag; by default the digest the Hub has: SHA-256 of LFS files, git's SHA-1 of the others."""
    lfs: tuple[str, ...] = (".safetensors", ".onnx")
    """Endings of the names of LFS files."""
    status: int | None = None
    """Answer everything with this."""
    error_code: str | None = None
    """The X-Error-Code beside it."""
    corrupt: int = 0
    """How many downloads of `damaged` get other bytes of the same length."""
    damaged: str = "model.safetensors"
    """The file that is corrupt."""
    cut: int = 0
    """How many downloads of .safetensors end half-way, though all was announced."""
    stall_after: int | None = None
    """Send at most this many bytes of any .safetensors, resumed or not, and close."""
    surplus: int = 0
    """Bytes announced and sent by GET beyond what HEAD announced; negative for too few."""
    retry_after: str = "0"
    """Seconds to wait, beside `status`."""
    refusals: int = 0
    """How many requests get status 429 before the rest are answered."""
    storage: str | None = None
    """Address of another server that holds the .safetensors, as the Hub keeps them on a host of their own."""
    silent: float = 0.0
    """Seconds before anything is answered."""

    def etag(self, name: str) -> str:
        content = self.files[name]
        if name.endswith(self.lfs):
            digest = hashlib.sha256(content).hexdigest()
        else:
            digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return self.etags.get(name, digest)


class HubServer(ThreadingHTTPServer):
    """Serves `repositories` and counts requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.requests: Counter[tuple[str, str, str]] = Counter()
        """(repository, method, file) to number of requests."""
        self.tokens: dict[str, set[str | None]] = {}
        """Repository to the Authorization headers that came with requests."""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def note(self, repo_id: str, method: str, name: str, token: str | None) -> None:
        with self._lock:
            self.requests[repo_id, method, name] += 1
            self.tokens.setdefault(repo_id, set()).add(token)

    def count(self, repo_id: str, method: str | None = None) -> int:
        """Requests about one repository, of one method or of all."""
        return sum(n for (repo, verb, _), n in self.requests.items() if repo == repo_id and method in (None, verb))

    def take(self, repository: Repository, fault: str) -> bool:
        """Whether this download is one of those that go wrong."""
        with self._lock:
            left = getattr(repository, fault)
            setattr(repository, fault, max(0, left - 1))
        return left > 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may hang up: that is not the server's failure."""

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self.describe("/".join(parts[2:4]))
        elif len(parts) >= 5 and parts[2] == "resolve":
            self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self.reply(404)

    def found(self, repo_id: str, name: str) -> Repository | None:
        self.server.note(repo_id, self.command, name, self.headers.get("Authorization"))
        repository = self.server.repositories.get(repo_id)
        if repository is not None and repository.silent:
            time.sleep(repository.silent)
        if repository is None:
            # What the Hub tells strangers about a repository that is missing or private.
            self.reply(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."})
        elif self.server.take(repository, "refusals"):
            self.reply(429, {"Retry-After": repository.retry_after})
        elif repository.status is not None:
            code = {"X-Error-Code": repository.error_code} if repository.error_code else {}
            self.reply(repository.status, {"Retry-After": repository.retry_after, **code})
        else:
            return repository
        return None

    def describe(self, repo_id: str) -> None:
        repository = self.found(repo_id, "api")
        if repository is not None:
            siblings = [{"rfilename": name} for name in repository.files]
            document = {"_id": "0", "id": repo_id, "modelId": repo_id, "sha": repository.commit, "siblings": siblings}
            self.reply(200, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def resolve(self, repo_id: str, revision: str, name: str) -> None:
        repository = self.found(repo_id, name)
        if repository is None:
            return
        if revision not in ("main", repository.commit):
            self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        elif name not in repository.files:
            self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.commit})
        else:
            self.send_file(repository, name)

    def send_file(self, repository: Repository, name: str) -> None:
        content = repository.files[name]
        weights = name.endswith(".safetensors")
        headers = {"ETag": f'"{repository.etag(name)}"', "X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if weights:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
        if weights and repository.storage is not None:
            self.reply(302, {**headers, "Location": f"{repository.storage}{self.path}"})
            return
        if self.command == "HEAD":
            self.reply(200, headers, content)
            return
        if name == repository.damaged and self.server.take(repository, "corrupt"):
            content = bytes(byte ^ 0xFF for byte in content)
        if weights and repository.surplus:
            content = (content + b"\0" * max(0, repository.surplus))[: len(content) + repository.surplus]
        start, status, total = 0, 200, len(content)
        asked = self.headers.get("Range")
        if asked is not None:
            start, status = int(asked.removeprefix("bytes=").split("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        end = total
        if weights and repository.stall_after is not None:
            end = max(start, repository.stall_after)
        elif weights and self.server.take(repository, "cut"):
            end = total // 2
        self.reply(status, headers, content[start:], send=end - start)

    def reply(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", send: int | None = None
    ) -> None:
        """Announce all of `body`, and send its first `send` bytes."""
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:send])
        if send is not None and send < len(body):
            self.close_connection = True
