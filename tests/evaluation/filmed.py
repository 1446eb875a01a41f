"""Videos whose truth is known, because they were made for it: drawn people, and a picture that a camera pans over."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from magicid_cli import video
from magicid_cli.world.clips import FPS, Scene, album, render

PERSON, STRANGER = 900_001, 900_017
SIZE = 96
SCENES = (
    Scene(PERSON, "dance", "beach", "red sweater", "clear", "smiling", 1),
    Scene(PERSON, "wave", "desert", "green hoodie", "clear", "smiling", 2),
    Scene(PERSON, "nod", "garden", "purple dress", "clear", "smiling", 3),
)


def frames_of(what: Scene, person: int = PERSON) -> np.ndarray:
    return render(replace(what, person=person), size=SIZE).frames


def film(folder: Path, name: str, frames: np.ndarray, fps: float = FPS) -> Path:
    path = folder / f"{name}.mp4"
    video.write_video(path, frames, fps)
    return path


def photos(folder: Path, count: int = 3) -> list[Path]:
    """The drawn person's album."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for path, picture in zip(paths, album(PERSON, count, 128), strict=True):
        Image.fromarray(picture).save(path)
    return paths


def swapped(what: Scene) -> np.ndarray:
    """The person becomes somebody else half-way: 4 frames of the one, 5 of the other, everything else the same."""
    return np.concatenate([frames_of(what)[:4], frames_of(what, STRANGER)[4:]])


def hidden(what: Scene) -> np.ndarray:
    """The person is there in the first 6 of 9 frames; in the others the picture is grey."""
    frames = frames_of(what).copy()
    frames[6:] = 128
    return frames


def panned(pixels: float, count: int = 9, side: int = 128) -> np.ndarray:
    """A camera that pans to the left over a picture by so many pixels a frame, of 256 in the shorter side."""
    random = np.random.default_rng(0)
    coarse = [random.standard_normal((3 * 2**level, 6 * 2**level, 3)).astype(np.float32) for level in range(6)]
    wide = np.asarray(sum(0.6**n * cv2.resize(one, (4 * side, 2 * side)) for n, one in enumerate(coarse)))
    wide = np.clip(128 + 45 * wide / wide.std(), 0, 255).astype(np.uint8)
    step = pixels * side / 256
    views = [np.array([[1, 0, -index * step], [0, 1, -side / 4]], np.float32) for index in range(count)]
    return np.stack([cv2.warpAffine(wide, view, (side, side), flags=cv2.INTER_LINEAR) for view in views])
