"""What would help most: what the photos have in common that the model would take for the person."""

from dataclasses import dataclass

import numpy as np

from magicid_cli.choosing.comparing import same_background
from magicid_cli.choosing.looking import DIM, Seen

_MOST = 0.75  # share of the photos from which on "nearly all" is said
_FRONT = 20.0  # degrees: a head turned by less looks at the camera, as far as five points can tell
_ENLARGED = 1.5


@dataclass(frozen=True)
class Advice:
    """One thing that would make the photos better.

    Attributes:
        code: `few-photos`, `one-background`, `no-side-view`, `one-side`, `no-front-view`, `dim`, `enlarged`, `covered`.
        text: what is missing, why it matters, and what to do.
    """

    code: str
    text: str


def advice(seen: list[Seen]) -> list[Advice]:
    """What would help most, the most important first.

    Args:
        seen: the used photos.
    """
    if not seen:
        return []
    found = [_few(seen), _background(seen), _poses(seen), _dim(seen), _enlarged(seen), _covered(seen)]
    return [one for one in found if one is not None]


def _few(seen: list[Seen]) -> Advice | None:
    if len(seen) == 1:
        return Advice(
            "few-photos",
            "There is only one photo: its pose, light and background will be learned with the face. Add others.",
        )
    if len(seen) == 2:
        return Advice("few-photos", "With two photos, one of somebody else cannot be noticed. Add a third.")
    return None


def _background(seen: list[Seen]) -> Advice | None:
    if len(seen) < 2:
        return None
    like = int(same_background([item.background for item in seen]).sum(1).max())
    if like < max(2, _MOST * len(seen)):
        return None
    how_many = "All" if like == len(seen) else f"{like} of {len(seen)}"
    return Advice(
        "one-background",
        f"{how_many} photos seem to share one background: the model will learn it. Add photos from other places.",
    )


def _poses(seen: list[Seen]) -> Advice | None:
    turns = np.array([item.pose.yaw for item in seen if item.pose is not None])
    if not turns.size or len(seen) == 1:
        return None
    widest = float(np.abs(turns).max())
    if widest < _FRONT:
        return Advice(
            "no-side-view",
            f"No photo shows the face from the side (the largest turn is about {widest:.0f} degrees). "
            "Add a half profile and a profile view.",
        )
    if np.abs(turns).min() > _FRONT:
        return Advice("no-front-view", "No photo shows the face from the front. Add one that looks at the camera.")
    sides = {side for side, there in (("left", (turns < -_FRONT).any()), ("right", (turns > _FRONT).any())) if there}
    if len(sides) == 1:
        (side,) = sides
        other = "right" if side == "left" else "left"
        return Advice(
            "one-side",
            f"Where the face is turned, it looks to the {side} of the picture. Add a photo that looks to the {other}.",
        )
    return None


def _dim(seen: list[Seen]) -> Advice | None:
    dim = sum(item.light.bright < DIM for item in seen)
    if dim < _MOST * len(seen):
        return None
    how_many = "All" if dim == len(seen) else f"{dim} of {len(seen)}"
    return Advice("dim", f"{how_many} faces are dim: the model will learn the gloom. Add photos taken in good light.")


def _enlarged(seen: list[Seen]) -> Advice | None:
    middle = float(np.median([item.enlarged for item in seen]))
    if middle < _ENLARGED:
        return None
    return Advice(
        "enlarged",
        f"Most faces are small: at the training size their crops are enlarged about {middle:.1f} times, which shows no "
        "more than there is. Add closer photos, or the originals instead of reduced copies.",
    )


def _covered(seen: list[Seen]) -> Advice | None:
    odd = [item.verdict.file for item in seen if item.odd]
    if not odd:
        return None
    return Advice(
        "covered", f"Part of the face may be covered in {', '.join(odd)}. Photos of the whole face help more."
    )
