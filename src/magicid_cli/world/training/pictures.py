"""Pictures and clips to train the judges on: drawn on the fly, the same ones for the same numbers.

Everything that is drawn here shows people of `TRAINING` in scenes from `SCENES` on; the others are for measuring.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from magicid_cli.alignment import square
from magicid_cli.world import clips
from magicid_cli.world.canvas import Canvas
from magicid_cli.world.people import HELD_OUT as HELD_OUT
from magicid_cli.world.people import TRAINED
from magicid_cli.world.places import PLACES

TRAINING = TRAINED
SCENES = 10_000_000
"""Scenes from this seed on are for training, those below it for measuring."""

LARGE = 192
"""Side in pixels of the largest pictures; a larger photo looks the same to networks that see 64 or fewer."""

Draw = np.random.Generator
Codec = Callable[[np.ndarray], np.ndarray]
"""What a VAE makes of clips: uint8 RGB `(N, 9, 48, 48, 3)` → the same shape."""


@dataclass(frozen=True, eq=False)
class Shot:
    """A picture of one person.

    Attributes:
        picture: uint8 RGB `(S, S, 3)`.
        landmarks: (5, 2) x, y in units of its side.
        box: the face's x, y, width, height in the same units.
    """

    picture: np.ndarray
    landmarks: np.ndarray
    box: tuple[float, float, float, float]


def generator(*numbers: int) -> Draw:
    """Random numbers that depend on these numbers only."""
    return np.random.Generator(np.random.PCG64([29, *numbers]))


def some_scene(draw: Draw, people: range, first: int) -> clips.Scene:
    """A random scene whose seed is one of the ten million from `first` on."""
    return clips.scene(first + int(draw.integers(10_000_000)), people=people)


def any_size(draw: Draw) -> int:
    """The side of a photo, in pixels."""
    return int(draw.integers(40, LARGE + 1))


def shot(draw: Draw, people: range, *, size: int = clips.SIZE, first: int = SCENES) -> Shot:
    """A random moment of a random scene.

    Args:
        draw: decides.
        people: who may appear.
        size: side of the picture in pixels.
        first: see `some_scene`.
    """
    moment = draw.uniform(0.05, (clips.FRAMES - 1) / clips.FPS)
    drawn = clips.render(some_scene(draw, people, first), size=size, frames=2, fps=1 / moment)
    return Shot(drawn.frames[1], drawn.faces[1].landmarks, drawn.faces[1].box)


def shots(drawn: clips.Drawn) -> list[Shot]:
    """The frames of a clip."""
    return [Shot(frame, face.landmarks, face.box) for frame, face in zip(drawn.frames, drawn.faces, strict=True)]


def resized(picture: np.ndarray, side: int) -> np.ndarray:
    """A square picture at another size, as a photo or a video would be made smaller or larger."""
    if picture.shape[0] == side:
        return picture
    smaller = side < picture.shape[0]
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR))


def mirrored(what: Shot) -> Shot:
    """Left and right exchanged, also in the order of the landmarks."""
    landmarks = what.landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (1, 0)
    x, y, width, height = what.box
    return Shot(np.ascontiguousarray(what.picture[:, ::-1]), landmarks, (1 - x - width, y, width, height))


def cropped(what: Shot, corner: tuple[float, float], side: float, pixels: int) -> Shot:
    """A square part of a picture, black where it reaches outside.

    Args:
        what: the picture.
        corner: the part's upper left corner, in units of the picture's side.
        side: of the part, in the same units.
        pixels: of the result.
    """
    size = what.picture.shape[0]
    picture = square(what.picture, size * np.array(corner), size * side, pixels)
    x, y, width, height = what.box
    landmarks = (what.landmarks - corner) / side
    return Shot(picture, landmarks, ((x - corner[0]) / side, (y - corner[1]) / side, width / side, height / side))


def degraded(draw: Draw, pictures: np.ndarray) -> np.ndarray:
    """What sampling and compression do to pictures, roughly: coarser, blurred, noisy, the colours a little off.

    Args:
        draw: decides how much of each, the same for all the pictures but for the noise.
        pictures: uint8 RGB `(F, S, S, 3)`.
    """
    side = pictures.shape[1]
    coarse = round(side * draw.uniform(0.5, 1.0)) if draw.random() < 0.4 else side
    blur = draw.uniform(0.3, 1.1) * side / 48 if draw.random() < 0.6 else 0.0
    noise = draw.uniform(0, 14) if draw.random() < 0.6 else 0.0
    gain, offset = draw.uniform(0.92, 1.08, 3), draw.uniform(-10, 10, 3)
    result = []
    for picture in pictures:
        changed = resized(resized(picture, coarse), side)
        if blur > 0.2:
            changed = cv2.GaussianBlur(changed, (0, 0), blur)
        values = changed * gain + offset + noise * draw.standard_normal(picture.shape)
        result.append(np.clip(values, 0, 255).astype(np.uint8))
    return np.stack(result)


def nobody(draw: Draw, people: range, first: int = SCENES) -> np.ndarray:
    """A picture without a face: one colour, a place, a texture, shapes, or a headless body; also parts, and with bars.

    Args:
        draw: decides.
        people: whose bodies may be shown.
        first: see `some_scene`.

    Returns:
        uint8 RGB `(LARGE, LARGE, 3)`.
    """
    picture = _empty(draw, people, first)
    kind = draw.random()
    if kind < 0.5:
        return picture
    if kind < 0.75:
        side = LARGE * draw.uniform(0.4, 1.0)
        return square(picture, draw.uniform(0, LARGE - side, 2), side, LARGE)
    # As a picture that is no square is shown to the finder, in a black one.
    bar = round(LARGE * draw.uniform(0, 0.3))
    picture = picture.copy()
    lying = picture if draw.random() < 0.5 else picture.transpose(1, 0, 2)
    lying[:bar] = lying[LARGE - bar :] = 0
    return picture


def _empty(draw: Draw, people: range, first: int) -> np.ndarray:
    kind = draw.random()
    if kind < 0.06:
        return np.full((LARGE, LARGE, 3), draw.integers(0, 256, 3), np.uint8)
    if kind < 0.3:
        canvas = Canvas(LARGE)
        list(PLACES.values())[int(draw.integers(len(PLACES)))](canvas, draw)
        return canvas.picture
    if kind < 0.5:
        return _texture(draw)
    if kind < 0.75:
        return _shapes(draw)
    return _headless(draw, people, first)


def _texture(draw: Draw) -> np.ndarray:
    """Noise at one or two scales over a colour."""
    picture = np.full((LARGE, LARGE, 3), draw.uniform(0, 255, 3))
    for _ in range(int(draw.integers(1, 3))):
        grid = int(2 ** draw.uniform(1, 6.5))
        channels = 3 if draw.random() < 0.6 else 1
        coarse = draw.normal(0, draw.uniform(15, 80), (grid, grid, channels))
        fine = cv2.resize(coarse, (LARGE, LARGE), interpolation=cv2.INTER_CUBIC)
        picture += fine.reshape(LARGE, LARGE, channels)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _shapes(draw: Draw) -> np.ndarray:
    """Ellipses, polygons and lines in any colours: parts of faces, but no face."""
    canvas = Canvas(LARGE)
    colours = draw.integers(0, 256, (24, 3)).tolist()
    canvas.gradient(tuple(colours[0]), tuple(colours[1]))
    for number in range(int(draw.integers(2, 22))):
        colour, centre = tuple(colours[2 + number]), draw.uniform(0, 1, 2)
        size = 0.35 ** draw.uniform(1, 3.5)
        kind = draw.random()
        if kind < 0.45:
            canvas.ellipse(tuple(centre), tuple(size * draw.uniform(0.5, 1.2, 2)), colour, tilt=draw.uniform(0, 90))
        elif kind < 0.75:
            canvas.polygon(centre + size * draw.uniform(-1.2, 1.2, (int(draw.integers(3, 7)), 2)), colour)
        else:
            ends = [tuple(centre + size * draw.uniform(-2, 2, 2)) for _ in range(3)]
            canvas.stroke(ends, colour, draw.uniform(0.005, 0.05))
    return canvas.shrunk(LARGE)


def _headless(draw: Draw, people: range, first: int) -> np.ndarray:
    """The part of a scene below the chin, or beside the head."""
    what = shot(draw, people, size=LARGE, first=first)
    x, y, width, height = what.box
    chin = y + 1.08 * height
    if chin < 0.75 and draw.random() < 0.5:
        side = 1 - chin
        corner = np.array([draw.uniform(0, 1 - side), chin])
    else:
        left, right = x - 0.25 * width, 1 - (x + 1.25 * width)
        side = max(left, right, 0.1)
        corner = np.array([0.0 if left >= right else 1 - side, draw.uniform(0, 1 - side)])
    return square(what.picture, LARGE * corner, LARGE * side, LARGE)


def with_picture(what: Shot, picture: np.ndarray) -> Shot:
    """The same face in a picture that was changed, but not moved."""
    return replace(what, picture=picture)
