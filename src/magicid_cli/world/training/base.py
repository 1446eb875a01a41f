"""Training the miniature's text encoders and transformer: a rectified flow on the latents of drawn clips.

First the flow itself, with a tenth of the prompts left out. Then guidance is distilled into the model's guidance input,
as the real one has it: for half of a batch the target is what guidance makes of the first model. It leads away from two
things: a little from the empty prompt, as usual, and more from the same scene in which nobody moves. So small a model
foretells the mean of many possible movements, which is too little of each; the second part gives back what is lacking,
and does not make people alike, as the first one does.
"""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from magicid_cli.events import Events
from magicid_cli.hpo import velocity_noised
from magicid_cli.models import mini
from magicid_cli.workspace import atomic_path
from magicid_cli.world import clips
from magicid_cli.world.captions import words
from magicid_cli.world.training.codec import as_video
from magicid_cli.world.training.damage import is_damage
from magicid_cli.world.training.loop import Dose
from magicid_cli.world.training.pictures import HELD_OUT, SCENES, TRAINING

DOSE = Dose(steps=15_350, matrix_rate=0.02, rate=1.5e-3, hold=0.4, average=0.998)
GUIDED_DOSE = Dose(steps=440, matrix_rate=0.006, rate=5e-4, hold=0.2, average=0.99)
"""As many steps as the shipped weights had, for the flow and then for the guidance.

Theirs came in three parts, each with rates that fall to nothing: 7200 on the latents of an earlier autoencoder; 4700 on
those of another, for which the layers that take latents in and give them out began anew; 3450 on those of the shipped
one, which was made from that other one. Of the guidance's 440 the first 300 led away from both things in equal parts.
"""

_BATCH = 32
CLIPS = 14_000
"""How many clips the shipped weights learned from."""
_SHARD = 500  # clips of one file of latents
_WITHOUT_PROMPT = 0.1
_STRONGEST = 6.0
_FROM_STILL = 0.7  # share of the guidance that leads away from standing still; the rest, from the empty prompt
_PROMPT_BEGINS = DEFAULT_PROMPT_TEMPLATE["crop_start"]


@dataclass(frozen=True, eq=False)
class Latents:
    """Clips as the transformer sees them.

    Attributes:
        values: float16 `(N, C, f, h, w)`, scaled to a spread of 1.
        scenes: what they show.
        scaling_factor: that did it.
    """

    values: torch.Tensor
    scenes: list[clips.Scene]
    scaling_factor: float


def latents(vae: AutoencoderKLHunyuanVideo, folder: Path, count: int, events: Events) -> torch.Tensor:
    """The unscaled latents of the first `count` training clips, float16; kept in `folder`, so that it can go on.

    A file that cannot be read is made again.

    Args:
        vae: the trained autoencoder.
        folder: for the files.
        count: how many clips.
        events: told what is done after each file, and which files were damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for first in range(0, count, _SHARD):
        path = folder / f"{first:06d}.pt"
        part = _stored(path, events)
        if part is None:
            numbers = [range(start, start + 20) for start in range(first, first + _SHARD, 20)]
            part = torch.cat([encoded(vae, [training_scene(number) for number in some]) for some in numbers])
            with atomic_path(path) as temporary:
                torch.save(part, temporary)
        parts.append(part)
        events.emit("step", stage="base", part="clips", step=min(first + _SHARD, count), of=count)
    return torch.cat(parts)[:count]


def _stored(path: Path, events: Events) -> torch.Tensor | None:
    """A file of latents, or None if there is none that can be read."""
    if not path.exists():
        return None
    try:
        stored = torch.load(path, weights_only=True)
        if stored.shape[:2] != (_SHARD, mini.LATENT_CHANNELS):
            raise ValueError(f"it holds {tuple(stored.shape)}")
    except Exception as error:
        if not is_damage(error):
            raise
        events.notice(f"{path} is damaged and is made again ({type(error).__name__}).")
        return None
    return stored


def encoded(vae: AutoencoderKLHunyuanVideo, scenes: list[clips.Scene]) -> torch.Tensor:
    """The unscaled latents of clips, float16 `(N, C, f, h, w)` on the CPU."""
    frames = np.stack([clips.render(scene).frames for scene in scenes])
    device = next(vae.parameters()).device
    with torch.no_grad():
        return vae.encode(as_video(frames).to(device)).latent_dist.mode().half().cpu()


def training_scene(number: int) -> clips.Scene:
    """Clip `number` of those the transformer learns from."""
    return clips.scene(SCENES + 50_000_000 + number, people=TRAINING)


class TextAndVideo(nn.Module):
    """The parts that are trained together.

    Args:
        folder: where the tokenizers are written, if they are not there yet.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        if not (folder / "tokenizer").exists():
            mini.write_tokenizers(folder, words())
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)
        self._tokenizer_2 = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer_2", local_files_only=True)
        self.text_encoder = mini.llama(self._tokenizer.get_vocab())
        self.text_encoder_2 = mini.clip(self._tokenizer_2.get_vocab())
        self.transformer = mini.transformer()
        self._begin_as_identity()

    def _begin_as_identity(self) -> None:
        """Blocks that do nothing yet and a velocity of zero: the usual start of a diffusion transformer."""
        for name, value in self.transformer.named_parameters():
            if name.startswith("proj_out.") or (".norm" in name or name.startswith("norm_out")) and ".linear." in name:
                nn.init.zeros_(value)

    def encode(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What diffusers' pipeline makes of the prompts, padded to the longest: embeddings, mask, pooled."""
        device = next(self.parameters()).device
        texts = [DEFAULT_PROMPT_TEMPLATE["template"].format(prompt) for prompt in prompts]
        tokens = self._tokenizer(texts, padding=True, return_tensors="pt").to(device)
        hidden = self.text_encoder(**tokens, output_hidden_states=True, use_cache=False).hidden_states[-3]
        short = self._tokenizer_2(prompts, padding=True, truncation=True, max_length=77, return_tensors="pt").to(device)
        pooled = self.text_encoder_2(short.input_ids).pooler_output
        return hidden[:, _PROMPT_BEGINS:], tokens.attention_mask[:, _PROMPT_BEGINS:], pooled

    def velocity(
        self,
        x_t: torch.Tensor,
        t: torch.Tensor,
        text: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        guidance: torch.Tensor,
    ) -> torch.Tensor:
        """The predicted velocity of a batch, float32; times and guidance reach the model times 1000."""
        embeds, mask, pooled = text
        # For so few tokens the plain products are quicker than the blocked kernel, above all backwards.
        with sdpa_kernel(SDPBackend.MATH):
            made = self.transformer(x_t, t * 1000, embeds, mask, pooled, guidance=guidance * 1000, return_dict=False)
        return made[0].float()


@dataclass(frozen=True, eq=False)
class Examples:
    """What a step sees: latents `(B, C, f, h, w)`, their prompts, and what these were if the person stood still."""

    x0: torch.Tensor
    prompts: list[str]
    still: list[str]


class Base:
    """Text encoders and transformer as a task of the loop.

    Args:
        data: the training latents.
        held_out: latents of people and scenes that are never trained on.
        folder: where the tokenizers are.
        device: `cpu` or `cuda`.
        dose: how it is trained; what the shipped weights had by default.
        teacher: the trained first model, if guidance is to be learned.
    """

    def __init__(
        self,
        data: Latents,
        held_out: Latents,
        folder: Path,
        *,
        device: str = "cpu",
        dose: Dose | None = None,
        teacher: TextAndVideo | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.data, self.held_out, self.device = data, held_out, device
        self.name = "guided" if teacher else "base"
        self.dose = dose or (GUIDED_DOSE if teacher else DOSE)
        self.model = copy.deepcopy(teacher) if teacher else TextAndVideo(folder).to(device)
        self._teacher = teacher.requires_grad_(False).eval() if teacher else None

    def batch(self, step: int) -> Examples:
        """Every clip once an epoch, in an order of its own and with other words."""
        count = len(self.data.scenes)
        draw = np.random.Generator(np.random.PCG64([37, step]))
        places = [step * _BATCH + index for index in range(_BATCH)]
        chosen = [_shuffled(place // count, count)[place % count] for place in places]
        prompts, still = [], []
        for index, place in zip(chosen, places, strict=True):
            scene, wording = self.data.scenes[index], place // count
            without = draw.random() < _WITHOUT_PROMPT
            prompts.append("" if without else scene.caption(wording=wording))
            still.append("" if without else replace(scene, action="still").caption(wording=wording))
        return Examples(self._scaled(self.data, chosen), prompts, still)

    def _scaled(self, data: Latents, chosen: list[int]) -> torch.Tensor:
        return data.values[chosen].to(self.device).float() * data.scaling_factor

    def loss(self, batch: Examples, step: int) -> torch.Tensor:
        """Squared error of the velocity."""
        count = len(batch.prompts)
        noise = torch.randn_like(batch.x0)
        t = times(count).to(self.device)
        x_t, target = velocity_noised(batch.x0, noise, t[:, None, None, None, None])
        guidance = torch.ones(count, device=self.device)
        with torch.autocast(self.device, torch.bfloat16):
            if self._teacher:
                half = count // 2
                guidance[:half] += torch.rand(half, device=self.device) * (_STRONGEST - 1)
                texts = batch.prompts[:half], batch.still[:half]
                target[:half] = self._guided(x_t[:half], t[:half], texts, guidance[:half])
            answer = self.model.velocity(x_t, t, self.model.encode(batch.prompts), guidance)
        return (answer - target).square().mean()

    @torch.no_grad()
    def _guided(
        self, x_t: torch.Tensor, t: torch.Tensor, texts: tuple[list[str], list[str]], guidance: torch.Tensor
    ) -> torch.Tensor:
        """Guidance by the teacher, away from no prompt and from standing still; `texts`: prompts, and still ones."""
        assert self._teacher is not None
        prompts, still = texts
        count = len(prompts)
        text = self._teacher.encode([*prompts, *[""] * count, *still])
        every = self._teacher.velocity(
            x_t.repeat(3, 1, 1, 1, 1), t.repeat(3), text, torch.ones(3 * count, device=self.device)
        )
        with_prompt, without, standing = every.chunk(3)
        away = torch.lerp(without, standing, _FROM_STILL)
        return away + guidance[:, None, None, None, None] * (with_prompt - away)

    def evaluate(self) -> dict[str, float]:
        """The loss on held-out clips at fixed times and noise."""
        generator = torch.Generator().manual_seed(1)
        count = len(self.held_out.scenes)
        x0 = self._scaled(self.held_out, list(range(count)))
        noise = torch.randn(x0.shape, generator=generator).to(self.device)
        t = (torch.arange(count) + 0.5).div(count)[torch.randperm(count, generator=generator)].to(self.device)
        x_t, target = velocity_noised(x0, noise, t[:, None, None, None, None])
        text = self.model.encode([scene.caption() for scene in self.held_out.scenes])
        with torch.autocast(self.device, torch.bfloat16):
            answer = self.model.velocity(x_t, t, text, torch.ones(count, device=self.device))
        error = (answer - target).square().mean((1, 2, 3, 4))
        return {
            "held_out": float(error.mean()),
            "early": float(error[t > 0.5].mean()),
            "late": float(error[t <= 0.5].mean()),
        }


def times(count: int) -> torch.Tensor:
    """Noise levels in (0, 1): mostly the shifted logit-normal that sampling visits, some of everywhere."""
    u = torch.where(torch.rand(count) < 0.85, torch.randn(count).sigmoid(), torch.rand(count).clamp(1e-4, 1 - 1e-4))
    return mini.SHIFT * u / (1 + (mini.SHIFT - 1) * u)


def held_out_scenes(count: int) -> list[clips.Scene]:
    """Scenes of people nobody was trained on."""
    return [clips.scene(6_000_000 + number, people=HELD_OUT) for number in range(count)]


@lru_cache(maxsize=2)
def _shuffled(epoch: int, count: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64([41, epoch])).permutation(count)
