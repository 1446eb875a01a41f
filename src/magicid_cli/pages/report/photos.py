"""The photos: each crop with its verdict and what its owner can do."""

from dataclasses import dataclass
from typing import Any

from magicid_cli.pages import previews
from magicid_cli.workspace import Workspace, read_lines

_SPARE = ("over-limit", "near-duplicate")
_HEIGHT = 200


@dataclass(frozen=True)
class Shown:
    """A photo in the report.

    Attributes:
        file: its name; empty where photos are not to be shown.
        verdict: in a word.
        kind: `good`, `spare` or `bad`.
        reason: the verdict as a sentence.
        advice: what its owner can do.
        remarks: what could be better about it.
        picture: the crop as a `data:` address; empty without one.
        caption: what it was trained with; empty without one.
    """

    file: str
    verdict: str
    kind: str
    reason: str
    advice: str
    remarks: tuple[str, ...]
    picture: str
    caption: str


def section(workspace: Workspace, *, photos: bool) -> dict[str, Any]:
    """What became of each photo.

    Args:
        workspace: of the identity.
        photos: whether pictures, file names and captions may be shown.
    """
    rows = read_lines(workspace.references / "photos.jsonl")
    captions = {row["crop"]: row.get("caption", "") for row in read_lines(workspace.references / "captions.jsonl")}
    shown = [_shown(workspace, row, captions, photos=photos) for row in rows]
    counts: dict[str, int] = {}
    for one in shown:
        counts[one.verdict] = counts.get(one.verdict, 0) + 1
    return {"all": shown, "counts": counts, "used": counts.get("used", 0)}


def _shown(workspace: Workspace, row: dict[str, Any], captions: dict[str, str], *, photos: bool) -> Shown:
    verdict = row.get("verdict", "")
    crop = row.get("crop") if photos else None
    # Reasons and advice name other photos, too.
    return Shown(
        file=row.get("file", "") if photos else "",
        verdict=verdict,
        kind="good" if verdict == "used" else "spare" if verdict in _SPARE else "bad",
        reason=row.get("reason", "") if photos else "",
        advice=row.get("advice", ""),
        remarks=tuple(row.get("remarks", ())),
        picture=_picture(workspace, crop) if crop else "",
        caption=captions.get(crop, "") if crop else "",
    )


def _picture(workspace: Workspace, crop: str) -> str:
    """The crop, small; empty if the file is gone or damaged."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(workspace.references / crop) as picture:
            rgb = np.asarray(picture.convert("RGB"))
    except OSError:
        return ""
    return previews.data_uri(previews.picture(rgb, _HEIGHT), "image/webp")
