"""Wrong bytes, cut connections, killed processes.

Against which truth: SHA-256 of the served files, and the requests that the server counts.
"""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hub_cases import BRANCH, COMMIT, PINNED, REPO, Log, contents, data_of, fetch, fetch_onnx, fill, refused, wait_for
from hub_server import HubServer, Request, Rule
from magicid_cli import hub as weights
from magicid_cli.errors import MagicIDError
from magicid_cli.hub import fetching, link
from magicid_cli.hub.download import RemoteFile
from magicid_cli.hub.listing import repo_folder


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


# Wrong bytes


@pytest.mark.parametrize("name", ["transformer/weights.safetensors", "model_index.json"])
@pytest.mark.parametrize("cdn", [False, True])
def test_a_flipped_byte_is_never_used(served: HubServer, folder: Path, log: Log, name: str, cdn: bool) -> None:
    served.cdn = cdn
    served.rules.append(Rule(f"(resolve|content).*{name}", times=2 if cdn else 1, flip=17))
    error = refused("weights-corrupt", lambda: fetch(log))
    assert error.exit_code == 5
    assert name in error.message
    assert "same command again" in error.hint
    right = set(contents(folder).values())
    assert set(contents(weights.hub_cache()).values()) <= right | _unfinished_contents()
    served.rules.clear()
    served.requests.clear()
    assert contents(fetch(log)) == data_of(folder)
    assert served.asked(name)


def _unfinished_contents() -> set[str]:
    files = weights.hub_cache().rglob("*.incomplete")
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_file_that_went_bad_in_the_cache_is_deleted_and_fetched_again(
    served: HubServer, folder: Path, log: Log
) -> None:
    path = fetch_onnx(log)
    blob = path.resolve()
    content = blob.read_bytes()
    blob.write_bytes(b"?" + content[1:])
    refused("weights-corrupt", lambda: fetch_onnx(log))
    assert not blob.exists()
    assert fetch_onnx(log).read_bytes() == content


def test_a_wrong_file_of_another_tool_is_not_used(served: HubServer, log: Log) -> None:
    from huggingface_hub import hf_hub_download

    served.rules.append(Rule("resolve.*face.onnx", method="GET", times=1, flip=5))
    hf_hub_download(REPO, "face.onnx", revision=COMMIT, cache_dir=weights.hub_cache(), endpoint=served.url)
    refused("weights-corrupt", lambda: fetch_onnx(log))
    assert fetch_onnx(log).is_file()


def test_a_file_cut_short_in_the_cache_is_fetched_again(served: HubServer, folder: Path, log: Log) -> None:
    os.truncate(fetch_onnx(log).resolve(), 100)
    assert refused("weights-incomplete", lambda: fetch_onnx(log, offline=True)).exit_code == 5
    assert fetch_onnx(log).read_bytes() == (folder / "face.onnx").read_bytes()


def test_a_verified_file_is_not_hashed_again(served: HubServer, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    real = fetching._hash

    def counting(path: Path, file: RemoteFile, link: link.Link) -> str:
        hashed.append(path.name)
        return real(path, file, link)

    monkeypatch.setattr(fetching, "_hash", counting)
    path = fetch(log) / "vae/weights.safetensors"  # hashed as it arrived
    fetch(log)
    assert hashed == []
    os.utime(path.resolve())
    fetch(log)
    fetch(log)
    assert hashed == ["weights.safetensors"]
    (weights.hub_cache().parent / "verified.json").write_text("{damaged")
    fetch(log)
    assert len(hashed) == 1 + len(set(contents(fetch(log)).values()))


# Interrupted and resumed


@pytest.mark.parametrize("rule", [{"cut": 120_000}, {"cut": 120_000, "reset": True}, {"cut": 120_000, "stall": 0.6}])
def test_a_cut_is_resumed_where_it_happened(served: HubServer, folder: Path, log: Log, rule: dict[str, int]) -> None:
    served.rules.append(Rule("resolve.*transformer", times=1, **rule))  # type: ignore[arg-type]
    root = fetch(log, patterns=["transformer/*"])
    assert contents(root)["transformer/weights.safetensors"] == data_of(folder)["transformer/weights.safetensors"]
    first, second = served.asked("resolve.*transformer")
    assert (first.start, second.start > 0) == (0, True)
    assert len(log.of("notice")) == 1


def test_a_server_without_ranges_sends_it_all_again(served: HubServer, folder: Path, log: Log) -> None:
    served.rules += [Rule("resolve.*transformer", times=1, cut=120_000), Rule("resolve.*transformer", whole=True)]
    assert contents(fetch(log)) == data_of(folder)


def test_the_next_run_goes_on_where_the_last_one_gave_up(served: HubServer, folder: Path, log: Log) -> None:
    served.rules.append(Rule("resolve.*transformer", cut=20_000))
    error = refused("weights-network", lambda: fetch(log))
    assert "transformer/weights.safetensors" in error.message
    assert weights.state(PINNED) == "partial"
    left = weights.missing_bytes(PINNED, ["transformer/*"])
    assert left is not None
    assert 0 < left <= 300_000 - 20_000 * link.ATTEMPTS + 1
    served.rules.clear()
    served.requests.clear()
    assert contents(fetch(log)) == data_of(folder)
    assert [request.start for request in served.asked("resolve.*transformer")] == [300_000 - left]


def test_progress_makes_a_bad_line_good_enough(
    served: HubServer, folder: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PROGRESS_BYTES", 20_000)
    served.rules.append(Rule("resolve.*transformer", times=14, cut=20_000))
    assert contents(fetch(log)) == data_of(folder)


SCRIPT = """
import sys
from magicid_cli import hub
from magicid_cli.events import Events
from magicid_cli.models.catalog import Source
print(hub.fetch_repo(Source(sys.argv[1], sys.argv[2], "", 0), patterns=None, offline=False, events=Events()).path)
"""


def start() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, REPO, COMMIT], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_what_the_next_one_continues(
    served: HubServer, folder: Path, log: Log, how: signal.Signals
) -> None:
    served.rules.append(Rule("resolve.*transformer", times=1, cut=200_000, stall=20))
    process = start()
    partial = repo_folder(REPO) / "blobs"
    wait_for(lambda: any(path.stat().st_size == 200_000 for path in partial.glob("*.magicid.incomplete")))
    process.send_signal(how)
    killed = time.monotonic()
    process.wait(timeout=10)
    assert time.monotonic() - killed < 5  # although the worker hangs in a read
    served.requests.clear()
    assert contents(fetch(log)) == data_of(folder)
    assert [request.start for request in served.asked("resolve.*transformer")] == [200_000]
    assert not list(partial.glob("*.incomplete"))


def test_two_processes_fetch_every_file_once(served: HubServer, folder: Path) -> None:
    processes = [start(), start(), start()]
    roots = [Path(process.communicate(timeout=30)[0].strip()) for process in processes]
    assert [contents(root) for root in roots] == [data_of(folder)] * 3
    asked = [request.path for request in served.asked("resolve.*safetensors")]
    assert len(asked) == len(set(asked))


def test_what_killed_downloads_of_others_left_is_swept_after_a_day(served: HubServer, folder: Path, log: Log) -> None:
    blobs = repo_folder(REPO) / "blobs"
    blobs.mkdir(parents=True)
    content = (folder / "face.onnx").read_bytes()
    old, young = blobs / f"{'a' * 64}.1234abcd.incomplete", blobs / f"{'b' * 64}.1234abcd.incomplete"
    ours = blobs / f"{hashlib.sha256(content).hexdigest()}.magicid.incomplete"
    for path in (old, young, ours):
        path.write_bytes(content[:10_000])
    for path in (old, ours):
        os.utime(path, (time.time() - 90_000,) * 2)
    fetch_onnx(log)
    assert not old.exists()
    assert young.exists()
    assert [request.start for request in served.asked("resolve")] == [10_000]


# Everything at once


def _random_rule(rng: random.Random) -> Rule:
    kind = rng.choice(["status", "cut", "reset", "flip", "html", "whole", "stall"])
    place = rng.choice(["revision", "tree", "resolve", "resolve.*transformer", "resolve.*json", "content"])
    rule = Rule(place, times=rng.choice([1, 1, 2, 3, 8]))
    rule.status = rng.choice([429, 500, 502, 503, 504, 408]) if kind == "status" else 0
    rule.cut = rng.randrange(100_000) if kind in ("cut", "reset", "stall") else None
    rule.reset, rule.html, rule.whole = kind == "reset", kind == "html", kind == "whole"
    rule.flip = rng.randrange(1_000_000) if kind == "flip" and place.startswith(("resolve", "content")) else None
    rule.stall = 0.15 if kind == "stall" else 0.0
    return rule


@pytest.mark.parametrize("part", range(4))
def test_a_hundred_bad_networks_end_verified_or_refused(
    served: HubServer, folder: Path, log: Log, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(link, "BACKOFF_S", 0.001)
    monkeypatch.setattr(link, "STALL_S", 0.1)
    wanted = ["*.safetensors", "config.json"]
    right = {name: digest for name, digest in data_of(folder).items() if name.endswith(("safetensors", "config.json"))}
    outcomes = []
    for seed in range(part * 25, part * 25 + 25):
        rng = random.Random(seed)
        served.cdn = rng.random() < 0.5
        served.rules[:] = [_random_rule(rng) for _ in range(rng.randint(1, 3))]
        shutil.rmtree(weights.hub_cache().parent, ignore_errors=True)
        for _ in range(12):
            try:
                root = fetch(log, rng.choice([PINNED, BRANCH]), wanted)
            except MagicIDError as error:
                assert error.exit_code == 5
                outcomes.append(error.code)
                _no_wrong_blob(folder)
                continue
            assert contents(root) == right, seed
            outcomes.append("verified")
            break
        else:
            pytest.fail(f"seed {seed}: 12 runs did not get through")
    assert outcomes.count("verified") == 25
    assert set(outcomes) - {"verified"}, "the faults did nothing"


def _no_wrong_blob(folder: Path) -> None:
    right = set(contents(folder).values())
    blobs = [path for path in weights.hub_cache().rglob("blobs/*") if not path.name.endswith(".incomplete")]
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in blobs} <= right


def test_a_fetch_leaves_no_thread_behind(served: HubServer, log: Log) -> None:
    served.rules.append(Rule("resolve.*transformer", flip=1))
    refused("weights-corrupt", lambda: fetch(log))
    wait_for(lambda: not any(thread.name == "magicid-download" for thread in threading.enumerate()))


def test_the_server_notes_what_is_asked(served: HubServer, log: Log) -> None:
    fetch_onnx(log)
    assert served.requests[0] == Request("GET", f"/api/models/{REPO}/tree/{COMMIT}", "127.0.0.1", None, 0)
