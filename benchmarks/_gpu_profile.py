"""GPU time of one step by kind of kernel, with torch's profiler."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks._gpu_steps import Step

# The first kind whose words occur in a kernel's name.
_KINDS = {
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "linear": ("gemm", "gemv", "cutlass", "cublas", "nvjet", "matmul", "addmm", "mm_"),
    "copy": ("memcpy", "memset", "copy_"),
    "norm": ("norm", "welford", "softmax"),
    "convolution": ("conv", "cudnn"),
    "reduction": ("reduce",),
    "element-wise": ("elementwise", "vectorized", "triton", "cat", "aten::"),
}


def kind_of(kernel: str) -> str:
    """What a kernel does, by its name."""
    name = kernel.lower()
    return next((kind for kind, words in _KINDS.items() if any(word in name for word in words)), "other")


def by_kind(kernels: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
    """Milliseconds and share of each kind, the largest first.

    Args:
        kernels: names and microseconds.
    """
    found: dict[str, float] = defaultdict(float)
    for name, microseconds in kernels:
        found[kind_of(name)] += microseconds
    whole = sum(found.values())
    ordered = sorted(found.items(), key=lambda one: -one[1])
    return [{"kind": kind, "ms": time / 1000, "share": time / whole} for kind, time in ordered]


def measure(step: Step, device: torch.device) -> list[dict[str, Any]]:
    """One step after a warm-up: where its time goes, by the device's kernels, or by operators on a CPU."""
    step()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as seen:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
    on_gpu = device.type == "cuda"
    averages = list(seen.key_averages())
    if on_gpu:  # an operator's device time is that of its kernels, which are there on their own
        averages = [one for one in averages if one.device_type == DeviceType.CUDA and not one.is_user_annotation]
    times = [(one.key, one.self_device_time_total if on_gpu else one.self_cpu_time_total) for one in averages]
    return by_kind((name, time) for name, time in times if time > 0)
