"""The model that `benchmarks.gpu` measures: HunyuanVideo's transformer with random weights, held in several ways.

The ways `80gb`, `48gb` and `24gb` are magicid's memory plans; `24gb fp8` and the like store the base so, `80gb compile`
compiles the blocks. `plain` is what diffusers and PEFT do when nothing is added to them: a mask in every
attention, every block recomputed whole, both graphs of a pair alive, no compiled code.
"""

import gc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel

from magicid_cli import adapters
from magicid_cli.config import Settings, resolve
from magicid_cli.errors import MagicIDError
from magicid_cli.models import hunyuan_attention, tiny
from magicid_cli.models.base import Shape
from magicid_cli.models.catalog import video_model
from magicid_cli.models.execution import Execution, Kernel
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.plan import costs, workload
from magicid_cli.plan.machine import KNOWN_GPUS, REFERENCE_GPU, Machine

PLAIN, COMPILED = "plain", "80gb compile"
BASES = ("24gb fp8", "24gb int8", "24gb nf4")
PRODUCTS = "80gb fp8-products"
# What torch sees of a card of each size, half a GB of CUDA's own less: a larger card is held to that. A plan has to
# leave another GB of it free.
CARD_BYTES = {"80gb": 84.4e9, "48gb": 50.4e9, "24gb": 24.8e9, PLAIN: 84.4e9}
ROPE_AXES = {128: (16, 56, 56), 16: (4, 6, 6)}


def option_of(way: str) -> str:
    """What a way adds to its memory plan: `compile`, or how the base is stored; empty if nothing."""
    return way.partition(" ")[2]


def cap_of(way: str) -> float:
    """Bytes of the GPU that a process may take in that way: the card's that its plan is named after, less 1 GB."""
    return CARD_BYTES[way.partition(" ")[0]] - 1e9


@dataclass
class Bench:
    """The model under test. What cannot be changed in place is built anew when it is asked for.

    Attributes:
        name: of the catalog; its architecture is built, whatever the weights.
        family: a transformer is in place, with two adapters on it, once it is held in some way.
        settings: of a run with that model.
        folder: for latents.
        attention: the kernel that is asked for.
        text_tokens: of every prompt; 0 fills the text encoder.
        said: what the family announced: every second-best way that was taken.
        way: how it is held now.
        held_for: shape and whether for training.
        intact: whether nothing went wrong with it: after that, who knows where its weights are.
    """

    name: str
    family: Hunyuan
    settings: Settings
    folder: Path
    attention: Kernel = "auto"
    text_tokens: int = 0
    said: list[str] = field(default_factory=list)
    way: str = ""
    held_for: tuple[Shape, bool] | None = None
    intact: bool = False
    _optimizer: torch.optim.Optimizer | None = None
    _kernels: dict[bool, Kernel] = field(default_factory=dict)

    @property
    def architecture(self) -> costs.Architecture:
        """What is built."""
        return costs.ARCHITECTURES[self.name]

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Of the trained adapter."""
        assert self._optimizer is not None, "call hold() first"
        return self._optimizer

    def forget(self, *, moments: bool = False) -> None:
        """Drop gradients, and the optimizer's moments if asked, and give back what nothing refers to any more."""
        if self._optimizer is not None:
            self._optimizer.zero_grad(set_to_none=True)
            if moments:
                self._optimizer.state.clear()
        free()

    def kernel(self, *, keepable: bool) -> Kernel:
        """The attention kernel that is used here, tried on the device; the one that was asked for if it is refused.

        Args:
            keepable: whether its output is kept for the backward pass.
        """
        if keepable not in self._kernels:
            family, width = self.family, self.architecture.head_width
            try:
                found = hunyuan_attention.choose(
                    self.attention, device=family.device, dtype=family.dtype, head_width=width, keepable=keepable
                ).kernel
            except MagicIDError:  # whoever holds the model so will be told
                found = self.attention
            self._kernels[keepable] = found
        return self._kernels[keepable]

    def execution(self, way: str, shape: Shape, *, trains: bool = True) -> Execution | None:
        """How the model is held in that way; None for plain diffusers."""
        if way == PLAIN:
            return None
        return execution_of(self.name, way, shape, trains=trains, attention=self.attention)

    def hold(self, way: str, shape: Shape, *, trains: bool = True) -> None:
        """Hold the transformer in that way, as a memory plan would at that shape, under the card's memory."""
        if (way, (shape, trains)) == (self.way, self.held_for) and self.intact:
            return
        self._lift_cap()
        execution = self.execution(way, shape, trains=trains)
        if not self.intact or _construction(way) != _construction(self.way):
            self._build(execution)
        if execution is None:
            self.family.transformer.enable_gradient_checkpointing()
        else:
            self.family.execution = execution
            self.family.arrange()
        self.way, self.held_for, self.intact = way, (shape, trains), True
        free()
        if self.family.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.family.device).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, cap_of(way) / total), self.family.device)

    def _lift_cap(self) -> None:
        """Let the process use the whole GPU while weights are on their way from one place to another."""
        if self.family.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, self.family.device)

    def _build(self, execution: Execution | None) -> None:
        """Random weights on the device, stored as the way says, `reference` and `policy` attached."""
        family, self.intact, self._optimizer = self.family, False, None
        family.unload("transformer")
        torch._dynamo.reset()  # what was compiled was compiled for the blocks that are gone
        try:
            transformer = random_transformer(self.architecture, family.device, family.dtype)
        except torch.OutOfMemoryError as error:
            raise SystemExit(f"The weights alone do not fit into the memory that is free here: {error}") from None
        if execution is None:
            family.transformer = transformer
        else:
            family.execution = execution
            family.take(transformer)
        wanted = self.settings.adapter
        spec = adapters.AdapterSpec(wanted.rank, wanted.alpha, wanted.targets, wanted.double_blocks_only)
        for adapter in ("reference", "policy"):
            adapters.attach(family.transformer, adapter, spec, seed=0)
        policy = adapters.parameters(family.transformer, "policy").values()
        self._optimizer = torch.optim.AdamW(policy, lr=self.settings.prefer.learning_rate, foreach=False)


def _construction(way: str) -> str:
    """What of a way needs weights of its own: plain diffusers' attention, the stored base, compiled blocks."""
    return PLAIN if way == PLAIN else option_of(way)


def free() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def settings_of(name: str, **values: Any) -> Settings:
    """The default preset of a model with these values, whatever folder this is."""
    return resolve({"model.name": name, **values}, project=Path("/nowhere")).settings


def execution_of(name: str, way: str, shape: Shape, *, trains: bool = True, attention: Kernel = "auto") -> Execution:
    """How a plan holds the model at a shape, for a preference step or for sampling, on the card it is named after."""
    plan, _, option = way.partition(" ")
    wanted = {"model.memory_plan": plan, "shape.frames": shape.frames, "shape.size": f"{shape.width}x{shape.height}"}
    compiles = option == "compile"
    wanted |= {"model.attention": attention, "model.compile": compiles, "prefer.guards": False}
    wanted |= {"model.base": option} if option and not compiles else {}
    card = Machine(REFERENCE_GPU, CARD_BYTES[plan] / 1e9, KNOWN_GPUS[REFERENCE_GPU].rates, 1e6, 1e6, asked=True)
    there = settings_of(name, **wanted)
    return workload.chosen(there, video_model(name), card, "prefer" if trains else "sample").execution


def open_bench(name: str, device: torch.device, folder: Path, attention: Kernel = "auto") -> Bench:
    """The model, without its weights yet.

    Args:
        name: of the catalog.
        device: where.
        folder: for files of the benchmark.
        attention: the kernel that is asked for.
    """
    settings, said = resolve({"model.name": name}, project=folder).settings, list[str]()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    family = Hunyuan(tiny.build(folder / "tiny"), commit="random", device=device, dtype=dtype, announce=said.append)
    return Bench(name, family, settings, folder, attention, said=said)


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
