"""`magicid score`: an identity's repository scored (again), and what the judges say of it."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.errors import MagicIDError
from magicid_cli.repeating import customize
from magicid_cli.rounds import FIRST, named

if TYPE_CHECKING:
    from magicid_cli.workspace import Workspace


class Reward(StrEnum):
    """The rewards, as words that an option takes."""

    IDENTITY = "identity"
    DYNAMICS = "dynamics"
    SEMANTICS = "semantics"


REWARDS = tuple(map(str, Reward))
_ORIGINS = ("static", "initial", "tuned")
# Raw values beside the rewards: the first bias guard, whether likeness fades, whose motion it is, an answer's worth.
_BESIDE = ("relative", "first_half", "second_half", "camera", "subject", "mass")
_SHOWN = ("identity", "relative", "face_found", "dynamics", "subject", "semantics")
Again = Annotated[
    list[Reward] | None,
    typer.Option("--again", metavar="REWARD", help="Make this reward's scores again; may be given several times"),
]
Videos = Annotated[bool, typer.Option("--videos", help="A row for every video instead of one for every origin")]


@options.command(
    *("rewards.flow", "rewards.vlm", "rewards.sampled_frames", "model.device", "model.offline"), recorded=True
)
def score(
    terminal: Terminal,
    flags: options.Flags,
    name: options.SomeIdentity = None,
    again: Again = None,
    videos: Videos = False,
    number: options.Round = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
) -> Result:
    """Score an identity's repository where it has no scores yet, and show what the judges say of it.

    What no flag says is as in the identity's last `customize`. Only scores that a change concerns are made again. The
    adapter stays as it is until `customize` selects pairs from the new scores. Another face recogniser has to see the
    photos, too: that is `customize --face-model`. Each round of `customize --rounds` has a repository of its own.
    """
    from magicid_cli.cli.identity import as_round, choose, recorded_settings, require_free, stage_states

    workspace = choose(name)
    states = stage_states(workspace.manifest())
    workspace = as_round(workspace, number, states, "sample")
    if states.get(named("sample", workspace.number)) != "done":
        raise no_videos(workspace)
    require_free(workspace)
    which = [] if number is None else ["--round", str(number)]
    settings = recorded_settings(workspace, flags.values)
    from magicid_cli import pipeline, plan
    from magicid_cli.cli import estimate
    from magicid_cli.workspace import read_lines

    statics = sum(row["origin"] == "static" for row in read_lines(workspace.repository / "videos.jsonl"))
    judging = pipeline.to_judge(workspace, settings, again or ())
    estimated = plan.for_run(settings, photos=statics, todo={"score"}, home=workspace.path, judging=judging)
    problem = next(map(_for_judges, plan.check(estimated)), None)
    if dry_run:
        judged = f"To judge: {', '.join(judging.rewards) or 'nothing'}."
        data = {**estimated.as_dict(), "judging": asdict(judging)}
        return Result(data, [*estimate.blocks(estimated, at_most=judging.at_most), judged], ["score"], error=problem)
    if problem:
        raise problem
    estimate.approve(terminal, estimated, yes=yes)
    if again:
        command = shlex.join(["magicid", "score", workspace.name, *which])
        terminal.say(f"Scores of {', '.join(again)} are made again; `{command}` goes on if this is interrupted.")
    worked = pipeline.score(workspace, settings, terminal.events, again=tuple(map(str, again or ())))
    data = summary(workspace)
    if data["doubt"] and not worked:  # else it was told by the work
        terminal.say(data["doubt"])
    table = _by_video(data["videos"]) if videos else _by_origin(data["origins"])
    judges = "\n".join(f"{reward} by {judge}" for reward, judge in data["judges"].items())
    later = (
        [] if workspace.number == FIRST else [f"Round {workspace.number}; `tuned` are of round {workspace.number - 1}."]
    )
    blocks: list[str | Table] = [*later, table, judges]
    if data["set_aside"]:
        blocks.append(Table(("SET ASIDE", "WHY"), [(row["clip"], row["why"]) for row in data["set_aside"]]))
    following = f"Pairs that follow: {shlex.join(['magicid', 'pairs', workspace.name, *which])}"
    hint = following if worked else f"Nothing had to be scored. {following}"
    return Result({"name": workspace.name, "round": workspace.number, **data}, blocks, [workspace.scores], hint=hint)


def summary(workspace: "Workspace") -> dict[str, Any]:
    """What `scores.jsonl` says: raw rewards of every video; mean, smallest and largest by origin; who judged.

    Beside the three rewards: `relative`, identity in units of how alike the photos are; the shares of frames with a
    face and both halves' likeness; how much the camera and the subject move; `mass`, with which probability the judge
    answered with a number at all.
    """
    from magicid_cli.stages.score import misunderstood
    from magicid_cli.workspace import read_lines

    records = {row["id"]: row for row in read_lines(workspace.repository / "videos.jsonl")}
    found: dict[str, dict[str, Any]] = {}
    judges: dict[str, str] = {}
    scores = [row for row in read_lines(workspace.scores) if row["id"] in records]
    for row in scores:
        judges[row["reward"]] = row["made_by"]
        video = found.setdefault(row["id"], {"id": row["id"], "origin": records[row["id"]]["origin"]})
        video[row["reward"]] = row["value"]
        video |= {name: row["raw"][name] for name in _BESIDE if name in row["raw"]}
        if "found" in row["raw"]:
            video["face_found"] = row["raw"]["found"]
    rows = sorted(found.values(), key=lambda video: (_ORIGINS.index(video["origin"]), video["id"]))
    origins = [
        {"reward": reward, "origin": origin, **_figures(values)}
        for reward in (*REWARDS, "face_found", *_BESIDE)
        for origin in _ORIGINS
        if (values := [video[reward] for video in rows if video["origin"] == origin and video.get(reward) is not None])
    ]
    aside = read_lines(workspace.set_aside)
    doubt = misunderstood(scores)
    return {"videos": rows, "origins": origins, "judges": judges, "set_aside": aside, "doubt": doubt}


def no_videos(workspace: "Workspace") -> MagicIDError:
    """The error of an identity whose repository is not sampled, or that of a later round."""
    which = "" if workspace.number == FIRST else f" of round {workspace.number}"
    return MagicIDError(
        "scores-missing",
        f"'{workspace.name}' has no scores{which}: its preference repository is not sampled, or not to the end.",
        f"Sample and score it: {customize(workspace)}",
    )


def _for_judges(problem: MagicIDError) -> MagicIDError:
    """What the machine lacks, with what can be done about it here: the video model is not needed."""
    if problem.code == "disk-space":
        return problem
    return MagicIDError(
        problem.code, problem.message, "Judge on the CPU (--device cpu), or by a smaller model (--vlm)."
    )


def _figures(values: Sequence[float]) -> dict[str, float]:
    return {"videos": len(values), "mean": fmean(values), "min": min(values), "max": max(values)}


def _by_origin(origins: Sequence[dict[str, Any]]) -> Table:
    return Table(
        ("REWARD", "ORIGIN", "VIDEOS", "MEAN", "MIN", "MAX"),
        [
            (
                row["reward"].replace("_", " "),
                row["origin"],
                row["videos"],
                *(_raw(row[k]) for k in ("mean", "min", "max")),
            )
            for name in _SHOWN
            for row in origins
            if row["reward"] == name
        ],
    )


def _by_video(videos: Sequence[dict[str, Any]]) -> Table:
    return Table(
        ("VIDEO", "ORIGIN", "IDENTITY", "RELATIVE", "FACE", "DYNAMICS", "SUBJECT", "SEMANTICS"),
        [(row["id"], row["origin"], *(_raw(row.get(name)) for name in _SHOWN)) for row in videos],
    )


def _raw(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
