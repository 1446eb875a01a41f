"""Photo files, which anybody may have sent: which ones are meant, and their pixels as upright 8-bit sRGB.

A file is opened only as the one format its first bytes say it is, and only if that format is allowed; its size is
read from the header and held against a cap before a pixel is decoded. Whatever is wrong with a file ends in
`Unreadable` with a reason for its owner, never in a crash.
"""

import hashlib
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from magicid_cli.errors import MagicIDError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

MAX_SIDE = 4096
"""Longest side of a decoded photo; a larger one is reduced by a whole factor."""

MAX_MEGAPIXELS = {"JPEG": 128, "PNG": 64, "AVIF": 64, "HEIF": 64, "GIF": 64, "WEBP": 40}
"""Most pixels of a file, in units of 1e6, so that decoding stays under 1 GB: JPEG is reduced while it is decoded,
libwebp keeps three copies."""

NEAR_DUPLICATE_BITS = 8
"""Photos whose `perceptual_hash` differs in at most so many of 64 bits count as the same picture: saving again,
scaling, relighting and cutting 3 % off every edge change up to 8, another framing over 12, another picture about 32."""

SHEET = "magicid-sheet"
"""Stem of the contact sheets that `magicid prepare` writes: in a folder of photos they are no photos."""

_ADVICE = "Save it again as JPEG or PNG, or leave it out."
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
# EXIF orientation → the names of PIL.Image.Transpose that put the picture upright.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class Unreadable(Exception):
    """A photo that cannot be used, with the reason and what its owner can do."""

    def __init__(self, reason: str, advice: str = _ADVICE) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo.

    Attributes:
        name: the file's name, without its folder.
        sha256: of the file's bytes.
        rgb: uint8 sRGB `(H, W, 3)`, upright, its longest side at most `MAX_SIDE`.
        notes: what had to be decided to decode it, a sentence each.
    """

    name: str
    sha256: str
    rgb: "np.ndarray"
    notes: tuple[str, ...] = ()


def expand(arguments: list[str]) -> list[Path]:
    """Folders, files and globs → photo files, each once, in the order given; a folder's content by name.

    A folder is not searched below its first level. Its hidden files and contact sheets (`SHEET`) are left out, and so
    are sub-folders, unless they are named like a picture: those are kept, so that they get a verdict. Links that point
    nowhere are kept too.

    Raises:
        MagicIDError: `photos-missing` if an argument names nothing.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        paths = list(_matches(argument))
        if not paths:
            raise MagicIDError(
                "photos-missing",
                f"'{argument}' names no photo: there is no such file, or the folder is empty or closed to you.",
                "Give a folder with photos, or the photos themselves: magicid customize photos/ --name NAME",
            )
        for path in paths:
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def _matches(argument: str) -> Iterator[Path]:
    if os.path.isdir(argument):
        try:
            entries = sorted(Path(argument).iterdir(), key=lambda entry: entry.name)
        except PermissionError:
            return
        for entry in entries:
            photo = not entry.is_dir() or entry.suffix.lower() in _SUFFIXES
            if photo and not entry.name.startswith((".", SHEET)):
                yield entry
    elif os.path.lexists(argument):
        yield Path(argument)
    elif has_magic(argument):
        yield from (Path(match) for match in sorted(glob(argument)))


def content_digest(path: Path) -> str:
    """SHA-256 (hex) of a photo file's bytes, or the word `unreadable` for what is no readable file."""
    try:
        _check_file(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (Unreadable, OSError):
        return "unreadable"


def decode(path: Path) -> Photo:
    """Decode one photo file.

    Raises:
        Unreadable: with the reason; nothing else, whatever the file contains.
    """
    try:
        _check_file(path)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            kind = _kind(file.read(64))
            file.seek(0)
            with warnings.catch_warnings():
                # Pillow's remarks on odd metadata, and its own, global pixel limit near ours; ours decides.
                warnings.simplefilter("ignore")
                rgb, notes = _decode(file, kind)
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable("decoding it takes more memory than there is", "Save a smaller copy of it.") from error
    except PermissionError as error:
        raise Unreadable(
            "you may not read the file", "Give yourself permission to read it, or leave it out."
        ) from error
    # A decoder may raise anything at all on a file that was made to hurt it.
    except Exception as error:
        cut = "truncated" in str(error)
        reason = "the file is cut short" if cut else f"the picture in it is damaged ({type(error).__name__})"
        raise Unreadable(reason, "Copy or download it again, or leave it out.") from error
    return Photo(name_of(path), sha256, rgb, tuple(notes))


def name_of(path: Path) -> str:
    """The file's name without its folder, as text that can be written anywhere: bytes that are no UTF-8 become �."""
    return os.fsencode(path.name).decode("utf-8", "replace")


def _check_file(path: Path) -> None:
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


def _kind(head: bytes) -> str:
    """Pillow's name of the format whose signature these first bytes carry."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
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


def _decode(file: BinaryIO, kind: str) -> "tuple[np.ndarray, list[str]]":
    import numpy as np
    from PIL import Image, ImageChops

    limit = MAX_MEGAPIXELS[kind]
    try:
        image: Image.Image = Image.open(file, formats=[kind])
    except Image.DecompressionBombError as error:
        raise _too_large(limit) from error
    if image.width * image.height > limit * 1_000_000:
        raise _too_large(limit)
    notes = []
    if getattr(image, "is_animated", False) and image.format != "MPO":
        notes.append("It is animated; its first frame is used.")
    image.draft(None, (MAX_SIDE, MAX_SIDE))
    image.load()
    orientation, icc = image.getexif().get(0x0112, 1), image.info.get("icc_profile")
    if kind == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        # Adobe's programs store inks inverted, and Pillow undoes that; without Adobe's mark there was nothing to undo.
        image = ImageChops.invert(image)
    image = _opaque(_reduced(_eight_bit(image)))
    if icc:
        image = _srgb(image, icc, notes)
    image = image.convert("RGB")
    if orientation in _UPRIGHT:
        image = image.transpose(Image.Transpose[_UPRIGHT[orientation]])
    return np.array(image), notes


def _too_large(limit: int) -> Unreadable:
    return Unreadable(f"it has more than {limit} megapixels", "Save a smaller copy of it.")


def _eight_bit(image: "Image") -> "Image":
    """Every mode a decoder returns → L, RGB, RGBA or CMYK."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        # 16-bit grey (as I;16, or as 32-bit I): a table keeps the conversion to one small copy.
        table = np.round(np.arange(65536) / 257).astype(np.uint8)
        values = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        return Image.fromarray(table[values])
    if image.has_transparency_data or image.mode in ("PA", "LA", "La", "RGBa"):
        return image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _reduced(image: "Image") -> "Image":
    factor = math.ceil(max(image.size) / MAX_SIDE)
    return image.reduce(factor) if factor > 1 else image


def _opaque(image: "Image") -> "Image":
    """Transparency over white, as a browser's page shows it."""
    from PIL import Image

    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _srgb(image: "Image", icc: bytes, notes: list[str]) -> "Image":
    """Apply the embedded colour profile; without a usable one the values are taken as sRGB."""
    import io

    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        space = profile.profile.xcolor_space.strip()
        if space == "GRAY" and image.mode == "RGB":
            image = image.convert("L")
        elif space == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        notes.append("Its colour profile cannot be used; its values are taken as sRGB.")
        return image
    return image if converted is None else converted


def perceptual_hash(rgb: "np.ndarray") -> int:
    """64 bits that stay nearly the same when a picture is scaled, compressed or made a little brighter.

    The picture is shrunk to 32 × 32 grey; each bit tells whether one of the 8 × 8 lowest coefficients of its discrete
    cosine transform is above their median (the mean brightness left out).

    Args:
        rgb: uint8 `(H, W, 3)`.
    """
    import numpy as np
    from PIL import Image

    grey = np.asarray(Image.fromarray(rgb).convert("L").resize((32, 32), Image.Resampling.BOX), np.float64)
    frequency, position = np.arange(8)[:, None], np.arange(32)[None, :]
    basis = np.cos(np.pi * frequency * (2 * position + 1) / 64)
    coefficients = (basis @ grey @ basis.T).ravel()
    coefficients[0] = np.median(coefficients[1:])
    bits = coefficients > coefficients[0]
    return sum(1 << position for position in np.flatnonzero(bits).tolist())


def hash_distance(one: int, other: int) -> int:
    """In how many bits two hashes differ."""
    return (one ^ other).bit_count()
