"""True guidance as one batch of two: the passes of a step with the prompt and with the negative prompt, together.

Exact up to the rounding of sums: everything but attention computes token by token, in attention each sample is by
itself, and diffusers' own mask keeps the padding of the shorter text out of the refiner that both texts pass first.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from magicid_cli.errors import memory_told
from magicid_cli.models.hunyuan_attention import EachAlone
from magicid_cli.models.hunyuan_text import Text

# What diffusers' pipeline calls a condition, and what its transformer does.
_CONDITIONS = {
    "prompt_embeds": "encoder_hidden_states",
    "prompt_attention_mask": "encoder_attention_mask",
    "pooled_prompt_embeds": "pooled_projections",
}
# Of both passes these are the same.
_SHARED = ("hidden_states", "timestep", "guidance")


class OneBatch(nn.Module):
    """Stands in diffusers' pipeline for a transformer that it calls twice a step: once with each prompt.

    The first call of a step computes both, the second one gives what was computed.

    Args:
        transformer: the denoiser.
        negative: the conditions of the second call, a batch of one without padding.
        attention: of the transformer's blocks.
        refused: called if the batch is more than memory holds; from then on there are two passes.
    """

    def __init__(self, transformer: Any, negative: Text, attention: EachAlone, refused: Callable[[], None]) -> None:
        super().__init__()
        self.transformer = transformer
        self._negative, self._attention, self._refused = negative, attention, refused
        self._second: torch.Tensor | None = None
        self._fits = True

    def __getattr__(self, name: str) -> Any:
        """The transformer's own, for all that is asked of it but the call."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("transformer"), name)

    def forward(self, **inputs: Any) -> tuple[torch.Tensor]:
        """What the transformer gives for these inputs; `inputs` of every second call are the negative prompt's."""
        if self._second is not None:
            second, self._second = self._second, None
            return (second,)
        both = self._tried(inputs) if self._fits else None
        if both is None:
            return self.transformer(**inputs)
        first, self._second = both.split(1)
        return (first,)

    def _tried(self, inputs: dict[str, Any]) -> torch.Tensor | None:
        """Both passes; None if that is more than memory holds."""
        try:
            with memory_told():
                return self._both(inputs)
        except torch.OutOfMemoryError:
            self._fits = False
        # Outside the handler: the exception held the frames, and with them what filled the memory.
        self._refused()
        return None

    def _both(self, inputs: dict[str, Any]) -> torch.Tensor:
        texts = {
            theirs: (inputs[theirs], self._negative[ours].to(inputs[theirs])) for ours, theirs in _CONDITIONS.items()
        }
        lengths = tuple(one.shape[1] for one in texts["encoder_hidden_states"])
        self._attention.texts = lengths
        try:
            return self.transformer(
                **{
                    **inputs,
                    **{name: inputs[name].expand(2, *inputs[name].shape[1:]) for name in _SHARED},
                    **{name: _stacked(pair, max(lengths)) for name, pair in texts.items()},
                }
            )[0]
        finally:
            self._attention.texts = ()


def _stacked(pair: tuple[torch.Tensor, torch.Tensor], length: int) -> torch.Tensor:
    """Two of a kind as a batch; what has a length is filled up with zeros."""
    if pair[0].shape == pair[1].shape:
        return torch.cat(pair)
    return torch.cat([pad(one, (0, 0) * (one.ndim - 2) + (0, length - one.shape[1])) for one in pair])
