"""What `benchmarks.gpu` measures: kinds of computation, each a row at a shape in a way of holding the model."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks._gpu_expected import TRAINING, cost_of, expected_s, memory_of
from benchmarks._gpu_model import PLAIN, Bench, execution_of, free, settings_of
from benchmarks._gpu_steps import KINDS, SEGMENT, Step
from magicid_cli.errors import MagicIDError
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Keep
from magicid_cli.plan import costs
from magicid_cli.plan.known import TRAINING_KINDS, held

# The four shapes of the table, smallest first, and the tiny model's stand-ins.
SHAPES = {
    "hunyuan-video": [Shape(61, 320, 544), Shape(33, 544, 960), Shape(61, 544, 960), Shape(61, 720, 1280)],
    "tiny": [Shape(9, 64, 64), Shape(17, 64, 96)],
}
# TFLOP/s by which time is budgeted until the first row is measured: low, so that a first row is not begun in vain.
FIRST_RATE = {"hunyuan-video": 150.0, "tiny": 0.001}
DONE, NO_MEMORY = "done", "out of memory"

# Shape, kind, way.
Name = tuple[Shape, str, str]


def order(model: str) -> list[Name]:
    """Every row, in the order in which they are measured: ours, then the smaller plans, then plain diffusers.

    After the rows of the plan `80gb` comes a segment of a real run, which is held against them.
    """
    shapes = SHAPES[model]
    ours = ("forward", "sampling step", "stage-1 step", "preference step", "decode")
    rows = [(shape, kind, "80gb") for shape in shapes for kind in ours]
    rows += [(shapes[0], SEGMENT, "80gb")]
    for way in ("48gb", "24gb"):
        small = ("sampling step", "preference step", "decode")
        rows += [(shape, kind, way) for shape in (shapes[0], shapes[-1]) for kind in small]
    return rows + [(shape, "preference step", PLAIN) for shape in shapes]


def predictions() -> list[dict[str, Any]]:
    """Every row of the 13B model as it is expected before any was measured."""
    name = "hunyuan-video"
    arch, found = costs.ARCHITECTURES[name], []
    for shape, kind, way in order(name):
        execution = None if way == PLAIN else execution_of(name, way, shape, trains=kind in TRAINING)
        keep: Keep = execution.keep if execution else "nothing"
        cost = cost_of(arch, kind, shape, way, keep)
        floor = cost.seconds(costs.BEST_RATES)
        expected = expected_s(arch, kind, shape, way, cost)
        memory = memory_of(arch, kind, shape, execution, settings_of(name), 2)
        row: dict[str, Any] = {
            "shape": str(shape),
            "row": kind,
            "way": way,
            "kept in": execution.kept_in if execution else "gpu",
        }
        row |= {"floor_s": round(floor, 2), "expected_s": round(expected, 2), "memory_gb": round(memory, 1)}
        found.append(row)
    return found


def repeats_for(each_s: float, kind: str) -> int:
    """How often a step of that length is timed: about ten seconds' worth, one to five; a sampler's always five."""
    return 5 if kind == "sampling step" else max(1, min(5, round(10 / each_s)))


def measure(
    step: Step, repeats: int, device: torch.device, warm_up: int = 1
) -> tuple[list[float], dict[str, float | None]]:
    """Seconds of each repeat after so many that do not count, and the peak memory in GB."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(warm_up + repeats):
        begun = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    peaks = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if on_gpu else (None, None)
    names = ("allocated_gb", "reserved_gb")
    return times[warm_up:], {name: peak and round(peak / costs.GB, 2) for name, peak in zip(names, peaks, strict=True)}


def try_row(bench: Bench, name: Name, rate: float, left_s: float) -> dict[str, Any]:
    """One row: measured, out of memory, failed, or skipped because its predicted time does not fit into `left_s`.

    Whatever goes wrong is this row's: the model is marked as not intact, and the next row builds another one.
    """
    shape, kind, way = name
    execution = None if way == PLAIN else execution_of(bench.name, way, shape, trains=kind in TRAINING)
    keep: Keep = execution.keep if execution else "nothing"
    cost = cost_of(bench.architecture, kind, shape, way, keep, bench.settings)
    each = cost.flop / rate / 1e12
    # A segment is as long as a run's start is: what is slow only once is in it.
    repeats, warm_up = (1, 0) if kind == SEGMENT else (repeats_for(each, kind), 1)
    predicted = each * (warm_up + repeats)
    floor = cost.seconds(costs.BEST_RATES) if bench.name == "hunyuan-video" else None
    planned = memory_of(bench.architecture, kind, shape, execution, bench.settings, bench.family.dtype.itemsize)
    row: dict[str, Any] = {"shape": str(shape), "row": kind, "way": way, "state": DONE, "seconds": None}
    row |= {"predicted_s": each, "tflops": None, "floor_s": floor, "times_floor": None}
    row |= {
        "allocated_gb": None,
        "reserved_gb": None,
        "planned_gb": round(planned, 3),
        "tokens": costs.tokens(shape),
        "pflop": cost.flop / 1e15,
    }
    row |= {"held": None, "kernel": None, "times": []}
    if predicted > left_s:
        return row | {"state": f"skipped: about {predicted:.0f} s, {max(0.0, left_s):.0f} s are left"}
    bench.intact = False
    try:
        times, peaks = measure(prepared(bench, name), repeats, bench.family.device, warm_up)
    except torch.OutOfMemoryError:
        row["state"] = NO_MEMORY
    except (RuntimeError, MagicIDError) as error:  # of one kernel or one way: the other rows are still worth their time
        row["state"] = f"failed: {next(iter(str(error).splitlines()), type(error).__name__)[:200]}"
    else:
        bench.intact = True
        seconds = statistics.median(times)
        row |= {"seconds": seconds, "tflops": cost.flop / seconds / 1e12, "times": times, **peaks}
        row["times_floor"] = seconds / floor if floor else None
        kernel = bench.family.report().get("kernel")
        row["kernel"] = kernel
        row["held"] = list(held(replace(execution, attention=kernel or "auto"), kind)) if execution else None
    # Outside the handler: the exception held the frames, and with them the graph.
    bench.optimizer.zero_grad(set_to_none=True)
    free()
    return row


def prepared(bench: Bench, name: Name) -> Step:
    """The row's step, the model held as it shall be.

    Raises:
        torch.OutOfMemoryError: the GPU has no room for that way of holding it.
        MagicIDError: `memory` or `attention-kernel`, as a run would raise.
    """
    shape, kind, way = name
    bench.hold(way, shape, trains=kind in TRAINING)
    if kind not in TRAINING_KINDS:
        bench.optimizer.state.clear()  # a sampler has no moments beside it, and a segment has an optimizer of its own
    return KINDS[kind](bench, shape)


def rate_reached(rows: Sequence[dict[str, Any]], kind: str, way: str, model: str) -> float:
    """TFLOP/s of the last measured row: of the same kind and way, else of the kind, else of any; a guess before one.

    Plain diffusers and ours say nothing of each other: the mask keeps it from every kernel that ours run on.
    """
    known = [row for row in rows if row["state"] == DONE and (row["way"] == PLAIN) == (way == PLAIN)]
    same = [row for row in known if row["row"] == kind]
    exact = [row for row in same if row["way"] == way]
    nearest = exact or same or known
    return nearest[-1]["tflops"] if nearest else FIRST_RATE[model]
