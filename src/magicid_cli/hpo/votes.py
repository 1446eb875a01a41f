"""People's votes on pairs, as selection takes them: what is settled, what is left out, and what has no place.

The paper's preferences stand for what humans prefer; here humans say it themselves. A vote outranks the rules and the
caps (our choice): who was shown two videos knows more of them than three rewards do.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from magicid_cli.hpo.kinds import Table

Ordered = tuple[int, int]
KINDS = ("identity", "dynamic")


@dataclass(frozen=True)
class Votes:
    """What people said; a pair is the positions of its two candidates.

    Attributes:
        preferred: (winner, rejected) → in words, what the vote did. Such a pair is selected.
        without: pairs, in any order, that are not selected.
    """

    preferred: Mapping[Ordered, str] = field(default_factory=dict)
    without: Collection[Ordered] = ()

    def codes(self, candidates: int) -> np.ndarray:
        """The pairs that are voted on, in both orders, each as `winner * candidates + rejected`."""
        pairs = np.array([*self.preferred, *self.without], dtype=np.int64).reshape(-1, 2)
        both = np.concatenate([pairs, pairs[:, ::-1]])
        return np.unique(both[:, 0] * candidates + both[:, 1])


@dataclass(frozen=True)
class Placed:
    """Votes with a preference, where selection puts them.

    Attributes:
        training: by kind, (winner, rejected) → in words, what the vote did.
        held_out: the same of the held-out pairs.
        unused: (winner, rejected) → why it cannot be a pair.
    """

    training: dict[str, dict[Ordered, str]]
    held_out: dict[str, dict[Ordered, str]]
    unused: dict[Ordered, str]


def place(votes: Votes, table: "Table", aside: np.ndarray, identity_share: float) -> Placed:
    """Find the kind and the split of every preferred pair.

    Args:
        votes: what people said.
        table: the candidates.
        aside: which of them are held out `(N,)`.
        identity_share: 0 or 1 where only one kind is used.
    """
    placed = Placed({kind: {} for kind in KINDS}, {kind: {} for kind in KINDS}, {})
    for pair, what in votes.preferred.items():
        winner, rejected = pair
        statics = int(table.static[winner]) + int(table.static[rejected])
        kind = "identity" if statics else "dynamic"
        if statics == 2:
            placed.unused[pair] = "both are static clips"
        elif not statics and table.prompt[winner] != table.prompt[rejected]:
            placed.unused[pair] = "the two videos have different prompts"
        elif identity_share == {"identity": 0, "dynamic": 1}[kind]:
            placed.unused[pair] = f"no {kind} pairs are wanted"
        elif aside[winner] != aside[rejected]:
            placed.unused[pair] = "one of its videos is held out and the other is not"
        else:
            (placed.held_out if aside[winner] else placed.training)[kind][pair] = what
    return placed


def left_to_find(goal: Mapping[str, int], voted: Mapping[str, Collection[Ordered]]) -> dict[str, int]:
    """How many pairs of each kind the rules still have to find, beside those that are voted for.

    Args:
        goal: pairs wanted of each kind.
        voted: pairs that are settled, by kind; where one kind has more than its goal, the other has fewer to find.
    """
    rest = max(0, sum(goal.values()) - sum(map(len, voted.values())))
    found: dict[str, int] = {}
    for kind in KINDS:
        found[kind] = min(max(0, goal[kind] - len(voted[kind])), rest)
        rest -= found[kind]
    return found
