"""What `benchmarks.gpu` measures: kinds of computation, each a row at a shape in a way of holding the model."""

import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._inductor.utils import fresh_cache

from benchmarks._gpu_expected import TRAINING, cost_of, expected_s, floor_of, memory_of
from benchmarks._gpu_model import BASES, COMPILED, PLAIN, PRODUCTS, Bench, cap_of, execution_of, settings_of
from benchmarks._gpu_steps import KINDS, OPTIMIZER, SEGMENT, Step
from magicid_cli.errors import MagicIDError, memory_told
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Kernel
from magicid_cli.plan import costs
from magicid_cli.plan.costs import Cost
from magicid_cli.plan.known import TRAINING_KINDS, held

# The four shapes of the table, smallest first, and the tiny model's stand-ins.
SHAPES = {
    "hunyuan-video": [Shape(61, 320, 544), Shape(33, 544, 960), Shape(61, 544, 960), Shape(61, 720, 1280)],
    "tiny": [Shape(9, 64, 64), Shape(17, 64, 96)],
}
# TFLOP/s by which time is budgeted until the first row is measured: low, so that a first row is not begun in vain.
FIRST_RATE = {"hunyuan-video": 150.0, "tiny": 0.001}
DONE, NO_MEMORY = "done", "out of memory"

# Seconds that compiling is budgeted with until a row was compiled.
FIRST_COMPILE_S = {"hunyuan-video": 180.0, "tiny": 60.0}

# Tokens of a text that is not as long as the others'.
SHORTER = 40

# Shape, kind, way.
Name = tuple[Shape, str, str]


def order(model: str) -> list[Name]:
    """Every row, in the order in which they are measured.

    Ours by plan `80gb`, with a segment of a real run, which is held against them, and the optimizer alone; the smaller
    plans; plain diffusers; then what is off by default: compiled blocks, a base in fewer bytes, products in fp8.
    """
    shapes = SHAPES[model]
    ends, steps = (shapes[0], shapes[-1]), ("sampling step", "preference step")
    groups: list[tuple[str, Sequence[Shape], Sequence[str]]] = [
        ("80gb", shapes, ("forward", "sampling step", "stage-1 step", "preference step", "decode")),
        ("80gb", shapes[:1], (SEGMENT, OPTIMIZER)),
        *((way, ends, (*steps, "decode")) for way in ("48gb", "24gb")),
        (PLAIN, shapes, ("preference step",)),
        (COMPILED, ends, ("sampling step", "stage-1 step", "preference step")),
        *((way, ends, steps) for way in (*BASES, PRODUCTS)),
    ]
    return [(shape, kind, way) for way, some, kinds in groups for shape in some for kind in kinds]


def kernel_of(bench: Bench, name: Name) -> Kernel | None:
    """The attention kernel that the row runs on here; None where it runs on none of ours."""
    shape, kind, way = name
    execution = bench.execution(way, shape, trains=kind in TRAINING)
    if execution is None or kind in ("decode", OPTIMIZER):
        return None
    return bench.kernel(keepable=execution.keep == "attention")


def predictions(kernel: Kernel = "cudnn") -> list[dict[str, Any]]:
    """Every row of the 13B model as it is expected before any was measured, in the form of a measured one.

    Args:
        kernel: of attention; by default what one H100 or H200 takes of torch's own.
    """
    name = "hunyuan-video"
    arch, settings = costs.ARCHITECTURES[name], settings_of(name)
    found = []
    for shape, kind, way in order(name):
        execution = None if way == PLAIN else execution_of(name, way, shape, trains=kind in TRAINING)
        cost = cost_of(arch, kind, shape, way, execution.keep if execution else "nothing", settings)
        expected = expected_s(arch, kind, shape, way, cost, execution, kernel)
        row = _blank(
            (shape, kind, way), cost, floor_of(kind, cost), memory_of(arch, kind, shape, execution, settings, 2)
        )
        row |= {"seconds": expected, "tflops": cost.flop / expected / 1e12, "allocated_gb": row["planned_gb"]}
        row["compile_s"] = FIRST_COMPILE_S[name] if way == COMPILED else None
        if execution is not None:
            row |= {"kernel": kernel, "held": list(held(replace(execution, attention=kernel), kind))}
        found.append(row)
    return found


def _blank(name: Name, cost: Cost, floor_s: float | None, planned_gb: float) -> dict[str, Any]:
    """What is known of a row before it is measured."""
    shape, kind, way = name
    row: dict[str, Any] = {"shape": str(shape), "row": kind, "way": way, "kernel": None, "state": DONE}
    row |= dict.fromkeys(("seconds", "predicted_s", "compile_s", "tflops"))
    row |= {"floor_s": floor_s, "times_floor": None, "allocated_gb": None, "reserved_gb": None}
    row |= {"planned_gb": round(planned_gb, 3), "tokens": costs.tokens(shape), "pflop": cost.flop / 1e15}
    return row | {"held": None, "parts_s": None, "said": [], "times": []}


def repeats_for(each_s: float, kind: str) -> int:
    """How often a step of that length is timed: about ten seconds' worth, one to five; a sampler's always five."""
    return 5 if kind == "sampling step" else max(1, min(5, round(10 / each_s)))


@dataclass(frozen=True)
class Measured:
    """What timing a step gave.

    Attributes:
        times: seconds of each repeat.
        before_s: of what came before them, which does not count and in which blocks are compiled.
        parts_s: of the last repeat, by what it consisted of, where the step tells.
        peaks_gb: of memory: allocated and, with what torch keeps for later, reserved; None without a GPU.
    """

    times: list[float]
    before_s: float
    parts_s: dict[str, float] | None
    peaks_gb: dict[str, float | None]


def measure(step: Step, repeats: int, device: torch.device, before: Sequence[Step] = ()) -> Measured:
    """Time so many repeats of a step after others that do not count."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    times, parts = [], None
    for one in (*before, *[step] * repeats):
        begun = time.perf_counter()
        parts = one()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    peaks = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if on_gpu else (None, None)
    names = ("allocated_gb", "reserved_gb")
    found = {name: peak and round(peak / costs.GB, 2) for name, peak in zip(names, peaks, strict=True)}
    return Measured(times[len(before) :], sum(times[: len(before)]), parts, found)


def try_row(bench: Bench, name: Name, rate: float, left_s: float, compile_s: float = 0.0) -> dict[str, Any]:
    """One row: measured, out of memory, failed, or skipped because its predicted time does not fit into `left_s`.

    Whatever goes wrong is this row's: the model is marked as not intact, and the next row builds another one.

    Args:
        bench: the model.
        name: of the row.
        rate: TFLOP/s by which its time is predicted.
        left_s: seconds that are left.
        compile_s: seconds that compiling is expected to take, where it does.
    """
    shape, kind, way = name
    execution = bench.execution(way, shape, trains=kind in TRAINING)
    keep = execution.keep if execution else "nothing"
    cost = cost_of(bench.architecture, kind, shape, way, keep, bench.settings)
    each = cost.flop / rate / 1e12
    if kind == OPTIMIZER:  # memory bounds it, so no rate of another row says anything
        each = expected_s(bench.architecture, kind, shape, way, cost, execution)
    # A segment is as long as a run's start is: what is slow only once is in it.
    repeats = 1 if kind == SEGMENT else repeats_for(each, kind)
    before = 0 if kind == SEGMENT else 2 if way == COMPILED else 1
    predicted = each * (before + repeats) + (compile_s if way == COMPILED else 0.0)
    floor = floor_of(kind, cost) if bench.name == "hunyuan-video" else None
    planned = memory_of(bench.architecture, kind, shape, execution, bench.settings, bench.family.dtype.itemsize)
    kernel = kernel_of(bench, name)
    row = _blank(name, cost, floor, planned) | {"predicted_s": each, "kernel": kernel}
    if predicted > left_s:
        return row | {"state": f"skipped: about {predicted:.0f} s, {max(0.0, left_s):.0f} s are left"}
    bench.said.clear()
    try:
        with memory_told(), fresh_cache() if way == COMPILED else nullcontext():
            step, shorter = prepared(bench, name)
            found = measure(step, repeats, bench.family.device, (step, shorter)[:before])
        refuse_what_did_not_happen(bench, way, found)
    except torch.OutOfMemoryError:
        row["state"], bench.intact = NO_MEMORY, False
    except (RuntimeError, MagicIDError) as error:  # of one kernel or one way: the other rows are still worth their time
        row["state"] = f"failed: {next(iter(str(error).splitlines()), type(error).__name__)[:200]}"
        bench.intact = False
    else:
        seconds = statistics.median(found.times)
        row |= {"seconds": seconds, "times": found.times, "parts_s": found.parts_s}
        row["compile_s"] = max(0.0, found.before_s - before * seconds) if way == COMPILED else None
        row |= {"times_floor": seconds / floor if floor else None, **found.peaks_gb}
        row["tflops"] = None if kind == OPTIMIZER else cost.flop / seconds / 1e12
        row["held"] = list(held(replace(execution, attention=kernel or "auto"), kind)) if execution else None
    # Outside the handler: the exception held the frames, and with them the graph.
    bench.forget()
    return row | {"said": [*bench.said]}


def prepared(bench: Bench, name: Name) -> tuple[Step, Step]:
    """The row's step, the model held as it shall be, and the same with a shorter text.

    For that one compiled blocks are compiled once more, for any length: a run's prompts differ, too.

    Raises:
        torch.OutOfMemoryError: the GPU has no room for that way of holding it.
        MagicIDError: `memory`, `attention-kernel` or `fp8-products`, as a run would raise.
    """
    shape, kind, way = name
    if way == COMPILED:  # from nothing: what a row before it compiled would be missing in this one's time
        bench.intact = False
    bench.hold(way, shape, trains=kind in TRAINING)
    if kind not in TRAINING_KINDS:
        bench.forget(moments=True)  # a sampler has no moments beside it, and a segment has an optimizer of its own
    step = KINDS[kind](bench, shape)
    return step, KINDS[kind](replace(bench, text_tokens=SHORTER), shape) if way == COMPILED else step


def refuse_what_did_not_happen(bench: Bench, way: str, found: Measured) -> None:
    """Make sure that the row is what it is called.

    Raises:
        RuntimeError: the blocks were not compiled, or more memory was reserved than the plan's card has to give.
    """
    if way == COMPILED and not bench.family.report().get("compiled"):
        raise RuntimeError(next(iter(bench.said), "the blocks were not compiled"))
    reserved = found.peaks_gb["reserved_gb"]
    if reserved is not None and reserved > cap_of(way) / costs.GB:
        raise RuntimeError(f"{reserved:.1f} GB were reserved, over the {cap_of(way) / costs.GB:.1f} of the plan's card")


def rate_reached(rows: Sequence[dict[str, Any]], kind: str, way: str, model: str) -> float:
    """TFLOP/s of the last measured row: of the same kind and way, else of the kind, else of any; a guess before one.

    Plain diffusers and ours say nothing of each other: the mask keeps it from every kernel that ours run on.
    """
    known = [row for row in rows if row["tflops"] and (row["way"] == PLAIN) == (way == PLAIN)]
    same = [row for row in known if row["row"] == kind]
    exact = [row for row in same if row["way"] == way]
    nearest = exact or same or known
    return nearest[-1]["tflops"] if nearest else FIRST_RATE[model]


def compile_reached(rows: Sequence[dict[str, Any]], model: str) -> float:
    """Seconds that compiling took in the last row that did; a guess before one."""
    known = [row["compile_s"] for row in rows if row["way"] == COMPILED and row["state"] == DONE]
    return known[-1] if known else FIRST_COMPILE_S[model]
