"""Copies between a GPU and pinned main memory that run beside the computation.

On a CPU the same calls copy at once: one code, tested anywhere.
"""

import gc
from typing import Any

import torch


def give_back() -> None:
    """Hand memory that nothing refers to any more back to the machine: the GPU's, and page-locked main memory.

    Torch keeps both for later, and what is page-locked is lost to everything else.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        # Torch 2.11 has it under a private name alone.
        public = getattr(torch.accelerator, "empty_host_cache", None)
        (public or getattr(torch._C, "_host_emptyCache"))()  # noqa: B009 (the checker knows neither)


class Transfers:
    """Copies on a stream of their own.

    Every copy gives an event (None on a CPU); `wait` makes the computation wait for it, not the process.

    Args:
        device: where the computation runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def to_host(self, tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Copy a tensor to pinned memory, in its own layout; it must not be freed before the event was waited for.

        Raises:
            torch.OutOfMemoryError: main memory cannot be page-locked.
        """
        try:
            host = torch.empty_like(tensor, device="cpu", pin_memory=self._stream is not None)
        except RuntimeError as error:
            # Whatever CUDA says: another plan locks less.
            raise torch.OutOfMemoryError(f"main memory cannot be page-locked: {error}") from error
        return host, self.copy(host, tensor)

    def to_device(self, host: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Copy a tensor from main memory into new memory on the device."""
        here = torch.empty_strided(host.shape, host.stride(), dtype=host.dtype, device=self.device)
        return here, self.copy(here, host)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> Any:
        """Copy once everything that the computation was told before is done."""
        if self._stream is None:
            target.copy_(source)
            return None
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            return self._stream.record_event()

    def wait(self, event: Any) -> None:
        """Let the computation wait for a copy."""
        if event is not None:
            torch.cuda.current_stream(self.device).wait_event(event)

    def finish(self) -> None:
        """Wait for every copy: before memory is given up that one may still read or write."""
        if self._stream is not None:
            self._stream.synchronize()
