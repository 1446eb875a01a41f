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
    "linear": ("gemm", "gemv", "cutlass", "cublas", "nvjet", "matmul", "addmm", "mm_", "::mm", "::bmm", "scaled_mm"),
    "copy": ("memcpy", "memset", "copy_"),
    "norm": ("norm", "welford", "softmax"),
    "convolution": ("conv", "cudnn"),
    "reduction": ("reduce",),
    # On a CPU alone, between operators: Python, where selective checkpointing looks at them, and autograd's own nodes.
    "dispatch": ("dispatchmode",),
    "autograd": ("autograd", "backward0", "accumulategrad"),
    "element-wise": ("elementwise", "vectorized", "triton", "cat", "aten::"),
}


def kind_of(kernel: str) -> str:
    """What a kernel does, by its name."""
    name = kernel.lower()
    return next((kind for kind, words in _KINDS.items() if any(word in name for word in words)), "other")


def by_kind(kernels: Iterable[tuple[str, float, int]]) -> list[dict[str, Any]]:
    """Milliseconds, share and calls of each kind, and the kernel that most of it goes to; the largest kind first.

    Args:
        kernels: names, microseconds and calls.
    """
    found: dict[str, list[tuple[str, float, int]]] = defaultdict(list)
    for one in kernels:
        found[kind_of(one[0])].append(one)
    times = {kind: sum(time for _, time, _ in some) for kind, some in found.items()}
    whole = sum(times.values())
    return [
        {
            "kind": kind,
            "ms": time / 1000,
            "share": time / whole,
            "calls": sum(calls for *_, calls in found[kind]),
            "largest": max(found[kind], key=lambda one: one[1])[0][:80],
        }
        for kind, time in sorted(times.items(), key=lambda one: -one[1])
    ]


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
    times = [
        (one.key, one.self_device_time_total if on_gpu else one.self_cpu_time_total, one.count) for one in averages
    ]
    return by_kind((name, time, calls) for name, time, calls in times if time > 0)
