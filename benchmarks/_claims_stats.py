"""Means over people with 95 % intervals, paired differences, and what follows for a claim."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

DRAWS = 10_000
LEAST_PEOPLE = 5
"""With fewer people nothing is decided."""
HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"

Values = Mapping[int, float]
"""A person's seed → a figure of that person, customization seeds averaged."""


@dataclass(frozen=True)
class Interval:
    """A mean over people and where it lies in 95 % of the draws, `low` to `high`."""

    mean: float
    low: float
    high: float
    people: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Claim:
    """A claim held against the figures.

    Attributes:
        claim: in words.
        verdict: `HOLDS`, `FAILS` or `OPEN`.
        why: the rule that decided.
        figures: what was compared, by name.
    """

    claim: str
    verdict: str
    why: str
    figures: Mapping[str, Interval] = field(default_factory=dict)


def interval(values: Values) -> Interval | None:
    """The mean over people, with a percentile bootstrap over people; None without any.

    The draws are the same for everything with as many people, so that a figure never depends on the order of work.
    """
    table = np.array([values[who] for who in sorted(values)], np.float64)
    if not table.size:
        return None
    return _interval(table.mean(), table[_draws(table.size)].mean(1), table.size)


def difference(values: Values, against: Values) -> Interval | None:
    """The mean of `values - against` over the people whom both have."""
    return interval({who: values[who] - against[who] for who in values.keys() & against.keys()})


def ratio(above: Values, below: Values) -> Interval | None:
    """Mean of `above` over mean of `below`, people drawn together; None without people or where `below` may be 0."""
    common = sorted(above.keys() & below.keys())
    top, bottom = (np.array([part[who] for who in common], np.float64) for part in (above, below))
    if not common:
        return None
    draws = _draws(len(common))
    bottoms = bottom[draws].mean(1)
    if bottoms.min() <= 0:
        return None
    return _interval(top.mean() / bottom.mean(), top[draws].mean(1) / bottoms, len(common))


def _interval(mean: float, drawn: np.ndarray, people: int) -> Interval:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(mean), float(low), float(high), people)


def _draws(people: int) -> np.ndarray:
    return np.random.default_rng(0).integers(people, size=(DRAWS, people))


# ------------------------------------------------------------------------------------------------------------- claims


def not_below(claim: str, values: Values, against: Values, names: Sequence[str]) -> Claim:
    """Whether the paired difference is nowhere below 0 (holds), everywhere below it (does not), or neither."""
    return _by_sign(claim, values, against, names, strict=False)


def above(claim: str, values: Values, against: Values, names: Sequence[str]) -> Claim:
    """Whether the paired difference is everywhere above 0 (holds), nowhere (does not), or neither."""
    return _by_sign(claim, values, against, names, strict=True)


def _by_sign(claim: str, values: Values, against: Values, names: Sequence[str], *, strict: bool) -> Claim:
    gap = difference(values, against)
    if gap is None:
        return Claim(claim, OPEN, "not measured")
    figures = {**_both(values, against, names), "difference": gap}
    if gap.people < LEAST_PEOPLE:
        return Claim(claim, OPEN, _few(gap), figures)
    if gap.low > 0 or (not strict and gap.low >= 0):
        return Claim(claim, HOLDS, "the interval of the paired difference lies above 0", figures)
    if gap.high < 0 or (strict and gap.high <= 0):
        return Claim(claim, FAILS, "the interval of the paired difference lies below 0", figures)
    return Claim(claim, OPEN, "the interval of the paired difference holds 0", figures)


def ordered(claim: str, lower: Values, upper: Values, names: Sequence[str]) -> Claim:
    """Whether `lower < upper` with intervals that do not overlap; `names` are those of the two, in this order.

    It does not hold if the paired difference is nowhere above 0; intervals that overlap decide nothing else.
    """
    gap = difference(upper, lower)
    one, other = interval(lower), interval(upper)
    if gap is None or one is None or other is None:
        return Claim(claim, OPEN, "not measured")
    figures = {names[0]: one, names[1]: other, "difference": gap}
    if min(one.people, other.people) < LEAST_PEOPLE:
        return Claim(claim, OPEN, _few(gap), figures)
    if one.high < other.low:
        return Claim(claim, HOLDS, "the intervals do not overlap", figures)
    if gap.high <= 0:
        return Claim(claim, FAILS, "the paired difference is nowhere above 0", figures)
    paired = "although the paired difference is above 0" if gap.low > 0 else "and so does the paired difference with 0"
    return Claim(claim, OPEN, f"the intervals overlap, {paired}", figures)


def won_back(claim: str, method: Values, loser: Values, base: Values, share: float) -> Claim:
    """Whether `(method - loser) / (base - loser)` is at least `share`."""
    common = method.keys() & loser.keys() & base.keys()
    lost, won = ({who: part[who] - loser[who] for who in common} for part in (base, method))
    loss, gain = interval(lost), interval(won)
    if loss is None or gain is None:
        return Claim(claim, OPEN, "not measured")
    figures = {"lost": loss, "won back": gain}
    if loss.people < LEAST_PEOPLE:
        return Claim(claim, OPEN, _few(loss), figures)
    found = ratio(won, lost)
    if loss.low <= 0 or found is None:
        return Claim(claim, OPEN, "it is not clear that anything was lost: a share of it means nothing", figures)
    figures["share"] = found
    if found.low >= share:
        return Claim(claim, HOLDS, f"the interval of the share lies above {share:g}", figures)
    if found.high < share:
        return Claim(claim, FAILS, f"the interval of the share lies below {share:g}", figures)
    return Claim(claim, OPEN, f"the interval of the share holds {share:g}", figures)


def together(claim: str, parts: Sequence[Claim]) -> Claim:
    """A claim that holds if all its parts do, and does not if one of them does not."""
    found = {part.verdict for part in parts}
    verdict = FAILS if FAILS in found else HOLDS if found == {HOLDS} else OPEN
    why = "; ".join(f"{part.claim}: {part.verdict}" for part in parts)
    figures = {f"{part.claim}, {name}": value for part in parts for name, value in part.figures.items()}
    return Claim(claim, verdict, why, figures)


def _both(values: Values, against: Values, names: Sequence[str]) -> dict[str, Interval]:
    found = zip(names, (interval(values), interval(against)), strict=True)
    return {name: part for name, part in found if part is not None}


def _few(found: Interval) -> str:
    return f"too few people to decide: {found.people}, and {LEAST_PEOPLE} are needed"
