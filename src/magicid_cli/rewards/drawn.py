"""Prompt following in the drawn world: a small classifier says what a clip shows, and the prompt is held against it."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magicid_cli.alignment import square
from magicid_cli.events import Events
from magicid_cli.rewards.base import Clip
from magicid_cli.world import captions, networks
from magicid_cli.world.networks import PromptScorer

NOTHING_ASKED = 5.5
"""The value for a prompt that asks for nothing the drawn world has: the middle of 1 to 10."""


class DrawnJudge:
    """The prompt scorer of the drawn world, loaded when the first clip is scored.

    Args:
        events: told, once, of the first prompt that asks for nothing.
        folder: where the weights are; the package's by default.

    Raises:
        MagicIDError: `model-unusable` if the file is missing.
    """

    name = "semantics"

    def __init__(self, events: Events, folder: Path = networks.WEIGHTS) -> None:
        self._path, self._events, self._told = folder / networks.SCORER, events, False
        self._loaded: tuple[PromptScorer, dict[str, Any]] | None = None
        try:
            content = self._path.read_bytes()
        except OSError:
            networks.load(PromptScorer, self._path)  # says what is wrong
            raise
        self.made_by = f"drawn prompt scorer sha256:{hashlib.sha256(content).hexdigest()[:16]} (Apache-2.0)"

    def score(self, clip: Clip) -> dict[str, Any]:
        """How sure the classifier is that the clip shows what the prompt asks for.

        Returns:
            `value`: 1 plus 9 times the mean of the probabilities of what the prompt asks for, `NOTHING_ASKED` if that
            is nothing; `asked`: action, place and outfit that the prompt names; `probabilities`: theirs; `seen`: what
            the clip shows most probably; `frames`: which were shown.

        Raises:
            MagicIDError: `model-unusable`.
        """
        found = self.look(clip.frames)
        wish = captions.wish(clip.prompt)
        asked = {part: getattr(wish, part) for part in found if getattr(wish, part) is not None}
        probabilities = {part: found[part][name] for part, name in asked.items()}
        value = 1 + 9 * float(np.mean(list(probabilities.values()))) if asked else NOTHING_ASKED
        if not asked:
            self._say(clip.prompt)
        seen = {part: max(shares, key=shares.__getitem__) for part, shares in found.items()}
        shown = spread(len(clip.frames))
        return {"value": value, "asked": asked, "probabilities": probabilities, "seen": seen, "frames": shown}

    def look(self, frames: np.ndarray) -> dict[str, dict[str, float]]:
        """What frames show: the probability of each action, place and outfit of the drawn world.

        Args:
            frames: uint8 RGB `(F, H, W, 3)`; one alone is a video in which nothing moves.

        Raises:
            MagicIDError: `model-unusable`.
        """
        network, labels = self._network()
        with torch.inference_mode():
            answers = network(networks.seen(torch.from_numpy(_shown(frames, spread(len(frames)))))[None])
        return {
            part: dict(zip(names, logits[0].double().softmax(0).tolist(), strict=True))
            for (part, names), logits in zip(labels.items(), answers, strict=True)
        }

    def pictures(self, frames: np.ndarray) -> np.ndarray:
        """What the classifier reads its answers about places and outfits from, of each frame seen alone.

        Args:
            frames: uint8 RGB `(F, H, W, 3)`.

        Returns:
            float64 `(F, 96)`, not normalised.

        Raises:
            MagicIDError: `model-unusable`.
        """
        shown = torch.from_numpy(_shown(frames, list(range(len(frames)))))
        with torch.inference_mode():
            return np.asarray(self._network()[0].features(networks.seen(shown)[:, None])[1].double().numpy())

    def whole(self, frames: np.ndarray) -> np.ndarray:
        """What the classifier reads all of its answers from, motion and pictures: float64 `(352,)` of a clip.

        Raises:
            MagicIDError: `model-unusable`.
        """
        shown = torch.from_numpy(_shown(frames, spread(len(frames))))
        with torch.inference_mode():
            parts = self._network()[0].features(networks.seen(shown)[None])
        return np.asarray(torch.cat(parts, 1)[0].double().numpy())

    def close(self) -> None:
        """Drop the network; the next score loads it again."""
        self._loaded = None

    def _network(self) -> tuple[PromptScorer, dict[str, list[str]]]:
        if self._loaded is None:
            self._loaded = networks.load(PromptScorer, self._path)
        network, facts = self._loaded
        labels: dict[str, list[str]] = facts.get("labels", {})
        if (
            list(labels) != ["action", "place", "outfit"]
            or [len(names) for names in labels.values()] != network.answers
        ):
            raise networks.unusable(self._path, "it does not name the answers that it gives")
        return network, labels

    def _say(self, prompt: str) -> None:
        if not self._told:
            self._told = True
            self._events.notice(
                f"'{prompt}' asks for no action, place or outfit of the drawn world: its clips are all scored "
                f"{NOTHING_ASKED:g} for prompt following."
            )


def spread(count: int) -> list[int]:
    """Nine frames of `count`, evenly from the first to the last; frames come more than once if there are fewer."""
    return [round(index) for index in np.linspace(0, count - 1, networks.CLIP[0]).tolist()]


def _shown(frames: np.ndarray, indices: list[int]) -> np.ndarray:
    """The central square of those frames at the scorer's size."""
    height, width = frames.shape[1:3]
    side = min(height, width)
    if height == width == networks.CLIP[1]:
        return np.ascontiguousarray(frames[indices])
    corner = np.array([(width - side) / 2, (height - side) / 2])
    return np.stack([square(frames[index], corner, side, networks.CLIP[1]) for index in indices])
