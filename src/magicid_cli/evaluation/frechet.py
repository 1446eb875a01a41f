"""Fréchet distance between two sets of features, and what it would be with infinitely many videos."""

from typing import Any

import numpy as np

LEAST_TO_EXTRAPOLATE = 10
"""Fewer videos of either set give no line."""
_SIZES, _SUBSETS = 6, 8


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The squared Fréchet (2-Wasserstein) distance of the Gaussians with two sets' means and covariances.

    `|m₁ - m₂|² + Tr C₁ + Tr C₂ - 2 Tr (C₁ C₂)^½`, covariances with N - 1 in the denominator. With centred features
    `A = (X - m₁) / √(N - 1)` and `B` likewise, `C₁ = AᵀA` and `C₂ = BᵀB`, and the last trace is the sum of the singular
    values of `A Bᵀ`: no square root of a matrix, which is ill-conditioned where there are fewer videos than features.

    Args:
        one: `(N, D)`, N > 1.
        other: `(M, D)`, M > 1.

    Raises:
        ValueError: for fewer than two rows, or other shapes.
    """
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or min(len(one), len(other)) < 2:
        raise ValueError(f"features must be (N, D) and (M, D) with N, M > 1, not {one.shape} and {other.shape}")
    one, other = one.astype(np.float64), other.astype(np.float64)
    gap = one.mean(0) - other.mean(0)
    factors = [_factor(part) for part in (one, other)]
    spread = sum(float((part * part).sum()) for part in factors)
    shared = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    return max(0.0, float(gap @ gap + spread - 2 * shared))


def _factor(features: np.ndarray) -> np.ndarray:
    """A with `AᵀA` the covariance, of at most D rows."""
    centred = (features - features.mean(0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred


def extrapolated(one: np.ndarray, other: np.ndarray) -> dict[str, Any] | None:
    """The distance without the bias of small sets (Chong and Forsyth 2020, FVD as their FID).

    The distance of finite sets is too large by about `a / N + b / M`. Subsets of both, of the same share `s`, are too
    large by `1 / s` times that: the distances of subsets lie on a line in `1 / s`, and where the line meets `1 / s = 0`
    is the distance of infinite sets.

    Args:
        one: `(N, D)`.
        other: `(M, D)`.

    Returns:
        `value`, at infinity (it may be a little below 0); `points`, videos of the first set and the mean distance of
        subsets of that size; `error`, the root mean square of the points about the line. None if either set has fewer
        than `LEAST_TO_EXTRAPOLATE`.
    """
    if min(len(one), len(other)) < LEAST_TO_EXTRAPOLATE:
        return None
    random = np.random.default_rng(0)
    inverse, found, points = [], [], []
    for share in np.linspace(0.5, 1.0, _SIZES):
        sizes = [max(2, round(share * len(part))) for part in (one, other)]
        times = 1 if sizes == [len(one), len(other)] else _SUBSETS
        drawn = [
            distance(one[random.permutation(len(one))[: sizes[0]]], other[random.permutation(len(other))[: sizes[1]]])
            for _ in range(times)
        ]
        # What was really drawn: rounded sizes are not the share's, and would bend the line.
        inverse.append(float(np.mean([len(one) / sizes[0], len(other) / sizes[1]])))
        found.append(float(np.mean(drawn)))
        points.append([sizes[0], found[-1]])
    slope, value = np.polyfit(inverse, found, 1)
    error = float(np.sqrt(np.mean((np.polyval([slope, value], inverse) - found) ** 2)))
    return {"value": float(value), "points": points, "error": error}
