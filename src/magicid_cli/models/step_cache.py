"""Denoising steps that reuse the step before: faster sampling of other videos, so only where it is asked for.

First-block cache, through diffusers' own hooks: every step runs the first block; where what it adds has changed by less
than a threshold since the last whole step, what all other blocks added then is taken again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import FirstBlockCacheConfig


@contextmanager
def steps_reused(transformer: Any, threshold: float) -> Iterator[None]:
    """Sample with the first-block cache inside the block.

    Args:
        transformer: the denoiser.
        threshold: largest relative change of the first block's residual at which a step is not computed; 0 for none.
    """
    if threshold <= 0:
        yield
        return
    transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    try:
        yield
    finally:
        transformer.disable_cache()
