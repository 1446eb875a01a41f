"""Memory plans: how the model is held so that a stage fits a GPU. None of them changes what a run makes.

    80gb   the base on the GPU; blocks' inputs and attention outputs kept, where that is too much the inputs, then both,
           in main memory
    48gb   the base on the GPU; blocks recomputed whole, their inputs wait in main memory
    24gb   the blocks' weights in main memory, two blocks at a time on the GPU; else as 48gb

A plan is named after the card on which it does every stage at 61x720x1280; smaller shapes fit smaller cards. Storing
the base in other numbers (`model.base`) goes with every plan, but makes other videos, so it is never chosen unasked.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import cast

from magicid_cli.config import Settings
from magicid_cli.models.execution import Execution, Kernel, Storage
from magicid_cli.plan.machine import Machine

# What a plan leaves free on the GPU, and of main memory while the model is read, in GB; the share of main memory that
# it may lock.
SPARE_GB, PINNED_SHARE = 1.0, 0.75
# What a plan takes at most, in GB, however large the GPU is, if it was asked for by name; else a larger GPU may be used
# up to a share of what it has free. Estimates are not that good, and others need some, too.
MOST_GB = {"80gb": 76.0, "48gb": 46.0, "24gb": 23.0}
_MOST_SHARE = 0.89

_ON_GPU = Execution(vae_tiling=True)
_INPUTS_OUT = replace(_ON_GPU, kept_in="pinned")
_ATTENTION = replace(_ON_GPU, keep="attention")
# Largest first; a plan's ways of being held, too.
PLANS: dict[str, tuple[Execution, ...]] = {
    "80gb": (_ATTENTION, replace(_ATTENTION, kept_in="inputs pinned"), replace(_ATTENTION, kept_in="pinned")),
    "48gb": (_INPUTS_OUT,),
    "24gb": (replace(_INPUTS_OUT, offload="blocks"),),
}


@dataclass(frozen=True)
class Need:
    """What a stage takes.

    Attributes:
        gpu_gb: peak on the GPU, or in main memory where there is none.
        pinned_gb: page-locked main memory.
        loading_gb: main memory while the parts are read, one after another; before anything is page-locked.
    """

    gpu_gb: float
    pinned_gb: float = 0.0
    loading_gb: float = 0.0


@dataclass(frozen=True)
class Choice:
    """How a stage will hold its model.

    Attributes:
        plan: its memory plan; empty where there is no GPU, which needs none.
        execution: for the family.
        need: what the stage takes that way.
        fits: whether the machine has it, with `SPARE_GB` to spare.
    """

    plan: str
    execution: Execution
    need: Need
    fits: bool


def choose(
    settings: Settings,
    machine: Machine,
    need: Callable[[Execution], Need],
    *,
    text_gb: float = 0.0,
    guided: bool = False,
) -> Choice:
    """The first way of the plan that was asked for, or of all plans, that the machine has room for; else the last.

    Args:
        settings: of the run: memory plan, stored base, attention kernel.
        machine: where it runs.
        need: what the stage takes when the model is held in a given way.
        text_gb: what the text encoders take; they go to the CPU where the GPU has not as much.
        guided: whether every step of the stage has two passes, which are one batch where there is room for it.
    """
    found = []
    for plan, execution in _ways(settings, machine, guided):
        if machine.gpu and text_gb + SPARE_GB > machine.gpu_memory_gb:
            execution = replace(execution, text_encoder="cpu")
        took = need(execution)
        fits = _fits(took, machine) and took.gpu_gb <= _most_gb(plan, settings, machine)
        found.append(Choice(plan, execution, took, fits))
        if fits:
            break
    return found[-1]


def _most_gb(plan: str, settings: Settings, machine: Machine) -> float:
    """What a plan may take; without one there is no bound."""
    most = MOST_GB.get(plan, math.inf)
    return max(most, _MOST_SHARE * machine.gpu_memory_gb) if settings.model.memory_plan == "auto" else most


def without_gpu(settings: Settings) -> tuple[str, Execution]:
    """Plan and way of being held where there is no GPU: the plan that was asked for, else none."""
    wanted = settings.model.memory_plan
    if wanted != "auto":
        return wanted, _with_settings(PLANS[wanted][-1], settings)
    kept = not settings.training.gradient_checkpointing
    return "", _with_settings(Execution(keep="everything" if kept else "nothing"), settings)


def _fits(need: Need, machine: Machine) -> bool:
    if machine.gpu is None:
        return max(need.gpu_gb, need.loading_gb) <= machine.ram_gb
    room = machine.asked or (can_pin(need, machine) and can_load(need, machine))
    return room and need.gpu_gb + SPARE_GB <= machine.gpu_memory_gb


def can_pin(need: Need, machine: Machine) -> bool:
    """Whether main memory has room for what leaves the GPU."""
    return need.pinned_gb <= PINNED_SHARE * machine.ram_gb


def can_load(need: Need, machine: Machine) -> bool:
    """Whether main memory holds what is read on the way to the GPU, and the process itself beside it."""
    return need.loading_gb + SPARE_GB <= machine.ram_gb


def _ways(settings: Settings, machine: Machine, guided: bool) -> Iterator[tuple[str, Execution]]:
    """Memory plans and how each holds the model, in the order in which they are tried."""
    for plan, execution in _held_ways(settings, machine):
        if guided:
            yield plan, replace(execution, guided="one batch")
        yield plan, execution


def _held_ways(settings: Settings, machine: Machine) -> Iterator[tuple[str, Execution]]:
    if machine.gpu is None:
        yield without_gpu(settings)
        return
    wanted, keeps_all = settings.model.memory_plan, not settings.training.gradient_checkpointing
    for plan, ways in PLANS.items():
        if wanted not in ("auto", plan):
            continue
        if keeps_all and plan == "80gb":
            yield plan, _with_settings(replace(_ON_GPU, keep="everything"), settings)
        for execution in ways:
            yield plan, _with_settings(execution, settings)


def _with_settings(execution: Execution, settings: Settings) -> Execution:
    """The same with the stored base, the kernel and the compiler that the settings ask for."""
    model = settings.model
    offload = "none" if model.base in ("int8", "nf4") else execution.offload
    base, kernel = cast(Storage, model.base), cast(Kernel, model.attention)  # the settings' choices are these words
    return replace(execution, base=base, offload=offload, attention=kernel, compile=model.compile)


def following(plan: str) -> str | None:
    """The plan that takes less than this one, or None; what has no plan is followed by the second one."""
    names = list(PLANS)
    place = names.index(plan) if plan else 0
    return names[place + 1] if place + 1 < len(names) else None
