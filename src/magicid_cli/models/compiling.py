"""The repeated blocks through `torch.compile`, and back to plain code, announced, where that fails."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

# Each of these is compiled on its own: block kind × adapter (policy, reference, none) × with and without gradients ×
# number of tokens, until torch takes that as variable.
_VARIANTS = 64


class Compiled:
    """Blocks whose `forward` is compiled when it is first called.

    A failure of the compiler, also on the backward pass, or more variants than expected, is announced once, and from
    then on all blocks run as they are.

    Args:
        blocks: their `forward` is replaced.
        announce: told of a failure.
        backend: of `torch.compile`.
    """

    def __init__(self, blocks: Sequence[nn.Module], announce: Callable[[str], None], backend: str = "inductor") -> None:
        self.running = True
        self._announce = announce
        # Process-wide. By default torch falls back without a word after 8 variants, and compiles the backward so late
        # that its failure could not be caught here.
        torch._dynamo.config.recompile_limit = _VARIANTS
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        torch._functorch.config.force_non_lazy_backward_lowering = True
        for block in blocks:
            plain = block.forward
            block.forward = partial(self._call, plain, torch.compile(plain, backend=backend))

    def _call(self, plain: Callable[..., Any], fast: Callable[..., Any], *inputs: Any) -> Any:
        if not self.running:
            return plain(*inputs)
        try:
            return fast(*inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            self.running = False
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            why = " ".join(lines[:2])[:300]
            self._announce(f"The blocks run as they are, because they cannot be compiled here: {why}")
            return plain(*inputs)
