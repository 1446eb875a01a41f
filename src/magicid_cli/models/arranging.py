"""Putting an `Execution` into effect on a loaded transformer: where blocks are, what a pass keeps, what computes."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from magicid_cli.models import hunyuan_attention
from magicid_cli.models.compiling import Compiled
from magicid_cli.models.execution import Execution, Keep
from magicid_cli.models.hunyuan_attention import EachAlone
from magicid_cli.models.keeping import Checkpointing
from magicid_cli.models.kernels import Choice
from magicid_cli.models.streaming import Streaming

Announce = Callable[[str], None]


class Arrangement:
    """How one loaded transformer is held and computed.

    Args:
        transformer: with its base stored as it will be.
        device: where it computes.
        dtype: of the activations.
        announce: told in one sentence of every second-best way that is taken.
    """

    def __init__(self, transformer: Any, device: torch.device, dtype: torch.dtype, announce: Announce) -> None:
        self.transformer = transformer
        self.device = device
        self.dtype = dtype
        self._announce = announce
        self.blocks: Sequence[nn.Module] = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        self.choice: Choice | None = None
        self.attention: EachAlone | None = None
        self._wanted: tuple[object, ...] = ()
        self._checkpointing: Checkpointing | None = None
        self._streaming: Streaming | None = None
        self._compiled: Compiled | None = None

    def attend(self, execution: Execution) -> None:
        """Choose the attention kernel and use it.

        Raises:
            MagicIDError: `attention-kernel`.
        """
        keepable = execution.keep == "attention"
        wanted = (execution.attention, keepable, execution.compile)
        if wanted == self._wanted:
            return
        width = self.transformer.config.attention_head_dim
        self.choice = hunyuan_attention.choose(
            execution.attention, device=self.device, dtype=self.dtype, head_width=width, keepable=keepable
        )
        if self.choice.second_best:
            self._announce(self.choice.second_best)
        self.attention = EachAlone(hunyuan_attention.kernel(self.choice.kernel))
        # Inside compiled code no operator is seen, and what is not seen cannot be kept.
        attend = torch.compiler.disable(self.attention) if execution.compile else self.attention
        hunyuan_attention.attend_without_mask(self.transformer, attend)
        self._wanted = wanted

    def apply(self, execution: Execution) -> None:
        """Put everything into effect; adapters are attached.

        Raises:
            MagicIDError: `attention-kernel`, or `memory` if main memory cannot be page-locked.
        """
        if self._checkpointing:
            self._checkpointing.finish()
        self.attend(execution)
        # Before blocks come and go: compiled code is what they come for, and knows nothing of it.
        if execution.compile and self._compiled is None:
            self._compiled = Compiled(self.blocks, self._announce)
        if execution.offload == "blocks" and self._streaming is None:
            self._streaming = Streaming(self.blocks, self.device)
            self._place_the_rest()
        elif execution.offload == "none":
            if self._streaming is not None:
                self._streaming.stop()
                self._streaming = None
            self.transformer.to(self.device)
        self.checkpoint(execution if execution.keep != "everything" else None)

    def _place_the_rest(self) -> None:
        """Everything outside the blocks goes to the device."""
        inside = {id(module) for block in self.blocks for module in block.modules()}
        for module in self.transformer.modules():
            if id(module) not in inside:
                for parameter in module.parameters(recurse=False):
                    parameter.data = parameter.data.to(self.device)
                for name, buffer in module.named_buffers(recurse=False):
                    module._buffers[name] = buffer.to(self.device)

    def checkpoint(self, execution: Execution | None) -> None:
        """Recompute blocks in the backward pass, keeping what the execution says; None keeps everything."""
        if execution is None:
            self._checkpointing = None
            self.transformer.disable_gradient_checkpointing()
            return
        keep: Keep = "attention" if execution.keep == "attention" else "nothing"
        self._checkpointing = Checkpointing(self.blocks, keep, execution.kept_in, self.device)
        self.transformer.enable_gradient_checkpointing(self._checkpointing)

    @property
    def ready(self) -> bool:
        """Whether the weights are where they compute."""
        return self._streaming is not None or next(self.blocks[0].parameters()).device.type == self.device.type

    def report(self) -> dict[str, Any]:
        """The kernel, what was refused before it, whether compiled code runs, and on a GPU the allocator's settings."""
        choice = self.choice
        allocator = os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF") or "torch's own"
        return {
            **({"allocator": allocator} if self.device.type == "cuda" else {}),
            "kernel": choice.kernel if choice else None,
            "refused": dict(choice.refused) if choice else {},
            "compiled": self._compiled is not None and self._compiled.running,
        }
