"""Every way in which the Hub can say no.

Against which truth: the contract (a code, a message, a hint and an exit code for each), and the requests that the
server counts.
"""

import shutil
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from hub_cases import BRANCH, COMMIT, PINNED, REPO, Log, fetch, fetch_onnx, fill, refused
from hub_server import HubServer, Rule
from magicid_cli import hub as weights
from magicid_cli.events import Events
from magicid_cli.hub import fetching, link
from magicid_cli.models.catalog import Source


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "BACKOFF_S", 0.01)
    monkeypatch.setattr(link, "STALL_S", 0.3)
    monkeypatch.setattr(fetching, "EVENT_S", 0.02)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "repository")


@pytest.fixture
def served(hub: HubServer, folder: Path) -> HubServer:
    hub.add(REPO, folder, COMMIT)
    return hub


def private(hub: HubServer, folder: Path) -> None:
    hub.add(REPO, folder, COMMIT, private=True)


def gated(hub: HubServer, folder: Path) -> None:
    hub.add(REPO, folder, COMMIT, gated=True)


@pytest.mark.parametrize(
    ("arrange", "token", "source", "code", "message", "hint"),
    [
        (None, None, Source("no/such", "main", "", 0), "weights-missing-repo", "no/such", "hf auth login"),
        (None, "hf_good", Source("no/such", COMMIT, "", 0), "weights-missing-repo", "no/such", "hf auth login"),
        (private, None, PINNED, "weights-missing-repo", "private", "hf auth login"),
        (private, "hf_good", PINNED, "weights-missing-repo", "private", "hf auth login"),
        (gated, None, PINNED, "weights-gated", "licence", f"/{REPO}, then: hf auth login"),
        (gated, "hf_good", BRANCH, "weights-gated", "licence", f"/{REPO}, then: hf auth login"),
        (None, "hf_expired", PINNED, "weights-token", "expired", "hf auth login"),
        (None, None, Source(REPO, "v9", "", 0), "weights-missing-revision", "'v9'", "commits/main"),
        (None, None, Source(REPO, "f" * 40, "", 0), "weights-missing-revision", "f" * 40, "commits/main"),
    ],
)
def test_refusals(
    served: HubServer,
    folder: Path,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    arrange: Callable[[HubServer, Path], None] | None,
    token: str | None,
    source: Source,
    code: str,
    message: str,
    hint: str,
) -> None:
    served.tokens["hf_good"] = set()
    if arrange:
        arrange(served, folder)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    error = refused(code, lambda: fetch(log, source))
    assert error.exit_code == 5
    assert message in error.message
    assert hint in error.hint
    assert not served.asked("resolve")  # before any byte of weights
    assert len(served.requests) == 1  # and not asked again: it would not help


def test_missing_file(served: HubServer, log: Log) -> None:
    error = refused(
        "weights-missing-file", lambda: weights.fetch_file(PINNED, "other.onnx", offline=False, events=Events(log))
    )
    assert error.exit_code == 5
    assert "other.onnx" in error.message
    assert "vae2/*" in refused("weights-missing-file", lambda: fetch(log, patterns=["vae2/*"])).message


def test_file_that_vanished_after_it_was_listed(served: HubServer, log: Log) -> None:
    served.rules.append(Rule("resolve", status=404))
    assert "face.onnx" in refused("weights-missing-file", lambda: fetch_onnx(log)).message


def test_unreachable(log: Log) -> None:
    error = refused("weights-network", lambda: fetch(log))  # HF_ENDPOINT is a port where nobody listens
    assert error.exit_code == 5
    assert "same command again" in error.hint
    assert len(log.of("notice")) == link.ATTEMPTS - 1
    assert "attempt 2 of 5" in str(log.of("notice")[0]["message"])


def test_endpoint_that_is_no_address(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "huggingface.co")
    assert "HF_ENDPOINT" in refused("settings-invalid", lambda: fetch(log)).message


@pytest.mark.parametrize("place", ["tree", "resolve"])
def test_a_stall_that_does_not_end(served: HubServer, log: Log, place: str) -> None:
    served.rules.append(Rule(place, stall=0.6))
    link_patience = time.monotonic()
    error = refused("weights-network", lambda: fetch_onnx(log))
    assert "nothing came" in error.message
    assert time.monotonic() - link_patience < 8


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("place", ["revision", "tree", "resolve"])
def test_a_server_in_trouble_is_asked_a_few_times(served: HubServer, log: Log, status: int, place: str) -> None:
    rule = Rule(place, times=2, status=status)
    served.rules.append(rule)
    assert fetch_onnx(log, BRANCH).is_file()
    assert rule.times == 0
    assert [str(status) in str(row["message"]) for row in log.of("notice")] == [True, True]
    served.rules[:] = [Rule("revision", status=status)]
    shutil.rmtree(weights.hub_cache())
    served.requests.clear()
    error = refused("weights-server", lambda: fetch_onnx(log, BRANCH))
    assert error.exit_code == 5
    assert "Wait a few minutes" in error.hint
    assert len(served.requests) == link.ATTEMPTS


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "1"},
        {"Retry-After": "date"},
        {"RateLimit": '"api";r=0;t=1'},
    ],
)
def test_the_wait_that_the_server_asks_for_is_kept(served: HubServer, log: Log, headers: dict[str, str]) -> None:
    if headers.get("Retry-After") == "date":
        headers = {"Retry-After": formatdate(time.time() + 2, usegmt=True)}
    served.rules.append(Rule("tree", times=1, status=429, headers=headers))
    began = time.monotonic()
    fetch_onnx(log)
    assert 0.9 < time.monotonic() - began < 4


def test_a_wait_of_an_hour_is_refused_at_once(served: HubServer, log: Log) -> None:
    served.rules.append(Rule("tree", status=429, headers={"Retry-After": "3600"}))
    error = refused("weights-server", lambda: fetch_onnx(log))
    assert "60 minutes" in error.message
    assert len(served.requests) == 1


@pytest.mark.parametrize("place", ["revision", "tree"])
def test_a_login_page_is_not_taken_for_the_hub(served: HubServer, log: Log, place: str) -> None:
    served.rules.append(Rule(place, html=True))
    assert "not as a Hub would" in refused("weights-server", lambda: fetch(log, BRANCH)).message


def test_a_login_page_is_not_taken_for_a_file(served: HubServer, log: Log) -> None:
    served.rules.append(Rule("resolve", html=True))
    refused("weights-network", lambda: fetch_onnx(log))
    served.rules.clear()
    assert "face.onnx" in refused("weights-corrupt", lambda: fetch_onnx(log)).message
    assert fetch_onnx(log).is_file()


@pytest.mark.parametrize("name", ["../../outside.json", "/outside.json", "a\\..\\b.json"])
def test_a_name_that_leaves_the_folder_is_refused(
    served: HubServer, log: Log, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    row = {"type": "file", "path": name, "size": 2, "oid": "0" * 40}
    served.repo(REPO).rows["evil"] = row
    assert "leaves its folder" in refused("weights-unsafe", lambda: fetch(log)).message


def test_a_hash_that_would_be_a_path_is_refused(served: HubServer, log: Log) -> None:
    served.repo(REPO).rows["evil"] = {"type": "file", "path": "a.json", "size": 2, "oid": "../../../outside"}
    refused("weights-server", lambda: fetch(log))
