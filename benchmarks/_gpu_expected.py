"""What every row of `benchmarks.gpu` computes and is expected to take, before anything is built."""

from benchmarks import _gpu_segment
from benchmarks._gpu_model import COMPILED, PLAIN, PRODUCTS, settings_of
from benchmarks._gpu_steps import OPTIMIZER, SEGMENT
from magicid_cli.config import Settings
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Execution, Keep, Kernel
from magicid_cli.plan import costs, footprint
from magicid_cli.plan.costs import Cost, Rates
from magicid_cli.plan.known import TRAINING_KINDS

# Rows that keep a graph.
TRAINING = (*TRAINING_KINDS, SEGMENT, OPTIMIZER)

# What is expected of a GPU with the reference's peak before anything was measured: rates of its kernels in TFLOP/s
# (ours by attention kernel; plain, where the mask keeps every flash kernel out; products in fp8), and how long the
# element-wise work of a block takes: tensors of the tokens' width that go to or from memory, by the bytes a second that
# such kernels reach, and half of them in compiled blocks.
_OURS: dict[Kernel, Rates] = {"cudnn": Rates(600, 550, 450), "flash-3": Rates(600, 600, 490)}
EXPECTED = {PLAIN: Rates(600, 250, 180), PRODUCTS: Rates(800, 550, 450)}
_TENSORS, _TENSORS_COMPILED, _BYTES_S = 60, 30, 2e12
# Passes of a block's element-wise work: a forward is one, a backward two, what is recomputed one more.
_PASSES = {"forward": 1, "sampling step": 1, "stage-1 step": 4, "preference step": 10, "decode": 0}
_PASSES[SEGMENT] = _gpu_segment.STEPS * _PASSES["preference step"] + _gpu_segment.VIDEOS * 50
# How often a weight comes from main memory, at the bytes a second of PCIe 5, and how often it is unpacked.
_COMES = {"sampling step": 1, "preference step": 6}
_UNPACKED = {"sampling step": 1, "preference step": 8}
_LINK_S = 50e9
# AdamW in float32 reads weight, gradient and two moments and writes all but the gradient: 28 bytes and 14 operations.
_OPTIMIZER_BYTES, _OPTIMIZER_FLOP = 28, 14


def expected_s(
    arch: costs.Architecture,
    kind: str,
    shape: Shape,
    way: str,
    cost: Cost,
    execution: Execution | None,
    kernel: Kernel = "cudnn",
) -> float:
    """Seconds of a row on one H100 or H200 as they are expected before any row was measured."""
    if kind == OPTIMIZER:
        return cost.flop / _OPTIMIZER_FLOP * _OPTIMIZER_BYTES / _BYTES_S
    hidden = (costs.tokens(shape, arch.token_side) + arch.text_tokens) * arch.width * 2
    tensors = _TENSORS_COMPILED if way == COMPILED else _TENSORS
    busy = cost.seconds(EXPECTED.get(way, _OURS[kernel])) + _PASSES[kind] * arch.blocks * tensors * hidden / _BYTES_S
    if execution is None:
        return busy
    weights, waiting = footprint.weights(arch, execution, 2)
    if execution.base not in ("full", "fp8-products"):
        # Its packed form is read and two bytes a number are written.
        stored = (weights + waiting) * costs.GB
        busy += _UNPACKED.get(kind, 0) * (stored + 2 * costs.parameters(arch)) / _BYTES_S
    # Copies are hidden behind the blocks' work, or the reverse.
    return max(busy, _COMES.get(kind, 0) * waiting * costs.GB / _LINK_S)


def floor_of(kind: str, cost: Cost) -> float | None:
    """Seconds on one H100 or H200 at the best published rates; None of what arithmetic does not bound."""
    return None if kind == OPTIMIZER else cost.seconds(costs.BEST_RATES)


def cost_of(
    arch: costs.Architecture, kind: str, shape: Shape, way: str, keep: Keep, settings: Settings | None = None
) -> Cost:
    """What a row computes, without building anything; by default with the 13B model's own settings."""
    settings = settings or settings_of("hunyuan-video")
    adapter = settings.adapter
    if kind == "decode":
        return decode_cost(arch, shape)
    if kind == OPTIMIZER:
        return Cost(linear=float(_OPTIMIZER_FLOP * costs.adapter_parameters(arch, adapter)))
    if kind == SEGMENT:
        each = _gpu_segment.parts(arch, shape, settings, keep)
        return sum((cost_of(arch, one.kind, shape, way, keep, settings) * one.times for one in each), Cost())
    if kind == "stage-1 step":
        return costs.training_pass(arch, shape, adapter, keep=keep)
    if kind == "preference step":
        return costs.preference_step(arch, shape, adapter, keep="nothing" if way == PLAIN else keep)
    return costs.forward(arch, shape, None if kind == "forward" else adapter)


def memory_of(
    arch: costs.Architecture, kind: str, shape: Shape, execution: Execution | None, settings: Settings, value_bytes: int
) -> float:
    """GB that the plan expects of a row, and what it does not know of: the second adapter where a run has one.

    Args:
        arch: of the transformer.
        kind: the row's.
        shape: of the video.
        execution: how the model is held; None for plain diffusers, which has both graphs of a pair alive.
        settings: of the run.
        value_bytes: of a number of the base.
    """
    trains, pairs = kind in TRAINING, kind in ("preference step", SEGMENT, OPTIMIZER)
    found = footprint.memory(
        arch,
        shape,
        settings.adapter,
        value_bytes=value_bytes,
        training=trains,
        reference=pairs,
        execution=execution or Execution(),
    )
    second = 0.0 if pairs else costs.adapter_parameters(arch, settings.adapter) * 4 / costs.GB
    if kind == OPTIMIZER:
        return found.weights + found.adapters
    if kind == "decode":
        return found.weights + found.adapters + second + footprint.decoding_memory(arch, shape, value_bytes=value_bytes)
    return found.total + second + (0.0 if execution else found.kept)


def decode_cost(arch: costs.Architecture, shape: Shape) -> Cost:
    """The count is that of the real decoder; a smaller one does about as much less as it has fewer parameters."""
    real = costs.ARCHITECTURES["hunyuan-video"].decoder_parameters
    return costs.decode(shape) * (arch.decoder_parameters / real)
