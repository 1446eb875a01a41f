"""Rounds of stage 2: where each one's files lie, and what its stages are called in the manifest.

The first round is the method itself, in the identity's own folder; its stages have their plain names. A later one goes
through the same stages again, from the model that the round before ended with: its files lie in `rounds/<number>/`, and
its stages are called `sample@2`, `score@2`, ….
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FIRST = 1


def folder_of(identity: Path, number: int) -> Path:
    """Where a round's repository, scores, pairs and training lie."""
    return identity if number == FIRST else identity / "rounds" / str(number)


def named(stage: str, number: int) -> str:
    """A stage of a round as the manifest calls it."""
    return stage if number == FIRST else f"{stage}@{number}"


def stage_of(name: str) -> str:
    """The stage that a name of the manifest means, in whichever round."""
    return name.partition("@")[0]


def number_of(name: str) -> int:
    """The round that a name of the manifest means."""
    return int(name.partition("@")[2] or FIRST)


def recorded(manifest: Mapping[str, Any]) -> int:
    """How many rounds the identity's last run consisted of; 1 in a manifest of a version without rounds."""
    return int(manifest.get("settings", {}).get("values", {}).get("rounds", FIRST))


def rounds_done(records: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> tuple[dict[str, Any], ...]:
    """What came of stage 2 in each round: `round`, `pairs`, `chosen`, `stopped`, `why`.

    Args:
        records: of the stages, from the manifest.
        names: of a run's stages, all of them done.
    """
    found = []
    for name in names:
        if stage_of(name) == "prefer":
            result = records[name]["result"]
            choice = {key: result.get(key) for key in ("chosen", "stopped")}  # an earlier version's record has none
            found.append({"round": number_of(name), "pairs": result["pairs"], **choice, "why": result.get("why", "")})
    return tuple(found)
