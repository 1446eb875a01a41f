"""Learning to reconstruct static clips from noise: what stage 1 shares with methods that do only that."""

from typing import Any

import torch

from magicid_cli import adapters, conditioning, hpo, training
from magicid_cli.config import PreferSettings, Settings
from magicid_cli.events import Events
from magicid_cli.models.base import Family, Shape
from magicid_cli.workspace import Workspace, file_digest

Clip = tuple[torch.Tensor, dict[str, torch.Tensor]]


def inputs(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Content of the crops and captions that are trained on."""
    return {photo.crop.name: [photo.sha256, photo.caption] for photo in conditioning.references(workspace)}


def outputs(workspace: Workspace) -> dict[str, str]:
    """Content of the adapter."""
    path = workspace.reconstruct / "adapter.safetensors"
    return {"adapter": file_digest(path)} if path.is_file() else {}


def latents_of(
    workspace: Workspace, settings: Settings, family: Family, events: Events, stage: str
) -> list[torch.Tensor]:
    """The latents `(C, f, h, w)` of every photo as stage 1 learns from it, encoded if they are not there yet."""
    shape = Shape(settings.shape.frames, settings.shape.height, settings.shape.width)
    references, statics = conditioning.references(workspace), workspace.reconstruct / "static"
    conditioning.encode_statics(family, statics, references, shape, events, stage)
    conditioning.keep_statics(family, statics, references, shape)
    # Every latent frame of a static clip is equal, and that of a single frame is the first of them.
    length = slice(1) if settings.reconstruct.clip == "frame" else slice(None)
    paths = [conditioning.static_path(statics, family, photo.sha256, shape) for photo in references]
    return [conditioning.load_tensors(path)["latents"][:, length] for path in paths]


def clips_of(workspace: Workspace, settings: Settings, family: Family, events: Events, stage: str) -> list[Clip]:
    """Latents and conditioning of every photo, encoded if they are not there yet.

    Args:
        workspace: with finished `references/`; texts and latents are kept in it.
        settings: shape and kind of the clips.
        family: its text encoders and its VAE are loaded only if something is missing.
        events: where progress goes.
        stage: the stage that asks.
    """
    texts, photos = workspace.path / "texts", conditioning.references(workspace)
    conditioning.encode_texts(family, texts, [photo.caption for photo in photos], events, stage)
    latents = latents_of(workspace, settings, family, events, stage)
    return [
        (one, conditioning.load_text(family, texts, photo.caption)) for one, photo in zip(latents, photos, strict=True)
    ]


def attach_policy(family: Family, settings: Settings) -> adapters.AdapterSpec:
    """Load the transformer with a fresh, trainable adapter `policy`; the seed decides its numbers."""
    family.load("transformer")
    family.gradient_checkpointing(settings.training.gradient_checkpointing)
    wanted = settings.adapter
    spec = adapters.AdapterSpec(wanted.rank, wanted.alpha, wanted.targets, wanted.double_blocks_only)
    adapters.attach(family.transformer, "policy", spec, seed=settings.seed or 0)
    adapters.select(family.transformer, "policy", trainable=True)
    return spec


def schedule(settings: Settings, steps: int, own: PreferSettings | None = None) -> training.Schedule:
    """Stage 1's rates, or those of stage 2 if they are given, for so many steps."""
    rates = own or settings.reconstruct
    return training.Schedule(
        steps=steps,
        learning_rate=rates.learning_rate,
        weight_decay=rates.weight_decay,
        warmup=rates.warmup,
        batch=rates.batch,
        max_grad_norm=settings.training.max_grad_norm,
        save_every=settings.training.save_every,
    )


def accumulate(family: Family, clips: list[Clip], batch: training.Batch, settings: Settings) -> dict[str, float]:
    """Leave the gradient of the mean reconstruction error over the batch's clips.

    Args:
        family: its transformer is loaded, the trained adapter selected.
        clips: latents `(C, f, h, w)` and conditioning of every static clip.
        batch: which clips, and the generator of their noise and times.
        settings: guidance and the law of the timesteps.

    Returns:
        `loss` (mean squared error, e.g. of the velocity) and `t` (of the last clip).
    """
    total, t = 0.0, torch.zeros(1)
    for item in batch.items:
        loss, t = error(family, clips[item], batch.generator, settings)
        (loss / len(batch.items)).backward()
        total += float(loss.detach()) / len(batch.items)
    return {"loss": total, "t": float(t)}


def error(
    family: Family, clip: Clip, generator: torch.Generator, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """The reconstruction error of one clip under fresh noise, a scalar with its graph, and the time that was drawn."""
    latents, text = clip
    t = family.timesteps(1, generator, settings.training.timesteps)
    noise = torch.randn(latents.shape, generator=generator)
    x_t, target = family.noised(latents, noise, t)
    return hpo.error(target.to(family.device), family.predict(x_t, t, text, settings.training.guidance)), t
