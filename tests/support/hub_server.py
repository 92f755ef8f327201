"""A Hub on loopback: what ``huggingface_hub`` asks of the real one, and the faults it may have.

Two ports, since the real Hub keeps large files on hosts of their own, to which no token may go.
"""

import base64
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".png")
READER, WRITER = "hf_readerreaderreader", "hf_writerwriterwriter"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Fault:
    """What happens to the next requests of a method whose path holds a text."""

    method: str
    path: str
    times: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_s: float = 0
    cut_after: int | None = None  # bytes of the body, then the connection ends
    hang_up: bool = False  # before any answer
    piece_delay_s: float = 0  # between the eighths of the body
    then: Callable[[], object] | None = None  # happens before the answer


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.refs.get(revision, revision)]

    def commit(self, changes: dict[str, bytes], message: str = "") -> str:
        files = (self.files() if "main" in self.refs else {}) | changes
        told = f"{len(self.commits)} {sorted(files)}".encode() + b"".join(files.values())
        sha = hashlib.sha1(told).hexdigest()
        self.commits[sha] = files
        self.refs["main"] = sha
        self.messages.append(message)
        return sha


class HubServer:
    """Use it in a ``with`` block; :attr:`url` is what ``HF_ENDPOINT`` is set to."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self._servers = [self._serve(Hub), self._serve(Store)]
        self.url, self.store_url = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers
        )

    def _serve(self, handler) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.hub = self
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def __enter__(self) -> "HubServer":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        from huggingface_hub import close_session

        close_session()

    def publish(self, repo_id: str, folder: Path | dict[str, bytes], **options) -> str:
        """Commit a folder's files or a mapping of contents; returns the hash of the commit."""
        files = folder
        if not isinstance(folder, dict):
            files = {path.name: path.read_bytes() for path in folder.iterdir()}
        with self.lock:
            repository = self.repositories.setdefault(repo_id, Repository(**options))
            return repository.commit(files)

    def fault(self, method: str, path: str, times: int = 1, **what) -> Fault:
        self.faults.append(Fault(method, path, times, **what))
        return self.faults[-1]

    def seen(self, part: str = "") -> list[str]:
        """What was asked for, without the telemetry that huggingface_hub asks for once a day."""
        asked = (str(request) for request in self.requests if "agent-harness" not in request.path)
        return [line for line in asked if part in line]

    def connect(self, monkeypatch, cache: Path) -> list[float]:
        """Have huggingface_hub in this process know no Hub but this one, and no token.

        Returns:
            The waits between its attempts, in seconds, none of which is waited.
        """
        import huggingface_hub
        from huggingface_hub import constants
        from huggingface_hub.utils import are_progress_bars_disabled

        for name, value in {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(cache),
            "HF_TOKEN_PATH": str(cache / "token"),
            "HF_STORED_TOKENS_PATH": str(cache / "tokens"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_ETAG_TIMEOUT": 2,
            "HF_HUB_DOWNLOAD_TIMEOUT": 2,
        }.items():
            monkeypatch.setattr(constants, name, value)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SPLITZOO_HUB_NAMESPACE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        bars = sys.modules[are_progress_bars_disabled.__module__]
        monkeypatch.setattr(bars, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        huggingface_hub.close_session()  # its client read the environment
        waits: list[float] = []
        clock = SimpleNamespace(sleep=waits.append, time=time.time)
        monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
        monkeypatch.setattr("huggingface_hub.file_download.time", clock)
        return waits

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Variables for a process that knows no Hub but this one."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_ETAG_TIMEOUT": "5",
            "HF_HUB_DOWNLOAD_TIMEOUT": "5",
            "NO_PROXY": "127.0.0.1",
        } | more


def without_hub(environment) -> dict[str, str]:
    """An environment without what it says about the Hub."""
    return {n: v for n, v in environment.items() if not n.startswith(("HF_", "HUGG", "SPLITZOO_"))}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    @property
    def hub(self) -> HubServer:
        return self.server.hub

    def do(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.asked = Request(
            self.command, unquote(self.path), {k.lower(): v for k, v in self.headers.items()}, body
        )
        with self.hub.lock:
            self.hub.requests.append(self.asked)
            self.trouble = self._next_fault()
            if self.trouble is not None and self.trouble.then is not None:
                self.trouble.then()
        if self.trouble is not None:
            if self.trouble.delay_s:
                self.hub.closing.wait(self.trouble.delay_s)
            if self.trouble.hang_up:
                return
            if self.trouble.status:
                self.answer(self.trouble.status, self.trouble.body, **self.trouble.headers)
                return
        self.respond()

    do_GET = do_HEAD = do_POST = do_PUT = do

    def _next_fault(self) -> Fault | None:
        for fault in self.hub.faults:
            if fault.times and fault.method == self.command and fault.path in self.asked.path:
                fault.times -= 1
                return fault
        return None

    def respond(self) -> None:
        raise NotImplementedError

    def answer(self, status: int, body: bytes | dict | list = b"", **headers: object) -> None:
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        if self.trouble is not None and not self.trouble.status:
            body = self.trouble.body or body
            headers |= self.trouble.headers
        self.send_response(status)
        for name, value in ({"Content-Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.trouble is not None and self.trouble.cut_after is not None:
            body = body[: self.trouble.cut_after]
        step = len(body) // 8 + 1 if self.trouble and self.trouble.piece_delay_s else len(body)
        for start in range(0, len(body), max(1, step)):
            self.wfile.write(body[start : start + step])
            if self.trouble is not None:
                self.hub.closing.wait(self.trouble.piece_delay_s)

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Message": message or code}
        if code:
            headers["X-Error-Code"] = code
        self.answer(status, {"error": message or code}, **headers)


class Hub(Handler):
    def respond(self) -> None:
        path = urlsplit(self.path).path
        for method, pattern, action in ROUTES:
            if self.command in method.split() and (match := re.fullmatch(pattern, path)):
                with self.hub.lock:
                    action(self, *map(unquote, match.groups()))
                return
        self.refuse(404, message=f"no such page: {path}")

    @property
    def token(self) -> str:
        return self.asked.headers.get("authorization", "").removeprefix("Bearer ")

    def admit(self, repo_id: str, *, writing: bool = False, content: bool = False):
        """Return the repository, or None after the refusal that the real Hub gives."""
        repository = self.hub.repositories.get(repo_id)
        if self.token not in ("", READER, WRITER):
            self.refuse(401, message="Invalid credentials in Authorization header")
        elif repository is None or (repository.private and not self.token):
            if self.token:
                self.refuse(404, "RepoNotFound", "Repository not found")
            else:
                self.refuse(401, message="Invalid username or password.")
        elif writing and self.token != WRITER:
            message = "You don't have the required permissions to push to this repo"
            self.refuse(403 if self.token else 401, message=message)
        elif content and repository.gated and self.token != WRITER:
            self.refuse(
                403 if self.token else 401, "GatedRepo", f"Access to {repo_id} is restricted"
            )
        else:
            return repository
        return None

    def resolve(self, repo_id: str, revision: str, name: str) -> None:
        repository = self.admit(repo_id, content=True)
        if repository is None:
            return
        sha = repository.refs.get(revision, revision)
        if sha not in repository.commits:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        content = repository.commits[sha].get(name)
        if content is None:
            self.answer(
                404,
                b"Entry not found",
                X_Error_Code="EntryNotFound",
                X_Error_Message="Entry not found",
                X_Repo_Commit=sha,
            )
        elif name.endswith(LARGE):
            oid = hashlib.sha256(content).hexdigest()
            self.hub.large[oid] = content
            self.answer(
                302,
                X_Repo_Commit=sha,
                X_Linked_Size=len(content),
                X_Linked_ETag=f'"{oid}"',
                ETag='"of the redirect"',
                Location=f"{self.hub.store_url}/large/{oid}?signed=yes&name={name}",
            )
        else:
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self.answer(200, content, X_Repo_Commit=sha, ETag=f'"{git}"')

    def information(self, repo_id: str, revision: str | None = None) -> None:
        repository = self.admit(repo_id)
        if repository is None:
            return
        sha = repository.refs.get(revision or "main", revision or "")
        if revision and sha not in repository.commits:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = [{"rfilename": name} for name in repository.commits.get(sha, {})]
        self.answer(
            200,
            {"id": repo_id, "sha": sha, "private": repository.private, "siblings": files},
        )

    def tree(self, repo_id: str, revision: str) -> None:
        repository = self.admit(repo_id)
        if repository is not None:
            files = repository.files(revision).items()
            self.answer(
                200,
                [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in files],
            )

    def who_am_i(self) -> None:
        if self.token in (READER, WRITER):
            self.answer(200, {"type": "user", "name": "org", "auth": {}})
        else:
            self.refuse(401, message="Invalid credentials in Authorization header")

    def create(self) -> None:
        asked = json.loads(self.asked.body)
        repo_id = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{repo_id}"}
        if self.token != WRITER:
            message = f"You don't have the rights to create a model under {asked['organization']}"
            self.refuse(403 if self.token in (READER,) else 401, message=message)
        elif repo_id in self.hub.repositories:
            self.answer(409, {"error": "You already created this model repo", **url})
        else:
            private = asked.get("visibility") == "private"
            self.hub.repositories[repo_id] = Repository(private=private)
            self.answer(200, url)

    def validate(self) -> None:
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, repo_id: str, _revision: str) -> None:
        if self.admit(repo_id, writing=True) is not None:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(self.asked.body)["files"]
            ]
            self.answer(200, {"files": files})

    def batch(self, repo_id: str) -> None:
        if self.admit(repo_id, writing=True) is None:
            return
        objects = []
        for wanted in json.loads(self.asked.body)["objects"]:
            if wanted["oid"] not in self.hub.large:
                to = f"{self.hub.store_url}/large/{wanted['oid']}?signed=yes"
                verify = f"{self.hub.url}/{repo_id}.git/info/lfs/objects/verify"
                wanted["actions"] = {"upload": {"href": to}, "verify": {"href": verify}}
            objects.append(wanted)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def verify(self, repo_id: str) -> None:
        wanted = json.loads(self.asked.body)
        found = self.hub.large.get(wanted["oid"], b"")
        self.answer(200 if len(found) == wanted["size"] else 404, {})

    def commit(self, repo_id: str, _revision: str) -> None:
        repository = self.admit(repo_id, writing=True)
        if repository is None:
            return
        lines = [json.loads(line) for line in self.asked.body.splitlines()]
        changes = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "lfsFile":
                changes[value["path"]] = self.hub.large[value["oid"]]
            else:
                changes[value["path"]] = base64.b64decode(value["content"])
        sha = repository.commit(changes, lines[0]["value"]["summary"])
        url = f"{self.hub.url}/{repo_id}/commit/{sha}"
        self.answer(200, {"commitUrl": url, "commitOid": sha})


class Store(Handler):
    """Where large files lie; addresses are signed, so tokens have no business here."""

    def respond(self) -> None:
        oid = urlsplit(self.asked.path).path.removeprefix("/large/")
        if "authorization" in self.asked.headers:
            self.refuse(400, message="two ways to authenticate")
        elif self.command == "PUT":
            right = hashlib.sha256(self.asked.body).hexdigest() == oid
            if right:
                self.hub.large[oid] = self.asked.body
            self.answer(200 if right else 400)
        elif oid not in self.hub.large:
            self.refuse(404, message="no such object")
        else:
            content = self.hub.large[oid]
            start = re.fullmatch(r"bytes=(\d+)-", self.asked.headers.get("range", ""))
            if start is None:
                self.answer(200, content)
                return
            first = int(start[1])
            span = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[first:], Content_Range=span)


ROUTES = (
    ("HEAD GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", Hub.resolve),
    ("GET", r"/api/models/([^/]+/[^/]+)", Hub.information),
    ("GET", r"/api/models/([^/]+/[^/]+)/revision/(.+)", Hub.information),
    ("GET", r"/api/models/([^/]+/[^/]+)/tree/(.+)", Hub.tree),
    ("GET", r"/api/whoami-v2", Hub.who_am_i),
    ("POST", r"/api/repos/create", Hub.create),
    ("POST", r"/api/validate-yaml", Hub.validate),
    ("POST", r"/api/models/([^/]+/[^/]+)/preupload/(.+)", Hub.preupload),
    ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", Hub.batch),
    ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/verify", Hub.verify),
    ("POST", r"/api/models/([^/]+/[^/]+)/commit/(.+)", Hub.commit),
)
