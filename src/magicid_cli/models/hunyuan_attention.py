"""HunyuanVideo's attention without its mask.

diffusers always builds a boolean mask for the padded text. With a mask, even one that hides nothing, no flash attention
kernel may run. One sample whose text was cut to its true length has nothing to hide: passing no mask is then exact. On
a CPU it is the cut that matters: a short video has fewer tokens than a padded prompt.
"""

from typing import Any

import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0


class _Unmasked(HunyuanVideoAttnProcessor2_0):
    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        return super().__call__(attn, hidden_states, encoder_hidden_states, None, image_rotary_emb)


def attend_without_mask(transformer: Any) -> None:
    """Let every token of the blocks see every other; from then on, conditions must come without padding."""
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
        block.attn.set_processor(_Unmasked())
