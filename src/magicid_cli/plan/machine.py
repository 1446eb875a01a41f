"""What this machine has: its GPU and how fast the 13B model usually runs on one, memory, disks."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from magicid_cli.plan.costs import GB, Rates
from magicid_cli.workspace import data_home

# What whole samplers of the 13B model are seen to reach: 317, 336, 353 and 355 TFLOP/s on one H100 or H800 (117 to 129
# frames, 720p), 174 and 187 on one A100. A share of the peak carries over to GPUs of the same or a later kind.
HOPPER_SHARE, AMPERE_SHARE = 340 / 989, 180 / 312

# GPU name as torch reports it → (published peak, dense bfloat16, TFLOP/s; usual share of it). Names that are not
# listed, e.g. slices and laptop versions, get no time: an invented one would be worse.
KNOWN_GPUS: dict[str, tuple[float, float]] = {
    "NVIDIA H100 80GB HBM3": (989, HOPPER_SHARE),
    "NVIDIA H100 PCIe": (756, HOPPER_SHARE),
    "NVIDIA H100 NVL": (835, HOPPER_SHARE),
    "NVIDIA H200": (989, HOPPER_SHARE),
    "NVIDIA H200 NVL": (835, HOPPER_SHARE),
    "NVIDIA H800": (989, HOPPER_SHARE),
    "NVIDIA GH200 480GB": (989, HOPPER_SHARE),
    "NVIDIA A100-SXM4-80GB": (312, AMPERE_SHARE),
    "NVIDIA A100 80GB PCIe": (312, AMPERE_SHARE),
    "NVIDIA A100-SXM4-40GB": (312, AMPERE_SHARE),
    "NVIDIA A100-PCIE-40GB": (312, AMPERE_SHARE),
    "NVIDIA A800-SXM4-80GB": (312, AMPERE_SHARE),
    "NVIDIA L40S": (362, AMPERE_SHARE),
    "NVIDIA GeForce RTX 4090": (165, AMPERE_SHARE),
}

# The paper's GPU, and the memory that one offers, in units of 1e9 bytes.
REFERENCE_GPU, REFERENCE_GPU_GB = "NVIDIA H100 80GB HBM3", 85.0


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
    """

    gpu: str | None
    gpu_memory_gb: float
    rates: Rates | None
    ram_gb: float
    data_disk_gb: float
    cache_disk_gb: float | None = None
    assumed: bool = False


def elsewhere(machine: Machine) -> Machine:
    """The machine with the paper's GPU put into it, for a plan that is made where there is none."""
    rates = usual_rates(REFERENCE_GPU)
    return replace(machine, gpu=REFERENCE_GPU, gpu_memory_gb=REFERENCE_GPU_GB, rates=rates, assumed=True)


def usual_rates(gpu: str | None) -> Rates | None:
    """What runs of the 13B model usually reach on a GPU of that name; None where that is unknown."""
    if gpu not in KNOWN_GPUS:
        return None
    peak, share = KNOWN_GPUS[gpu]
    return Rates(peak * share, peak * share, peak * share)


def this_machine(device: str, cache: Path | None = None) -> Machine:
    """Look at this machine.

    Args:
        device: `auto`, `cuda` or `cpu`, as in the settings.
        cache: where weights are downloaded to, if that matters.
    """
    gpu, gpu_memory = None, 0.0
    if device != "cpu":
        import torch

        if torch.cuda.is_available():
            gpu, gpu_memory = torch.cuda.get_device_name(0), torch.cuda.mem_get_info(0)[0] / GB
    data = _existing(data_home())
    other = _existing(cache) if cache and _existing(cache).stat().st_dev != data.stat().st_dev else None
    return Machine(
        gpu=gpu,
        gpu_memory_gb=gpu_memory,
        rates=usual_rates(gpu),
        ram_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB,
        data_disk_gb=shutil.disk_usage(data).free / GB,
        cache_disk_gb=shutil.disk_usage(other).free / GB if other else None,
    )


def _existing(path: Path) -> Path:
    """The path itself or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
