"""How much the person in a video looks like the photos: cosines of face embeddings, frame by frame."""

import math
from typing import Any

import numpy as np

from magicid_cli.faces import Faces, normalised
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
        self.made_by = f"{faces.detector.made_by}; {faces.recogniser.made_by}; at most {MAX_FRAMES} frames"

    def score(self, clip: Clip) -> dict[str, Any]:
        """Likeness.

        A frame without a face counts 0 in all means, else a model that hides the face would win, and so does a
        negative cosine, else hiding the face would beat a wrong face.

        Returns:
            `value`: the mean over the frames looked at, 0 to 1; `first_half` and `second_half`: the same for the
            clip's halves (of an odd number of frames the middle one is in the second); `found`: share of frames with
            a face; `frames`: which were looked at; `cosines`: raw, of the largest face, null without one.
        """
        looked_at = sampled(len(clip.frames))
        cosines = [self._cosine(clip.frames[index]) for index in looked_at]
        counted = [max(0.0, cosine or 0.0) for cosine in cosines]
        half = len(counted) // 2
        return {
            "value": float(np.mean(counted)),
            "first_half": float(np.mean(counted[:half] or counted)),
            "second_half": float(np.mean(counted[half:])),
            "found": float(np.mean([cosine is not None for cosine in cosines])),
            "frames": looked_at,
            "cosines": [None if cosine is None else round(cosine, 5) for cosine in cosines],
        }

    def _cosine(self, frame: np.ndarray) -> float | None:
        found = self._faces.detector.find(frame)
        return float(self._faces.recogniser.embed(frame, found[0]) @ self._person) if found else None


def sampled(frames: int) -> list[int]:
    """Which frames of a clip are looked at: every k-th from the first, at most `MAX_FRAMES`."""
    return list(range(0, frames, max(1, math.ceil(frames / MAX_FRAMES))))
