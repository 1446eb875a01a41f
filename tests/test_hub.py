"""What a fetch brings, and what it asks for.

Against which truth: SHA-256 of the served files, the requests that the server counts, and the Hub's own client as the
reference for the cache's layout.
"""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hub_cases import (
    BRANCH,
    CODE,
    COMMIT,
    PINNED,
    REPO,
    Log,
    contents,
    data_of,
    fetch,
    fetch_onnx,
    fill,
    refused,
)
from hub_server import HubServer, Rule
from magicid_cli import hub as weights
from magicid_cli.events import Events
from magicid_cli.hub import download, fetching, link
from magicid_cli.models.catalog import FACE_MODELS, JUDGES, Source


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


# What arrives


@pytest.mark.parametrize("cdn", [False, True])
@pytest.mark.parametrize("page_size", [4, 1000])
def test_every_data_file_arrives_as_served_and_nothing_else(
    served: HubServer, folder: Path, log: Log, cdn: bool, page_size: int
) -> None:
    served.cdn, served.page_size = cdn, page_size
    fetched = weights.fetch_repo(PINNED, patterns=None, offline=False, events=Events(log))
    assert fetched.commit == COMMIT
    assert contents(fetched.path) == data_of(folder)
    assert any(request.host == "localhost" for request in served.requests) == cdn


def test_code_and_pickles_are_never_asked_for(served: HubServer, log: Log) -> None:
    root = fetch(log, patterns=["*"])
    assert not served.asked("|".join(CODE))
    assert not [path for path in weights.hub_cache().rglob("*") if path.name in CODE]
    assert not [path for path in root.rglob("*") if path.suffix in (".py", ".bin", ".pt", ".pkl")]
    assert "auto_map" in (root / "config.json").read_text()  # data; what it names is not there
    error = refused(
        "weights-unsafe",
        lambda: weights.fetch_file(PINNED, "pytorch_model.bin", offline=False, events=Events(log)),
    )
    assert error.exit_code == 5
    assert not served.asked("|".join(CODE))


def test_code_that_another_tool_fetched_is_not_handed_out(served: HubServer, folder: Path, log: Log) -> None:
    from huggingface_hub import snapshot_download

    other = snapshot_download(REPO, revision=COMMIT, cache_dir=weights.hub_cache(), endpoint=served.url)
    assert Path(other, "pipeline.py").is_file()
    asked = len(served.requests)
    root = fetch(log)
    assert contents(root) == data_of(folder)
    assert [request.path for request in served.requests[asked:]] == [f"/api/models/{REPO}/tree/{COMMIT}"]


def test_the_hubs_own_client_finds_the_files(served: HubServer, log: Log) -> None:
    from huggingface_hub import hf_hub_download

    fetch(log, BRANCH)
    served.requests.clear()
    for revision in ("main", COMMIT):
        found = hf_hub_download(
            REPO,
            "vae/weights.safetensors",
            revision=revision,
            cache_dir=weights.hub_cache(),
            endpoint=served.url,
            local_files_only=True,
        )
        assert Path(found).resolve().parent.name == "blobs"
    assert not served.requests


def test_patterns_choose(served: HubServer, log: Log) -> None:
    root = fetch(log, patterns=["vae/*", "model_index.json"])
    assert set(contents(root)) == {"vae/weights.safetensors", "vae/empty.txt", "model_index.json"}
    assert not served.asked("resolve.*transformer")


def test_one_file(served: HubServer, folder: Path, log: Log) -> None:
    fetched = weights.fetch_file(BRANCH, "face.onnx", offline=False, events=Events(log))
    assert fetched.commit == COMMIT
    assert fetched.path.name == "face.onnx"
    assert fetched.path.read_bytes() == (folder / "face.onnx").read_bytes()
    assert [request.path for request in served.asked("resolve")] == [f"/{REPO}/resolve/{COMMIT}/face.onnx"]


def test_progress_ends_at_the_total(served: HubServer, log: Log) -> None:
    fetch(log, patterns=["*.safetensors"])
    told = log.of("download")
    assert told[-1]["repo"] == REPO
    assert told[-1]["bytes"] == told[-1]["total"] == 400_000
    assert [row["bytes"] for row in told] == sorted(row["bytes"] for row in told)  # type: ignore[type-var]


def test_nothing_is_printed(served: HubServer, log: Log, capfd: pytest.CaptureFixture[str]) -> None:
    served.rules.append(Rule("resolve.*transformer", times=1, cut=1000))
    fetch(log)
    assert capfd.readouterr() == ("", "")


# The token


def test_the_token_goes_to_the_hub_and_not_to_the_content_server(
    served: HubServer, folder: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.tokens["hf_good"] = {REPO}
    served.add(REPO, folder, COMMIT, gated=True)
    served.cdn = True
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert contents(fetch(log)) == data_of(folder)
    assert {request.token for request in served.requests if request.host == "127.0.0.1"} == {"hf_good"}
    assert {request.token for request in served.requests if request.host == "localhost"} == {None}


def test_a_next_page_elsewhere_gets_neither_token_nor_trust(served: HubServer, log: Log) -> None:
    served.rules.append(Rule("tree", headers={"Link": '<http://localhost:1/steal>; rel="next"'}))
    refused("weights-server", lambda: fetch(log))


# Offline


def test_a_pinned_copy_asks_nothing(served: HubServer, folder: Path, log: Log) -> None:
    fetch(log)
    served.requests.clear()
    assert contents(fetch(log)) == data_of(folder)
    assert not served.requests


@pytest.mark.parametrize("source", [PINNED, BRANCH])
@pytest.mark.parametrize("variable", [False, True])
def test_offline_with_the_weights_here(
    served: HubServer, folder: Path, log: Log, monkeypatch: pytest.MonkeyPatch, source: Source, variable: bool
) -> None:
    fetch(log, source)
    served.requests.clear()
    if variable:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert contents(fetch(log, source, offline=not variable)) == data_of(folder)
    assert not served.requests


@pytest.mark.parametrize("source", [PINNED, BRANCH])
def test_offline_without_the_weights(served: HubServer, log: Log, source: Source) -> None:
    error = refused("weights-offline", lambda: fetch(log, source, offline=True))
    assert error.exit_code == 5
    assert "same command" in error.hint and "magicid prepare" in error.hint
    assert not served.requests


@pytest.mark.parametrize(
    ("source", "flag"),
    [
        (JUDGES["clip-vit-b-32"].source, "--vlm clip-vit-b-32"),
        (FACE_MODELS["antelopev2"].source, "--face-model antelopev2"),
    ],
)
def test_what_is_missing_offline_is_named_in_the_way_to_it(log: Log, source: Source, flag: str) -> None:
    """`magicid prepare` alone would fetch the default judge in place of the one that is missing."""
    assert refused("weights-offline", lambda: fetch(log, source, offline=True)).hint.endswith(f"magicid prepare {flag}")


def test_offline_with_a_part(served: HubServer, log: Log) -> None:
    fetch(log, patterns=["vae/*"])
    served.requests.clear()
    assert fetch(log, patterns=["vae/*"], offline=True).is_dir()
    error = refused("weights-incomplete", lambda: fetch(log, offline=True))
    assert error.exit_code == 5
    assert "6 files (0.00 GB) are missing" in error.message
    assert not served.requests


def test_offline_with_weights_whose_list_is_unknown(served: HubServer, log: Log) -> None:
    fetch(log)
    shutil.rmtree(weights.hub_cache().parent / "listings")
    assert "which files" in refused("weights-incomplete", lambda: fetch(log, offline=True)).message


def test_a_branch_that_cannot_be_asked_about(served: HubServer, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fetch(log, BRANCH)
    log.clear()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch(log, BRANCH) == root
    assert COMMIT in str(log.of("fallback")[0]["message"])
    refused("weights-network", lambda: fetch_onnx(log, BRANCH))  # not all of it is here


def test_a_branch_that_moved(served: HubServer, folder: Path, log: Log) -> None:
    fetch(log, BRANCH)
    (folder / "config.json").write_text("{}")
    moved = served.add(REPO, folder)
    served.requests.clear()
    fetched = weights.fetch_repo(BRANCH, patterns=None, offline=False, events=Events(log))
    assert fetched.commit == moved != COMMIT
    assert contents(fetched.path) == data_of(folder)
    assert [request.path for request in served.asked("resolve")] == [f"/{REPO}/resolve/{moved}/config.json"]
    assert (fetch(log) / "config.json").read_text() != "{}"  # the old commit is still itself


# The disk


def test_no_room(served: HubServer, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    error = refused("disk-full", lambda: fetch(log))
    assert error.exit_code == 3
    assert "magicid cache" in error.hint
    assert not served.asked("resolve")


def test_the_disk_fills_up_on_the_way(
    served: HubServer, folder: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = download._Partial.write

    def until_full(partial: download._Partial, chunk: bytes) -> None:
        if partial.size + len(chunk) > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(partial, chunk)

    with monkeypatch.context() as full:
        full.setattr(download._Partial, "write", until_full)
        served.rules.append(Rule("onnx", cut=15_000))
        assert refused("disk-full", lambda: fetch_onnx(log)).exit_code == 3
    served.rules.clear()
    assert fetch_onnx(log).read_bytes() == (folder / "face.onnx").read_bytes()
    assert served.requests[-1].start == 15_000


def test_a_cache_that_cannot_be_written(served: HubServer, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    error = refused("cache-unwritable", lambda: fetch(log))
    assert error.exit_code == 3
    assert "Read-only file system" in error.message


# Where it is, how much, and away


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAGICID_HOME", str(tmp_path / "m"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "h"))
    assert weights.hub_cache() == tmp_path / "m" / "cache" / "hub"
    monkeypatch.delenv("MAGICID_HOME")
    assert weights.hub_cache() == tmp_path / "c"
    monkeypatch.delenv("HF_HUB_CACHE")
    assert weights.hub_cache() == tmp_path / "h" / "hub"
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert weights.hub_cache() == tmp_path / "x" / "huggingface" / "hub"
    script = "import huggingface_hub.constants as c; print(c.HF_HUB_CACHE)"
    theirs = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert str(weights.hub_cache()) == theirs


def test_state_and_missing_bytes(served: HubServer, log: Log) -> None:
    assert (weights.state(PINNED), weights.missing_bytes(PINNED)) == ("absent", None)
    fetch(log, patterns=["vae/*"])
    served.requests.clear()
    assert weights.state(PINNED, ["vae/*"]) == "cached"
    assert weights.state(PINNED, ["transformer/*"]) == "absent"
    assert weights.state(PINNED) == "partial"
    assert weights.missing_bytes(PINNED, ["vae/*"]) == 0
    assert weights.missing_bytes(PINNED, ["transformer/*"]) == 300_000
    assert weights.missing_bytes(PINNED, ["face.onnx"]) == 50_000
    fetch_onnx(log)
    assert weights.state(PINNED, ["face.onnx"]) == "cached"
    assert not served.asked("tree|revision")


def test_cached_and_remove(served: HubServer, folder: Path, log: Log) -> None:
    assert weights.cached() == []
    served.add("some/other", folder, COMMIT)
    fetch(log, Source("some/other", COMMIT, "", 0))
    root = fetch(log)
    (one,) = weights.cached()
    assert (one.repo, one.commits, one.files) == (REPO, (COMMIT,), len(data_of(folder)))
    twice = (folder / "tokenizer_2/merges.txt").stat().st_size  # the same content is kept once
    assert one.bytes == sum((folder / name).stat().st_size for name in data_of(folder)) - twice
    refused("cache-missing", lambda: weights.remove("some/other"))  # not ours to delete
    assert weights.remove(REPO) == one.bytes
    assert not one.path.exists()
    assert not root.exists()
    assert weights.cached() == []
    assert weights.state(PINNED) == "absent"
    assert refused("cache-missing", lambda: weights.remove(REPO)).exit_code == 2
