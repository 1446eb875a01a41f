"""ID-Animator. Truth: the formula of its adapter's attention and of its resampler, written out here from the tensors
of the checkpoint alone; for the whole, repositories with the real ones' files on a local Hub.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNetMotionModel
from diffusers.models.attention_processor import Attention

import tiny_animator
from magicid_cli.baselines.id_animator import conversion

SCALE = 0.8


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A checkpoint as `conversion.read` gives it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        whole = tiny_animator.checkpoint(tiny_animator.widths())
    return {name.removeprefix("module."): value for name, value in whole.items()}


def motion_unet() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return UNetMotionModel.from_unet2d(tiny_animator.unet(), tiny_animator.motion()).eval()


def split(values: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, N, heads · D) → (B, heads, N, D)."""
    return values.unflatten(-1, (heads, -1)).transpose(1, 2)


def attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)


class FaceAttention:
    """Cross-attention with ID-Animator's adapter, straight from its tensors: nothing is folded."""

    def __init__(self, state: dict[str, torch.Tensor], number: int) -> None:
        prefix = f"adapter_modules.{number}."
        self.own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    def low_rank(self, name: str, values: torch.Tensor) -> torch.Tensor:
        return values @ self.own[f"{name}_lora.down.weight"].T @ self.own[f"{name}_lora.up.weight"].T

    def __call__(
        self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        text, face = encoder_hidden_states.split(
            [encoder_hidden_states.shape[1] - tiny_animator.TOKENS, tiny_animator.TOKENS], 1
        )
        heads = attn.heads
        query = split(attn.to_q(hidden_states) + self.low_rank("to_q", hidden_states), heads)
        key = split(attn.to_k(text) + self.low_rank("to_k", text), heads)
        value = split(attn.to_v(text) + self.low_rank("to_v", text), heads)
        seen = attended(query, key, value)
        face_key, face_value = (split(face @ self.own[f"to_{one}_face.weight"].T, heads) for one in ("k", "v"))
        seen = seen + SCALE * attended(query, face_key, face_value)
        return attn.to_out[0](seen) + self.low_rank("to_out", seen)


def resampled(state: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """The face tokens of CLIP's hidden states `(B, N, IMAGE)`, by the resampler's formula."""
    w = {name.removeprefix("image_proj_model."): value for name, value in state.items()}

    def norm(values: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.layer_norm(values, values.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    source = image @ w["proj_in.weight"].T + w["proj_in.bias"]
    tokens = w["latents"].expand(len(image), -1, -1)
    for layer in range(4):
        here = f"layers.{layer}"
        one, other = norm(source, f"{here}.0.norm1"), norm(tokens, f"{here}.0.norm2")
        key, value = (torch.cat([one, other], 1) @ w[f"{here}.0.to_kv.weight"].T).chunk(2, -1)
        heads = key.shape[-1] // 64
        seen = attended(*(split(part, heads) for part in (other @ w[f"{here}.0.to_q.weight"].T, key, value)))
        tokens = tokens + seen @ w[f"{here}.0.to_out.weight"].T
        wide = norm(tokens, f"{here}.1.0") @ w[f"{here}.1.1.weight"].T
        tokens = tokens + torch.nn.functional.gelu(wide) @ w[f"{here}.1.3.weight"].T
    return norm(tokens @ w["proj_out.weight"].T + w["proj_out.bias"], "norm_out")


@torch.no_grad()
def test_the_converted_adapter_is_the_adapter(state: dict[str, torch.Tensor]) -> None:
    """Through a whole random `UNetMotionModel`, both branches of guidance; and a wrong order of layers would show."""
    generator = torch.Generator().manual_seed(4)
    noisy = torch.randn(2, 4, 2, 8, 8, generator=generator)
    text = torch.randn(2, 7, tiny_animator.TEXT, generator=generator)
    image = torch.randn(2, 17, tiny_animator.IMAGE, generator=generator)

    direct = motion_unet()
    spatial = [name for name in direct.attn_processors if "motion_modules" not in name and "attn2" in name]
    # The authors' order, told from the layers' names and not from any enumeration: down, up, middle.
    spatial.sort(key=lambda name: (("down", "up", "mid").index(name.split("_")[0]), name))
    for index, name in enumerate(spatial):
        layer = direct.get_submodule(name.removesuffix(".processor"))
        assert layer.to_q.out_features == tiny_animator.widths()[index]
        layer.set_processor(FaceAttention(state, 2 * index + 1))
    face = resampled(state, image)
    # One text and one face for every frame of a video, as the pipeline hands them over.
    expected = direct(noisy, 500, torch.cat([text, face], 1).repeat_interleave(2, 0)).sample

    unet = motion_unet()
    conversion.put_on(unet, conversion.convert(state, unet, Path("animator.ckpt")), SCALE)
    added = {"image_embeds": [image[:, None]]}
    found = unet(noisy, 500, text.repeat_interleave(2, 0), added_cond_kwargs=added).sample
    assert (found - expected).abs().max() <= 1e-5
    without = motion_unet()(noisy, 500, text.repeat_interleave(2, 0)).sample
    assert (without - expected).abs().max() > 1e-2
