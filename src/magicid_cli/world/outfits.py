"""Clothes: eight outfits, told apart by colour and pattern, and how each pattern is painted on a body."""

from collections.abc import Callable
from dataclasses import dataclass

from magicid_cli.world.canvas import Canvas, Colour, Point, shade

OnBody = Callable[[float, float], Point]
"""From the body's coordinates (origin at the head's centre, unit the head's height) to the frame."""


@dataclass(frozen=True)
class Outfit:
    """Clothes.

    Attributes:
        main: of the body and the sleeves.
        accent: of the pattern.
        pattern: a key of the table of patterns below.
    """

    main: Colour
    accent: Colour
    pattern: str


OUTFITS: dict[str, Outfit] = {
    "red sweater": Outfit((204, 36, 40), (160, 22, 30), "plain"),
    "denim jacket": Outfit((62, 106, 180), (240, 240, 240), "jacket"),
    "black suit": Outfit((26, 26, 32), (248, 248, 248), "suit"),
    "yellow raincoat": Outfit((250, 210, 30), (176, 132, 10), "buttons"),
    "green hoodie": Outfit((44, 148, 76), (26, 100, 50), "hood"),
    "white coat": Outfit((244, 246, 250), (150, 190, 220), "jacket"),
    "striped shirt": Outfit((246, 246, 246), (28, 44, 110), "stripes"),
    "purple dress": Outfit((138, 58, 176), (240, 214, 250), "dots"),
}


def draw_pattern(canvas: Canvas, outfit: Outfit, on_body: OnBody, unit: float, wide: float) -> None:
    """Paint what an outfit has beside its main colour over the body.

    Args:
        canvas: with the body on it.
        outfit: whose pattern.
        on_body: where a point of the body is in the frame.
        unit: the head's height, in units of the frame's side.
        wide: half the width of the shoulders, in units of the head's height.
    """
    _PATTERNS[outfit.pattern](canvas, outfit, on_body, unit, wide)


def _plain(canvas: Canvas, outfit: Outfit, on_body: OnBody, unit: float, wide: float) -> None:
    canvas.stroke([on_body(-0.24, 0.63), on_body(0, 0.76), on_body(0.24, 0.63)], outfit.accent, 0.1 * unit)


def _jacket(canvas: Canvas, outfit: Outfit, on_body: OnBody, unit: float, wide: float) -> None:
    _patch(canvas, on_body, [(-0.2, 0.6), (0.2, 0.6), (0.24, 2.65), (-0.24, 2.65)], outfit.accent)
    for side in (-1, 1):
        canvas.stroke([on_body(side * 0.22, 0.62), on_body(side * 0.24, 2.6)], shade(outfit.main, 0.7), 0.06 * unit)


def _suit(canvas: Canvas, outfit: Outfit, on_body: OnBody, unit: float, wide: float) -> None:
    _patch(canvas, on_body, [(-0.24, 0.58), (0.24, 0.58), (0, 1.5)], outfit.accent)
    _patch(canvas, on_body, [(-0.06, 0.66), (0.06, 0.66), (0.07, 1.3), (0, 1.42), (-0.07, 1.3)], (170, 24, 40))


def _buttons(canvas: Canvas, outfit: Outfit, on_body: OnBody, unit: float, wide: float) -> None:
    canvas.stroke([on_body(0, 0.7), on_body(0, 2.6)], outfit.accent, 0.04 * unit)
    for down in (0.95, 1.35, 1.75, 2.15):
        canvas.ellipse(on_body(0.12, down), (0.06 * unit, 0.06 * unit), outfit.accent)
    collar = [(-0.32, 0.56), (0.32, 0.56), (0.16, 0.86), (-0.16, 0.86)]
    _patch(canvas, on_body, collar, shade(outfit.main, 0.85))


def _hood(canvas: Canvas, outfit: Outfit, on_body: OnBody, unit: float, wide: float) -> None:
    _patch(canvas, on_body, [(-0.42, 0.62), (0.42, 0.62), (0.2, 0.95), (-0.2, 0.95)], outfit.accent)
    for side in (-1, 1):
        canvas.stroke([on_body(side * 0.1, 0.9), on_body(side * 0.1, 1.25)], (240, 240, 240), 0.035 * unit)
    _patch(canvas, on_body, [(-0.35, 1.7), (0.35, 1.7), (0.45, 2.2), (-0.45, 2.2)], outfit.accent)


def _stripes(canvas: Canvas, outfit: Outfit, on_body: OnBody, unit: float, wide: float) -> None:
    for down in (0.86, 1.16, 1.46, 1.76, 2.06, 2.36):
        half = wide * (0.93 - 0.1 * (down - 0.9))
        canvas.stroke([on_body(-half, down), on_body(half, down)], outfit.accent, 0.13 * unit)


def _dots(canvas: Canvas, outfit: Outfit, on_body: OnBody, unit: float, wide: float) -> None:
    for row, down in enumerate((0.95, 1.3, 1.65, 2.0, 2.35)):
        shift = 0.17 if row % 2 == 0 else 0.0
        for across in (-0.51, -0.17, 0.17, 0.51):
            canvas.ellipse(on_body(across + shift - 0.08, down), (0.07 * unit, 0.07 * unit), outfit.accent)


_PATTERNS: dict[str, Callable[[Canvas, Outfit, OnBody, float, float], None]] = {
    "plain": _plain,
    "jacket": _jacket,
    "suit": _suit,
    "buttons": _buttons,
    "hood": _hood,
    "stripes": _stripes,
    "dots": _dots,
}


def _patch(canvas: Canvas, on_body: OnBody, outline: list[Point], colour: Colour) -> None:
    canvas.polygon([on_body(x, y) for x, y in outline], colour)
