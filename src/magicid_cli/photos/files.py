"""Photo files: which ones are meant, whether they can be opened, and what their first bytes say they are."""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from glob import glob, has_magic
from pathlib import Path

from magicid_cli.errors import MagicIDError

SHEET = "magicid-sheet"
"""Stem of the contact sheets that `magicid prepare` writes where no other name is given."""

SHEET_TITLE = "Contact sheet of magicid"
"""Title in a contact sheet's PNG, by which it is known whatever its name."""

_SHEETS = re.compile(rf"{SHEET}(-\d+)?\.png")
_TITLE_CHUNK = b"tEXtTitle\0" + SHEET_TITLE.encode()
_PNG = b"\x89PNG\r\n\x1a\n"
_ADVICE = "Save it again as JPEG or PNG, or leave it out."
_EXAMPLE = "Give a folder with photos, or the photos themselves: magicid customize photos/ --name NAME"
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".gif"}
_OTHER_FORMATS = {
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"BM": "a BMP",
    b"II*\0": "a TIFF or raw photo",
    b"MM\0*": "a TIFF or raw photo",
    b"8BPS": "a Photoshop file",
    b"%!PS": "a PostScript file",
    b"%PDF": "a PDF",
    b"SIMPLE": "a FITS file",
    b"<": "a web page or other text",
    b"PK": "a ZIP archive",
}


class Unreadable(Exception):
    """A photo that cannot be used, with the reason and what its owner can do."""

    def __init__(self, reason: str, advice: str = _ADVICE) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


def expand(arguments: list[str], notice: Callable[[str], None] | None = None) -> list[Path]:
    """Folders, files and globs → photo files, each once, in the order given; a folder's content by name.

    A folder is not searched below its first level. Its hidden files and contact sheets are left out, and so are
    sub-folders, unless they are named like a picture: those are kept, so that they get a verdict. Links that point
    nowhere are kept too.

    Args:
        arguments: what the user typed.
        notice: hears of sub-folders with pictures that are left out.

    Raises:
        MagicIDError: `photos-missing` if an argument names nothing.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        paths = list(_matches(argument))
        below = _with_photos(argument)
        if not paths:
            raise _nothing(argument, below)
        if below and notice:
            notice(f"Photos in folders below '{argument}' are left out: {', '.join(below)}. Name those folders, too.")
        for path in paths:
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def _nothing(argument: str, below: list[str]) -> MagicIDError:
    if below:
        what = f"'{argument}' holds no photos itself, only folders: {', '.join(below)}."
        return MagicIDError("photos-missing", what, f"Name those folders: {os.path.join(argument, below[0])}")
    what = f"'{argument}' names no photo: there is no such file, or the folder is empty or closed to you."
    return MagicIDError("photos-missing", what, _EXAMPLE)


def _matches(argument: str) -> Iterator[Path]:
    if os.path.isdir(argument):
        for entry in _entries(argument):
            if not entry.is_dir() or _is_named_like_a_photo(entry):
                yield entry
    elif os.path.lexists(argument):
        yield Path(argument)
    elif has_magic(argument):
        yield from (path for match in sorted(glob(argument)) if not is_sheet(path := Path(match)))


def _entries(folder: str | Path) -> list[Path]:
    """What a folder holds, by name, without what is hidden and without contact sheets."""
    try:
        entries = sorted(Path(folder).iterdir(), key=lambda entry: entry.name)
    except PermissionError:
        return []
    return [entry for entry in entries if not entry.name.startswith(".") and not is_sheet(entry)]


def _with_photos(argument: str) -> list[str]:
    """Names of the folders right below this one that hold files which are named like pictures."""
    if not os.path.isdir(argument):
        return []
    folders = (entry for entry in _entries(argument) if entry.is_dir() and not _is_named_like_a_photo(entry))
    return [folder.name for folder in folders if any(map(_is_named_like_a_photo, _entries(folder)))]


def _is_named_like_a_photo(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES


def is_sheet(path: Path) -> bool:
    """Whether a file is a contact sheet of ours: by what its PNG says, or by a name that only a sheet gets."""
    return bool(_SHEETS.fullmatch(path.name)) or says_sheet(path)


def says_sheet(path: Path) -> bool:
    """Whether a file is a PNG that says it is a contact sheet of ours, whatever its name."""
    try:
        # Opening a pipe would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:
        return False
    return head.startswith(_PNG) and _TITLE_CHUNK in head


def content_digest(path: Path) -> str:
    """SHA-256 (hex) of a photo file's bytes, or the word `unreadable` for what is no readable file."""
    try:
        check_file(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (Unreadable, OSError):
        return "unreadable"


def name_of(path: Path) -> str:
    """The file's name without its folder, as text that can be written anywhere: bytes that are no UTF-8 become �."""
    return os.fsencode(path.name).decode("utf-8", "replace")


def check_file(path: Path) -> None:
    """Only a regular file with content may be opened: a pipe would wait for ever."""
    if path.is_dir():
        raise Unreadable("it is a folder", "Give the folder itself as an argument.")
    if path.is_symlink() and not path.exists():
        raise Unreadable("the link points nowhere", "Copy the photo itself here.")
    if not path.exists():
        raise Unreadable("there is no such file", "Check the name.")
    if not path.is_file():
        raise Unreadable("it is no regular file", "Copy the photo itself here.")
    if path.stat().st_size == 0:
        raise Unreadable("the file is empty (0 bytes)", "Copy or download it again, or leave it out.")


def kind_of(head: bytes) -> str:
    """Pillow's name of the format whose signature these first bytes carry."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(_PNG):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head[4:8] == b"ftyp":
        return _iso_media_kind(head[8:])
    other = next((name for magic, name in _OTHER_FORMATS.items() if head.lstrip().startswith(magic)), "something else")
    raise Unreadable(f"it is {other}, not a JPEG, PNG, WebP, HEIC, AVIF or GIF picture")


def _iso_media_kind(brands: bytes) -> str:
    if b"avif" in brands or b"avis" in brands:
        from PIL import features

        if not features.check("avif"):
            raise Unreadable(
                "this build of Pillow cannot read AVIF", "Save it as JPEG or PNG, or: pip install --upgrade pillow"
            )
        return "AVIF"
    if not any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")):
        raise Unreadable("it is a video or another container, not a picture", "Take a still from it, or leave it out.")
    try:
        import pillow_heif
    except ImportError as error:
        raise Unreadable(
            "reading HEIC needs the plug-in pillow-heif", "Install it: pip install 'magicid[heic]'"
        ) from error
    pillow_heif.register_heif_opener()
    return "HEIF"
