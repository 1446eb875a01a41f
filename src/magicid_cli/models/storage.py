"""Frozen linear layers in fewer bytes: their weights are unpacked when they are used, and only then.

A layer saves the packed weight for its backward, and unpacks it again there: with or without recomputation, no more
than one layer's weight exists in full. Adapters may be attached before or after; they are float32 either way. Both is
why this is not diffusers' layerwise casting, whose hooks leave a layer unpacked when a recomputation stops early, and
which casts an adapter that is there, or comes later, with the rest.

The last way also multiplies in fp8: a layer's input is rounded to e4m3, too, a scale for every token, and the products
are added up in float32. Only the forward: the backward takes the unrounded input and the unpacked weight.

    fp8    float8 e4m3, a power of two for every row brings the largest number of the row to 224 ... 448
    int8   -127 ... 127, a scale for every row
    nf4    16 levels that are equally likely for normal numbers, a scale for every 64 weights (QLoRA, Dettmers 2023)
    fp8-products    as fp8
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import ScalingType, linear, scaled_mm

from magicid_cli.errors import MagicIDError, memory_told
from magicid_cli.models.execution import Storage

_FP8 = torch.float8_e4m3fn
_FP8_LARGEST = 448.0
# Numbers that are brought to 8 bits at once: in float32 twice 64 MiB, whatever the size of the video.
_ROUNDED_AT_ONCE = 2**24
_NF4_GROUP = 64
# The outermost quantile of the 16 levels, from QLoRA's reference implementation.
_NF4_OUTERMOST = 0.9677083


@dataclass(frozen=True)
class Packing:
    """A way to store a weight.

    Attributes:
        pack: (out, in) → packed numbers and scales.
        unpack: the reverse, given number type and shape.
        bytes_each: of a weight, without its scales.
        sides: what both sides of a weight are multiples of, for hardware's sake.
        product: multiplies rows with a packed weight as it is; None where it is unpacked for that.
    """

    pack: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    unpack: Callable[[torch.Tensor, torch.Tensor, torch.dtype, tuple[int, int]], torch.Tensor]
    bytes_each: float
    sides: int = 1
    product: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None


def _pack_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    largest = weight.abs().amax(dim=1, keepdim=True).float()
    exponent = (_FP8_LARGEST / largest).log2().floor().nan_to_num(0.0, posinf=0.0)
    # Powers of two: unpacking rounds nothing.
    return (weight.float() * exponent.exp2()).to(_FP8), (-exponent).exp2().to(weight.dtype)


def _pack_int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = _nonzero(weight.abs().amax(dim=1, keepdim=True) / 127)
    return (weight.float() / scale.float()).round().clamp(-127, 127).to(torch.int8), scale


def _nonzero(scale: torch.Tensor) -> torch.Tensor:
    return scale.masked_fill(scale == 0, 1.0)


def _unpack_rows(packed: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype, shape: tuple[int, int]) -> torch.Tensor:
    return packed.to(dtype) * scale.to(dtype)


def nf4_levels() -> torch.Tensor:
    """The 16 levels, float32, ascending from -1 to 1."""

    def outer(count: int) -> torch.Tensor:
        return torch.special.ndtri(torch.linspace(_NF4_OUTERMOST, 0.5, count, dtype=torch.float64))[:-1]

    levels = torch.cat([-outer(8), torch.zeros(1, dtype=torch.float64), outer(9).flip(0)])
    return (levels / levels.max()).float()


@lru_cache
def _nf4_pairs(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What each of the 256 bytes stands for: two levels."""
    levels = nf4_levels()
    high, low = torch.meshgrid(levels, levels, indexing="ij")
    return torch.stack([high.flatten(), low.flatten()], dim=1).to(device, dtype)


def _pack_nf4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    groups = weight.reshape(-1, _NF4_GROUP)
    scale = _nonzero(groups.abs().amax(dim=1, keepdim=True))
    levels = nf4_levels().to(weight.device)
    between = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize(groups.float() / scale.float(), between, out_int32=True).to(torch.uint8).view(-1, 2)
    return codes[:, 0] << 4 | codes[:, 1], scale


def _unpack_nf4(packed: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype, shape: tuple[int, int]) -> torch.Tensor:
    values = _nf4_pairs(dtype, packed.device).index_select(0, packed.int())
    return (values.view(-1, _NF4_GROUP) * scale.to(dtype)).view(shape)


def fp8_product(rows: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """`rows @ (weight * scale).T`, with the rows rounded to e4m3.

    Args:
        rows: (M, in).
        weight: (out, in), packed.
        scale: (out, 1).
    """
    rounded, each = _rounded(rows)
    # On a GPU, products with a scale for each row come out in bfloat16 alone.
    into = rows.dtype if rows.device.type == "cpu" else torch.bfloat16
    return scaled_mm(
        rounded,
        weight.t(),
        scale_a=each,
        scale_recipe_a=ScalingType.RowWise,
        scale_b=scale.t().float().contiguous(),
        scale_recipe_b=ScalingType.RowWise,
        output_dtype=into,
    ).to(rows.dtype)


def _rounded(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (M, in) in e4m3 and their scales (M, 1), some rows at a time: in float32 all would fill gigabytes."""
    pieces = rows.split(max(1, _ROUNDED_AT_ONCE // rows.shape[1]))
    largest = torch.cat([piece.abs().amax(dim=1, keepdim=True) for piece in pieces]).float()
    scale = (largest / _FP8_LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    rounded = torch.empty_like(rows, dtype=_FP8)
    for piece, each, into in zip(pieces, *(one.split(len(pieces[0])) for one in (scale, rounded)), strict=True):
        into.copy_(piece.float() / each)
    return rounded, scale


PACKINGS: dict[Storage, Packing] = {
    "fp8": Packing(_pack_fp8, _unpack_rows, 1.0),
    "int8": Packing(_pack_int8, _unpack_rows, 1.0),
    "nf4": Packing(_pack_nf4, _unpack_nf4, 0.5),
    "fp8-products": Packing(_pack_fp8, _unpack_rows, 1.0, 16, fp8_product),
}


class _Product(torch.autograd.Function):
    """`x @ unpack(weight).T + bias`; gradients reach `x` alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: "PackedLinear", weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight, layer.scale)
        ctx.packing, ctx.shape = layer.packing, (layer.out_features, layer.in_features)
        if ctx.packing.product is None:
            return linear(x, ctx.packing.unpack(weight, layer.scale, x.dtype, ctx.shape), layer.bias)
        out = ctx.packing.product(x.flatten(0, -2), weight, layer.scale).unflatten(0, x.shape[:-1])
        return out if layer.bias is None else out.add_(layer.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        weight, scale = ctx.saved_tensors
        (gradient,) = gradients
        return gradient @ ctx.packing.unpack(weight, scale, gradient.dtype, ctx.shape), None, None


class PackedLinear(nn.Linear):
    """A frozen linear layer whose weight is packed; made by `store`."""

    packing: Packing
    scale: torch.Tensor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """As `nn.Linear`, in the input's number type."""
        return cast(torch.Tensor, _Product.apply(input, self, self.weight))


def store(module: nn.Module, storage: Storage, device: torch.device) -> None:
    """Pack every linear layer of a frozen module, one after another, and put it on the device.

    Adapters, weights that do not divide into groups of 64 for `nf4`, and such whose sides are no multiples of 16 for
    `fp8-products`, stay as they are.

    Args:
        module: its linear layers are changed in place; nothing else of it is.
        storage: how; `full` does nothing.
        device: where the packed layers go; a full layer is there only while it is packed.

    Raises:
        MagicIDError: `fp8-products` if the device cannot multiply in fp8.
    """
    if storage == "full":
        return
    packing = PACKINGS[storage]
    require(storage, device)
    for name, layer in module.named_modules():
        if type(layer) is not nn.Linear or ".lora_" in name:
            continue
        if storage == "nf4" and layer.weight.numel() % _NF4_GROUP:
            continue
        if any(side % packing.sides for side in layer.weight.shape):
            continue
        with torch.no_grad():
            packed, scale = packing.pack(layer.weight.to(device))
        layer.weight = nn.Parameter(packed, requires_grad=False)
        layer.register_buffer("scale", scale, persistent=False)
        if layer.bias is not None:
            layer.bias.data = layer.bias.data.to(device)
        layer.__class__ = PackedLinear
        cast(PackedLinear, layer).packing = packing


def require(storage: Storage, device: torch.device) -> None:
    """Try a small product on the device if there are any: a machine that has none says so before weights are fetched.

    Args:
        storage: how the base will be stored.
        device: where its layers will be.

    Raises:
        MagicIDError: `fp8-products` if the device cannot multiply in fp8.
    """
    packing = PACKINGS.get(storage)
    if packing is None or packing.product is None:
        return
    rows = torch.ones(packing.sides, packing.sides, device=device)
    try:
        with memory_told():
            packing.product(rows, *packing.pack(rows))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError, ValueError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise MagicIDError(
            "fp8-products",
            f"This machine cannot multiply numbers of 8 bits: {why}",
            "Leave the products as they are, with the base stored in the same bytes: --base fp8",
        ) from error
