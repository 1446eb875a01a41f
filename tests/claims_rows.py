"""A measured video of the benchmark of the claims, made up."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from magicid_cli.world import captions


def row(prompt: str, motion: Sequence[float], cosines: Sequence[float | None], seen: str = "walk") -> dict[str, Any]:
    """What the judges would say of a video whose frames have these likenesses and this motion between them."""
    counted = [max(0.0, cosine or 0.0) for cosine in cosines]
    return {
        "prompt": prompt,
        "likeness": float(np.mean(counted)),
        "likeness_reward": 0.5,
        "found": float(np.mean([cosine is not None for cosine in cosines])),
        "first_half": 0.6,
        "second_half": 0.4,
        "frames": list(range(len(cosines))),
        "cosines": list(cosines),
        "motion": float(np.mean(motion)),
        "subject_motion": 1.0,
        "camera_motion": 0.0,
        "flow": list(motion),
        "asked": {"action": captions.wish(prompt).action, "place": "beach"},
        "seen": {"action": seen, "place": "beach", "outfit": "black suit"},
        "probabilities": {"action": 0.2, "place": 0.8},
    }
