"""Stand-ins for the `tiny` model: no download, and no claim about faces; their name says so."""

import numpy as np

from magicid_cli.faces.base import CROP, TEMPLATE, Face, align, normalised

STAND_IN = "stand-in"
_SEEDS = {STAND_IN: 20250317, "stand-in-judge": 20251019}


class StandInDetector:
    """Takes the middle of any picture for a face, so that everything can run without weights."""

    name = STAND_IN
    made_by = "stand-in (the middle of the picture)"
    advice = "It finds a face in every picture."

    def find(self, image: np.ndarray) -> list[Face]:
        """One face: its box is the middle half of the largest centred square, its aligned crop that square."""
        height, width = image.shape[:2]
        side = min(height, width)
        corner = np.array([(width - side) / 2, (height - side) / 2])
        landmarks = ((TEMPLATE + 0.5) * side / CROP - 0.5 + corner).astype(np.float32)
        x, y = (corner + side / 4).tolist()
        return [Face((x, y, side / 2, side / 2), landmarks, 1.0)]


class StandInRecogniser:
    """A fixed random projection of the aligned face: it tells pictures apart, not people.

    Args:
        name: `stand-in`, the reward's, or `stand-in-judge`, the evaluation's.
    """

    same_person = -1.0

    def __init__(self, name: str = STAND_IN) -> None:
        self.name = name
        self.made_by = f"{name} (random projection)"
        self._projection = np.random.default_rng(_SEEDS[name]).standard_normal((3 * 16 * 16, 128)).astype(np.float32)

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        """The face as float32 `(128,)` of length 1."""
        crop = align(image, face.landmarks).astype(np.float32)
        small = crop.reshape(16, CROP // 16, 16, CROP // 16, 3).mean((1, 3)).ravel()
        return normalised((small - small.mean()) @ self._projection)
