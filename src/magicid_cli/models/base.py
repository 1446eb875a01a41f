"""The Protocol every model family meets: a few verbs, in tensors, that hide how the family parametrises noise.

Latents of one video are `(C, f, h, w)`, already scaled as the transformer wants them. A video is a uint8 RGB array
`(F, H, W, 3)`. Time `t` runs from 0 (data) to 1 (noise).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch

    from magicid_cli.models.execution import Execution

Part = Literal["text", "vae", "transformer"]


@dataclass(frozen=True)
class Shape:
    """Frames, height and width of a video, in frames and pixels."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"


@dataclass(frozen=True)
class StepCache:
    """Inexact: how denoising steps of a video reuse those before them (`models.step_cache`).

    Attributes:
        kind: `first-block`, `magcache` or `taylorseer`.
        strength: the more, the fewer steps are computed; what it measures depends on the kind.
        ratios: what `magcache` knows of the model, one for each step.
    """

    kind: str
    strength: float
    ratios: tuple[float, ...] = ()


class Family(Protocol):
    """A text-to-video model whose parts are loaded one after another.

    Attributes:
        commit: the Hub commit of the weights, or a content name for weights that were built here.
        device: where tensors are computed.
        dtype: the number type of the frozen base.
        transformer: the denoiser, a `torch.nn.Module` with diffusers' methods; only while the part is loaded.
        execution: how parts are held and computed; may be replaced, see `models.execution`.
    """

    commit: str
    device: "torch.device"
    dtype: "torch.dtype"
    transformer: Any
    execution: "Execution"

    @property
    def transformer_config(self) -> dict[str, Any]:
        """The transformer's sizes, by the names of its configuration file; no weights are read."""

    def load(self, part: Part) -> None:
        """Bring a part into memory; nothing happens if it is there."""

    def unload(self, part: Part) -> None:
        """Drop a part and give its memory back."""

    def arrange(self) -> None:
        """Hold and compute the loaded transformer as `execution` says; call it once the adapters are attached.

        Without a call, a transformer whose execution needs nothing but loading works, too. Calling it again applies
        a changed `execution`.

        Raises:
            MagicIDError: `attention-kernel` if the kernel that was asked for, or any fast one, is refused.
        """

    def report(self) -> "dict[str, Any]":
        """What is in effect, as plain data for the manifest: `Execution`'s fields, the kernel and what was refused."""

    def gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute activations in the backward pass, or keep them. Needs `transformer`."""

    def text_overflow(self, prompt: str) -> int:
        """How many tokens of the prompt the text encoder would cut off. Needs `text`."""

    def encode_text(self, prompt: str) -> "dict[str, torch.Tensor]":
        """The conditioning tensors of one prompt, on the CPU, without a batch axis. Needs `text`."""

    def encode_video(self, frames: "np.ndarray") -> "torch.Tensor":
        """Video → latents `(C, f, h, w)`, the distribution's mode, float32 on the CPU. Needs `vae`."""

    def encode_static(self, photo: "np.ndarray", frames: int) -> "torch.Tensor":
        """The latents of `photo` `(H, W, 3)` repeated to `frames` frames, without encoding every frame."""

    def decode(self, latents: "torch.Tensor") -> "np.ndarray":
        """Latents → video. Needs `vae`."""

    def timesteps(self, count: int, generator: "torch.Generator", kind: str) -> "torch.Tensor":
        """Draw `count` training times in (0, 1), float32 on the CPU; `kind` is `logit-normal` or `uniform`."""

    def noised(
        self, x0: "torch.Tensor", noise: "torch.Tensor", t: "torch.Tensor"
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """Clean latents → `(x_t, target)`: what the model sees and what it should predict."""

    def predict(
        self, x_t: "torch.Tensor", t: "torch.Tensor", text: "dict[str, torch.Tensor]", guidance: float
    ) -> "torch.Tensor":
        """The model's prediction for one sample, float32, of `x_t`'s shape. Needs `transformer`."""

    def sample(
        self,
        text: "dict[str, torch.Tensor]",
        shape: Shape,
        *,
        steps: int,
        guidance: float,
        seed: int,
        true_guidance: float = 1.0,
        negative: "dict[str, torch.Tensor] | None" = None,
        step_cache: StepCache | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> "torch.Tensor":
        """Noise → latents by the deterministic sampler, float32 on the CPU. Needs `transformer`.

        A `step_cache` is inexact: it takes steps from those before them. It does not go with true guidance.
        """
