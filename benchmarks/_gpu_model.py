"""The model that `benchmarks.gpu` measures: HunyuanVideo's transformer with random weights, held in several ways.

The ways `80gb`, `48gb` and `24gb` are magicid's memory plans. `plain` is what diffusers and PEFT do when nothing is
added to them: a mask in every attention, every block recomputed whole, both graphs of a pair alive, no compiled code.
"""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel

from magicid_cli import adapters
from magicid_cli.config import Settings, resolve
from magicid_cli.models import tiny
from magicid_cli.models.base import Shape
from magicid_cli.models.catalog import video_model
from magicid_cli.models.execution import Execution
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.models.hunyuan_attention import attend_without_mask
from magicid_cli.plan import costs, workload
from magicid_cli.plan.machine import KNOWN_GPUS, REFERENCE_GPU, Machine
from magicid_cli.plan.memory import PLANS

PLAIN = "plain"
WAYS = (*PLANS, PLAIN)
# What torch sees of a card of each size, half a GB of CUDA's own less: a larger card is held to that. A plan has to
# leave another GB of it free.
CARD_BYTES = {"80gb": 84.4e9, "48gb": 50.4e9, "24gb": 24.8e9, PLAIN: 84.4e9}
ROPE_AXES = {128: (16, 56, 56), 16: (4, 6, 6)}


@dataclass
class Bench:
    """The model under test.

    Attributes:
        name: of the catalog; its architecture is built, whatever the weights.
        family: with the transformer in place and two adapters on it.
        settings: of a run with that model.
        folder: for latents.
        optimizer: of the trained adapter.
        way: how it is held now, of `WAYS`.
        held_for: shape and whether for training.
        intact: whether nothing went wrong with it: after that, who knows where its weights are.
    """

    name: str
    family: Hunyuan
    settings: Settings
    folder: Path
    optimizer: torch.optim.Optimizer
    way: str = ""
    held_for: tuple[Shape, bool] | None = None
    intact: bool = True

    @property
    def architecture(self) -> costs.Architecture:
        """What is built."""
        return costs.ARCHITECTURES[self.name]

    def hold(self, way: str, shape: Shape, *, trains: bool = True) -> None:
        """Hold the transformer in that way, as a memory plan would at that shape, under the card's memory."""
        if (way, (shape, trains)) == (self.way, self.held_for):
            return
        if (way == PLAIN) != (self.way == PLAIN) and self.way:
            raise ValueError("what was arranged is not plain any more: build another one")
        self.lift_cap()
        if way == PLAIN:
            self.family.transformer.enable_gradient_checkpointing()
        else:
            self.family.execution = execution_of(self.name, way, shape, trains=trains)
            self.family.arrange()
        self.way, self.held_for = way, (shape, trains)
        free()
        if self.family.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.family.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, (CARD_BYTES[way] - 1e9) / total), self.family.device)

    def lift_cap(self) -> None:
        """Let the process use the whole GPU while weights are on their way from one place to another."""
        if self.family.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, self.family.device)


def free() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def settings_of(name: str, **values: Any) -> Settings:
    """The default preset of a model with these values, whatever folder this is."""
    return resolve({"model.name": name, **values}, project=Path("/nowhere")).settings


def execution_of(name: str, way: str, shape: Shape, *, trains: bool = True) -> Execution:
    """How a plan holds the model at a shape, for a preference step or for sampling, on the card it is named after."""
    wanted = {"model.memory_plan": way, "shape.frames": shape.frames, "shape.size": f"{shape.width}x{shape.height}"}
    there = settings_of(name, **wanted, **{"prefer.guards": False})
    card = Machine(REFERENCE_GPU, CARD_BYTES[way] / 1e9, KNOWN_GPUS[REFERENCE_GPU].rates, 1e6, 1e6, asked=True)
    return workload.chosen(there, video_model(name), card, "prefer" if trains else "sample").execution


def build(name: str, device: torch.device, folder: Path, *, plain: bool = False) -> Bench:
    """Random weights of the architecture on the device, `reference` and `policy` attached.

    Args:
        name: of the catalog.
        device: where.
        folder: for files of the benchmark.
        plain: leave diffusers' own attention in place.
    """
    settings = resolve({"model.name": name}, project=folder).settings
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    family = Hunyuan(tiny.build(folder / "tiny"), commit="random", device=device, dtype=dtype)
    family.transformer = random_transformer(costs.ARCHITECTURES[name], device, dtype)
    if not plain:
        attend_without_mask(family.transformer)
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


def random_vae(bench: Bench) -> Any:
    """The real decoder with its own random weights, tiled on a GPU; the tiny one where the tiny model is."""
    device = bench.family.device
    if bench.name != "hunyuan-video":
        bench.family.load("vae")
        return bench.family._vae
    vae = AutoencoderKLHunyuanVideo().to(device, torch.float16).requires_grad_(False).eval()
    vae.enable_tiling()
    return vae
