"""Checkpoints on disk, against what they promise: whatever interrupts or damages them, an older whole one is found.

A kill is tested by copying the folder around every write, sync and rename of a save: each copy is a state in which a
killed process could have left the disk. Damage is done by hand, file by file.
"""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from magicid_cli import checkpoints
from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import digest, read_json

FILES = ("adapter.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


def tensors_of(step: int) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "adapter": {"a": torch.full((3, 2), float(step))},
        "optimizer": {"a.exp_avg": torch.arange(6.0) * step, "a.step": torch.tensor(float(step))},
    }


def save(folder: Path, step: int, **more: Any) -> Path:
    return checkpoints.save(folder, step, tensors_of(step), {"step": step, "note": "ü"}, **more)


def newest(folder: Path) -> tuple[checkpoints.Checkpoint | None, list[str]]:
    told: list[str] = []
    return checkpoints.newest(folder, on_damage=told.append), told


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_whole(checkpoint: checkpoints.Checkpoint | None, step: int) -> None:
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.state) == (step, {"step": step, "note": "ü"})
    for group, named in tensors_of(step).items():
        loaded = checkpoint.tensors(group)
        assert loaded.keys() == named.keys()
        assert all(torch.equal(loaded[name], value) for name, value in named.items())


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path, 200)
    assert path == tmp_path / "step-00000200"
    assert names(path) == sorted(FILES)
    checkpoint, told = newest(tmp_path)
    assert_whole(checkpoint, 200)
    assert not told


def test_nothing_saved_is_nothing_found(tmp_path: Path) -> None:
    assert newest(tmp_path / "absent") == (None, [])


def test_newest_wins_and_the_oldest_go(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        save(tmp_path, step)
    assert names(tmp_path) == ["step-00000015", "step-00000020"]
    save(tmp_path, 25, keep=1)
    assert names(tmp_path) == ["step-00000025"]
    assert_whole(newest(tmp_path)[0], 25)


def test_orphans_are_swept(tmp_path: Path) -> None:
    save(tmp_path, 1)
    orphan = tmp_path / ".tmp-killed"
    orphan.mkdir()
    (orphan / "adapter.safetensors").write_bytes(b"half")
    assert_whole(newest(tmp_path)[0], 1)
    assert names(tmp_path) == ["step-00000001"]


def test_discard_removes_all(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    assert checkpoints.discard(tmp_path) == 2
    assert names(tmp_path) == []


# --- damage -------------------------------------------------------------------------------------------------------


def flip(path: Path) -> str:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return "damaged" if path.name == "manifest.json" else "changed"


def cut(path: Path) -> str:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return "damaged" if path.name == "manifest.json" else "truncated"


def empty(path: Path) -> str:
    path.write_bytes(b"")
    return "damaged" if path.name == "manifest.json" else "truncated"


def grow(path: Path) -> str:
    path.write_bytes(path.read_bytes() + b"}")
    return "damaged" if path.name == "manifest.json" else "changed"


def delete(path: Path) -> str:
    path.unlink()
    return "missing"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [flip, cut, empty, grow, delete])
def test_damage_falls_back_and_names_the_file(tmp_path: Path, name: str, harm: Callable[[Path], str]) -> None:
    save(tmp_path, 10)
    word = harm(save(tmp_path, 20) / name)
    checkpoint, told = newest(tmp_path)
    assert_whole(checkpoint, 10)
    assert len(told) == 1
    assert f"step-00000020/{name}" in told[0]
    assert word in told[0]


def test_every_byte_of_the_manifest_counts(tmp_path: Path) -> None:
    save(tmp_path, 10)
    path = save(tmp_path, 20) / "manifest.json"
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        checkpoint, told = newest(tmp_path)
        assert_whole(checkpoint, 10)
        assert len(told) == 1


def test_all_damaged_is_none_and_each_is_told(tmp_path: Path) -> None:
    for step in (1, 2):
        delete(save(tmp_path, step) / "state.json")
    checkpoint, told = newest(tmp_path)
    assert checkpoint is None
    assert ["step-00000002" in told[0], "step-00000001" in told[1]] == [True, True]


def test_a_damaged_checkpoint_never_pushes_out_a_whole_one(tmp_path: Path) -> None:
    save(tmp_path, 10)
    flip(save(tmp_path, 40) / "adapter.safetensors")
    save(tmp_path, 20)
    assert names(tmp_path) == ["step-00000010", "step-00000020"]


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    flip(save(tmp_path, 40) / "adapter.safetensors")
    save(tmp_path, 40)
    assert_whole(newest(tmp_path)[0], 40)


@pytest.mark.parametrize("with_digest", [True, False])
def test_another_format_is_refused_by_name(tmp_path: Path, with_digest: bool) -> None:
    save(tmp_path, 10)
    path = save(tmp_path, 20) / "manifest.json"
    manifest = {**read_json(path), "format": 99}
    del manifest["digest"]
    path.write_bytes(checkpoints._json({**manifest, "digest": digest(manifest)} if with_digest else manifest))
    with pytest.raises(MagicIDError, match=r"step-00000020 has format 99") as caught:
        newest(tmp_path)
    assert caught.value.code == "checkpoint-format"


def test_a_group_that_was_not_saved_is_an_error(tmp_path: Path) -> None:
    save(tmp_path, 1)
    checkpoint, _ = newest(tmp_path)
    assert checkpoint is not None
    with pytest.raises(MagicIDError, match="random.safetensors") as caught:
        checkpoint.tensors("random")
    assert caught.value.code == "checkpoint-incomplete"


# --- kills and errors at every call of a save ---------------------------------------------------------------------


class Tap:
    """Calls `before` and `after` around every write, sync, rename and removal, numbering them in `log`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: Callable[[], None], after: Callable[[], None]) -> None:
        self.log: list[tuple[str, str]] = []
        self.before, self.after = before, after
        self.patch = monkeypatch
        real_open = Path.open

        def tapped_open(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            file = real_open(path, mode, *args, **kwargs)
            return Half(file, self) if "w" in mode else file

        monkeypatch.setattr(Path, "open", tapped_open)
        for function in ("fsync", "rename", "unlink"):
            monkeypatch.setattr(os, function, self.tapped(function, getattr(os, function)))
        monkeypatch.setattr(shutil, "rmtree", self.tapped("rmtree", shutil.rmtree))

    def tapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            subject = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[0])
            self.log.append((name, subject))
            self.before()
            result = real(*args, **kwargs)
            self.after()
            return result

        return call


class Half:
    """A file whose writes reach the disk in two halves, with the tap in between."""

    def __init__(self, file: IO[bytes], tap: Tap) -> None:
        self.file, self.tap = file, tap

    def __enter__(self) -> "Half":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        self.tap.log.append(("write", self.file.name))
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        self.tap.before()
        self.file.write(data[len(data) // 2 :])
        self.file.flush()
        self.tap.after()

    def flush(self) -> None:
        self.file.flush()

    def fileno(self) -> int:
        return self.file.fileno()


tapped = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the tap reads file names from /proc")


@tapped
def test_a_kill_at_any_moment_of_a_save_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, photos = tmp_path / "checkpoints", tmp_path / "photos"
    save(folder, 10)
    save(folder, 20)
    count = 0
    busy = False

    def photograph() -> None:
        nonlocal count, busy
        if not busy:  # copytree opens and writes too
            busy = True
            shutil.copytree(folder, photos / f"{count:03d}")
            count, busy = count + 1, False

    with monkeypatch.context() as patch:
        Tap(patch, photograph, photograph)
        save(folder, 30)
    assert count > 20
    found = []
    for photo in sorted(photos.iterdir()):
        for path in photo.glob("step-*"):
            checkpoints._read(path)  # raises for one that is not whole
        checkpoint, told = newest(photo)
        assert not told, f"{photo.name}: {told}"
        assert checkpoint is not None
        assert_whole(checkpoint, checkpoint.step)
        found.append(checkpoint.step)
        assert all(name.startswith("step-") for name in names(photo))
    assert found == sorted(found)
    assert set(found) == {20, 30}


@tapped
def test_an_error_at_any_call_of_a_save_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    while True:
        folder = tmp_path / str(calls)
        save(folder, 10)
        save(folder, 20)
        left = calls

        def fail() -> None:
            nonlocal left
            left -= 1
            if left == -1:
                raise OSError(errno.EIO, "injected")

        with monkeypatch.context() as patch:
            tap = Tap(patch, fail, lambda: None)
            try:
                save(folder, 30)
            except OSError as error:
                assert error.errno == errno.EIO
            finished = left >= 0
        checkpoint, told = newest(folder)
        assert not told
        assert checkpoint is not None
        assert_whole(checkpoint, checkpoint.step)
        if finished:
            break
        calls += 1
    assert calls == len(tap.log)
    assert calls >= 13  # four files written and synced, folder synced, renamed, parent synced, the oldest removed


@tapped
def test_every_file_is_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        tap = Tap(patch, lambda: None, lambda: None)
        save(tmp_path, 1)
    calls = [(name, Path(subject).name) for name, subject in tap.log]
    rename = next(i for i, (name, _) in enumerate(calls) if name == "rename")
    synced = [subject for name, subject in calls[:rename] if name == "fsync"]
    temporary = calls[rename][1]
    assert synced == ["adapter.safetensors", "optimizer.safetensors", "state.json", "manifest.json", temporary]
    assert not [call for call in calls[rename:] if call[0] == "write"]
    assert ("fsync", tmp_path.name) in calls[rename:]


# --- a full disk --------------------------------------------------------------------------------------------------


@tapped
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", ["write", "fsync", "rename"])
def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    save(tmp_path, 10)

    def full() -> None:
        if tap.log[-1][0] == name:
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        tap = Tap(patch, full, lambda: None)
        with pytest.raises(MagicIDError, match=os.strerror(number)) as caught:
            save(tmp_path, 20)
    assert (caught.value.code, caught.value.exit_code) == ("disk-full", 3)
    assert names(tmp_path) == ["step-00000010"]
    assert_whole(newest(tmp_path)[0], 10)


def test_other_errors_of_the_disk_pass_through(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="boom"), checkpoints.room_to_write(tmp_path):
        raise OSError(errno.EIO, "boom")


REAL_DISK = """
import sys
from pathlib import Path
import torch
from magicid_cli import checkpoints
from magicid_cli.errors import MagicIDError
folder = Path(sys.argv[1])
checkpoints.save(folder, 1, {"adapter": {"a": torch.ones(50_000)}}, {})
try:
    checkpoints.save(folder, 2, {"adapter": {"a": torch.ones(250_000)}}, {})
except MagicIDError as error:
    found = checkpoints.newest(folder, on_damage=sys.exit)
    sys.exit(0 if (error.code, found.step, len(list(folder.iterdir()))) == ("disk-full", 1, 1) else "not as promised")
sys.exit("one megabyte held more than a megabyte")
"""


def test_a_really_full_disk(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=1m magicid "$0" && '
    probe = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount + "true", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a small disk")
    command = [*probe[:-2], mount + '"$@"', str(tmp_path), sys.executable, "-c", REAL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
