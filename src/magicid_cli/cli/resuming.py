"""The command that goes on with what was interrupted."""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from magicid_cli.destinations import numbered, taken

_SHORT = {"--output": "-o"}


def resume_command(given: Sequence[str]) -> str:
    """The command that was typed, to be typed again."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        words = [sys.executable, "-m", "magicid_cli"]
    else:
        found = shutil.which(program.name)
        words = [program.name if found and Path(found).samefile(program) else str(program)]
    return shlex.join([*words, *given])


def changed(given: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """The words of a command with other values of these options, which each take one."""
    kept: list[str] = []
    words = iter(given)
    for word in words:
        flag = next((flag for flag in values if word in (flag, _SHORT.get(flag))), None)
        if flag:
            next(words, None)
        elif not any(word.startswith(f"{flag}=") for flag in values):
            kept.append(word)
    # A spelling that was not recognised above does no harm: of an option given twice the last counts.
    return [*kept, *(word for flag, value in values.items() for word in (flag, value))]


def free_output(output: Path, done: int, left: int) -> Path:
    """A name for the rest of videos of which some were made, so that none is in the way.

    Args:
        output: the file that was named for all of them.
        done: how many were made.
        left: how many were not.
    """
    number = done + 1
    candidate = numbered(output, number) if left == 1 else output.with_stem(f"{output.stem}-from-{number}")
    stem, other = candidate.stem, 1
    while taken(candidate, left):
        other += 1
        candidate = candidate.with_stem(f"{stem}-{other}")
    return candidate
