"""Photo files, which anybody may have sent: which ones are meant, and their pixels as upright 8-bit sRGB.

A file is opened only as the one format its first bytes say it is, and only if that format is allowed; its size is
read from the header and held against a cap before a pixel is decoded. Whatever is wrong with a file ends in
`Unreadable` with a reason for its owner, never in a crash.

`files.py` finds and opens, `decoding.py` decodes, `pixels.py` turns what a decoder returns into small, opaque pictures,
`hashing.py` tells near-duplicates.
"""

from magicid_cli.photos.decoding import MAX_MEGAPIXELS, MAX_SIDE, Photo, decode
from magicid_cli.photos.files import (
    SHEET,
    SHEET_TITLE,
    Unreadable,
    content_digest,
    expand,
    is_sheet,
    name_of,
    says_sheet,
)
from magicid_cli.photos.hashing import NEAR_DUPLICATE_BITS, hash_distance, perceptual_hash

__all__ = [
    "MAX_MEGAPIXELS",
    "MAX_SIDE",
    "NEAR_DUPLICATE_BITS",
    "SHEET",
    "SHEET_TITLE",
    "Photo",
    "Unreadable",
    "content_digest",
    "decode",
    "expand",
    "hash_distance",
    "is_sheet",
    "name_of",
    "perceptual_hash",
    "says_sheet",
]
