"""Edited captions: each stays with the photo that it was written for, and is kept while that photo is not used.

A photo is known by its own SHA-256: its crop changes with the training size and with whoever finds the face.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Origin:
    """Where a crop comes from.

    Attributes:
        photo: SHA-256 of the photo's file.
        crop: SHA-256 of the crop's PNG.
    """

    photo: str
    crop: str


def is_edited(row: Row) -> bool:
    """Whether a person wrote the caption of this line."""
    caption = row.get("caption")
    return isinstance(caption, str) and bool(caption.strip()) and caption != row.get("offered")


def traced(lines: Sequence[Any], photos: Sequence[Row]) -> list[dict[str, Any]]:
    """Lines of `captions.jsonl`, each with the SHA-256 of its photo as far as that is known.

    Args:
        lines: of the file; those of earlier versions name only the crop.
        photos: the lines of the `photos.jsonl` that was written with them.
    """
    known = {row["crop"]: row["sha256"] for row in photos if row.get("crop") and row.get("sha256")}
    rows = [line for line in lines if isinstance(line, dict)]
    return [{**row, "photo": row.get("photo") or known.get(str(row.get("crop")))} for row in rows]


def assigned(rows: Sequence[Row], crops: Mapping[str, Origin]) -> tuple[dict[str, Row], list[Row]]:
    """Which edited line belongs to which crop.

    Args:
        rows: edited lines; of several of one photo the first is taken.
        crops: file name → where the crop comes from.

    Returns:
        Crop's name → its line, and the lines whose photo is not among them. The same pixels in another file are the
        same photo if no line names that file.
    """
    found: dict[str, Row] = {}
    left = list(rows)
    for key, digests in (
        ("photo", {name: origin.photo for name, origin in crops.items()}),
        ("sha256", {name: origin.crop for name, origin in crops.items()}),
    ):
        for name, digest in digests.items():
            fitting = next((row for row in left if name not in found and row.get(key) == digest), None)
            if fitting is not None:
                found[name] = fitting
                left.remove(fitting)
    return found, left


def with_aside(rows: Sequence[Row], aside: Sequence[Row]) -> list[Row]:
    """Edited lines in use and those set aside; one that a crash left in both places counts once."""
    there = [_what(row) for row in rows]
    return [*rows, *(row for row in aside if _what(row) not in there)]


def _what(row: Row) -> tuple[Any, Any]:
    return row.get("photo") or row.get("sha256"), row["caption"]


def told(lost: Sequence[Row], photos: Sequence[Row], path: Path) -> str:
    """What is said of edited captions whose photo is no longer used.

    Args:
        lost: their lines.
        photos: the lines of the `photos.jsonl` in which their photos were used.
        path: the file that keeps them.
    """
    files = {row.get("sha256"): row.get("file") for row in photos}
    named = ", ".join(str(files.get(row.get("photo")) or row.get("crop")) for row in lost)
    what = "The edited caption of a photo" if len(lost) == 1 else f"The edited captions of {len(lost)} photos"
    verb = "is" if len(lost) == 1 else "are"
    return f"{what} that {verb} not used any more ({named}) {verb} kept in {path} until the same photo is used again."
