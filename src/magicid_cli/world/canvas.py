"""Shapes in a unit square, drawn larger than wanted and shrunk by area: that is the anti-aliasing."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

_BITS = 5  # fractional bits of a coordinate given to OpenCV
_ONE = 1 << _BITS

Point = tuple[float, float]
Colour = tuple[int, int, int]


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (`factor` below 1) or lighter."""
    red, green, blue = (max(0, min(255, round(part * factor))) for part in colour)
    return red, green, blue


class Canvas:
    """A square picture whose sides are 1.

    Args:
        pixels: its side in pixels while drawing.
        picture: uint8 `(pixels, pixels, 3)` to begin from; it is copied.
    """

    def __init__(self, pixels: int, picture: np.ndarray | None = None) -> None:
        self.pixels = pixels
        self.picture = np.zeros((pixels, pixels, 3), np.uint8) if picture is None else picture.copy()

    def polygon(self, points: Iterable[Point] | np.ndarray, colour: Colour) -> None:
        """A filled outline."""
        corners = np.round(np.asarray(list(points), np.float64) * self.pixels * _ONE).astype(np.int32)
        cv2.fillPoly(self.picture, [corners], colour, cv2.LINE_AA, _BITS)

    def ellipse(self, centre: Point, axes: Point, colour: Colour, *, tilt: float = 0.0) -> None:
        """A filled ellipse; `axes` are half its width and height, `tilt` is in degrees, clockwise."""
        cv2.ellipse(self.picture, self._fixed(centre), self._fixed(axes), tilt, 0, 360, colour, -1, cv2.LINE_AA, _BITS)

    def arc(self, centre: Point, axes: Point, span: tuple[float, float], colour: Colour, width: float) -> None:
        """A part of an ellipse's outline, `span` in degrees clockwise from the right."""
        start, end = span
        cv2.ellipse(
            self.picture,
            self._fixed(centre),
            self._fixed(axes),
            0,
            start,
            end,
            colour,
            self._width(width),
            cv2.LINE_AA,
            _BITS,
        )

    def stroke(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """A line through points, its ends round."""
        corners = np.round(np.asarray(points, np.float64) * self.pixels * _ONE).astype(np.int32)
        cv2.polylines(self.picture, [corners], False, colour, self._width(width), cv2.LINE_AA, _BITS)

    def box(self, corner: Point, size: Point, colour: Colour) -> None:
        """A filled rectangle."""
        (x, y), (width, height) = corner, size
        self.polygon([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], colour)

    def gradient(self, top: Colour, bottom: Colour, span: tuple[float, float] = (0.0, 1.0)) -> None:
        """Rows from `top` to `bottom` between two heights."""
        first, last = (round(edge * self.pixels) for edge in span)
        share = np.linspace(0, 1, max(1, last - first))[:, None]
        rows = np.array(top) * (1 - share) + np.array(bottom) * share
        self.picture[first:last] = rows[:, None].round().astype(np.uint8)

    def shrunk(self, size: int) -> np.ndarray:
        """The picture at `size` pixels, uint8 `(size, size, 3)`."""
        if size == self.pixels:
            return self.picture.copy()
        return cv2.resize(self.picture, (size, size), interpolation=cv2.INTER_AREA)

    def _fixed(self, point: Point) -> tuple[int, int]:
        x, y = point
        return round(x * self.pixels * _ONE), round(y * self.pixels * _ONE)

    def _width(self, width: float) -> int:
        return max(1, round(width * self.pixels))
