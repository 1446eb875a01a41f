"""Prompt following: a vision-language model is shown frames and the prompt and asked for 1-10.

The value is the expectation over the answer's probabilities and not the answer itself (method D): finer than ten
steps, and deterministic. Who the person is, is never asked: that is the identity reward's business. Small machines have
CLIP (`rewards/clip.py`), the drawn world a judge of its own (`rewards/drawn.py`), and `rewards/standin.py` takes the
place of the model where nothing may be downloaded.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magicid_cli import hub
from magicid_cli.config import RewardSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models import catalog
from magicid_cli.rewards.base import Clip, evenly_spaced
from magicid_cli.rewards.clip import ClipJudge, open_clip
from magicid_cli.rewards.drawn import DrawnJudge
from magicid_cli.rewards.loading import unusable
from magicid_cli.rewards.qwen import Question, Qwen, open_qwen, shrunk
from magicid_cli.rewards.standin import StandInJudge

STAND_IN = "stand-in"
DRAWN = "drawn"

_OPENING = "Here are {count} frames of one video, in the order of time.\n"
_FRAME = "At {seconds:.1f} s: "
_RUBRIC = (
    "The video was made for this description:\n{prompt}\n\n"
    "How much of the description does the video show? Compare part by part: the kind of person and their appearance, "
    "the clothes, the place and its light, the action, the expression, the movement of the camera. Judge the action "
    "over all frames together: it counts only where it can be seen to happen. Who the person is does not matter, nor "
    "how good the picture is. Answer with one whole number: 1 if nothing of the description is there, 5 if half of it "
    "is, 10 if all of it is. Write the number and nothing else."
)
_WORDING = hashlib.sha256((_OPENING + _FRAME + _RUBRIC).encode()).hexdigest()[:8]


class QwenJudge:
    """Qwen3-VL as a judge, loaded when the first clip is scored.

    Attributes:
        name: `semantics`.
        made_by: model, commit, number type, how many frames, and the version of the rubric's wording.
        at_once: how many clips one forward pass is given; on a CPU one, so that no padding is computed.
    """

    name = "semantics"

    def __init__(self, qwen: Qwen, *, frames: int) -> None:
        self._qwen, self._frames = qwen, frames
        self.made_by = f"{qwen.made_by} {frames} frames question {_WORDING}"
        self.at_once = 4 if qwen.device == "cuda" else 1

    def close(self) -> None:
        """Drop the model and give its memory back; the next score loads it again."""
        self._qwen.close()

    def score(self, clip: Clip) -> dict[str, Any]:
        """The expected answer from 1 to 10.

        Returns:
            `value`, the expectation; `distribution`, ten probabilities that sum to 1; `mass`, the probability of
            answering with one of the ten at all (a small one says that the question was not understood); `frames`,
            the indices that were shown.

        Raises:
            MagicIDError: `model-unusable`.
        """
        return self.score_many([clip])[0]

    def score_many(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        """What `score` says of each clip, in one forward pass for all.

        The answer is given as "1": being causal, the model then says at the last position but one how probable each
        first digit is, and at the last how probable a second digit is after "1".

        Raises:
            MagicIDError: `model-unusable`.
        """
        shown = [evenly_spaced(len(clip.frames), self._frames) for clip in clips]
        logits = self._qwen.logits([asked(clip, indices) for clip, indices in zip(clips, shown, strict=True)], keep=2)
        return [self._answer(row, indices) for row, indices in zip(logits, shown, strict=True)]

    def _answer(self, logits: torch.Tensor, shown: list[int]) -> dict[str, Any]:
        distribution, mass = answer_distribution(logits[0], logits[1], self._qwen.digits)
        value = float(distribution @ torch.arange(1, 11, dtype=torch.float64))
        if not np.isfinite(value):
            raise unusable(self._qwen.folder, "answers with values that are not finite")
        return {"value": value, "distribution": distribution.tolist(), "mass": mass, "frames": shown}


def asked(clip: Clip, shown: list[int]) -> Question:
    """The rubric's question about these frames of a clip, with the first half of the answer "10"."""
    parts: list[Any] = [_OPENING.format(count=len(shown))]
    for index in shown:
        parts += [_FRAME.format(seconds=index / clip.fps), shrunk(clip.frames[index]), "\n"]
    return Question((*parts, _RUBRIC.format(prompt=clip.prompt)), answer="1")


def answer_distribution(first: torch.Tensor, after_one: torch.Tensor, digits: list[int]) -> tuple[torch.Tensor, float]:
    """Probabilities of the answers 1 to 10.

    "10" is two tokens: P(10) = P("1") P("0" | "1"), and P(1) = P("1") (1 - P("0" | "1")).

    Args:
        first: logits `(V,)` where the answer begins.
        after_one: logits `(V,)` after the token "1".
        digits: the tokens of "0" to "9".

    Returns:
        Ten probabilities that sum to 1 (float64, on the CPU), and their sum before that.
    """
    starts = torch.softmax(first.double().cpu(), -1)[digits]
    zero_follows = torch.softmax(after_one.double().cpu(), -1)[digits[0]]
    answers = torch.cat([starts[1:2] * (1 - zero_follows), starts[2:], starts[1:2] * zero_follows])
    mass = answers.sum()
    return answers / mass, float(mass)


def open_judge(
    rewards: RewardSettings, model: catalog.VideoModel, *, device: str, offline: bool, events: Events
) -> QwenJudge | ClipJudge | DrawnJudge | StandInJudge:
    """The judge that the settings name, its weights on disk and not yet in memory.

    Args:
        rewards: `vlm` names the judge; `auto` is what the catalog names for the video model.
        model: the video model whose clips are judged.
        device: `cuda` or `cpu`.
        offline: use only weights that are in the cache.
        events: where downloads are reported, and prompts that a judge cannot read.

    Raises:
        MagicIDError: `settings-unknown`, `model-unusable` for damaged weights of the package, or what
            `hub.fetch_repo` raises.
    """
    name = judge_name(rewards, model)
    if name == STAND_IN:
        return StandInJudge()
    if name == DRAWN:
        return DrawnJudge(events)
    if catalog.JUDGES[name].kind == "clip":
        return open_clip(name, frames=rewards.sampled_frames, device=device, offline=offline, events=events)
    return QwenJudge(open_qwen(name, device=device, offline=offline, events=events), frames=rewards.sampled_frames)


def judge_made_by(rewards: RewardSettings, model: catalog.VideoModel, *, device: str) -> str | None:
    """`made_by` of the judge that `open_judge` would open; nothing is fetched. None if a fetch would have to tell.

    Raises:
        MagicIDError: `settings-unknown`, `model-unusable` for damaged weights of the package.
    """
    name = judge_name(rewards, model)
    if name not in catalog.JUDGES:
        return open_judge(rewards, model, device=device, offline=True, events=Events()).made_by
    judge, commit = catalog.JUDGES[name], hub.known_commit(catalog.JUDGES[name].source)
    if commit is None:
        return None
    frames, nowhere, repo = rewards.sampled_frames, Path(), judge.source.repo
    if judge.kind == "clip":
        return ClipJudge(nowhere, name=repo, commit=commit, device=device, frames=frames, events=Events()).made_by
    return QwenJudge(Qwen(nowhere, name=repo, commit=commit, device=device), frames=frames).made_by


def judge_name(rewards: RewardSettings, model: catalog.VideoModel) -> str:
    """The name of the judge that the settings mean.

    Raises:
        MagicIDError: `settings-unknown`.
    """
    name = model.vlm if rewards.vlm == "auto" else rewards.vlm
    if name not in (*catalog.JUDGES, DRAWN, STAND_IN):
        raise MagicIDError(
            "settings-unknown",
            f"No judge of prompt following is called '{name}'.",
            "Use --vlm with one of: auto, " + ", ".join([*catalog.JUDGES, DRAWN, STAND_IN]) + ".",
        )
    return name
