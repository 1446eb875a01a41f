"""A judge of prompt following that needs no weights: for tests, and for machines that may download nothing."""

import hashlib
import re
from typing import Any

import cv2
import numpy as np

from magicid_cli.rewards.base import Clip, evenly_spaced


class StandInJudge:
    """A random scorer of CLIP's shape: pictures and words are projected into one space, and their cosine is scaled.

    It says nothing about a video. It is deterministic, differs between videos and prompts, and needs no download.
    """

    name = "semantics"
    made_by = "stand-in (random CLIP-shaped scorer) 1"
    _grid, _width, _shown = 8, 64, 8

    def score(self, clip: Clip) -> dict[str, Any]:
        """5.5 + 4.5 times the cosine between the frames' and the prompt's random features: `value` and `frames`."""
        shown = evenly_spaced(len(clip.frames), self._shown)
        size = (self._grid, self._grid)
        patches = [cv2.resize(clip.frames[index], size, interpolation=cv2.INTER_AREA) for index in shown]
        pooled = np.mean(patches, axis=0, dtype=np.float64).ravel() / 255 - 0.5
        picture = pooled @ _random("picture", (pooled.size, self._width))
        words = re.findall(r"\w+", clip.prompt.lower()) or [""]
        text = np.sum([_random(f"word {word}", (self._width,)) for word in words], axis=0)
        norms = np.linalg.norm(picture) * np.linalg.norm(text)
        cosine = float(picture @ text / norms) if norms > 0 else 0.0
        return {"value": 5.5 + 4.5 * cosine, "frames": shown}

    def close(self) -> None:
        """Nothing to give back."""


def _random(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers that depend on the name alone, in every process (`hash` does not)."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
