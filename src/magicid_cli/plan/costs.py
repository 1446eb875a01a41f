"""What a pass through the transformer costs: tokens, FLOP, parameters. Arithmetic only; memory is in `footprint.py`.

One multiply-add is 2 FLOP. `linear` is what the linear layers of one forward cost, `attention` what the attention
kernel costs. The base is frozen, so its backward needs no weight gradients (1 × its forward); an adapter's backward is
2 × its forward; attention's is 2.5 × (five matrix products instead of two). Hence with L, A and an adapter's l:

    training pass, blocks recomputed      3 L + 4 l + 4.5 A        nothing recomputed    2 L + 3 l + 3.5 A
      attention outputs kept              3 L + 4 l + 3.5 A
    preference step                       8 L + 10 l + 11 A        (two reference forwards, two training passes)
      attention outputs kept              8 L + 10 l + 9 A

GB are 1e9 bytes.
"""

from dataclasses import dataclass

from magicid_cli.config import AdapterSettings
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Keep

GB = 1e9


@dataclass(frozen=True)
class Rates:
    """How fast a GPU computes, in TFLOP/s (1e12): linear layers, attention forward, attention backward."""

    linear: float
    attention_forward: float
    attention_backward: float


# The best kernel rates published for one H100 or H200: a floor for the time, not what a run will see.
BEST_RATES = Rates(794.5, 648.0, 561.0)


@dataclass(frozen=True)
class Architecture:
    """The facts of a HunyuanVideo transformer that cost time and memory.

    Attributes:
        heads: attention heads.
        head_width: their width; `width` is the product.
        dual: blocks with separate weights for video and text.
        single: blocks with shared weights.
        refiner: blocks of the text refiner.
        text_width: width of the text encoder's states.
        pooled_width: width of the pooled text state.
        pass_s: nominal seconds of one forward where arithmetic is not what takes the time (measured on one CPU
            thread), or None.
        channels: latent channels.
        compression: pixels of a side that become one latent.
        patch: latents of a side that become one token.
        text_tokens: of a prompt, at most.
        decoder_parameters: of the whole autoencoder.
        decoder_width: channels of its widest feature map at full resolution.
        text_parameters: of both text encoders.
    """

    heads: int
    head_width: int
    dual: int
    single: int
    refiner: int
    text_width: int
    pooled_width: int
    pass_s: float | None = None
    channels: int = 16
    compression: int = 8
    patch: int = 2
    text_tokens: int = 256
    decoder_parameters: int = 246_478_803
    decoder_width: int = 256
    text_parameters: int = 7_628_247_296

    @property
    def width(self) -> int:
        """Width of a token."""
        return self.heads * self.head_width

    @property
    def token_side(self) -> int:
        """Pixels of a side that become one token."""
        return self.compression * self.patch

    @property
    def blocks(self) -> int:
        """Dual and single blocks together."""
        return self.dual + self.single


ARCHITECTURES = {
    "hunyuan-video": Architecture(24, 128, dual=20, single=40, refiner=2, text_width=4096, pooled_width=768),
    "mini": Architecture(
        6,
        32,
        dual=2,
        single=4,
        refiner=1,
        text_width=96,
        pooled_width=64,
        pass_s=0.02,
        channels=8,
        compression=2,
        patch=4,
        decoder_parameters=2_226_907,
        decoder_width=48,
        text_parameters=1_000_000,
    ),
    "tiny": Architecture(
        2,
        16,
        dual=2,
        single=2,
        refiner=1,
        text_width=32,
        pooled_width=16,
        pass_s=0.007,
        decoder_parameters=80_163,
        decoder_width=8,
        text_parameters=60_272,
    ),
}


@dataclass(frozen=True)
class Cost:
    """Work of a computation: FLOP by kind, and how many forwards of kernels are launched for it."""

    linear: float = 0.0
    attention_forward: float = 0.0
    attention_backward: float = 0.0
    passes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))

    def __mul__(self, times: float) -> "Cost":
        return Cost(*(times * value for value in _values(self)))

    @property
    def flop(self) -> float:
        """All FLOP."""
        return self.linear + self.attention_forward + self.attention_backward

    def seconds(self, rates: Rates) -> float:
        """Time at these rates."""
        kinds = (self.linear, rates.linear), (self.attention_forward, rates.attention_forward)
        backward = self.attention_backward / rates.attention_backward
        return (sum(flop / rate for flop, rate in kinds) + backward) / 1e12


def _values(cost: Cost) -> tuple[float, float, float, float]:
    return cost.linear, cost.attention_forward, cost.attention_backward, cost.passes


def latent_size(shape: Shape, compression: int = 8) -> tuple[int, int, int]:
    """Frames, height and width of the latents: a quarter of the frames after the first, an eighth of each side.

    Args:
        shape: of the video.
        compression: what each side is divided by, where it is not an eighth.
    """
    return (shape.frames - 1) // 4 + 1, shape.height // compression, shape.width // compression


def tokens(shape: Shape, side: int = 16) -> int:
    """Video tokens: latents in patches of 1 × 2 × 2.

    Args:
        shape: of the video.
        side: pixels of a side that become one token, where it is not 2 latents of 8 pixels.
    """
    frames, height, width = latent_size(shape, side)
    return frames * height * width


def pixels(shape: Shape) -> int:
    """Pixels of all frames."""
    return shape.frames * shape.height * shape.width


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def block_parameters(arch: Architecture) -> tuple[int, int]:
    """Parameters of one dual and of one single block."""
    width, head = arch.width, arch.head_width
    mlp = _linear(width, 4 * width) + _linear(4 * width, width)
    dual = 8 * _linear(width, width) + 4 * head + 2 * mlp + 2 * _linear(width, 6 * width)
    single = 3 * _linear(width, width) + 2 * head + _linear(width, 3 * width)
    return dual, single + _linear(width, 4 * width) + _linear(5 * width, width)


def parameters(arch: Architecture) -> int:
    """Parameters of the transformer."""
    width, linear = arch.width, _linear

    def embedder(inputs: int) -> int:
        return linear(inputs, width) + linear(width, width)

    mlp = linear(width, 4 * width) + linear(4 * width, width)
    dual, single = block_parameters(arch)
    refiner = 4 * linear(width, width) + mlp + 4 * width + linear(width, 2 * width)
    text = linear(arch.text_width, width) + arch.refiner * refiner + embedder(256) + embedder(arch.text_width)
    conditioning = 2 * embedder(256) + embedder(arch.pooled_width)
    values = arch.patch**2 * arch.channels
    ends = linear(values, width) + linear(width, 2 * width) + linear(width, values)
    return arch.dual * dual + arch.single * single + text + conditioning + ends


def _adapted(arch: Architecture, adapter: AdapterSettings) -> tuple[int, int, int]:
    """Inputs plus outputs of the adapted layers, by the tokens they see: video, text, both."""
    each = 4 * 2 + (2 * 5 if adapter.targets == "attention+mlp" else 0)
    joint = 3 * 2 + (5 + 6 if adapter.targets == "attention+mlp" else 0)
    single = 0 if adapter.double_blocks_only else arch.single
    return arch.dual * each * arch.width, arch.dual * each * arch.width, single * joint * arch.width


def adapter_parameters(arch: Architecture, adapter: AdapterSettings) -> int:
    """Parameters of a LoRA adapter: rank × (inputs + outputs) for every adapted layer."""
    return adapter.rank * sum(_adapted(arch, adapter))


def _adapter_flop(arch: Architecture, shape: Shape, adapter: AdapterSettings | None) -> float:
    if adapter is None:
        return 0.0
    video, text, both = _adapted(arch, adapter)
    pictures = tokens(shape, arch.token_side)
    seen = pictures, arch.text_tokens, pictures + arch.text_tokens
    return 2.0 * adapter.rank * sum(a * b for a, b in zip((video, text, both), seen, strict=True))


def conditioning_flop(arch: Architecture) -> float:
    """What time, guidance and pooled text cost once a forward, apart from the blocks' modulation."""
    width = arch.width
    embedders = 3 * 256 + arch.pooled_width + arch.text_width + 5 * width
    return 2.0 * width * (embedders + 2 * width * arch.refiner + 2 * width)


def forward(arch: Architecture, shape: Shape, adapter: AdapterSettings | None = None) -> Cost:
    """One forward of one sample."""
    width, video, text = arch.width, tokens(shape, arch.token_side), arch.text_tokens
    joint = video + text
    linear = arch.blocks * 24.0 * width**2 * joint + 4.0 * video * arch.patch**2 * arch.channels * width
    linear += 2.0 * text * arch.text_width * width + arch.refiner * 24.0 * width**2 * text
    linear += (24.0 * arch.dual + 6.0 * arch.single) * width**2
    linear += conditioning_flop(arch) + _adapter_flop(arch, shape, adapter)
    attention = 4.0 * width * (arch.blocks * joint**2 + arch.refiner * text**2)
    return Cost(linear, attention, passes=1)


def training_pass(arch: Architecture, shape: Shape, adapter: AdapterSettings, *, keep: Keep = "nothing") -> Cost:
    """Forward and backward of one sample.

    Args:
        arch: of the transformer.
        shape: of the video.
        adapter: that is trained.
        keep: what the forward keeps for the backward, as in `models.execution`; the rest is computed twice.
    """
    base, extra = forward(arch, shape), _adapter_flop(arch, shape, adapter)
    forwards, attended = 1 if keep == "everything" else 2, 2 if keep == "nothing" else 1
    return Cost(
        (forwards + 1) * base.linear + (forwards + 2) * extra,
        attended * base.attention_forward,
        2.5 * base.attention_forward,
        passes=forwards + 2,
    )


def preference_step(arch: Architecture, shape: Shape, adapter: AdapterSettings, *, keep: Keep = "nothing") -> Cost:
    """Reference errors of winner and rejected, then a training pass of each."""
    return forward(arch, shape, adapter) * 2 + training_pass(arch, shape, adapter, keep=keep) * 2


def decode(shape: Shape) -> Cost:
    """The VAE's decoder: 17.4e6 FLOP a pixel, counted on the real class, times 2.4 because its tiles overlap."""
    return Cost(linear=2.4 * 17.4e6 * pixels(shape), passes=20)
