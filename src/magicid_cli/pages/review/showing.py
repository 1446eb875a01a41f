"""Which pairs a person is shown, and what may be seen of them: before a vote neither names nor scores nor who wins."""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicid_cli import votes
from magicid_cli.votes import Clip, Vote
from magicid_cli.workspace import Workspace, digest

SIDES = ("left", "right")


@dataclass(frozen=True)
class Shown:
    """One pair as it is shown.

    Attributes:
        left: the video on the left; which one that is follows from the pair's name alone.
        right: the other one.
        proposed: the side that selection prefers.
        selected: whether the pair is selected; else it has just missed that.
        row: the pair's line of `pairs.jsonl`.
    """

    left: Clip
    right: Clip
    proposed: str
    selected: bool
    row: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The pair's name."""
        return votes.pair_key(self.left, self.right)


def shown_pairs(
    selected: Iterable[Mapping[str, Any]], missed: Iterable[Mapping[str, Any]], clips: Mapping[str, Clip]
) -> list[Shown]:
    """The pairs in the order in which they are shown: those selected, then those that just missed, each shuffled.

    Args:
        selected: lines of `pairs.jsonl`; of a pair that occurs twice, the first one counts.
        missed: lines of the same kind.
        clips: the videos' clips by name; a pair that lacks one cannot be shown.
    """
    found: dict[str, Shown] = {}
    for is_selected, rows in ((True, selected), (False, missed)):
        for row in rows:
            names = row["winner"]["id"], row["rejected"]["id"]
            if not clips.keys() >= set(names):
                continue
            winner, rejected = (clips[name] for name in names)
            swapped = _coin(votes.pair_key(winner, rejected)) ^ (winner.sha256 > rejected.sha256)
            left, right = (rejected, winner) if swapped else (winner, rejected)
            shown = Shown(left, right, "right" if swapped else "left", is_selected, row)
            found.setdefault(shown.key, shown)
    return sorted(found.values(), key=lambda one: (not one.selected, digest(["place", one.key])))


def _coin(key: str) -> bool:
    """Heads or tails, always the same for one pair, so that a page that is loaded again does not swap its sides."""
    return int(digest(["side", key])[0], 16) % 2 == 0


class Sheet:
    """The pairs of one identity, the votes on them, and the files that the page may load.

    Args:
        workspace: the identity; votes go to its `votes.jsonl`.
        shown: the pairs.
        paths: the videos' files, by name.
        photos: crops of the person, to compare with.
        token: the secret of this page; files are known by names that follow from it.
    """

    def __init__(
        self, workspace: Workspace, shown: list[Shown], paths: Mapping[str, Path], photos: list[Path], token: str
    ) -> None:
        self.workspace = workspace
        self.shown = {one.key: one for one in shown}
        self._token = token
        self.files = {self._name(clip.id): paths[clip.id] for one in shown for clip in (one.left, one.right)}
        self.photos = [self._name(path.name) for path in photos]
        self.files |= {self._name(path.name): path for path in photos}

    def _name(self, what: str) -> str:
        """A file's name on the page: it says nothing, not even whether two pages show the same file."""
        return hmac.new(self._token.encode(), what.encode(), "sha256").hexdigest()[:24]

    def file(self, name: str) -> Path | None:
        """The file that the page calls so; None if there is none, or if it lies outside the identity's folder."""
        path = self.files.get(name)
        if path is None or not path.is_file():
            return None
        return path if path.resolve().is_relative_to(self.workspace.path.resolve()) else None

    def state(self) -> dict[str, Any]:
        """Everything the page shows: the pairs, the votes that stand, and their order."""
        standing = votes.read(self.workspace).standing
        return {
            "photos": self.photos,
            "pairs": [self._view(one, standing.get(one.key)) for one in self.shown.values()],
            "history": [{"id": vote.id, "key": key} for key, vote in standing.items() if key in self.shown],
        }

    def vote(self, key: str, choice: str) -> bool:
        """Take a vote; False if there is no such pair or choice."""
        one = self.shown.get(key)
        if one is None or choice not in votes.CHOICES:
            return False
        votes.cast(self.workspace, one.left, one.right, choice, proposed=one.proposed, selected=one.selected)
        return True

    def undo(self, vote_id: str) -> bool:
        """Take a vote back; False if it does not stand (any more)."""
        if vote_id not in {vote.id for vote in votes.read(self.workspace).standing.values()}:
            return False
        votes.undo(self.workspace, vote_id)
        return True

    def summary(self) -> dict[str, Any]:
        """How many pairs there are and how many of them are voted on, and the votes by effect."""
        standing = votes.read(self.workspace).standing
        effects: dict[str, int] = {}
        for key, vote in standing.items():
            if key in self.shown:
                effects[vote.effect] = effects.get(vote.effect, 0) + 1
        groups = {
            name: [key for key, one in self.shown.items() if one.selected == is_selected]
            for name, is_selected in (("selected", True), ("just_missed", False))
        }
        counted = {name: {"pairs": len(keys), "voted": len(standing.keys() & keys)} for name, keys in groups.items()}
        return {**counted, "effects": effects}

    def _view(self, one: Shown, vote: Vote | None) -> dict[str, Any]:
        """What the page knows of a pair: scores and the rules' opinion only once there is a vote."""
        view = {
            "key": one.key,
            "left": self._name(one.left.id),
            "right": self._name(one.right.id),
            "kind": one.row["kind"],
            "prompt": one.row["prompt"],
            "selected": one.selected,
            "vote": None,
        }
        if vote is None:
            return view
        # An earlier vote may have been cast on the pair with its sides the other way round.
        choice = vote.choice
        if vote.preferred:
            choice = "left" if vote.preferred[0].sha256 == one.left.sha256 else "right"
        told = {"choice": choice, "effect": vote.effect, "proposed": one.proposed, "why": one.row["why"]}
        return {**view, "vote": {**told, "sides": {side: self._revealed(one, side) for side in SIDES}}}

    def _revealed(self, one: Shown, side: str) -> dict[str, Any]:
        row = one.row["winner" if side == one.proposed else "rejected"]
        scaled = {name: round(value["scaled"], 1) for name, value in row["rewards"].items()}
        return {"id": row["id"], "origin": row["origin"], "scaled": scaled}
