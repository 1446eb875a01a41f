"""HunyuanVideo through diffusers' own classes, one part in memory at a time.

A rectified flow: `x_t = (1 - t) x0 + t noise`, the model predicts the velocity `noise - x0`. Sampling is Euler on the
probability-flow ODE (DDIM with eta 0 in this parametrisation) by diffusers' own pipeline, so a video is the one that
plain diffusers makes, up to the rounding of sums: the transformer is given a prompt's tokens without their padding.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from diffusers.video_processor import VideoProcessor
from transformers import PreTrainedTokenizerFast

from magicid_cli import hpo
from magicid_cli.models.arranging import Arrangement
from magicid_cli.models.base import Part, Shape, StepCache
from magicid_cli.models.execution import Execution
from magicid_cli.models.guided import OneBatch
from magicid_cli.models.hunyuan_checks import check_guidance, check_shape
from magicid_cli.models.hunyuan_text import (
    PROMPT_TEMPLATE,
    TEMPLATE_TOKENS,
    TEXT_TOKENS,
    Text,
    read_encoders,
    read_tokenizer,
    unpadded,
)
from magicid_cli.models.loading import check_classes, load_weights, reading, silence_libraries
from magicid_cli.models.sampling import evaluating, pipeline
from magicid_cli.models.step_cache import steps_reused
from magicid_cli.models.storage import store
from magicid_cli.models.transfers import give_back

_CLASSES = {
    "text_encoder": "LlamaModel",
    "text_encoder_2": "CLIPTextModel",
    "transformer": "HunyuanVideoTransformer3DModel",
    "vae": "AutoencoderKLHunyuanVideo",
    "scheduler": "FlowMatchEulerDiscreteScheduler",
}


class Hunyuan:
    """A HunyuanVideo checkpoint; meets `models.base.Family`.

    Attributes:
        commit: the Hub commit, or a content name for weights that were built here.
        device: where parts are loaded.
        dtype: of the transformer and the text encoders.
        execution: how parts are held and computed.
        transformer: the denoiser; only while the part `transformer` is loaded.
    """

    # A HunyuanVideoTransformer3DModel; the checker does not know diffusers' methods.
    transformer: Any

    def __init__(
        self,
        folder: Path,
        *,
        commit: str,
        device: torch.device | str,
        dtype: torch.dtype,
        execution: Execution | None = None,
        announce: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Look at the checkpoint; no weights are read.

        Args:
            folder: a local copy in the layout of diffusers.
            commit: recorded with everything that is made from it.
            device: where parts are loaded.
            dtype: of the transformer and the text encoders.
            execution: how parts are held and computed; by default the plainest way that fits the device.
            announce: told in one sentence of every second-best way that is taken.

        Raises:
            MagicIDError: `model-unusable` if the folder holds something else.
        """
        silence_libraries()
        self.folder = folder
        self.commit = commit
        self.device = torch.device(device)
        self.dtype = dtype
        self.execution = execution or Execution(vae_tiling=self.device.type == "cuda")
        if self.device.type == "cuda" and dtype != torch.float32:
            # Adapters are float32 beside a base of half as many bits: TF32 rounds finer than the result is stored.
            torch.set_float32_matmul_precision("high")
        self._announce = announce
        self._arrangement: Arrangement | None = None
        self._text: HunyuanVideoPipeline | None = None
        self._vae: AutoencoderKLHunyuanVideo | None = None
        check_classes(folder, _CLASSES)

    @cached_property
    def transformer_config(self) -> dict[str, Any]:
        """The transformer's sizes as its `config.json` has them; no weights are read."""
        return self._config("transformer")

    def _config(self, part: Part) -> dict[str, Any]:
        with reading(self.folder, part):
            return json.loads((self.folder / part / "config.json").read_text(encoding="utf-8"))

    # ---------------------------------------------------------------------------------------------- parts in memory

    def load(self, part: Part) -> None:
        """Bring a part into memory; nothing happens if it is there.

        Raises:
            MagicIDError: `model-unusable` (files missing, damaged or of another model) or `model-tokenizer`.
        """
        if part == "text" and self._text is None:
            self._text = read_encoders(self.folder, self.tokenizer, self._scheduler(), self.text_device, self.dtype)
        elif part == "vae" and self._vae is None:
            self._vae = self._load_vae()
        elif part == "transformer" and not hasattr(self, "transformer"):
            self.take(load_weights(HunyuanVideoTransformer3DModel, self.folder, "transformer", self.dtype))

    def take(self, transformer: Any) -> None:
        """Use this frozen transformer: its base is stored as `execution` says and goes to the device.

        Blocks that shall come and go stay where they are until `arrange`.
        """
        store(transformer.transformer_blocks, self.execution.base, self.device)
        store(transformer.single_transformer_blocks, self.execution.base, self.device)
        self.transformer = transformer if self.execution.offload == "blocks" else transformer.to(self.device)
        self._arranged().attend(self.execution)

    def unload(self, part: Part) -> None:
        """Drop a part and give its memory back; nothing happens if it is not there."""
        if part == "text":
            self._text = None
        elif part == "vae":
            self._vae = None
        elif hasattr(self, "transformer"):
            del self.transformer
            self._arrangement = None
        give_back()

    def arrange(self) -> None:
        """Hold and compute the transformer as `execution` says. Needs `transformer`, its adapters attached.

        Raises:
            MagicIDError: `attention-kernel` if the kernel that was asked for, or every fast one, is refused; `memory`
                if main memory cannot be page-locked.
        """
        self._arranged().apply(self.execution)

    def _arranged(self) -> Arrangement:
        if self._arrangement is None or self._arrangement.transformer is not self.transformer:
            self._arrangement = Arrangement(self.transformer, self.device, self.dtype, self._announce)
        return self._arrangement

    def _require_ready(self) -> None:
        assert self._arranged().ready, "call arrange() first: the blocks are not where they compute"

    def report(self) -> dict[str, Any]:
        """What is in effect, as plain data: the execution; kernel and refusals once a transformer was loaded."""
        return {**asdict(self.execution), **(self._arrangement.report() if self._arrangement else {})}

    def _load_vae(self) -> AutoencoderKLHunyuanVideo:
        on_gpu = self.device.type == "cuda"
        dtype = torch.float16 if on_gpu and self.dtype != torch.float32 else torch.float32
        vae = load_weights(AutoencoderKLHunyuanVideo, self.folder, "vae", dtype).to(self.device)
        if self.execution.vae_tiling:
            vae.enable_tiling()
        return vae

    def _scheduler(self) -> FlowMatchEulerDiscreteScheduler:
        with reading(self.folder, "scheduler"):
            return FlowMatchEulerDiscreteScheduler.from_pretrained(
                self.folder, subfolder="scheduler", local_files_only=True
            )

    # ---------------------------------------------------------------------------------------------------------- text

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Llama's tokenizer, checked against the prompt template."""
        return read_tokenizer(self.folder)

    @property
    def text_device(self) -> torch.device:
        """Where prompts are encoded: not on the GPU where that has no room for the text encoders."""
        return torch.device("cpu") if self.execution.text_encoder == "cpu" else self.device

    def text_overflow(self, prompt: str) -> int:
        """How many tokens of `prompt` the text encoder will not see; reads only the tokenizer."""
        count = len(self.tokenizer(PROMPT_TEMPLATE.format(prompt)).input_ids)
        return max(0, count - TEMPLATE_TOKENS - TEXT_TOKENS)

    def encode_text(self, prompt: str) -> Text:
        """The conditioning tensors of one prompt, on the CPU, without a batch axis. Needs `text`.

        Returns:
            `prompt_embeds` (256, D), `prompt_attention_mask` (256,) and `pooled_prompt_embeds` (D2,).
        """
        assert self._text is not None, "load the part 'text' first"
        with torch.no_grad():
            embeds, pooled, mask = self._text.encode_prompt(
                prompt, device=self.text_device, max_sequence_length=TEXT_TOKENS
            )
        found = {"prompt_embeds": embeds, "prompt_attention_mask": mask, "pooled_prompt_embeds": pooled}
        return {name: value[0].cpu().contiguous() for name, value in found.items()}

    # --------------------------------------------------------------------------------------------------------- video

    def encode_video(self, frames: np.ndarray) -> torch.Tensor:
        """Video (F, H, W, 3) → latents (C, f, h, w), the distribution's mode, float32 on the CPU. Needs `vae`.

        Raises:
            MagicIDError: `settings-invalid` for a shape that the model would cut silently.
        """
        check_shape(Shape(*frames.shape[:3]))
        vae = self._loaded_vae()
        video = torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(3, 0, 1, 2)
        video = video.float() / 127.5 - 1
        with torch.no_grad():
            mode = vae.encode(video[None].to(vae.dtype)).latent_dist.mode()
        return (mode[0] * vae.config.scaling_factor).float().cpu()

    def encode_static(self, photo: np.ndarray, frames: int) -> torch.Tensor:
        """The latents of `photo` (H, W, 3) repeated to `frames` frames.

        Exact: the VAE is causal in time and pads with the first frame, so every latent frame of a static clip is equal.
        """
        check_shape(Shape(frames, *photo.shape[:2]))
        return self.encode_video(photo[None]).repeat(1, (frames - 1) // 4 + 1, 1, 1)

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (C, f, h, w) → uint8 RGB video (F, H, W, 3), rounded as diffusers does. Needs `vae`."""
        vae = self._loaded_vae()
        with torch.no_grad():
            scaled = latents[None].to(self.device, vae.dtype) / vae.config.scaling_factor
            video = vae.decode(scaled, return_dict=False)[0]
        unit = VideoProcessor(vae_scale_factor=8).postprocess_video(video, output_type="pt")[0]
        return (unit.float() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

    def _loaded_vae(self) -> AutoencoderKLHunyuanVideo:
        assert self._vae is not None, "load the part 'vae' first"
        return self._vae

    # ------------------------------------------------------------------------------------------------------ training

    @cached_property
    def _shift(self) -> float:
        return float(self._scheduler().config.shift)

    def timesteps(self, count: int, generator: torch.Generator, kind: str) -> torch.Tensor:
        """Draw `count` training times in (0, 1), float32 on the CPU.

        A draw `u` is shifted as the sampler shifts its steps, `s u / (1 + (s - 1) u)` with the checkpoint's `s`
        (7 for HunyuanVideo), so that training sees the noise levels that sampling visits.

        Args:
            count: how many.
            generator: a CPU generator.
            kind: `logit-normal` (`u` is the sigmoid of a standard normal) or `uniform`.
        """
        if kind == "logit-normal":
            u = torch.randn(count, generator=generator).sigmoid()
        elif kind == "uniform":
            u = torch.rand(count, generator=generator).clamp(min=2**-25)
        else:
            raise ValueError(f"unknown kind of timesteps: {kind}")
        return self._shift * u / (1 + (self._shift - 1) * u)

    def noised(self, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Clean latents → (`x_t`, target velocity): `(1 - t) x0 + t noise` and `noise - x0`.

        Args:
            x0: clean latents (C, f, h, w).
            noise: standard normal, the same shape.
            t: one time, a tensor of one element.
        """
        return hpo.velocity_noised(x0, noise, t.reshape(()).to(x0))

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, text: Text, guidance: float) -> torch.Tensor:
        """The velocity for one sample, float32, of `x_t`'s shape. Needs `transformer`.

        Args:
            x_t: noised latents (C, f, h, w).
            t: one time in (0, 1), a tensor of one element.
            text: from `encode_text`.
            guidance: value fed to the guidance embedding; it and `t` reach the model times 1000, as in sampling.
        """
        self._require_ready()
        condition = unpadded(text, self.device, self.dtype)
        velocity = self.transformer(
            hidden_states=x_t[None].to(self.device, self.dtype),
            timestep=t.reshape(1).to(self.device, torch.float32) * 1000,
            encoder_hidden_states=condition["prompt_embeds"],
            encoder_attention_mask=condition["prompt_attention_mask"],
            pooled_projections=condition["pooled_prompt_embeds"],
            guidance=torch.tensor([guidance], dtype=self.dtype, device=self.device) * 1000,
            return_dict=False,
        )[0]
        return velocity[0].float()

    def gradient_checkpointing(self, enabled: bool) -> None:
        """Recompute block activations in the backward pass or keep them, until `arrange` decides."""
        self._arranged().checkpoint(self.execution if enabled else None)

    # ------------------------------------------------------------------------------------------------------ sampling

    def sample(
        self,
        text: Text,
        shape: Shape,
        *,
        steps: int,
        guidance: float,
        seed: int,
        true_guidance: float = 1.0,
        negative: Text | None = None,
        step_cache: StepCache | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Noise → latents (C, f, h, w) by diffusers' pipeline, float32 on the CPU. Needs `transformer`.

        Args:
            text: from `encode_text`.
            shape: of the video; frames 4k + 1, sides multiples of 16.
            steps: Euler steps.
            guidance: embedded guidance.
            seed: of the noise, which is drawn on the CPU: the same on every device.
            true_guidance: above 1, classifier-free guidance against `negative`, at twice the time; `execution` says
                whether a step's two passes are one batch.
            negative: from `encode_text`; given if and only if `true_guidance` is above 1.
            step_cache: inexact: how steps reuse those before them, not with true guidance; None computes every step.
            on_step: called after each step with the number of steps done.

        Raises:
            MagicIDError: `settings-invalid` for a shape or a guidance that the pipeline would ignore silently.
        """
        check_shape(shape)
        check_guidance(true_guidance, negative)
        assert step_cache is None or negative is None, "a step cache would judge two passes as one"
        self._require_ready()
        conditions, transformer = unpadded(text, self.device, self.dtype), self.transformer
        if negative is not None:
            avoided = unpadded(negative, self.device, self.dtype)
            conditions |= {f"negative_{name}": value for name, value in avoided.items()}
            if self.execution.guided == "one batch":
                transformer = self._as_one_batch(avoided)

        def step_done(_pipeline: Any, index: int, _timestep: Any, _tensors: Any) -> dict[str, Any]:
            if on_step is not None:
                on_step(index + 1)
            return {}

        compression = self._config("vae").get("spatial_compression_ratio", 8)
        with evaluating(self.transformer), steps_reused(self.transformer, step_cache, steps):
            latents = pipeline(transformer, self._scheduler(), compression)(
                **conditions,
                height=shape.height,
                width=shape.width,
                num_frames=shape.frames,
                num_inference_steps=steps,
                guidance_scale=guidance,
                true_cfg_scale=true_guidance,
                generator=torch.Generator("cpu").manual_seed(seed),
                output_type="latent",
                return_dict=False,
                callback_on_step_end=step_done,
            )[0]
        return latents[0].float().cpu()

    def _as_one_batch(self, negative: Text) -> OneBatch:
        attention = self._arranged().attention
        assert attention is not None, "the kernel is chosen when the transformer is loaded"

        def refused() -> None:
            self.execution = replace(self.execution, guided="two passes")
            self._announce("Memory does not hold both passes of true guidance at once: they follow one another.")

        return OneBatch(self.transformer, negative, attention, refused)
