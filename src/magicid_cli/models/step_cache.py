"""Denoising steps that reuse the steps before: faster sampling of other videos, so only where it is asked for.

Through diffusers' own hooks. A step that is not computed whole costs at most the first block.

- `first-block`: every step runs the first block; where what it adds has changed by less than the strength since the
  last whole step, what all other blocks added then is taken again.
- `magcache`: what all blocks add shrinks from step to step by ratios that hardly depend on the prompt. Known ratios
  tell the error of taking the last whole step's again; while errors add up to no more than the strength, it is taken.
  Whatever the strength, the first fifth of the steps is whole, and no more than three in a row are not.
- `taylorseer`: after a whole step the model's output goes on along the straight line through the last two whole steps;
  the strength is how many steps there are from one whole step to the next. The first three steps and the fifth are
  always whole, and the intervals begin with the fifth. The lite form, on the output alone: the
  other one keeps two outputs of every block, on which no memory plan counts. Output and line are in the model's number
  type: diffusers takes the difference in it, whatever type it is then kept in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig, TaylorSeerCacheConfig

from magicid_cli.models.base import StepCache


@contextmanager
def steps_reused(transformer: Any, cache: StepCache | None, steps: int) -> Iterator[None]:
    """Sample with the cache inside the block.

    Args:
        transformer: the denoiser.
        cache: which one; None computes every step whole.
        steps: of a video.
    """
    if cache is None:
        yield
        return
    transformer.enable_cache(_config(cache, steps, transformer.proj_out.weight.dtype))
    try:
        yield
    finally:
        transformer.disable_cache()


def _config(
    cache: StepCache, steps: int, dtype: torch.dtype
) -> FirstBlockCacheConfig | MagCacheConfig | TaylorSeerCacheConfig:
    if cache.kind == "first-block":
        return FirstBlockCacheConfig(threshold=cache.strength)
    if cache.kind == "magcache":
        assert len(cache.ratios) == steps, "ratios are measured with the steps of the video"
        return MagCacheConfig(threshold=cache.strength, num_inference_steps=steps, mag_ratios=list(cache.ratios))
    if cache.kind == "taylorseer":
        return TaylorSeerCacheConfig(cache_interval=int(cache.strength), taylor_factors_dtype=dtype, use_lite_mode=True)
    raise ValueError(f"unknown kind of step cache: {cache.kind}")


@contextmanager
def residual_ratios(transformer: Any) -> Iterator[list[float]]:
    """Measure the ratios that `magcache` needs, on a video that is sampled whole inside the block.

    A step's ratio is that of the length of what all blocks add to a token of the video to the same in the step before,
    its mean over the tokens (MagCache, arXiv 2506.09045, as diffusers calibrates it); 1 for the first step.
    """
    ratios: list[float] = []
    entered: list[torch.Tensor] = []
    before: list[torch.Tensor] = []

    def enter(_: Any, inputs: tuple[Any, ...]) -> None:
        entered[:] = inputs[:1]

    def leave(_: Any, __: Any, outputs: tuple[torch.Tensor, ...]) -> None:
        length = torch.linalg.vector_norm((outputs[0] - entered[0]).float(), dim=-1)
        ratios.append(float((length / (before[0] + 1e-8)).mean()) if before else 1.0)
        before[:] = [length]

    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    handles = [blocks[0].register_forward_pre_hook(enter), blocks[-1].register_forward_hook(leave)]
    try:
        yield ratios
    finally:
        for handle in handles:
            handle.remove()
