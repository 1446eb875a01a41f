"""How a setting is declared: its default, and beside it what flags, files, `--help` and the reference page need."""

from dataclasses import field
from typing import Any


def setting(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    result: bool = True,
) -> Any:
    """Declare a setting.

    Args:
        default: its value when nobody sets it.
        help: one sentence for `--help` and the reference page.
        flag: the command-line flag; None for one that only files and the environment set.
        low: smallest allowed number.
        high: largest allowed number.
        choices: the allowed words.
        result: False if the value cannot change what a run produces (only where, how fast or how often it saves);
            such a setting never makes a finished stage stale.
    """
    facts = {"help": help, "flag": flag, "low": low, "high": high, "choices": choices, "result": result}
    return field(default=default, metadata=facts)
