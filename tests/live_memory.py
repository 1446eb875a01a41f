"""Bytes of tensors that are alive at once, and bytes that a graph saves: counted storage by storage, on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class Live(TorchDispatchMode):
    """Looks after every operator at the storages that were made since it was entered and still are there.

    Attributes:
        peak: the most bytes at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {place_of(tensor) for tensor in _tensors((args, kwargs))}
        results = func(*args, **(kwargs or {}))
        for tensor in _tensors(results):
            if place_of(tensor) not in given:
                storage = tensor.untyped_storage()
                self._storages[place_of(tensor)] = StorageWeakRef(storage), storage.nbytes()
        self._storages = {place: one for place, one in self._storages.items() if not one[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._storages.values()))
        return results


@contextmanager
def saved(but: set[int]) -> Iterator[dict[int, int]]:
    """Bytes of every storage that the graph saves, by its place.

    Args:
        but: places that are not counted.
    """
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if place_of(tensor) not in but:
            found[place_of(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def place_of(tensor: torch.Tensor) -> int:
    """What tells the storage of a tensor from every other that is alive; a view has that of its base."""
    return int(tensor.untyped_storage()._cdata)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    return (value for value in tree_iter(values) if isinstance(value, torch.Tensor))
