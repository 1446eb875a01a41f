"""The review page's server against whoever may talk to 127.0.0.1. Truth: RFC 9110 and the files themselves."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from judged import judged, served
from magicid_cli import votes
from magicid_cli.cli.app import main
from magicid_cli.pages.review import Server
from magicid_cli.pages.review.ranges import Unsatisfiable, byte_range
from magicid_cli.workspace import Workspace, read_lines

Answer = tuple[int, dict[str, str], bytes]


class Client:
    """Raw requests to a running server: nothing is normalised on the way."""

    def __init__(self, server: Server, workspace: Workspace) -> None:
        self.server, self.workspace = server, workspace
        self.host = f"127.0.0.1:{server.server_port}"

    def ask(
        self, path: str = "", *, method: str = "GET", token: str | None = None, body: Any = None, **headers: str | None
    ) -> Answer:
        """Ask for a path behind the token; a header is left out where it is None."""
        sent: dict[str, str | None] = {"Host": self.host}
        if body is not None:
            sent |= {"Content-Type": "application/json", "Origin": f"http://{self.host}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=10)
        connection.putrequest(method, f"/{self.server.token if token is None else token}/{path}", skip_host=True)
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Length", str(len(data)))
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(data or None)
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    def state(self) -> Any:
        return json.loads(self.ask("state")[2])

    def lines(self) -> list[Any]:
        return read_lines(self.workspace.votes)


@pytest.fixture
def client() -> Iterator[Client]:
    workspace = judged()
    with served(workspace) as server:
        yield Client(server, workspace)


def test_it_listens_on_the_loopback_alone(client: Client) -> None:
    assert client.server.server_address[0] == "127.0.0.1"
    assert client.server.url == f"http://127.0.0.1:{client.server.server_port}/{client.server.token}/"
    assert len(client.server.token) >= 32


def test_a_token_is_new_at_every_start(client: Client) -> None:
    with served(client.workspace) as other:
        assert other.token != client.server.token
        assert set(other.sheet.files).isdisjoint(client.server.sheet.files)


@pytest.mark.parametrize("path", ["", "state", "file/x"])
def test_without_the_token_there_is_nothing(client: Client, path: str) -> None:
    token = client.server.token
    for wrong in ("", "x", token[:-1], token + "x", token.swapcase(), "%2e%2e", "%C3%A9"):
        status, _, body = client.ask(path, token=wrong)
        assert status == 404, wrong
        assert b"alice" not in body and b"<" not in body


def test_a_request_that_is_no_text_is_refused(client: Client) -> None:
    with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=10) as connection:
        connection.sendall(b"GET /\xff\xc3\xa9/state HTTP/1.1\r\nHost: " + client.host.encode() + b"\r\n\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", "", None]
)
def test_a_foreign_host_is_refused(client: Client, host: str | None) -> None:
    named = None if host is None else host.format(port=client.server.server_port)
    assert client.ask("state", Host=named)[0] == 403
    assert client.ask("vote", method="POST", body={}, Host=named)[0] == 403
    assert client.ask("state", Host=f"localhost:{client.server.server_port}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "https://{host}", None])
def test_a_vote_from_another_page_is_refused(client: Client, origin: str | None) -> None:
    key = client.state()["pairs"][0]["key"]
    named = None if origin is None else origin.format(host=client.host)
    status, _, _ = client.ask("vote", method="POST", body={"key": key, "choice": "drop"}, Origin=named)
    assert status == 403
    if origin is not None:
        assert client.ask("state", Origin=named)[0] == 403
    assert not client.lines()


def test_another_page_may_open_ours_and_embed_nothing_of_it(client: Client) -> None:
    name = client.state()["pairs"][0]["left"]
    for site in ("cross-site", "same-site"):  # another port of 127.0.0.1 is the same site
        assert client.ask(f"file/{name}", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")[0] == 403
        assert client.ask("state", Sec_Fetch_Site=site, Sec_Fetch_Mode="cors")[0] == 403
        assert client.ask("", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")[0] == 200
    assert client.ask(f"file/{name}", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="no-cors")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "../manifest.json",
        "file/../../manifest.json",
        "file/..%2f..%2fmanifest.json",
        "file/%2e%2e/votes.jsonl",
        "file//etc/passwd",
        "file/clips/static-000.mp4",
        "file/static-000",
        "file/static-000.mp4",
        "file/000.png",
        "manifest.json",
        "file/",
        "file",
        "file/x\\..\\..\\manifest.json",
    ],
)
def test_no_part_of_a_request_becomes_a_path(client: Client, path: str) -> None:
    status, _, body = client.ask(path)
    assert status == 404
    assert b"format" not in body


def test_files_are_those_of_the_pairs_and_nothing_else(client: Client) -> None:
    state = client.state()
    by_name = {name: path.name for name, path in client.server.sheet.files.items()}
    shown = {pair[side] for pair in state["pairs"] for side in ("left", "right")} | set(state["photos"])
    assert shown == set(by_name)
    for name, file in by_name.items():
        folder = client.workspace.references if file.endswith("png") else client.workspace.repository / "clips"
        status, headers, body = client.ask(f"file/{name}")
        assert (status, body) == (200, (folder / file).read_bytes())
        assert headers["Content-Type"] == ("image/png" if file.endswith("png") else "video/mp4")


def test_a_link_that_leads_out_of_the_folder_is_not_followed(client: Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    name, path = next(iter(client.server.sheet.files.items()))
    path.unlink()
    assert client.ask(f"file/{name}")[0] == 404
    path.symlink_to(secret)
    assert client.ask(f"file/{name}")[0] == 404


def test_every_answer_is_kept_nowhere_and_framed_nowhere(client: Client) -> None:
    name = client.state()["pairs"][0]["left"]
    answers = [client.ask(path) for path in ("", "state", f"file/{name}", "nothing")]
    answers += [client.ask("", Host="evil.example"), client.ask("", method="PUT"), client.ask("", token="x")]
    for _, headers, _ in answers:
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy and "script-src 'sha256-" in policy
        assert "magicid/" not in headers.get("Server", "") and "Python" not in headers.get("Server", "")


def test_nothing_tells_before_the_vote_who_won(client: Client) -> None:
    text = client.ask("state")[2].decode()
    for row in read_lines(client.workspace.repository / "videos.jsonl"):
        assert row["id"] not in text and row["clip_sha256"] not in text
    for word in ("winner", "rejected", "proposed", "rewards", "scaled", "why", "static-", "tuned-"):
        assert f'"{word}' not in text
    lefts = {one.proposed for one in client.server.sheet.shown.values()}
    assert lefts == {"left", "right"}  # the sides are by chance


def test_a_vote_reveals_and_undo_hides_again(client: Client) -> None:
    before = client.state()
    one = next(iter(client.server.sheet.shown.values()))
    status, _, body = client.ask("vote", method="POST", body={"key": one.key, "choice": one.proposed})
    state = json.loads(body)
    assert status == 200
    (pair,) = (pair for pair in state["pairs"] if pair["key"] == one.key)
    assert pair["vote"]["effect"] == "confirmed" and pair["vote"]["proposed"] == one.proposed
    assert pair["vote"]["sides"][one.proposed]["id"] == one.row["winner"]["id"]
    (line,) = client.lines()
    assert (line["left"]["id"], line["right"]["id"]) == (one.left.id, one.right.id)
    assert [entry["key"] for entry in state["history"]] == [one.key]
    _, _, body = client.ask("undo", method="POST", body={"id": state["history"][0]["id"]})
    assert json.loads(body) == before
    assert client.ask("undo", method="POST", body={"id": state["history"][0]["id"]})[0] == 409
    assert len(client.lines()) == 2


def test_two_tabs_that_vote_on_the_same_pair(client: Client) -> None:
    key = client.state()["pairs"][0]["key"]
    threads = [
        threading.Thread(
            target=client.ask, args=("vote",), kwargs={"method": "POST", "body": {"key": key, "choice": c}}
        )
        for c in ("left", "right", "equal", "drop") * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = client.lines()
    assert len(lines) == 12
    assert client.workspace.votes.read_bytes().count(b"\n") == 12
    assert [vote.choice for vote in votes.read(client.workspace).standing.values()] == [lines[-1]["choice"]]
    assert client.state()["pairs"][0]["vote"]["choice"] == lines[-1]["choice"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"key": "nothing", "choice": "left"}, {}, 409),
        ({"choice": "left"}, {}, 409),
        ({}, {}, 409),
        ([], {}, 400),
        (b"{", {}, 400),
        (b"[" * 4000, {}, 400),
        (b"x" * 5000, {}, 413),
        ({}, {"Content_Length": "99999999999999999999"}, 413),
        ({}, {"Content_Length": "-1"}, 411),
        ({}, {"Content_Length": None}, 411),
        ({}, {"Content_Type": "text/plain"}, 415),
        ({}, {"Content_Type": None}, 415),
    ],
)
def test_what_is_no_vote_is_refused(client: Client, body: Any, headers: Mapping[str, str | None], status: int) -> None:
    assert client.ask("vote", method="POST", body=body, **headers)[0] == status
    assert not client.lines()


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods_are_not_known(client: Client, method: str) -> None:
    assert client.ask("vote", method=method)[0] == 501


def test_a_removed_identity_takes_no_vote(client: Client) -> None:
    import shutil

    key = client.state()["pairs"][0]["key"]
    shutil.rmtree(client.workspace.path)
    assert client.ask("vote", method="POST", body={"key": key, "choice": "left"})[0] == 410
    assert not client.workspace.path.exists()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=3-5", (3, 6)),
        ("bytes=8-99", (8, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        (" bytes=2-4 ", (2, 5)),
        ("bytes=-", None),
        ("bytes=5-3", None),
        ("bytes=0-1,4-5", None),
        ("items=0-1", None),
        ("nonsense", None),
    ],
)
def test_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    assert byte_range(header, 10) == expected


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=99-100", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_ranges_that_hold_nothing(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        byte_range(header, size)


def test_a_video_comes_in_parts(client: Client) -> None:
    name, path = next(item for item in client.server.sheet.files.items() if item[1].suffix == ".mp4")
    content = path.read_bytes()
    status, headers, body = client.ask(f"file/{name}", Range="bytes=100-299")
    assert (status, body) == (206, content[100:300])
    assert headers["Content-Range"] == f"bytes 100-299/{len(content)}"
    status, headers, body = client.ask(f"file/{name}", Range=f"bytes={len(content)}-")
    assert (status, headers["Content-Range"], body) == (416, f"bytes */{len(content)}", b"")
    status, headers, body = client.ask(f"file/{name}", method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(content)), b"")
    assert headers["Accept-Ranges"] == "bytes"


def test_a_port_that_is_taken_is_an_error_with_a_way_out(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["review", "alice", "--port", str(client.server.server_port), "--no-browser", "--json"])
    error = json.loads(capsys.readouterr().out)["error"]
    assert (code, error["code"]) == (1, "port-busy")
    assert "--port" in error["hint"]


def test_an_identity_without_scores_is_told_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    workspace = judged()
    stages = workspace.manifest()["stages"]
    workspace.update(stages={name: stages[name] for name in ("ingest", "reconstruct", "sample")})
    assert main(["review", "alice", "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "scores-missing" and "magicid score alice" in error["hint"]


def test_ctrl_c_ends_it_with_a_summary_and_the_next_command() -> None:
    judged()
    command = [sys.executable, "-m", "magicid_cli", "review", "alice", "--no-browser"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ), process_group=0
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert "none yet" in said and "magicid customize PHOTOS --name alice --seed 7 --use-votes" in said
    assert "Traceback" not in said
