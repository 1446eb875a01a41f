"""Clips and photos of the drawn world: a description becomes pictures, the same ones on every machine."""

from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np

from magicid_cli.world.actions import ACTIONS
from magicid_cli.world.canvas import Canvas
from magicid_cli.world.captions import LIGHT_PHRASES, MOODS, caption, described
from magicid_cli.world.figure import FacePlace, draw_person
from magicid_cli.world.outfits import OUTFITS
from magicid_cli.world.people import person
from magicid_cli.world.places import PLACES

SIZE = 48
"""Side of the miniature's videos in pixels."""
FRAMES = 9
FPS = 8

# Factors on red, green and blue.
_LIGHTS = {"clear": (1.0, 1.0, 1.0), "golden": (1.06, 0.95, 0.76), "dim": (0.66, 0.68, 0.8)}
_DRAWN = 192  # least side while drawing


@dataclass(frozen=True)
class Scene:
    """All that decides a clip.

    Attributes:
        person: the person's seed.
        action, place, outfit, light, mood: keys of the tables of `captions`.
        seed: of the pose and of the place's details.
    """

    person: int
    action: str
    place: str
    outfit: str
    light: str
    mood: str
    seed: int

    def caption(self, wording: int = 0) -> str:
        """A prompt for the scene that does not say who it is.

        Args:
            wording: which of the many wordings; each number is one, chosen by the scene's seed.
        """
        draw = _generator(self.seed, 3 + 100 * wording)
        return caption(
            draw,
            subject=described(draw, person(self.person)),
            action=self.action,
            place=self.place,
            outfit=self.outfit,
            light=self.light,
            mood=self.mood,
        )


@dataclass(frozen=True, eq=False)
class Drawn:
    """A drawn clip.

    Attributes:
        frames: uint8 RGB `(F, size, size, 3)`.
        faces: where the face is in each frame, in units of the frame's side.
    """

    frames: np.ndarray
    faces: list[FacePlace]


def scene(seed: int, *, people: range) -> Scene:
    """A random scene.

    Args:
        seed: of everything.
        people: the seeds of the people who may appear.
    """
    draw = _generator(seed, 1)
    return Scene(
        person=people[int(draw.integers(len(people)))],
        action=_one(draw, ACTIONS),
        place=_one(draw, PLACES),
        outfit=_one(draw, OUTFITS),
        light=_one(draw, LIGHT_PHRASES),
        mood=_one(draw, MOODS),
        seed=seed,
    )


def render(what: Scene, *, size: int = SIZE, frames: int = FRAMES, fps: float = FPS) -> Drawn:
    """Draw a scene as a clip.

    Args:
        what: the scene.
        size: side of the frames in pixels.
        frames: how many; the action's speed does not depend on it.
        fps: frames per second.
    """
    seconds = (FRAMES - 1) / FPS
    track = ACTIONS[what.action](_generator(what.seed, 2), what.mood, seconds)
    pixels = size * max(1, -(-_DRAWN // size))
    empty = Canvas(pixels)
    PLACES[what.place](empty, _generator(what.seed, 4))
    who, clothes = person(what.person), OUTFITS[what.outfit]
    pictures, faces = [], []
    for index in range(frames):
        canvas = Canvas(pixels, empty.picture)
        faces.append(draw_person(canvas, who, clothes, track(index / fps)))
        pictures.append(_lit(_through_lens(canvas.shrunk(size)), what.light))
    return Drawn(np.stack(pictures), faces)


def album(seed: int, count: int, size: int) -> list[np.ndarray]:
    """Photos of one person: other poses, places, outfits, lights and moods in each.

    Args:
        seed: the person's.
        count: how many photos.
        size: their side in pixels.

    Returns:
        uint8 RGB `(size, size, 3)` each.
    """
    draw = _generator(seed, 5)
    orders = {name: _shuffled(draw, table) for name, table in _tables().items()}
    photos = []
    for index in range(count):
        facts = {name: order[index % len(order)] for name, order in orders.items()}
        what = Scene(person=seed, seed=int(draw.integers(2**31)), **facts)
        clip = render(what, size=size, frames=FRAMES)
        photos.append(clip.frames[int(draw.integers(FRAMES))])
    return photos


def _tables() -> dict[str, list[str]]:
    # A photo of a person who walks past is small and half out of the picture: not what people take.
    actions = [name for name in ACTIONS if name not in {"walk", "approach"}]
    return {
        "action": actions,
        "place": list(PLACES),
        "outfit": list(OUTFITS),
        "light": list(LIGHT_PHRASES),
        "mood": list(MOODS),
    }


def _shuffled(draw: np.random.Generator, names: list[str]) -> list[str]:
    return [names[index] for index in draw.permutation(len(names))]


def _one(draw: np.random.Generator, names: Collection[str]) -> str:
    return list(names)[int(draw.integers(len(names)))]


def _through_lens(picture: np.ndarray) -> np.ndarray:
    """Half a pixel of softness: edges as sharp as the pixels would cost the autoencoder most of its effort."""
    return cv2.GaussianBlur(picture, (0, 0), 0.5)


def _lit(picture: np.ndarray, light: str) -> np.ndarray:
    if light == "clear":
        return picture
    return cv2.convertScaleAbs(picture * np.array(_LIGHTS[light], np.float32))


def _generator(seed: int, purpose: int) -> np.random.Generator:
    """Independent streams for the purposes of one seed."""
    return np.random.Generator(np.random.PCG64([23, purpose, seed]))
