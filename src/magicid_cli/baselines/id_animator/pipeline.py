"""The pipeline of ID-Animator: Stable Diffusion 1.5 from one file, a motion module, the face adapter, one person."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AnimateDiffPipeline, AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel
from PIL import Image
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from magicid_cli.baselines.id_animator import CHECKPOINT, conversion
from magicid_cli.baselines.untrained import OnStep, Photo, Place, held_by
from magicid_cli.config import parse_size
from magicid_cli.config.methods import IdAnimatorSettings
from magicid_cli.events import Events
from magicid_cli.faces import align
from magicid_cli.models.loading import load_weights, reading

BASE = "realisticVisionV60B1_v51VAE.safetensors"
CONFIG = "animatediff/sd"
_TEXT = "cond_stage_model.transformer.text_model."
_TEXT_TOKENS = 77
# What CLIP's image encoder was trained on: side in pixels, mean and deviation of red, green, blue.
_SIDE = 224
_MEAN, _DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# AnimateDiff's schedule for its second motion module.
_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "steps_offset": 1,
    "clip_sample": False,
}


class Animator:
    """ID-Animator in memory, for one photo; meets `untrained.Maker`."""

    facts: Mapping[str, Any]

    def __init__(
        self,
        folders: Sequence[Path],
        settings: IdAnimatorSettings,
        photo: Photo,
        place: Place,
        events: Events,
        content: str,
    ) -> None:
        """Load everything.

        Args:
            folders: see `assemble`.
            settings: of the method.
            photo: whose face is shown.
            place: device and number type.
            events: hears if a prompt is too long, and what is odd about the checkpoint.
            content: SHA-256 of the checkpoint, for the record.

        Raises:
            MagicIDError: `model-unusable`.
        """
        self.facts = {"checkpoint_sha256": content}
        self._settings, self._events = settings, events
        space, motion, encoder = folders
        self._pipeline = assemble(space, motion, encoder, settings.photo_scale, place, events)
        self._pixels = pixels(photo).to(place.device, getattr(torch, place.dtype))

    @property
    def held(self) -> Mapping[str, Any]:
        """As the Protocol says."""
        return held_by(self._pipeline)

    def frames(self, prompt: str, seed: int, on_step: OnStep) -> np.ndarray:
        """A video, uint8 RGB `(F, H, W, 3)`."""
        wanted, pipeline = self._settings, self._pipeline
        cut = len(pipeline.tokenizer(prompt).input_ids) - _TEXT_TOKENS
        if cut > 0:
            self._events.notice(f"The prompt is {cut} tokens too long for the text encoder; its end is ignored.")

        def step_done(_pipe: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
            on_step(step + 1)
            return values

        width, height = parse_size(wanted.size)
        made = pipeline(
            prompt=prompt,
            negative_prompt=wanted.negative_prompt,
            num_frames=wanted.frames,
            width=width,
            height=height,
            num_inference_steps=wanted.steps,
            guidance_scale=wanted.guidance,
            # On the CPU, so that a seed is the same noise on every device.
            generator=torch.Generator("cpu").manual_seed(seed),
            ip_adapter_image=self._pixels,
            output_type="np",
            decode_chunk_size=1,
            callback_on_step_end=step_done,
        )
        return (np.clip(made.frames[0], 0, 1) * 255).round().astype(np.uint8)


def pixels(photo: Photo) -> torch.Tensor:
    """What the image encoder sees: the aligned face at 224 pixels, float32 `(1, 3, 224, 224)`."""
    face = Image.fromarray(align(photo.picture, photo.face.landmarks)).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    values = (np.asarray(face, np.float32) / 255 - _MEAN) / _DEVIATION
    return torch.from_numpy(values.transpose(2, 0, 1)[None].astype(np.float32))


def assemble(space: Path, motion: Path, encoder: Path, scale: float, place: Place, events: Events) -> Any:
    """An `AnimateDiffPipeline` with the face adapter on.

    Its LoRA is folded in float32 and the sum rounded once: in 16 bits each weight, each change and each sum would be
    rounded, and of a change much smaller than its weight little would be left.

    Args:
        space: files of the authors' demo: the checkpoint, the image model, its configuration and tokenizer.
        motion: of the motion module.
        encoder: with `models/image_encoder`.
        scale: weight of the face in the cross-attention.
        place: device and number type.
        events: hears what is odd about the checkpoint.

    Raises:
        MagicIDError: `model-unusable`.
    """
    dtype = getattr(torch, place.dtype)
    module = load_weights(MotionAdapter, motion, "", dtype)
    images = load_weights(CLIPVisionModelWithProjection, encoder / "models", "image_encoder", dtype)
    with reading(space, BASE):
        parts = {
            "vae": _part(AutoencoderKL, space, "vae", dtype),
            "unet": _part(UNet2DConditionModel, space, "unet", torch.float32),
            "text_encoder": _text_encoder(space).to(dtype),
            "tokenizer": CLIPTokenizer.from_pretrained(space / CONFIG / "tokenizer", local_files_only=True),
        }
        pipeline = AnimateDiffPipeline(
            **parts, motion_adapter=module, scheduler=DDIMScheduler(**_SCHEDULE), image_encoder=images
        )
    state = conversion.read(space / CHECKPOINT, events)
    adapter = conversion.convert(state, pipeline.unet, space / CHECKPOINT, events)
    with reading(space, CHECKPOINT):
        if adapter.image_width != images.config.hidden_size:
            raise ValueError(
                f"it reads hidden states of {adapter.image_width}, the encoder's {images.config.hidden_size}"
            )
        conversion.put_on(pipeline.unet, adapter, scale)
    pipeline.unet.to(dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(place.device)


def _part(kind: Any, space: Path, part: str, dtype: torch.dtype) -> Any:
    """A part of the image model, by diffusers' conversion of single files."""
    found = kind.from_single_file(
        str(space / BASE), config=str(space / CONFIG), subfolder=part, local_files_only=True, torch_dtype=dtype
    )
    return found.requires_grad_(False).eval()


def _text_encoder(space: Path) -> Any:
    """The image model's own text encoder, which is CLIP's and was trained on."""
    encoder = CLIPTextModel(CLIPTextConfig.from_pretrained(space / CONFIG / "text_encoder", local_files_only=True))
    with safe_open(space / BASE, "pt") as file:
        names = [name for name in file.keys() if name.startswith(_TEXT)]  # noqa: SIM118
        state = {name.removeprefix(_TEXT): file.get_tensor(name).float() for name in names}
    state.pop(
        "embeddings.position_ids", None
    )  # numbers from 0 to 76, which newer versions of the class count themselves
    encoder.load_state_dict(state)
    return encoder.requires_grad_(False).eval()
