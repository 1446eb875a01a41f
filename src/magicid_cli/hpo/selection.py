"""Hybrid pair selection: identity-preferred and dynamic-preferred pairs from one scored repository.

The kinds, the sorting by identity, the threshold and the fronts are the paper's; the caps, the shares, the filling up,
the second front and the held-out pairs are our choices.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from magicid_cli.hpo.fronts import dominates, lower_front, scale, upper_front
from magicid_cli.hpo.pools import (
    DYNAMICS,
    IDENTITY,
    SCALED_DYNAMICS,
    Chosen,
    Ledger,
    Pool,
    Rule,
    Run,
    fates,
    open_pool,
    take,
)

REWARDS = ("identity", "dynamics", "semantics")
_STATIC_CAP = 10

# Why a kind has no pair: the rule that removed the last of its candidates.
_STARVED = {
    ("identity", "candidates"): "there is no static clip, or no sampled video to put beside it",
    ("identity", "identity_not_higher"): "no static clip scores higher on identity than a sampled video",
    ("identity", "over_tau"): "the sampled videos lead the static clips in dynamics by more than tau",
    ("dynamic", "candidates"): "no prompt has two sampled videos",
    ("dynamic", "not_dominating"): "no video on an upper front dominates one on the lower front of its prompt",
    ("dynamic", "no_more_motion"): "no video that dominates another moves more than it",
    ("dynamic", "video_cap"): "the identity pairs have used the videos as often as the cap allows",
}


@dataclass(frozen=True)
class Candidates:
    """The repository as columns of length N.

    Attributes:
        ids: unique names; ties are broken by them.
        origin: `static`, `initial` or `tuned`.
        prompt: prompt number of a sampled video, -1 for a static clip.
        photo: photo number of a static clip, -1 for a sampled video.
        raw: unscaled, finite rewards `(N, 3)` in the order of `REWARDS`.
    """

    ids: Sequence[str]
    origin: Sequence[str]
    prompt: np.ndarray
    photo: np.ndarray
    raw: np.ndarray


@dataclass(frozen=True)
class PairRule:
    """Which pairs are wanted.

    Attributes:
        count: pairs to train on.
        identity_share: share of identity pairs; at 0 or 1 the other kind is not used, not even to fill up.
        tau: τ, largest lead in dynamics (1-10 scale) of the rejected video of an identity pair; None for the median
            lead over all candidates.
        video_cap: most pairs a sampled video appears in.
        rejected_cap: most identity pairs in which a video is the rejected one.
        held_out: further pairs, on prompts and photos of their own.
        rewards: names of the rewards in use; τ and the motion rule belong to `dynamics`.
    """

    count: int
    identity_share: float
    tau: float | None
    video_cap: int
    rejected_cap: int
    held_out: int
    rewards: tuple[str, ...]


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
    dominates and moves more. Each kind is sorted by identity gap, largest first.

    Args:
        candidates: the scored repository.
        rule: what is wanted.
        seed: chooses the held-out prompts and photos.

    Raises:
        ValueError: a reward is not finite.
    """
    finite = np.isfinite(candidates.raw).all(axis=1)
    if not finite.all():
        raise ValueError(f"a reward of {candidates.ids[int(finite.argmin())]} is not finite")
    table = _table(candidates, rule)
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


@dataclass(frozen=True)
class _Table:
    """The candidates and what follows from them alone; `values` has the rows that `pools` names, `(5, N)`."""

    static: np.ndarray
    prompt: np.ndarray
    photo: np.ndarray
    rank: np.ndarray
    scaled: np.ndarray
    values: np.ndarray
    columns: list[int]
    tau: float | None


def _table(candidates: Candidates, rule: PairRule) -> _Table:
    static = np.array([origin == "static" for origin in candidates.origin], dtype=bool)
    rank = np.empty(len(static), dtype=np.int64)
    rank[sorted(range(len(static)), key=lambda n: candidates.ids[n])] = np.arange(len(static))
    scaled = scale(candidates.raw)
    columns = [REWARDS.index(name) for name in rule.rewards]
    tau = None
    if DYNAMICS in columns:
        tau = rule.tau if rule.tau is not None else _median_lead(scaled[:, DYNAMICS], static)
    values = np.vstack([candidates.raw.T, scaled[:, IDENTITY], scaled[:, DYNAMICS]])
    return _Table(static, candidates.prompt, candidates.photo, rank, scaled, values, columns, tau)


def _median_lead(dynamics: np.ndarray, static: np.ndarray) -> float | None:
    """Median over all (static, sampled) pairs of the sampled video's lead in dynamics."""
    leads = dynamics[~static] - dynamics[static][:, None]
    return float(np.median(leads, overwrite_input=True)) if leads.size else None


def _hold_out(table: _Table, rule: PairRule, seed: int) -> tuple[np.ndarray, np.ndarray, float, list[str]]:
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


def _hybrid(table: _Table, rule: PairRule, members: np.ndarray, count: int, share: float) -> _Part:
    """Take identity pairs, then dynamic ones, from the second fronts too if need be; then fill up with identity."""
    of_identity = math.floor(count * share + 0.5)
    wanted = {"identity": of_identity, "dynamic": count - of_identity}
    fill = 0 < share < 1
    pools = {
        "identity": _identity_pool(table, members & (share > 0)),
        "dynamic": _dynamic_pool(table, members & (share < 1), 1),
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
    if narrow < target:
        pools["dynamic"] = _dynamic_pool(table, members, 2)
        add("dynamic", target)
    shortfall["dynamic"] = max(0, wanted["dynamic"] - len(chosen["dynamic"]))
    if shortfall["dynamic"]:
        add("identity", count - len(chosen["dynamic"]))
    return _part(table, wanted, shortfall, pools, ledger, chosen, narrow)


def _identity_pool(table: _Table, members: np.ndarray) -> Pool:
    """(A): every static clip may meet every sampled video."""
    winners, rejected = np.flatnonzero(table.static & members), np.flatnonzero(~table.static & members)
    rejected = rejected[np.lexsort((table.rank[rejected], table.values[IDENTITY, rejected]))]
    run = Run(winners, rejected, np.zeros(len(winners), int), np.full(len(winners), len(rejected)))
    rules: dict[str, Rule] = {"identity_not_higher": lambda w, r: w[IDENTITY] > r[IDENTITY]}
    tau = table.tau
    if tau is not None:
        rules["over_tau"] = lambda w, r: r[SCALED_DYNAMICS] - w[SCALED_DYNAMICS] <= tau
    number = len(winners) * len(rejected)
    return open_pool("identity", run, table.values, rules, {"candidates": number}, number)


def _dynamic_pool(table: _Table, members: np.ndarray, depth: int) -> Pool:
    """(B): the `depth` upper fronts of each prompt may meet its `depth` lower fronts.

    A member of the first lower front dominates nothing, and nothing dominates one of the first upper front: these never
    win or lose, so two fronts that coincide cost nothing.
    """
    sampled = np.flatnonzero(~table.static & members)
    points, prompt = table.values[table.columns][:, sampled].T, table.prompt[sampled]
    upper, lower = _levels(upper_front, points, prompt, depth), _levels(lower_front, points, prompt, depth)
    winners, rejected = sampled[(upper > 0) & (lower != 1)], sampled[(lower > 0) & (upper != 1)]
    rejected = rejected[np.lexsort((table.rank[rejected], table.values[IDENTITY, rejected], table.prompt[rejected]))]
    runs = [np.searchsorted(table.prompt[rejected], table.prompt[winners], side) for side in ("left", "right")]
    columns = table.columns
    rules: dict[str, Rule] = {"not_dominating": lambda w, r: dominates(w[columns].T, r[columns].T)}
    if DYNAMICS in columns:
        rules["no_more_motion"] = lambda w, r: w[DYNAMICS] > r[DYNAMICS]
    group = np.unique(prompt, return_inverse=True)[1]
    videos, high, low, both = (
        np.bincount(group, weights=mask) for mask in (upper >= 0, upper > 0, lower > 0, (upper > 0) & (lower > 0))
    )
    number, meeting = int((videos * (videos - 1)).sum()), int((high * low - both).sum())
    counts = {"candidates": number, "not_on_front": number - meeting}
    return open_pool("dynamic", Run(winners, rejected, *runs), table.values, rules, counts, meeting)


def _levels(
    front: Callable[[np.ndarray, np.ndarray], np.ndarray], points: np.ndarray, groups: np.ndarray, depth: int
) -> np.ndarray:
    """Number of each point's front from 1 to `depth`, peeled one after the other; 0 beyond."""
    level = np.zeros(len(points), dtype=np.int64)
    for number in range(1, depth + 1):
        rest = np.flatnonzero(level == 0)
        level[rest[front(points[rest], groups[rest])]] = number
    return level


def _part(
    table: _Table,
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
    pairs += [_dynamic_pair(table, *pair, second=pair in wide) for pair in chosen["dynamic"]]
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


def _identity_pair(table: _Table, winner: int, rejected: int) -> Pair:
    gap = table.scaled[winner] - table.scaled[rejected]
    why = f"identity {gap[IDENTITY]:+.2f}"
    if table.tau is not None:
        why += f", lead of the rejected video in dynamics {-gap[DYNAMICS]:+.2f}, at most tau {table.tau:.2f}"
    return Pair(winner, rejected, "identity", float(gap[IDENTITY]), why)


def _dynamic_pair(table: _Table, winner: int, rejected: int, *, second: bool) -> Pair:
    gap = table.scaled[winner] - table.scaled[rejected]
    gains = ", ".join(f"{REWARDS[column]} {gap[column]:+.2f}" for column in table.columns)
    why = f"dominates, on the {'second' if second else 'first'} fronts of its prompt: {gains}"
    return Pair(winner, rejected, "dynamic", float(gap[IDENTITY]), why)
