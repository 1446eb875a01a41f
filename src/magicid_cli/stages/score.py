"""Every video × every reward.

The judges are loaded one after another. A score is an independent work item with its own line in `scores.jsonl`; it
is kept as long as the video and the judge that made it are the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from magicid_cli import conditioning, models, video
from magicid_cli.config import Settings
from magicid_cli.events import Events
from magicid_cli.faces import open_faces
from magicid_cli.models.catalog import video_model
from magicid_cli.rewards.base import Clip, Reward
from magicid_cli.rewards.dynamics import DynamicsReward
from magicid_cli.rewards.identity import IdentityReward
from magicid_cli.rewards.semantics import judge_name, open_judge
from magicid_cli.workspace import Workspace, append_line, digest, file_digest, read_lines, write_lines

NAME = "score"
TITLE = "Rewards"
FORMAT = 1
READS = (
    "model.name",
    "rewards",
    "shape.fps",
)


@dataclass(frozen=True)
class ScoreResult:
    """How many scores there are, how many were made now, and who judges."""

    scores: int
    made: int
    judges: dict[str, str]


def inputs(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Content of the repository's records and of the reference embeddings."""
    return {
        "videos": [row["key"] for row in read_lines(workspace.repository / "videos.jsonl")],
        "references": file_digest(workspace.references / "embeddings.safetensors"),
    }


def outputs(workspace: Workspace) -> dict[str, str]:
    """Content of the scores."""
    return {"scores": file_digest(workspace.scores)} if workspace.scores.is_file() else {}


def check(settings: Settings) -> None:
    """Refuse what could only fail after hours of sampling.

    Raises:
        MagicIDError: `settings-unknown` for a judge that does not exist, `raft-missing`.
    """
    judge_name(settings.rewards, video_model(settings.model.name))
    DynamicsReward(settings.rewards.flow)


def prepare(settings: Settings, events: Events) -> None:
    """Bring in what the stage needs from outside, before any stage starts."""
    model, offline = video_model(settings.model.name), settings.model.offline
    open_faces(settings.rewards, model, offline=offline, events=events)
    open_judge(settings.rewards, model, device=models.device_for(settings.model), offline=offline, events=events)


def run(workspace: Workspace, settings: Settings, events: Events) -> ScoreResult:
    """Score what has no score yet.

    Raises:
        MagicIDError: a judge's weights are missing, or a clip cannot be read.
    """
    videos = read_lines(workspace.repository / "videos.jsonl")
    references = file_digest(workspace.references / "embeddings.safetensors")
    known = {row["key"]: row for row in read_lines(workspace.scores)}
    kept: list[dict[str, Any]] = []
    made, judges = 0, {}
    total = 3 * len(videos)
    for reward in judges_of(workspace, settings, events):
        judges[reward.name] = reward.made_by
        against = references if reward.name == "identity" else None
        shown = settings.rewards.sampled_frames if reward.name == "semantics" else None
        for row in videos:
            key = digest([FORMAT, row["key"], reward.name, reward.made_by, against, shown])
            if key not in known:
                frames, _ = video.read_video(workspace.repository / row["clip"])
                raw = reward.score(Clip(frames, settings.shape.fps, row["prompt"]))
                known[key] = {
                    "id": row["id"],
                    "reward": reward.name,
                    "value": raw["value"],
                    "raw": raw,
                    "made_by": reward.made_by,
                    "key": key,
                }
                append_line(workspace.scores, known[key])
                made += 1
            kept.append({**known[key], "id": row["id"]})  # equal clips of two videos have one score
            events.emit("step", stage=NAME, part=reward.name, step=len(kept), of=total, value=known[key]["value"])
    write_lines(workspace.scores, kept)
    return ScoreResult(len(kept), made, judges)


def judges_of(workspace: Workspace, settings: Settings, events: Events) -> Iterator[Reward]:
    """The three rewards, one in memory at a time."""
    model = video_model(settings.model.name)
    faces = open_faces(settings.rewards, model, offline=settings.model.offline, events=events)
    references = conditioning.load_tensors(workspace.references / "embeddings.safetensors")["embeddings"].numpy()
    yield IdentityReward(faces, references)
    yield DynamicsReward(settings.rewards.flow)
    judge = open_judge(
        settings.rewards,
        model,
        device=models.device_for(settings.model),
        offline=settings.model.offline,
        events=events,
    )
    yield judge
    judge.close()
