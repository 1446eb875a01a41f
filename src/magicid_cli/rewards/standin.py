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
        picture, text = self._projected(self._patches(clip.frames[shown]).mean(0)), self.words(clip.prompt)[0]
        norms = np.linalg.norm(picture) * np.linalg.norm(text)
        cosine = float(picture @ text / norms) if norms > 0 else 0.0
        return {"value": 5.5 + 4.5 * cosine, "frames": shown}

    def pictures(self, frames: np.ndarray) -> np.ndarray:
        """Random features of pictures: uint8 RGB `(F, H, W, 3)` → float64 `(F, D)`, not normalised."""
        return self._projected(self._patches(frames))

    def words(self, prompt: str) -> tuple[np.ndarray, int]:
        """Random features of a prompt, float64 `(D,)`; of how many tokens it was cut, which is none."""
        words = re.findall(r"\w+", prompt.lower()) or [""]
        return np.sum([_random(f"word {word}", (self._width,)) for word in words], axis=0), 0

    def _patches(self, frames: np.ndarray) -> np.ndarray:
        size = (self._grid, self._grid)
        return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]).astype(np.float64)

    def _projected(self, patches: np.ndarray) -> np.ndarray:
        flat = patches.reshape(*patches.shape[:-3], -1) / 255 - 0.5
        return np.asarray(flat @ _random("picture", (flat.shape[-1], self._width)))

    def close(self) -> None:
        """Nothing to give back."""


def _random(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers that depend on the name alone, in every process (`hash` does not)."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
