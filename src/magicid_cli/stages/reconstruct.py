"""Stage 1: LoRA reconstruction on static clips.

Each photo, repeated to the training length, is a clip that the adapter learns to reconstruct from noise
(`method.md` 2; the paper: 1000 steps, AdamW, 2e-5, weight decay 1e-4), or, with `reconstruct.clip` at `frame`, each
photo as a single frame. The result is both the start and the reference of stage 2.
"""

from dataclasses import dataclass
from pathlib import Path

from magicid_cli import adapters, models, training
from magicid_cli.config import Settings, subset
from magicid_cli.events import Events
from magicid_cli.plan import running
from magicid_cli.plan.begun import Begun, of_training
from magicid_cli.reconstruction import accumulate, attach_policy, clips_of, inputs, schedule
from magicid_cli.reconstruction import outputs as outputs
from magicid_cli.workspace import Workspace, digest

NAME = "reconstruct"
TITLE = "Stage 1: reconstruction"
FORMAT = 1
READS = (
    "seed",
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
)


@dataclass(frozen=True)
class ReconstructResult:
    """Where the stage-1 adapter lies and how it was reached."""

    adapter: Path
    clips: int
    steps: int
    commit: str


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
    family = running.open_family(settings, NAME, events)
    clips = clips_of(workspace, settings, family, events, NAME)
    spec = attach_policy(family, settings)
    running.arrange(family, NAME, events)
    result = training.train(
        stage=NAME,
        parameters=adapters.parameters(family.transformer, "policy"),
        schedule=schedule(settings, settings.reconstruct.steps),
        items=len(clips),
        seed=settings.seed or 0,
        key=run_key(workspace, settings, family.commit),
        folder=workspace.reconstruct,
        accumulate=lambda batch: accumulate(family, clips, batch, settings),
        events=events,
    )
    path = workspace.reconstruct / "adapter.safetensors"
    adapters.save(path, adapters.tensors(family.transformer, "policy"), spec)
    family.unload("transformer")
    return ReconstructResult(path, len(clips), result.steps, family.commit)


def begun(workspace: Workspace, settings: Settings) -> Begun:
    """How far an interrupted training is."""
    known = models.known(settings.model)
    return of_training(workspace.reconstruct / "checkpoints", known and run_key(workspace, settings, known[0]))


def run_key(workspace: Workspace, settings: Settings, commit: str) -> str:
    """What a checkpoint of this run must have been made from."""
    return digest([FORMAT, subset(settings, READS), inputs(workspace, settings), commit])
