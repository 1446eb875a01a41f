"""Picture files for tests: smooth random pictures, PNG files that Pillow cannot write, colour profiles."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image


def smooth(width: int, height: int, seed: int = 0, cell: int = 16) -> np.ndarray:
    """A random picture with soft blobs of about `cell` pixels, uint8 `(H, W, 3)`."""
    random = np.random.default_rng(seed)
    shape = max(2, height // cell), max(2, width // cell), 3
    coarse = Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))
    return np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG file from raw rows without their filter bytes; `extra` chunks go before the data."""
    stride = len(rows) // height
    raw = b"".join(b"\0" + rows[start : start + stride] for start in range(0, len(rows), stride))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(raw, 1)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


_SRGB_D50 = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
_LINEAR = b"curv\0\0\0\0" + struct.pack(">I", 0)
# Exponent, scale and offset above 0.04045, slope below it.
_SRGB_CURVE = b"para\0\0\0\0\0\3\0\0" + struct.pack(
    ">5i", *(round(part * 65536) for part in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)


def profile(primaries: tuple[tuple[float, float], ...]) -> bytes:
    """An ICC profile with these chromaticities of red, green and blue under D65, and sRGB's curve."""
    white = np.array([0.3127 / 0.329, 1.0, (1 - 0.3127 - 0.329) / 0.329])
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    columns = columns * np.linalg.solve(columns, white)
    # Profiles are relative to D50: Bradford's adaptation.
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    gains = (cones @ [0.9642, 1.0, 0.8249]) / (cones @ white)
    adapted = np.linalg.inv(cones) @ np.diag(gains) @ cones @ columns
    return linear_profile(b"RGB ", adapted.T.tolist(), _SRGB_CURVE)


def linear_profile(space: bytes, primaries: Sequence[Sequence[float]] = _SRGB_D50, curve: bytes = _LINEAR) -> bytes:
    """An ICC profile with sRGB's primaries (or grey) and linear light: 128 means half the light.

    Args:
        space: `RGB ` or `GRAY`.
        primaries: XYZ of red, green and blue, adapted to D50.
        curve: from values to light, as an ICC tag.
    """

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    def text(kind: bytes) -> bytes:
        words = b"linear\0"
        if kind == b"cprt":
            return b"text\0\0\0\0" + words
        return b"desc\0\0\0\0" + struct.pack(">I", len(words)) + words + bytes(4 + 4 + 2 + 1 + 67)

    tags = {b"desc": text(b"desc"), b"cprt": text(b"cprt"), b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    if space == b"RGB ":
        tags |= {name: xyz(*point) for name, point in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
        tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    else:
        tags |= {b"kTRC": curve}
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", offset + len(body), b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body
