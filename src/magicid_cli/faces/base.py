"""What a face is, what finds and recognises one, and the aligned crop that the networks of the ArcFace family see."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from magicid_cli.alignment import aligned

CROP = 112
"""Side of an aligned face, in pixels."""

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float64
)
"""Where the five landmarks lie in an aligned face (ArcFace and SFace alike): x, y in pixels of the crop."""


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a picture.

    Attributes:
        box: x, y, width, height in pixels of the picture; it may reach outside.
        landmarks: (5, 2) x, y of right eye, left eye, nose tip, right and left mouth corner (the person's right).
        score: the detector's confidence, 0 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float

    @property
    def side(self) -> float:
        """The box's shorter side in pixels."""
        return min(self.box[2:])

    @property
    def area(self) -> float:
        """The box's area in pixels."""
        return self.box[2] * self.box[3]


class Detector(Protocol):
    """Finds faces.

    Attributes:
        name: what the user types.
        made_by: name, commit and licence; part of every stored score.
        advice: what to do about a photo in which it finds nothing.
    """

    name: str
    made_by: str
    advice: str

    def find(self, image: np.ndarray) -> list[Face]:
        """All faces in a uint8 RGB picture `(H, W, 3)`, the largest first."""


class Recogniser(Protocol):
    """Turns a face into a vector.

    Attributes:
        name: what the user types.
        made_by: name, commit and licence; part of every stored score.
        same_person: smallest cosine between a photo and the mean of the same person's other photos.
    """

    name: str
    made_by: str
    same_person: float

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        """The face as float32 `(D,)` of length 1; cosines are dot products."""


@dataclass(frozen=True)
class Faces:
    """A detector and a recogniser that work together."""

    detector: Detector
    recogniser: Recogniser


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors `(…, D)` scaled to length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def align(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A face turned and scaled so that its landmarks fall on `TEMPLATE`.

    Args:
        image: uint8 `(H, W, 3)`.
        landmarks: (5, 2) in pixels of the picture.

    Returns:
        uint8 `(112, 112, 3)`; black outside the picture.
    """
    return aligned(image, landmarks, TEMPLATE, CROP)
