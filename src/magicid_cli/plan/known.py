"""Seconds of a step on a GPU: measured there with random weights, or scaled from what was measured, or estimated.

`gpu_steps.json` comes with magicid and is written by `benchmarks/gpu.py --ship`. It holds what was measured and nothing
else. A time that was not measured is a floor (the FLOP at the best published kernel rates, scaled by the GPU's peak)
times the factor by which measured steps miss theirs; where nothing was measured, the rate that others report. A step is
known for the attention kernel that it ran on: with another one it is estimated from both kernels' published rates.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from magicid_cli.models import kernels
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Execution, Kernel
from magicid_cli.plan.costs import BEST_RATES, Cost, Rates, tokens
from magicid_cli.plan.machine import KNOWN_GPUS, REFERENCE_GPU, Machine

FORMAT = 2
_FILE = "gpu_steps.json"
# What a step's time depends on, of how the model is held.
HELD = ("base", "keep", "kept_in", "offload", "compile", "attention")
TRAINING_KINDS = ("stage-1 step", "preference step")
# TFLOP/s of attention, forward and backward, on one H100 with heads of 128 and 16,384 tokens, by FlashAttention 3's
# paper; a kernel that it does not show counts as the slowest fast one that it does, FlashAttention 2. Of other
# generations no such comparison is at hand: there the kernel that is used counts as the best.
_KERNELS: dict[Kernel, tuple[float, float]] = {"flash-3": (648.0, 561.0), "cudnn": (595.0, 516.0)}
_SLOWEST, _COMPARED_ON = (370.0, 322.0), 9


@dataclass(frozen=True)
class Step:
    """A measured step of the 13B model with the default adapter.

    Attributes:
        gpu: as torch calls it.
        kind: the benchmark's row.
        shape: of the video.
        held: how the model was held: a value for each of `HELD`, the attention kernel by its name.
        seconds: median of one.
        floor_s: of the same work on the same GPU with the same kernel.
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
    """What of `execution` the time of a step of that kind depends on.

    Without a backward pass nothing is kept, and decoding is no work of the transformer.
    """
    if kind == "decode":
        execution = Execution()
    elif kind not in TRAINING_KINDS:
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


def kernel_of(execution: Execution, machine: Machine) -> Kernel | None:
    """The attention kernel that a run takes if none is refused; None where the GPU's generation is not known."""
    gpu = KNOWN_GPUS.get(machine.gpu or "")
    if gpu is None:
        return None
    # What is installed here says nothing of the machine that has the GPU.
    present: frozenset[Kernel] | None = frozenset() if machine.assumed else None
    return kernels.expected(execution.attention, gpu.capability, present)


def floor_rates(gpu: str, kernel: Kernel | None = None) -> Rates:
    """The best published rates, scaled to a GPU by its peak.

    Args:
        gpu: one of `KNOWN_GPUS`.
        kernel: of attention; by default the fastest.
    """
    share = KNOWN_GPUS[gpu].peak / KNOWN_GPUS[REFERENCE_GPU].peak
    forward, backward = BEST_RATES.attention_forward, BEST_RATES.attention_backward
    if kernel is not None and KNOWN_GPUS[gpu].capability[0] == _COMPARED_ON:
        forward, backward = _KERNELS.get(kernel, _SLOWEST)
    return Rates(BEST_RATES.linear * share, forward * share, backward * share)


def seconds(
    kind: str, cost: Cost, shape: Shape, execution: Execution, machine: Machine, steps: Sequence[Step]
) -> tuple[float | None, str]:
    """How long one step takes.

    Args:
        kind: `sampling step`, `stage-1 step`, `preference step` or `decode`.
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
    kernel = kernel_of(execution, machine)
    execution = replace(execution, attention=kernel or execution.attention)
    way = held(execution, kind)
    same = [step for step in steps if (step.gpu, step.kind, step.held) == (machine.gpu, kind, way)]
    floor_s = cost.seconds(floor_rates(machine.gpu, kernel))
    # Another adapter is other work at the same shape.
    exact = [step for step in same if step.shape == shape and math.isclose(step.floor_s, floor_s, rel_tol=1e-6)]
    if exact:
        return exact[-1].seconds, "measured"
    factor = _factor(same or _like(kind, machine.gpu, way, steps), shape)
    if factor is None:
        return cost.seconds(machine.rates), "estimated"
    return factor * floor_s, "estimated"


def _like(kind: str, gpu: str, way: tuple[str, ...], steps: Sequence[Step]) -> list[Step]:
    """Measured steps of that kind: of this GPU however the model was held, else of the one measured last.

    Of that one, those whose model was held in the same way, if there are any.
    """
    alike = [step for step in steps if step.kind == kind]
    here = [step for step in alike if step.gpu == gpu]
    there = [step for step in alike if step.gpu == alike[-1].gpu]
    return here or [step for step in there if step.held == way] or there


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
