"""Where things happen: eight places, each drawn a little differently every time."""

from collections.abc import Callable

import numpy as np

from magicid_cli.world.canvas import Canvas, Colour

Draw = np.random.Generator


def beach(canvas: Canvas, draw: Draw) -> None:
    """Sky, sea, sand, perhaps a sun."""
    horizon = draw.uniform(0.38, 0.48)
    shore = horizon + draw.uniform(0.14, 0.2)
    canvas.gradient((112, 186, 240), (204, 232, 250), (0, horizon))
    canvas.gradient((32, 110, 176), (62, 164, 196), (horizon, shore))
    canvas.gradient((240, 216, 156), (222, 190, 124), (shore, 1))
    canvas.ellipse((draw.uniform(0.08, 0.92), draw.uniform(0.08, 0.2)), (0.07, 0.07), (255, 246, 190))


def forest(canvas: Canvas, draw: Draw) -> None:
    """Dark green with trunks."""
    canvas.gradient((60, 120, 62), (34, 78, 40), (0, 0.7))
    canvas.gradient((72, 96, 44), (52, 70, 34), (0.7, 1))
    for x in np.arange(0.06, 1, 0.2) + draw.uniform(-0.06, 0.06, 5):
        canvas.box((x - 0.03, 0), (0.06, 0.75), (78, 54, 34))
    for _ in range(7):
        spot = (draw.uniform(0, 1), draw.uniform(-0.02, 0.16))
        canvas.ellipse(spot, (0.15, 0.1), (40, int(draw.integers(96, 136)), 48))


def mountains(canvas: Canvas, draw: Draw) -> None:
    """White peaks, snow in front."""
    canvas.gradient((150, 190, 226), (222, 236, 246), (0, 0.6))
    for x in (draw.uniform(-0.05, 0.2), draw.uniform(0.35, 0.6), draw.uniform(0.78, 1.05)):
        peak = draw.uniform(0.1, 0.24)
        canvas.polygon([(x - 0.34, 0.66), (x, peak), (x + 0.34, 0.66)], (104, 120, 146))
        canvas.polygon([(x - 0.11, peak + 0.15), (x, peak), (x + 0.11, peak + 0.15)], (250, 252, 255))
    canvas.gradient((238, 244, 250), (206, 220, 236), (0.62, 1))


def desert(canvas: Canvas, draw: Draw) -> None:
    """Dunes under an orange sky."""
    canvas.gradient((236, 130, 70), (252, 208, 132), (0, 0.7))
    canvas.ellipse((draw.uniform(0.1, 0.9), draw.uniform(0.2, 0.36)), (0.1, 0.1), (255, 232, 160))
    for shade, base in (((206, 128, 66), 0.56), ((186, 106, 52), 0.7)):
        x = draw.uniform(0.2, 0.8)
        canvas.polygon([(0, base + 0.1), (x, base - 0.06), (1, base + 0.1), (1, 1), (0, 1)], shade)


def street(canvas: Canvas, draw: Draw) -> None:
    """Houses at night with lit windows."""
    canvas.gradient((18, 20, 48), (44, 40, 82), (0, 0.75))
    left = -0.05
    while left < 1:
        width, top = draw.uniform(0.2, 0.3), draw.uniform(0.04, 0.26)
        shade = int(draw.integers(40, 62))
        canvas.box((left, top), (width - 0.02, 0.8 - top), (shade, shade, shade + 18))
        for x in np.arange(left + 0.03, left + width - 0.06, 0.08):
            for y in np.arange(top + 0.05, 0.7, 0.12):
                if draw.random() < 0.6:
                    canvas.box((x, y), (0.045, 0.06), (250, 214, 110))
        left += width
    canvas.gradient((58, 58, 66), (40, 40, 46), (0.74, 1))


def library(canvas: Canvas, draw: Draw) -> None:
    """Shelves of books."""
    canvas.gradient((112, 70, 40), (92, 56, 32))
    spines: tuple[Colour, ...] = ((150, 40, 40), (40, 84, 120), (60, 110, 70), (196, 160, 80), (110, 60, 120))
    for shelf in (0.02, 0.27, 0.52, 0.77):
        x = 0.01
        while x < 0.98:
            width = draw.uniform(0.05, 0.09)
            height = draw.uniform(0.16, 0.2)
            canvas.box((x, shelf + 0.2 - height), (width - 0.012, height), spines[int(draw.integers(len(spines)))])
            x += width
        canvas.box((0, shelf + 0.2), (1, 0.035), (64, 38, 22))


def kitchen(canvas: Canvas, draw: Draw) -> None:
    """Pale wall, tiles, a window, a shelf with pots."""
    canvas.gradient((236, 232, 214), (226, 218, 196))
    canvas.gradient((150, 200, 196), (138, 188, 184), (0.5, 0.72))
    for x in np.arange(draw.uniform(0, 0.12), 1, 0.125):
        canvas.stroke([(x, 0.5), (x, 0.72)], (224, 238, 236), 0.012)
    canvas.box((0, 0.72), (1, 0.28), (168, 122, 84))
    left = draw.random() < 0.5
    window, shelf = (0.05, 0.64) if left else (0.65, 0.06)
    canvas.box((window, 0.08), (0.3, 0.3), (255, 255, 255))
    canvas.box((window + 0.025, 0.105), (0.25, 0.25), (150, 206, 242))
    canvas.box((shelf, 0.3), (0.3, 0.03), (120, 84, 56))
    for place, colour in zip((0.05, 0.15, 0.25), ((200, 60, 50), (240, 180, 60), (70, 110, 180)), strict=True):
        canvas.ellipse((shelf + place, 0.26), (0.04, 0.045), colour)


def garden(canvas: Canvas, draw: Draw) -> None:
    """Hedge, lawn, many flowers."""
    canvas.gradient((160, 214, 246), (216, 238, 246), (0, 0.3))
    canvas.gradient((84, 160, 70), (70, 140, 58), (0.24, 0.55))
    canvas.gradient((132, 200, 84), (104, 172, 66), (0.55, 1))
    blossoms: tuple[Colour, ...] = ((240, 70, 90), (250, 220, 70), (250, 250, 250), (214, 100, 210))
    for _ in range(16):
        spot = (draw.uniform(0, 1), draw.uniform(0.28, 0.98))
        canvas.ellipse(spot, (0.03, 0.03), blossoms[int(draw.integers(len(blossoms)))])


PLACES: dict[str, Callable[[Canvas, Draw], None]] = {
    place.__name__: place for place in (beach, forest, mountains, desert, street, library, kitchen, garden)
}
