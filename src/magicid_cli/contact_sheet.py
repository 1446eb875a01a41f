"""One PNG that shows what became of each photo: its crop with the face's box, its verdict and what was measured."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import combining, normalize

from magicid_cli.framing import frame, head_and_shoulders
from magicid_cli.photos import SHEET_TITLE
from magicid_cli.workspace import atomic_path

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

MOST = 200
"""Photos on one sheet; what is said about more of them stands in the table."""

GOOD, SPARE, BAD = (24, 128, 56), (176, 112, 0), (192, 38, 30)
"""Colours of a photo that is used, of one that is good but not needed, and of one that cannot be used."""

_PAPER, _INK, _FAINT, _EMPTY = (255, 255, 255), (28, 28, 30), (110, 110, 116), (232, 232, 236)
_GAP, _LINE = 16, 18
_PICTURE = 200  # height of a crop
_NARROWEST, _WIDEST = 216, 340
_LINES = 6  # of small text below a crop, at most
_COLUMNS = 5
_LONGEST = 400  # characters of a text, more than the lines below a crop can hold


@dataclass(frozen=True, eq=False)
class Shown:
    """What the sheet shows of a photo.

    Attributes:
        picture: its crop, or the whole photo where no face was found; small.
        box: the face in the crop: left, top, right, bottom in pixels; None if there is none.
    """

    picture: "Image"
    box: tuple[float, float, float, float] | None


@dataclass(frozen=True)
class Tile:
    """One photo on the sheet.

    Attributes:
        title: its number and name.
        verdict: in a word.
        colour: of the verdict and of the face's box.
        lines: what to say about it.
        shown: the photo; None if it could not be read.
    """

    title: str
    verdict: str
    colour: tuple[int, int, int]
    lines: tuple[str, ...]
    shown: Shown | None


def shown(rgb: "np.ndarray", box: tuple[float, float, float, float] | None, aspect: float) -> Shown:
    """Make a photo small for the sheet, so that it need not be decoded again.

    Args:
        rgb: uint8 `(H, W, 3)`.
        box: the face: x, y, width, height in pixels; None if there is none.
        aspect: width / height of a crop that is used for training.
    """
    from PIL import Image

    width = _width(aspect)
    if box is None:
        whole = Image.fromarray(rgb)
        whole.thumbnail((width, _PICTURE))
        return Shown(whole, None)
    size = _fitting(width, aspect)
    left, top, seen, _ = frame(rgb.shape[1], rgb.shape[0], box, size[0] / size[1])
    scale = size[0] / seen
    x, y, across, down = box
    marked = (x - left) * scale, (y - top) * scale, (x - left + across) * scale, (y - top + down) * scale
    return Shown(Image.fromarray(head_and_shoulders(rgb, box, *size)), marked)


def write(path: Path, tiles: Sequence[Tile], heading: Sequence[str], aspect: float) -> None:
    """Draw the sheet, readable by its owner only, in place of what is there.

    Args:
        path: of the PNG.
        tiles: the photos; at most `MOST` are drawn, and the heading says so.
        heading: the lines above them, the first one large.
        aspect: width / height of a crop that is used for training.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    lines = list(heading)
    if len(tiles) > MOST:
        lines.append(f"The first {MOST} of {len(tiles)} photos.")
        tiles = tiles[:MOST]
    width = _width(aspect)
    columns = min(_COLUMNS, max(3, len(tiles)))
    across = _GAP + columns * (width + _GAP)
    pens = _Pens()
    below = [pens.few(tile.lines, width) for tile in tiles]
    height = _PICTURE + (2 + max(map(len, below))) * _LINE + 2 * _GAP
    above = [part for line in lines[1:] for part in pens.wrapped(line, across - 2 * _GAP)]
    top = 2 * _GAP + 28 + _LINE * len(above) + _GAP
    sheet = Image.new("RGB", (across, top + -(-len(tiles) // columns) * height), _PAPER)
    pens.heading(sheet, lines[0], above)
    for number, tile in enumerate(tiles):
        corner = _GAP + number % columns * (width + _GAP), top + number // columns * height
        sheet.paste(_picture(tile, width), corner)
        pens.caption(sheet, tile, below[number], corner, width)
    about = PngInfo()
    about.add_text("Title", SHEET_TITLE)
    about.add_text("Software", "magicid")
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG", pnginfo=about)


def _width(aspect: float) -> int:
    """Of a place on the sheet."""
    return min(max(round(_PICTURE * aspect), _NARROWEST), _WIDEST)


def _picture(tile: Tile, width: int) -> "Image":
    """What is shown of a photo on an empty ground, with the box in the verdict's colour."""
    from PIL import Image

    ground = Image.new("RGB", (width, _PICTURE), _EMPTY)
    if tile.shown is None:
        return ground
    picture = tile.shown.picture.copy()
    if tile.shown.box is not None:
        _draw(picture).rectangle(tile.shown.box, outline=tile.colour, width=2)
    ground.paste(picture, ((width - picture.width) // 2, (_PICTURE - picture.height) // 2))
    return ground


def _fitting(width: int, aspect: float) -> tuple[int, int]:
    """The largest picture of this aspect in `width` × `_PICTURE`."""
    height = min(float(_PICTURE), width / aspect)
    return max(1, round(height * aspect)), max(1, round(height))


class _Pens:
    """Fonts, and what is written with them."""

    def __init__(self) -> None:
        from PIL import ImageFont

        self.large = ImageFont.load_default(22)
        self.bold, self.small = ImageFont.load_default(15), ImageFont.load_default(13)
        self._nothing = bytes(self.small.getmask("\uffff"))
        self._letters: dict[str, str] = {}

    def heading(self, sheet: "Image", title: str, lines: list[str]) -> None:
        draw = _draw(sheet)
        draw.text((_GAP, _GAP), self.written(title), _INK, self.large)
        for number, line in enumerate(lines):
            draw.text((_GAP, 2 * _GAP + 28 + number * _LINE), line, _INK, self.small)

    def few(self, lines: Sequence[str], width: int) -> list[str]:
        """The lines, wrapped, and cut after `_LINES`."""
        wrapped = [part for line in lines for part in self.wrapped(line, width)]
        if len(wrapped) <= _LINES:
            return wrapped
        return [*wrapped[: _LINES - 1], _shortened(" ".join(wrapped[_LINES - 1 :]), self.small, width)]

    def caption(self, sheet: "Image", tile: Tile, lines: list[str], corner: tuple[int, int], width: int) -> None:
        draw = _draw(sheet)
        x, y = corner[0], corner[1] + _PICTURE + 6
        draw.text((x, y), _shortened(self.written(tile.title), self.bold, width), _INK, self.bold)
        draw.text((x, y + _LINE), tile.verdict, tile.colour, self.bold)
        for number, line in enumerate(lines, 2):
            draw.text((x, y + number * _LINE), line, _FAINT, self.small)

    def written(self, text: str) -> str:
        """The text as this font can show it: a file's name may hold anything, and the font has few letters."""
        letters = self._letters
        for char in set(text := normalize("NFC", text[:_LONGEST])) - set(letters):
            letters[char] = self._letter(char)
        return "".join(letters[char] for char in text)

    def _letter(self, char: str) -> str:
        """The letter, or without its accents, or a question mark."""
        plain = "".join(part for part in normalize("NFKD", char) if not combining(part))
        known = (one for one in (char, plain) if one and one.isprintable() and all(map(self._known, one)))
        return next(known, "?")

    def _known(self, char: str) -> bool:
        return char == " " or bytes(self.small.getmask(char)) != self._nothing

    def wrapped(self, text: str, width: int) -> list[str]:
        """The text in lines of at most `width` pixels."""
        lines = [""]
        for word in self.written(text).split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.small.getlength(longer) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        return [_shortened(line, self.small, width) for line in lines]


def _draw(sheet: "Image") -> "ImageDraw":
    from PIL import ImageDraw

    return ImageDraw.Draw(sheet)


def _shortened(text: str, font: "FreeTypeFont | ImageFont", width: int) -> str:
    """The text with its middle left out, if it is wider than `width` pixels; names differ at both ends."""
    if font.getlength(text) <= width:
        return text
    keep = bisect_right(range(len(text)), float(width), key=lambda count: float(font.getlength(_ends(text, count)))) - 1
    return _ends(text, max(2, keep))


def _ends(text: str, keep: int) -> str:
    return f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"
