"""Hybrid pair selection: identity-preferred and dynamic-preferred pairs from one scored repository.

The kinds, the sorting by identity, the threshold and the fronts are the paper's; the caps, the shares, the filling up,
the second front, the held-out pairs and people's votes are our choices.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from magicid_cli.hpo.votes import Ordered, Votes, left_to_find, place

_STATIC_CAP = 10

# Why a kind has no pair: the rule that removed the last of its candidates.
_STARVED = {
    ("identity", "candidates"): "there is no static clip, or no sampled video to put beside it",
    ("identity", "voted"): "people have voted against all there could be",
    ("identity", "identity_not_higher"): "no static clip scores higher on identity than a sampled video",
    ("identity", "over_tau"): "the sampled videos lead the static clips in dynamics by more than tau",
    ("dynamic", "candidates"): "no prompt has two sampled videos",
    ("dynamic", "not_on_front"): "no prompt has a video on an upper and another one on a lower front of all videos",
    ("dynamic", "voted"): "people have voted against all there could be",
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
        missed: the next ones for training: further down the list, or refused by a cap; as many as asked for.
        unused: votes with a preference that cannot be pairs, (winner, rejected) → why.
        scaled: rewards on the 1-10 scale `(N, 3)`.
        report: JSON-able. `tau`; `warnings` (sentences); `starved_by` (why there is no pair at all, else None); for
            each of `training` and `held_out`: `wanted` by kind, `shortfall` by kind before the other one filled up,
            `widened_prompts` (whose second front gave a pair), and for `identity` and `dynamic` what became of all
            considered pairs (`pools.fates`), and with votes how many of each kind are `voted` for, beside those
            `wanted`. `held_out` also lists its `prompts` and `photos`.
    """

    pairs: tuple[Pair, ...]
    held_out: tuple[Pair, ...]
    missed: tuple[Pair, ...]
    unused: dict[Ordered, str]
    scaled: np.ndarray
    report: dict[str, Any]


_NO_VOTES = Votes()


def select_pairs(
    candidates: Candidates, rule: PairRule, seed: int, votes: Votes = _NO_VOTES, *, spare: int = 0
) -> Selection:
    """Select training and held-out pairs.

    (A) identity: the winner is a static clip, the rejected a sampled video with less identity whose lead in dynamics
    is at most τ. (B) dynamic: winner and rejected are on the upper and lower Pareto front of one prompt, the winner
    dominates and moves more. Each kind is sorted by identity gap, largest first. By the rule `motion-gap` a dynamic
    pair is instead any two videos of one prompt of which the winner moves more and lacks at most
    `identity_tolerance`, sorted by the gap in dynamics.

    Pairs that people preferred come first, whatever rules and caps say, and count as pairs and as uses of their clips;
    the rules find the rest, from pairs that nobody has voted on.

    Args:
        candidates: the scored repository.
        rule: what is wanted.
        seed: chooses the held-out prompts and photos; votes have no part in that.
        votes: what people said of pairs.
        spare: pairs that just missed selection to find besides.

    Raises:
        ValueError: a reward is not finite, or pairs by motion gap are wanted without the reward for it.
    """
    if rule.dynamic_rule == "motion-gap" and "dynamics" not in rule.rewards:
        raise ValueError("pairs by motion gap need the reward 'dynamics'")
    finite = np.isfinite(candidates.raw).all(axis=1)
    if not finite.all():
        raise ValueError(f"a reward of {candidates.ids[int(finite.argmin())]} is not finite")
    table = table_of(candidates, rule, votes)
    prompts, photos, share, message = _hold_out(table, rule, seed)
    aside = np.isin(table.prompt, prompts) | np.isin(table.photo, photos)
    placed = place(votes, table, aside, rule.identity_share)
    training = _hybrid(table, rule, ~aside, rule.count, rule.identity_share, placed.training, spare)
    held_out = _hybrid(table, rule, aside, rule.held_out if len(prompts) else 0, share, placed.held_out)
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
    return Selection(training.pairs, held_out.pairs, training.missed, placed.unused, table.scaled, report)


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
    missed: tuple[Pair, ...]
    report: dict[str, Any]
    warnings: list[str]
    starved_by: str


@dataclass(frozen=True)
class _Search:
    """The pools of one split, and what was taken from them."""

    table: Table
    rule: PairRule
    members: np.ndarray
    share: float
    ledger: Ledger
    pools: dict[str, Pool]
    chosen: dict[str, Chosen]

    def dynamic(self, depth: int) -> Pool:
        """The pool of dynamic pairs, from so many fronts."""
        return _dynamic(self.table, self.rule, self.members & (self.share < 1), depth)

    def add(self, kind: str, total: int) -> int:
        """Take pairs of a kind until there are `total`, if there are so many; how many there are."""
        if kind == "identity":
            clips = max(1, len(self.pools[kind].run.winners))
            self.ledger.cap[self.table.static] = max(_STATIC_CAP, math.ceil(total / clips))
        take(self.pools[kind], total, self.ledger, self.chosen[kind], self.table.rank)
        return len(self.chosen[kind])

    def missed(self, number: int) -> Iterator[Pair]:
        """The next pairs: first those that the caps admit, then those that they refuse."""
        first = self.dynamic(1)
        of_identity = math.floor(number * self.share + 0.5)
        for kind, wanted in (("identity", of_identity), ("dynamic", number - of_identity)):
            found = dict(self.chosen[kind])
            total = len(found) + wanted
            wider = [self.dynamic(2)] if kind == "dynamic" and self.rule.dynamic_rule == "dominating" else []
            endless = np.iinfo(np.int64).max
            capped = replace(self.ledger, uses=self.ledger.uses.copy(), losses=self.ledger.losses.copy())
            free = replace(capped, cap=np.full_like(capped.cap, endless), rejected_cap=endless)
            for ledger in (capped, free):
                for pool in (self.pools[kind], *wider):
                    take(pool, total, ledger, found, self.table.rank)
            for winner, rejected in list(found)[len(self.chosen[kind]) :]:
                if kind == "identity":
                    yield _identity_pair(self.table, winner, rejected)
                else:
                    second = bool(wider) and not (winner in first.run.winners and rejected in first.run.rejected)
                    yield _dynamic_pair(self.table, self.rule, winner, rejected, second=second)


def _dynamic(table: Table, rule: PairRule, videos: np.ndarray, depth: int) -> Pool:
    if rule.dynamic_rule == "motion-gap":
        return motion_pool(table, videos, rule.identity_tolerance)
    return dynamic_pool(table, videos, depth, rule.fronts)


def _hybrid(
    table: Table,
    rule: PairRule,
    members: np.ndarray,
    count: int,
    share: float,
    voted: dict[str, dict[Ordered, str]],
    spare: int = 0,
) -> _Part:
    """Take identity pairs, then dynamic ones, from the second fronts too if need be; then fill up with identity."""
    of_identity = math.floor(count * share + 0.5)
    wanted = left_to_find({"identity": of_identity, "dynamic": count - of_identity}, voted)
    fill = 0 < share < 1
    unused = np.zeros(len(members), dtype=np.int64)
    ledger = Ledger(np.full(len(members), rule.video_cap), rule.rejected_cap, unused, unused.copy())
    for kind, pairs in voted.items():
        for winner, rejected in pairs:
            ledger.uses[[winner, rejected]] += 1
            ledger.losses[rejected] += kind == "identity"
    pools = {
        "identity": identity_pool(table, members & (share > 0)),
        "dynamic": _dynamic(table, rule, members & (share < 1), 1),
    }
    search = _Search(table, rule, members, share, ledger, pools, {"identity": {}, "dynamic": {}})
    shortfall = {"identity": wanted["identity"] - search.add("identity", wanted["identity"])}
    target = wanted["dynamic"] + fill * shortfall["identity"]
    narrow = search.add("dynamic", target)
    if narrow < target and rule.dynamic_rule == "dominating":
        pools["dynamic"] = search.dynamic(2)
        search.add("dynamic", target)
    found = len(search.chosen["dynamic"])
    shortfall["dynamic"] = max(0, wanted["dynamic"] - found)
    if shortfall["dynamic"]:
        search.add("identity", sum(wanted.values()) - found)
    return _part(search, wanted, shortfall, voted, narrow, tuple(search.missed(spare)) if spare else ())


def _part(
    search: _Search,
    wanted: dict[str, int],
    shortfall: dict[str, int],
    voted: dict[str, dict[Ordered, str]],
    narrow: int,
    missed: tuple[Pair, ...],
) -> _Part:
    """Describe what was taken; the first `narrow` dynamic pairs are on the first fronts."""
    table, rule, chosen = search.table, search.rule, search.chosen
    counts = {kind: fates(search.pools[kind], search.ledger, chosen[kind]) for kind in chosen}
    wide = list(chosen["dynamic"])[narrow:]
    widened = sorted({int(table.prompt[winner]) for winner, _ in wide})
    pairs = [_voted_pair(table, kind, *pair, what) for kind, of_kind in voted.items() for pair, what in of_kind.items()]
    settled = len(pairs)
    pairs += [_identity_pair(table, *pair) for pair in chosen["identity"]]
    pairs += [_dynamic_pair(table, rule, *pair, second=pair in wide) for pair in chosen["dynamic"]]
    reasons = {kind: _reason(kind, counts[kind]) for kind in chosen if wanted[kind] and not chosen[kind]}
    warnings = [f"There is no {kind} pair: {reason}." for kind, reason in reasons.items() if not voted[kind]]
    if wide:
        warnings.append(f"The first Pareto fronts hold too few dynamic pairs; {len(wide)} come from the second fronts.")
    for kind, missing in shortfall.items():
        other = "dynamic" if kind == "identity" else "identity"
        extra = len(chosen[other]) - wanted[other]
        if missing and extra > 0:
            warnings.append(f"{missing} of {wanted[kind]} {kind} pairs are missing; {extra} {other} pairs fill up.")
    if len(pairs) - settled < sum(wanted.values()):
        warnings.append(f"Only {len(pairs)} of {settled + sum(wanted.values())} pairs were found.")
    report = {"wanted": wanted, "shortfall": shortfall, "widened_prompts": widened, **counts}
    if table.voted.size:
        report["voted"] = {kind: len(of_kind) for kind, of_kind in voted.items()}
    starved = "; ".join(f"no {kind} pair, because {reason}" for kind, reason in reasons.items())
    return _Part(tuple(pairs), missed, report, warnings, starved)


def _reason(kind: str, counts: dict[str, int]) -> str:
    """The rule that removed the last candidates of a kind without a pair; rules are counted in order."""
    removed = [rule for of, rule in _STARVED if of == kind and rule != "candidates" and counts.get(rule)]
    return _STARVED[kind, removed[-1] if removed else "candidates"]


def _voted_pair(table: Table, kind: str, winner: int, rejected: int, what: str) -> Pair:
    gap = table.scaled[winner, IDENTITY] - table.scaled[rejected, IDENTITY]
    return Pair(winner, rejected, kind, float(gap), what)


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
