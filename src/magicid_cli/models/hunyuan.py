"""HunyuanVideo through diffusers' own classes, one part in memory at a time.

A rectified flow: `x_t = (1 - t) x0 + t noise`, the model predicts the velocity `noise - x0`. Sampling is Euler on the
probability-flow ODE (DDIM with eta 0 in this parametrisation) by diffusers' own pipeline, so a video is the one that
plain diffusers makes, up to the rounding of sums: the transformer is given a prompt's tokens without their padding.
"""

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
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
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from diffusers.video_processor import VideoProcessor
from transformers import CLIPTextModel, CLIPTokenizer, LlamaModel, PreTrainedTokenizerFast

from magicid_cli import hpo
from magicid_cli.errors import MagicIDError
from magicid_cli.models.base import Part, Shape
from magicid_cli.models.execution import Execution
from magicid_cli.models.hunyuan_attention import attend_without_mask
from magicid_cli.models.loading import load_weights, reading, silence_libraries

Text = dict[str, torch.Tensor]

# The pipeline drops this many tokens of every prompt, the template's beginning, and then keeps this many.
TEMPLATE_TOKENS: int = DEFAULT_PROMPT_TEMPLATE["crop_start"]
TEXT_TOKENS = 256

PROMPT_TEMPLATE: str = DEFAULT_PROMPT_TEMPLATE["template"]
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
    ) -> None:
        """Look at the checkpoint; no weights are read.

        Args:
            folder: a local copy in the layout of diffusers.
            commit: recorded with everything that is made from it.
            device: where parts are loaded.
            dtype: of the transformer and the text encoders.
            execution: how parts are held and computed; by default the plainest way that fits the device.

        Raises:
            MagicIDError: `model-unusable` if the folder holds something else.
        """
        silence_libraries()
        self.folder = folder
        self.commit = commit
        self.device = torch.device(device)
        self.dtype = dtype
        self.execution = execution or Execution(vae_tiling=self.device.type == "cuda")
        self._text: HunyuanVideoPipeline | None = None
        self._vae: AutoencoderKLHunyuanVideo | None = None
        self._check_classes()

    def _check_classes(self) -> None:
        with reading(self.folder, "model_index.json"):
            index = json.loads((self.folder / "model_index.json").read_text(encoding="utf-8"))
            for part, name in _CLASSES.items():
                found = index[part][1]
                if found != name:
                    raise ValueError(f"{part} is a {found}, a {name} is expected")

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
            self._text = self._load_text()
        elif part == "vae" and self._vae is None:
            self._vae = self._load_vae()
        elif part == "transformer" and not hasattr(self, "transformer"):
            model = load_weights(HunyuanVideoTransformer3DModel, self.folder, "transformer", self.dtype)
            self.transformer = model.to(self.device)
            attend_without_mask(self.transformer)

    def unload(self, part: Part) -> None:
        """Drop a part and give its memory back; nothing happens if it is not there."""
        if part == "text":
            self._text = None
        elif part == "vae":
            self._vae = None
        elif hasattr(self, "transformer"):
            del self.transformer
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def arrange(self) -> None:
        """Hold and compute the transformer as `execution` says. Needs `transformer`, its adapters attached."""

    def report(self) -> dict[str, Any]:
        """What is in effect, as plain data."""
        return asdict(self.execution)

    def _load_text(self) -> HunyuanVideoPipeline:
        with reading(self.folder, "tokenizer_2"):
            tokenizer_2 = CLIPTokenizer.from_pretrained(self.folder, subfolder="tokenizer_2", local_files_only=True)
        return HunyuanVideoPipeline(
            tokenizer=self.tokenizer,
            tokenizer_2=tokenizer_2,
            text_encoder=load_weights(LlamaModel, self.folder, "text_encoder", self.dtype).to(self.device),
            text_encoder_2=load_weights(CLIPTextModel, self.folder, "text_encoder_2", self.dtype).to(self.device),
            transformer=None,
            vae=None,
            scheduler=self._scheduler(),
        )

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
        """Llama's tokenizer, by its file.

        The class that `model_index.json` names replaces the file's byte-level splitting since transformers 5, silently;
        the template's length, on which the pipeline's cropping rests, shows it.
        """
        with reading(self.folder, "tokenizer"):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(
                self.folder, subfolder="tokenizer", local_files_only=True
            )
        count = len(tokenizer(PROMPT_TEMPLATE.split("{}")[0]).input_ids)
        if count != TEMPLATE_TOKENS or tokenizer.padding_side != "right":
            raise MagicIDError(
                "model-tokenizer",
                f"The prompt template is {count} tokens padded on the {tokenizer.padding_side}; HunyuanVideo needs "
                f"{TEMPLATE_TOKENS}, padded on the right. Prompts would be cut at the wrong place.",
                "Install the tested versions (see the README), then fetch the model again: magicid prepare",
            )
        return tokenizer

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
            embeds, pooled, mask = self._text.encode_prompt(prompt, device=self.device, max_sequence_length=TEXT_TOKENS)
        found = {"prompt_embeds": embeds, "prompt_attention_mask": mask, "pooled_prompt_embeds": pooled}
        return {name: value[0].cpu().contiguous() for name, value in found.items()}

    # --------------------------------------------------------------------------------------------------------- video

    def encode_video(self, frames: np.ndarray) -> torch.Tensor:
        """Video (F, H, W, 3) → latents (C, f, h, w), the distribution's mode, float32 on the CPU. Needs `vae`.

        Raises:
            MagicIDError: `settings-invalid` for a shape that the model would cut silently.
        """
        _check_shape(Shape(*frames.shape[:3]))
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
        _check_shape(Shape(frames, *photo.shape[:2]))
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
        condition = self._conditions(text)
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
        """Recompute block activations in the backward pass or keep them. Needs `transformer`."""
        if enabled:
            self.transformer.enable_gradient_checkpointing()
        else:
            self.transformer.disable_gradient_checkpointing()

    def _conditions(self, text: Text) -> Text:
        """A batch of one without padding, which `hunyuan_attention` takes for granted."""
        length = int(text["prompt_attention_mask"].sum())
        padded = ("prompt_embeds", "prompt_attention_mask")
        text = {name: value[:length] if name in padded else value for name, value in text.items()}
        return {name: value[None].to(self.device, self.dtype) for name, value in text.items()}

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
        on_step: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Noise → latents (C, f, h, w) by diffusers' pipeline, float32 on the CPU. Needs `transformer`.

        Args:
            text: from `encode_text`.
            shape: of the video; frames 4k + 1, sides multiples of 16.
            steps: Euler steps.
            guidance: embedded guidance.
            seed: of the noise, which is drawn on the CPU: the same on every device.
            true_guidance: above 1, classifier-free guidance against `negative`, at twice the time.
            negative: from `encode_text`; given if and only if `true_guidance` is above 1.
            on_step: called after each step with the number of steps done.

        Raises:
            MagicIDError: `settings-invalid` for a shape or a guidance that the pipeline would ignore silently.
        """
        _check_shape(shape)
        _check_guidance(true_guidance, negative)
        conditions = self._conditions(text)
        if negative is not None:
            conditions |= {f"negative_{name}": value for name, value in self._conditions(negative).items()}

        def step_done(_pipeline: Any, index: int, _timestep: Any, _tensors: Any) -> dict[str, Any]:
            if on_step is not None:
                on_step(index + 1)
            return {}

        with self._evaluating():
            latents = self._sampler()(
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

    def _sampler(self) -> HunyuanVideoPipeline:
        absent = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "vae"))
        pipeline = HunyuanVideoPipeline(transformer=self.transformer, scheduler=self._scheduler(), **absent)
        # It would ask the VAE, which is not loaded now.
        pipeline.vae_scale_factor_spatial = self._config("vae").get("spatial_compression_ratio", 8)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self.transformer.training
        self.transformer.eval()
        try:
            yield
        finally:
            self.transformer.train(training)


def _check_shape(shape: Shape) -> None:
    """Refuse what diffusers would floor silently or the transformer cannot patch."""
    if shape.frames < 1 or shape.frames % 4 != 1 or shape.height % 16 or shape.width % 16:
        raise MagicIDError(
            "settings-invalid",
            f"A video of {shape} cannot be made: frames must be 4k + 1, height and width multiples of 16.",
            "Try 61 frames at 544x320.",
        )


def _check_guidance(true_guidance: float, negative: Text | None) -> None:
    if (true_guidance > 1) != (negative is not None):
        raise MagicIDError(
            "settings-invalid",
            "True guidance above 1 and a negative prompt have an effect only together.",
            "Add --true-guidance 6 to the negative prompt, or leave both out.",
        )
