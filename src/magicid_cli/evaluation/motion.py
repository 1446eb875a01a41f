"""Dyna. Deg.: the dynamics reward's statistic, and VBench's yes or no."""

from typing import Any

from magicid_cli.config import Settings
from magicid_cli.evaluation.measure import device_of, run_on
from magicid_cli.events import Events
from magicid_cli.rewards import dynamics, flow
from magicid_cli.rewards.base import Clip

THRESHOLD = 6.0
"""VBench's, in pixels between two frames whose shorter side has 256; it grows with the frame."""
_SHARE = 4 / 16
"""VBench's: of 16 frames, 4 pairs must move more than that."""


class Motion:
    """Dyna. Deg. by the flow that the settings name.

    Args:
        settings: name the flow.
        events: told which flow `auto` means.

    Raises:
        MagicIDError: `raft-missing`, `gpu-missing`.
    """

    name = "motion"
    metrics = ("dynamic_degree", "dynamic_rate")

    def __init__(self, settings: Settings, events: Events) -> None:
        choice = flow.choose(settings.rewards.flow)
        flow.require(choice.name)
        if settings.rewards.flow == flow.AUTO:
            events.notice(f"Motion is measured by {choice}. `magicid doctor` says more.", stage="evaluate")
        self.flow = choice.name
        # The other one has no torch.
        where = f", {run_on(device_of(settings.model))}" if choice.name == flow.RAFT else ""
        self.made_by = f"{dynamics.made_by(choice.name)}{where}"
        self._device = settings.model.device
        self._reward: dynamics.DynamicsReward | None = None

    def reads(self, prompt: str | None) -> list[Any]:
        """As the Protocol says."""
        return []

    def look(self, clip: Clip, prompt: str | None) -> dict[str, Any]:
        """Both figures, null for a clip too short to have a pair of frames.

        Returns:
            `dynamic_degree`, in pixels per 1/8 s with the shorter side at 256; `dynamic_rate`, 1 if VBench's rule calls
            it dynamic, else 0; `camera` and `subject`, the statistic of both parts; `pairs`; `stride`, frames between
            the two of a pair.
        """
        if self._reward is None:
            self._reward = dynamics.DynamicsReward(self.flow, self._device)
        raw = self._reward.score(clip)
        if not raw["pairs"]:
            return dict.fromkeys(self.metrics)
        unit = clip.fps / (dynamics.RATE * raw["stride"])
        rate = float(is_dynamic([pair / unit for pair in raw["pairs"]]))
        kept = {name: raw[name] for name in ("camera", "subject", "pairs", "stride")}
        return {"dynamic_degree": raw["total"], "dynamic_rate": rate, **kept}

    def close(self) -> None:
        """As the Protocol says."""
        self._reward = None


def is_dynamic(pairs: list[float]) -> bool:
    """VBench's rule: whether enough pairs of frames, taken about 8 times a second, move more than its threshold.

    Args:
        pairs: mean of the top 5 % of the flow's lengths, in pixels between the two frames, shorter side at 256.
    """
    # At least one: for two frames VBench's own rounding would ask for none.
    needed = max(1, round(_SHARE * (len(pairs) + 1)))
    return sum(pair > THRESHOLD for pair in pairs) >= needed
