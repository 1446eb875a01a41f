"""I3D (Carreira and Zisserman 2017) for weights in safetensors: a video to 400 numbers.

Names of tensors are those of the usual PyTorch port: `Mixed_3b.b1a.conv3d.weight`, `….bn.running_mean` and so on, and
`logits.conv3d.weight` with its bias. Widths are those of the tensors.
"""

from collections.abc import Mapping

import torch
from torch.nn import functional

_EPSILON = 1e-3
_MIXED = {
    "3": ("b", "c"),
    "4": ("b", "c", "d", "e", "f"),
    "5": ("b", "c"),
}
_POOLS = {"3": ((1, 3, 3), (1, 2, 2)), "4": ((3, 3, 3), (2, 2, 2)), "5": ((2, 2, 2), (2, 2, 2))}
Tensors = Mapping[str, torch.Tensor]


def logits(clips: torch.Tensor, weights: Tensors) -> torch.Tensor:
    """The network's answer before the softmax, which is what FVD compares.

    Args:
        clips: float32 `(B, 3, T, 224, 224)`, RGB from -1 to 1, T at least 9.
        weights: the tensors of the file.

    Returns:
        `(B, classes)`, the mean over time.

    Raises:
        KeyError: if a tensor is missing.
        RuntimeError: if tensors do not fit one another.
    """
    x = _unit(clips, weights, "Conv3d_1a_7x7", stride=2)
    x = _pooled(x, (1, 3, 3), (1, 2, 2))
    x = _unit(_unit(x, weights, "Conv3d_2b_1x1"), weights, "Conv3d_2c_3x3")
    for level, letters in _MIXED.items():
        x = _pooled(x, *_POOLS[level])
        for letter in letters:
            x = _mixed(x, weights, f"Mixed_{level}{letter}")
    x = functional.avg_pool3d(x, (2, 7, 7), stride=1)
    x = functional.conv3d(x, weights["logits.conv3d.weight"], weights["logits.conv3d.bias"])
    return x.mean((2, 3, 4))


def _mixed(x: torch.Tensor, weights: Tensors, name: str) -> torch.Tensor:
    """An inception block: four ways side by side."""
    ways = [
        _unit(x, weights, f"{name}.b0"),
        _unit(_unit(x, weights, f"{name}.b1a"), weights, f"{name}.b1b"),
        _unit(_unit(x, weights, f"{name}.b2a"), weights, f"{name}.b2b"),
        _unit(_pooled(x, (3, 3, 3), (1, 1, 1)), weights, f"{name}.b3b"),
    ]
    return torch.cat(ways, 1)


def _unit(x: torch.Tensor, weights: Tensors, name: str, stride: int = 1) -> torch.Tensor:
    """Convolution, batch normalisation, ReLU."""
    kernel = weights[f"{name}.conv3d.weight"]
    size = (int(kernel.shape[2]), int(kernel.shape[3]), int(kernel.shape[4]))
    x = functional.conv3d(_same(x, size, (stride,) * 3), kernel, stride=stride)
    mean, variance, scale, shift = (
        weights[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return functional.relu(functional.batch_norm(x, mean, variance, scale, shift, eps=_EPSILON))


def _pooled(x: torch.Tensor, size: tuple[int, int, int], stride: tuple[int, int, int]) -> torch.Tensor:
    return functional.max_pool3d(_same(x, size, stride), size, stride)


def _same(x: torch.Tensor, size: tuple[int, int, int], stride: tuple[int, int, int]) -> torch.Tensor:
    """Padded with zeros as TensorFlow's SAME does: the answer has ⌈length / stride⌉ points."""
    padding = []
    for length, kernel, step in zip(reversed(x.shape[2:]), reversed(size), reversed(stride), strict=True):
        missing = max(0, (-(-length // step) - 1) * step + kernel - length)
        padding += [missing // 2, missing - missing // 2]
    return functional.pad(x, padding)
