"""Rewards: the 1-10 scale, dominance and Pareto fronts."""

import numpy as np


def scale(raw: np.ndarray) -> np.ndarray:
    """Raw rewards `(N, R)` of one repository → the 1-10 scale, each column linear from its minimum to its maximum.

    A constant column becomes 5.5. The paper names the range only; linear is our choice.
    """
    if not len(raw):
        return raw.astype(np.float64)
    low, span = raw.min(axis=0), np.ptp(raw, axis=0)
    return np.where(span > 0, 1 + 9 * ((raw - low) / np.where(span > 0, span, 1)), 5.5)


def dominates(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether rewards `a` `(..., R)` are at least `b` in all and above it in one."""
    return np.all(a >= b, axis=-1) & np.any(a > b, axis=-1)


def upper_front(points: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Mask `(N,)` of the points `(N, R)`, R ≤ 3, that no other point of the same group dominates.

    O(N log² N) time and O(N) memory whatever the size of the fronts. Equal points share their fate.
    """
    n, columns = points.shape
    if columns > 3:
        raise ValueError(f"fronts of at most 3 rewards are supported, not {columns}")
    ranks = np.zeros((4, n), dtype=np.int64)  # group, then rewards with the best first
    for row, values in enumerate([np.zeros(n) if groups is None else groups, *(-points).T]):
        ranks[row] = np.unique(values, return_inverse=True)[1]
    order = np.lexsort(ranks[::-1])
    ranks = ranks[:, order]
    new = np.ones(n, dtype=bool)
    new[1:] = np.any(ranks[:, 1:] != ranks[:, :-1], axis=0)
    group, _, y, z = ranks[:, new]
    # Whoever dominates a point comes before it in this order, and of those before it, only one that is as good in the
    # other two rewards does. The offset keeps groups apart: a height of an earlier group is below all of a later one.
    dominated = _dominated(y, group * n + (n - 1 - z))
    mask = np.empty(n, dtype=bool)
    mask[order] = ~dominated[np.cumsum(new) - 1]
    return mask


def lower_front(points: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Mask `(N,)` of the points that dominate no other point of their group: the front of the negated rewards."""
    return upper_front(-points, groups)


def _dominated(key: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Whether an earlier item has a key at most as large and a height at least as large, by merging halves."""
    n = len(key)
    total = 1 << max(n - 1, 0).bit_length()
    key = np.pad(key, (0, total - n), constant_values=np.iinfo(np.int64).max)
    height = np.pad(height, (0, total - n), constant_values=-1)
    found = np.zeros(total, dtype=bool)
    width = 2
    while width <= total:
        order = np.argsort(key.reshape(-1, width), axis=1, kind="stable")
        earlier = order < width // 2
        order += np.arange(0, total, width)[:, None]
        heights = height[order]
        best = np.maximum.accumulate(np.where(earlier, heights, -1), axis=1)
        found[order[~earlier & (best >= heights)]] = True
        width *= 2
    return found[:n]
