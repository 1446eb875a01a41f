"""Every source of random numbers in a training run, with its state in the open.

A run must be repeatable and resumable in every bit, so each stream is seeded from the one seed of the run, and each
state can be read and put back: as tensors for torch's generators, as plain data for Python's and numpy's.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from magicid_cli.workspace import digest


def derived_seed(seed: int, *purpose: str) -> int:
    """A seed for one purpose (60 bits); different purposes get unrelated streams."""
    return int(digest([seed, *purpose])[:15], 16)


def seed_global(seed: int, *purpose: str) -> None:
    """Seed the generators that libraries use behind our back (dropout, augmentation)."""
    random.seed(derived_seed(seed, *purpose, "python"))
    np.random.seed(derived_seed(seed, *purpose, "numpy") % 2**32)
    torch.manual_seed(derived_seed(seed, *purpose, "torch"))


class SampleOrder:
    """An endless stream of item indices: a fresh seeded permutation each epoch, with its state in the open."""

    def __init__(self, items: int, seed: int) -> None:
        self.items = items
        self.generator = torch.Generator().manual_seed(seed)
        self.permutation: list[int] = []
        self.position = 0

    def take(self, count: int) -> tuple[int, ...]:
        """The next `count` indices; a batch may reach into the next epoch."""
        return tuple(self._next() for _ in range(count))

    def _next(self) -> int:
        if self.position == len(self.permutation):
            self.permutation = torch.randperm(self.items, generator=self.generator).tolist()
            self.position = 0
        self.position += 1
        return self.permutation[self.position - 1]


def cuda_states() -> list[torch.Tensor]:
    """Generators of the CUDA devices; none while this process has not touched CUDA."""
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def global_states() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state of every global generator.

    Returns:
        Tensors called `torch`, `cuda.0`, `cuda.1`, …, and plain data: `python`, `numpy`, and `cuda`, the number of
        devices.
    """
    cuda = cuda_states()
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    values = {
        "cuda": len(cuda),
        "python": [version, list(words), gauss],
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
    }
    return {"torch": torch.get_rng_state(), **{f"cuda.{i}": state for i, state in enumerate(cuda)}}, values


def set_python(state: list[Any]) -> None:
    """Put Python's generator back to what `global_states` gave."""
    version, words, gauss = state
    random.setstate((version, tuple(words), gauss))


def set_numpy(state: dict[str, Any]) -> None:
    """Put numpy's global generator back to what `global_states` gave."""
    words = np.array(state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**state, "state": {**state["state"], "key": words}})


def set_global_states(tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    """Put every global generator back to what `global_states` gave in this process."""
    torch.set_rng_state(tensors["torch"])
    for i in range(values["cuda"]):
        torch.cuda.set_rng_state(tensors[f"cuda.{i}"], i)
    set_python(values["python"])
    set_numpy(values["numpy"])


@contextmanager
def global_states_kept() -> Iterator[None]:
    """Put every global generator back when the block ends."""
    tensors, values = global_states()
    try:
        yield
    finally:
        set_global_states(tensors, values)
