"""Directory checkpoints that a kill, a power loss or a full disk cannot spoil.

    checkpoints/
        step-00000200/
            adapter.safetensors  optimizer.safetensors  random.safetensors   one file per group of tensors
            state.json       everything that is no tensor
            manifest.json    format, step, size and SHA-256 of every file above; written last
        .tmp-*/              a save or a removal that was cut short; swept at the next start

A checkpoint is written into a temporary folder, every file and the folder are synced, and one rename gives it its
name: a folder called `step-*` was complete when it got that name. What happened to it since is checked against the
manifest before it is used. Tensors are safetensors and the rest is JSON: loading one runs no code.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import digest, file_digest, fsync_folder, read_json

if TYPE_CHECKING:
    import torch

FORMAT = 1
_FOLDER = re.compile(r"step-(\d{8,})")
_MANIFEST = "manifest.json"
_STATE = "state.json"


class _DamageError(Exception):
    """What is wrong with a checkpoint; the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were all found as they were written.

    Attributes:
        path: its folder.
        step: finished training steps.
        state: the plain part.
    """

    path: Path
    step: int
    state: dict[str, Any]

    def tensors(self, group: str) -> "dict[str, torch.Tensor]":
        """The tensors of one group, on the CPU.

        Raises:
            MagicIDError: `checkpoint-incomplete` if the group was not saved.
        """
        from safetensors.torch import load_file

        path = self.path / f"{group}.safetensors"
        if not path.is_file():
            raise MagicIDError(
                "checkpoint-incomplete",
                f"The checkpoint {self.path} holds no {path.name}.",
                f"Remove {self.path.parent} and run the same command again: the stage starts anew.",
            )
        return load_file(path)


@contextmanager
def room_to_write(folder: Path) -> Iterator[None]:
    """Turn "no space left on device" (or over quota) inside the block into an error the user can act on.

    Raises:
        MagicIDError: `disk-full`.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        # The writer of safetensors passes the system's words on, but not its number.
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT) and "No space left" not in str(error):
            raise
        raise MagicIDError(
            "disk-full",
            f"The disk is full: {folder} could not be written ({error}). What was saved before is untouched.",
            "Free some space (`magicid cache` lists what can go) and run the same command again: it resumes.",
        ) from error


def save(
    folder: Path,
    step: int,
    tensors: "Mapping[str, Mapping[str, torch.Tensor]]",
    state: Mapping[str, Any],
    *,
    keep: int = 2,
) -> Path:
    """Write a checkpoint durably, then drop the oldest ones.

    A checkpoint of a later step is removed too: whoever saves this step has gone back behind it, because it is
    damaged.

    Args:
        folder: where checkpoints lie; made if absent.
        step: finished training steps.
        tensors: contiguous tensors by name, by group; a group is a file.
        state: JSON-serialisable values.
        keep: how many checkpoints stay, this one included.

    Returns:
        The checkpoint's folder.

    Raises:
        MagicIDError: `disk-full`; earlier checkpoints are untouched.
    """
    final = folder / f"step-{step:08d}"
    with room_to_write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
        try:
            _fill(temporary, step, tensors, state)
            if final.exists():
                _remove(final)
            os.rename(temporary, final)
        finally:
            # Gone after the rename; after an error its space is wanted back.
            shutil.rmtree(temporary, ignore_errors=True)
        fsync_folder(folder)
        _prune(folder, step, keep)
    return final


def newest(folder: Path, *, on_damage: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; leftovers of cut-short saves are swept.

    Only the holder of the identity's lock may call it.

    Args:
        folder: where checkpoints lie; may be absent.
        on_damage: told, for every damaged checkpoint passed over, which file is damaged and how.

    Raises:
        MagicIDError: `checkpoint-format` for a checkpoint of another version's format, which is never guessed at.
    """
    for orphan in folder.glob(".tmp-*"):
        shutil.rmtree(orphan)
    for _, path in sorted(_folders(folder), reverse=True):
        try:
            return _read(path)
        except _DamageError as damage:
            on_damage(str(damage))
    return None


def last(folder: Path) -> tuple[int, str | None]:
    """Step and key of the newest checkpoint, whose files are not checked; 0 and None if there is none to read."""
    step, path = max(_folders(folder), default=(0, folder))
    try:
        return step, read_json(path / _STATE).get("key")
    except (OSError, ValueError, AttributeError):
        return 0, None


def discard(folder: Path) -> int:
    """Remove every checkpoint of a folder and return how many there were."""
    paths = [path for _, path in _folders(folder)]
    for path in paths:
        _remove(path)
    return len(paths)


def _fill(
    temporary: Path, step: int, tensors: "Mapping[str, Mapping[str, torch.Tensor]]", state: Mapping[str, Any]
) -> None:
    from safetensors.torch import save as serialise

    # Serialised here and not by safetensors' own file writer, which neither syncs nor reports a full disk as OSError.
    files = {
        f"{group}.safetensors": _write(temporary, f"{group}.safetensors", serialise(dict(named)))
        for group, named in tensors.items()
    }
    files[_STATE] = _write(temporary, _STATE, _json(state))
    manifest = {"format": FORMAT, "step": step, "files": files}
    _write(temporary, _MANIFEST, _json({**manifest, "digest": digest(manifest)}))
    fsync_folder(temporary)


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode()


def _write(folder: Path, name: str, data: bytes) -> dict[str, Any]:
    """Write and sync one file; its manifest entry is taken from the bytes meant, not from what the disk gives back."""
    with (folder / name).open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _folders(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of everything that is named like a checkpoint."""
    found = [(_FOLDER.fullmatch(path.name), path) for path in folder.glob("step-*")]
    return [(int(match[1]), path) for match, path in found if match]


def _prune(folder: Path, step: int, keep: int) -> None:
    earlier = sorted((found for found in _folders(folder) if found[0] <= step), reverse=True)
    for found in _folders(folder):
        if found not in earlier[:keep]:
            _remove(found[1])


def _remove(path: Path) -> None:
    """Delete a checkpoint so that a kill on the way leaves no part of it under a checkpoint's name."""
    grave = Path(tempfile.mkdtemp(prefix=".tmp-", dir=path.parent))
    os.rename(path, grave / path.name)
    shutil.rmtree(grave)


def _read(path: Path) -> Checkpoint:
    manifest = _manifest(path)
    for name, facts in manifest["files"].items():
        _check(path / name, facts)
    return Checkpoint(path, manifest["step"], read_json(path / _STATE))


def _manifest(path: Path) -> dict[str, Any]:
    where = path / _MANIFEST
    try:
        manifest = read_json(where)
    except FileNotFoundError:
        raise _DamageError(f"{where} is missing.") from None
    except ValueError as error:
        raise _DamageError(f"{where} is damaged: {error}.") from error
    if not isinstance(manifest, dict) or _altered(manifest):
        raise _DamageError(f"{where} was changed after it was written.")
    if manifest.get("format") != FORMAT:
        raise MagicIDError(
            "checkpoint-format",
            f"The checkpoint {path} has format {manifest.get('format')}; this version reads format {FORMAT}.",
            f"Use the version of magicid that wrote it, or remove {path.parent} to start the stage anew.",
        )
    return manifest


def _altered(manifest: dict[str, Any]) -> bool:
    """Whether the manifest fails its own digest; a format that has none is left to be refused as a format."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    bound = "digest" in manifest or manifest.get("format") == FORMAT
    return bound and manifest.get("digest") != digest(rest)


def _check(path: Path, facts: dict[str, Any]) -> None:
    if not path.is_file():
        raise _DamageError(f"{path} is missing.")
    size = path.stat().st_size
    if size < facts["bytes"]:
        raise _DamageError(f"{path} is truncated: {size} of {facts['bytes']} bytes are there.")
    if size > facts["bytes"] or file_digest(path) != facts["sha256"]:
        raise _DamageError(f"{path} was changed after it was written: its SHA-256 is not the one in the manifest.")
