"""The table of `benchmarks.gpu`: ours beside plain, against the targets, from the rows that were measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import _gpu_segment
from benchmarks._gpu_expected import cost_of
from benchmarks._gpu_model import CARD_BYTES, PLAIN, settings_of
from benchmarks._gpu_rows import DONE, SHAPES
from benchmarks._gpu_steps import SEGMENT
from magicid_cli import plan
from magicid_cli.config import Settings
from magicid_cli.models.base import Shape
from magicid_cli.models.catalog import video_model
from magicid_cli.models.execution import Kernel
from magicid_cli.plan import costs, known
from magicid_cli.plan.machine import KNOWN_GPUS, REFERENCE_GPU, usual_rates
from magicid_cli.plan.machine import Machine as Card

# Seconds of a preference step, from the shape of training, and of a large video by its attention kernel; the rest in
# words below.
TARGET_S = dict(zip(map(str, SHAPES["hunyuan-video"]), (4.3, 9.6, 25.4, 70.0), strict=True))
VIDEO_S = {"flash-3": 300, "cudnn": 345}
SAMPLING_STEPS, PHOTOS = 50, 8
MODEL, SHAPE_KINDS = "hunyuan-video", ("preference step", "stage-1 step", "sampling step")

Rows = Sequence[Mapping[str, Any]]
Claim = tuple[str, str, str]


def claims(rows: Rows, gpu: str) -> list[Claim]:
    """(what, target, what was measured) of the whole table; `not measured` where a row is missing."""
    large = str(SHAPES[MODEL][-1])
    return [
        *_steps(rows),
        *_peaks(rows),
        *_videos(rows, large),
        (f"share of peak, stage 1, {large}", ">= 55 %", _text(mfu(rows, large, "stage-1 step", gpu), "{:.0%}")),
        *_planned(rows, gpu),
    ]


def _steps(rows: Rows) -> list[Claim]:
    found: list[Claim] = []
    for shape, most in TARGET_S.items():
        ours, plain = seconds(rows, shape, "preference step"), seconds(rows, shape, "preference step", PLAIN)
        found.append((f"preference step {shape}", f"<= {most:g} s", _text(ours, "{:.2f} s")))
        ratio = plain / ours if ours and plain else None
        found.append((f"plain / ours {shape}", ">= 1.6 where it fits", _text(ratio, "{:.2f}", _state(rows, shape))))
    return found


def _peaks(rows: Rows) -> list[Claim]:
    found: list[Claim] = []
    for way in ("80gb", "48gb", "24gb"):
        peaks = [row["allocated_gb"] for row in rows if row["way"] == way and row["state"] == DONE]
        most = "<= 76 GB" if way == "80gb" else f"<= {CARD_BYTES[way] / 1e9 - 1:.1f} GB"
        found.append((f"peak of plan {way}", most, _text(max(peaks, default=None), "{:.1f} GB")))
    return found


def _videos(rows: Rows, large: str) -> list[Claim]:
    found: list[Claim] = []
    for shape in TARGET_S:
        step, decode = seconds(rows, shape, "sampling step"), seconds(rows, shape, "decode")
        whole = SAMPLING_STEPS * step + decode if step and decode else None
        kernel = _row(rows, shape, "sampling step").get("kernel", "cudnn")
        target = f"<= {VIDEO_S[kernel]} s ({kernel})" if shape == large and kernel in VIDEO_S else "-"
        found.append((f"50-step video {shape}", target, _text(whole, "{:.0f} s (50 x a step + decoding)")))
        share = decode / whole if whole and decode else None
        found.append((f"outside the transformer {shape}", "< 8 %", _text(share, "{:.1%}")))
    return found


def _planned(rows: Rows, gpu: str) -> list[Claim]:
    found: list[Claim] = []
    for name in dict.fromkeys((gpu, REFERENCE_GPU)):
        found.append((f"default preset, whole pipeline, {name}", "<= 8 h", _hours(rows, gpu, name)))
    for kind in SHAPE_KINDS:
        for shape, off in left_out(rows, gpu, kind).items():
            found.append((f"planned from the other shapes, {kind} {shape}", "within 15 %", f"{off:+.1%}"))
    time = segment_off(rows, gpu)
    found.append(("plan against a segment of 20 steps + 2 videos: time", "within 15 %", _text(time, "{:+.1%}")))
    memory = peaks_off(rows)
    segment = next((off for name, off in memory.items() if SEGMENT in name), None)
    found.append(("plan against a segment of 20 steps + 2 videos: peak", "within 10 %", _text(segment, "{:+.1%}")))
    worst = max(memory, key=lambda name: abs(memory[name]), default="")
    text = f"{memory[worst]:+.1%} ({worst})" if worst else "not measured"
    return [*found, ("plan against peak memory, worst row", "within 10 %", text)]


def _row(rows: Rows, shape: str, kind: str, way: str = "80gb") -> Mapping[str, Any]:
    """A row that was measured; empty if it was not."""
    found = [row for row in rows if (row["shape"], row["row"], row["way"]) == (shape, kind, way)]
    return found[0] if found and found[0]["state"] == DONE else {}


def seconds(rows: Rows, shape: str, kind: str, way: str = "80gb") -> float | None:
    """What a row took; None if it was not measured."""
    return _row(rows, shape, kind, way).get("seconds")


def _text(value: float | None, form: str, otherwise: str = "not measured") -> str:
    return otherwise if value is None else form.format(value)


def _state(rows: Rows, shape: str) -> str:
    """Why there is no comparison."""
    found = [row["state"] for row in rows if (row["shape"], row["way"]) == (shape, PLAIN)]
    return f"plain: {found[0]}" if found and found[0] != DONE else "not measured"


def mfu(rows: Rows, shape: str, kind: str, gpu: str) -> float | None:
    """Executed FLOP, recomputation included, by time and the GPU's published peak."""
    rate = _row(rows, shape, kind).get("tflops")
    return None if gpu not in KNOWN_GPUS or rate is None else float(rate / KNOWN_GPUS[gpu].peak)


def steps(rows: Rows, gpu: str) -> list[known.Step]:
    """The measured rows of our own ways as the plan reads them; none for a GPU that the plan does not know."""
    if gpu not in KNOWN_GPUS:
        return []
    return [
        known.Step(gpu, row["row"], _shape(row["shape"]), tuple(row["held"]), row["seconds"], _floor(row, gpu))
        for row in rows
        if row["state"] == DONE and row["way"] != PLAIN and row["row"] != SEGMENT
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


def _hours(rows: Rows, gpu: str, wanted: str) -> str:
    """Hours of the default preset, photos to final adapter, on the GPU `wanted`, from steps of `gpu`.

    Nothing is said unless every step of the plan for `gpu` was measured.
    """
    kernel: Kernel = _row(rows, str(SHAPES[MODEL][0]), "preference step").get("kernel", "auto")
    found = _estimated(settings_of(MODEL, **{"model.attention": kernel}), rows, gpu, gpu) if gpu in KNOWN_GPUS else None
    if found is None or any(row.basis != "measured" for row in found.rows if row.held):
        return "not measured"
    if wanted == gpu:
        return f"{(found.seconds or 0.0) / 3600:.1f} h, planned from measured steps"
    other = _estimated(settings_of(MODEL), rows, gpu, wanted)
    return f"{(other.seconds or 0.0) / 3600:.1f} h, estimated from {gpu}"


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
    measured = [step for step in steps(rows, gpu) if step.kind == kind]
    missed = {}
    for shape in TARGET_S:
        row, others = _row(rows, shape, kind), [step for step in measured if str(step.shape) != shape]
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
    shape, measured = str(SHAPES[MODEL][0]), steps(rows, gpu)
    took, step = seconds(rows, shape, SEGMENT), _row(rows, shape, "preference step")
    if took is None or not step or not measured:
        return None
    execution = known.executed(tuple(step["held"]))
    parts = _gpu_segment.parts(costs.ARCHITECTURES[MODEL], _shape(shape), settings_of(MODEL), execution.keep)
    found = [known.seconds(one.kind, one.cost, one.shape, execution, _card(gpu), measured) for one in parts]
    if any(basis != "measured" for _, basis in found):
        return None
    return sum(one.times * (each or 0.0) for one, (each, _) in zip(parts, found, strict=True)) / took - 1


def peaks_off(rows: Rows) -> dict[str, float]:
    """By how much the plan misses the peak memory of every row of our own ways that was measured."""
    return {
        f"{row['shape']} {row['row']} {row['way']}": row["planned_gb"] / row["allocated_gb"] - 1
        for row in rows
        if row["state"] == DONE and row["way"] != PLAIN and row["allocated_gb"]
    }
