"""What people said of pairs of videos: `votes.jsonl`, which is only ever appended to.

A vote names its pair by the content of the two clips, so it outlives another selection of pairs, and says nothing of a
clip that was sampled anew. The last vote on a pair that was not taken back is the one that stands.
"""

import fcntl
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from magicid_cli.workspace import Workspace, append_line, digest, fsync_folder, read_lines

FORMAT = 1
CHOICES = ("left", "right", "equal", "drop")


@dataclass(frozen=True)
class Clip:
    """One of the two videos: its name, for people, and its content's SHA-256 (hex), by which it is known."""

    id: str
    sha256: str


@dataclass(frozen=True)
class Vote:
    """What somebody said of a pair.

    Attributes:
        id: of this vote.
        time: seconds since the epoch.
        left: the video that was shown on the left.
        right: the other one.
        choice: `left` or `right` is preferred, `equal` if neither is, `drop` if the pair should not be learned from.
        proposed: the side that selection prefers, which was not shown.
        selected: whether the pair was selected; else it had just missed that.
    """

    id: str
    time: float
    left: Clip
    right: Clip
    choice: str
    proposed: str
    selected: bool

    @property
    def key(self) -> str:
        """The pair's name."""
        return pair_key(self.left, self.right)

    @property
    def preferred(self) -> tuple[Clip, Clip] | None:
        """The preferred video and the other one; None if neither is."""
        sides = {"left": (self.left, self.right), "right": (self.right, self.left)}
        return sides.get(self.choice)

    @property
    def effect(self) -> str:
        """What it does to the pair: `confirmed`, `flipped`, `added`, `added flipped`, `equal` or `dropped`."""
        if self.preferred is None:
            return {"equal": "equal", "drop": "dropped"}[self.choice]
        as_proposed = self.choice == self.proposed
        if self.selected:
            return "confirmed" if as_proposed else "flipped"
        return "added" if as_proposed else "added flipped"


@dataclass(frozen=True)
class Ballot:
    """All votes of an identity.

    Attributes:
        standing: by the pair's name, in the order in which they were cast.
        unreadable: lines that are no vote.
    """

    standing: dict[str, Vote]
    unreadable: int

    def meaning(self) -> list[list[str]]:
        """What selection reads of them: the pairs' clips, winner first, and the effect; in a fixed order."""
        rows = []
        for vote in self.standing.values():
            clips = vote.preferred or sorted((vote.left, vote.right), key=lambda clip: clip.sha256)
            rows.append([*(clip.sha256 for clip in clips), vote.effect])
        return sorted(rows)


@dataclass(frozen=True)
class Located:
    """The votes that stand, on the clips that there are.

    Attributes:
        preferred: by the positions of winner and rejected.
        without: votes that prefer neither, by the positions of the clips.
        gone: votes of which a clip is not there.
        unreadable: lines that are no vote.
    """

    preferred: dict[tuple[int, int], Vote] = field(default_factory=dict)
    without: dict[tuple[int, int], Vote] = field(default_factory=dict)
    gone: tuple[Vote, ...] = ()
    unreadable: int = 0


def locate(ballot: Ballot, clips: Sequence[Clip | None]) -> Located:
    """Find the clips that votes are about.

    Args:
        ballot: the votes.
        clips: those that there are; None holds the place of one whose content nobody knows.
    """
    exact = {clip: position for position, clip in enumerate(clips) if clip}
    by_content = {clip.sha256: position for position, clip in enumerate(clips) if clip}
    found = Located(unreadable=ballot.unreadable)
    gone = []
    for vote in ballot.standing.values():
        # Which video it was, its content says; the name only tells apart two videos of the same content.
        winner, rejected = (
            exact.get(clip, by_content.get(clip.sha256, -1)) for clip in vote.preferred or (vote.left, vote.right)
        )
        if min(winner, rejected) < 0:
            gone.append(vote)
        else:
            (found.preferred if vote.preferred else found.without)[winner, rejected] = vote
    return replace(found, gone=tuple(gone))


def pair_key(one: Clip, other: Clip) -> str:
    """The name of a pair: a digest of both contents, whichever comes first."""
    return digest(sorted((one.sha256, other.sha256)))[:20]


def read(workspace: Workspace) -> Ballot:
    """The votes that stand; none if nobody voted yet."""
    return count(read_lines(workspace.votes))


def count(rows: Iterable[Any]) -> Ballot:
    """Lines of `votes.jsonl` → the votes that stand."""
    cast: dict[str, Vote] = {}
    unreadable = 0
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("undo"), str):
            cast.pop(row["undo"], None)
            continue
        vote = _vote(row)
        if vote is None:
            unreadable += 1
        else:
            cast[vote.id] = vote
    standing: dict[str, Vote] = {}
    for vote in cast.values():
        standing.pop(vote.key, None)
        standing[vote.key] = vote
    return Ballot(standing, unreadable)


def cast(workspace: Workspace, left: Clip, right: Clip, choice: str, *, proposed: str, selected: bool) -> Vote:
    """Append a vote; it is on the disk when this returns.

    Args:
        workspace: the identity.
        left: the video that was shown on the left.
        right: the other one.
        choice: one of `CHOICES`.
        proposed: the side that selection prefers.
        selected: whether the pair is selected.

    Raises:
        ValueError: an unknown choice.
        FileNotFoundError: the identity was removed.
    """
    if choice not in CHOICES or proposed not in CHOICES[:2]:
        raise ValueError(f"no choice: {choice}, {proposed}")
    vote = Vote(secrets.token_hex(8), round(time.time(), 3), left, right, choice, proposed, selected)
    _append(workspace, {"format": FORMAT, **asdict(vote)})
    return vote


def undo(workspace: Workspace, vote_id: str) -> None:
    """Take a vote back, by one more line; what was said of the pair before it stands again."""
    _append(workspace, {"format": FORMAT, "undo": vote_id, "time": round(time.time(), 3)})


def _append(workspace: Workspace, row: dict[str, Any]) -> None:
    """Append a line while nobody else does: a person may have two pages open, even of two servers."""
    with workspace.votes.open("ab") as file:  # fails where the identity was removed meanwhile
        fcntl.flock(file, fcntl.LOCK_EX)
        append_line(workspace.votes, row)
    fsync_folder(workspace.votes.parent)


def _vote(row: Any) -> Vote | None:
    """A line as a vote, or None if it is none: people may edit the file."""
    try:
        left, right = (Clip(str(row[side]["id"]), str(row[side]["sha256"])) for side in ("left", "right"))
        known = row["format"] == FORMAT and row["choice"] in CHOICES and row["proposed"] in CHOICES[:2]
        vote = Vote(
            str(row["id"]), float(row["time"]), left, right, row["choice"], row["proposed"], bool(row["selected"])
        )
    except (TypeError, KeyError, ValueError):
        return None
    return vote if known else None
