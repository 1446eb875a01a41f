"""The repository: every video where it stands among the others, and the pairs that were made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicid_cli.config import Settings
from magicid_cli.pages.charts import Chart, scatter
from magicid_cli.workspace import Workspace, read_json, read_lines

REASONS = {
    "candidates": "possible pairs",
    "voted": "people have voted on it",
    "identity_not_higher": "the winner is not more alike",
    "over_tau": "the winner gives up more motion than tau",
    "not_on_front": "not on the frontiers of their prompt",
    "not_dominating": "the winner is not better in everything",
    "no_more_motion": "the winner does not move more",
    "no_motion_gap": "the winner does not move more",
    "identity_lost": "the winner loses more identity than is tolerated",
    "static_cap": "the photo's clip is in enough pairs",
    "rejected_cap": "the rejected video is in enough pairs",
    "video_cap": "a video is in enough pairs",
    "not_needed": "good, but enough are chosen",
    "selected": "chosen",
}
"""What became of a possible pair, in words and in the order of the rules."""


@dataclass(frozen=True)
class Listed:
    """A video of the repository.

    Attributes:
        point: where it stands; None without scores.
        id: its name.
        origin: `tuned`, `initial` or `static`.
        prompt: what it should show.
        prompt_id: number of the prompt; None of a static clip.
        clip: the file.
        content: SHA-256 of the file as sampled.
        frames: which frames the judge of likeness looked at.
        cosines: what it found there.
    """

    point: scatter.Point | None
    id: str
    origin: str
    prompt: str
    prompt_id: int | None
    clip: Path
    content: str
    frames: tuple[int, ...]
    cosines: tuple[float | None, ...]


def videos(workspace: Workspace, settings: Settings) -> list[Listed]:
    """The recorded videos with their scores."""
    scores: dict[tuple[str, str], Mapping[str, Any]] = {
        (row["id"], row["reward"]): row for row in read_lines(workspace.scores)
    }
    found = []
    for row in read_lines(workspace.repository / "videos.jsonl"):
        name = row["id"]
        identity = scores.get((name, "identity"), {}).get("raw", {})
        three = (
            scores.get((name, "identity"), {}).get("value"),
            scores.get((name, "dynamics"), {}).get("raw", {}).get(settings.pairs.dynamics),
            scores.get((name, "semantics"), {}).get("value"),
        )
        likeness, motion, following = three
        point = None
        if likeness is not None and motion is not None and following is not None:
            point = scatter.Point(name, row["origin"], row["prompt_id"], likeness, motion, following, workspace.number)
        found.append(
            Listed(
                point,
                name,
                row["origin"],
                row["prompt"],
                row["prompt_id"],
                workspace.repository / row["clip"],
                row.get("clip_sha256") or "",
                tuple(identity.get("frames", ())),
                tuple(identity.get("cosines", ())),
            )
        )
    return found


def wanted(manifest: Mapping[str, Any]) -> bool:
    """Whether the last run has stage 2, and so a repository; without, what lies there belongs to an earlier run."""
    return bool(manifest.get("settings", {}).get("values", {}).get("prefer", {}).get("steps", 1))


def section(workspace: Workspace, listed: Sequence[Listed], *, prompts: bool, wanted: bool = True) -> dict[str, Any]:
    """Chart, pairs and counts.

    Args:
        workspace: of the identity.
        listed: `videos`.
        prompts: whether a static clip's prompt, which describes a photo, may be shown.
        wanted: whether this run has stage 2: otherwise pairs that lie there are an earlier run's, and not shown.
    """
    points = [one.point for one in listed if one.point is not None]
    here = {point.id for point in points}
    rows = read_lines(workspace.pairs) if wanted else []
    aside = read_lines(workspace.set_aside) if wanted else []
    pairs = [
        scatter.Pair(
            f"pair-{number}",
            "held-out" if row["split"] == "held-out" else row["kind"],
            row["winner"]["id"],
            row["rejected"]["id"],
            row["why"],
        )
        for number, row in enumerate(rows)
        if {row["winner"]["id"], row["rejected"]["id"]} <= here
    ]
    charts: list[Chart] = [scatter.chart(points, pairs)] if points else []
    origins = scatter.origins(workspace.number)
    texts = {one.prompt_id: one.prompt for one in listed if one.prompt_id is not None}
    counts = {
        origin: {
            "label": label,
            "videos": sum(one.origin == origin for one in listed),
            "winners": sum(_origin(here, listed, pair.winner) == origin for pair in pairs),
            "rejected": sum(_origin(here, listed, pair.rejected) == origin for pair in pairs),
        }
        for origin, label in origins.items()
    }
    report = workspace.pairs_report
    return {
        "charts": charts,
        "videos": listed,
        "pairs": pairs,
        "origins": origins,
        "counts": counts,
        "prompts": dict(sorted(texts.items())),
        "fates": _fates(read_json(report)) if wanted and report.is_file() else None,
        "set_aside": aside if prompts else [],
        "aside": len(aside),
        "show_captions": prompts,
    }


def _origin(here: set[str], listed: Sequence[Listed], name: str) -> str:
    return next(one.origin for one in listed if one.id == name) if name in here else ""


def _fates(report: Mapping[str, Any]) -> dict[str, Any]:
    """What became of every possible pair, by split and kind: a column each, a row a reason."""
    columns: dict[str, Mapping[str, int]] = {}
    for split, label in (("training", "training"), ("held_out", "held-out")):
        for kind in ("identity", "dynamic"):
            counts = report.get(split, {}).get(kind)
            if counts:
                columns[f"{label}, {kind}"] = counts
    reasons = dict.fromkeys([*REASONS, *(reason for counts in columns.values() for reason in counts)])
    return {
        "columns": list(columns),
        "rows": [
            (REASONS.get(reason, reason), [counts.get(reason, 0) for counts in columns.values()])
            for reason in reasons
            if any(counts.get(reason) for counts in columns.values())
        ],
        "tau": report.get("tau"),
        "warnings": report.get("warnings", []),
    }
