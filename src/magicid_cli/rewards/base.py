"""The Protocol every reward meets. A reward returns raw values; scaling is `hpo`'s business."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from magicid_cli.errors import MagicIDError

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


class BatchedReward(Reward, Protocol):
    """A reward that judges several videos faster together than one by one.

    Attributes:
        at_once: how many it is best given together; 1 where that gains nothing.
    """

    at_once: int

    def score_many(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        """What `score` says of each, up to the rounding of sums."""


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """The middle frame of each of `wanted` equal parts of `count` frames; every frame if there are fewer."""
    if wanted >= count:
        return list(range(count))
    return [(2 * part + 1) * count // (2 * wanted) for part in range(wanted)]


def device_for(wanted: str | None) -> str:
    """`cuda` or `cpu` for a judge that needs no GPU.

    Args:
        wanted: what `--device` says: `auto`, `cuda` or `cpu`; None is `auto`.

    Raises:
        MagicIDError: `gpu-missing` if a GPU is asked for and there is none.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise MagicIDError("gpu-missing", "No CUDA GPU is usable here.", "Leave --device out: judges run anywhere.")
    return "cpu" if wanted == "cpu" or not torch.cuda.is_available() else "cuda"
