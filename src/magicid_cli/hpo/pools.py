"""Pools of possible pairs, and taking the best of them under caps, without ever listing all pairs.

Pairs are wanted by their gap in one reward, largest first. The winners of a pool each have a run of `rejected`, ordered
by that reward, lowest first. The pairs of one winner are therefore already in the order in which they are wanted, and
the best pair overall is the best of one candidate a winner: a heap of W entries stands for up to W x L pairs.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

# Columns of reward values, `(values, 1)` against `(values, k)` or the reverse -> which of the k pairs the rule keeps.
Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Pairs (winner, rejected), positions of candidates, in the order they were chosen.
Chosen = dict[tuple[int, int], None]

# Rows of reward values; the last one tells which candidate it is.
IDENTITY, DYNAMICS, SEMANTICS, SCALED_IDENTITY, SCALED_DYNAMICS, POSITION = range(6)
_STRIDE = 4096


@dataclass(frozen=True)
class Run:
    """Which winners may meet which rejected: winner `winners[i]` meets `rejected[start[i]:stop[i]]`.

    Attributes:
        winners: positions of candidates `(W,)`.
        rejected: positions of candidates `(L,)`; within each run by the reward that sorts the pairs, lowest first.
        start: first of the run `(W,)`.
        stop: end of the run `(W,)`.
    """

    winners: np.ndarray
    rejected: np.ndarray
    start: np.ndarray
    stop: np.ndarray


@dataclass(frozen=True)
class Pool:
    """The pairs of one kind that its rules keep.

    Attributes:
        kind: `identity` or `dynamic`.
        sorted_by: row of the reward values whose gap sorts the pairs.
        run: winners and rejected.
        towards: reward values of the winners `(6, W)`.
        away: reward values of the rejected `(6, L)`.
        rules: by name, in the order in which they are applied.
        counts: pairs considered (`candidates`) and pairs that each rule removed.
        kept: pairs that every rule keeps, by winner `(W,)`.
        first: place of the first of them in `rejected` `(W,)`; the run's end if there is none.
    """

    kind: str
    sorted_by: int
    run: Run
    towards: np.ndarray
    away: np.ndarray
    rules: Mapping[str, Rule]
    counts: dict[str, int]
    kept: np.ndarray
    first: np.ndarray


def open_pool(
    kind: str,
    run: Run,
    values: np.ndarray,
    rules: Mapping[str, Rule],
    counts: Mapping[str, int],
    remaining: int,
    sorted_by: int = SCALED_IDENTITY,
) -> Pool:
    """Count what each rule removes and find every winner's best pair.

    Args:
        kind: `identity` or `dynamic`.
        run: winners and rejected.
        values: reward values of all candidates `(6, N)`.
        rules: by name, in the order in which they are applied.
        counts: what is known before the rules.
        remaining: pairs the rules are applied to; those outside `run` are known to fail the first rule.
        sorted_by: row of `values` whose gap sorts the pairs.
    """
    towards, away = values[:, run.winners], values[:, run.rejected]
    passed = np.zeros(len(rules), dtype=np.int64)
    kept, first = np.zeros(len(run.winners), dtype=np.int64), run.stop.copy()
    for w, (start, stop) in enumerate(zip(run.start.tolist(), run.stop.tolist(), strict=True)):
        if start == stop:
            continue
        verdicts = _verdicts(rules, towards[:, w : w + 1], away[:, start:stop])
        numbers = np.count_nonzero(verdicts, axis=1)
        passed += numbers
        kept[w] = numbers[-1]
        if kept[w]:
            first[w] = start + verdicts[-1].argmax()
    before = [remaining, *passed.tolist()]
    removed = {name: before[i] - before[i + 1] for i, name in enumerate(rules)}
    return Pool(kind, sorted_by, run, towards, away, rules, {**counts, **removed}, kept, first)


def _verdicts(rules: Mapping[str, Rule], towards: np.ndarray, away: np.ndarray) -> np.ndarray:
    """For each rule, which pairs it and all before it keep: `(rules, k)`."""
    return np.logical_and.accumulate([rule(towards, away) for rule in rules.values()])


@dataclass(frozen=True)
class Ledger:
    """How often each clip is used, and how often it may be.

    Attributes:
        cap: most pairs a clip appears in `(N,)`.
        rejected_cap: most identity pairs in which a clip is the rejected one.
        uses: pairs each clip appears in `(N,)`; counted up by `take`.
        losses: identity pairs in which each clip is the rejected one `(N,)`; counted up by `take`.
    """

    cap: np.ndarray
    rejected_cap: int
    uses: np.ndarray
    losses: np.ndarray

    def full(self, clips: np.ndarray | int) -> np.ndarray:
        """Which of the clips may not appear once more."""
        return self.uses[clips] >= self.cap[clips]

    def beaten(self, kind: str, clips: np.ndarray | int) -> np.ndarray:
        """Which of the clips may not be the rejected one of an identity pair once more."""
        return (self.losses[clips] >= self.rejected_cap) & (kind == "identity")


def take(pool: Pool, wanted: int, ledger: Ledger, chosen: Chosen, rank: np.ndarray) -> None:
    """Add the pool's best pairs that the caps admit to `chosen`, until it holds `wanted` or the pool is empty.

    The order is the gap in the pool's reward, largest first; ties go by the winner's id, then by the rejected's order.

    Args:
        pool: the pairs.
        wanted: pairs that `chosen` should hold in the end.
        ledger: how often each clip is used; updated.
        chosen: pairs (winner, rejected) of this kind, in the order they were chosen; updated.
        rank: place of every candidate's id in their order `(N,)`.
    """
    run = pool.run
    heap = [_entry(pool, w, int(pool.first[w]), rank) for w in np.flatnonzero(pool.kept).tolist()]
    heapq.heapify(heap)
    while heap and len(chosen) < wanted:
        _, _, w, at = heapq.heappop(heap)
        pair = winner, rejected = int(run.winners[w]), int(run.rejected[at])
        if ledger.full(winner):
            continue
        if pair not in chosen and not ledger.full(rejected) and not ledger.beaten(pool.kind, rejected):
            chosen[pair] = None
            ledger.uses[[winner, rejected]] += 1
            ledger.losses[rejected] += pool.kind == "identity"
        at = _next(pool, w, at + 1)
        if at < run.stop[w]:
            heapq.heappush(heap, _entry(pool, w, at, rank))


def _entry(pool: Pool, w: int, at: int, rank: np.ndarray) -> tuple[float, int, int, int]:
    gap = pool.towards[pool.sorted_by, w] - pool.away[pool.sorted_by, at]
    return -float(gap), int(rank[pool.run.winners[w]]), w, at


def _next(pool: Pool, w: int, at: int) -> int:
    """The next place at or after `at` in the run of winner `w` that every rule keeps; the run's end if none."""
    stop = int(pool.run.stop[w])
    while at < stop:
        piece = slice(at, min(at + _STRIDE, stop))
        kept = _verdicts(pool.rules, pool.towards[:, w : w + 1], pool.away[:, piece])[-1]
        if kept.any():
            return at + int(kept.argmax())
        at = piece.stop
    return stop


def fates(pool: Pool, ledger: Ledger, chosen: Chosen) -> dict[str, int]:
    """What became of every considered pair; the numbers after `candidates` add up to it.

    Those of the rules; then of the pairs that all rules keep and that were not chosen, those that no longer fit
    because the winner or the rejected is at a cap in the end; `not_needed`; `selected`.
    """
    run = pool.run
    won = np.array([winner for winner, _ in chosen], dtype=np.int64)
    left = pool.kept - np.bincount(won, minlength=len(ledger.uses))[run.winners]
    full = ledger.full(run.winners)
    counts = {"static_cap": 0, "rejected_cap": 0, "video_cap": 0}
    counts["static_cap" if pool.kind == "identity" else "video_cap"] = int(left[full].sum())
    beaten = ledger.beaten(pool.kind, run.rejected)
    for at in np.flatnonzero(beaten | ledger.full(run.rejected)).tolist():
        w = np.flatnonzero(~full & (run.start <= at) & (at < run.stop))
        kept = _verdicts(pool.rules, pool.towards[:, w], pool.away[:, at : at + 1])[-1]
        rejected = int(run.rejected[at])
        taken = sum((winner, rejected) in chosen for winner in run.winners[w[kept]].tolist())
        counts["rejected_cap" if beaten[at] else "video_cap"] += int(kept.sum()) - taken
    counts["not_needed"] = int(left.sum()) - sum(counts.values())
    return {**pool.counts, **counts, "selected": len(chosen)}
