"""The camera's part of a flow field: the affine motion that most of the picture follows.

A camera that pans, turns or zooms moves the whole picture by an affine map (up to perspective, which is small between
two frames). It is found by a random sample consensus whose samples are always the same, so that a score can be
repeated, and sharpened by iteratively reweighted least squares.
"""

import functools

import cv2
import numpy as np

_STEP = 8  # the fit looks at every eighth pixel of every eighth row
_SAMPLES = 160  # with 40 % of the picture on the camera's side, all fail once in 40,000 pairs of frames
# A vector follows the camera if it differs by less than this many pixels, and this share of its own length.
_TOLERANCE, _RELATIVE = 0.5, 0.05
_REFITS = 10
# What must follow it: this share of the weight, in this share of the cells of a grid of 8 x 8. Below that no motion is
# common to the picture: after a cut, or when an arm waves before an empty wall.
_SUPPORT, _SPREAD, _CELLS = 0.1, 0.3, 8
_SEEN = 0.1  # a point's texture counts for a cell from here on
# Weight of a point in the middle of the picture, where people are; it is 1 at the left, upper and right border and
# falls over half of the shorter half.
_MIDDLE = 0.2
# Gradient, in grey levels per pixel in its weakest direction, that gives a point half its weight: on a plain wall and
# along a straight edge the flow is a guess.
_TEXTURE = 2.0


def camera_field(flow: np.ndarray, trusted: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """The camera's motion in every pixel.

    Args:
        flow: `(H, W, 2)` in pixels.
        trusted: bool `(H, W)`, where the flow is to be believed.
        grey: the first frame, uint8 `(H, W)`.

    Returns:
        An affine field, float32 `(H, W, 2)`; zero if no motion is common to the picture.
    """
    height, width = grey.shape
    basis, prior, cells = _grid(height, width)
    at = slice(_STEP // 2, None, _STEP)
    believed = trusted[at, at].ravel()
    texture = _texture(grey)[at, at].ravel()
    whole = float((prior * texture).sum())
    points, cells, seen = basis[believed], cells[believed], texture[believed] > _SEEN
    weights = (prior * texture)[believed]
    moved = flow[at, at][trusted[at, at]].astype(np.float64)
    if len(points) < 3:
        return np.zeros_like(flow)
    tolerance = (_TOLERANCE + _RELATIVE * np.hypot(moved[:, 0], moved[:, 1])) ** 2
    best = _consensus(points, moved, weights, tolerance)
    for _ in range(_REFITS):
        near = _nearness(points, moved, tolerance, best)
        spread = len(np.unique(cells[seen & (near > 0)])) / _CELLS**2
        if float((weights * near).sum()) < _SUPPORT * whole or spread < _SPREAD:
            return np.zeros_like(flow)
        best = _solved(points, moved, weights * near**2)
    column, row = _axes(height, width)
    parts = [best[0, axis] + best[1, axis] * column + best[2, axis] * row for axis in (0, 1)]
    return np.stack(parts, axis=-1).astype(np.float32)


def _consensus(points: np.ndarray, moved: np.ndarray, weights: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Of the affine maps through three points each, and of no motion at all, the one that most of the weight follows.

    Args:
        points: `(N, 3)`: 1, x, y.
        moved: `(N, 2)`, the vectors there.
        weights: `(N,)`.
        tolerance: `(N,)`, squared pixels.

    Returns:
        `(3, 2)`; `points @ map` are the vectors.
    """
    share = np.cumsum(weights) / weights.sum()
    chosen = np.minimum(np.searchsorted(share, _draws()), len(points) - 1)
    corners = points[chosen]
    wide = np.abs(np.linalg.det(corners)) > 0.1  # three points on a line, or close together, say little
    maps = np.concatenate([np.zeros((1, 3, 2)), np.linalg.solve(corners[wide], moved[chosen[wide]])])
    support = [float((weights * _nearness(points, moved, tolerance, one)).sum()) for one in maps]
    return np.asarray(maps[int(np.argmax(support))])


def _nearness(points: np.ndarray, moved: np.ndarray, tolerance: np.ndarray, one: np.ndarray) -> np.ndarray:
    """How closely each vector follows a map: 1 exactly, 0 at the tolerance and beyond."""
    off = points @ one - moved
    near: np.ndarray = np.clip(1 - (off * off).sum(1) / tolerance, 0, None)
    return near


def _solved(points: np.ndarray, moved: np.ndarray, weights: np.ndarray) -> np.ndarray:
    weighted = points * weights[:, None]
    # The small term keeps it solvable where all points with weight lie on a line.
    return np.linalg.solve(weighted.T @ points + 1e-9 * weights.sum() * np.eye(3), weighted.T @ moved)


def _texture(grey: np.ndarray) -> np.ndarray:
    """What a point's flow is worth, 0.001 to 1: by the gradient in the weakest direction of its neighbourhood."""
    # OpenCV's unit: four times the mean squared gradient, of grey levels from 0 to 1.
    weakest = cv2.cornerMinEigenVal(grey, 9)
    return np.asarray(np.maximum(weakest / (weakest + 4 * (_TEXTURE / 255) ** 2), 1e-3))


@functools.lru_cache(4)
def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """1, x, y `(N, 3)` of the points looked at, what their place makes them worth `(N,)`, and their cells `(N,)`."""
    column, row = _axes(height, width)
    at = slice(_STEP // 2, None, _STEP)
    x, y = (part.ravel() for part in np.broadcast_arrays(column[:, at], row[at]))
    inward = np.minimum(width / min(height, width) - np.abs(x), y + height / min(height, width))
    prior = 1 - (1 - _MIDDLE) * np.clip(inward / 0.5, 0, 1)
    cells = np.floor((y / np.abs(row).max() + 1) / 2.001 * _CELLS) * _CELLS
    cells += np.floor((x / np.abs(column).max() + 1) / 2.001 * _CELLS)
    return np.stack([np.ones_like(x), x, y], axis=1).astype(np.float64), prior, cells


def _axes(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns `(1, W)` and rows `(H, 1)` from the centre, in units of half the shorter side."""
    unit = min(height, width) / 2
    return (np.arange(width) - (width - 1) / 2)[None] / unit, (np.arange(height) - (height - 1) / 2)[:, None] / unit


@functools.lru_cache(1)
def _draws() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(0)).random((_SAMPLES, 3))
