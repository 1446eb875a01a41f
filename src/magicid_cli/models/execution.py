"""How a model is held and computed: the seam between a memory plan, which chooses, and a family, which obeys.

Facts only: importing this loads nothing heavy, so a plan can be made where there is no GPU and no torch.
"""

from dataclasses import dataclass
from typing import Literal

Storage = Literal["full", "fp8", "int8", "nf4", "fp8-products"]
Keep = Literal["nothing", "attention", "everything"]
KeptIn = Literal["gpu", "inputs pinned", "pinned"]
Offload = Literal["none", "blocks"]
TextEncoder = Literal["full", "cpu"]
# How true guidance is computed at a denoising step.
Guided = Literal["one batch", "two passes"]
Kernel = Literal["auto", "cudnn", "flash-3", "flash-2", "torch-flash", "torch-efficient", "math"]


@dataclass(frozen=True)
class Execution:
    """How a family holds its weights and what it keeps of a training pass.

    A family has one as `family.execution`. What concerns a part is read when that part is loaded; `family.arrange()`,
    called once the adapters are attached, does the rest. To change `keep`, `kept_in`, `offload` or `attention` of a
    loaded transformer (the next plan after an out-of-memory): assign another `execution` and call `arrange()` again;
    the adapter's parameters stay the same objects with the same numbers. To change `base` or `compile`: unload, load,
    attach, `arrange`.

    Exact, that is the same sums in the same order as without: `keep`, `kept_in`, `offload`. Exact up to the rounding of
    sums: `attention`, `compile`, `text_encoder`, `guided`. Other numbers: `base` other than `full`; `vae_tiling` (a
    blend where tiles meet).

    Attributes:
        base: how the frozen weights of the transformer's blocks lie in memory (`models.storage`). `full`: in the
            family's number type (2 bytes a number in bfloat16). `fp8` and `int8`: 1 byte and a scale a row; `nf4`: half
            a byte and a scale per 64; `fp8-products`: as `fp8`, and forward products of such numbers. Unpacked layer by
            layer when used; all that is not a block's linear layer, and the adapter, stay as they are.
        keep: what a training pass keeps of every block for its backward pass. `nothing`: only the block's input; the
            block is recomputed (3 L + 4.5 A in the words of `plan.costs`). `attention`: the
            attention outputs, too, one more tensor of the tokens' width a block; everything else is recomputed
            (3 L + 3.5 A). `everything`: no recomputation.
        kept_in: where block inputs and kept attention outputs wait for the backward pass. `gpu`; `pinned`: in
            page-locked main memory, copied on a stream of their own while the next block computes; `inputs pinned`: the
            inputs there and attention outputs on the GPU, half of the copies. Main memory: each kept tensor is rounded
            up to a power of two. No effect with `everything`.
        offload: `none`: the blocks' weights stay on the device. `blocks`: they lie in pinned main memory and only two
            blocks are on the device, the running one and the next one, copied while the running one computes. Not
            together with `everything`, `int8` or `nf4`.
        text_encoder: `full`: both text encoders on the device; `cpu`: both computed there, in the family's number type.
        vae_tiling: decode and encode in tiles; a whole 720p video does not fit on a GPU.
        compile: compile the repeated blocks with `torch.compile`.
        guided: with true guidance, whether a denoising step's passes with the prompt and with the negative prompt are
            one batch of two, which reads or unpacks the weights once, or one after the other, in half the memory.
        attention: the attention kernel by name, or `auto`: the fastest that the machine accepts (`models.kernels`).
    """

    base: Storage = "full"
    keep: Keep = "nothing"
    kept_in: KeptIn = "gpu"
    offload: Offload = "none"
    text_encoder: TextEncoder = "full"
    vae_tiling: bool = False
    compile: bool = False
    guided: Guided = "two passes"
    attention: Kernel = "auto"

    def __post_init__(self) -> None:
        if self.offload == "blocks" and self.base in ("int8", "nf4"):
            raise ValueError(f"a base in {self.base} is small; its blocks are not offloaded")
        if self.offload == "blocks" and self.keep == "everything":
            raise ValueError("blocks that come and go must be recomputed in the backward pass")
