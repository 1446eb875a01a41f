"""ID-Animator (arXiv 2404.15275): AnimateDiff on Stable Diffusion 1.5 with a face adapter; nothing is trained.

As its authors run it (`infer.py` of github.com/ID-Animator/ID-Animator at commit 4f5a277575cc): the checkpoint
`realisticVisionV60B1_v51VAE` as the image model, AnimateDiff's motion module v2 (`mm_sd_v15_v2.ckpt`; not the later
v3), a 112-pixel face aligned by five landmarks and shown to CLIP at 224 pixels, 16 frames of 512x512, 30 DDIM steps,
guidance 8, scale 0.8. Here with diffusers' `AnimateDiffPipeline`.

What is another way than theirs, or could not be confirmed:

- the motion module comes from `guoyww/animatediff-motion-adapter-v1-5-2`, which diffusers documents as that module;
- the CLIP image encoder comes from `h94/IP-Adapter`, which has the shape that the adapter needs (held at loading). That
  the authors' own copy has the same weights could not be confirmed;
- the noise schedule is AnimateDiff's (linear betas, 0.00085 to 0.012): the authors' `inference-v2.yaml` itself was not
  among what could be read, a comment in their code says the same;
- faces are found by magicid's finder and not by InsightFace's, whose models are for non-commercial research only;
- videos play at 8 frames a second, AnimateDiff's rate; the default of their script's saver is 9;
- by default the negative prompt is that of their adapter class, not the longer one of their script;
- their script averages the tokens of several photos to mix people; for one person it takes one photo, as here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from magicid_cli import hub
from magicid_cli.baselines import untrained
from magicid_cli.baselines.registry import METHODS
from magicid_cli.config import Settings, parse_size
from magicid_cli.events import Events
from magicid_cli.models.base import Shape
from magicid_cli.models.catalog import METHOD_WEIGHTS
from magicid_cli.plan import Row
from magicid_cli.workspace import Workspace

if TYPE_CHECKING:
    from magicid_cli.generation import Asked, Made

NAME = "id-animator"
CHECKPOINT = "animator.ckpt"
# 2.2 billion values of 16 bits, and about as much again for the two branches of guidance at 16 frames of 512x512.
_MEMORY_GB = 10.0


def plan_rows(settings: Settings) -> list[Row]:
    """What the videos take; nobody has published how long one takes on which GPU."""
    wanted, count = settings.id_animator, settings.generate.count
    note = f"{count} video{'' if count == 1 else 's'} of {wanted.size}, {wanted.frames} frames, {wanted.steps} steps"
    width, height = parse_size(wanted.size)
    shape = Shape(wanted.frames, height, width)
    return [Row("generate", count, None, "unknown", _MEMORY_GB, note, shape=shape)]


def require(workspace: Workspace, settings: Settings) -> None:
    """Refuse before anything takes long; see `untrained.require`."""
    untrained.require(workspace, METHODS[NAME], settings)


def generate(
    workspace: Workspace,
    settings: Settings,
    wanted: "Sequence[Asked]",
    *,
    output: Path | None,
    force: bool,
    events: Events,
) -> "list[Made]":
    """Make videos of the identity; see `untrained.generate`."""
    method, own = METHODS[NAME], settings.id_animator

    def open_maker(task: untrained.Task) -> untrained.Maker:
        from magicid_cli.models.loading import silence_libraries

        silence_libraries()  # before diffusers says what it misses
        from magicid_cli.baselines.id_animator.pipeline import Animator

        space = hub.settled(METHOD_WEIGHTS[NAME][0].source, task.commits)
        first = hub.state(space, [CHECKPOINT]) != "cached"
        folders = untrained.fetch(method, settings, events, task.commits)
        content = untrained.content(folders[0] / CHECKPOINT, f"{CHECKPOINT} of ID-Animator", events, first=first)
        return Animator(folders, own, task.photo, task.place, events, content)

    return untrained.generate(
        workspace, settings, wanted, method, own, open_maker, output=output, force=force, events=events
    )
