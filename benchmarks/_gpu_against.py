"""The plan of a run against what `benchmarks.gpu` measured, and what its rows say of a whole run."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import _gpu_segment
from benchmarks._gpu_expected import cost_of
from benchmarks._gpu_model import COMPILED, PLAIN, option_of, settings_of
from benchmarks._gpu_rows import DONE, SHAPES
from benchmarks._gpu_steps import OPTIMIZER, SEGMENT
from magicid_cli import plan
from magicid_cli.config import Settings
from magicid_cli.models.base import Shape
from magicid_cli.models.catalog import video_model
from magicid_cli.models.execution import Kernel
from magicid_cli.plan import costs, known, workload
from magicid_cli.plan.machine import KNOWN_GPUS, usual_rates
from magicid_cli.plan.machine import Machine as Card

MODEL, PHOTOS = "hunyuan-video", 8
SMALLEST, LARGEST = str(SHAPES[MODEL][0]), str(SHAPES[MODEL][-1])

Rows = Sequence[Mapping[str, Any]]


def measured(rows: Rows, shape: str, kind: str, way: str = "80gb", kernel: str | None = None) -> Mapping[str, Any]:
    """A row that was measured, of several attention kernels the fastest; empty if there is none.

    Args:
        rows: as the command writes them.
        shape: of the video.
        kind: the row's.
        way: of holding the model.
        kernel: the one that it shall have run on.
    """
    found = [row for row in rows if (row["shape"], row["row"], row["way"], row["state"]) == (shape, kind, way, DONE)]
    fitting = [row for row in found if kernel in (None, row["kernel"])]
    return min(fitting, key=lambda row: row["seconds"], default={})


def seconds(rows: Rows, shape: str, kind: str, way: str = "80gb", kernel: str | None = None) -> float | None:
    """What a row took; None if it was not measured."""
    return measured(rows, shape, kind, way, kernel).get("seconds")


def runs_of(kind: str) -> tuple[float, int]:
    """How often the default preset has that done, photos to final adapter, and in how many of its stages."""
    stages = workload.work_of(settings_of(MODEL), video_model(MODEL), PHOTOS, 2)
    times = {
        stage: work.items * sum(part.times for part in work.parts if part.kind == kind)
        for stage, work in stages.items()
        if stage != "generate"
    }
    return sum(times.values()), sum(1 for each in times.values() if each)


def compiling_saves(rows: Rows, kind: str) -> float | None:
    """Hours that compiled blocks save in the default preset by steps of that kind; below 0 they cost more.

    Every stage loads the model and compiles anew.
    """
    compiled = measured(rows, SMALLEST, kind, COMPILED)
    plain = measured(rows, SMALLEST, kind, kernel=compiled.get("kernel"))
    if not compiled or not plain:
        return None
    times, stages = runs_of(kind)
    saved = times * (plain["seconds"] - compiled["seconds"])
    return (saved - stages * compiled["compile_s"]) / 3600


def mfu(rows: Rows, shape: str, kind: str, gpu: str) -> float | None:
    """Executed FLOP, recomputation included, by time and the GPU's published peak."""
    rate = measured(rows, shape, kind).get("tflops")
    return None if gpu not in KNOWN_GPUS or rate is None else float(rate / KNOWN_GPUS[gpu].peak)


def steps(rows: Rows, gpu: str) -> list[known.Step]:
    """The measured rows of our own ways as the plan reads them; none for a GPU that the plan does not know.

    What is off by default comes first: where a way was not measured, the plan goes by the last one at a shape.
    """
    if gpu not in KNOWN_GPUS:
        return []
    rows = sorted(rows, key=lambda row: not option_of(row["way"]))
    return [
        known.Step(gpu, row["row"], _shape(row["shape"]), tuple(row["held"]), row["seconds"], _floor(row, gpu))
        for row in rows
        if row["state"] == DONE and row["way"] != PLAIN and row["row"] not in (SEGMENT, OPTIMIZER)
    ]


def _floor(row: Mapping[str, Any], gpu: str) -> float:
    """The row's floor on that GPU with the kernel that it ran on; the row's own is that of the best kernel."""
    execution = known.executed(tuple(row["held"]))
    arch, kernel = costs.ARCHITECTURES[MODEL], execution.attention
    cost = cost_of(arch, row["row"], _shape(row["shape"]), row["way"], execution.keep)
    return cost.seconds(known.floor_rates(gpu, None if kernel == "auto" else kernel))


def _shape(text: str) -> Shape:
    return Shape(*(int(side) for side in text.split("x")))


def _card(gpu: str) -> Card:
    """A machine with that GPU, to plan for."""
    return Card(gpu, KNOWN_GPUS[gpu].memory_gb, usual_rates(gpu), 1e6, 1e6, assumed=True, asked=True)


def hours(rows: Rows, gpu: str, wanted: str) -> float | None:
    """Hours of the default preset, photos to final adapter, on the GPU `wanted`, from steps of `gpu`.

    None unless every step of the plan for `gpu` is among the rows.
    """
    if gpu not in KNOWN_GPUS:
        return None
    kernel: Kernel = measured(rows, SMALLEST, "preference step").get("kernel", "auto")
    found = _estimated(settings_of(MODEL, **{"model.attention": kernel}), rows, gpu, gpu)
    if any(row.basis != "measured" for row in found.rows if row.held):
        return None
    other = found if wanted == gpu else _estimated(settings_of(MODEL), rows, gpu, wanted)
    return (other.seconds or 0.0) / 3600


def _estimated(settings: Settings, rows: Rows, gpu: str, wanted: str) -> plan.Estimate:
    todo = [stage for stage in plan.STAGES if stage != "generate"]
    return plan.estimate(
        settings,
        machine=_card(wanted),
        model=video_model(MODEL),
        photos=PHOTOS,
        todo=todo,
        downloads={},
        steps=steps(rows, gpu),
    )


def left_out(rows: Rows, gpu: str, kind: str = "preference step") -> dict[str, float]:
    """By how much the plan misses each step of plan `80gb`, planned from those at the other shapes."""
    there = [step for step in steps(rows, gpu) if step.kind == kind]
    missed = {}
    for shape in map(str, SHAPES[MODEL]):
        row, others = measured(rows, shape, kind), [step for step in there if str(step.shape) != shape]
        if not others or not row:
            continue
        execution = known.executed(tuple(row["held"]))
        cost = cost_of(costs.ARCHITECTURES[MODEL], kind, _shape(shape), "80gb", execution.keep)
        planned, _ = known.seconds(kind, cost, _shape(shape), execution, _card(gpu), others)
        if planned is not None:
            missed[shape] = planned / row["seconds"] - 1
    return missed


def segment_off(rows: Rows, gpu: str) -> float | None:
    """By how much the plan, made from single steps, misses a segment of a real run; None without all of them."""
    there, row = steps(rows, gpu), measured(rows, SMALLEST, SEGMENT)
    step = measured(rows, SMALLEST, "preference step", kernel=row.get("kernel"))
    if not row or not step or not there:
        return None
    execution, shape = known.executed(tuple(step["held"])), _shape(SMALLEST)
    parts = _gpu_segment.parts(costs.ARCHITECTURES[MODEL], shape, settings_of(MODEL), execution.keep)
    found = [known.seconds(one.kind, one.cost, one.shape, execution, _card(gpu), there) for one in parts]
    if any(basis != "measured" for _, basis in found):
        return None
    return sum(one.times * (each or 0.0) for one, (each, _) in zip(parts, found, strict=True)) / row["seconds"] - 1


def peaks_off(rows: Rows) -> dict[str, float]:
    """By how much the plan misses the peak memory of every row of our own ways that was measured."""
    return {
        f"{row['shape']} {row['row']} {row['way']}": row["planned_gb"] / row["allocated_gb"] - 1
        for row in rows
        if row["state"] == DONE and row["way"] != PLAIN and row["allocated_gb"]
    }
