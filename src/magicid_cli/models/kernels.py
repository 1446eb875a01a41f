"""Which attention kernel a machine takes, in which order of preference, and why one was refused.

The order is that of published rates on long sequences with 128 numbers a head. The slow way, which holds the whole
matrix of scores (`math`), is on no GPU's list: it is taken only where it is asked for by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import cast, get_args

from magicid_cli.errors import MagicIDError
from magicid_cli.models.execution import Kernel

# What of another package a kernel needs. Packages that are installed, never code that is fetched when it runs.
PACKAGES: Mapping[str, str] = {"flash-3": "flash_attn_interface", "flash-2": "flash_attn"}

_BY_GENERATION: Mapping[int, tuple[Kernel, ...]] = {
    12: ("cudnn", "flash-2", "torch-flash", "torch-efficient"),
    10: ("cudnn", "flash-2", "torch-flash", "torch-efficient"),
    9: ("flash-3", "cudnn", "flash-2", "torch-flash", "torch-efficient"),
    8: ("flash-2", "torch-flash", "cudnn", "torch-efficient"),
}
_OLDER: tuple[Kernel, ...] = ("torch-efficient",)
_ON_CPU: tuple[Kernel, ...] = ("torch-flash", "math")


@dataclass(frozen=True)
class Choice:
    """The kernel that is used.

    Attributes:
        kernel: its name.
        refused: kernels that stood before it, and why each was not taken.
    """

    kernel: Kernel
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def second_best(self) -> str:
        """One sentence for the user if a kernel that is there was refused; empty if none was."""
        broken = {name: why for name, why in self.refused.items() if why != NOT_INSTALLED}
        if not broken:
            return ""
        reasons = "; ".join(f"{name}: {why}" for name, why in broken.items())
        return f"Attention runs on the kernel {self.kernel}, because a faster one was refused ({reasons})."


NOT_INSTALLED = "its package is not installed"


def candidates(capability: tuple[int, int] | None) -> tuple[Kernel, ...]:
    """Kernels in order of preference.

    Args:
        capability: the GPU's compute capability, e.g. (9, 0) for H100 and H200; None for a CPU.
    """
    if capability is None:
        return _ON_CPU
    return _BY_GENERATION.get(capability[0], _OLDER if capability[0] < 8 else _BY_GENERATION[12])


def installed() -> frozenset[Kernel]:
    """Kernels that need a package which this machine has; nothing is imported."""
    return frozenset(cast(Kernel, kernel) for kernel, package in PACKAGES.items() if find_spec(package))


def expected(wanted: Kernel, capability: tuple[int, int] | None, present: frozenset[Kernel] | None = None) -> Kernel:
    """The kernel that a run would take if none is refused: for a plan, which needs no GPU.

    Args:
        wanted: by name, or `auto`.
        capability: of the GPU in question; None for a CPU.
        present: kernels whose packages are there; by default those of this machine.
    """
    present = installed() if present is None else present
    return wanted if wanted != "auto" else next(name for name in candidates(capability) if _there(name, present))


def choose(
    wanted: Kernel,
    capability: tuple[int, int] | None,
    refusal: Callable[[Kernel], str | None],
    present: frozenset[Kernel] | None = None,
) -> Choice:
    """The kernel that was asked for, or the first that is not refused.

    Args:
        wanted: by name, or `auto`.
        capability: of the GPU; None for a CPU.
        refusal: tries a kernel; says why it cannot be used, or None if it can.
        present: kernels whose packages are there; by default those of this machine.

    Raises:
        MagicIDError: `attention-kernel` if the kernel that was asked for, or every fast one, is refused.
    """
    present = installed() if present is None else present
    refused: dict[str, str] = {}
    for name in candidates(capability) if wanted == "auto" else (wanted,):
        why = refusal(name) if _there(name, present) else NOT_INSTALLED
        if why is None:
            return Choice(name, refused)
        refused[name] = why
    reasons = "; ".join(f"{name}: {why}" for name, why in refused.items())
    if wanted != "auto":
        raise MagicIDError(
            "attention-kernel",
            f"The attention kernel '{wanted}' cannot be used here ({reasons}).",
            "Leave --attention out, or name another kernel: " + ", ".join(get_args(Kernel)),
        )
    raise MagicIDError(
        "attention-kernel",
        f"No fast attention kernel can be used here ({reasons}).",
        "Update the GPU's driver and torch. To go on with the slow way, which needs far more memory: --attention math",
    )


def _there(name: Kernel, present: frozenset[Kernel]) -> bool:
    return name not in PACKAGES or name in present
