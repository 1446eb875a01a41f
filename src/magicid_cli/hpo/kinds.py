"""The two kinds of pairs: which candidates may meet, and the rules that such a pair meets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from magicid_cli.hpo.fronts import dominates, lower_front, scale, upper_front
from magicid_cli.hpo.pools import (
    DYNAMICS,
    IDENTITY,
    POSITION,
    SCALED_DYNAMICS,
    SCALED_IDENTITY,
    Pool,
    Rule,
    Run,
    open_pool,
)
from magicid_cli.hpo.votes import Votes

REWARDS = ("identity", "dynamics", "semantics")


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
        fronts: `prompt` or `global`: whose videos the Pareto fronts are of. A pair shares its prompt in both.
        dynamic_rule: `dominating` or `motion-gap`, which needs `dynamics` among the rewards.
        identity_tolerance: identity (1-10 scale) that the winner of a `motion-gap` pair may lack.
    """

    count: int
    identity_share: float
    tau: float | None
    video_cap: int
    rejected_cap: int
    held_out: int
    rewards: tuple[str, ...]
    fronts: str
    dynamic_rule: str
    identity_tolerance: float


@dataclass(frozen=True)
class Table:
    """The candidates and what follows from them alone; `values` has the rows that `pools` names, `(6, N)`.

    `voted` are the pairs that no pool may hold, because people voted on them (`Votes.codes`).
    """

    static: np.ndarray
    prompt: np.ndarray
    photo: np.ndarray
    rank: np.ndarray
    scaled: np.ndarray
    values: np.ndarray
    columns: list[int]
    tau: float | None
    voted: np.ndarray


def table_of(candidates: Candidates, rule: PairRule, votes: Votes) -> Table:
    """Scale the rewards, find τ, order the ids, and note which pairs are voted on."""
    static = np.array([origin == "static" for origin in candidates.origin], dtype=bool)
    rank = np.empty(len(static), dtype=np.int64)
    rank[sorted(range(len(static)), key=lambda n: candidates.ids[n])] = np.arange(len(static))
    scaled = scale(candidates.raw)
    columns = [REWARDS.index(name) for name in rule.rewards]
    tau = None
    if DYNAMICS in columns:
        tau = rule.tau if rule.tau is not None else _median_lead(scaled[:, DYNAMICS], static)
    values = np.vstack([candidates.raw.T, scaled[:, IDENTITY], scaled[:, DYNAMICS], np.arange(len(static))])
    voted = votes.codes(len(static))
    return Table(static, candidates.prompt, candidates.photo, rank, scaled, values, columns, tau, voted)


def _not_voted(table: Table) -> dict[str, Rule]:
    """The rule that keeps pairs out that people have voted on; none where nobody has."""
    number, voted = len(table.static), table.voted
    if not voted.size:
        return {}
    return {"voted": lambda w, r: ~np.isin((w[POSITION] * number + r[POSITION]).astype(np.int64), voted)}


def _median_lead(dynamics: np.ndarray, static: np.ndarray) -> float | None:
    """Median over all (static, sampled) pairs of the sampled video's lead in dynamics."""
    leads = dynamics[~static] - dynamics[static][:, None]
    return float(np.median(leads, overwrite_input=True)) if leads.size else None


def identity_pool(table: Table, members: np.ndarray) -> Pool:
    """(A): every static clip may meet every sampled video."""
    winners, rejected = np.flatnonzero(table.static & members), np.flatnonzero(~table.static & members)
    rejected = rejected[np.lexsort((table.rank[rejected], table.values[IDENTITY, rejected]))]
    run = Run(winners, rejected, np.zeros(len(winners), int), np.full(len(winners), len(rejected)))
    rules = _not_voted(table) | {"identity_not_higher": lambda w, r: w[IDENTITY] > r[IDENTITY]}
    tau = table.tau
    if tau is not None:
        rules["over_tau"] = lambda w, r: r[SCALED_DYNAMICS] - w[SCALED_DYNAMICS] <= tau
    number = len(winners) * len(rejected)
    return open_pool("identity", run, table.values, rules, {"candidates": number}, number)


def motion_pool(table: Table, members: np.ndarray, tolerance: float) -> Pool:
    """(B) by motion gap: every sampled video may meet every other one of its prompt."""
    sampled = np.flatnonzero(~table.static & members)
    run = _by_prompt(table, sampled, sampled, DYNAMICS)
    rules = _not_voted(table) | {
        "no_motion_gap": lambda w, r: w[DYNAMICS] > r[DYNAMICS],
        "identity_lost": lambda w, r: r[SCALED_IDENTITY] - w[SCALED_IDENTITY] <= tolerance,
    }
    videos = np.unique(table.prompt[sampled], return_counts=True)[1]
    number = int((videos * (videos - 1)).sum())
    return open_pool("dynamic", run, table.values, rules, {"candidates": number}, number, SCALED_DYNAMICS)


def _by_prompt(table: Table, winners: np.ndarray, rejected: np.ndarray, reward: int) -> Run:
    """Each winner meets the rejected videos of its prompt, those with the least of a reward first."""
    rejected = rejected[np.lexsort((table.rank[rejected], table.values[reward, rejected], table.prompt[rejected]))]
    runs = [np.searchsorted(table.prompt[rejected], table.prompt[winners], side) for side in ("left", "right")]
    return Run(winners, rejected, *runs)


def dynamic_pool(table: Table, members: np.ndarray, depth: int, fronts: str) -> Pool:
    """(B): the `depth` upper fronts may meet the `depth` lower fronts, within each prompt.

    A member of the first lower front dominates nothing, and nothing dominates one of the first upper front: these never
    win or lose, so two fronts that coincide cost nothing.
    """
    sampled = np.flatnonzero(~table.static & members)
    points, prompt = table.values[table.columns][:, sampled].T, table.prompt[sampled]
    peers = prompt if fronts == "prompt" else np.zeros_like(prompt)
    upper, lower = _levels(upper_front, points, peers, depth), _levels(lower_front, points, peers, depth)
    run = _by_prompt(table, sampled[(upper > 0) & (lower != 1)], sampled[(lower > 0) & (upper != 1)], IDENTITY)
    columns = table.columns
    rules = _not_voted(table) | {"not_dominating": lambda w, r: dominates(w[columns].T, r[columns].T)}
    if DYNAMICS in columns:
        rules["no_more_motion"] = lambda w, r: w[DYNAMICS] > r[DYNAMICS]
    group = np.unique(prompt, return_inverse=True)[1]
    videos, high, low, both = (
        np.bincount(group, weights=mask) for mask in (upper >= 0, upper > 0, lower > 0, (upper > 0) & (lower > 0))
    )
    number, meeting = int((videos * (videos - 1)).sum()), int((high * low - both).sum())
    counts = {"candidates": number, "not_on_front": number - meeting}
    return open_pool("dynamic", run, table.values, rules, counts, meeting)


def _levels(
    front: Callable[[np.ndarray, np.ndarray], np.ndarray], points: np.ndarray, groups: np.ndarray, depth: int
) -> np.ndarray:
    """Number of each point's front from 1 to `depth`, peeled one after the other; 0 beyond."""
    level = np.zeros(len(points), dtype=np.int64)
    for number in range(1, depth + 1):
        rest = np.flatnonzero(level == 0)
        level[rest[front(points[rest], groups[rest])]] = number
    return level
