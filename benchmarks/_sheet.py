"""Contact sheets: rows of frames with a line of text above each, as one picture that a person can look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP = 3  # pixels between frames
_BETWEEN = 16  # pixels between groups of frames
_LINE = 20  # pixels of a line of text
_PAPER, _INK = (250, 250, 248), (24, 24, 28)


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a sheet.

    Attributes:
        label: the text above it.
        groups: groups of frames, uint8 RGB `(F, S, S, 3)` each, shown from left to right.
        over: a larger line above it and the rows below.
    """

    label: str
    groups: Sequence[np.ndarray]
    over: str = ""


def write(path: Path, rows: Sequence[Row], *, side: int, title: str = "", headings: Sequence[str] = ()) -> Path:
    """Draw a sheet and write it as a PNG.

    Args:
        path: the file; folders above it are made.
        rows: from top to bottom, with as many groups and frames as the first one or fewer.
        side: of a shown frame in pixels; frames are scaled smoothly.
        title: the first line.
        headings: what stands above each group, once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn(rows, side=side, title=title, headings=headings)).save(path, "PNG", optimize=True)
    return path


def drawn(rows: Sequence[Row], *, side: int, title: str = "", headings: Sequence[str] = ()) -> np.ndarray:
    """The sheet as uint8 RGB `(H, W, 3)`; see `write`."""
    lefts = _lefts(rows[0].groups, side)
    head = _LINE * (bool(title) + bool(headings) + sum(bool(row.over) for row in rows))
    height = _BETWEEN // 2 + head + len(rows) * (_LINE + side + _GAP) + _BETWEEN // 2
    page = Image.new("RGB", (lefts[-1], height), _PAPER)
    draw, font, large = ImageDraw.Draw(page), ImageFont.load_default(13), ImageFont.load_default(15)
    y = _BETWEEN // 2
    if title:
        draw.text((_BETWEEN // 2, y), title, _INK, large)
        y += _LINE
    if headings:
        for left, heading in zip(lefts, headings, strict=False):
            draw.text((left, y), heading, _INK, font)
        y += _LINE
    for row in rows:
        if row.over:
            draw.text((_BETWEEN // 2, y), row.over, _INK, large)
            y += _LINE
        draw.text((_BETWEEN // 2, y + 2), row.label, _INK, font)
        y += _LINE
        for left, group in zip(lefts, row.groups, strict=False):
            for number, frame in enumerate(group):
                picture = Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC)
                page.paste(picture, (left + number * (side + _GAP), y))
        y += side + _GAP
    return np.asarray(page)


def _lefts(groups: Sequence[np.ndarray], side: int) -> list[int]:
    """Where each group begins, and the width of the page."""
    lefts = [_BETWEEN // 2]
    for group in groups:
        lefts.append(lefts[-1] + len(group) * (side + _GAP) - _GAP + _BETWEEN)
    lefts[-1] -= _BETWEEN // 2
    return lefts
