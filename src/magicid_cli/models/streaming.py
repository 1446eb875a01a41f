"""Blocks whose weights lie in main memory and come to the device two at a time.

While a block computes, the next one is copied into the place of the one before: forward by ascending number, backward
(each block is recomputed there) by descending number. The numbers are the same as without. Adapters stay on the device:
their parameters are trained, and are a thousandth of the weights. This is not diffusers' group offloading because that
moves trained parameters, too, and gives a block's weights back before its backward needs them.

A block's weights are sent for by its `forward` itself and not by a hook of torch, which runs before it: where a step
cache of diffusers skips a block, its weights stay where they are.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from magicid_cli.errors import MagicIDError
from magicid_cli.models.transfers import Transfers

_ALIGNMENT = 256  # bytes, as CUDA allocates
_RESIDENT = 2


@dataclass(frozen=True)
class _Place:
    """Where a frozen tensor of a block lies in the block's bytes."""

    owner: nn.Module
    name: str
    offset: int
    shape: torch.Size
    dtype: torch.dtype

    def point_into(self, content: torch.Tensor) -> None:
        """Make the module's tensor a view of these bytes."""
        length = self.shape.numel() * self.dtype.itemsize
        view = content[self.offset : self.offset + length].view(self.dtype).view(self.shape)
        found = self.owner._parameters.get(self.name)
        if found is None:
            self.owner._buffers[self.name] = view
        else:
            found.data = view


class Streaming:
    """The blocks' weights in pinned main memory.

    Args:
        blocks: in the order in which they run; their frozen tensors are moved to main memory, their `forward` is
            replaced.
        device: where they compute.

    Raises:
        MagicIDError: `memory` if main memory cannot be page-locked.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self._transfers = Transfers(device)
        self._places = [list(_places(block)) for block in blocks]
        self._host = [_host_copy(places, device) for places in self._places]
        size = max(content.numel() for content in self._host)
        self._free = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(min(_RESIDENT, len(blocks)))]
        self._here: dict[int, tuple[torch.Tensor, Any]] = {}
        self._last = -1
        self._blocks = list(blocks)
        self._plain = [block.forward for block in blocks]
        for number, (block, plain) in enumerate(zip(blocks, self._plain, strict=True)):
            block.forward = partial(self._run, number, plain)
            for name, parameter in block.named_parameters():
                if ".lora_" in name:
                    parameter.data = parameter.data.to(device)
        if device.type == "cuda":
            weakref.finalize(self, _unlock, [content.data_ptr() for content in self._host])

    @property
    def resident(self) -> list[int]:
        """Numbers of the blocks whose weights are on the device or on their way."""
        return sorted(self._here)

    def stop(self) -> None:
        """Bring all weights back to the device for good."""
        for block, plain in zip(self._blocks, self._plain, strict=True):
            block.forward = plain
        self._transfers.finish()
        self._here.clear()
        self._free.clear()
        for places, content in zip(self._places, self._host, strict=True):
            here = torch.empty_like(content, device=self._transfers.device).copy_(content)
            for place in places:
                place.point_into(here)

    def _run(self, number: int, plain: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        self._bring(number)
        return plain(*inputs, **named)

    def _bring(self, number: int) -> None:
        """Have a block's weights on the device, and send for those that will be needed next."""
        self._send_for(number, needed=number)
        self._transfers.wait(self._here[number][1])
        following = self._following(number)
        self._last = number
        if following is not None:
            self._send_for(following, needed=number)

    def _following(self, number: int) -> int | None:
        last = len(self._host) - 1
        if number == 0:
            return min(1, last)
        training = torch.is_grad_enabled()
        if number > self._last:
            # The last block's backward is next in training, with the one before still here; else another forward.
            return number + 1 if number < last else None if training else 0
        return number - 1

    def _send_for(self, number: int, *, needed: int) -> None:
        if number in self._here:
            return
        if not self._free:
            for other in [one for one in self._here if one not in (number, needed)]:
                room, _ = self._here.pop(other)
                self._free.append(room)
                for place in self._places[other]:
                    place.point_into(self._host[other])
        room, content = self._free.pop(), self._host[number]
        arrived = self._transfers.copy(room[: content.numel()], content)
        self._here[number] = room, arrived
        for place in self._places[number]:
            place.point_into(room)


def _places(block: nn.Module) -> Iterator[_Place]:
    offset = 0
    for path, owner in block.named_modules():
        if ".lora_" in f".{path}":
            continue
        tensors = {**owner._parameters, **owner._buffers}
        for name, tensor in tensors.items():
            if tensor is not None:
                yield _Place(owner, name, offset, tensor.shape, tensor.dtype)
                offset += -(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT


def _host_copy(places: Sequence[_Place], device: torch.device) -> torch.Tensor:
    """One block's bytes in page-locked memory; its tensors are now views of them."""
    last = places[-1]
    size = last.offset + -(-last.shape.numel() * last.dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
    content = torch.empty(size, dtype=torch.uint8)
    for place in places:
        tensor = getattr(place.owner, place.name).detach()
        length = tensor.numel() * tensor.element_size()
        content[place.offset : place.offset + length] = tensor.contiguous().view(-1).view(torch.uint8).cpu()
        place.point_into(content)
    if device.type == "cuda":
        _lock(content)
    return content


def _lock(content: torch.Tensor) -> None:
    """Page-lock in place: torch's own pinned memory is rounded up to a power of two, half as much again here."""
    code = int(torch.cuda.cudart().cudaHostRegister(content.data_ptr(), content.numel(), 0))
    if code:
        raise MagicIDError(
            "memory",
            f"Main memory for the model's blocks cannot be page-locked (CUDA error {code}).",
            "Raise the limit (ulimit -l unlimited) or free main memory, or store a smaller base: --base nf4",
        )


def _unlock(addresses: list[int]) -> None:
    for address in addresses:
        torch.cuda.cudart().cudaHostUnregister(address)
