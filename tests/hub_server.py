"""A Hub on this machine: the part of the Hugging Face Hub's HTTP protocol that clients use to fetch a model.

    with HubServer({"org/name": folder}, commits={"org/name": "0123..."}) as hub:
        ...                             # HF_ENDPOINT=hub.url
        hub.requests                    # what was asked, in order

Repositories are folders. Files with one of the suffixes in `LARGE` are listed and named by SHA-256 as the Hub does
with large files, and are redirected to another host name when `cdn` is on; all others are listed as git blobs.
Faults are `Rule`s, put into `hub.rules`; the first that matches a request is applied, at most `times` times.
"""

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE = (".safetensors", ".onnx", ".bin", ".pt", ".pth", ".ckpt", ".mp4")


@dataclass
class Rule:
    """A fault.

    Attributes:
        path: regular expression searched in the request's path.
        times: how often it fires.
        method: only for this method.
        status: answer with this status and nothing useful.
        headers: added to the answer.
        html: answer 200 with a page instead, as a login portal does.
        cut: after so many bytes of the body, close the connection, ...
        reset: ... with a TCP reset.
        stall: after `cut` bytes (0 if not given), say nothing for so many seconds.
        flip: invert the byte at this position of the content.
        whole: ignore a range, and send everything.
    """

    path: str
    times: int = 1_000_000
    method: str = ""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    html: bool = False
    cut: int | None = None
    reset: bool = False
    stall: float = 0.0
    flip: int | None = None
    whole: bool = False


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    host: str
    token: str | None
    start: int


@dataclass(frozen=True)
class _Repo:
    folder: Path
    commit: str
    rows: dict[str, dict[str, Any]]
    private: bool
    gated: bool


def git_blob(content: bytes) -> str:
    """The id that git gives to this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _row(path: str, content: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_blob(content)}
    if path.endswith(LARGE):
        row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return row


class HubServer:
    """The server; a context manager."""

    def __init__(
        self,
        repos: Mapping[str, Path] | None = None,
        commits: Mapping[str, str] | None = None,
        *,
        tokens: Mapping[str, set[str]] | None = None,
        cdn: bool = False,
        page_size: int = 1000,
    ) -> None:
        """Serve `repos`, at chosen commits; `tokens` says which private or gated repositories a token opens."""
        self.tokens = dict(tokens or {})
        self.cdn, self.page_size = cdn, page_size
        self.rules: list[Rule] = []
        self.requests: list[Request] = []
        self._repos: dict[str, _Repo] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        for name, folder in (repos or {}).items():
            self.add(name, folder, (commits or {}).get(name))

    def add(
        self, name: str, folder: Path, commit: str | None = None, *, private: bool = False, gated: bool = False
    ) -> str:
        """Serve a folder as the repository's only commit, on the branch main; returns the commit."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        rows = {str(path.relative_to(folder)): _row(str(path.relative_to(folder)), path.read_bytes()) for path in files}
        commit = commit or hashlib.sha1(json.dumps(rows).encode()).hexdigest()
        self._repos[name] = _Repo(folder, commit, rows, private, gated)
        return commit

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self, pattern: str) -> list[Request]:
        """The requests whose path contains this regular expression."""
        return [request for request in self.requests if re.search(pattern, request.path)]

    def note(self, request: Request) -> Rule:
        """Record a request; the rule for it, or one without a fault."""
        with self._lock:
            self.requests.append(request)
            for rule in self.rules:
                if rule.times > 0 and rule.method in ("", request.method) and re.search(rule.path, request.path):
                    rule.times -= 1
                    return rule
        return Rule("")

    def refusal(self, name: str, revision: str, token: str | None) -> tuple[int, str, str] | None:
        """Status, error code and message if the client may not have the revision."""
        if token is not None and token not in self.tokens:
            return 401, "", "Invalid credentials in Authorization header"
        repo, opens = self._repos.get(name), self.tokens.get(token or "", set())
        if repo is None or (repo.private and name not in opens):
            return (401 if token is None else 404), "RepoNotFound", "Repository not found"
        if repo.gated and name not in opens:
            return (401 if token is None else 403), "GatedRepo", f"Access to model {name} is restricted."
        if revision not in ("main", repo.commit):
            return 404, "RevisionNotFound", f"Invalid rev id: {revision}"
        return None

    def repo(self, name: str) -> _Repo:
        """What is served under that name."""
        return self._repos[name]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    hub: HubServer

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Tests read `requests` instead."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        bearer = self.headers.get("Authorization")
        span = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self._start = int(span[1]) if span else 0
        self._token = bearer.removeprefix("Bearer ") if bearer else None
        host = self.headers.get("Host", "").partition(":")[0]
        self._rule = self.server.hub.note(Request(self.command, path, host, self._token, self._start))
        if self._rule.status:
            self._fail(self._rule.status, "", "")
        elif self._rule.html:
            self._send(200, {"Content-Type": "text/html"}, b"<html>Welcome to our wireless network</html>")
        elif match := re.fullmatch(r"/api/(?:models/)?((?:spaces/)?[^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
            self._api(*match.groups(), first=int(query.get("cursor", ["0"])[0]))
        elif match := re.fullmatch(r"/((?:spaces/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*match.groups())
        elif match := re.fullmatch(r"/content/((?:spaces/)?[^/]+/[^/]+)/(.+)", path):
            repo = self.server.hub.repo(match[1])
            self._content((repo.folder / match[2]).read_bytes(), {"ETag": '"content"'})
        else:
            self._fail(404, "", "no such page")

    def _api(self, name: str, kind: str, revision: str, *, first: int) -> None:
        hub = self.server.hub
        if refusal := hub.refusal(name, revision, self._token):
            self._fail(*refusal)
            return
        repo, headers = hub.repo(name), {"Content-Type": "application/json"}
        if kind == "revision":
            answer: Any = {
                "id": name,
                "sha": repo.commit,
                "private": repo.private,
                "gated": repo.gated,
                "tags": [],
                "downloads": 0,
                "siblings": [{"rfilename": path} for path in repo.rows],
            }
        else:
            answer = list(repo.rows.values())[first : first + hub.page_size]
            if first + hub.page_size < len(repo.rows):
                kind = "" if name.startswith("spaces/") else "models/"
                cursor = first + hub.page_size
                page = f"{hub.url}/api/{kind}{name}/tree/{revision}?recursive=true&cursor={cursor}"
                headers["Link"] = f'<{page}>; rel="next"'
        self._send(200, headers, json.dumps(answer).encode())

    def _resolve(self, name: str, revision: str, path: str) -> None:
        hub = self.server.hub
        if refusal := hub.refusal(name, revision, self._token):
            self._fail(*refusal)
            return
        repo = hub.repo(name)
        if path not in repo.rows:
            self._fail(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repo.commit})
            return
        row = repo.rows[path]
        headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{row.get("lfs", row)["oid"]}"'}
        if "lfs" in row:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(row["size"])}
        if "lfs" in row and hub.cdn:
            place = f"{hub.url.replace('127.0.0.1', 'localhost')}/content/{name}/{quote(path)}?signature=1"
            self._send(302, {**headers, "Location": place}, b"")
        else:
            self._content((repo.folder / path).read_bytes(), headers)

    def _content(self, content: bytes, headers: dict[str, str]) -> None:
        if self._rule.flip is not None:
            place = self._rule.flip % len(content)
            content = content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
        if not self._start or self._rule.whole:
            self._send(200, {**headers, "Accept-Ranges": "bytes"}, content)
        elif self._start >= len(content):
            self._fail(416, "", "range")
        else:
            span = f"bytes {self._start}-{len(content) - 1}/{len(content)}"
            self._send(206, {**headers, "Content-Range": span}, content[self._start :])

    def _fail(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        extra = {"X-Error-Code": code, "X-Error-Message": message} if code or message else {}
        self._send(status, {**(headers or {}), **extra}, json.dumps({"error": message}).encode())

    def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, **self._rule.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        rule = self._rule
        if rule.cut is None and not rule.stall and not rule.reset:
            self.wfile.write(body)
            return
        self.wfile.write(body[: rule.cut or 0])
        self.wfile.flush()
        time.sleep(rule.stall)
        self.close_connection = True
        if rule.reset:
            time.sleep(0.01)  # let the bytes go first
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
