"""One person's folder, against its contract: whole files or none, one process at a time, nothing left to unlock."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from magicid_cli.config import user_config_path
from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import (
    Workspace,
    append_line,
    atomic_path,
    cache_home,
    check_name,
    data_home,
    digest,
    file_digest,
    identities,
    read_json,
    read_lines,
    write_json,
    write_lines,
    write_text,
)

# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "name"), [("alice", "alice"), ("Alice", "alice"), ("a" * 64, "a" * 64), ("0_x-", "0_x-")]
)
def test_good_names_become_lower_case(typed: str, name: str) -> None:
    assert check_name(typed) == name


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "a" * 65,
        "-a",
        "_a",
        "a b",
        "a/b",
        "..",
        "../a",
        "a\\b",
        "a.b",
        "a\n",
        "\0",
        "ä",
        "con",
        "NUL",
        "Com1",
        "lpt9",
        "~",
    ],
)
def test_bad_names_are_refused(typed: str) -> None:
    with pytest.raises(MagicIDError) as caught:
        check_name(typed)
    assert (caught.value.code, caught.value.exit_code) == ("name-invalid", 2)


def test_magicid_home_moves_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAGICID_HOME", str(tmp_path / "höme mit Leerzeichen"))
    assert data_home() == tmp_path / "höme mit Leerzeichen"
    assert data_home() in cache_home().parents
    assert Workspace("Alice").path == data_home() / "identities" / "alice"


@pytest.mark.parametrize("relative", ["here", "./here", "~nobody-has-this-name/here"])
def test_a_home_that_would_move_with_the_working_directory_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, relative: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAGICID_HOME", relative)
    for home in (data_home, cache_home, user_config_path):
        with pytest.raises(MagicIDError, match="MAGICID_HOME") as caught:
            home()
        assert caught.value.code == "settings-invalid"
        assert str(tmp_path) in caught.value.hint
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MAGICID_HOME", "~/here")
    assert data_home() == tmp_path / "here"


# --- whole files or none ------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    value = {"name": "Zoë 你好", "numbers": [1, 2.5, None, True]}
    write_json(tmp_path / "deep" / "a.json", value)
    assert read_json(tmp_path / "deep" / "a.json") == value
    write_text(tmp_path / "t.txt", "ü\n")
    assert (tmp_path / "t.txt").read_bytes() == "ü\n".encode()
    write_lines(tmp_path / "rows.jsonl", [value, value])
    assert read_lines(tmp_path / "rows.jsonl") == [value, value]


def test_an_error_while_writing_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space"):
            write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_synced_before_it_takes_the_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, bool]] = []

    def logged(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any) -> Any:
            subject = os.fstat(args[0]) if name == "fsync" else os.stat(args[0])
            calls.append((name, stat.S_ISDIR(subject.st_mode)))
            return real(*args)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "replace"):
            patch.setattr(os, name, logged(name))
        write_text(tmp_path / "a.txt", "x")
    assert calls == [("fsync", False), ("replace", False), ("fsync", True)]


# --- lines --------------------------------------------------------------------------------------------------------


def test_a_missing_file_has_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("cut", range(1, 25))
def test_a_line_torn_anywhere_is_dropped_and_the_next_one_is_whole(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.jsonl"
    append_line(path, {"n": 1})
    whole = path.read_bytes()
    append_line(path, {"n": 2, "text": "ü 你好"})
    torn = path.read_bytes()[: len(whole) + cut]
    path.write_bytes(torn)
    rows = read_lines(path)
    assert rows[:1] == [{"n": 1}]
    assert len(rows) == 1 + (cut >= len('{"n": 2, "text": "ü 你好"}'.encode()))
    append_line(path, {"n": 3})
    assert read_lines(path) == [*rows, {"n": 3}]


def test_a_prompt_with_every_kind_of_line_break_stays_one_row(tmp_path: Path) -> None:
    row = {"prompt": "one\ntwo\r\x0b\x0c\x1c\x1d\x1e\x85three\u2028four\u2029end"}
    path = tmp_path / "rows.jsonl"
    append_line(path, row)
    append_line(path, {"n": 2})
    assert read_lines(path) == [row, {"n": 2}]


def test_an_appended_line_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            sizes.append(os.fstat(handle).st_size)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    append_line(tmp_path / "rows.jsonl", {"n": 1})
    assert sizes == [len('{"n": 1}\n')]


# --- digests ------------------------------------------------------------------------------------------------------


def test_digest_depends_on_content_and_not_on_order() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])


def test_file_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    assert file_digest(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --- the manifest -------------------------------------------------------------------------------------------------


def test_manifest_begins_empty_and_keeps_what_is_updated() -> None:
    space = Workspace("alice")
    space.create()
    assert not space.exists
    assert space.manifest()["stages"] == {}
    space.update(stages={"ingest": {"done": True}})
    space.update(seed=7)
    assert space.exists
    assert Workspace("alice").manifest()["stages"] == {"ingest": {"done": True}}
    assert Workspace("alice").manifest()["seed"] == 7
    assert [found.name for found in identities()] == ["alice"]


def test_the_folder_is_the_owners_alone() -> None:
    space = Workspace("alice")
    space.create()
    assert stat.S_IMODE(space.path.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "content", [b"{", b"\xff", b"[]", b"3", b"null", b"", b"{}", b'{"format": null}', b'{"format": 1}']
)
def test_a_damaged_manifest_is_named(content: bytes) -> None:
    space = Workspace("alice")
    space.create()
    space.manifest_path.write_bytes(content)
    with pytest.raises(MagicIDError, match=r"manifest\.json is damaged") as caught:
        space.manifest()
    assert caught.value.code == "manifest-unreadable"


def test_a_manifest_of_another_format_is_refused() -> None:
    space = Workspace("alice")
    space.update(format=99)
    with pytest.raises(MagicIDError, match="has format 99; this version reads format 1") as caught:
        space.manifest()
    assert caught.value.code == "manifest-format"


def test_a_fallback_is_recorded_once() -> None:
    space = Workspace("alice")
    space.record_fallback("flow on the CPU")
    space.record_fallback("flow on the CPU")
    assert space.manifest()["fallbacks"] == ["flow on the CPU"]


# --- the lock -----------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from magicid_cli.workspace import Workspace
with Workspace("alice").lock():
    print("held", flush=True)
    time.sleep(60)
"""
TRY = """
from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import Workspace
try:
    with Workspace("alice").lock():
        print("got it")
except MagicIDError as error:
    print(error.code, error.message)
"""


@contextmanager
def holder() -> Iterator[subprocess.Popen[str]]:
    """Another process that holds alice's lock."""
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def attempt() -> tuple[str, float]:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip(), time.monotonic() - started


def test_a_second_process_is_refused_at_once_and_told_who_is_first() -> None:
    with holder() as first:
        answer, seconds = attempt()
    assert answer.startswith(f"identity-busy process {first.pid} on ")
    assert "'alice'" in answer
    assert seconds < 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_dies_with_its_process(how: signal.Signals) -> None:
    with holder() as first:
        first.send_signal(how)
        first.wait()
        assert attempt()[0] == "got it"


def test_a_child_process_does_not_keep_the_lock() -> None:
    """A child (an encoder, say) that outlives its killed parent must not block the next run."""
    parent = HOLD.replace("import sys, time", "import subprocess, time").replace(
        'print("held"', 'print(subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL).pid'
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            process.kill()
            process.wait()
            assert attempt()[0] == "got it"
        finally:
            os.kill(child, signal.SIGKILL)


def test_the_lock_is_free_after_use_also_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), Workspace("alice").lock():
        raise ZeroDivisionError
    with (
        Workspace("alice").lock(),
        pytest.raises(MagicIDError, match=f"process {os.getpid()} "),
        Workspace("alice").lock(),
    ):
        pytest.fail("held twice")
    with Workspace("alice").lock(), Workspace("bob").lock():
        assert Workspace("alice").path != Workspace("bob").path


# --- sweeping -----------------------------------------------------------------------------------------------------


def litter(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".tmp-file").write_text("half")
    (folder / ".tmp-folder" / "deep").mkdir(parents=True)
    (folder / ".tmp-folder" / "deep" / ".tmp-inner").write_text("half")
    return [folder / ".tmp-file", folder / ".tmp-folder"]


def test_taking_the_lock_sweeps_what_a_kill_left_and_nothing_else() -> None:
    space = Workspace("alice")
    space.update(seed=1)
    kept = space.reconstruct / "adapter.safetensors"
    left = [*litter(space.path), *litter(space.reconstruct / "checkpoints")]
    kept.write_text("whole")
    with space.lock():
        assert not any(path.exists() for path in left)
        assert kept.read_text() == "whole"
        assert space.manifest()["seed"] == 1


def test_a_video_being_generated_without_the_lock_is_not_swept() -> None:
    space = Workspace("alice")
    young, old = space.videos / ".tmp-young.mp4", space.videos / ".tmp-old.mp4"
    space.videos.mkdir(parents=True)
    for path in (young, old):
        path.write_text("half")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(old, (two_days_ago, two_days_ago))
    with space.lock():
        assert young.exists()
        assert not old.exists()


def test_identities_are_listed_by_name_and_only_if_begun(tmp_path: Path) -> None:
    for name in ("carol", "alice"):
        Workspace(name, tmp_path).update(seed=1)
    Workspace("bob", tmp_path).create()
    (tmp_path / "identities" / "Not A Name").mkdir()
    assert [space.name for space in identities(tmp_path)] == ["alice", "carol"]
    assert json.loads((tmp_path / "identities" / "carol" / "manifest.json").read_text())["name"] == "carol"
    assert identities(tmp_path / "nowhere") == []
