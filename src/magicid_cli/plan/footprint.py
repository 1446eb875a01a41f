"""What a pass keeps in memory, by what fills it and by how the model is held. Arithmetic only.

One sample's graph is alive at a time. GB are 1e9 bytes.
"""

from dataclasses import dataclass, replace

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


@dataclass(frozen=True)
class Inside:
    """What lives at once inside one block, in tensors of the tokens' width.

    Attributes:
        training: beside its input, while it is recomputed and its backward pass runs.
        saved: of that, what its graph holds once its forward pass is over.
        sampling: without a graph, its input included.
    """

    training: float
    saved: float
    sampling: float


# Of a weight of the blocks' linear layers that is not stored in full: its bytes, and of how many weights one shares a
# scale of the full number type; 0 for a whole row.
_STORED = {"fp8": (1.0, 0), "fp8-products": (1.0, 0), "int8": (1.0, 0), "nf4": (0.5, 64)}
# Without compiled code, by the bytes of a number, the kind of block and which of its layers are adapted. The adapter is
# float32: beside bfloat16, each adapted layer casts its input and saves it, twice as large. Counted on small blocks of
# the real classes with a rank of 1/48 of their width; `tests/test_footprint.py` counts again. What a GPU's kernels take
# inside is not in it; attention's backward has 3 tensors of room for that before it would be the peak.
_INSIDE = {
    (2, "dual", "attention"): Inside(32.3, 23.3, 16),
    (2, "dual", "attention+mlp"): Inside(43.4, 33.3, 26),
    (2, "single", ""): Inside(29.1, 14.1, 21),
    (2, "single", "attention"): Inside(35.2, 20.2, 21),
    (2, "single", "attention+mlp"): Inside(50.4, 32.3, 29),
    (4, "dual", "attention"): Inside(21.2, 12.1, 12),
    (4, "dual", "attention+mlp"): Inside(26.2, 17.2, 16),
    (4, "single", ""): Inside(25.1, 10.1, 18),
    (4, "single", "attention"): Inside(26.1, 11.1, 18),
    (4, "single", "attention+mlp"): Inside(29.2, 17.2, 18),
}
# Where products are in 8 bits, too: what a training pass takes more than with the weights unpacked, its input in 8 bits
# and the product beside it. Sampling takes no more. Counted in the same way.
_PRODUCTS = {
    (2, "dual", "attention"): 1.1,
    (2, "single", ""): 1.6,
    (2, "single", "attention"): 1.6,
    (4, "single", ""): 1.3,
    (4, "single", "attention"): 1.3,
}
# GB of the rows that are rounded to 8 bits at once, in float32 before and after they are scaled.
_ROUNDING = 2 * 2**24 * 4 / GB
# What a step cache keeps from one denoising step to the next, in tensors of the model's width, of the video's tokens
# and of the text's: what leaves the first block, what that adds to the video, and what all others add; or what of the
# video enters the blocks, and what all of them add.
_KEPT_BY_CACHE = {"first-block": (3, 2), "magcache": (2, 0)}
# Blocks that are on the device where they come and go: the one that runs and the next one.
_ON_DEVICE = 2
# A tile of the decoder, and the feature maps of a tile that live at once where it is widest: 7.2 by the peak that
# decoding 17 frames of 48 x 48 pixels with the real class adds to a process.
_TILE_PIXELS, _FEATURE_MAPS = 17 * 256 * 256, 7.2


@dataclass(frozen=True)
class Memory:
    """Peak memory of a computation by what fills it, in GB.

    Attributes:
        weights: of the base, on the device.
        adapters: their weights, gradients and moments.
        kept: what waits on the device for the backward pass: block inputs, attention outputs, or all that is saved.
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
    blocks = _blocks(arch, adapter, value_bytes, execution.base)
    if not training:
        block = samples * max(inside.sampling for _, inside in blocks)
    elif execution.keep == "everything":
        block = max(inside.training - inside.saved for _, inside in blocks)
    else:
        block = max(inside.training for _, inside in blocks)
    kept, waiting = _kept(arch, execution, joint, hidden, blocks) if training else (0.0, 0.0)
    return Memory(
        weights=device,
        adapters=adapter_parameters(arch, adapter) * 4 * copies / GB,
        kept=kept,
        block=block * hidden + (_ROUNDING if execution.base == "fp8-products" else 0.0),
        pinned=pinned + waiting,
    )


def _blocks(arch: Architecture, adapter: AdapterSettings, value_bytes: int, base: Storage) -> list[tuple[int, Inside]]:
    """How many blocks of each kind there are, and what lives inside one."""
    targets = {"dual": adapter.targets, "single": "" if adapter.double_blocks_only else adapter.targets}
    counts = {"dual": arch.dual, "single": arch.single}
    found = []
    for which, count in (((value_bytes, kind, targets[kind]), count) for kind, count in counts.items() if count):
        more = _PRODUCTS.get(which, 0.0) if base == "fp8-products" else 0.0
        found.append((count, replace(_INSIDE[which], training=_INSIDE[which].training + more)))
    return found


def _kept(
    arch: Architecture, execution: Execution, joint: int, hidden: float, blocks: list[tuple[int, Inside]]
) -> tuple[float, float]:
    """GB that wait for the backward pass on the device and in page-locked main memory.

    Args:
        arch: of the transformer.
        execution: what is kept, and where.
        joint: tokens of video and text.
        hidden: GB of a tensor of their width.
        blocks: as `_blocks` has them.
    """
    if execution.keep == "everything":
        return sum(count * (1 + inside.saved) for count, inside in blocks) * hidden, 0.0
    outputs = 1 if execution.keep == "attention" else 0
    # With an attention output stays the float32 logarithm of its normaliser, a number for each token and head.
    normaliser = arch.blocks * joint * arch.heads * 4 / GB if execution.keep == "attention" else 0.0
    # Inputs, and outputs of attention, that wait in main memory.
    away = {"gpu": 0, "inputs pinned": 1, "pinned": 1 + outputs}[execution.kept_in]
    # Of one block they go or come while another's are used.
    here = 2 * away + arch.blocks * (1 + outputs - away)
    return here * hidden + normaliser, arch.blocks * away * _rounded(hidden)


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


def step_cache_memory(arch: Architecture, shape: Shape, kind: str, value_bytes: int) -> float:
    """GB that a step cache keeps from one denoising step to the next, beside what lives in a block.

    Args:
        arch: of the transformer.
        shape: of the video.
        kind: `first-block`, `magcache` or `taylorseer`, as `models.step_cache` has them.
        value_bytes: of a number of the activations.
    """
    video = tokens(shape, arch.token_side)
    if kind == "taylorseer":
        # The model's output and its change.
        numbers = 2 * video * arch.patch**2 * arch.channels
    else:
        of_video, of_text = _KEPT_BY_CACHE[kind]
        numbers = (of_video * video + of_text * arch.text_tokens) * arch.width
    return numbers * value_bytes / GB


def text_memory(arch: Architecture, value_bytes: int) -> float:
    """GB of both text encoders, and a tenth for what they compute."""
    return 1.1 * arch.text_parameters * value_bytes / GB


def loading_memory(arch: Architecture, execution: Execution, value_bytes: int) -> float:
    """Main memory that is taken while parts are read, in GB, on the way to the device.

    What is read in the number type of its file is mapped, and its pages are given back when memory runs short: so the
    base in two bytes, which its files have, too. Whatever is converted is there as a copy: the base in four bytes, the
    text encoders in any type, for their files may have another one of two bytes.
    """
    text = arch.text_parameters * value_bytes / GB
    if execution.text_encoder == "cpu":
        text = text_memory(arch, value_bytes)
    return text if value_bytes == 2 else max(text, parameters(arch) * value_bytes / GB)


def decoding_memory(arch: Architecture, shape: Shape, *, value_bytes: int = 2) -> float:
    """Peak memory of the VAE while it decodes a video, tile after tile, in GB."""
    tile = min(pixels(shape), _TILE_PIXELS)
    return (arch.decoder_parameters + _FEATURE_MAPS * arch.decoder_width * tile) * value_bytes / GB
