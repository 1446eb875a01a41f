"""What sampling by diffusers' own pipeline needs around it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline


def pipeline(transformer: Any, scheduler: FlowMatchEulerDiscreteScheduler, compression: int) -> HunyuanVideoPipeline:
    """A pipeline of nothing but a transformer, from conditions to latents.

    Args:
        transformer: the denoiser, or what stands for it.
        scheduler: of the steps.
        compression: pixels of a side that become one latent: it would ask the VAE, which is not loaded now.
    """
    absent = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "vae"))
    made = HunyuanVideoPipeline(transformer=transformer, scheduler=scheduler, **absent)
    made.vae_scale_factor_spatial = compression
    made.set_progress_bar_config(disable=True)
    return made


@contextmanager
def evaluating(transformer: Any) -> Iterator[None]:
    """Neither dropout nor anything else of training inside the block."""
    training = transformer.training
    transformer.eval()
    try:
        yield
    finally:
        transformer.train(training)
