"""What a training pass keeps of every block for its backward pass, and where it waits.

A block is recomputed from its input when its backward comes, so only the inputs are kept; or the inputs and the
outputs of attention, which cost the most to compute and are one tensor a block. Kept tensors, or of both kinds the
inputs alone, lie on the device or wait in pinned main memory, copied on a stream of their own while the next block
computes. No number changes.

Attention is recognised by the operator that torch dispatches: a kernel that is no such operator would be recomputed
without a word, which is why `hunyuan_attention.refusal` looks at what a kernel dispatches.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from magicid_cli.models.execution import Keep, KeptIn
from magicid_cli.models.transfers import Transfers

# Operators whose first result is the output of attention, by the name of their schema.
_ATTENTION = frozenset(
    {
        "aten::_scaled_dot_product_cudnn_attention",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_efficient_attention",
        "flash_attn::_flash_attn_forward",
        "flash_attn_3::_flash_attn_forward",
        "flash_attn_3::fwd",
    }
)


def is_attention(name: str) -> bool:
    """Whether an operator of this name computes attention's output."""
    return name in _ATTENTION


class _Mode(TorchDispatchMode):
    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled code inside is run as it is; attention is never compiled into it."""
        return True


class _Listening(_Mode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


@contextmanager
def operators() -> Iterator[list[str]]:
    """The names of the operators that torch dispatches inside the block, in order."""
    mode = _Listening()
    with mode:
        yield mode.names


class _Keeping(_Mode):
    """Keeps the results of attention that one block computes, in order."""

    def __init__(self, store: "Store", block: int) -> None:
        super().__init__()
        self.store, self.block = store, block
        self.results: deque[tuple[Any, ...]] = deque()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        if is_attention(func._schema.name):
            output, *others = results if isinstance(results, (tuple, list)) else (results,)
            # Detached: the graph belongs to what the block goes on with, not to what is kept.
            rest = [other.detach() if isinstance(other, torch.Tensor) else other for other in others]
            self.results.append((self.store.put(output.detach(), self.block), *rest))
        return results


class _Returning(_Mode):
    """Hands the kept results out when the block is recomputed."""

    def __init__(self, kept: _Keeping) -> None:
        super().__init__()
        self.kept = kept

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not is_attention(func._schema.name):
            return func(*args, **(kwargs or {}))
        output, *others = self.kept.results.popleft()
        rest = [other.detach() if isinstance(other, torch.Tensor) else other for other in others]
        found = self.kept.store.get(output).detach()
        return (found, *rest) if rest else found


@dataclass
class Entry:
    """A kept tensor.

    Attributes:
        block: the number of the block that it is needed for.
        host: where it waits in main memory, or None.
        here: the tensor on the device, while it is there.
        arrived: of its copy back.
    """

    block: int
    host: torch.Tensor | None
    here: torch.Tensor | None
    arrived: Any = None


class Store:
    """What one pass keeps, put in by ascending block and taken out by descending block.

    In main memory, a tensor is copied while the next blocks compute; at most two blocks' tensors wait for their copy,
    then the computation waits for it. On the way back, a block's tensors are sent for when the block after it begins
    its backward.

    Args:
        transfers: copies to pinned memory and back, or None to leave everything on the device.
    """

    def __init__(self, transfers: Transfers | None) -> None:
        self._transfers = transfers
        self._waiting: dict[int, list[Entry]] = {}
        self._leaving: deque[tuple[int, torch.Tensor, Any]] = deque()

    def put(self, tensor: torch.Tensor, block: int) -> Entry:
        """Keep a tensor for the backward of a block."""
        if self._transfers is None:
            return Entry(block, None, tensor)
        self._let_go(before=block - 1)
        # With its graph it would close a cycle through C++, which no collector sees: a pass that is cut off leaked.
        tensor = tensor.detach()
        host, copied = self._transfers.to_host(tensor)
        self._leaving.append((block, tensor, copied))
        entry = Entry(block, host, None)
        self._waiting.setdefault(block, []).append(entry)
        return entry

    def _let_go(self, before: int) -> None:
        """Free the tensors of blocks before this one, each once its copy is done."""
        assert self._transfers is not None
        while self._leaving and self._leaving[0][0] < before:
            self._transfers.wait(self._leaving.popleft()[2])

    def get(self, entry: Entry) -> torch.Tensor:
        """The tensor, on the device."""
        if self._transfers is None or entry.host is None:
            assert entry.here is not None
            return entry.here
        self._let_go(before=entry.block + 1)
        for block in (entry.block, entry.block - 1):
            for one in self._waiting.pop(block, []):
                self._send_for(one)
        if entry.here is None:  # asked for a second time
            self._send_for(entry)
        self._transfers.wait(entry.arrived)
        found, entry.here = entry.here, None
        assert found is not None
        return found

    def _send_for(self, entry: Entry) -> None:
        assert self._transfers is not None and entry.host is not None
        entry.here, entry.arrived = self._transfers.to_device(entry.host)


class Checkpointing:
    """What diffusers calls for every block of a training pass, in place of the block.

    Args:
        blocks: all blocks, in the order in which they run.
        keep: `nothing` but the blocks' inputs, or the outputs of `attention`, too.
        kept_in: where that waits; of `inputs pinned`, attention outputs stay on the device.
        device: where the blocks run.
    """

    def __init__(self, blocks: Sequence[Any], keep: Keep, kept_in: KeptIn, device: torch.device) -> None:
        self._numbers = {id(block): number for number, block in enumerate(blocks)}
        self._keep = keep
        self._transfers = Transfers(device) if kept_in != "gpu" else None
        self._outputs_stay = kept_in == "inputs pinned"
        self._inputs, self._outputs = self._stores()

    def _stores(self) -> tuple[Store, Store]:
        """Of one pass: for blocks' inputs, and for outputs of attention; the same one where all go the same way."""
        inputs = Store(self._transfers)
        return inputs, Store(None) if self._outputs_stay else inputs

    def __call__(self, block: Any, *inputs: Any) -> Any:
        """Run a block so that its backward recomputes what is not kept.

        Args:
            block: one of `blocks`.
            inputs: hidden states of video and text, then what all blocks share.
        """
        number = self._numbers[id(block)]
        if number == 0:
            self._inputs, self._outputs = self._stores()
        options: dict[str, Any] = {}
        if self._keep == "attention":
            options["context_fn"] = partial(_contexts, self._outputs, number)
        with _inputs_in(self._inputs, number, inputs[:2]) if self._transfers else nullcontext():
            # No block draws random numbers, so there is no state to put back.
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False, **options)

    def finish(self) -> None:
        """Wait for copies that a pass may have left behind that was cut off."""
        if self._transfers:
            self._transfers.finish()


def _contexts(store: Store, block: int) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    kept = _Keeping(store, block)
    return kept, _Returning(kept)


def _inputs_in(store: Store, block: int, states: Sequence[torch.Tensor]) -> saved_tensors_hooks:
    """Hooks that put a block's own inputs into the store; what all blocks share stays where it is."""
    own = {(one.data_ptr(), one.shape) for one in states}

    def pack(tensor: torch.Tensor) -> torch.Tensor | Entry:
        return store.put(tensor, block) if (tensor.data_ptr(), tensor.shape) in own else tensor

    def unpack(packed: torch.Tensor | Entry) -> torch.Tensor:
        return store.get(packed) if isinstance(packed, Entry) else packed

    return saved_tensors_hooks(pack, unpack)
