"""Seconds of a step on a GPU: measured there with random weights, or scaled from what was measured, or estimated.

`gpu_steps.json` comes with magicid and is written by `benchmarks/gpu.py --ship`. It holds what was measured and nothing
else. A time that was not measured is a floor (the FLOP at the best published kernel rates, scaled by the GPU's peak)
times the factor by which measured steps miss theirs; where nothing was measured, the rate that others report.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Execution
from magicid_cli.plan.costs import BEST_RATES, Cost, Rates, tokens
from magicid_cli.plan.machine import KNOWN_GPUS, REFERENCE_GPU, Machine

FORMAT = 1
_FILE = "gpu_steps.json"
# What a step's time depends on, of how the model is held.
HELD = ("base", "keep", "kept_in", "offload", "compile")
TRAINING_KINDS = ("stage-1 step", "preference step")


@dataclass(frozen=True)
class Step:
    """A measured step of the 13B model with the default adapter.

    Attributes:
        gpu: as torch calls it.
        kind: the benchmark's row.
        shape: of the video.
        held: how the model was held: a value for each of `HELD`.
        seconds: median of one.
        floor_s: of the same work on the same GPU.
    """

    gpu: str
    kind: str
    shape: Shape
    held: tuple[str, ...]
    seconds: float
    floor_s: float

    @property
    def factor(self) -> float:
        """How many times its floor it takes."""
        return self.seconds / self.floor_s


def held(execution: Execution, kind: str) -> tuple[str, ...]:
    """What of `execution` the time of a step of that kind depends on: without a backward pass nothing is kept."""
    if kind not in TRAINING_KINDS:
        execution = replace(execution, keep="nothing", kept_in="gpu")
    return tuple(str(getattr(execution, name)) for name in HELD)


def executed(values: tuple[str, ...]) -> Execution:
    """The reverse of `held`: an execution with these values, and defaults for what does not matter."""
    named: dict[str, Any] = dict(zip(HELD, values, strict=True))
    return Execution(**{**named, "compile": named["compile"] == "True"})


@cache
def shipped() -> tuple[Step, ...]:
    """The measured steps that come with magicid."""
    stored = json.loads(files("magicid_cli.plan").joinpath(_FILE).read_text(encoding="utf-8"))
    if stored["format"] != FORMAT:
        raise ValueError(f"{_FILE} has format {stored['format']}, not {FORMAT}")
    return tuple(Step(**{**row, "shape": Shape(*row["shape"]), "held": tuple(row["held"])}) for row in stored["steps"])


def floor_rates(gpu: str) -> Rates:
    """The best published kernel rates, scaled to a GPU by its peak."""
    share = KNOWN_GPUS[gpu].peak / KNOWN_GPUS[REFERENCE_GPU].peak
    return Rates(BEST_RATES.linear * share, BEST_RATES.attention_forward * share, BEST_RATES.attention_backward * share)


def seconds(
    kind: str, cost: Cost, shape: Shape, execution: Execution, machine: Machine, steps: Sequence[Step]
) -> tuple[float | None, str]:
    """How long one step takes.

    Args:
        kind: `forward`, `sampling step`, `stage-1 step`, `preference step` or `decode`.
        cost: of the step.
        shape: of the video.
        execution: how the model is held.
        machine: with a GPU, here or planned for.
        steps: what was measured.

    Returns:
        Seconds, or None where nothing is known of the GPU, and their basis: `measured`, `estimated` or `unknown`.
    """
    if machine.gpu not in KNOWN_GPUS or machine.gpu is None or machine.rates is None:
        return None, "unknown"
    same = [step for step in steps if (step.gpu, step.kind, step.held) == (machine.gpu, kind, held(execution, kind))]
    exact = [step for step in same if step.shape == shape]
    if exact:
        return exact[-1].seconds, "measured"
    factor = _factor(same or _like(kind, machine.gpu, steps), shape)
    if factor is None:
        return cost.seconds(machine.rates), "estimated"
    return factor * cost.seconds(floor_rates(machine.gpu)), "estimated"


def _like(kind: str, gpu: str, steps: Sequence[Step]) -> list[Step]:
    """Measured steps of that kind: of this GPU however the model was held, else of the one measured last."""
    alike = [step for step in steps if step.kind == kind]
    return [step for step in alike if step.gpu == gpu] or [step for step in alike if step.gpu == alike[-1].gpu]


def _factor(steps: Sequence[Step], shape: Shape) -> float | None:
    """The factor above the floor at a shape: between the nearest measured ones by the logarithm of their tokens."""
    points = sorted({tokens(step.shape): step.factor for step in steps}.items())
    if not points:
        return None
    wanted = tokens(shape)
    below = [point for point in points if point[0] <= wanted] or points[:1]
    above = [point for point in points if point[0] >= wanted] or points[-1:]
    (low, first), (high, second) = below[-1], above[0]
    if low == high:
        return first
    share = math.log(wanted / low) / math.log(high / low)
    return first + share * (second - first)
