"""What the guards look at: a few fixed videos, sampled anew from the policy at every look.

Prompts and seeds never change, so two looks differ by what was learned between them. The videos have the repository's
shape, steps and guidance, and are judged by the rewards that also choose the pairs, never by the recogniser that
evaluates results.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from magicid_cli import adapters, conditioning
from magicid_cli.alignment import one_thread_each
from magicid_cli.config import Settings
from magicid_cli.events import Events
from magicid_cli.faces import open_faces
from magicid_cli.guards.keeping import Guard, Looking
from magicid_cli.guards.rules import Seen
from magicid_cli.models.base import Family, Shape
from magicid_cli.models.catalog import video_model
from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.dynamics import DynamicsReward
from magicid_cli.rewards.identity import IdentityReward
from magicid_cli.rounds import FIRST
from magicid_cli.scorebook import flow_of
from magicid_cli.workspace import Workspace, read_lines

if TYPE_CHECKING:
    import torch

READS = (
    "model.name",
    "shape",
    "repository.steps",
    "repository.guidance",
    "rewards.face_detector",
    "rewards.face_model",
    "rewards.flow",
    "pairs.dynamics",
)


@dataclass(frozen=True)
class Wish:
    """A video to sample at every look."""

    prompt: str
    seed: int


def wishes(workspace: Workspace, settings: Settings) -> list[Wish]:
    """The watched videos: prompts of held-out pairs first, as training never sees them, then the repository's others.

    Where there are fewer prompts than videos, a prompt comes again with another seed.
    """
    repository = [row["text"] for row in read_lines(workspace.repository / "prompts.jsonl")]
    held_out = [row["prompt"] for row in read_lines(workspace.pairs) if row["split"] == "held-out"]
    # A held-out pair may have a photo's caption for its prompt, which asks for a still picture.
    prompts = list(dict.fromkeys([*(text for text in held_out if text in repository), *repository]))
    return [
        Wish(prompts[number % len(prompts)], workspace.seed_of(settings.seed, "watched", number))
        for number in range(settings.prefer.watch_videos)
    ]


class Watch:
    """Samples and judges the watched videos.

    Args:
        workspace: of the identity; its references and its encoded prompts are on disk.
        settings: of the run.
        family: its transformer is loaded and has the adapter `policy`.
        events: where progress goes.
    """

    def __init__(self, workspace: Workspace, settings: Settings, family: Family, events: Events) -> None:
        self._family, self._settings, self._events = family, settings, events
        self._wishes = wishes(workspace, settings)
        texts = workspace.path / "texts"
        self._texts = [conditioning.load_text(family, texts, wish.prompt) for wish in self._wishes]
        model = video_model(settings.model.name)
        faces = open_faces(settings.rewards, model, offline=settings.model.offline, events=events)
        references = conditioning.load_tensors(workspace.references / "embeddings.safetensors")["embeddings"].numpy()
        self._identity = IdentityReward(faces, references)
        self._dynamics = DynamicsReward(flow_of(workspace, settings).name, settings.model.device)

    def __call__(self) -> tuple[Seen, list[dict[str, Any]]]:
        """Sample with the policy as it is, and judge.

        The VAE is in memory only after the last video is denoised. The policy is trainable again when this returns.

        Returns:
            Means over the videos, and a row for each: `prompt`, `seed`, `likeness`, `motion`.
        """
        family, wanted = self._family, self._settings.repository
        shape = Shape(self._settings.shape.frames, self._settings.shape.height, self._settings.shape.width)
        adapters.select(family.transformer, "policy", trainable=False)
        latents = []
        for number, (wish, text) in enumerate(zip(self._wishes, self._texts, strict=True), 1):
            made = family.sample(text, shape, steps=wanted.steps, guidance=wanted.guidance, seed=wish.seed)
            latents.append(made)
            about = {"part": "watched videos", "step": number, "of": len(self._wishes)}
            self._events.emit("step", stage="prefer", **about)
        adapters.select(family.transformer, "policy", trainable=True)
        family.load("vae")
        with one_thread_each():
            rows = [self._judge(wish, family.decode(one)) for wish, one in zip(self._wishes, latents, strict=True)]
        family.unload("vae")
        return Seen(fmean(row["likeness"] for row in rows), fmean(row["motion"] for row in rows)), rows

    def _judge(self, wish: Wish, frames: Any) -> dict[str, Any]:
        clip = Clip(frames, self._settings.shape.fps, wish.prompt)
        motion = self._dynamics.score(clip)[self._settings.pairs.dynamics]
        return {**vars(wish), "likeness": self._identity.score(clip)["value"], "motion": motion}


def open_guard(
    workspace: Workspace,
    settings: Settings,
    family: Family,
    started_from: tuple["dict[str, torch.Tensor]", adapters.AdapterSpec],
    key: str,
    events: Events,
) -> Guard:
    """The guard of a preference optimization that is about to start or to go on.

    Args:
        workspace: of the identity.
        settings: of the run.
        family: as `Watch` takes it.
        started_from: the adapter that the policy started from.
        key: digest of everything the training reads.
        events: where progress goes.
    """
    watch, (tensors, spec) = Watch(workspace, settings, family, events), started_from

    def start() -> tuple[Seen, list[dict[str, Any]]]:
        now = adapters.tensors(family.transformer, "policy")
        adapters.load_tensors(family.transformer, "policy", tensors)
        try:
            return watch()
        finally:
            adapters.load_tensors(family.transformer, "policy", now)

    def save(path: Path) -> None:
        adapters.save(path, adapters.tensors(family.transformer, "policy"), spec)

    def save_start(path: Path) -> None:
        adapters.save(path, tensors, spec)

    called = started_by(workspace.number)
    return Guard(
        workspace.prefer,
        steps=settings.prefer.steps,
        every=settings.prefer.watch_every,
        key=key,
        looking=Looking(policy=watch, stage_1=start, save=save, save_start=save_start, **called),
        events=events,
    )


def started_by(number: int) -> dict[str, str]:
    """What a later round calls the model that it started from, and the way back to it."""
    if number == FIRST:
        return {}
    before = number - 1
    return {"start": f"round {before}", "otherwise": f"round {before}'s adapter (--rounds {before})"}
