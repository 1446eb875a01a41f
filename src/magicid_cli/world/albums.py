"""The photo album of a drawn person as files: a first run then needs nobody's face."""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magicid_cli.checkpoints import room_to_write
from magicid_cli.destinations import require_folder
from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import fsync_folder
from magicid_cli.world.clips import album
from magicid_cli.world.people import Person, person

_PHOTO = re.compile(r"photo-\d{2,}\.png")


@dataclass(frozen=True)
class Album:
    """Photos that were written.

    Attributes:
        folder: where they are.
        files: the photos, in order.
        person: who is in them.
    """

    folder: Path
    files: tuple[Path, ...]
    person: Person


def write_album(folder: Path, *, seed: int, count: int, size: int, force: bool) -> Album:
    """Draw photos of one person into a folder of their own, which appears as a whole or not at all.

    Args:
        folder: made with all that is missing above it; an empty one may be there.
        seed: the person's.
        count: how many photos.
        size: their side in pixels.
        force: whether an album that is there may be replaced.

    Raises:
        MagicIDError: `output-exists`, `output-invalid`, `disk-full`; nothing has changed then.
    """
    folder = folder.absolute()
    _refuse_taken(folder, force)
    require_folder(folder.parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-magicid-album.", dir=folder.parent))
    try:
        with room_to_write(folder):
            names = []
            for index, picture in enumerate(album(seed, count, size)):
                names.append(f"photo-{index + 1:02}.png")
                _write_photo(temporary / names[-1], picture, seed)
            temporary.chmod(0o755)  # it was made for its owner alone
            _refuse_taken(folder, force)  # drawing took its time
            _publish(temporary, folder, force)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Album(folder, tuple(folder / name for name in names), person(seed))


def _write_photo(path: Path, picture: np.ndarray, seed: int) -> None:
    """Write uint8 RGB `(H, W, 3)` as a PNG that says what it shows, and sync it."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    about = PngInfo()
    about.add_text("Software", "magicid")
    about.add_text("Description", f"Drawn: person {seed} of magicid's drawn world, who exists nowhere")
    with path.open("wb") as file:
        Image.fromarray(picture).save(file, "PNG", pnginfo=about)
        file.flush()
        os.fsync(file.fileno())


def _refuse_taken(folder: Path, force: bool) -> None:
    """Let an empty folder be used, and with `force` one that holds nothing but an album.

    Raises:
        MagicIDError: `output-exists`, `output-invalid`.
    """
    if not os.path.lexists(folder):
        return
    if folder.is_dir() and folder.samefile(os.curdir):
        raise MagicIDError(
            "output-invalid",
            f"{folder} is the folder you are in, and the album appears in one move, as a new folder.",
            "Name a new folder: magicid mini photos album",
        )
    known = folder.is_dir() and not folder.is_symlink()
    content = sorted(path.name for path in folder.iterdir()) if known else [folder.name]
    if content and not force:
        raise MagicIDError(
            "output-exists",
            f"{folder} {'is not empty' if known else 'exists already and is no folder'}.",
            "Name a new folder." + (" An album is replaced with --force." if known else ""),
        )
    foreign = [name for name in content if not _PHOTO.fullmatch(name)]
    if foreign:
        raise MagicIDError(
            "output-invalid",
            f"{folder} would be replaced as a whole, and {foreign[0]} is no photo of an album.",
            "Name a new folder.",
        )


def _publish(temporary: Path, folder: Path, force: bool) -> None:
    """Give a finished album its name; an album that had it is put aside first and deleted last."""
    fsync_folder(temporary)
    old = temporary.with_name(f"{temporary.name}-old")
    if force and folder.exists():
        folder.replace(old)
    try:
        temporary.replace(folder)  # also onto an empty folder, but never onto one that has been filled meanwhile
    except OSError:
        if old.exists():
            old.replace(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
    fsync_folder(folder.parent)
