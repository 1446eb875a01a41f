"""Photo file → pixels: upright, opaque, 8-bit sRGB, reduced; or the reason why not."""

import hashlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from magicid_cli.photos.files import Unreadable, check_file, kind_of, name_of
from magicid_cli.photos.pixels import in_srgb, reduced

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

MAX_SIDE = 4096
"""Longest side of a decoded photo; a larger one is reduced by a whole factor."""

MAX_MEGAPIXELS = {"JPEG": 128, "progressive JPEG": 51, "PNG": 51, "HEIF": 51, "GIF": 51, "AVIF": 32, "WEBP": 30}
"""Most pixels of a file, in units of 1e6: `magicid prepare` then stays under 1 GB, and a photo takes about a second.

Phones make 50 megapixels (8192 × 6144), as JPEG or HEIC. A JPEG is reduced while it is decoded, but of a progressive
one all coefficients are kept; libavif keeps three copies of a picture and libwebp four.
"""

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


_AGAIN = "Copy or download it again, or leave it out."
_SMALLER = "Save a smaller copy of it."
_DAMAGED_START = "its beginning is damaged or missing"
_SPOKEN = {"HEIF": "HEIC", "WEBP": "WebP", "progressive JPEG": "a progressive JPEG"}


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photo.

    Attributes:
        name: the file's name, without its folder.
        sha256: of the file's bytes.
        rgb: uint8 sRGB `(H, W, 3)`, upright, its longest side at most `MAX_SIDE`.
        notes: what had to be decided to decode it, a sentence each.
        bytes: the size of the file.
    """

    name: str
    sha256: str
    rgb: "np.ndarray"
    notes: tuple[str, ...] = ()
    bytes: int = 0


def decode(path: Path) -> Photo:
    """Decode one photo file.

    Raises:
        Unreadable: with the reason; nothing else, whatever the file contains.
    """
    try:
        check_file(path)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            kind = kind_of(file.read(64))
            file.seek(0)
            with warnings.catch_warnings():
                # Pillow's remarks on odd metadata, and its own, global pixel limit near ours; ours decides.
                warnings.simplefilter("ignore")
                rgb, notes = _decode(file, kind)
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable("decoding it takes more memory than there is", _SMALLER) from error
    except PermissionError as error:
        raise Unreadable(
            "you may not read the file", "Give yourself permission to read it, or leave it out."
        ) from error
    # A decoder may raise anything at all on a file that was made to hurt it.
    except Exception as error:
        cut = "truncated" in str(error)
        raise Unreadable("the file is cut short" if cut else "the picture in it is damaged", _AGAIN) from error
    return Photo(name_of(path), sha256, rgb, tuple(notes), path.stat().st_size)


def _decode(file: BinaryIO, kind: str) -> "tuple[np.ndarray, list[str]]":
    import numpy as np
    from PIL import Image, ImageChops

    image = _opened(file, kind)
    notes = []
    if getattr(image, "is_animated", False) and image.format != "MPO":
        notes.append("It is animated; its first frame is used.")
    image.load()
    orientation, icc = image.getexif().get(0x0112, 1), image.info.get("icc_profile")
    # Adobe's programs store inks inverted, and Pillow undoes that; without Adobe's mark there was nothing to undo.
    inverted = kind == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info
    image = reduced(image, MAX_SIDE)
    if inverted:
        image = ImageChops.invert(image)
    if icc:
        image = in_srgb(image, icc, notes)
    image = image.convert("RGB")
    if orientation in _UPRIGHT:
        image = image.transpose(Image.Transpose[_UPRIGHT[orientation]])
    return np.array(image), notes


def _opened(file: BinaryIO, kind: str) -> "Image":
    """The file, opened but not decoded, its size allowed."""
    from PIL import Image

    try:
        image: Image.Image = Image.open(file, formats=[kind])
    except Image.DecompressionBombError as error:
        raise _too_large(kind, MAX_MEGAPIXELS[kind]) from error
    except Image.UnidentifiedImageError as error:
        raise Unreadable(_DAMAGED_START, _AGAIN) from error
    what = f"progressive {kind}" if image.info.get("progressive") else kind
    if image.width * image.height > MAX_MEGAPIXELS[what] * 1_000_000:
        raise _too_large(what, MAX_MEGAPIXELS[what])
    if kind == "JPEG":
        # libjpeg leaves detail out while it decodes: as much as still gives the size that is wanted.
        factor = math.ceil(max(image.size) / MAX_SIDE)
        image.draft(None, (math.ceil(image.width / factor), math.ceil(image.height / factor)))
    return image


def _too_large(what: str, limit: int) -> Unreadable:
    return Unreadable(f"it has more than {limit} megapixels, the most for {_SPOKEN.get(what, what)}", _SMALLER)
