"""DreamBooth-LoRA (arXiv 2208.12242): the adapter learns to reconstruct the photos, and nothing else.

Exactly MagicID's stage 1, gone on with for as many steps as all of MagicID's training takes. Prior preservation is an
option, off as in the paper: to each photo's error comes that of a clip which the untouched model made for the photo's
caption. The person has no word of their own here, only the class word; so what is preserved is also what is learned,
and the option works against the likeness as much as for the motion.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from magicid_cli import adapters, conditioning, models, training
from magicid_cli.config import Settings, subset
from magicid_cli.events import Events
from magicid_cli.models.base import Family, Shape
from magicid_cli.plan import running
from magicid_cli.plan.begun import Begun, of_clips, of_training
from magicid_cli.randomness import derived_seed
from magicid_cli.reconstruction import Clip, accumulate, attach_policy, clips_of, error, inputs, schedule
from magicid_cli.reconstruction import outputs as outputs
from magicid_cli.workspace import Workspace, digest

NAME = "dreambooth"
TITLE = "DreamBooth-LoRA: reconstruction"
FORMAT = 1
READS = (
    "seed",
    "rounds",
    "model.name",
    "model.dtype",
    "model.base",
    "shape.frames",
    "shape.size",
    "adapter",
    "training.guidance",
    "training.timesteps",
    "training.max_grad_norm",
    "reconstruct",
    "prefer.steps",
    "dreambooth",
)
# What class clips are sampled with, where there are any.
_SAMPLING = ("repository.steps", "repository.guidance")


@dataclass(frozen=True)
class DreamBoothResult:
    """Where the adapter lies and how it was reached."""

    adapter: Path
    clips: int
    class_clips: int
    steps: int
    commit: str


def reads(settings: Settings) -> tuple[str, ...]:
    """`READS`, and how class clips are sampled if there are any."""
    return (*READS, *_SAMPLING) if settings.dreambooth.class_clips else READS


def prepare(settings: Settings, events: Events) -> None:
    """Bring in what the method needs from outside, before anything starts."""
    models.open_family(settings.model, events)


def run(workspace: Workspace, settings: Settings, events: Events) -> DreamBoothResult:
    """Train the adapter.

    Args:
        workspace: the method's folder.
        settings: seed set; what is read is listed in `reads`.
        events: where progress goes.

    Raises:
        MagicIDError: weights, memory or training failed; the code says which.
    """
    # Held and computed as stage 1 is, whose work it is.
    family = running.open_family(settings, "reconstruct", events)
    clips = clips_of(workspace, settings, family, events, NAME)
    class_clips = _class_clips(workspace, settings, family, events)
    spec = attach_policy(family, settings)
    running.arrange(family, "reconstruct", events)
    result = training.train(
        # By this name the order, the noise and the times are those of stage 1.
        stage="reconstruct",
        parameters=adapters.parameters(family.transformer, "policy"),
        schedule=schedule(settings, settings.total_steps),
        items=len(clips),
        seed=settings.seed or 0,
        key=run_key(workspace, settings, family.commit),
        folder=workspace.reconstruct,
        accumulate=lambda batch: _accumulate(family, clips, class_clips, batch, settings),
        events=events,
    )
    path = workspace.reconstruct / "adapter.safetensors"
    adapters.save(path, adapters.tensors(family.transformer, "policy"), spec)
    family.unload("transformer")
    return DreamBoothResult(path, len(clips), len(class_clips), result.steps, family.commit)


def begun(workspace: Workspace, settings: Settings) -> dict[str, Begun]:
    """How far an interrupted training is, and how many class clips there are; by the names that the plan has for it."""
    known = models.known(settings.model)
    key = known and run_key(workspace, settings, known[0])
    found = {"reconstruct": of_training(workspace.reconstruct / "checkpoints", key)}
    if settings.dreambooth.class_clips:
        wanted = [path for path, *_ in _clips_to_make(workspace, settings, *known)] if known else []
        found["sample"] = of_clips(wanted, known=known is not None)
    return found


def run_key(workspace: Workspace, settings: Settings, commit: str) -> str:
    """What a checkpoint of this run must have been made from."""
    return digest([NAME, FORMAT, subset(settings, reads(settings)), inputs(workspace, settings), commit])


def _accumulate(
    family: Family, clips: list[Clip], class_clips: list[Clip], batch: training.Batch, settings: Settings
) -> dict[str, float]:
    """The gradient of the photos' error and, where there are class clips, of one of theirs for each photo."""
    metrics = accumulate(family, clips, batch, settings)
    if not class_clips:
        return metrics
    weight, total = settings.dreambooth.class_weight / len(batch.items), 0.0
    for _ in batch.items:
        drawn = int(torch.randint(len(class_clips), (1,), generator=batch.generator))
        loss, _t = error(family, class_clips[drawn], batch.generator, settings)
        (weight * loss).backward()
        total += float(loss.detach()) / len(batch.items)
    return {**metrics, "class_loss": total}


def _class_clips(workspace: Workspace, settings: Settings, family: Family, events: Events) -> list[Clip]:
    """Clips of anybody, made by the untouched model for the photos' captions in turn; those made before are kept."""
    count = settings.dreambooth.class_clips
    if not count:
        return []
    shape, texts = _shape(settings), workspace.path / "texts"
    clips, arranged = [], False
    to_make = _clips_to_make(workspace, settings, family.commit, str(family.dtype))
    for number, (path, caption, seed) in enumerate(to_make):
        text = conditioning.load_text(family, texts, caption)
        if not path.is_file():
            if not arranged:
                family.load("transformer")
                running.arrange(family, "reconstruct", events)
                arranged = True
            wanted = settings.repository
            with events.finishing():
                latents = family.sample(text, shape, steps=wanted.steps, guidance=wanted.guidance, seed=seed)
                conditioning.save_tensors(path, {"latents": latents})
                events.emit("step", stage=NAME, part="class clips", step=number + 1, of=count)
        clips.append((conditioning.load_tensors(path)["latents"], text))
    # Training attaches its adapter to a transformer that was not arranged before.
    family.unload("transformer")
    return clips


def _shape(settings: Settings) -> Shape:
    return Shape(settings.shape.frames, settings.shape.height, settings.shape.width)


def _clips_to_make(
    workspace: Workspace, settings: Settings, commit: str, dtype: str
) -> Iterator[tuple[Path, str, int]]:
    """File, caption and seed of every class clip, made or not."""
    captions = [photo.caption for photo in conditioning.references(workspace)]
    # Only where it makes other clips: those of a base stored in full were always named so.
    stored = [] if settings.model.base == "full" else [settings.model.base]
    for number in range(settings.dreambooth.class_clips):
        caption, seed = captions[number % len(captions)], derived_seed(settings.seed or 0, NAME, str(number))
        facts = [commit, dtype, str(_shape(settings)), caption, seed, subset(settings, _SAMPLING), *stored]
        yield workspace.path / "class-clips" / f"{digest(facts)[:24]}.safetensors", caption, seed
