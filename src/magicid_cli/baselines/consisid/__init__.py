"""ConsisID (arXiv 2411.17440): a video model with a face in its attention, from CogVideoX-5B; nothing is trained.

Here with diffusers' `ConsisIDPipeline` and the values of its authors' example: 49 frames of 720x480, 50 steps,
guidance 6, no dynamic guidance. The preparation of the face (InsightFace, facexlib, EVA-CLIP) needs packages that do
not get on with magicid's, and the prompt's tokenizer is a SentencePiece model: both run in an environment of their own
(`magicid baseline install consisid`), asked through files (`exchange.py`).

What could not be confirmed: the commit of the weights (the one that `main` means is recorded), the exact names of all
files in its `face_encoder/` (the folder is fetched as a whole), and the preparation with the real packages and weights,
which no test can run. The authors say that long, detailed prompts do better; prompts are given as they are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from magicid_cli.baselines import environments, untrained
from magicid_cli.baselines.registry import METHODS
from magicid_cli.config import Settings, parse_size
from magicid_cli.events import Events
from magicid_cli.models.base import Shape
from magicid_cli.plan import Row
from magicid_cli.workspace import Workspace

if TYPE_CHECKING:
    from magicid_cli.generation import Asked, Made

NAME = "consisid"
# What its authors measured with one part on the GPU at a time (README of PKU-YuanGroup/ConsisID): 25 GB reserved.
_MEMORY_GB = 25.0


def plan_rows(settings: Settings) -> list[Row]:
    """What the videos take; nobody has published how long one takes on which GPU."""
    wanted, count = settings.consisid, settings.generate.count
    note = f"{count} video{'' if count == 1 else 's'} of {wanted.size}, {wanted.frames} frames, {wanted.steps} steps"
    if not environments.is_ready(NAME):
        note += "; needs: magicid baseline install consisid"
    width, height = parse_size(wanted.size)
    shape = Shape(wanted.frames, height, width)
    return [Row("generate", count, None, "unknown", _MEMORY_GB, note, shape=shape)]


def require(workspace: Workspace, settings: Settings) -> None:
    """Refuse before anything takes long; see `untrained.require`.

    Raises:
        MagicIDError: also `baseline-missing` without the other environment.
    """
    environments.python_of(NAME)
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
    """Make videos of the identity; see `untrained.generate`.

    Raises:
        MagicIDError: `baseline-missing` without the other environment, before anything is fetched; `baseline-failed`.
    """
    method = METHODS[NAME]
    require(workspace, settings)

    def open_maker(task: untrained.Task) -> untrained.Maker:
        (folder,) = untrained.fetch(method, settings, events, task.commits)
        from magicid_cli.models.loading import silence_libraries

        silence_libraries()  # before diffusers says what it misses
        from magicid_cli.baselines.consisid.pipeline import ConsisId

        return ConsisId(folder, settings.consisid, task, workspace.path / "exchange", events)

    return untrained.generate(
        workspace, settings, wanted, method, settings.consisid, open_maker, output=output, force=force, events=events
    )
