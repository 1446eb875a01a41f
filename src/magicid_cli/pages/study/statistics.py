"""Win rates with intervals, and how far raters agree."""

from collections.abc import Hashable, Sequence

import numpy as np

DRAWS = 10_000
WITHIN = (2.5, 97.5)
"""Percentiles of the draws between which an interval lies."""


def win_rates(shares: np.ndarray) -> np.ndarray:
    """The mean share of each method over all answers that there are: `(M,)`, NaN without an answer.

    Args:
        shares: `(raters, sets, M)`; of an answer 1 for the method that was chosen, or 1 / M for each where none was,
            so that they add up to 1; NaN where there is no answer.
    """
    return _mean(shares, np.ones((1, shares.shape[0])), np.ones((1, shares.shape[1])))[0]


def intervals(shares: np.ndarray) -> np.ndarray:
    """95 % intervals of the win rates, had there been other raters and other sets: `(M, 2)`.

    A percentile bootstrap: as many raters and, apart from that, as many sets as there are, both drawn with replacement.
    An answer counts as often as its rater was drawn, times as often as its set was. To draw answers alone would take
    forty answers of one person for those of forty. The draws are the same in every run.

    Args:
        shares: as in `win_rates`.
    """
    random = np.random.default_rng(0)
    raters, sets = (random.multinomial(n, np.full(n, 1 / n), DRAWS).astype(float) for n in shares.shape[:2])
    found = _mean(shares, raters, sets)
    found = found[np.isfinite(found).all(axis=1)]  # a draw may hold no answer at all
    return np.percentile(found, WITHIN, axis=0).T if len(found) else np.full((shares.shape[2], 2), np.nan)


def _mean(shares: np.ndarray, raters: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Weighted means of the answers that there are: weights `(D, raters)` and `(D, sets)` → `(D, M)`."""
    there = np.isfinite(shares[:, :, 0]).astype(float)
    number = ((raters @ there) * sets).sum(axis=1)
    sums = [((raters @ np.nan_to_num(shares[:, :, m])) * sets).sum(axis=1) for m in range(shares.shape[2])]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.stack(sums, axis=1) / number[:, None])


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Krippendorff's alpha for answers without an order: 1 if all agree, 0 if they agree as often as by chance.

    Alpha is 1 - Do / De. Every pair of answers within a unit of m answers counts 1 / (m - 1). Do is the share of pairs
    within units that differ; De is the share that would differ if all paired answers were dealt out anew:
    `1 - sum(n_c (n_c - 1)) / (n (n - 1))` with n_c answers of kind c among n. (Krippendorff, Content Analysis, ch. 12.)

    Args:
        units: for each set the answers that were given; a unit with fewer than two says nothing of agreement.

    Returns:
        None where alpha is not defined: no unit with two answers, or only one kind of answer in all.
    """
    paired = [list(unit) for unit in units if len(unit) >= 2]
    totals: dict[Hashable, int] = {}
    observed = 0.0
    for unit in paired:
        counts = {kind: unit.count(kind) for kind in unit}
        alike = sum(number * (number - 1) for number in counts.values())
        observed += (len(unit) * (len(unit) - 1) - alike) / (len(unit) - 1)
        for kind, number in counts.items():
            totals[kind] = totals.get(kind, 0) + number
    n = sum(totals.values())
    expected = n * (n - 1) - sum(number * (number - 1) for number in totals.values())
    return 1 - (observed / n) / (expected / (n * (n - 1))) if expected else None
