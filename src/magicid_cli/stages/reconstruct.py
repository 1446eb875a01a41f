"""Stage 1: LoRA reconstruction on static clips.

Each photo, repeated to the training length, is a clip that the adapter learns to reconstruct from noise
(`method.md` 2; the paper: 1000 steps, AdamW, 2e-5, weight decay 1e-4), or, with `reconstruct.clip` at `frame`, each
photo as a single frame. The result is both the start and the reference of stage 2.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from magicid_cli import adapters, conditioning, hpo, models, training
from magicid_cli.config import Settings, subset
from magicid_cli.events import Events
from magicid_cli.models.base import Family, Shape
from magicid_cli.workspace import Workspace, digest, file_digest

NAME = "reconstruct"
TITLE = "Stage 1: reconstruction"
FORMAT = 1
READS = (
    "seed",
    "model.name",
    "model.dtype",
    "shape.frames",
    "shape.size",
    "adapter",
    "training.guidance",
    "training.timesteps",
    "training.max_grad_norm",
    "reconstruct",
)


@dataclass(frozen=True)
class ReconstructResult:
    """Where the stage-1 adapter lies and how it was reached."""

    adapter: Path
    clips: int
    steps: int
    commit: str


def inputs(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Content of the crops and captions that are trained on."""
    return {photo.crop.name: [photo.sha256, photo.caption] for photo in conditioning.references(workspace)}


def outputs(workspace: Workspace) -> dict[str, str]:
    """Content of the stage-1 adapter."""
    path = workspace.reconstruct / "adapter.safetensors"
    return {"adapter": file_digest(path)} if path.is_file() else {}


def prepare(settings: Settings, events: Events) -> None:
    """Bring in what the stage needs from outside, before any stage starts."""
    models.open_family(settings.model, events)


def run(workspace: Workspace, settings: Settings, events: Events) -> ReconstructResult:
    """Train the stage-1 adapter.

    Args:
        workspace: with finished `references/`.
        settings: seed set; what is read is listed in `READS`.
        events: where progress goes.

    Raises:
        MagicIDError: weights, memory or training failed; the code says which.
    """
    family = models.open_family(settings.model, events)
    shape = Shape(settings.shape.frames, settings.shape.height, settings.shape.width)
    references = conditioning.references(workspace)
    texts, statics = workspace.path / "texts", workspace.reconstruct / "static"
    conditioning.encode_texts(family, texts, [photo.caption for photo in references], events, NAME)
    conditioning.encode_statics(family, statics, references, shape, events, NAME)
    conditioning.keep_statics(family, statics, references, shape)
    # Every latent frame of a static clip is equal, and that of a single frame is the first of them.
    length = slice(1) if settings.reconstruct.clip == "frame" else slice(None)
    clips = [
        (
            conditioning.load_tensors(conditioning.static_path(statics, family, photo.sha256, shape))["latents"][
                :, length
            ],
            conditioning.load_text(family, texts, photo.caption),
        )
        for photo in references
    ]

    family.load("transformer")
    family.gradient_checkpointing(settings.training.gradient_checkpointing)
    wanted = settings.adapter
    spec = adapters.AdapterSpec(wanted.rank, wanted.alpha, wanted.targets, wanted.double_blocks_only)
    seed = settings.seed or 0
    adapters.attach(family.transformer, "policy", spec, seed=seed)
    adapters.select(family.transformer, "policy", trainable=True)
    result = training.train(
        stage=NAME,
        parameters=adapters.parameters(family.transformer, "policy"),
        schedule=training.Schedule(
            steps=settings.reconstruct.steps,
            learning_rate=settings.reconstruct.learning_rate,
            weight_decay=settings.reconstruct.weight_decay,
            warmup=settings.reconstruct.warmup,
            batch=settings.reconstruct.batch,
            max_grad_norm=settings.training.max_grad_norm,
            save_every=settings.training.save_every,
        ),
        items=len(clips),
        seed=seed,
        key=run_key(workspace, settings, family),
        folder=workspace.reconstruct,
        accumulate=lambda batch: accumulate(family, clips, batch, settings),
        events=events,
    )
    path = workspace.reconstruct / "adapter.safetensors"
    adapters.save(path, adapters.tensors(family.transformer, "policy"), spec)
    family.unload("transformer")
    return ReconstructResult(path, len(clips), result.steps, family.commit)


def run_key(workspace: Workspace, settings: Settings, family: Family) -> str:
    """What a checkpoint of this run must have been made from."""
    return digest([FORMAT, subset(settings, READS), inputs(workspace, settings), family.commit])


def accumulate(
    family: Family,
    clips: list[tuple[torch.Tensor, dict[str, torch.Tensor]]],
    batch: training.Batch,
    settings: Settings,
) -> dict[str, float]:
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
        latents, text = clips[item]
        t = family.timesteps(1, batch.generator, settings.training.timesteps)
        noise = torch.randn(latents.shape, generator=batch.generator)
        x_t, target = family.noised(latents, noise, t)
        loss = hpo.error(target.to(family.device), family.predict(x_t, t, text, settings.training.guidance))
        (loss / len(batch.items)).backward()
        total += float(loss.detach()) / len(batch.items)
    return {"loss": total, "t": float(t)}
