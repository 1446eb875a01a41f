"""A tiny transformer with two adapters, held in any way, and what a training pass through it gives."""

from pathlib import Path
from typing import Any

import torch

from magicid_cli import adapters
from magicid_cli.models import tiny
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Execution
from magicid_cli.models.hunyuan import Hunyuan

SPEC = adapters.AdapterSpec(rank=4, alpha=4.0, targets="attention+mlp", double_blocks_only=False)
SHAPE = Shape(9, 64, 48)
TOKENS = 9
TIME = torch.tensor([0.6])


def opened(
    folder: Path, execution: Execution | None = None, *, dtype: torch.dtype = torch.float32, arrange: bool = True
) -> Hunyuan:
    """The tiny transformer with `reference` and `policy` on it, both of drawn numbers, the policy trainable."""
    family = Hunyuan(folder, commit="test", device="cpu", dtype=dtype, execution=execution)
    wear(family)
    if arrange:
        family.arrange()
    return family


def wear(family: Hunyuan) -> None:
    """Load the transformer and put both adapters on it."""
    family.load("transformer")
    for seed, name in enumerate(("reference", "policy")):
        adapters.attach(family.transformer, name, SPEC, seed=0)
        generator = torch.Generator().manual_seed(seed)
        values = {
            key: torch.randn(value.shape, generator=generator) / 4
            for key, value in adapters.tensors(family.transformer, name).items()
        }
        adapters.load_tensors(family.transformer, name, values)
    adapters.select(family.transformer, "policy", trainable=True)


def text() -> dict[str, torch.Tensor]:
    """The conditioning of a prompt of `TOKENS` tokens, padded."""
    generator = torch.Generator().manual_seed(3)
    return {
        "prompt_embeds": torch.randn(256, tiny.WIDTH, generator=generator),
        "prompt_attention_mask": (torch.arange(256) < TOKENS).long(),
        "pooled_prompt_embeds": torch.randn(tiny.POOLED_WIDTH, generator=generator),
    }


def clip(seed: int = 0) -> torch.Tensor:
    """Latents."""
    return torch.randn(16, 3, 8, 6, generator=torch.Generator().manual_seed(seed))


def training_pass(family: Hunyuan) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of the policy."""
    x_t, target = family.noised(clip(), clip(1), TIME)
    loss = (family.predict(x_t, TIME, text(), 1.0) - target).square().mean()
    loss.backward()
    return loss.detach(), taken(family)


def taken(family: Hunyuan) -> dict[str, torch.Tensor]:
    """The policy's gradients, which are then gone."""
    found = {}
    for key, parameter in adapters.parameters(family.transformer, "policy").items():
        assert parameter.grad is not None, key
        found[key], parameter.grad = parameter.grad, None
    return found


def same(ours: Any, theirs: Any) -> bool:
    """Whether two training passes gave the same bits."""
    (loss, gradients), (other_loss, other) = ours, theirs
    return bool(torch.equal(loss, other_loss)) and all(torch.equal(gradients[key], other[key]) for key in other)
