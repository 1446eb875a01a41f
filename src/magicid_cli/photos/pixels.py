"""What a decoder returns → small, opaque, 8-bit sRGB pictures.

Pillow keeps four bytes a pixel of every colour picture, so a second copy of a large one costs as much as the first:
everything here works on strips of it, and only the reduced picture is there as a whole.
"""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_STRIP = 2_000_000  # pixels that are turned at a time


def reduced(image: "Image", longest: int) -> "Image":
    """The picture as opaque L, RGB or CMYK, by a whole factor smaller so that no side is longer than `longest`."""
    from PIL import Image

    factor = math.ceil(max(image.size) / longest)
    result = None
    height = factor * max(1, _STRIP // (image.width * factor))
    for top in range(0, image.height, height):
        strip = _opaque(_eight_bit(image.crop((0, top, image.width, min(top + height, image.height)))))
        strip = strip.reduce(factor) if factor > 1 else strip
        if result is None:
            result = Image.new(strip.mode, (strip.width, math.ceil(image.height / factor)))
        result.paste(strip, (0, top // factor))
    assert result is not None, "a picture has at least one row"
    return result


def _eight_bit(image: "Image") -> "Image":
    """Every mode a decoder returns → L, RGB, RGBA or CMYK."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        # 16-bit grey (as I;16, or as 32-bit I).
        table = np.round(np.arange(65536) / 257).astype(np.uint8)
        values = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        return Image.fromarray(table[values])
    if image.has_transparency_data or image.mode in ("PA", "LA", "La", "RGBa"):
        return image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _opaque(image: "Image") -> "Image":
    """Transparency over white, as a browser's page shows it."""
    from PIL import Image

    if image.mode != "RGBA":
        return image
    shown = Image.new("RGB", image.size, "white")
    shown.paste(image, (0, 0), image)
    return shown


def in_srgb(image: "Image", icc: bytes, notes: list[str]) -> "Image":
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
