"""How much the person in a video looks like the photos: cosines of face embeddings, frame by frame."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from magicid_cli.faces import Face, Faces, normalised
from magicid_cli.faces.tracks import LARGEST, Sighting, person
from magicid_cli.rewards.base import Clip

MAX_FRAMES = 16
"""A clip is looked at every k-th frame, k the smallest that gives at most this many: 16 of the paper's 61."""


class IdentityReward:
    """Likeness of a clip to reference embeddings.

    Args:
        faces: the detector and the recogniser that also made the references.
        references: (N, D) embeddings of the photos; they are normalised, averaged and normalised again.
    """

    name = "identity"

    def __init__(self, faces: Faces, references: np.ndarray) -> None:
        if references.ndim != 2 or not len(references):
            raise ValueError(f"references must be (N, D) with N > 0, not {references.shape}")
        self._faces = faces
        self._person = normalised(normalised(references.astype(np.float64)).mean(0))
        self._own = photo_similarity(references)
        self.made_by = made_by(faces.detector.made_by, faces.recogniser.made_by)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Likeness of the person whom `faces.tracks` follows through the clip.

        A frame in which that person's face is not found counts 0 in all means, else a model that hides the face would
        win, and so does a negative cosine, else hiding the face would beat a wrong face.

        Returns:
            `value`: the mean over the frames looked at, 0 to 1; `relative`: the same in units of `photo_similarity`,
            which is how much the photos are like each other, both null if that says nothing (a single photo, or photos
            that are not alike): recognisers give some groups of people higher cosines than others, and a person's own
            photos show by how much; `first_half` and `second_half`: `value` for the clip's halves (of an odd number of
            frames the middle one is in the second); `found`: share of frames with the person's face; `frames`: which
            were looked at; `faces`: how many faces in each; `cosines`: raw, of the person's face, and `boxes`: its x,
            y, width, height in pixels, both null without it.
        """
        looked_at = sampled(len(clip.frames))
        return self.likeness(clip.frames, looked_at, [self._faces.detector.find(clip.frames[i]) for i in looked_at])

    def likeness(self, frames: np.ndarray, looked_at: list[int], found: Sequence[Sequence[Face]]) -> dict[str, Any]:
        """What `score` says, of faces that were found already: several recognisers may share one search.

        Args:
            frames: uint8 RGB `(F, H, W, 3)`.
            looked_at: which of them were searched.
            found: the faces in each of those, the largest first.
        """
        seen = [
            [Sighting(number, face, self._faces.recogniser.embed(frames[index], face)) for face in there[:LARGEST]]
            for number, (index, there) in enumerate(zip(looked_at, found, strict=True))
        ]
        followed = person(seen, self._faces.recogniser.same_person)
        shown = [followed.get(number) for number in range(len(looked_at))]
        cosines = [None if one is None else float(one.vector @ self._person) for one in shown]
        counted = [max(0.0, cosine or 0.0) for cosine in cosines]
        half, value = len(counted) // 2, float(np.mean(counted))
        return {
            "value": value,
            "relative": value / self._own if self._own else None,
            "photo_similarity": self._own,
            "first_half": float(np.mean(counted[:half] or counted)),
            "second_half": float(np.mean(counted[half:])),
            "found": float(np.mean([cosine is not None for cosine in cosines])),
            "frames": looked_at,
            "faces": [len(there) for there in found],
            "cosines": [None if cosine is None else round(cosine, 5) for cosine in cosines],
            "boxes": [None if one is None else [round(edge, 1) for edge in one.face.box] for one in shown],
        }


def made_by(detector: str, recogniser: str) -> str:
    """`IdentityReward.made_by` of a detector and a recogniser with these."""
    return f"{detector}; {recogniser}; at most {MAX_FRAMES} frames, one person followed"


def photo_similarity(references: np.ndarray) -> float | None:
    """How much a person's photos are like each other: the mean cosine of each with the mean of the others.

    Args:
        references: (N, D) embeddings.

    Returns:
        0 to 1; None if there is one photo only, or if the photos are on average no more alike than strangers'.
    """
    if len(references) < 2:
        return None
    vectors = normalised(references.astype(np.float64))
    others = normalised(vectors.sum(0) - vectors)
    mean = float((vectors * others).sum(1).mean())
    return mean if mean > _STRANGERS else None


_STRANGERS = 0.1
"""Cosines of different people spread around 0 with about this deviation; a value is not divided by less."""


def sampled(frames: int, most: int = MAX_FRAMES) -> list[int]:
    """Which frames of a clip are looked at: every k-th from the first, k the smallest that gives at most `most`."""
    return list(range(0, frames, max(1, math.ceil(frames / most))))
