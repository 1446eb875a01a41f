"""HunyuanVideo's attention without its mask, on a kernel that is known by name.

diffusers always builds a boolean mask for the padded text. With a mask, even one that hides nothing, no flash attention
kernel may run. One sample whose text was cut to its true length has nothing to hide: passing no mask is then exact. On
a CPU it is the cut that matters: a short video has fewer tokens than a padded prompt. In a batch whose texts differ in
length, attention is the only thing that would mix padding with the rest, so there each sample attends by itself.

A kernel is called through one function of queries, keys and values `(B, N, heads, width)`, and torch is told to use
that kernel and no other: where it cannot, it raises, and never computes the slow way unseen.
"""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from magicid_cli.errors import memory_told
from magicid_cli.models import kernels
from magicid_cli.models.execution import Kernel
from magicid_cli.models.keeping import is_attention, operators

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

_BACKENDS: dict[Kernel, SDPBackend] = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "torch-flash": SDPBackend.FLASH_ATTENTION,
    "torch-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
# A trial's tokens: no multiple of anything, as videos and prompts of any length are none; and the largest difference
# from the same attention in float64, in units of the largest value: two bfloat16 roundings.
_TRIAL_TOKENS, _TRIAL_ERROR = 259, 2.0**-6


class Processor:
    """Attention of a block, in both its forms, without a mask and without padding.

    Args:
        attend: the kernel.
    """

    def __init__(self, attend: Attend) -> None:
        self.attend = attend

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Video (B, N, C) and text (B, n, C) of a sample attend to each other.

        Args:
            attn: the block's layers.
            hidden_states: of the video's tokens.
            encoder_hidden_states: of the text's tokens.
            attention_mask: diffusers' own; ignored, for it hides nothing.
            image_rotary_emb: cosines and sines of the video's positions.

        Returns:
            What was (B, N, C) and (B, n, C), before the single-stream block's output layer, after the other's.
        """
        video = hidden_states.shape[1]
        if attn.add_q_proj is None:
            both = torch.cat([hidden_states, encoder_hidden_states], dim=1)
            found = [_heads(attn, layer(both)) for layer in (attn.to_q, attn.to_k, attn.to_v)]
            query, key, value = _normed(found, attn.norm_q, attn.norm_k)
            query, key = (_rotated(states, image_rotary_emb, video) for states in (query, key))
        else:
            found = [_heads(attn, layer(hidden_states)) for layer in (attn.to_q, attn.to_k, attn.to_v)]
            query, key, value = _normed(found, attn.norm_q, attn.norm_k)
            query, key = (_rotated(states, image_rotary_emb, video) for states in (query, key))
            layers = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
            text = _normed(
                [_heads(attn, layer(encoder_hidden_states)) for layer in layers], attn.norm_added_q, attn.norm_added_k
            )
            query, key, value = (torch.cat(pair, dim=1) for pair in zip((query, key, value), text, strict=True))
        out = self.attend(query, key, value).flatten(2, 3).to(query.dtype)
        of_video, of_text = out[:, :video], out[:, video:]
        if getattr(attn, "to_out", None) is not None:
            of_video = attn.to_out[1](attn.to_out[0](of_video))
        if getattr(attn, "to_add_out", None) is not None:
            of_text = attn.to_add_out(of_text)
        return of_video, of_text


class EachAlone:
    """A kernel for samples whose texts differ in length: the tokens of each attend among themselves, padding to none.

    No kernel needs a mask for it, and a video alone has tokens enough to fill a GPU. For sampling: without gradients.

    Args:
        attend: the kernel.

    Attributes:
        texts: tokens of each sample's text; the longest is what the others are padded to. Empty: nothing is padded.
    """

    def __init__(self, attend: Attend) -> None:
        self.attend = attend
        self.texts: tuple[int, ...] = ()

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Attention of `(B, N, heads, width)`, the text last; zeros where there is padding."""
        if len(set(self.texts)) < 2:
            return self.attend(query, key, value)
        assert len(self.texts) == len(query), "a text's length for each sample"
        out = torch.zeros_like(query)
        for number, text in enumerate(self.texts):
            tokens = query.shape[1] - max(self.texts) + text
            one = (slice(number, number + 1), slice(0, tokens))
            out[one] = self.attend(query[one], key[one], value[one])
        return out


def _heads(attn: Any, states: torch.Tensor) -> torch.Tensor:
    return states.unflatten(2, (attn.heads, -1))


def _normed(found: list[torch.Tensor], norm_q: Any, norm_k: Any) -> list[torch.Tensor]:
    """Query and key after their norms, value as it is."""
    query, key, value = found
    return [query if norm_q is None else norm_q(query), key if norm_k is None else norm_k(key), value]


def _rotated(states: torch.Tensor, rotary: Any, video: int) -> torch.Tensor:
    """The video's tokens rotated by their positions; text after them has none."""
    turned = apply_rotary_emb(states[:, :video], rotary, sequence_dim=1)
    return turned if states.shape[1] == video else torch.cat([turned, states[:, video:]], dim=1)


def attend_without_mask(transformer: Any, attend: Attend = scaled_dot_product_attention) -> None:
    """Let every token of the blocks see every other; from then on, conditions must come without padding.

    Args:
        transformer: the denoiser.
        attend: the kernel; by default torch's own choice, as before a kernel is chosen.
    """
    if attend is scaled_dot_product_attention:
        attend = partial(_torch_attention, None)
    processor = Processor(attend)
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
        block.attn.set_processor(processor)


# ------------------------------------------------------------------------------------------------------------- kernels


def kernel(name: Kernel) -> Attend:
    """The function of a kernel.

    Raises:
        ImportError: its package is missing or does not fit this torch.
    """
    if name == "flash-3":
        from flash_attn_interface import flash_attn_func as flash_3

        return partial(_package_attention, flash_3)
    if name == "flash-2":
        from flash_attn import flash_attn_func as flash_2

        return partial(_package_attention, flash_2)
    return partial(_torch_attention, _BACKENDS[name])


def _torch_attention(
    backend: SDPBackend | None, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    query, key, value = (states.transpose(1, 2) for states in (query, key, value))
    with nullcontext() if backend is None else sdpa_kernel(backend):
        return scaled_dot_product_attention(query, key, value).transpose(1, 2)


def _package_attention(
    function: Callable[..., Any], query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    # Some versions return the sums of exponentials, too.
    out = function(query, key, value)
    return out[0] if isinstance(out, tuple) else out


def choose(
    wanted: Kernel, *, device: torch.device, dtype: torch.dtype, head_width: int, keepable: bool
) -> kernels.Choice:
    """Try kernels on the device, forward and backward, and take the first that works.

    Args:
        wanted: by name, or `auto`.
        device: where attention will run.
        dtype: of queries, keys and values.
        head_width: numbers a head.
        keepable: whether its output must be seen by selective checkpointing (`models.keeping`).

    Raises:
        MagicIDError: `attention-kernel`.
    """
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None

    def tried(name: Kernel) -> str | None:
        return refusal(name, device, dtype, head_width, keepable=keepable)

    return kernels.choose(wanted, capability, tried)


def refusal(
    name: Kernel, device: torch.device, dtype: torch.dtype, head_width: int, *, keepable: bool = False
) -> str | None:
    """Why a kernel cannot be used here, or None if it can: it runs, computes attention, and can be kept."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3, 1, _TRIAL_TOKENS, 2, head_width, generator=generator).to(dtype)
    states = [one.to(device).requires_grad_(True) for one in drawn]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with memory_told():
                with operators() as seen:
                    out = kernel(name)(*states)
                out.float().square().sum().backward()
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ImportError, TypeError, ValueError, AttributeError, OSError) as error:
            return _reason(error, said)
    exact = [one.double().requires_grad_(True) for one in drawn]
    expected = _torch_attention(SDPBackend.MATH, *exact)
    expected.square().sum().backward()
    pairs = [(out.detach(), expected.detach()), *((a.grad, b.grad) for a, b in zip(states, exact, strict=True))]
    if any(_relative_error(found, true) > _TRIAL_ERROR for found, true in pairs):
        return "its numbers are not those of attention"
    if keepable and not any(map(is_attention, seen)):
        return "its output cannot be kept for the backward pass"
    return None


def _relative_error(found: torch.Tensor | None, true: torch.Tensor | None) -> float:
    assert found is not None and true is not None
    return float((found.cpu().double() - true).abs().max() / true.abs().max())


def _reason(error: Exception, said: list[warnings.WarningMessage]) -> str:
    """The first lines of what torch warned of, which say more than its error does."""
    lines = [str(text).strip().splitlines()[0] for text in (*(one.message for one in said), error) if str(text).strip()]
    return " ".join(dict.fromkeys(line.partition(" (Triggered internally")[0] for line in lines))[:400]
