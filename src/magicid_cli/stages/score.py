"""Every video × every reward, as a job that can be stopped anywhere and changed in parts.

A score is an independent work item with its own line in `scores.jsonl`, named after the content of the clip, the judge
and what that judge reads besides: change one of them, and exactly the scores that read it are made again. A judge who
has nothing to do is neither fetched nor loaded, and what earlier judges said is kept (`scorebook.py`). Identity and
dynamics share one decoded clip and work on it side by side; the judge of prompt following, which may fill a GPU, comes
after them and sees every clip once more. A clip that is damaged, or not the one that was sampled, is set aside with
its reason (`set-aside.jsonl`): it is never scored as zero, and no pair is made of it.
"""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from statistics import median
from typing import Any, cast

from magicid_cli import conditioning, models
from magicid_cli.alignment import one_thread_each
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.faces import open_faces, signatures
from magicid_cli.models.catalog import JUDGES, video_model
from magicid_cli.plan import Judging
from magicid_cli.recordings import UnusableError, Video, frames_of, recorded, strangers
from magicid_cli.rewards import dynamics, flow, identity
from magicid_cli.rewards.base import BatchedReward, Clip, Reward
from magicid_cli.rewards.dynamics import DynamicsReward
from magicid_cli.rewards.identity import IdentityReward
from magicid_cli.rewards.semantics import judge_made_by, judge_name, open_judge
from magicid_cli.scorebook import Scorebook, flow_of, give_up
from magicid_cli.workspace import Workspace, digest, file_digest, write_lines

NAME = "score"
TITLE = "Rewards"
FORMAT = 2
READS = (
    "model.name",
    "rewards.face_detector",
    "rewards.face_model",
    "rewards.flow",
    "rewards.vlm",
    "shape",
)
REWARDS = ("identity", "dynamics", "semantics")
UNDERSTOOD = 0.5
"""Least probability, at the median, with which a judge must answer with a number at all."""
_NAMED = 5  # videos named in one message; all are in set-aside.jsonl


@dataclass(frozen=True)
class ScoreResult:
    """How many scores there are, how many were made now, how many videos are set aside, and who judges."""

    scores: int
    made: int
    set_aside: int
    judges: dict[str, str]


@dataclass
class Job:
    """The scores on disk and what is known about the videos.

    Attributes:
        workspace: of the identity.
        settings: of the run.
        references: content of the photos' embeddings.
        videos: those that are recorded and not set aside.
        scores: those on disk.
        set_aside: rows of `set-aside.jsonl` by the video's name.
        made: scores that were made now.
    """

    workspace: Workspace
    settings: Settings
    references: str
    videos: list[Video]
    scores: Scorebook
    set_aside: dict[str, dict[str, Any]] = field(default_factory=dict)
    made: int = 0

    def key(self, reward: str, made_by: str, one: Video) -> str:
        """Digest of everything that determines a judge's score of a video."""
        reads: dict[str, list[Any]] = {
            "identity": [self.references],
            "dynamics": [self.settings.shape.fps],
            # How many frames a judge is shown is in `made_by` where it can be chosen.
            "semantics": [self.settings.shape.fps, one.prompt],
        }
        return digest([FORMAT, reward, made_by, one.content, *reads[reward]])

    def unscored(self, reward: str, made_by: str | None) -> list[Video]:
        """The videos that this judge has not scored as they are; all of them, if it is not known who it is."""
        return [one for one in self.videos if made_by is None or self.scores.lacks(self.key(reward, made_by, one))]

    def missing(self, judges: Sequence[Reward], one: Video) -> list[Reward]:
        """The judges that have not scored this video as it is."""
        return [judge for judge in judges if self.scores.lacks(self.key(judge.name, judge.made_by, one))]

    def keep(self, judge: Reward, one: Video, raw: dict[str, Any]) -> None:
        """Put a score on disk, safe from power loss."""
        row = {"id": one.id, "reward": judge.name, "value": raw["value"], "raw": raw, "made_by": judge.made_by}
        self.scores.keep({**row, "key": self.key(judge.name, judge.made_by, one), "content": one.content})
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
    """Content of the scores, of the list of videos without, and of the wish to have some made again."""
    files = (workspace.scores, workspace.set_aside, workspace.score_again)
    return {path.name: file_digest(path) for path in files if path.is_file()}


def reads(settings: Settings) -> tuple[str, ...]:
    """`READS`, and how many frames are shown where the judge of prompt following can be shown more or fewer."""
    judge = judge_name(settings.rewards, video_model(settings.model.name))
    return (*READS, "rewards.sampled_frames") if judge in JUDGES else READS


def check(settings: Settings) -> None:
    """Refuse what could only fail after hours of sampling.

    Raises:
        MagicIDError: `settings-unknown` for a judge that does not exist, `raft-missing`.
    """
    judge_name(settings.rewards, video_model(settings.model.name))
    flow.require(settings.rewards.flow)


def prepare(settings: Settings, events: Events, rewards: Collection[str] = REWARDS) -> None:
    """Bring in what the judges of these rewards need from outside, before any stage starts."""
    model, offline = video_model(settings.model.name), settings.model.offline
    if "identity" in rewards:
        open_faces(settings.rewards, model, offline=offline, events=events)
    if "dynamics" in rewards:
        flow.require(settings.rewards.flow)
    if "semantics" in rewards:
        open_judge(settings.rewards, model, device=_device(settings), offline=offline, events=events)


def to_do(workspace: Workspace, settings: Settings, again: Collection[str] = ()) -> Judging:
    """What is left to be judged; nothing is fetched, loaded or written.

    Args:
        workspace: of the identity, its videos sampled.
        settings: of the judges.
        again: rewards to be made again whatever is there.

    Raises:
        MagicIDError: `settings-unknown` for a judge that does not exist.
    """
    job, judges = _job(workspace, settings), made_by(workspace, settings)
    job.videos = [one for one in job.videos if one.whole]
    left = {reward: job.videos if reward in again else job.unscored(reward, judges[reward]) for reward in REWARDS}
    names = {reward: {one.id for one in left[reward]} for reward in REWARDS}
    clips = set[str]().union(*names.values())
    return Judging(len(clips), tuple(reward for reward in REWARDS if names[reward]), None not in judges.values())


def make_again(workspace: Workspace, settings: Settings, rewards: Collection[str]) -> None:
    """Have the present judges' scores of some rewards made again; each stays until the new one takes its place.

    Where an earlier wish for the same is not fulfilled yet, that one goes on.
    """
    job, judges = _job(workspace, settings), made_by(workspace, settings)
    for reward in rewards:
        judge = judges[reward]
        if judge is not None:  # else nobody scored anything that would count
            job.scores.make_again([job.key(reward, judge, one) for one in job.videos])


def leave(workspace: Workspace) -> None:
    """Let scores hold that were to be made again: the judge cannot work."""
    give_up(workspace)


def made_by(workspace: Workspace, settings: Settings) -> dict[str, str | None]:
    """Who judges, by reward, without fetching or loading anything; None where a fetch would have to tell."""
    rewards, model = settings.rewards, video_model(settings.model.name)
    faces = signatures(rewards, model)
    return {
        "identity": None if faces is None else identity.made_by(*faces),
        "dynamics": dynamics.made_by(flow_of(workspace, settings).name),
        "semantics": judge_made_by(rewards, model, device=_device(settings, here=False)),
    }


def _device(settings: Settings, *, here: bool = True) -> str:
    """Where the judge of prompt following works: those that come with magicid need no GPU.

    Args:
        settings: of the run.
        here: it will work on this machine. If not, it may be the GPU that this machine lacks.

    Raises:
        MagicIDError: `gpu-missing`, if it is to work here.
    """
    if judge_name(settings.rewards, video_model(settings.model.name)) not in JUDGES:
        return "cpu"
    try:
        return models.device_for(settings.model)
    except MagicIDError:
        if here:
            raise
        return "cuda"


def _job(workspace: Workspace, settings: Settings) -> Job:
    references = file_digest(workspace.references / "embeddings.safetensors")
    return Job(workspace, settings, references, recorded(workspace), Scorebook(workspace))


def run(workspace: Workspace, settings: Settings, events: Events) -> ScoreResult:
    """Score what has no score yet.

    Raises:
        MagicIDError: a judge's weights are missing; `videos-unusable` if no video can be scored.
    """
    job = _job(workspace, settings)
    for one in [one for one in job.videos if not one.whole]:
        _clip(job, one)  # finds out what is wrong with it
    known = made_by(workspace, settings)
    needed = [reward for reward in REWARDS if job.unscored(reward, known[reward])]
    judges = {reward: name for reward, name in known.items() if name is not None}
    with one_thread_each():
        for together in passes(workspace, settings, events, needed):
            judges |= {judge.name: judge.made_by for judge in together}
            score(job, together, events)
    write_lines(workspace.set_aside, job.set_aside.values())
    _tell(job, events)
    # Equal clips of two videos have one score.
    rows = [
        {**job.scores.rows[job.key(reward, judges[reward], one)], "id": one.id, "content": one.content}
        for reward in REWARDS
        for one in job.videos
    ]
    job.scores.settle(rows, {one.content for one in job.videos})
    doubt = misunderstood(rows)
    if doubt:
        events.notice(doubt, stage=NAME)
    return ScoreResult(len(rows), job.made, len(job.set_aside), judges)


def passes(
    workspace: Workspace, settings: Settings, events: Events, needed: Collection[str] = REWARDS
) -> Iterator[list[Reward]]:
    """Judges that look at a clip together; what one group needs in memory is gone before the next one comes.

    Args:
        workspace: of the identity.
        settings: of the judges.
        events: hears of downloads.
        needed: the rewards whose judges have something to do; no other judge is opened.
    """
    model, offline = video_model(settings.model.name), settings.model.offline
    together: list[Reward] = []
    if "identity" in needed:
        faces = open_faces(settings.rewards, model, offline=offline, events=events)
        references = conditioning.load_tensors(workspace.references / "embeddings.safetensors")["embeddings"].numpy()
        together.append(IdentityReward(faces, references))
    if "dynamics" in needed:
        together.append(DynamicsReward(chosen_flow(workspace, settings, events), settings.model.device))
    if together:
        yield together
    if "semantics" not in needed:
        return
    judge = open_judge(settings.rewards, model, device=_device(settings), offline=offline, events=events)
    try:
        yield [judge]
    finally:
        judge.close()


def chosen_flow(workspace: Workspace, settings: Settings, events: Events) -> str:
    """The name of the optical flow to measure with; what `auto` means is told."""
    choice = flow_of(workspace, settings)
    if settings.rewards.flow == flow.AUTO:
        events.notice(f"Motion is measured by {choice}. `magicid doctor` says more.", stage=NAME)
    return choice.name


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
    try:
        frames = frames_of(one, job.settings.shape)
    except UnusableError as error:
        job.put_aside(one, str(error))
        return None
    return Clip(frames, job.settings.shape.fps, one.prompt)


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


def misunderstood(rows: Sequence[dict[str, Any]]) -> str | None:
    """What to tell if the judge of prompt following seldom answers with a number: its values are little worth then.

    Args:
        rows: scores; judges that are asked no question have no `mass`.
    """
    found = [row["raw"]["mass"] for row in rows if "mass" in row["raw"]]
    if not found or median(found) >= UNDERSTOOD:
        return None
    return (
        f"The judge of prompt following answers with a number from 1 to 10 with a probability of {median(found):.2f} "
        f"only (median of {len(found)} videos): it may not have understood the question. Another one: --vlm."
    )
