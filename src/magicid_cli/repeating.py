"""The `magicid customize` that repeats a run or goes on with it, with every flag that the run was made with.

`customize` reads no recorded settings: the short form, typed for an identity that was made otherwise, starts over.
"""

import shlex
from collections.abc import Collection, Mapping
from typing import Any

from magicid_cli.config import KNOBS
from magicid_cli.workspace import Workspace

_OTHER_COMMANDS = ("generate", "evaluate", "compare")
"""Sections of settings whose flags `customize` does not take."""


def customize(workspace: Workspace, changes: Mapping[str, Any] | None = None) -> str:
    """The command of what was last run in a folder, an identity's or another method's; the short form if nothing was.

    Args:
        workspace: the folder.
        changes: settings that are to be others, by dotted name.
    """
    repeated = command(workspace.name, workspace.manifest().get("settings", {}), changes=changes)
    return f"{repeated} --method {workspace.method}" if workspace.method else repeated


def command(
    name: str,
    recorded: Mapping[str, Any],
    *,
    hidden: Collection[str] = (),
    changes: Mapping[str, Any] | None = None,
) -> str:
    """The command that repeats a run: everything that differs from the model's own settings, and the seed.

    Args:
        name: of the identity.
        recorded: settings with their origins, of the manifest.
        hidden: settings whose values are files that may not be named; each is called FILE.
        changes: settings that are to be others, by dotted name.
    """
    words = ["magicid", "customize", "PHOTOS", "--name", name]
    for setting, value in {**_given(recorded), **(changes or {})}.items():
        flag = KNOBS[setting].flag
        if flag:
            words += _flag(flag, "FILE" if setting in hidden else value)
    return shlex.join(words)


def _given(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded settings that the command has to name."""
    values, origins = recorded.get("values", {}), recorded.get("origins", {})
    found = {}
    for setting in KNOBS:
        section, _, inner = setting.rpartition(".")
        value = (values.get(section, {}) if section else values).get(inner)
        origin = origins.get(setting, "default")
        own = origin == "default" or origin.startswith("model ")
        if value is not None and section not in _OTHER_COMMANDS and (setting == "seed" or not own):
            found[setting] = value
    return found


def _flag(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)]
