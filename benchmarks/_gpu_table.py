"""The table of `benchmarks.gpu`: ours beside plain, against the targets, from the rows that were measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._gpu_model import CARD_BYTES, PLAIN
from benchmarks._gpu_rows import DONE, SHAPES
from magicid_cli.config import AdapterSettings
from magicid_cli.models.base import Shape
from magicid_cli.plan import costs, known
from magicid_cli.plan.machine import KNOWN_GPUS, usual_rates
from magicid_cli.plan.machine import Machine as Card

# Seconds of a preference step, from the shape of training; the rest in words below.
TARGET_S = dict(zip(map(str, SHAPES["hunyuan-video"]), (4.3, 9.6, 25.4, 70.0), strict=True))
SAMPLING_STEPS = 50

Rows = Sequence[Mapping[str, Any]]
Claim = tuple[str, str, str]


def seconds(rows: Rows, shape: str, kind: str, way: str = "80gb") -> float | None:
    """What a row took; None if it was not measured."""
    found = [row for row in rows if (row["shape"], row["row"], row["way"]) == (shape, kind, way)]
    return found[0]["seconds"] if found and found[0]["state"] == DONE else None


def claims(rows: Rows, gpu: str) -> list[Claim]:
    """(what, target, what was measured) of the whole table; `not measured` where a row is missing."""
    found: list[Claim] = []
    for shape, most in TARGET_S.items():
        ours, plain = seconds(rows, shape, "preference step"), seconds(rows, shape, "preference step", PLAIN)
        found.append((f"preference step {shape}", f"<= {most:g} s", _text(ours, "{:.2f} s")))
        ratio = plain / ours if ours and plain else None
        found.append((f"plain / ours {shape}", ">= 1.6 where it fits", _text(ratio, "{:.2f}", _state(rows, shape))))
    peaks = [row["allocated_gb"] for row in rows if row["way"] == "80gb" and row["state"] == DONE]
    found.append(("peak of plan 80gb", "<= 76 GB", _text(max(peaks, default=None), "{:.1f} GB")))
    for way in ("48gb", "24gb"):
        peaks = [row["allocated_gb"] for row in rows if row["way"] == way and row["state"] == DONE]
        most = CARD_BYTES[way] / 1e9 - 1
        found.append((f"peak of plan {way}", f"<= {most:.1f} GB", _text(max(peaks, default=None), "{:.1f} GB")))
    large = str(SHAPES["hunyuan-video"][-1])
    for shape in TARGET_S:
        step, decode = seconds(rows, shape, "sampling step"), seconds(rows, shape, "decode")
        whole = SAMPLING_STEPS * step + decode if step and decode else None
        if shape == large:
            found.append((f"50-step video {shape}", "<= 345 s (cuDNN)", _text(whole, "{:.0f} s")))
        share = decode / whole if whole and decode else None
        found.append((f"outside the transformer {shape}", "< 8 %", _text(share, "{:.1%}")))
    reached = mfu(rows, large, "stage-1 step", gpu)
    found.append((f"share of peak, stage 1, {large}", ">= 55 %", _text(reached, "{:.0%}")))
    for shape, off in left_out(rows, gpu).items():
        found.append((f"planned from the other shapes, {shape}", "within 15 %", f"{off:+.1%}"))
    return found


def _text(value: float | None, form: str, otherwise: str = "not measured") -> str:
    return otherwise if value is None else form.format(value)


def _state(rows: Rows, shape: str) -> str:
    """Why there is no comparison."""
    found = [row["state"] for row in rows if (row["shape"], row["way"]) == (shape, PLAIN)]
    return f"plain: {found[0]}" if found and found[0] != DONE else "not measured"


def mfu(rows: Rows, shape: str, kind: str, gpu: str) -> float | None:
    """Executed FLOP, recomputation included, by time and the GPU's published peak."""
    found = [row for row in rows if (row["shape"], row["row"], row["way"]) == (shape, kind, "80gb")]
    if gpu not in KNOWN_GPUS or not found or found[0]["tflops"] is None:
        return None
    return float(found[0]["tflops"] / KNOWN_GPUS[gpu].peak)


def steps(rows: Rows, gpu: str) -> list[known.Step]:
    """The measured rows of our own ways as the plan reads them; none for a GPU that the plan does not know."""
    if gpu not in KNOWN_GPUS:
        return []
    return [
        known.Step(gpu, row["row"], _shape(row["shape"]), tuple(row["held"]), row["seconds"], _floor(row, gpu))
        for row in rows
        if row["state"] == DONE and row["way"] != PLAIN
    ]


def _floor(row: Mapping[str, Any], gpu: str) -> float:
    """The row's floor on that GPU; the row has it for the reference's peak."""
    return float(row["floor_s"]) * KNOWN_GPUS["NVIDIA H100 80GB HBM3"].peak / KNOWN_GPUS[gpu].peak


def _shape(text: str) -> Shape:
    return Shape(*(int(side) for side in text.split("x")))


def left_out(rows: Rows, gpu: str) -> dict[str, float]:
    """By how much the plan misses each preference step, planned from those at the other shapes."""
    measured = [step for step in steps(rows, gpu) if step.kind == "preference step"]
    ours = {row["shape"]: row for row in rows if row["row"] == "preference step" and row["way"] == "80gb"}
    card, missed = Card(gpu, 0.0, usual_rates(gpu), 0.0, 0.0), {}
    for step in measured:
        others = [one for one in measured if one.shape != step.shape]
        row = ours.get(str(step.shape))
        if not others or row is None or row["seconds"] != step.seconds:
            continue
        arch, execution = costs.ARCHITECTURES["hunyuan-video"], known.executed(step.held)
        cost = costs.preference_step(arch, step.shape, AdapterSettings(), keep=execution.keep)
        planned, _ = known.seconds(step.kind, cost, step.shape, execution, card, others)
        if planned is not None:
            missed[str(step.shape)] = planned / step.seconds - 1
    return missed
