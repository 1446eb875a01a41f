"""Parts of pictures for networks: a square, or a face turned upright by a similarity transform of its landmarks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity transform that maps points with the least squared error (Umeyama 1991, equations 40 to 42).

    Args:
        source: (N, 2) points.
        target: (N, 2) points.

    Returns:
        (2, 3) matrix `[s·R | t]`: rotation (never a reflection), uniform scale, translation.
    """
    source, target = source.astype(np.float64), target.astype(np.float64)
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred = source - source_mean
    left, singular, right = np.linalg.svd((target - target_mean).T @ centred / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    scale = (singular * signs).sum() / max(centred.var(0).sum(), 1e-12)
    rotation = scale * (left * signs) @ right
    return np.column_stack([rotation, target_mean - rotation @ source_mean])


def aligned(image: np.ndarray, landmarks: np.ndarray, template: np.ndarray, side: int) -> np.ndarray:
    """A face turned and scaled so that its landmarks fall on a template.

    A face much larger than the crop is first shrunk by area: sampling it directly would alias.

    Args:
        image: uint8 `(H, W, 3)`.
        landmarks: (N, 2) in pixels of the picture.
        template: (N, 2) where they shall lie, in pixels of the crop.
        side: of the crop, in pixels.

    Returns:
        uint8 `(side, side, 3)`; black outside the picture.
    """
    matrix = similarity(landmarks, template)
    image, factors = _shrunk(image, float(np.hypot(matrix[0, 0], matrix[1, 0])))
    # Pixel centres lie at whole numbers: shrinking maps x to (x + 0.5) · f - 0.5.
    landmarks = (landmarks.astype(np.float64) + 0.5) * factors - 0.5
    return _warped(image, similarity(landmarks, template), side)


def square(image: np.ndarray, corner: np.ndarray, side: float, pixels: int) -> np.ndarray:
    """A square part of a picture at another size, black where it reaches outside.

    Args:
        image: uint8 `(H, W, 3)`.
        corner: x, y of the part's upper left corner; the picture's own is 0, 0 (and its first pixel's centre 0.5, 0.5).
        side: of the part, in pixels of the picture.
        pixels: side of the result.

    Returns:
        uint8 `(pixels, pixels, 3)`.
    """
    image, factors = _shrunk(image, pixels / side)
    scale = pixels / side / factors
    shift = (0.5 - corner * factors) * scale - 0.5
    return _warped(image, np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]]), pixels)


def _shrunk(image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture made smaller by area, if it will be sampled at less than half its size; and by what in x and y."""
    if scale >= 0.5:
        return image, np.ones(2)
    height, width = image.shape[:2]
    size = max(1, round(width * 2 * scale)), max(1, round(height * 2 * scale))
    smaller = opencv().resize(image, size, interpolation=opencv().INTER_AREA)
    return smaller, np.array(size) / (width, height)


def _warped(image: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(opencv().warpAffine(image, matrix, (side, side), flags=opencv().INTER_LINEAR))


def opencv() -> Any:
    """OpenCV without its remarks on stderr: what goes wrong arrives as an exception."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


@contextmanager
def one_thread_each() -> Iterator[None]:
    """OpenCV on one thread: judges may run side by side, and no score may depend on the number of cores."""
    cv2 = opencv()
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
