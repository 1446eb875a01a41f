"""Scores → preference pairs, by hybrid pair selection (`hpo.select_pairs`), and by people's votes where they count."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from magicid_cli import hpo, votes
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.repeating import customize
from magicid_cli.workspace import Workspace, file_digest, read_lines, write_json, write_lines

NAME = "select"
TITLE = "Preference pairs"
FORMAT = 1
READS = ("seed", "pairs")

# What a vote did, as the pair's reason.
_WORDS = {
    "confirmed": "a person confirmed it",
    "flipped": "a person turned it round",
    "added": "it had just missed selection, and a person agreed with it",
    "added flipped": "it had just missed selection, and a person preferred the other video",
}
_NAMED = 5  # votes without effect that are told one by one


@dataclass(frozen=True)
class SelectResult:
    """How many pairs of each kind were selected."""

    pairs: int
    identity: int
    dynamic: int
    held_out: int


@dataclass(frozen=True)
class Choice:
    """What a rule selects from the scores on disk.

    Attributes:
        rows: lines of `pairs.jsonl`; empty if no pair satisfies the rule.
        report: how it went, `hpo.Selection.report`, with the names of the videos that are set aside and, where votes
            count, with `votes`: how many have which effect, and which have none, with the reason.
        missed: lines of the same kind for pairs that just missed selection.
    """

    rows: list[dict[str, Any]]
    report: dict[str, Any]
    missed: list[dict[str, Any]] = field(default_factory=list)

    def count(self, split: str, *kinds: str) -> int:
        """How many pairs of a split are of these kinds, of any by default."""
        return sum(row["split"] == split and (not kinds or row["kind"] in kinds) for row in self.rows)


def inputs(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Content of the scores and of the records they belong to, and what the votes mean, where they count."""
    videos = read_lines(workspace.repository / "videos.jsonl")
    counted = {"votes": votes.read(workspace).meaning()} if settings.pairs.use_votes else {}
    return {
        "scores": file_digest(workspace.scores),
        "videos": [row["key"] for row in videos],
        "set_aside": aside(workspace),
        **counted,
    }


def outputs(workspace: Workspace) -> dict[str, str]:
    """Content of the pairs and of the report."""
    files = (workspace.pairs, workspace.pairs_report)
    return {path.name: file_digest(path) for path in files if path.is_file()}


def check(settings: Settings) -> None:
    """Refuse rules that no pair could meet.

    Raises:
        MagicIDError: `settings-invalid` for pairs by motion gap where motion is no reward.
    """
    if settings.pairs.dynamic_rule == "motion-gap" and "dynamics" not in settings.pairs.rewards:
        raise MagicIDError(
            "settings-invalid",
            "Pairs by motion gap are wanted, and the rewards that select pairs leave motion out.",
            "Add it (--pair-rewards identity+dynamics), or pair by --dynamic-rule dominating.",
        )


def run(workspace: Workspace, settings: Settings, events: Events) -> SelectResult:
    """Select the pairs and write `pairs.jsonl` and the report `pairs.json`.

    Raises:
        MagicIDError: `pairs-none` if no pair satisfies the rules; the message says which rule starved them. And
            `scores-missing`.
    """
    choice = choose(workspace, settings)
    write_json(workspace.pairs_report, choice.report)
    require(choice, workspace, reported=True)
    for warning in choice.report["warnings"]:
        events.notice(warning, stage=NAME)
    write_lines(workspace.pairs, choice.rows)
    identity, dynamic = choice.count("train", "identity"), choice.count("train", "dynamic")
    return SelectResult(identity + dynamic, identity, dynamic, choice.count("held-out"))


def choose(workspace: Workspace, settings: Settings, *, spare: int = 0) -> Choice:
    """What the settings select from the scores on disk; nothing is written.

    Args:
        workspace: the identity.
        settings: with the rules.
        spare: pairs that just missed selection to find besides.

    Raises:
        MagicIDError: `scores-missing` if a video that is not set aside lacks a score; `settings-invalid`, as `check`.
    """
    check(settings)
    without = set(aside(workspace))
    videos = [row for row in read_lines(workspace.repository / "videos.jsonl") if row["id"] not in without]
    wanted = settings.pairs
    candidates = columns(videos, read_lines(workspace.scores), wanted.dynamics, workspace.name)
    rule = hpo.PairRule(
        count=wanted.count,
        identity_share=wanted.identity_share,
        tau=wanted.tau,
        video_cap=wanted.video_cap,
        rejected_cap=wanted.rejected_cap,
        held_out=wanted.held_out,
        rewards=tuple(wanted.rewards.split("+")),
        fronts=wanted.fronts,
        dynamic_rule=wanted.dynamic_rule,
        identity_tolerance=wanted.identity_tolerance,
    )
    located = votes.Located()
    if wanted.use_votes:
        located = votes.locate(votes.read(workspace), [clip_of(workspace, row) for row in videos])
    said = hpo.Votes({pair: _WORDS[vote.effect] for pair, vote in located.preferred.items()}, list(located.without))
    selection = hpo.select_pairs(candidates, rule, settings.seed or 0, said, spare=spare)
    found = {"train": selection.pairs, "held-out": selection.held_out, "missed": selection.missed}
    rows = {
        split: [describe(pair, split, videos, candidates.raw, selection.scaled, wanted.prompt) for pair in pairs]
        for split, pairs in found.items()
    }
    report = {**selection.report, "set_aside": sorted(without)}
    if wanted.use_votes:
        report = with_votes(report, located, selection.unused)
    return Choice(rows["train"] + rows["held-out"] if selection.pairs else [], report, rows["missed"])


def clip_of(workspace: Workspace, row: dict[str, Any]) -> votes.Clip | None:
    """The clip of a row of `videos.jsonl` as votes know it; None if it is gone and no record says what it was."""
    path = workspace.repository / row["clip"]
    sha256 = row.get("clip_sha256") or (file_digest(path) if path.is_file() else None)
    return votes.Clip(row["id"], sha256) if sha256 else None


def with_votes(report: dict[str, Any], located: votes.Located, unused: Mapping[tuple[int, int], str]) -> dict[str, Any]:
    """The report of a selection, with what became of the votes.

    Args:
        report: `hpo.Selection.report`.
        located: the votes.
        unused: `hpo.Selection.unused`.
    """
    gone = "one of its videos is not there any more, or was made again"
    without = [(vote, gone) for vote in located.gone]
    without += [(located.preferred[pair], why) for pair, why in unused.items()]
    used = [vote for pair, vote in {**located.preferred, **located.without}.items() if pair not in unused]
    warnings = [f"A vote has no effect, on {vote.left.id} and {vote.right.id}: {why}." for vote, why in without]
    if len(warnings) > _NAMED:
        warnings[_NAMED:] = [f"{len(warnings) - _NAMED} more votes have no effect; pairs.json names them."]
    if located.unreadable:
        warnings.append(f"votes.jsonl has {located.unreadable} lines that are no vote; they count for nothing.")
    told = {
        "effects": dict(Counter(vote.effect for vote in used)),
        "without_effect": [{"clips": [vote.left.id, vote.right.id], "why": why} for vote, why in without],
        "unreadable": located.unreadable,
    }
    return {**report, "warnings": [*report["warnings"], *warnings], "votes": told}


def require(choice: Choice, workspace: Workspace, *, reported: bool = False) -> None:
    """Refuse to go on without a pair.

    Args:
        choice: what was selected.
        workspace: of the identity.
        reported: whether `pairs.json` is of this choice.

    Raises:
        MagicIDError: `pairs-none`.
    """
    if choice.rows:
        return
    without = len(choice.report["set_aside"])
    hint = "Sample more videos (--tuned 200), or relax a rule (--tau 9, --video-cap 20)."
    missing = ""
    if without:
        missing = f" ({without} {'video is' if without == 1 else 'videos are'} set aside: see set-aside.jsonl)"
        hint = f"Have these clips made again first: {customize(workspace)}"
    counts = "; pairs.json has the counts" if reported else ""
    raise MagicIDError(
        "pairs-none",
        f"No preference pair could be selected: {choice.report['starved_by']}{missing}{counts}.",
        hint,
    )


def aside(workspace: Workspace) -> list[str]:
    """Names of the videos that could not be scored."""
    return [row["id"] for row in read_lines(workspace.set_aside)]


def columns(videos: list[dict[str, Any]], scores: list[dict[str, Any]], dynamics: str, name: str) -> hpo.Candidates:
    """Records and scores → the columns that selection works on.

    Args:
        videos: rows of `videos.jsonl`.
        scores: rows of `scores.jsonl`.
        dynamics: which of its raw values is the dynamics reward, `total` or `subject`.
        name: the identity's, for the error.

    Returns:
        `raw` is `(N, 3)` in the order of `hpo.REWARDS`.

    Raises:
        MagicIDError: `scores-missing`.
    """
    values = {
        (row["id"], row["reward"]): row["raw"][dynamics] if row["reward"] == "dynamics" else row["value"]
        for row in scores
    }
    wanted = [(row["id"], reward) for row in videos for reward in hpo.REWARDS]
    missing = [f"{video} ({reward})" for video, reward in wanted if (video, reward) not in values]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MagicIDError(
            "scores-missing",
            f"scores.jsonl of '{name}' lacks scores: {missing[0]}{more}.",
            f"Make what is missing; no other score is made again: magicid score {name}",
        )
    return hpo.Candidates(
        ids=[row["id"] for row in videos],
        origin=[row["origin"] for row in videos],
        prompt=np.array([-1 if row["prompt_id"] is None else row["prompt_id"] for row in videos]),
        photo=np.array([-1 if row["photo"] is None else row["photo"] for row in videos]),
        raw=np.array([[values[row["id"], reward] for reward in hpo.REWARDS] for row in videos], dtype=np.float64),
    )


def describe(
    pair: hpo.Pair,
    split: str,
    videos: list[dict[str, Any]],
    raw: np.ndarray,
    scaled: np.ndarray,
    prompt_from: str,
) -> dict[str, Any]:
    """One line of `pairs.jsonl`: both videos with their rewards, the prompt trained on, and why."""
    winner, rejected = videos[pair.winner], videos[pair.rejected]
    sides = (winner, rejected)
    if pair.kind == "identity":
        # A vote may have turned it round: the prompt is still the sampled video's, or the static clip's.
        prompt = next(row["prompt"] for row in sides if (row["origin"] == "static") == (prompt_from == "static"))
    else:
        prompt = rejected["prompt"]

    def side(row: dict[str, Any], index: int) -> dict[str, Any]:
        rewards = {
            name: {"raw": float(raw[index, n]), "scaled": float(scaled[index, n])} for n, name in enumerate(hpo.REWARDS)
        }
        return {"id": row["id"], "origin": row["origin"], "latents": row["latents"], "rewards": rewards}

    return {
        "split": split,
        "kind": pair.kind,
        "prompt": prompt,
        "winner": side(winner, pair.winner),
        "rejected": side(rejected, pair.rejected),
        "identity_gap": pair.gap,
        "why": pair.why,
    }
