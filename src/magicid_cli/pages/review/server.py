"""The server of the review page: loopback only, behind a secret address, and nothing but the page's own files.

A web page that is open in the same browser may send requests to 127.0.0.1, too. So a request counts only if it names
this server (`Host`, against a name that is bound to 127.0.0.1 later), comes from our own page (`Origin`,
`Sec-Fetch-Site`) and knows the token. Files are looked up by names that we made: no part of a request becomes a path.
"""

import errno
import hmac
import json
import secrets
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

from magicid_cli.errors import MagicIDError
from magicid_cli.pages import shell
from magicid_cli.pages.review.ranges import Unsatisfiable, byte_range
from magicid_cli.pages.review.showing import Sheet

HOST = "127.0.0.1"
_SCRIPTS = ("in_step.js", "review.js")
_KINDS = {".mp4": "video/mp4", ".png": "image/png"}
_LARGEST = 4096  # bytes of a request's body
_PIECE = 1 << 18  # bytes
_IDLE_S = 60.0


class Server(ThreadingHTTPServer):
    """Shows one sheet until it is closed.

    Args:
        sheet: what is shown; takes the secret token and gives the sheet.
        port: 0 for a free one.

    Raises:
        MagicIDError: `port-busy`.
    """

    daemon_threads = True  # a browser that keeps a connection open must not keep us
    allow_reuse_port = False

    def __init__(self, sheet: Callable[[str], Sheet], port: int) -> None:
        self.token = secrets.token_urlsafe(24)
        self.sheet = sheet(self.token)
        self.page = _page(self.sheet)
        self.policy = f"{_policy()}; frame-ancestors 'none'"
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise MagicIDError(
                "port-busy",
                f"Port {port} of {HOST} cannot be used: {error}.",
                "Leave --port out: a free one is taken then.",
            ) from error

    @property
    def url(self) -> str:
        """The page's address, with the token."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    @property
    def hosts(self) -> set[str]:
        """What a request may call this server."""
        return {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show what went wrong, unless it is only a browser that left in the middle of a video."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def _policy() -> str:
    return shell.policy([shell.asset(name) for name in _SCRIPTS], connect="'self'", media="'self' data:")


def _page(sheet: Sheet) -> bytes:
    return shell.render(
        "review.html",
        styles=("review.css",),
        scripts=_SCRIPTS,
        connect="'self'",
        media="'self' data:",
        name=sheet.workspace.name,
    ).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "magicid"
    sys_version = ""
    timeout = _IDLE_S

    @property
    def _ours(self) -> Server:
        return cast(Server, self.server)

    def do_GET(self) -> None:
        """The page, its state, or one of its files."""
        self._answer(self._get)

    def do_HEAD(self) -> None:
        """What `do_GET` would send, without the body."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """A vote, or taking one back."""
        self._answer(self._post)

    def _answer(self, respond: Callable[[list[str]], None]) -> None:
        route = self._route()
        if route is None:
            return
        try:
            respond(route)
        except FileNotFoundError:
            self._refuse(HTTPStatus.GONE, "The identity was removed.")

    def _route(self) -> list[str] | None:
        """The path behind the token, in parts; None if the request was refused."""
        if self.headers.get("Host") not in self._ours.hosts:
            self._refuse(HTTPStatus.FORBIDDEN, "This page is only at 127.0.0.1.")
            return None
        _, token, *parts = [*self.path.partition("?")[0].split("/"), ""][:8]
        if not hmac.compare_digest(token.encode(), self._ours.token.encode()):
            self._refuse(HTTPStatus.NOT_FOUND, "The address is not complete, or it is of an earlier start.")
            return None
        if not self._from_us():
            self._refuse(HTTPStatus.FORBIDDEN, "The request comes from another page.")
            return None
        return [part for part in parts if part]

    def _from_us(self) -> bool:
        """Whether a request comes from our own page, or from a person who opens it."""
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site")
        if self.command == "POST" or origin is not None:
            return origin in {f"http://{host}" for host in self._ours.hosts} and site in (None, "same-origin")
        return site in (None, "same-origin", "none") or self.headers.get("Sec-Fetch-Mode") == "navigate"

    def _get(self, route: list[str]) -> None:
        if not route:
            self._send(self._ours.page, "text/html; charset=utf-8")
        elif route == ["state"]:
            self._send_json(self._ours.sheet.state())
        elif len(route) == 2 and route[0] == "file":
            self._send_file(self._ours.sheet.file(route[1]))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _post(self, route: list[str]) -> None:
        said = self._body()
        if said is None:
            return
        sheet = self._ours.sheet
        if route == ["vote"]:
            done = sheet.vote(str(said.get("key")), str(said.get("choice")))
        elif route == ["undo"]:
            done = sheet.undo(str(said.get("id")))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")
            return
        self._send_json(sheet.state(), HTTPStatus.OK if done else HTTPStatus.CONFLICT)

    def _body(self) -> dict[str, Any] | None:
        """The JSON object that was sent; None if it was refused."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json":
            refused = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        elif not (length.isascii() and length.isdecimal()):
            refused = HTTPStatus.LENGTH_REQUIRED
        elif len(length) > 5 or int(length) > _LARGEST:
            refused = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        else:
            try:
                said = json.loads(self.rfile.read(int(length)))
            except (ValueError, RecursionError):
                said = None
            if isinstance(said, dict):
                return said
            refused = HTTPStatus.BAD_REQUEST
        self._refuse(refused, "That is no vote.")
        return None

    def _send_file(self, path: Path | None) -> None:
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND, "This file is not there (any more).")
            return
        with path.open("rb") as file:
            size = file.seek(0, 2)
            try:
                part = byte_range(self.headers.get("Range"), size)
            except Unsatisfiable:
                self._send(b"", "text/plain", HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, range_of=f"bytes */{size}")
                return
            first, stop = part or (0, size)
            self.send_response(HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT)
            if part:
                self.send_header("Content-Range", f"bytes {first}-{stop - 1}/{size}")
            self.send_header("Content-Type", _KINDS.get(path.suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(stop - first))
            self.end_headers()
            file.seek(first)
            while self.command != "HEAD" and first < stop:
                piece = file.read(min(_PIECE, stop - first))
                if not piece:  # it was cut short under our hands
                    self.close_connection = True
                    return
                self.wfile.write(piece)
                first += len(piece)

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True  # the request's body, if it has one, was not read
        self._send(why.encode(), "text/plain; charset=utf-8", status)

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, *, range_of: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if range_of:
            self.send_header("Content-Range", range_of)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        """Every answer, an error's too, is kept nowhere, framed nowhere and says nothing of itself elsewhere."""
        for name, value in {
            "Content-Security-Policy": self._ours.policy,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Accept-Ranges": "bytes",
        }.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: their address has the token in it."""
