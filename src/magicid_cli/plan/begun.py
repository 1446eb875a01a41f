"""What an interrupted stage has left on disk that goes into the rest of its work, told without loading anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magicid_cli import checkpoints
from magicid_cli.plan.costs import GB


@dataclass(frozen=True)
class Begun:
    """How far an interrupted stage is.

    Attributes:
        items: steps or videos that are not done again.
        gb: of its disk that is taken already: by what it goes on from, or by what it removes before it writes.
        exact: whether that is all; otherwise the rest may take less than what is planned for it.
    """

    items: int = 0
    gb: float = 0.0
    exact: bool = False


def of_training(folder: Path, key: str | None) -> Begun:
    """How far a training is, by the newest of its checkpoints; whether their files are whole is only told at the start.

    Args:
        folder: of its checkpoints, which either are gone on from or make room.
        key: what a checkpoint must have been made from; None where that cannot be told.
    """
    gb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / GB
    step, made_from = checkpoints.last(folder)
    if step and key is None:
        return Begun(0, gb)
    return Begun(step if made_from == key else 0, gb, exact=True)


def of_clips(wanted: Sequence[Path], *, known: bool) -> Begun:
    """How many of the clips are there.

    Args:
        wanted: their files.
        known: whether it can be told which files they are.
    """
    there = [path for path in wanted if path.is_file()]
    return Begun(len(there), sum(path.stat().st_size for path in there) / GB, exact=known)
