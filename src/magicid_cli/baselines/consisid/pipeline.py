"""ConsisID's video model with a prepared face; one large part in memory at a time."""

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, ConsisIDPipeline, ConsisIDTransformer3DModel
from PIL import Image
from transformers import T5EncoderModel

from magicid_cli.baselines.consisid import NAME, exchange
from magicid_cli.baselines.untrained import OnStep, Place, Task, held_by
from magicid_cli.config import parse_size
from magicid_cli.config.methods import ConsisIdSettings
from magicid_cli.events import Events
from magicid_cli.models.loading import load_weights, reading

Tensors = dict[str, torch.Tensor]


class ConsisId:
    """ConsisID for one photo; meets `untrained.Maker`."""

    facts: Mapping[str, Any]

    def __init__(
        self,
        folder: Path,
        settings: ConsisIdSettings,
        task: Task,
        questions: Path,
        events: Events,
    ) -> None:
        """Prepare the face; prompts are encoded with the first video, then the video model comes.

        Args:
            folder: the weights, in the layout of diffusers, with `face_encoder/`.
            settings: of the method.
            task: whose face is shown, which prompts will be asked for, and where it runs.
            questions: where questions to the other environment and their answers lie.
            events: hears what is done.

        Raises:
            MagicIDError: `model-unusable`, `baseline-missing`, `baseline-failed`.
        """
        photo, place = task.photo, task.place
        self._folder, self._settings, self._place, self._events = folder, settings, place, events
        self._questions, self._commit = questions, list(task.commits.values())
        self._expected, self._texts = task.prompts, dict[str, torch.Tensor]()
        self._dtype = getattr(torch, place.dtype)
        where = {"weights": str(folder.absolute()), "device": place.device, "dtype": place.dtype}
        content = [photo.sha256, self._commit, place.device, place.dtype]
        question = {**where, "photo": str(photo.path.absolute())}
        self._face = exchange.ask(NAME, questions, "face", question, content, events)
        self.facts = {"face_sha256": photo.sha256}
        self._pipeline: Any = None

    @property
    def held(self) -> Mapping[str, Any]:
        """As the Protocol says."""
        return held_by(self._pipeline)

    def frames(self, prompt: str, seed: int, on_step: OnStep) -> np.ndarray:
        """A video, uint8 RGB `(F, H, W, 3)`."""
        if prompt not in self._texts:
            self._encode(list(dict.fromkeys([prompt, *self._expected])))
        pipeline = self._pipeline = self._pipeline or assemble(self._folder, self._place)
        return sample(pipeline, self._face, self._texts[prompt], self._settings, seed, on_step)

    def _encode(self, prompts: Sequence[str]) -> None:
        """Keep the states of each prompt and the negative prompt, `(2, tokens, width)`; one loading for all of them."""
        tokens = [self._tokens(prompt) for prompt in prompts]
        if self._pipeline is not None:  # the two would not fit beside each other
            self._pipeline = None
            _free()
        encoder = load_weights(T5EncoderModel, self._folder, "text_encoder", self._dtype).to(self._place.device)
        with torch.no_grad():
            for prompt, ids in zip(prompts, tokens, strict=True):
                self._texts[prompt] = encoder(ids.to(self._place.device))[0].cpu()
        del encoder
        _free()

    def _tokens(self, prompt: str) -> torch.Tensor:
        """The tokens of prompt and negative prompt, `(2, tokens)`."""
        with reading(self._folder, "transformer"):
            length = int(
                ConsisIDTransformer3DModel.load_config(self._folder, subfolder="transformer")["max_text_seq_length"]
            )
        prompts = [prompt, self._settings.negative_prompt]
        question = {"weights": str(self._folder.absolute()), "prompts": prompts, "length": length}
        content = [prompts, length, self._commit]
        found = exchange.ask(NAME, self._questions, "tokens", question, content, self._events)
        cut = int(found["lengths"][0]) - length
        if cut > 0:
            self._events.notice(f"The prompt is {cut} tokens too long for the text encoder; its end is ignored.")
        return found["input_ids"]


def assemble(folder: Path, place: Place) -> Any:
    """The pipeline without text encoder and tokenizer.

    Raises:
        MagicIDError: `model-unusable`.
    """
    dtype = getattr(torch, place.dtype)
    transformer = load_weights(ConsisIDTransformer3DModel, folder, "transformer", dtype)
    vae = load_weights(AutoencoderKLCogVideoX, folder, "vae", dtype)
    with reading(folder, "scheduler"):
        scheduler = CogVideoXDPMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
        pipeline = ConsisIDPipeline(
            tokenizer=None, text_encoder=None, vae=vae, transformer=transformer, scheduler=scheduler
        )
    if place.device == "cuda":
        pipeline.vae.enable_tiling()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(place.device)


def sample(
    pipeline: Any, face: Tensors, text: torch.Tensor, wanted: ConsisIdSettings, seed: int, on_step: OnStep
) -> np.ndarray:
    """A video from a prepared face and an encoded prompt, uint8 RGB `(F, H, W, 3)`.

    Args:
        pipeline: see `assemble`.
        face: see `other_side.face`.
        text: states of prompt and negative prompt, `(2, tokens, width)`.
        wanted: the method's settings.
        seed: of the noise.
        on_step: hears of every step.
    """
    device, dtype = pipeline.device, pipeline.transformer.dtype
    width, height = parse_size(wanted.size)

    def step_done(_pipe: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1)
        return values

    made = pipeline(
        image=Image.fromarray(face["picture"].numpy()),
        prompt_embeds=text[:1].to(device, dtype),
        negative_prompt_embeds=text[1:].to(device, dtype),
        height=height,
        width=width,
        num_frames=wanted.frames,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance,
        # On the CPU, so that a seed is the same noise on every device.
        generator=torch.Generator("cpu").manual_seed(seed),
        id_cond=face["id_cond"],
        id_vit_hidden=[face[f"id_vit_hidden.{number}"] for number in range(_hidden_states(face))],
        kps_cond=face["keypoints"].numpy(),
        output_type="np",
        max_sequence_length=text.shape[1],
        callback_on_step_end=step_done,
    )
    return (np.clip(made.frames[0], 0, 1) * 255).round().astype(np.uint8)


def _hidden_states(face: Tensors) -> int:
    return sum(name.startswith("id_vit_hidden.") for name in face)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
