"""A Hugging Face Hub on loopback: real HTTP, the protocols of reading and writing, and every way to misbehave."""

from __future__ import annotations

import base64
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
    private: bool = False
    """Shown to the owner of a token only."""
    branches: dict[str, str] = field(default_factory=dict)
    """Branch beside main to its commit."""
    older: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Commit that is not main's to its files."""
    messages: list[str] = field(default_factory=list)
    """Of the commits made by clients."""

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and the files of a branch or commit."""
        commit = self.branches.get(revision, self.commit if revision == "main" else revision)
        files = self.files if commit == self.commit else self.older.get(commit)
        return None if files is None else (commit, files)

    def add(self, branch: str, files: dict[str, bytes], message: str) -> str:
        """Make a commit of new and changed files, and return it."""
        found = self.at(branch)
        assert found is not None
        after = {**found[1], **files}
        commit = hashlib.sha1(repr((found[0], message, sorted(after.items()))).encode()).hexdigest()
        if branch == "main":
            self.older[self.commit] = self.files
            self.files, self.commit = after, commit
        else:
            self.older[commit] = after
            self.branches[branch] = commit
        self.messages.append(message)
        return commit

    def etag(self, name: str, content: bytes | None = None) -> str:
        content = self.files[name] if content is None else content
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
        self.writers: dict[str, str] = {}
        """Token that may write to the name of its owner."""
        self.large: dict[str, bytes] = {}
        """SHA-256 to content: LFS files, in a repository or not yet."""
        self.cards: list[str] = []
        """Model cards that were to be looked at before the files come."""
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

    def do_POST(self) -> None:
        self.accept()

    def do_PUT(self) -> None:
        self.accept()

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
        elif repository.private and self.owner() != repo_id.partition("/")[0]:
            self.reply(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."})
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
            self.reply_json(200, {**document, "private": repository.private})

    def resolve(self, repo_id: str, revision: str, name: str) -> None:
        repository = self.found(repo_id, name)
        if repository is None:
            return
        found = repository.at(revision)
        if found is None:
            self.reply(404, {"X-Error-Code": "RevisionNotFound"})
        elif name not in found[1]:
            self.reply(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found[0]})
        else:
            self.send_file(repository, name, *found)

    def send_file(self, repository: Repository, name: str, commit: str, files: dict[str, bytes]) -> None:
        content = files[name]
        weights = name.endswith(".safetensors")
        headers = {"ETag": f'"{repository.etag(name, content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
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

    # What follows is writing: https://huggingface.co/docs/hub/api and git-lfs' batch API.

    def owner(self) -> str | None:
        """Whose token came with the request."""
        return self.server.writers.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))

    def accept(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts == ["api", "validate-yaml"]:
            self.validate(json.loads(body))
        elif parts == ["api", "repos", "create"]:
            self.create(json.loads(body))
        elif parts[0] == "large":  # a signed address of the storage: no token
            self.store(parts[1], body)
        elif parts[2:] == ["info", "lfs", "objects", "batch"]:
            self.batch(f"{parts[0]}/{parts[1].removesuffix('.git')}", json.loads(body))
        elif parts[:2] == ["api", "models"] and len(parts) >= 6:
            repo_id, call, revision = "/".join(parts[2:4]), parts[4], "/".join(parts[5:])
            repository = self.writable(repo_id, call)
            if repository is not None:
                {"preupload": self.preupload, "commit": self.commit, "branch": self.branch}[call](
                    repo_id, repository, revision, body
                )
        else:
            self.reply(404)

    def writable(self, repo_id: str, call: str) -> Repository | None:
        repository = self.found(repo_id, call)
        if repository is not None and self.owner() != repo_id.partition("/")[0]:
            self.reply_json(403, {"error": "You don't have the rights"})
            return None
        return repository

    def validate(self, asked: dict[str, str]) -> None:
        self.server.cards.append(asked["content"])
        front = asked["content"].split("---\n")[1]
        errors = [] if "license: unheard-of" not in front else [{"message": '"license" must be one of [...]'}]
        self.reply_json(400 if errors else 200, {"errors": errors, "warnings": []})

    def create(self, asked: dict[str, object]) -> None:
        repo_id = f"{asked['organization']}/{asked['name']}"
        self.server.note(repo_id, self.command, "create", self.headers.get("Authorization"))
        if self.owner() is None:
            self.reply_json(401, {"error": "Invalid username or password."})
        elif self.owner() != asked["organization"]:
            self.reply_json(403, {"error": "You don't have the rights to create a model under this namespace"})
        elif repo_id in self.server.repositories:
            error = "You already created this model repo"
            self.reply_json(409, {"error": error, "url": f"{self.server.url}/{repo_id}"})
        else:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.server.repositories[repo_id] = Repository(files={}, private=private)
            self.reply_json(200, {"url": f"{self.server.url}/{repo_id}", "name": repo_id, "id": "0"})

    def preupload(self, repo_id: str, repository: Repository, revision: str, body: bytes) -> None:
        there = repository.at(revision)
        if there is None:
            self.reply_json(404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
            return
        answers = []
        for file in json.loads(body)["files"]:
            name = file["path"]
            answer = {"path": name, "uploadMode": "lfs" if name.endswith(repository.lfs) else "regular"}
            if name in there[1]:
                answer["oid"] = repository.etag(name, there[1][name])
            answers.append({**answer, "shouldIgnore": False})
        self.reply_json(200, {"files": answers})

    def batch(self, repo_id: str, asked: dict[str, list[dict[str, object]]]) -> None:
        if self.writable(repo_id, "batch") is None:
            return
        objects = []
        for each in asked["objects"]:
            entry = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in self.server.large:
                entry["actions"] = {"upload": {"href": f"{self.server.url}/large/{each['oid']}", "header": {}}}
            objects.append(entry)
        self.reply_json(200, {"transfer": "basic", "objects": objects})

    def store(self, oid: str, content: bytes) -> None:
        self.server.note("large", self.command, oid, self.headers.get("Authorization"))
        good = hashlib.sha256(content).hexdigest() == oid
        if good:
            self.server.large[oid] = content
        self.reply(200 if good else 400)

    def commit(self, repo_id: str, repository: Repository, revision: str, body: bytes) -> None:
        files, message = {}, ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif value["oid"] not in self.server.large:  # as the Hub says of a file that never came
                self.reply_json(400, {"error": f"LFS pointer pointed to a file that does not exist: {value['path']}"})
                return
            else:
                files[value["path"]] = self.server.large[value["oid"]]
        commit = repository.add(revision, files, message)
        self.reply_json(
            200, {"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}/{repo_id}/commit/{commit}"}
        )

    def branch(self, repo_id: str, repository: Repository, revision: str, body: bytes) -> None:
        if revision in repository.branches:
            self.reply_json(409, {"error": f"Reference already exists: {repo_id}, {revision}"})
        else:
            repository.branches[revision] = repository.commit
            self.reply(201)

    def reply_json(self, status: int, document: dict[str, object], headers: dict[str, str] | None = None) -> None:
        self.reply(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(document).encode())

    def reply(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", send: int | None = None
    ) -> None:
        """Announce all of `body`, and send its first `send` bytes."""
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:send])
        if send is not None and send < len(body):
            self.close_connection = True
