"""What `benchmarks.gpu` measures: kinds of computation, each a row at a shape in a way of holding the model."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks import _gpu_segment
from benchmarks._gpu_model import PLAIN, Bench, execution_of, free, random_vae, settings_of
from magicid_cli import adapters, conditioning, preference
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Execution, Keep
from magicid_cli.plan import costs, footprint
from magicid_cli.plan.costs import Cost, Rates
from magicid_cli.plan.known import TRAINING_KINDS, held
from magicid_cli.stages import prefer, reconstruct
from magicid_cli.training import Batch

# The four shapes of the table, smallest first, and the tiny model's stand-ins.
SHAPES = {
    "hunyuan-video": [Shape(61, 320, 544), Shape(33, 544, 960), Shape(61, 544, 960), Shape(61, 720, 1280)],
    "tiny": [Shape(9, 64, 64), Shape(17, 64, 96)],
}
# TFLOP/s by which time is budgeted until the first row is measured: low, so that a first row is not begun in vain.
FIRST_RATE = {"hunyuan-video": 150.0, "tiny": 0.001}
SEGMENT = "segment"
# Rows that keep a graph.
TRAINING = (*TRAINING_KINDS, SEGMENT)
DONE, NO_MEMORY = "done", "out of memory"

Step = Callable[[], Any]
# Shape, kind, way.
Name = tuple[Shape, str, str]


def order(model: str) -> list[Name]:
    """Every row, in the order in which they are measured: ours, then the smaller plans, then plain diffusers.

    After the rows of the plan `80gb` comes a segment of a real run, which is held against them.
    """
    shapes = SHAPES[model]
    ours = ("forward", "sampling step", "stage-1 step", "preference step", "decode")
    rows = [(shape, kind, "80gb") for shape in shapes for kind in ours]
    rows += [(shapes[0], SEGMENT, "80gb")]
    for way in ("48gb", "24gb"):
        small = ("sampling step", "preference step", "decode")
        rows += [(shape, kind, way) for shape in (shapes[0], shapes[-1]) for kind in small]
    return rows + [(shape, "preference step", PLAIN) for shape in shapes]


def text_of(bench: Bench) -> dict[str, torch.Tensor]:
    """The conditioning of a prompt that fills the text encoder."""
    arch, generator = bench.architecture, torch.Generator().manual_seed(1)
    return {
        "prompt_embeds": torch.randn(arch.text_tokens, arch.text_width, generator=generator),
        "prompt_attention_mask": torch.ones(arch.text_tokens, dtype=torch.int64),
        "pooled_prompt_embeds": torch.randn(arch.pooled_width, generator=generator),
    }


def latents_of(bench: Bench, shape: Shape, seed: int) -> torch.Tensor:
    """Latents of the shape."""
    size = bench.architecture.channels, *costs.latent_size(shape)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def forward(bench: Bench, shape: Shape) -> tuple[Step, Cost]:
    """One forward of the bare base."""
    x_t, text, t = latents_of(bench, shape, 0), text_of(bench), torch.tensor([0.5])
    adapters.select(bench.family.transformer, None)

    def step() -> None:
        with torch.no_grad():
            bench.family.predict(x_t, t, text, bench.settings.training.guidance)

    return step, costs.forward(bench.architecture, shape)


def sampling_step(bench: Bench, shape: Shape) -> tuple[Step, Cost]:
    """One step of the sampler with an adapter on."""
    text, guidance = text_of(bench), bench.settings.repository.guidance
    adapters.select(bench.family.transformer, "policy")

    def step() -> None:
        bench.family.sample(text, shape, steps=1, guidance=guidance, seed=0)

    return step, costs.forward(bench.architecture, shape, bench.settings.adapter)


def stage_1_step(bench: Bench, shape: Shape) -> tuple[Step, Cost]:
    """One optimizer step of stage 1 on one clip."""
    clips = [(latents_of(bench, shape, 0), text_of(bench))]
    generator = torch.Generator().manual_seed(2)
    adapters.select(bench.family.transformer, "policy", trainable=True)

    def step() -> None:
        bench.optimizer.zero_grad(set_to_none=True)
        reconstruct.accumulate(bench.family, clips, Batch(0, (0,), generator), bench.settings)
        bench.optimizer.step()

    keep = bench.family.execution.keep
    return step, costs.training_pass(bench.architecture, shape, bench.settings.adapter, keep=keep)


def preference_step(bench: Bench, shape: Shape) -> tuple[Step, Cost]:
    """One optimizer step of stage 2 on one pair."""
    keep = "nothing" if bench.way == PLAIN else bench.family.execution.keep
    cost = costs.preference_step(bench.architecture, shape, bench.settings.adapter, keep=keep)
    if bench.way == PLAIN:
        return plain_preference_step(bench, shape), cost
    winner, rejected = bench.folder / "winner.safetensors", bench.folder / "rejected.safetensors"
    for seed, path in enumerate((winner, rejected)):
        conditioning.save_tensors(path, {"latents": latents_of(bench, shape, seed)})
    pairs, generator = [preference.Pair(winner, rejected, text_of(bench))], torch.Generator().manual_seed(2)

    def step() -> None:
        bench.optimizer.zero_grad(set_to_none=True)
        prefer.accumulate(bench.family, pairs, Batch(0, (0,), generator), bench.settings, _gpu_segment.BETA)
        bench.optimizer.step()

    return step, cost


def plain_preference_step(bench: Bench, shape: Shape) -> Step:
    """The same loss as anyone would write it with diffusers and PEFT: both graphs alive, one backward."""
    family, model = bench.family, bench.family.transformer
    text = {name: value[None].to(family.device, family.dtype) for name, value in text_of(bench).items()}
    clean = [latents_of(bench, shape, seed).to(family.device) for seed in (0, 1)]
    noise, t = latents_of(bench, shape, 2).to(family.device), 0.5

    def error(x0: torch.Tensor) -> torch.Tensor:
        predicted = model(
            hidden_states=((1 - t) * x0 + t * noise)[None].to(family.dtype),
            timestep=torch.tensor([1000 * t], device=family.device),
            encoder_hidden_states=text["prompt_embeds"],
            encoder_attention_mask=text["prompt_attention_mask"],
            pooled_projections=text["pooled_prompt_embeds"],
            guidance=torch.tensor([1000.0], device=family.device, dtype=family.dtype),
            return_dict=False,
        )[0][0]
        return (predicted.float() - (noise - x0)).square().mean()

    def step() -> None:
        bench.optimizer.zero_grad(set_to_none=True)
        adapters.select(model, "reference", trainable=False)
        with torch.no_grad():
            references = [error(x0) for x0 in clean]
        adapters.select(model, "policy", trainable=True)
        errors = [error(x0) for x0 in clean]
        margin = (errors[0] - references[0]) - (errors[1] - references[1])
        torch.nn.functional.softplus(_gpu_segment.BETA / 2 * margin).backward()
        bench.optimizer.step()

    return step


def decode(bench: Bench, shape: Shape) -> tuple[Step, Cost]:
    """Decoding one video, beside the transformer."""
    vae, latents = random_vae(bench), latents_of(bench, shape, 0)[None]

    def step() -> None:
        with torch.no_grad():
            vae.decode(latents.to(bench.family.device, vae.dtype), return_dict=False)

    return step, decode_cost(bench.architecture, shape)


def decode_cost(arch: costs.Architecture, shape: Shape) -> Cost:
    """The count is that of the real decoder; a smaller one does about as much less as it has fewer parameters."""
    real = costs.ARCHITECTURES["hunyuan-video"].decoder_parameters
    return costs.decode(shape) * (arch.decoder_parameters / real)


def segment(bench: Bench, shape: Shape) -> tuple[Step, Cost]:
    """A piece of a real run: 20 steps of stage 2 and two videos."""
    step = _gpu_segment.build(bench, shape, text_of(bench), latents_of)
    keep = execution_of(bench.name, bench.way, shape).keep
    return step, cost_of(bench.architecture, SEGMENT, shape, bench.way, keep, bench.settings)


KINDS: dict[str, Callable[[Bench, Shape], tuple[Step, Cost]]] = {
    "forward": forward,
    "sampling step": sampling_step,
    "stage-1 step": stage_1_step,
    "preference step": preference_step,
    "decode": decode,
    SEGMENT: segment,
}


# What is expected of a GPU with the reference's peak before anything was measured: rates of its kernels in TFLOP/s
# (ours; plain, where the mask keeps every flash kernel out), and how long the element-wise work of a block takes:
# tensors of the tokens' width that go to or from memory, by the bytes a second that such kernels reach.
EXPECTED = {False: Rates(600, 550, 450), True: Rates(600, 250, 180)}
_TENSORS, _BYTES_S = 60, 2e12
# Passes of a block's element-wise work: a forward is one, a backward two, what is recomputed one more.
_PASSES = {"forward": 1, "sampling step": 1, "stage-1 step": 4, "preference step": 10, "decode": 0}
_PASSES[SEGMENT] = _gpu_segment.STEPS * _PASSES["preference step"] + _gpu_segment.VIDEOS * 50


def expected_s(arch: costs.Architecture, kind: str, shape: Shape, way: str, cost: Cost) -> float:
    """Seconds of a row on one H100 or H200 as they are expected before any row was measured."""
    hidden = (costs.tokens(shape, arch.token_side) + arch.text_tokens) * arch.width * 2
    element_wise = _PASSES[kind] * arch.blocks * _TENSORS * hidden / _BYTES_S
    return cost.seconds(EXPECTED[way == PLAIN]) + element_wise


def cost_of(
    arch: costs.Architecture, kind: str, shape: Shape, way: str, keep: Keep, settings: Settings | None = None
) -> Cost:
    """What a row computes, without building anything; by default with the 13B model's own settings."""
    settings = settings or settings_of("hunyuan-video")
    adapter = settings.adapter
    if kind == "decode":
        return decode_cost(arch, shape)
    if kind == SEGMENT:
        each = _gpu_segment.parts(arch, shape, settings, keep)
        return sum((cost_of(arch, one.kind, shape, way, keep, settings) * one.times for one in each), Cost())
    if kind == "stage-1 step":
        return costs.training_pass(arch, shape, adapter, keep=keep)
    if kind == "preference step":
        return costs.preference_step(arch, shape, adapter, keep="nothing" if way == PLAIN else keep)
    return costs.forward(arch, shape, None if kind == "forward" else adapter)


def memory_of(
    arch: costs.Architecture, kind: str, shape: Shape, execution: Execution | None, settings: Settings, value_bytes: int
) -> float:
    """GB that the plan expects of a row, and what it does not know of: the second adapter where a run has one.

    Args:
        arch: of the transformer.
        kind: the row's.
        shape: of the video.
        execution: how the model is held; None for plain diffusers, which has both graphs of a pair alive.
        settings: of the run.
        value_bytes: of a number of the base.
    """
    trains, pairs = kind in TRAINING, kind in ("preference step", SEGMENT)
    found = footprint.memory(
        arch,
        shape,
        settings.adapter,
        value_bytes=value_bytes,
        training=trains,
        reference=pairs,
        execution=execution or Execution(),
    )
    second = 0.0 if pairs else costs.adapter_parameters(arch, settings.adapter) * 4 / costs.GB
    if kind == "decode":
        return found.weights + found.adapters + second + footprint.decoding_memory(arch, shape, value_bytes=value_bytes)
    return found.total + second + (0.0 if execution else found.kept)


def predictions() -> list[dict[str, Any]]:
    """Every row of the 13B model as it is expected before any was measured."""
    name = "hunyuan-video"
    arch, found = costs.ARCHITECTURES[name], []
    for shape, kind, way in order(name):
        execution = None if way == PLAIN else execution_of(name, way, shape, trains=kind in TRAINING)
        keep: Keep = execution.keep if execution else "nothing"
        cost = cost_of(arch, kind, shape, way, keep)
        floor = cost.seconds(costs.BEST_RATES)
        expected = expected_s(arch, kind, shape, way, cost)
        memory = memory_of(arch, kind, shape, execution, settings_of(name), 2)
        row: dict[str, Any] = {
            "shape": str(shape),
            "row": kind,
            "way": way,
            "kept in": execution.kept_in if execution else "gpu",
        }
        row |= {"floor_s": round(floor, 2), "expected_s": round(expected, 2), "memory_gb": round(memory, 1)}
        found.append(row)
    return found


def repeats_for(each_s: float, kind: str) -> int:
    """How often a step of that length is timed: about ten seconds' worth, one to five; a sampler's always five."""
    return 5 if kind == "sampling step" else max(1, min(5, round(10 / each_s)))


def measure(
    step: Step, repeats: int, device: torch.device, warm_up: int = 1
) -> tuple[list[float], dict[str, float | None]]:
    """Seconds of each repeat after so many that do not count, and the peak memory in GB."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(warm_up + repeats):
        begun = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    peaks = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if on_gpu else (None, None)
    names = ("allocated_gb", "reserved_gb")
    return times[warm_up:], {name: peak and round(peak / costs.GB, 2) for name, peak in zip(names, peaks, strict=True)}


def try_row(bench: Bench, name: Name, rate: float, left_s: float) -> dict[str, Any]:
    """One row: measured, out of memory, or skipped because its predicted time does not fit into `left_s`."""
    shape, kind, way = name
    bench.hold(way, shape, trains=kind in TRAINING)
    if kind not in TRAINING_KINDS:
        bench.optimizer.state.clear()  # a sampler has no moments beside it, and a segment has an optimizer of its own
    step, cost = KINDS[kind](bench, shape)
    each = cost.flop / rate / 1e12
    # A segment is as long as a run's start is: what is slow only once is in it.
    repeats, warm_up = (1, 0) if kind == SEGMENT else (repeats_for(each, kind), 1)
    predicted = each * (warm_up + repeats)
    floor = cost.seconds(costs.BEST_RATES) if bench.name == "hunyuan-video" else None
    kernel, value_bytes = bench.family.report().get("kernel"), bench.family.dtype.itemsize
    execution = None if way == PLAIN else replace(bench.family.execution, attention=kernel or "auto")
    planned = memory_of(bench.architecture, kind, shape, execution, bench.settings, value_bytes)
    row: dict[str, Any] = {"shape": str(shape), "row": kind, "way": way, "state": DONE, "seconds": None}
    row |= {"predicted_s": each, "tflops": None, "floor_s": floor, "times_floor": None}
    row |= {
        "allocated_gb": None,
        "reserved_gb": None,
        "planned_gb": round(planned, 3),
        "tokens": costs.tokens(shape),
        "pflop": cost.flop / 1e15,
    }
    row |= {"held": list(held(execution, kind)) if execution else None, "kernel": kernel, "times": []}
    if predicted > left_s:
        return row | {"state": f"skipped: about {predicted:.0f} s, {max(0.0, left_s):.0f} s are left"}
    try:
        times, peaks = measure(step, repeats, bench.family.device, warm_up)
    except torch.OutOfMemoryError:
        row["state"] = NO_MEMORY
    except (RuntimeError, MagicIDError) as error:  # of one kernel or one way: the other rows are still worth their time
        row["state"] = f"failed: {next(iter(str(error).splitlines()), type(error).__name__)[:200]}"
    else:
        seconds = statistics.median(times)
        row |= {"seconds": seconds, "tflops": cost.flop / seconds / 1e12, "times": times, **peaks}
        row["times_floor"] = seconds / floor if floor else None
    # Outside the handler: the exception held the frames, and with them the graph.
    bench.optimizer.zero_grad(set_to_none=True)
    free()
    return row


def rate_reached(rows: Sequence[dict[str, Any]], kind: str, model: str) -> float:
    """TFLOP/s of the last measured row, best of the same kind; a guess before there is one."""
    known = [row for row in rows if row["state"] == DONE]
    same = [row for row in known if row["row"] == kind]
    return (same or known)[-1]["tflops"] if known else FIRST_RATE[model]
