"""The Protocol every reward meets. A reward returns raw values; scaling is `hpo`'s business."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Clip:
    """What a reward sees.

    Attributes:
        frames: uint8 RGB `(F, H, W, 3)`.
        fps: frames per second.
        prompt: what the video should show.
    """

    frames: "np.ndarray"
    fps: float
    prompt: str


class Reward(Protocol):
    """One judgement about a video.

    Attributes:
        name: `identity`, `dynamics` or `semantics`.
        made_by: which model and version makes the number; part of every stored score.
    """

    name: str
    made_by: str

    def score(self, clip: Clip) -> dict[str, Any]:
        """Raw values, JSON-serialisable; the one that selection uses is called `value`."""
