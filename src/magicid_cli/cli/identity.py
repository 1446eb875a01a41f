"""What the commands read about an identity: which one is meant, how far it is, who is working on it."""

import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from magicid_cli import pipeline
from magicid_cli.config import KNOBS, Resolved, Settings, resolve, with_values
from magicid_cli.errors import MagicIDError
from magicid_cli.repeating import customize
from magicid_cli.rounds import FIRST, named, recorded
from magicid_cli.workspace import Workspace, identities

_TAIL_BYTES = 65_536


def choose(name: str | None) -> Workspace:
    """The identity of that name, or the only one.

    Raises:
        MagicIDError: `name-invalid`, `identity-missing`, or `identity-ambiguous` if several exist and none is named.
    """
    known = identities()
    if name is None and len(known) == 1:
        return known[0]
    if name is None and known:
        names = ", ".join(space.name for space in known)
        raise MagicIDError("identity-ambiguous", f"There are several identities: {names}.", "Give the name of one.")
    if name is None:
        raise MagicIDError(
            "identity-missing", "There is no identity yet.", "Make one: magicid customize PHOTOS --name NAME"
        )
    workspace = Workspace(name)
    if not workspace.exists:
        raise MagicIDError("identity-missing", f"There is no identity called '{workspace.name}'.", "See: magicid ls")
    return workspace


def class_words() -> dict[str, str]:
    """What every identity is called in prompts; `person` where a damaged manifest does not tell."""
    return {space.name: readable_manifest(space).get("class_word", "person") for space in identities()}


def manifest_or_error(workspace: Workspace) -> tuple[dict[str, Any], MagicIDError | None]:
    """The manifest, or an empty one and why it cannot be read: a list of all must not end at one."""
    try:
        return workspace.manifest(), None
    except MagicIDError as error:
        return {}, error


def readable_manifest(workspace: Workspace) -> dict[str, Any]:
    """The manifest, or an empty one if it cannot be read."""
    return manifest_or_error(workspace)[0]


def holder(workspace: Workspace) -> str | None:
    """Who is working on the identity, in words, or None.

    The lock itself is tried only if the process that took it last still exists, so that looking does not get in the
    way of somebody who is just starting.
    """
    try:
        with (workspace.path / "lock").open("r", encoding="utf-8") as file:
            owner = file.read().strip()
            if not _may_be_alive(owner):
                return None
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return owner
    except FileNotFoundError:
        pass
    return None


def _may_be_alive(owner: str) -> bool:
    """Whether the process named in a lock may still run; one on another machine always may."""
    found = re.match(r"process (\d+) on (\S+)", owner)
    if found is None or found[2] != socket.gethostname():
        return found is not None
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def require_free(workspace: Workspace) -> None:
    """Refuse at once, before anything heavy is imported, what the lock would refuse later.

    Raises:
        MagicIDError: `identity-busy`.
    """
    owner = holder(workspace)
    if owner is not None:
        raise MagicIDError(
            "identity-busy",
            f"{owner} is working on '{workspace.name}'.",
            f"Wait for it, or watch it: magicid status {workspace.name}",
        )


def recorded_settings(workspace: Workspace, flags: Mapping[str, Any]) -> Settings:
    """The settings of the identity's last run, but for what a flag says; see `as_recorded`."""
    return as_recorded(workspace, flags).settings


def as_recorded(workspace: Workspace, flags: Mapping[str, Any], apart: Collection[str] = ()) -> Resolved:
    """The settings of the identity's last run, but for what a flag says, and where each value came from.

    Settings that cannot change a result (device, offline) come from where they always do.

    Args:
        workspace: of the identity.
        flags: values given on the command line, by dotted name.
        apart: sections that do not belong to that run; they, too, come from where settings always do.
    """
    manifest = workspace.manifest()
    recorded = manifest.get("settings", {})
    before, origins = recorded.get("values", {}), recorded.get("origins", {})
    usual = resolve(flags, identity_model=manifest.get("model"))
    values: dict[str, Any] = {}
    for name, knob in KNOBS.items():
        section, _, inner = name.rpartition(".")
        known = before.get(section, {}) if section else before
        if knob.result and section not in apart and name not in flags and inner in known:
            values[name] = known[inner]
    of_run = {name: origins.get(name, "identity") for name in values}
    return Resolved(with_values(usual.settings, values), usual.origins | of_run)


def order(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The stages that the identity's last run consisted of."""
    steps = manifest.get("settings", {}).get("values", {}).get("prefer", {}).get("steps", 1)
    return pipeline.order(steps, recorded(manifest))


def stage_states(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The state of each stage in the manifest: `not begun`, `running`, `done` or `stale`.

    A run goes through the stages in order, so those before the one begun last were found or made good. Until the run
    is finished, what later ones made is older than what they read; whether it still holds, the run finds out when
    it comes to them.
    """
    records, stages = manifest["stages"], order(manifest)
    begun = [name for name in stages if name in records]
    newest = max(reversed(begun), key=lambda name: records[name].get("begun", 0.0), default=None)
    stale = [] if manifest.get("finished") or newest is None else begun[begun.index(newest) + 1 :]
    states = {name: records.get(name, {}).get("state", "not begun") for name in stages}
    return states | dict.fromkeys(stale, "stale")


def as_round(workspace: Workspace, number: int | None, states: Mapping[str, str], stage: str) -> Workspace:
    """The identity as a round sees it: the one asked for, or the newest whose `stage` is done.

    Args:
        workspace: of the identity.
        number: of the round; None for the newest.
        states: of the stages, as `stage_states` has them.
        stage: that the caller reads the results of.

    Raises:
        MagicIDError: `round-missing` for one that the identity's last run did not have.
    """
    rounds = recorded(workspace.manifest())
    if number is not None and number > rounds:
        raise MagicIDError(
            "round-missing",
            f"'{workspace.name}' has {rounds} round{'' if rounds == 1 else 's'}, and round {number} was asked for.",
            f"Ask for one up to {rounds}, or add rounds: {customize(workspace, {'rounds': number})}",
        )
    done = [one for one in range(FIRST, rounds + 1) if states.get(named(stage, one)) == "done"]
    return workspace.round(number or max(done, default=FIRST))


def progress(manifest: Mapping[str, Any]) -> str:
    """How far an identity is: `finished`, or the stage that is next and how many are done."""
    stages = stage_states(manifest)
    done = [name for name, state in stages.items() if state == "done"]
    rest = [name for name in stages if name not in done]
    return f"{len(done)}/{len(stages)}, next {rest[0]}" if rest else "finished"


def last_events(workspace: Workspace) -> list[dict[str, Any]]:
    """The newest events, oldest first; a line that is still being written is left out."""
    try:
        with workspace.events.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [event for event in found if isinstance(event, dict)]


def size_of(path: Path) -> tuple[int, int]:
    """Files and bytes of a file or folder, without following links."""
    if path.is_symlink() or path.is_file():
        return 1, path.lstat().st_size
    sizes = [(Path(folder) / name).lstat().st_size for folder, _, names in os.walk(path) for name in names]
    return len(sizes), sum(sizes)


def gigabytes(size: float) -> str:
    """Bytes as one would say them: `712 kB`, `3.1 MB`, `41.9 GB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}" if size < 1e3 * factor else f"{size / factor:.0f} {unit}"
    return f"{size:.0f} B"


def when(seconds: float | None) -> str:
    """A moment as local date and time, or a dash."""
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
