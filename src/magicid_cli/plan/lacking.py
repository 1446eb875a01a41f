"""What a machine lacks for a run, and what would fit it."""

from typing import TYPE_CHECKING

from magicid_cli.config import with_values
from magicid_cli.errors import MagicIDError
from magicid_cli.plan.machine import FP8_CAPABILITY, Machine
from magicid_cli.plan.memory import MOST_GB, SPARE_GB, Need, can_load, can_pin
from magicid_cli.plan.workload import chosen, generated_shape, value_bytes_of
from magicid_cli.rounds import stage_of

if TYPE_CHECKING:
    from magicid_cli.plan import Estimate, Row


def check(estimate: "Estimate") -> list[MagicIDError]:
    """What this machine lacks for the run; empty if nothing."""
    its_own = None if estimate.machine.asked else disk(estimate)
    problems = (_gpu(estimate), _products(estimate), _memory(estimate), its_own)
    return [problem for problem in problems if problem is not None]


def require(estimate: "Estimate") -> None:
    """Stop before the work starts if this machine cannot do it.

    Raises:
        MagicIDError: `gpu-missing`, `fp8-products`, `gpu-memory`, `memory` or `disk-space` (exit code 3).
    """
    for problem in check(estimate):
        raise problem


def _gpu(estimate: "Estimate") -> MagicIDError | None:
    machine = estimate.machine
    here = machine.asked or (machine.gpu and not machine.assumed) or not estimate.memory_gb
    device = estimate.settings.model.device
    if here or device == "cpu" or not (estimate.model.needs_gpu or device == "cuda"):
        return None
    if not estimate.model.needs_gpu:
        return MagicIDError("gpu-missing", "No CUDA GPU is usable here.", "Leave --device out, or set it to cpu.")
    return MagicIDError(
        "gpu-missing",
        f"No CUDA GPU is usable here; {estimate.model.name} needs one with {estimate.memory_gb:.0f} GB for this run.",
        "For a small model that runs anywhere: --model mini",
    )


def _products(estimate: "Estimate") -> MagicIDError | None:
    """Whether the GPU is known to be too old for products in fp8; one that is not known is tried by `open_family`."""
    machine = estimate.machine
    wanted = estimate.settings.model.base == "fp8-products" and any(row.held for row in estimate.rows)
    if not wanted or machine.capability is None or machine.capability >= FP8_CAPABILITY:
        return None
    has, needs = (".".join(map(str, one)) for one in (machine.capability, FP8_CAPABILITY))
    return MagicIDError(
        "fp8-products",
        f"{machine.gpu} cannot multiply numbers of 8 bits: it has compute capability {has}, and that takes {needs}.",
        "Leave the products as they are, with the base stored in the same bytes: --base fp8",
    )


def _memory(estimate: "Estimate") -> MagicIDError | None:
    machine = estimate.machine
    lacking = [row for row in estimate.rows if not _fits(row, machine)]
    worst = max(lacking, key=lambda row: row.memory_gb, default=None)
    if worst is None:
        return None
    shape = worst.shape or (generated_shape(estimate.settings) if worst.stage == "generate" else estimate.shape)
    stage, need = f"Stage '{worst.stage}' at {shape} needs about {worst.memory_gb:.0f} GB", worst.memory_gb
    if not machine.gpu:
        if need <= machine.ram_gb and worst.held is not None:
            return _reading(worst.stage, worst.held.need, machine, estimate)
        hint = "Use fewer frames, a smaller size, or --model mini."
        return MagicIDError("memory", f"{stage} of memory; this machine has {machine.ram_gb:.0f} GB.", hint)
    plan = f" with memory plan {worst.held.plan}" if worst.held else ""
    roomy = need + SPARE_GB <= machine.gpu_memory_gb
    if worst.held is not None and roomy and not machine.asked:
        if not can_load(worst.held.need, machine):
            return _reading(worst.stage, worst.held.need, machine, estimate)
        if not can_pin(worst.held.need, machine):
            return MagicIDError(
                "memory",
                f"Stage '{worst.stage}' at {shape} needs {worst.held.need.pinned_gb:.0f} GB of main memory for what "
                f"leaves the GPU{plan}; this machine has {machine.ram_gb:.0f} GB in all.",
                "Store the base smaller (--base nf4; other numbers, so other videos), or use a smaller shape.",
            )
    on = f"{machine.gpu_memory_gb:.0f} GB are free on {machine.gpu}"
    if roomy and worst.held is not None:
        on = f"that plan takes {MOST_GB[worst.held.plan]:.0f} GB at most"
    hint = _smaller(estimate) if worst.held else "Free the GPU, or use a larger one."
    return MagicIDError("gpu-memory", f"{stage} of GPU memory{plan}; {on}.", hint)


def _reading(stage: str, need: Need, machine: Machine, estimate: "Estimate") -> MagicIDError:
    """All of a part is in main memory while it is read, however it is stored afterwards."""
    total = need.loading_gb + (SPARE_GB if machine.gpu else 0.0)
    return MagicIDError(
        "memory",
        f"Stage '{stage}' needs about {total:.0f} GB of main memory while the model is read; this machine has "
        f"{machine.ram_gb:.0f} GB in all.",
        "With --dtype bfloat16 the files are used as they are, and less is needed."
        if value_bytes_of(estimate.settings, machine) == 4
        else "For a small model that runs anywhere: --model mini",
    )


def _fits(row: "Row", machine: Machine) -> bool:
    if row.held is not None:
        return row.held.fits
    return row.memory_gb <= (machine.gpu_memory_gb if machine.gpu else machine.ram_gb)


# Shapes worth proposing, largest first.
_SHAPES = ((61, "960x544"), (33, "960x544"), (61, "544x320"), (33, "544x320"))


def _smaller(estimate: "Estimate") -> str:
    """The largest shape that fits, as flags to type; else a smaller base."""
    todo, machine, model = {row.stage for row in estimate.rows}, estimate.machine, estimate.model
    section = "generate" if todo == {"generate"} else "shape"
    held = [(stage_of(row.stage), machine.without(row.beside_gb)) for row in estimate.rows if row.held]
    auto = with_values(estimate.settings, {"model.memory_plan": "auto"})
    if all(chosen(auto, model, there, stage).fits for stage, there in held):
        return "This fits: --memory-plan auto"
    for frames, size in _SHAPES:
        settings = with_values(auto, {f"{section}.frames": frames, f"{section}.size": size})
        if all(chosen(settings, model, there, stage).fits for stage, there in held):
            return f"This fits: --frames {frames} --size {size}"
    return "No shape of this model fits this GPU; a small model that runs anywhere: --model mini"


def disk(estimate: "Estimate") -> MagicIDError | None:
    """Whether the disks of this machine have room for what is fetched and written; None if so."""
    machine = estimate.machine
    if machine.cache_disk_gb is None:
        wanted = [("for weights and videos", estimate.data_gb + estimate.download_gb, machine.data_disk_gb)]
    else:
        wanted = [
            ("for weights", estimate.download_gb, machine.cache_disk_gb),
            ("for videos and checkpoints", estimate.data_gb, machine.data_disk_gb),
        ]
    for what, need, free in wanted:
        if need > free:
            return MagicIDError(
                "disk-space",
                f"About {need:.1f} GB of disk are needed {what}; {free:.1f} GB are free.",
                "Make room (`magicid cache` lists what can go), or choose another disk with HF_HOME or MAGICID_HOME.",
            )
    return None
