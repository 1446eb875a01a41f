"""What is measured of one video, and of all videos of a cell."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from magicid_cli.config import Settings
from magicid_cli.events import Events
from magicid_cli.faces import Faces, open_evaluation_faces, open_faces
from magicid_cli.models.catalog import video_model
from magicid_cli.photos import decode
from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.drawn import DrawnJudge
from magicid_cli.rewards.dynamics import DynamicsReward
from magicid_cli.rewards.identity import IdentityReward
from magicid_cli.world import captions

STILL = "still"
MOVING = 1.0
"""Motion of a frame from which on it counts as moving, in pixels per 1/8 s with the shorter side at 256. Between what
videos have that shall stand still and what a slowly turning head has, fixed before any method was measured."""

METRICS: dict[str, str] = {
    "likeness": "likeness",
    "likeness_reward": "likeness by the reward's encoder",
    "moving_likeness": "likeness of moving frames",
    "motion": "motion, px",
    "following": "prompt following",
    "action": "action seen",
    "place": "place seen",
    "outfit": "outfit seen",
    "found": "face found",
    "first_half": "likeness, first half",
    "second_half": "likeness, second half",
    "fading": "second half less first half",
    "moving_share": "moving frames",
    "subject_motion": "motion of the subject, px",
    "still_motion": "motion where stillness is asked for, px",
    "action_probability": "probability of the action",
}
"""What `summary` gives → its name for people."""


class Judges:
    """All judges of the evaluation.

    Args:
        settings: name the encoders; the evaluation's is never the reward's.

    Raises:
        MagicIDError: `model-unusable`, `settings-invalid`.
    """

    def __init__(self, settings: Settings) -> None:
        model = video_model(settings.model.name)
        self._evaluation = open_evaluation_faces(settings.rewards, model, offline=True, events=Events())
        self._reward = open_faces(settings.rewards, model, offline=True, events=Events())
        self._motion, self._prompt = DynamicsReward("dis"), DrawnJudge(Events())
        faces = [part.recogniser.made_by for part in (self._evaluation, self._reward)]
        self.made_by = [
            self._evaluation.detector.made_by,
            *faces,
            self._motion.made_by,
            self._prompt.made_by,
            f"moving from {MOVING:g} px",
        ]

    def of_person(self, photos: Sequence[Path]) -> tuple[IdentityReward, IdentityReward]:
        """Likeness to the person in some photos, by the evaluation's encoder and by the reward's."""
        pictures = [decode(path).rgb for path in photos]
        return _likeness(self._evaluation, pictures), _likeness(self._reward, pictures)

    def look(self, frames: np.ndarray, fps: float, prompt: str, who: Sequence[IdentityReward]) -> dict[str, Any]:
        """What is measured of one video.

        Args:
            frames: uint8 RGB `(F, H, W, 3)`.
            fps: frames per second.
            prompt: what it should show.
            who: from `of_person`.

        Returns:
            `likeness` and `likeness_reward` (0 to 1), `first_half`, `second_half`, `found`; `frames` and `cosines`, by
            the evaluation's encoder, null without the face; `motion`, `subject_motion`, `camera_motion` and `flow` of
            every pair of neighbouring frames, in pixels per 1/8 s; `asked` and `seen`: action, place and outfit;
            `probabilities` of what is asked.
        """
        clip = Clip(frames, fps, prompt)
        likeness, rewarded = (judge.score(clip) for judge in who)
        motion, found = self._motion.score(clip), self._prompt.score(clip)
        return {
            "likeness": likeness["value"],
            "likeness_reward": rewarded["value"],
            **{name: likeness[name] for name in ("first_half", "second_half", "found", "frames", "cosines")},
            "motion": motion["total"],
            "subject_motion": motion["subject"],
            "camera_motion": motion["camera"],
            "flow": motion["pairs"],
            **{name: found[name] for name in ("asked", "seen", "probabilities")},
        }


def _likeness(faces: Faces, pictures: Sequence[np.ndarray]) -> IdentityReward:
    found = [(picture, faces.detector.find(picture)) for picture in pictures]
    return IdentityReward(faces, np.stack([faces.recogniser.embed(one, there[0]) for one, there in found if there]))


# ------------------------------------------------------------------------------------------------------------ summary


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A cell's figures from those of its videos.

    Args:
        rows: from `Judges.look`, each with its `prompt`.

    Returns:
        Everything that `METRICS` names, null where there is nothing to take it from, and `curve`: mean likeness of each
        frame that is looked at, by its place in the order. Motion is that of videos which shall move; a shortest clip
        has no moving frames and a cell of such prompts alone no motion.
    """
    moving = [row for row in rows if _action(row) != STILL]
    still = [row for row in rows if _action(row) == STILL]
    shown = [_moving_frames(row) for row in rows]
    frames = [cosine for part, _ in shown for cosine in part]
    halves = [[row[half] for row in rows] for half in ("first_half", "second_half")]
    return {
        **{name: mean([row[name] for row in rows]) for name in ("likeness", "likeness_reward", "found")},
        "first_half": mean(halves[0]),
        "second_half": mean(halves[1]),
        "fading": mean([second - first for first, second in zip(*halves, strict=True)]),
        "motion": mean([row["motion"] for row in moving]),
        "subject_motion": mean([row["subject_motion"] for row in moving]),
        "still_motion": mean([row["motion"] for row in still]),
        "moving_likeness": mean(frames),
        "moving_share": mean([len(part) / max(1, of) for part, of in shown]),
        **{part: mean([float(row["seen"][part] == row["asked"].get(part)) for row in rows]) for part in _PARTS},
        "action_probability": mean([row["probabilities"].get("action", 0.0) for row in rows]),
        "following": mean([mean(list(row["probabilities"].values())) or 0.0 for row in rows]),
        "curve": curve([row["cosines"] for row in rows]),
    }


_PARTS = ("action", "place", "outfit")


def mean(values: Sequence[float]) -> float | None:
    """The mean, or None of nothing."""
    return float(np.mean(values)) if len(values) else None


def curve(cosines: Sequence[Sequence[float | None]]) -> list[float]:
    """Mean likeness of the first frame, the second, and so on; a frame without the face counts 0, as in the reward."""
    columns = zip_longest(*cosines, fillvalue=None)
    return [float(np.mean([max(0.0, cosine or 0.0) for cosine in column])) for column in columns]


def _action(row: dict[str, Any]) -> str | None:
    return captions.wish(row["prompt"]).action


def _moving_frames(row: dict[str, Any]) -> tuple[list[float], int]:
    """Likeness of the frames into which there is motion, and how many frames could have any."""
    known = [
        (row["flow"][index - 1], max(0.0, cosine or 0.0))
        for index, cosine in zip(row["frames"], row["cosines"], strict=True)
        if 0 < index <= len(row["flow"])
    ]
    return [cosine for motion, cosine in known if motion >= MOVING], len(known)
