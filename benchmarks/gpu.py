"""What this machine makes of the 13B model: seconds, memory and TFLOP/s of the four things a run consists of.

    python -m benchmarks.gpu [--budget 520] [--redo]

On a CUDA machine: the full HunyuanVideo transformer with random bfloat16 weights (made on the device; nothing is
downloaded), adapters of rank 64, and magicid's own code for a forward, a sampling step, a step of stage 1 and a
preference step, smallest shape first, under the memory of an 80 GB card. Each row's time is predicted from its FLOP
and the rate reached so far; a row that would not fit into the budget is skipped by name, and the same command run
again goes on: rows are merged in the results file as soon as they are measured. Out of memory is a result. A row's
memory includes both adapters and, once a training row has run, the optimizer's moments, as in stage 2. Without CUDA
the same code runs on the tiny configuration and says so.
"""

import sys
from pathlib import Path

if not __package__:  # run by path: this folder would come first, and `select.py` would hide Python's own `select`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import gc
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel

from benchmarks._table import RESULTS, machine, write
from magicid_cli import adapters, conditioning
from magicid_cli.config import Settings, resolve
from magicid_cli.models import tiny
from magicid_cli.models.base import Shape
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.models.hunyuan_attention import attend_without_mask
from magicid_cli.plan import costs
from magicid_cli.plan.costs import Cost
from magicid_cli.stages import prefer, reconstruct
from magicid_cli.training import Batch
from magicid_cli.workspace import read_json

SHAPES = {
    "hunyuan-video": [
        Shape(33, 320, 544),
        Shape(61, 320, 544),
        Shape(33, 544, 960),
        Shape(61, 544, 960),
        Shape(61, 720, 1280),
    ],
    "tiny": [Shape(9, 64, 64), Shape(17, 64, 96)],
}
ROPE_AXES = {128: (16, 56, 56), 16: (4, 6, 6)}

# Of an 80 GB card torch sees 79.1 GiB (84.9e9 bytes); half a GB of it is CUDA's own. A larger card is held to that.
CAP_BYTES = 84.4e9
# TFLOP/s taken for granted until the first row is measured: low, so that a first row is not begun in vain.
FIRST_RATE = {"hunyuan-video": 150.0, "tiny": 0.001}
BETA = 500.0
DONE, NO_MEMORY = "done", "out of memory"
# Rows are merged only where these are the same.
SAME = ("what", "gpu", "torch", "diffusers")


@dataclass
class Bench:
    """The model under test.

    Attributes:
        name: of the catalog; its architecture is built, whatever the weights.
        family: with the transformer in place and two adapters on it.
        settings: of a run with that model.
        folder: for latents.
        optimizer: of the trained adapter.
    """

    name: str
    family: Hunyuan
    settings: Settings
    folder: Path
    optimizer: torch.optim.Optimizer

    @property
    def architecture(self) -> costs.Architecture:
        """What is built."""
        return costs.ARCHITECTURES[self.name]


def build(name: str, device: torch.device, folder: Path) -> Bench:
    """Random weights of the architecture on the device, `reference` and `policy` attached."""
    settings = resolve({"model.name": name}, project=folder).settings
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    family = Hunyuan(tiny.build(folder / "tiny"), commit="random", device=device, dtype=dtype)
    family.transformer = random_transformer(costs.ARCHITECTURES[name], device, dtype)
    attend_without_mask(family.transformer)
    family.gradient_checkpointing(True)
    wanted = settings.adapter
    spec = adapters.AdapterSpec(wanted.rank, wanted.alpha, wanted.targets, wanted.double_blocks_only)
    for adapter in ("reference", "policy"):
        adapters.attach(family.transformer, adapter, spec, seed=0)
    policy = adapters.parameters(family.transformer, "policy").values()
    optimizer = torch.optim.AdamW(policy, lr=settings.prefer.learning_rate, foreach=False)
    return Bench(name, family, settings, folder, optimizer)


def random_transformer(arch: costs.Architecture, device: torch.device, dtype: torch.dtype) -> Any:
    """The real class with small random weights, never in main memory."""
    with torch.device("meta"):
        model = HunyuanVideoTransformer3DModel(
            num_attention_heads=arch.heads,
            attention_head_dim=arch.head_width,
            num_layers=arch.dual,
            num_single_layers=arch.single,
            num_refiner_layers=arch.refiner,
            text_embed_dim=arch.text_width,
            pooled_projection_dim=arch.pooled_width,
            rope_axes_dim=ROPE_AXES[arch.head_width],
        )
    model = model.to(dtype).to_empty(device=device).requires_grad_(False).eval()
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=0.02, generator=generator)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return model


# --- the four rows ------------------------------------------------------------------------------------------------

Step = Callable[[], Any]


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

    return step, costs.training_pass(bench.architecture, shape, bench.settings.adapter)


def preference_step(bench: Bench, shape: Shape) -> tuple[Step, Cost]:
    """One optimizer step of stage 2 on one pair."""
    winner, rejected = bench.folder / "winner.safetensors", bench.folder / "rejected.safetensors"
    for seed, path in enumerate((winner, rejected)):
        conditioning.save_tensors(path, {"latents": latents_of(bench, shape, seed)})
    pairs, generator = [prefer.Pair(winner, rejected, text_of(bench))], torch.Generator().manual_seed(2)

    def step() -> None:
        bench.optimizer.zero_grad(set_to_none=True)
        prefer.accumulate(bench.family, pairs, Batch(0, (0,), generator), bench.settings, BETA)
        bench.optimizer.step()

    return step, costs.preference_step(bench.architecture, shape, bench.settings.adapter)


ROWS: dict[str, Callable[[Bench, Shape], tuple[Step, Cost]]] = {
    "forward": forward,
    "sampling step": sampling_step,
    "stage-1 step": stage_1_step,
    "preference step": preference_step,
}


# --- measuring ----------------------------------------------------------------------------------------------------


def repeats_for(each_s: float) -> int:
    """How often a step of that length is timed: about ten seconds' worth, one to five."""
    return max(1, min(5, round(10 / each_s)))


def measure(step: Step, repeats: int, device: torch.device) -> tuple[list[float], dict[str, float | None]]:
    """Seconds of each repeat after one warm-up, and the peak memory in GB."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(1 + repeats):
        begun = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    peaks = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if on_gpu else (None, None)
    names = ("allocated_gb", "reserved_gb")
    return times[1:], {name: peak and round(peak / costs.GB, 2) for name, peak in zip(names, peaks, strict=True)}


def try_row(bench: Bench, name: str, shape: Shape, rate: float, left_s: float) -> dict[str, Any]:
    """One row: measured, out of memory, or skipped because its predicted time does not fit into `left_s`."""
    step, cost = ROWS[name](bench, shape)
    each = cost.flop / rate / 1e12
    repeats = repeats_for(each)
    predicted = each * (1 + repeats)
    floor = cost.seconds(costs.BEST_RATES) if bench.name == "hunyuan-video" else None
    row: dict[str, Any] = {"shape": str(shape), "row": name, "state": DONE, "seconds": None, "predicted_s": each}
    row |= {"tflops": None, "floor_s": floor, "times_floor": None, "allocated_gb": None, "reserved_gb": None}
    row |= {"tokens": costs.tokens(shape), "pflop": cost.flop / 1e15, "times": []}
    if predicted > left_s:
        return row | {"state": f"skipped: about {predicted:.0f} s, {max(0.0, left_s):.0f} s are left"}
    try:
        times, peaks = measure(step, repeats, bench.family.device)
    except torch.OutOfMemoryError:
        row["state"] = NO_MEMORY
    else:
        seconds = statistics.median(times)
        row |= {"seconds": seconds, "tflops": cost.flop / seconds / 1e12, "times": times, **peaks}
        row["times_floor"] = seconds / floor if floor else None
    # Outside the handler: the exception held the frames, and with them the graph.
    bench.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if bench.family.device.type == "cuda":
        torch.cuda.empty_cache()
    return row


def rate_reached(rows: Sequence[dict[str, Any]], name: str, model: str) -> float:
    """TFLOP/s of the last measured row, best of the same kind; a guess before there is one."""
    known = [row for row in rows if row["state"] == DONE]
    same = [row for row in known if row["row"] == name]
    return (same or known)[-1]["tflops"] if known else FIRST_RATE[model]


# --- the command --------------------------------------------------------------------------------------------------


def about(device: torch.device) -> dict[str, Any]:
    """The machine, and what the figures are figures of."""
    found = machine("magicid", "torch", "diffusers", "peft")
    if device.type != "cuda":
        return {"what": "tiny on CPU: the same code, but no figure says anything about a GPU", **found}
    card = torch.cuda.get_device_properties(device)
    return {
        "what": "HunyuanVideo 13B, random bfloat16 weights, rank 64 on attention",
        "gpu": card.name,
        "gpu_gb": round(card.total_memory / costs.GB, 1),
        "cap_gb": round(min(CAP_BYTES, card.total_memory) / costs.GB, 1),
        "cuda": torch.version.cuda,
        "driver": driver(),
        **found,
    }


def driver() -> str:
    """The version of the GPU's driver."""
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]


def earlier(path: Path, here: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of earlier commands that need not be measured again.

    Raises:
        SystemExit: they are of another machine or another version.
    """
    if not path.is_file():
        return []
    stored = read_json(path)
    differing = [key for key in SAME if stored["machine"].get(key) != here.get(key)]
    if differing:
        raise SystemExit(
            f"{path} differs in {', '.join(differing)}: add --redo to replace it, or name another --output"
        )
    return [row for row in stored["rows"] if row["state"] in (DONE, NO_MEMORY)]


def missing(name: str, known: Sequence[dict[str, Any]]) -> list[tuple[Shape, str]]:
    """Rows still to be measured, smallest shape first."""
    there = {(row["shape"], row["row"]) for row in known}
    return [(shape, row) for shape in SHAPES[name] for row in ROWS if (str(shape), row) not in there]


def run(
    bench: Bench, known: list[dict[str, Any]], until: float, keep: Callable[[list[dict[str, Any]]], object]
) -> None:
    """Measure what is missing; `keep` gets all rows, in order, after each."""
    rows = list(known)
    order = [(str(shape), row) for shape in SHAPES[bench.name] for row in ROWS]
    for shape, name in missing(bench.name, known):
        row = try_row(bench, name, shape, rate_reached(rows, name, bench.name), until - time.monotonic())
        print(f"{shape} {name}: {row['state']}" + (f", {row['seconds']:.3g} s" if row["seconds"] else ""), flush=True)
        rows = sorted([*rows, row], key=lambda one: order.index((one["shape"], one["row"])))
        keep(rows)


def prepare(on_gpu: bool) -> tuple[str, torch.device]:
    """Which model runs where; on a GPU under the memory of an 80 GB card."""
    if not on_gpu:
        torch.set_num_threads(1)
        return "tiny", torch.device("cpu")
    device = torch.device("cuda", 0)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, CAP_BYTES / total), device)
    return "hunyuan-video", device


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--budget", type=float, default=520.0, help="seconds this command may take (default: 520)")
    parser.add_argument("--redo", action="store_true", help="measure rows again that are in the results file")
    parser.add_argument("--output", type=Path, help="the results file")
    options = parser.parse_args(arguments)
    until = time.monotonic() + options.budget
    name, device = prepare(torch.cuda.is_available())
    title, file = ("gpu", "gpu.json") if device.type == "cuda" else ("tiny on CPU", "gpu-cpu-tiny.json")
    output, here = options.output or RESULTS / file, about(device)
    known = [] if options.redo else earlier(output, here)

    def keep(rows: list[dict[str, Any]]) -> None:
        with redirect_stdout(StringIO()):
            write(title, rows, output, about=here)

    if missing(name, known):
        with tempfile.TemporaryDirectory() as folder:
            try:
                bench = build(name, device, Path(folder))
            except torch.OutOfMemoryError as error:
                raise SystemExit(f"The weights alone do not fit into the memory that is free here: {error}") from None
            run(bench, known, until, keep)
    write(title, read_json(output)["rows"], output, about=here)


if __name__ == "__main__":
    main()
