"""Hybrid pair selection: identity-preferred and dynamic-preferred pairs from one scored repository.

The kinds, the sorting by identity, the threshold and the fronts are the paper's; the caps, the shares, the filling up,
the second front and the held-out pairs are our choices.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from magicid_cli.hpo.kinds import (
    REWARDS,
    Candidates,
    PairRule,
    Table,
    dynamic_pool,
    identity_pool,
    motion_pool,
    table_of,
)
from magicid_cli.hpo.pools import DYNAMICS, IDENTITY, Chosen, Ledger, Pool, fates, take

_STATIC_CAP = 10

# Why a kind has no pair: the rule that removed the last of its candidates.
_STARVED = {
    ("identity", "candidates"): "there is no static clip, or no sampled video to put beside it",
    ("identity", "identity_not_higher"): "no static clip scores higher on identity than a sampled video",
    ("identity", "over_tau"): "the sampled videos lead the static clips in dynamics by more than tau",
    ("dynamic", "candidates"): "no prompt has two sampled videos",
    ("dynamic", "not_on_front"): "no prompt has a video on an upper and another one on a lower front of all videos",
    ("dynamic", "not_dominating"): "no video on an upper front dominates one of its prompt on a lower front",
    ("dynamic", "no_more_motion"): "no video that dominates another moves more than it",
    ("dynamic", "no_motion_gap"): "no video moves more than another one of its prompt",
    ("dynamic", "identity_lost"): "every video that moves more lacks more identity than is tolerated",
    ("dynamic", "video_cap"): "the identity pairs have used the videos as often as the cap allows",
}


@dataclass(frozen=True)
class Pair:
    """One preference.

    Attributes:
        winner: position of the preferred candidate.
        rejected: position of the other one; its prompt is the pair's.
        kind: `identity` or `dynamic`.
        gap: how much more identity the winner has, on the 1-10 scale.
        why: the rule that it meets, with numbers.
    """

    winner: int
    rejected: int
    kind: str
    gap: float
    why: str


@dataclass(frozen=True)
class Selection:
    """What was selected.

    Attributes:
        pairs: to train on.
        held_out: sharing no clip, prompt or photo with `pairs`.
        scaled: rewards on the 1-10 scale `(N, 3)`.
        report: JSON-able. `tau`; `warnings` (sentences); `starved_by` (why there is no pair at all, else None); for
            each of `training` and `held_out`: `wanted` by kind, `shortfall` by kind before the other one filled up,
            `widened_prompts` (whose second front gave a pair), and for `identity` and `dynamic` what became of all
            considered pairs (`pools.fates`). `held_out` also lists its `prompts` and `photos`.
    """

    pairs: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    scaled: np.ndarray
    report: dict[str, Any]


def select_pairs(candidates: Candidates, rule: PairRule, seed: int) -> Selection:
    """Select training and held-out pairs.

    (A) identity: the winner is a static clip, the rejected a sampled video with less identity whose lead in dynamics
    is at most τ. (B) dynamic: winner and rejected are on the upper and lower Pareto front of one prompt, the winner
    dominates and moves more. Each kind is sorted by identity gap, largest first. By the rule `motion-gap` a dynamic
    pair is instead any two videos of one prompt of which the winner moves more and lacks at most
    `identity_tolerance`, sorted by the gap in dynamics.

    Args:
        candidates: the scored repository.
        rule: what is wanted.
        seed: chooses the held-out prompts and photos.

    Raises:
        ValueError: a reward is not finite, or pairs by motion gap are wanted without the reward for it.
    """
    if rule.dynamic_rule == "motion-gap" and "dynamics" not in rule.rewards:
        raise ValueError("pairs by motion gap need the reward 'dynamics'")
    finite = np.isfinite(candidates.raw).all(axis=1)
    if not finite.all():
        raise ValueError(f"a reward of {candidates.ids[int(finite.argmin())]} is not finite")
    table = table_of(candidates, rule)
    prompts, photos, share, message = _hold_out(table, rule, seed)
    aside = np.isin(table.prompt, prompts) | np.isin(table.photo, photos)
    training = _hybrid(table, rule, ~aside, rule.count, rule.identity_share)
    held_out = _hybrid(table, rule, aside, rule.held_out if len(prompts) else 0, share)
    numbers = {"prompts": prompts.tolist(), "photos": photos.tolist()}
    warnings = [*training.warnings, *message, *(f"Held-out pairs: {text}" for text in held_out.warnings)]
    aside_too = f" (held out: {len(prompts)} of the prompts, {len(photos)} of the photos)" if len(prompts) else ""
    report = {
        "tau": table.tau,
        "warnings": warnings,
        "starved_by": None if training.pairs else training.starved_by + aside_too,
        "training": training.report,
        "held_out": {**numbers, **held_out.report},
    }
    return Selection(training.pairs, held_out.pairs, table.scaled, report)


def _hold_out(table: Table, rule: PairRule, seed: int) -> tuple[np.ndarray, np.ndarray, float, list[str]]:
    """Prompts and photos put aside, the held-out pairs' identity share, and what the user should know."""
    prompts, photos = np.unique(table.prompt[~table.static]), np.unique(table.photo[table.static])
    nothing = np.array([], dtype=np.int64)
    if not rule.held_out:
        return nothing, nothing, 0.0, []
    if len(prompts) < 2:
        return nothing, nothing, 0.0, ["Nothing is held out: that takes videos of at least two prompts."]
    if rule.identity_share == 1 and len(photos) < 2:
        return nothing, nothing, 0.0, ["Nothing is held out: identity pairs need a photo of their own for that."]
    generator = np.random.default_rng(seed)

    def some(numbers: np.ndarray) -> np.ndarray:
        wanted = max(1, round(len(numbers) * rule.held_out / (rule.held_out + rule.count)))
        return np.sort(generator.permutation(numbers)[: min(wanted, len(numbers) - 1)])

    prompts = some(prompts)
    if rule.identity_share == 0:
        return prompts, nothing, 0.0, []
    if len(photos) < 2:
        return prompts, nothing, 0.0, ["Held-out pairs are dynamic only: one photo cannot serve training and them."]
    return prompts, some(photos), rule.identity_share, []


@dataclass(frozen=True)
class _Part:
    """The pairs of one split, its part of the report, and what to say; `starved_by` if it has no pair."""

    pairs: tuple[Pair, ...]
    report: dict[str, Any]
    warnings: list[str]
    starved_by: str


def _hybrid(table: Table, rule: PairRule, members: np.ndarray, count: int, share: float) -> _Part:
    """Take identity pairs, then dynamic ones, from the second fronts too if need be; then fill up with identity."""
    of_identity = math.floor(count * share + 0.5)
    wanted = {"identity": of_identity, "dynamic": count - of_identity}
    fill = 0 < share < 1

    def dynamic(videos: np.ndarray, depth: int) -> Pool:
        if rule.dynamic_rule == "motion-gap":
            return motion_pool(table, videos, rule.identity_tolerance)
        return dynamic_pool(table, videos, depth, rule.fronts)

    pools = {
        "identity": identity_pool(table, members & (share > 0)),
        "dynamic": dynamic(members & (share < 1), 1),
    }
    chosen: dict[str, Chosen] = {"identity": {}, "dynamic": {}}
    unused = np.zeros(len(members), dtype=np.int64)
    ledger = Ledger(np.full(len(members), rule.video_cap), rule.rejected_cap, unused, unused.copy())

    def add(kind: str, total: int) -> int:
        if kind == "identity":
            clips = max(1, len(pools[kind].run.winners))
            ledger.cap[table.static] = max(_STATIC_CAP, math.ceil(total / clips))
        take(pools[kind], total, ledger, chosen[kind], table.rank)
        return len(chosen[kind])

    shortfall = {"identity": of_identity - add("identity", of_identity)}
    target = wanted["dynamic"] + fill * shortfall["identity"]
    narrow = add("dynamic", target)
    if narrow < target and rule.dynamic_rule == "dominating":
        pools["dynamic"] = dynamic(members, 2)
        add("dynamic", target)
    shortfall["dynamic"] = max(0, wanted["dynamic"] - len(chosen["dynamic"]))
    if shortfall["dynamic"]:
        add("identity", count - len(chosen["dynamic"]))
    return _part(table, rule, wanted, shortfall, pools, ledger, chosen, narrow)


def _part(
    table: Table,
    rule: PairRule,
    wanted: dict[str, int],
    shortfall: dict[str, int],
    pools: dict[str, Pool],
    ledger: Ledger,
    chosen: dict[str, Chosen],
    narrow: int,
) -> _Part:
    """Describe what was taken; the first `narrow` dynamic pairs are on the first fronts."""
    counts = {kind: fates(pools[kind], ledger, chosen[kind]) for kind in pools}
    wide = list(chosen["dynamic"])[narrow:]
    widened = sorted({int(table.prompt[winner]) for winner, _ in wide})
    pairs = [_identity_pair(table, *pair) for pair in chosen["identity"]]
    pairs += [_dynamic_pair(table, rule, *pair, second=pair in wide) for pair in chosen["dynamic"]]
    reasons = {kind: _reason(kind, counts[kind]) for kind in pools if wanted[kind] and not chosen[kind]}
    warnings = [f"There is no {kind} pair: {reason}." for kind, reason in reasons.items()]
    if wide:
        warnings.append(f"The first Pareto fronts hold too few dynamic pairs; {len(wide)} come from the second fronts.")
    for kind, missing in shortfall.items():
        other = "dynamic" if kind == "identity" else "identity"
        extra = len(chosen[other]) - wanted[other]
        if missing and extra > 0:
            warnings.append(f"{missing} of {wanted[kind]} {kind} pairs are missing; {extra} {other} pairs fill up.")
    if len(pairs) < sum(wanted.values()):
        warnings.append(f"Only {len(pairs)} of {sum(wanted.values())} pairs were found.")
    report = {"wanted": wanted, "shortfall": shortfall, "widened_prompts": widened, **counts}
    starved = "; ".join(f"no {kind} pair, because {reason}" for kind, reason in reasons.items())
    return _Part(tuple(pairs), report, warnings, starved)


def _reason(kind: str, counts: dict[str, int]) -> str:
    """The rule that removed the last candidates of a kind without a pair; rules are counted in order."""
    removed = [rule for of, rule in _STARVED if of == kind and rule != "candidates" and counts.get(rule)]
    return _STARVED[kind, removed[-1] if removed else "candidates"]


def _identity_pair(table: Table, winner: int, rejected: int) -> Pair:
    gap = table.scaled[winner] - table.scaled[rejected]
    why = f"identity {gap[IDENTITY]:+.2f}"
    if table.tau is not None:
        why += f", lead of the rejected video in dynamics {-gap[DYNAMICS]:+.2f}, at most tau {table.tau:.2f}"
    return Pair(winner, rejected, "identity", float(gap[IDENTITY]), why)


def _dynamic_pair(table: Table, rule: PairRule, winner: int, rejected: int, *, second: bool) -> Pair:
    gap = table.scaled[winner] - table.scaled[rejected]
    gains = ", ".join(f"{REWARDS[column]} {gap[column]:+.2f}" for column in table.columns)
    of = "its prompt" if rule.fronts == "prompt" else "all videos"
    why = f"dominates, on the {'second' if second else 'first'} fronts of {of}: {gains}"
    if rule.dynamic_rule == "motion-gap":
        why = f"moves more, and lacks at most {rule.identity_tolerance:.2f} of identity: {gains}"
    return Pair(winner, rejected, "dynamic", float(gap[IDENTITY]), why)
