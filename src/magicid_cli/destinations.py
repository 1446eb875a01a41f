"""Where files that a user asked for go: free names, and names that cannot be written told before the work."""

import os
import re
import tempfile
from pathlib import Path

from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import Workspace

_LONGEST = 255  # bytes of one name, on every usual file system


def destinations(workspace: Workspace, prompt: str, seeds: list[int], output: Path | None, force: bool) -> list[Path]:
    """Where the videos go: never onto an existing file unless asked.

    Raises:
        MagicIDError: `output-exists`, or `output-invalid` for a name that is not .mp4 or that cannot be written: told
            before the work and not after it.
    """
    slug = "-".join(re.findall(r"[a-z0-9]+", prompt.lower())[:6])[:100] or "video"
    if output is None or os.path.isdir(output):
        folder = output or workspace.videos
        paths = [free_name(folder / f"{slug}-{seed}.mp4") for seed in seeds]
        require_writable(paths[0])
        return paths
    if output.suffix.lower() != ".mp4":
        raise MagicIDError(
            "output-invalid", f"'{output.name}' is not a name for a video.", "Name a .mp4 file or an existing folder."
        )
    paths = _files(output, len(seeds))
    require_writable(paths[-1])  # the longest name
    there = taken(output, len(seeds))
    if there and not force:
        raise MagicIDError("output-exists", f"{there[0]} exists already.", "Choose another --output, or add --force.")
    return paths


def taken(output: Path, count: int) -> list[Path]:
    """Which files of so many videos exist already where `output` names their file."""
    return [path for path in _files(output, count) if os.path.lexists(path)]


def numbered(output: Path, number: int) -> Path:
    """The file of one of several videos."""
    return output.with_stem(f"{output.stem}-{number}")


def _files(output: Path, count: int) -> list[Path]:
    return [output] if count == 1 else [numbered(output, number) for number in range(1, count + 1)]


def require_writable(path: Path, option: str = "--output") -> None:
    """Find out by trying whether a file or folder of this name can be made; permissions alone do not tell.

    Args:
        path: what is to be made; folders above it may be missing.
        option: with which another one is named.

    Raises:
        MagicIDError: `output-invalid`.
    """
    long = [part for part in path.absolute().parts if len(os.fsencode(part)) > _LONGEST]
    if long:
        what = f"'{long[0][:40]}…' is too long for a name: file systems take {_LONGEST} bytes."
        raise MagicIDError("output-invalid", what, f"Name a shorter one with {option}.")
    folder = path.absolute().parent
    there = next(above for above in (folder, *folder.parents) if os.path.lexists(above))
    try:
        with tempfile.NamedTemporaryFile(prefix=".tmp-", dir=there):
            pass
    except OSError as error:
        what = f"Nothing can be written to '{path.parent}': {error.strerror}."
        raise MagicIDError("output-invalid", what, f"Name another file or folder with {option}.") from error


def require_folder(folder: Path) -> None:
    """Refuse a folder that cannot be, because it or something above it is a file.

    Raises:
        MagicIDError: `output-invalid`.
    """
    folder = folder.absolute()
    there = next(above for above in (folder, *folder.parents) if os.path.lexists(above))
    if not there.is_dir():
        what = f"{there} is no folder" + ("." if there == folder else f", so {folder} cannot be one.")
        raise MagicIDError("output-invalid", what, "Name another folder.")


def free_name(path: Path) -> Path:
    """The path of a file or folder, or the first of path-2, path-3, … that is free."""
    candidate, number = path, 1
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate
