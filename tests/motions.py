"""Constructed motion: pictures that are moved by known maps, a person before a background, and what a flow would be.

Everything is in working pixels: the shorter side of a frame has 256 of them, (0, 0) is the frame's centre, and a
picture has four pixels of its own for each. A frame is drawn at three times its size and shrunk by area, so that a
motion by a part of a pixel looks as a camera would show it.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

SHORT = 256
_FINER = 4
_DRAWN = 3


@dataclass(frozen=True, eq=False)
class Affine:
    """A point p goes to `matrix @ p + shift`."""

    matrix: np.ndarray
    shift: np.ndarray

    def then_by(self, x: float, y: float) -> "Affine":
        return Affine(self.matrix, self.shift + (x, y))

    def field(self, height: int, width: int) -> np.ndarray:
        """The flow `(H, W, 2)` that it is."""
        y, x = np.mgrid[:height, :width] + 0.5
        points = np.stack([x - width / 2, y - height / 2], axis=-1)
        return np.asarray(points @ self.matrix.T + self.shift - points)


STILL = Affine(np.eye(2), np.zeros(2))


def by(kind: str, pixels: float, *, width: int, direction: float = 0.4) -> Affine:
    """A shift, rotation or zoom that moves the corners, or all, by so many pixels; `direction` also gives its sign."""
    if kind == "shift":
        return STILL.then_by(pixels * math.cos(direction), pixels * math.sin(direction))
    part = math.copysign(pixels / (math.hypot(width, SHORT) / 2), math.cos(direction))
    if kind == "zoom":
        return Affine(np.eye(2) * (1 + part), np.zeros(2))
    cos, sin = math.cos(part), math.sin(part)
    return Affine(np.array([[cos, -sin], [sin, cos]]), np.zeros(2))


def octaves(seed: int = 0, side: int = 2048, count: int = 7) -> np.ndarray:
    """A picture with detail at every scale, as nature has it: each octave has 0.6 of the contrast of the one before."""
    random = np.random.default_rng(seed)
    total = np.zeros((side, side, 3), np.float32)
    for octave in range(count):
        coarse = random.standard_normal((4 * 2**octave, 4 * 2**octave, 3)).astype(np.float32)
        total += 0.6**octave * cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 50 * total / total.std(), 0, 255).astype(np.uint8)


def enlarged(picture: np.ndarray, side: int = 2048) -> np.ndarray:
    """A square picture with four pixels for each working pixel of a frame twice as wide as high."""
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC)


def frame(picture: np.ndarray, moved: Affine, *, width: int, lines: int = SHORT, drawn: int = _DRAWN) -> np.ndarray:
    """What a camera sees of a picture that has moved; uint8 `(lines, width * lines / 256, C)`."""
    scale = SHORT / lines / drawn
    columns, rows = round(width / scale), round(SHORT / scale)
    # From the pixel that is drawn to the picture's: to working pixels, back by the motion, and into the picture.
    back = np.linalg.inv(moved.matrix)
    corner = np.array([scale / 2 - width / 2, scale / 2 - SHORT / 2]) - moved.shift
    map_ = np.column_stack([back * scale * _FINER, back @ corner * _FINER + picture.shape[0] / 2 - 0.5])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    large = cv2.warpAffine(picture, map_, (columns, rows), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return cv2.resize(large, (columns // drawn, rows // drawn), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True, eq=False)
class Cutout:
    """Somebody before a background: two pictures of one size, and where in the first one the person is, 0 to 255."""

    person: np.ndarray
    shape: np.ndarray
    background: np.ndarray

    def frame(
        self, camera: Affine, person: Affine, *, width: int, lines: int = SHORT, drawn: int = _DRAWN
    ) -> np.ndarray:
        """A frame; both maps are from the first frame, so a person who goes along with the camera has its map."""
        looks = {"width": width, "lines": lines, "drawn": drawn}
        there = self.covered(person, **looks)[..., None]
        mixed = frame(self.background, camera, **looks) * (1 - there) + frame(self.person, person, **looks) * there
        return np.rint(mixed).astype(np.uint8)

    def covered(self, person: Affine, *, width: int, lines: int = SHORT, drawn: int = _DRAWN) -> np.ndarray:
        """How much of each pixel the person covers, 0 to 1."""
        return frame(self.shape, person, width=width, lines=lines, drawn=drawn) / np.float32(255)

    def field(self, camera: Affine, person: Affine, *, width: int) -> np.ndarray:
        """The flow from the frame where nothing has moved."""
        covered = self.covered(STILL, width=width)[..., None] > 0.5
        return np.where(covered, person.field(SHORT, width), camera.field(SHORT, width))


def bust(side: int = 2048) -> np.ndarray:
    """Head and shoulders in the middle, 255 inside and soft at the edge: half of a frame of 16:9."""
    shape = np.zeros((side, side), np.uint8)
    unit = side / 512
    cv2.ellipse(shape, (round(256 * unit), round(232 * unit)), (round(36 * unit), round(46 * unit)), 0, 0, 360, 255, -1)
    body = np.array([[182, 512], [186, 320], [222, 284], [290, 284], [326, 320], [330, 512]])
    cv2.fillPoly(shape, [np.rint(body * unit).astype(np.int32)], 255)
    return cv2.GaussianBlur(shape, (0, 0), 3)
