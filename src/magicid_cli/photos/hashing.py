"""Which photos are nearly the same picture."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

NEAR_DUPLICATE_BITS = 8
"""Photos whose `perceptual_hash` differs in at most so many of 64 bits count as the same picture: saving again,
scaling, relighting and cutting 3 % off every edge change up to 8, another framing over 12, another picture about 32."""


def perceptual_hash(rgb: "np.ndarray") -> int:
    """64 bits that stay nearly the same when a picture is scaled, compressed or made a little brighter.

    The picture is shrunk to 32 × 32 grey; each bit tells whether one of the 8 × 8 lowest coefficients of its discrete
    cosine transform is above their median (the mean brightness left out).

    Args:
        rgb: uint8 `(H, W, 3)`.
    """
    import numpy as np
    from PIL import Image

    grey = np.asarray(Image.fromarray(rgb).convert("L").resize((32, 32), Image.Resampling.BOX), np.float64)
    frequency, position = np.arange(8)[:, None], np.arange(32)[None, :]
    basis = np.cos(np.pi * frequency * (2 * position + 1) / 64)
    coefficients = (basis @ grey @ basis.T).ravel()
    coefficients[0] = np.median(coefficients[1:])
    bits = coefficients > coefficients[0]
    return sum(1 << position for position in np.flatnonzero(bits).tolist())


def hash_distance(one: int, other: int) -> int:
    """In how many bits two hashes differ."""
    return (one ^ other).bit_count()
