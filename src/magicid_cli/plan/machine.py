"""What this machine has: its GPU and how fast the 13B model usually runs on one, memory, disks."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from magicid_cli.errors import MagicIDError
from magicid_cli.plan.costs import GB, Rates
from magicid_cli.workspace import data_home

# What whole samplers of the 13B model are seen to reach: 317, 336, 353 and 355 TFLOP/s on one H100 or H800 (117 to 129
# frames, 720p), 174 and 187 on one A100. A share of the peak carries over to GPUs of the same or a later kind.
HOPPER_SHARE, AMPERE_SHARE = 340 / 989, 180 / 312


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Attributes:
        peak: published, dense bfloat16 with float32 sums, TFLOP/s.
        share: of the peak that runs of the 13B model usually reach.
        memory_gb: what torch sees of its memory, in units of 1e9 bytes.
        short: what `--gpu` calls it; empty for one that is planned for as another.
        capability: its compute capability.
    """

    peak: float
    share: float
    memory_gb: float
    short: str = ""
    capability: tuple[int, int] = (8, 0)

    @property
    def rates(self) -> Rates:
        """What runs usually reach."""
        usual = self.peak * self.share
        return Rates(usual, usual, usual)


# By the name that torch reports. Names that are not listed, e.g. slices and laptop versions, get no time: an invented
# one would be worse.
KNOWN_GPUS: dict[str, Gpu] = {
    "NVIDIA H100 80GB HBM3": Gpu(989, HOPPER_SHARE, 84.9, "h100", capability=(9, 0)),
    "NVIDIA H100 PCIe": Gpu(756, HOPPER_SHARE, 84.9, "h100-pcie", capability=(9, 0)),
    "NVIDIA H100 NVL": Gpu(835, HOPPER_SHARE, 100.0, "h100-nvl", capability=(9, 0)),
    "NVIDIA H200": Gpu(989, HOPPER_SHARE, 150.0, "h200", capability=(9, 0)),
    "NVIDIA H200 NVL": Gpu(835, HOPPER_SHARE, 150.0, capability=(9, 0)),
    "NVIDIA H800": Gpu(989, HOPPER_SHARE, 84.9, capability=(9, 0)),
    "NVIDIA GH200 480GB": Gpu(989, HOPPER_SHARE, 101.0, "gh200", capability=(9, 0)),
    "NVIDIA A100-SXM4-80GB": Gpu(312, AMPERE_SHARE, 84.9, "a100"),
    "NVIDIA A100 80GB PCIe": Gpu(312, AMPERE_SHARE, 84.9),
    "NVIDIA A100-SXM4-40GB": Gpu(312, AMPERE_SHARE, 42.3, "a100-40gb"),
    "NVIDIA A100-PCIE-40GB": Gpu(312, AMPERE_SHARE, 42.3),
    "NVIDIA A800-SXM4-80GB": Gpu(312, AMPERE_SHARE, 84.9),
    "NVIDIA L40S": Gpu(362, AMPERE_SHARE, 47.7, "l40s", capability=(8, 9)),
    "NVIDIA RTX A6000": Gpu(155, AMPERE_SHARE, 50.9, "a6000", capability=(8, 6)),
    "NVIDIA GeForce RTX 3090": Gpu(71, AMPERE_SHARE, 25.3, "3090", capability=(8, 6)),
    "NVIDIA GeForce RTX 4090": Gpu(165, AMPERE_SHARE, 25.3, "4090", capability=(8, 9)),
    "NVIDIA GeForce RTX 5090": Gpu(209, AMPERE_SHARE, 33.7, "5090", capability=(12, 0)),
}

# The least compute capability for which torch multiplies numbers of 8 bits.
FP8_CAPABILITY = (8, 9)

# The paper's GPU.
REFERENCE_GPU = "NVIDIA H100 80GB HBM3"


@dataclass(frozen=True)
class Machine:
    """What this machine has.

    Attributes:
        gpu: its name, or None.
        gpu_memory_gb: memory free on it now; 0 without one.
        rates: usual rates of this GPU, or None where none were published.
        ram_gb: main memory.
        data_disk_gb: free where identities are kept.
        cache_disk_gb: free where weights are kept, or None if that is the same disk.
        assumed: whether the GPU is not here but only planned for.
        asked: whether somebody asked for a plan for that GPU: what this machine itself lacks does not matter then.
        capability: the GPU's compute capability; None where it is not known.
    """

    gpu: str | None
    gpu_memory_gb: float
    rates: Rates | None
    ram_gb: float
    data_disk_gb: float
    cache_disk_gb: float | None = None
    assumed: bool = False
    asked: bool = False
    capability: tuple[int, int] | None = None

    def without(self, gb: float) -> "Machine":
        """The same, with so much of the memory taken that the model would be in."""
        if self.gpu:
            return replace(self, gpu_memory_gb=self.gpu_memory_gb - gb)
        return replace(self, ram_gb=self.ram_gb - gb)


def elsewhere(machine: Machine, gpu: str = REFERENCE_GPU, *, asked: bool = False) -> Machine:
    """The machine with another GPU put into it, for a plan that is made where there is none such.

    Args:
        machine: this one.
        gpu: its full name, one of `KNOWN_GPUS`; by default the paper's.
        asked: whether somebody asked for it.
    """
    known = KNOWN_GPUS[gpu]
    return replace(
        machine,
        gpu=gpu,
        gpu_memory_gb=known.memory_gb,
        rates=known.rates,
        assumed=True,
        asked=asked,
        capability=known.capability,
    )


def gpu_called(short: str) -> str:
    """The full name of the GPU that `--gpu` calls `short`.

    Raises:
        MagicIDError: `settings-unknown`, with the names that are known.
    """
    names = {gpu.short: name for name, gpu in KNOWN_GPUS.items() if gpu.short}
    if short.lower() not in names:
        raise MagicIDError("settings-unknown", f"No GPU is known as '{short}'.", f"Known: {', '.join(sorted(names))}.")
    return names[short.lower()]


def usual_rates(gpu: str | None) -> Rates | None:
    """What runs of the 13B model usually reach on a GPU of that name; None where that is unknown."""
    return KNOWN_GPUS[gpu].rates if gpu in KNOWN_GPUS else None


def this_machine(device: str, cache: Path | None = None) -> Machine:
    """Look at this machine.

    Args:
        device: `auto`, `cuda` or `cpu`, as in the settings.
        cache: where weights are downloaded to, if that matters.
    """
    gpu, gpu_memory, capability = None, 0.0, None
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            gpu, gpu_memory = torch.cuda.get_device_name(0), torch.cuda.mem_get_info(0)[0] / GB
            capability = torch.cuda.get_device_capability(0)
    data = _existing(data_home())
    other = _existing(cache) if cache and _existing(cache).stat().st_dev != data.stat().st_dev else None
    return Machine(
        gpu=gpu,
        gpu_memory_gb=gpu_memory,
        rates=usual_rates(gpu),
        ram_gb=main_memory() / GB,
        data_disk_gb=shutil.disk_usage(data).free / GB,
        cache_disk_gb=shutil.disk_usage(other).free / GB if other else None,
        capability=capability,
    )


_CONTAINERS_LIMIT = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def main_memory(limits: Sequence[str] = _CONTAINERS_LIMIT) -> int:
    """Main memory in bytes: the machine's, or the container's where that is less.

    Args:
        limits: files of the control groups that may hold the container's, in bytes; `max` where there is none.
    """
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in map(Path, limits):
        text = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        if text.isdigit():
            found = min(found, int(text))
    return found


def _existing(path: Path) -> Path:
    """The path itself or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
