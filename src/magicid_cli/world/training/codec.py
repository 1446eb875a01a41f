"""Training the miniature's autoencoder on drawn clips, both halves together from the first step to the last.

Windows of clips first, then whole ones: four windows cost what one clip does. The squared error counts faces more,
and the change from frame to frame counts on its own, or moving parts would be smeared over four frames. It is steps
that sharpen what moves: an autoencoder that learned for 2100 of them, and whose decoder then learned alone, left 0.60
of the motion of clips that went through it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import nn

from magicid_cli.models import mini
from magicid_cli.world import clips
from magicid_cli.world.training.loop import Dose
from magicid_cli.world.training.pictures import HELD_OUT, SCENES, TRAINING

DOSE = Dose(steps=12_900, matrix_rate=0.02, rate=2e-3, hold=0.35)
"""As many steps as the shipped weights had.

Theirs came in parts: 9000 with noise up to 0.15 and without the smaller picture's error; 1000 of the decoder alone with
noise up to 0.5; 1600 of both up to 0.6; 1300 with all that is here. Latents of the first part kept so much fine detail
that a transformer could not foretell it, and what it missed was flicker.
"""

_WINDOWED = 0.7  # share of the steps that see windows; the rest sees whole clips, which have no edges inside
_CLIPS = 2  # drawn for a step
_SEEN = range(5_000_000, 5_000_024)  # clips on which it is measured
_WINDOWS = 4  # cut out of them
_SIDE = 24
_FACE = 2.5  # how much more an error in the face counts
_CHANGE = 0.5  # how much an error of the change from frame to frame counts
# Up to so much noise, in units of the latents' spread, is added to them in training: sampled latents are never quite
# clean, and neighbouring values must mean neighbouring pictures.
_ROUGHEST = 0.8
# How much an error of the half-size picture counts that the decoder makes of half-size latents. It keeps fine detail in
# the latents as small as it is in pictures, which is what a transformer can learn (Skorokhodov et al. 2025).
_SMALLER = 0.25


@dataclass(frozen=True, eq=False)
class Windows:
    """What a step sees.

    Attributes:
        video: float `(N, 3, F, S, S)` in -1 to 1.
        weight: float `(N, 1, F, S, S)`, 1 on average.
    """

    video: torch.Tensor
    weight: torch.Tensor


class Codec:
    """The autoencoder as a task of the loop.

    Args:
        device: `cpu` or `cuda`.
        dose: how it is trained.
    """

    name = "codec"

    def __init__(self, device: str = "cpu", dose: Dose = DOSE) -> None:
        torch.manual_seed(0)
        self.dose, self.device = dose, device
        self.model: AutoencoderKLHunyuanVideo = mini.vae().to(device)
        for name, value in self.model.named_parameters():
            if name.endswith("conv2.conv.weight"):
                # Every residual block begins as the identity.
                nn.init.zeros_(value)
        self._held_out = [video_and_faces(number, HELD_OUT) for number in _SEEN]

    def batch(self, step: int) -> Windows:
        """Windows of clips that no other step sees."""
        draw = np.random.Generator(np.random.PCG64([31, step]))
        drawn = [video_and_faces(SCENES + step * _CLIPS + index, TRAINING) for index in range(_CLIPS)]
        videos, weights = [], []
        windowed = step < _WINDOWED * self.dose.steps
        for index in range(_WINDOWS if windowed else 1):
            video, face = drawn[index % _CLIPS]
            y, x = draw.integers(clips.SIZE - _SIDE + 1, size=2)
            window = (slice(None), slice(y, y + _SIDE), slice(x, x + _SIDE)) if windowed else (slice(None),) * 3
            videos.append(video[window])
            weights.append(1 + (_FACE - 1) * face[window])
        weight = torch.from_numpy(np.stack(weights))[:, None]
        return Windows(as_video(np.stack(videos)).to(self.device), (weight / weight.mean()).to(self.device))

    def loss(self, batch: Windows, step: int) -> torch.Tensor:
        """Weighted squared error, its change over time, that of the half-size picture, and a pull against growth."""
        with torch.autocast(self.device, torch.bfloat16):
            latents = self._encode(batch.video)
            rough = self._spoilt(latents)
            made = self.model.decode(latents + rough * torch.randn_like(latents)).sample
            half = _half(latents)
            smaller = self.model.decode(half + rough * torch.randn_like(half)).sample
        error = made.float() - batch.video
        change = error[:, :, 1:] - error[:, :, :-1]
        loss = (batch.weight * error.square()).mean() + _CHANGE * (batch.weight[:, :, 1:] * change.square()).mean()
        loss += _SMALLER * (smaller.float() - _half(batch.video)).square().mean()
        return loss + 1e-4 * (latents.square().mean() - 1).clamp(min=0)

    def _encode(self, video: torch.Tensor) -> torch.Tensor:
        return self.model.encode(video).latent_dist.mean.float()

    def _spoilt(self, latents: torch.Tensor) -> torch.Tensor:
        """How much noise the latents get: none to much, another share for every clip."""
        most = _ROUGHEST * latents.detach().std()
        return most * torch.rand(len(latents), 1, 1, 1, 1, device=latents.device)

    def evaluate(self) -> dict[str, float]:
        """Signal-to-noise ratio of held-out clips, whole and in the face's box, in dB; the latents' spread."""
        video = as_video(np.stack([video for video, _ in self._held_out])).to(self.device)
        face = torch.from_numpy(np.stack([face for _, face in self._held_out]))[:, None].to(self.device)
        latents = self.model.encode(video).latent_dist.mean
        error = (self.model.decode(latents).sample.clamp(-1, 1) - video).square()
        within = (error * face).sum() / (3 * face.sum())
        return {
            "whole_db": decibels(float(error.mean())),
            "face_db": decibels(float(within)),
            "first_db": decibels(float(error[:, :, 0].mean())),
            "spread": float(latents.std()),
        }


def video_and_faces(seed: int, people: range) -> tuple[np.ndarray, np.ndarray]:
    """A random clip, uint8 `(F, S, S, 3)`, and where its face is, float32 `(F, S, S)` of zeros and ones."""
    drawn = clips.render(clips.scene(seed, people=people))
    mask = np.zeros(drawn.frames.shape[:3], np.float32)
    for index, face in enumerate(drawn.faces):
        x, y, width, height = (round(edge * clips.SIZE) for edge in face.box)
        mask[index, max(0, y) : y + height, max(0, x) : x + width] = 1
    return drawn.frames, mask


def as_video(frames: np.ndarray) -> torch.Tensor:
    """uint8 `(N, F, S, S, 3)` → float `(N, 3, F, S, S)` in -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def _half(video: torch.Tensor) -> torch.Tensor:
    """`(N, C, F, H, W)` at half the height and width."""
    return nn.functional.avg_pool3d(video, (1, 2, 2))


def decibels(error: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error of values from -1 to 1."""
    return float(10 * np.log10(4 / error))
