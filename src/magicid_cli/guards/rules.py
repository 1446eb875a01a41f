"""When preference optimization does harm, and which of its checkpoints is the best: functions of what was measured.

At a look the guards see the means of all steps since the look before, the held-out margin, and how likeness and motion
of some fixed videos compare with those of the start: the stage-1 model, or in a later round what the round before
ended with. A sign is one of five kinds of harm. Training ends when the same sign was there at `PATIENCE` looks in a
row, so that one noisy look ends nothing. Everything here depends on the measurements alone: a run that was cut and
resumed comes to the same decision.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

PATIENCE = 2
"""Looks in a row at which a sign must be there."""

LOST = 0.25
"""Share of the start's likeness or motion whose loss is a sign."""

TOLERATED = 0.05
"""Share that a checkpoint may lose and still be a good one: about what sampling other videos would change."""

HELD_OUT_RISE = 0.1
"""Rise of the held-out margin above its lowest, as a share of the training margin, that is over-fitting."""

DISPLACED = 0.2
"""Rise of the winners' error, as a share of the rejected videos', that is likelihood displacement."""

CERTAIN = 2.0
"""Standard errors by which the winners' error must lie above the reference's."""

SATURATED = 0.02
"""Gradient factor under which a pair teaches nothing any more: it was 0.5 at the start."""

LEAST_LIKENESS, LEAST_MOTION = 0.1, 0.5
"""Below these the start's values are noise (strangers' cosines, half a pixel), and no divisor."""

STAGE_1 = "the stage-1 model"
"""What the first round starts from, and what everything is compared with."""


@dataclass(frozen=True)
class Seen:
    """Likeness and motion of the watched videos, means over them, by the rewards that also choose the pairs."""

    likeness: float
    motion: float


@dataclass(frozen=True)
class Look:
    """What the guards saw after some steps.

    Attributes:
        step: finished steps.
        margin: mean over the steps since the look before.
        winner_shift: the same of `e_w - e_w0`.
        winner_shift_error: standard error of that mean; None of fewer than two steps.
        rejected_shift: mean of `e_l - e_l0`.
        gradient_factor: mean.
        held_out_margin: at this step; None without held-out pairs.
        likeness_gain: relative to the start's on the same prompts and seeds: 0.1 is a tenth more.
        motion_gain: the same of motion.
    """

    step: int
    margin: float
    winner_shift: float
    winner_shift_error: float | None
    rejected_shift: float
    gradient_factor: float
    held_out_margin: float | None
    likeness_gain: float
    motion_gain: float


@dataclass(frozen=True)
class Sign:
    """A kind of harm, by its name, and what shows it."""

    rule: str
    why: str


@dataclass(frozen=True)
class Choice:
    """Which look's checkpoint is the best one.

    Attributes:
        step: of the look; 0 for the model that the round started from.
        qualified: whether likeness and motion of a look are both at the start's, within `TOLERATED`.
        why: a sentence.
    """

    step: int
    qualified: bool
    why: str


def look(step: int, after: int, rows: Sequence[Mapping[str, Any]], start: Seen, now: Seen) -> Look:
    """Sum up what happened since the look before.

    Args:
        step: finished steps.
        after: step of the look before, 0 if there was none.
        rows: metrics, a line a step; those of later steps are not read.
        start: the watched videos of the model that the round started from.
        now: the same of the policy after `step` steps.
    """
    window = [row for row in rows if after < row["step"] <= step]
    shifts = [row["winner_shift"] for row in window]
    return Look(
        step=step,
        margin=fmean(row["margin"] for row in window),
        winner_shift=fmean(shifts),
        winner_shift_error=stdev(shifts) / math.sqrt(len(shifts)) if len(shifts) > 1 else None,
        rejected_shift=fmean(row["rejected_shift"] for row in window),
        gradient_factor=fmean(row["gradient_factor"] for row in window),
        held_out_margin=window[-1].get("held_out_margin"),
        likeness_gain=(now.likeness - start.likeness) / max(start.likeness, LEAST_LIKENESS),
        motion_gain=(now.motion - start.motion) / max(start.motion, LEAST_MOTION),
    )


def signs(looks: Sequence[Look], start: str = STAGE_1) -> list[Sign]:
    """The signs of harm at the newest look, the gravest first.

    Args:
        looks: all up to now, oldest first, at least one.
        start: what to call the model that the round started from.
    """
    found = [lost(looks[-1], start), overfitting(looks), displacement(looks), saturation(looks[-1])]
    return [sign for some in found for sign in some]


def ending(looks: Sequence[Look], start: str = STAGE_1) -> Sign | None:
    """The gravest sign that was there at each of the last `PATIENCE` looks, as it is at the newest; None to go on.

    Args:
        looks: all up to now, oldest first.
        start: what to call the model that the round started from.
    """
    if len(looks) < PATIENCE:
        return None
    recent = [{sign.rule for sign in signs(looks[: len(looks) - ago])} for ago in range(1, PATIENCE)]
    return next((sign for sign in signs(looks, start) if all(sign.rule in rules for rules in recent)), None)


def lost(now: Look, start: str = STAGE_1) -> list[Sign]:
    """Likeness or motion of the watched videos far below the start's."""
    gains = {"likeness": now.likeness_gain, "motion": now.motion_gain}
    return [
        Sign(f"{what}-lost", f"the {what} of the watched videos is {-gain:.0%} below {start}'s")
        for what, gain in gains.items()
        if gain < -LOST
    ]


def overfitting(looks: Sequence[Look]) -> list[Sign]:
    """The held-out margin above its lowest while the training margin fell further.

    Before the first step both margins are 0.
    """
    now = looks[-1]
    if now.held_out_margin is None:
        return []
    earlier = [(one.held_out_margin, one.margin) for one in looks[:-1] if one.held_out_margin is not None]
    lowest, margin_then = min([(0.0, 0.0), *earlier])
    risen = now.held_out_margin - lowest > HELD_OUT_RISE * abs(now.margin)
    if not (risen and now.margin < margin_then):
        return []
    told = f"the held-out margin rose from {lowest:.3g} to {now.held_out_margin:.3g}"
    return [Sign("over-fitting", f"{told} while the training margin fell from {margin_then:.3g} to {now.margin:.3g}")]


def displacement(looks: Sequence[Look]) -> list[Sign]:
    """The winners' error rises with the rejected videos' while the margin still falls (likelihood displacement)."""
    now, margin_before = looks[-1], looks[-2].margin if len(looks) > 1 else 0.0
    if now.winner_shift_error is None or now.winner_shift <= CERTAIN * now.winner_shift_error:
        return []
    if now.winner_shift <= DISPLACED * now.rejected_shift or now.margin >= margin_before:
        return []
    told = f"the winners' error rose by {now.winner_shift:.3g} with the rejected videos' ({now.rejected_shift:.3g})"
    return [Sign("displacement", f"{told} while the margin still fell")]


def saturation(now: Look) -> list[Sign]:
    """The pairs are learnt, and what little is still taught is no preference."""
    if now.gradient_factor >= SATURATED:
        return []
    return [Sign("saturation", f"the gradient factor is {now.gradient_factor:.2g}: nothing is being taught any more")]


def choose(looks: Sequence[Look], start: str = STAGE_1) -> Choice:
    """The best look's step, by the rewards of the watched videos alone.

    Among the looks that lose no more than `TOLERATED` of likeness and of motion: the largest sum of both gains. If
    there is none: among those that gain more of one than they lose of the other, and lose no more than `LOST`, the one
    whose loss is the smallest. If there is none either, the start. Of equals the later one.

    Args:
        looks: all that can be chosen, at least one.
        start: what to call the model that the round started from.
    """
    good = [one for one in looks if _worst(one) >= -TOLERATED]
    if good:
        best = max(good, key=lambda one: (_sum(one), one.step))
        why = f"the best of those that keep {start}'s likeness and motion"
        return Choice(best.step, qualified=True, why=f"{why}: {_gains(best)}")
    trades = [one for one in looks if _worst(one) >= -LOST and _sum(one) > 0]
    best = max(trades or looks, key=lambda one: (_worst(one), one.step))
    if trades:
        why = f"none keeps both likeness and motion of {start}; it loses the least for what it gains"
        return Choice(best.step, qualified=False, why=f"{why}: {_gains(best)}")
    why = f"every look lost more than it gained against {start}, which stays; the smallest loss was step {best.step}'s"
    return Choice(0, qualified=False, why=f"{why}: {_gains(best)}")


def _sum(one: Look) -> float:
    return one.likeness_gain + one.motion_gain


def _worst(one: Look) -> float:
    return min(one.likeness_gain, one.motion_gain)


def _gains(one: Look) -> str:
    likeness, motion = (round(gain, 2) + 0.0 for gain in (one.likeness_gain, one.motion_gain))  # no "-0%"
    return f"likeness {likeness:+.0%}, motion {motion:+.0%}"
