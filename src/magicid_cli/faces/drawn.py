"""Finding and recognising drawn people, for the miniature model: small networks that come with magicid.

There is one person in a picture of the drawn world, so at most one face is found.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch

from magicid_cli.alignment import aligned, square
from magicid_cli.faces.base import Face
from magicid_cli.world import networks
from magicid_cli.world.networks import FaceEncoder, FaceFinder

_FILES = {"drawn": networks.ENCODER, "drawn-judge": networks.JUDGE}
_MARGIN = 2.2  # the second look is a square of so many heights of the face
_LEAST = 0.02  # of the picture's longer side: a face lower than this is none
_FEWEST = 4.0  # pixels: a face lower than this could be anybody's


class DrawnDetector:
    """Finds the face of a drawn person, from about a sixth of the picture's height.

    It looks twice: at the whole picture, and at a square around what it found there, where landmarks of a small face
    can be told more exactly. A face must be seen both times.

    Args:
        folder: where the weights are; the package's by default.

    Raises:
        MagicIDError: `model-unusable`.
    """

    name = "drawn"
    advice = "--model mini knows drawn people only: make photos of one with `magicid mini photos`."

    def __init__(self, folder: Path = networks.WEIGHTS) -> None:
        path = folder / networks.FINDER
        self._net, _ = networks.load(FaceFinder, path)
        self.made_by = _made_by("face finder", path)

    def find(self, image: np.ndarray) -> list[Face]:
        """The face, or nothing."""
        height, width = image.shape[:2]
        side = float(max(height, width))
        first = self._look(image, np.array([(width - side) / 2, (height - side) / 2]), side)
        if first is None or first.box[3] < max(_LEAST * side, _FEWEST):
            return []
        x, y, box_width, box_height = first.box
        part = _MARGIN * box_height
        second = self._look(image, np.array([x + box_width / 2, y + box_height / 2]) - part / 2, part)
        if second is None:
            return []
        return [Face(second.box, second.landmarks, min(first.score, second.score))]

    def _look(self, image: np.ndarray, corner: np.ndarray, side: float) -> Face | None:
        """The face in a square part of the picture, in pixels of the picture."""
        shown = square(image, corner, side, networks.PICTURE)
        with torch.inference_mode():
            found = self._net(networks.seen(torch.from_numpy(shown))[None])
        score = float(found.presence[0].sigmoid())
        if score < 0.5:
            return None
        middle = found.box[0, :2].numpy().astype(np.float64) * side + corner
        size = np.exp(found.box[0, 2:].numpy().astype(np.float64)) * side
        x, y = (middle - size / 2).tolist()
        # A pixel's centre is a whole number here, and half a pixel from its corner in the network's eyes.
        landmarks = found.landmarks[0].numpy() * side + corner - 0.5
        return Face((x, y, float(size[0]), float(size[1])), landmarks.astype(np.float32), score)


class DrawnRecogniser:
    """Tells drawn people apart by an aligned crop of head and hair.

    Args:
        name: `drawn`, the reward's, or `drawn-judge`, the evaluation's.
        folder: where the weights are; the package's by default.

    Raises:
        MagicIDError: `model-unusable`.
    """

    def __init__(self, name: str, folder: Path = networks.WEIGHTS) -> None:
        path = folder / _FILES[name]
        self.name = name
        self._net, facts = networks.load(FaceEncoder, path)
        # Measured when it was trained, on people it had never seen: see `EncoderTask.evaluate`.
        if not isinstance(facts.get("same_person"), float):
            raise networks.unusable(path, "it does not say from which cosine on two faces are one person's")
        self.same_person = facts["same_person"]
        self.made_by = _made_by("face recogniser", path)

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        """The face as float32 `(64,)` of length 1."""
        crop = aligned(image, face.landmarks, self._net.template, self._net.side)
        with torch.inference_mode():
            vector: np.ndarray = self._net(networks.seen(torch.from_numpy(crop))[None])[0].numpy()
        return vector


def _made_by(what: str, path: Path) -> str:
    with path.open("rb") as file:
        return f"drawn {what} sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]} (Apache-2.0)"
