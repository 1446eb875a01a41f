"""Every video × every reward, as a job that can be stopped anywhere and changed in parts.

A score is an independent work item with its own line in `scores.jsonl`, named after the content of the clip, the judge
and what that judge reads besides: change one of them, and exactly the scores that read it are made again. Identity and
dynamics share one decoded clip and work on it side by side; the judge of prompt following, which may fill a GPU, comes
after them and sees every clip once more. A clip that is damaged, or not the one that was sampled, is set aside with
its reason (`set-aside.jsonl`): it is never scored as zero, and no pair is made of it.
"""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from magicid_cli import conditioning, models, video
from magicid_cli.alignment import one_thread_each
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.faces import open_faces
from magicid_cli.models.catalog import video_model
from magicid_cli.rewards.base import BatchedReward, Clip, Reward
from magicid_cli.rewards.dynamics import DynamicsReward
from magicid_cli.rewards.identity import IdentityReward
from magicid_cli.rewards.semantics import judge_name, open_judge
from magicid_cli.workspace import Workspace, append_line, digest, file_digest, read_lines, write_lines

NAME = "score"
TITLE = "Rewards"
FORMAT = 2
READS = (
    "model.name",
    "rewards",
    "shape",
)
_NAMED = 5  # videos named in one message; all are in set-aside.jsonl


@dataclass(frozen=True)
class ScoreResult:
    """How many scores there are, how many were made now, how many videos are set aside, and who judges."""

    scores: int
    made: int
    set_aside: int
    judges: dict[str, str]


@dataclass(frozen=True)
class Video:
    """A recorded video as scoring sees it.

    Attributes:
        id: its name.
        prompt: what it should show.
        clip: the file.
        content: SHA-256 of the file, empty if there is none.
        sampled: SHA-256 of the file that was sampled, None where the record does not say.
    """

    id: str
    prompt: str
    clip: Path
    content: str
    sampled: str | None


@dataclass
class Job:
    """The scores on disk and what is known about the videos.

    Attributes:
        workspace: of the identity.
        settings: of the run.
        references: content of the photos' embeddings.
        videos: those that are recorded and not set aside.
        scores: rows of `scores.jsonl` by their key.
        set_aside: rows of `set-aside.jsonl` by the video's name.
        made: scores that were made now.
    """

    workspace: Workspace
    settings: Settings
    references: str
    videos: list[Video]
    scores: dict[str, dict[str, Any]]
    set_aside: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: int = 0

    def key(self, judge: Reward, one: Video) -> str:
        """Digest of everything that determines this judge's score of a video."""
        reads: dict[str, list[Any]] = {
            "identity": [self.references],
            "dynamics": [self.settings.shape.fps],
            "semantics": [self.settings.shape.fps, one.prompt, self.settings.rewards.sampled_frames],
        }
        return digest([FORMAT, judge.name, judge.made_by, one.content, *reads[judge.name]])

    def missing(self, judges: Sequence[Reward], one: Video) -> list[Reward]:
        """The judges that have not scored this video as it is."""
        return [judge for judge in judges if self.key(judge, one) not in self.scores]

    def keep(self, judge: Reward, one: Video, raw: dict[str, Any]) -> None:
        """Put a score on disk, safe from power loss."""
        key = self.key(judge, one)
        row = {"id": one.id, "reward": judge.name, "value": raw["value"], "raw": raw}
        self.scores[key] = {**row, "made_by": judge.made_by, "key": key}
        append_line(self.workspace.scores, self.scores[key])
        self.made += 1

    def put_aside(self, one: Video, why: str) -> None:
        """Take a video out of this run."""
        self.videos.remove(one)
        self.set_aside[one.id] = {"id": one.id, "clip": f"clips/{one.clip.name}", "why": why}


def inputs(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Content of the clips and of the references, and what is recorded of each clip."""
    return {
        "videos": [[one.id, one.prompt, one.content, one.sampled] for one in recorded(workspace)],
        "strangers": strangers(workspace),
        "references": file_digest(workspace.references / "embeddings.safetensors"),
    }


def outputs(workspace: Workspace) -> dict[str, str]:
    """Content of the scores, and of the list of videos without."""
    files = (workspace.scores, workspace.set_aside)
    return {path.name: file_digest(path) for path in files if path.is_file()}


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
        MagicIDError: a judge's weights are missing; `videos-unusable` if no video can be scored.
    """
    references = file_digest(workspace.references / "embeddings.safetensors")
    known = {row["key"]: row for row in read_lines(workspace.scores)}
    job = Job(workspace, settings, references, recorded(workspace), known)
    judges: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for one in [one for one in job.videos if one.sampled not in (None, one.content) or not one.content]:
        _clip(job, one)  # finds out what is wrong with it
    with one_thread_each():
        for together in passes(workspace, settings, events):
            score(job, together, events)
            for judge in together:
                judges[judge.name] = judge.made_by
                # Equal clips of two videos have one score.
                rows += [{**job.scores[job.key(judge, one)], "id": one.id} for one in job.videos]
    write_lines(workspace.set_aside, job.set_aside.values())
    _tell(job, events)
    rows = [row for row in rows if row["id"] not in job.set_aside]
    write_lines(workspace.scores, rows)
    return ScoreResult(len(rows), job.made, len(job.set_aside), judges)


def passes(workspace: Workspace, settings: Settings, events: Events) -> Iterator[list[Reward]]:
    """Judges that look at a clip together; what one group needs in memory is gone before the next one comes."""
    model, offline = video_model(settings.model.name), settings.model.offline
    faces = open_faces(settings.rewards, model, offline=offline, events=events)
    references = conditioning.load_tensors(workspace.references / "embeddings.safetensors")["embeddings"].numpy()
    yield [IdentityReward(faces, references), DynamicsReward(settings.rewards.flow)]
    device = models.device_for(settings.model)
    judge = open_judge(settings.rewards, model, device=device, offline=offline, events=events)
    try:
        yield [judge]
    finally:
        judge.close()


def score(job: Job, judges: list[Reward], events: Events) -> None:
    """Let some judges score what they have not scored yet, each clip decoded once for all of them."""
    todo = [one for one in job.videos if job.missing(judges, one)]
    at_once = getattr(judges[0], "at_once", 1)
    part = " and ".join(judge.name for judge in judges)
    for start in range(0, len(todo), at_once):
        group = todo[start : start + at_once]
        _look(job, judges, group)
        events.emit("step", stage=NAME, part=part, step=start + len(group), of=len(todo))


def _look(job: Job, judges: list[Reward], group: list[Video]) -> None:
    """Decode some videos and have them judged; their frames are gone when this returns."""
    # Of two equal clips the second one may have its score by now.
    clips = [(one, clip) for one in group if job.missing(judges, one) and (clip := _clip(job, one)) is not None]
    if len(clips) > 1:
        _together(job, cast(BatchedReward, judges[0]), clips)
    elif clips:
        _side_by_side(job, judges, *clips[0])


def _side_by_side(job: Job, judges: list[Reward], one: Video, clip: Clip) -> None:
    """Several judges look at one clip, a thread each: OpenCV and torch release the interpreter while they compute."""
    with ThreadPoolExecutor(len(judges)) as pool:
        running = {pool.submit(judge.score, clip): judge for judge in job.missing(judges, one)}
        for done in as_completed(running):
            job.keep(running[done], one, done.result())


def _together(job: Job, judge: BatchedReward, clips: list[tuple[Video, Clip]]) -> None:
    """One judge looks at several clips."""
    for (one, _), raw in zip(clips, judge.score_many([clip for _, clip in clips]), strict=True):
        job.keep(judge, one, raw)


def _clip(job: Job, one: Video) -> Clip | None:
    """A clip in memory, or None if it is no clip of this repository and was set aside."""
    shape, fps = job.settings.shape, job.settings.shape.fps
    try:
        if one.content and not one.clip.stat().st_size:
            raise _Unusable("the file is empty")
        frames, _ = video.read_video(one.clip)
        if frames.shape[:3] != (shape.frames, shape.height, shape.width):
            count, height, width = frames.shape[:3]
            raise _Unusable(
                f"it has {count} frames of {width}x{height}, not {shape.frames} of {shape.width}x{shape.height}"
            )
        if one.sampled not in (None, one.content):
            raise _Unusable("it is another video than the one that was sampled")
    except MagicIDError as error:
        if error.code != "video-unreadable":
            raise
        job.put_aside(one, error.message.rstrip("."))
    except _Unusable as error:
        job.put_aside(one, str(error))
    else:
        return Clip(frames, fps, one.prompt)
    return None


class _Unusable(Exception):
    """Why a file that can be read is no clip of the repository."""


def _tell(job: Job, events: Events) -> None:
    """Name what has no scores, and what brings it back.

    Raises:
        MagicIDError: `videos-unusable` if nothing is left.
    """
    aside = [f"{row['clip']} ({row['why']})" for row in job.set_aside.values()]
    named = "; ".join([*aside[:_NAMED], *([f"and {len(aside) - _NAMED} more"] if len(aside) > _NAMED else [])])
    again = "the same `magicid customize` command makes such a clip again"
    if not job.videos:
        raise MagicIDError(
            "videos-unusable",
            f"No video of the repository can be scored: {named or 'there is none'}.",
            f"Nothing of them was counted as zero; {again}.",
        )
    if aside:
        events.notice(f"Set aside, without scores and in no pair: {named}. To bring them back: {again}.", stage=NAME)
    foreign = strangers(job.workspace)
    if foreign:
        more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
        events.notice(f"Not scored, because no record names it: {', '.join(foreign[:_NAMED])}{more}.", stage=NAME)


def recorded(workspace: Workspace) -> list[Video]:
    """The videos that are recorded, with the content of their files as they are now."""
    found = []
    for row in read_lines(workspace.repository / "videos.jsonl"):
        clip = workspace.repository / row["clip"]
        content = file_digest(clip) if clip.is_file() else ""
        found.append(Video(row["id"], row["prompt"], clip, content, row.get("clip_sha256")))
    return found


def strangers(workspace: Workspace) -> list[str]:
    """Files among the clips that no record names, as paths inside the repository."""
    names = {row["clip"] for row in read_lines(workspace.repository / "videos.jsonl")}
    files = (f"clips/{path.name}" for path in (workspace.repository / "clips").glob("[!.]*"))
    return sorted(set(files) - names)


def forget(workspace: Workspace, rewards: Collection[str]) -> int:
    """Drop the scores of some rewards, so that they are made again; returns how many there were."""
    rows = read_lines(workspace.scores)
    kept = [row for row in rows if row["reward"] not in rewards]
    if len(kept) < len(rows):
        write_lines(workspace.scores, kept)
    return len(rows) - len(kept)
