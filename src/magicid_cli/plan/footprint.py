"""What a pass keeps in memory, by what fills it and by how the model is held. Arithmetic only.

One sample's graph is alive at a time. GB are 1e9 bytes.
"""

from dataclasses import dataclass

from magicid_cli.config import AdapterSettings
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Execution, Storage
from magicid_cli.plan.costs import (
    GB,
    Architecture,
    adapter_parameters,
    block_parameters,
    parameters,
    pixels,
    tokens,
)

# Of a weight of the blocks' linear layers that is not stored in full: its bytes, and of how many weights one shares a
# scale of the full number type; 0 for a whole row.
_STORED = {"fp8": (1.0, 0), "fp8-products": (1.0, 0), "int8": (1.0, 0), "nf4": (0.5, 64)}
# Tensors of a token's width that live at once inside one block: norm 1, q k v 3, after their norms 2, after rotation 2
# and its float32 copies 4, attention output 1, MLP 8, concatenation 5, and in the backward gradients of the largest 5.
_IN_BLOCK, _GRADIENTS = 31, 5
# Blocks that are on the device where they come and go: the one that runs and the next one.
_ON_DEVICE = 2
# A tile of the decoder, and the feature maps of a tile that live at once where it is widest: 7.2 by the peak that
# decoding 17 frames of 48 x 48 pixels with the real class adds to a process.
_TILE_PIXELS, _FEATURE_MAPS = 17 * 256 * 256, 7.2


@dataclass(frozen=True)
class Memory:
    """Peak memory of a computation by what fills it, in GB. `block` is counted by reading (± 30 %).

    Attributes:
        weights: of the base, on the device.
        adapters: their weights, gradients and moments.
        kept: block inputs and attention outputs that wait on the device for the backward pass.
        block: what lives at once inside one block.
        pinned: page-locked main memory, for what waits there.
    """

    weights: float
    adapters: float
    kept: float
    block: float
    pinned: float = 0.0

    @property
    def total(self) -> float:
        """The sum of what is on the device."""
        return self.weights + self.adapters + self.kept + self.block


def memory(
    arch: Architecture,
    shape: Shape,
    adapter: AdapterSettings,
    *,
    value_bytes: int = 2,
    training: bool = True,
    reference: bool = False,
    execution: Execution | None = None,
    samples: int = 1,
) -> Memory:
    """Memory of one pass.

    Args:
        arch: of the transformer.
        shape: of the video.
        adapter: the adapter in use: float32, and in training with gradient and two Adam moments.
        value_bytes: of a number of the activations, and of the base where that is stored in full.
        training: a graph is kept.
        reference: stage 2: a frozen second adapter, and two more gradients of the pair before they are joined.
        execution: how the model is held and what is kept; the plainest way by default.
        samples: of a batch that is computed at once, without a graph.
    """
    execution = execution or Execution()
    joint = tokens(shape, arch.token_side) + arch.text_tokens
    hidden = joint * arch.width * value_bytes / GB
    copies = (4 if training else 1) + (3 if reference else 0)
    device, pinned = weights(arch, execution, value_bytes)
    each = {"nothing": 1, "attention": 2, "everything": _IN_BLOCK - _GRADIENTS}[execution.keep] if training else 0
    if each and execution.kept_in == "pinned" and execution.keep != "everything":
        pinned += arch.blocks * each * _rounded(hidden)
        kept = 2 * each * hidden  # on their way, one block's go or come while another's are used
    else:
        kept = arch.blocks * each * hidden
    if training and execution.keep == "attention":
        # With an attention output stays the float32 logarithm of its normaliser, a number for each token and head.
        kept += arch.blocks * joint * arch.heads * 4 / GB
    return Memory(
        weights=device,
        adapters=adapter_parameters(arch, adapter) * 4 * copies / GB,
        kept=kept,
        block=samples * _IN_BLOCK * hidden,
        pinned=pinned,
    )


def _rounded(size_gb: float) -> float:
    """Page-locked memory is handed out in powers of two."""
    size = 1.0
    while size < size_gb * GB:
        size *= 2
    return size / GB


def weights(arch: Architecture, execution: Execution, value_bytes: int) -> tuple[float, float]:
    """GB of the base on the device and in page-locked main memory."""
    dual, single = (block_bytes(arch, kind, execution.base, value_bytes) / GB for kind in ("dual", "single"))
    blocks = arch.dual * dual + arch.single * single
    number = sum(count * each for count, each in zip((arch.dual, arch.single), block_parameters(arch), strict=True))
    rest = (parameters(arch) - number) * value_bytes / GB
    if execution.offload == "none":
        return rest + blocks, 0.0
    return rest + _ON_DEVICE * max(dual, single), blocks


def block_bytes(arch: Architecture, kind: str, base: Storage, value_bytes: int) -> float:
    """Bytes of one block's weights.

    Args:
        arch: of the transformer.
        kind: `dual` or `single`.
        base: how the linear layers are stored; their biases and the norms stay in full.
        value_bytes: of a number that is stored in full.
    """
    number = block_parameters(arch)[0 if kind == "dual" else 1]
    if base == "full":
        return float(number * value_bytes)
    # In squares of the width: attention, both MLPs, modulation; rows in widths: the outputs of the same layers.
    squares, rows = (8 + 16 + 12, 8 + 10 + 12) if kind == "dual" else (3 + 9 + 3, 3 + 5 + 3)
    each, group = _STORED[base]
    stored = squares * arch.width**2
    scales = stored / group if group else rows * arch.width
    return stored * each + (number - stored + scales) * value_bytes


def text_memory(arch: Architecture, value_bytes: int) -> float:
    """GB of both text encoders, and a tenth for what they compute."""
    return 1.1 * arch.text_parameters * value_bytes / GB


def decoding_memory(arch: Architecture, shape: Shape, *, value_bytes: int = 2) -> float:
    """Peak memory of the VAE while it decodes a video, tile after tile, in GB."""
    tile = min(pixels(shape), _TILE_PIXELS)
    return (arch.decoder_parameters + _FEATURE_MAPS * arch.decoder_width * tile) * value_bytes / GB
