"""`magicid status`: how far an identity is, and whether anything is working on it; also from another shell."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.cli.progress import spoken
from magicid_cli.rounds import named, recorded, stage_of

if TYPE_CHECKING:
    from magicid_cli.workspace import Workspace


@options.command()
def status(terminal: Terminal, name: options.SomeIdentity = None) -> Result:
    """Show how far an identity is and whether something is working on it."""
    from magicid_cli.cli.identity import choose, holder, last_events, stage_states, when

    workspace = choose(name)
    manifest = workspace.manifest()
    running = holder(workspace)
    events = last_events(workspace)
    methods = [_method(space, running) for space in workspace.methods()]
    stages = [
        {"stage": stage, **_row(state, record, running, _newest_step(events, stage_of(stage), record.get("begun")))}
        for stage, state in stage_states(manifest).items()
        for record in [manifest["stages"].get(stage, {})]
    ]
    silent_s = max(0.0, time.time() - events[-1]["time"]) if events else None
    data = {
        "name": workspace.name,
        "path": workspace.path,
        "model": manifest.get("model"),
        "running": running,
        "last_event_age_s": silent_s,
        "stages": stages,
        "fallbacks": manifest.get("fallbacks", []),
        "adapter": workspace.path / manifest["adapter"] if manifest.get("adapter") else None,
        "preference": _preference(manifest),
        "exports": manifest.get("exports", []),
        "methods": methods,
    }
    table = Table(
        ("STAGE", "STATE", "PROGRESS", "BEGUN", "FINISHED"),
        [
            (row["stage"], row["state"], row["progress"] or "-", when(row["begun"]), when(row["finished"]))
            for row in [*stages, *methods]
        ],
    )
    lines = [f"{workspace.name} ({manifest.get('model') or 'no model yet'}) in {workspace.path}"]
    lines.append(f"running: {running}" if running else "running: no")
    if silent_s is not None:
        lines.append(f"last event: {spoken(silent_s)} ago")
    lines += [f"warning: {what}" for what in data["fallbacks"]]
    lines += [f"warning: {one['stage']}: {what}" for one in methods for what in one["fallbacks"]]
    lines += [f"adapter: {data['adapter']}"] if data["adapter"] else []
    lines += [f"stage 2: {data['preference']['why']}"] if data["preference"] else []
    return Result(data, ["\n".join(lines), table], [row["state"] for row in stages if row["state"] == "running"])


def _method(space: "Workspace", running: str | None) -> dict[str, Any]:
    """How far another method is on the identity's photos; one that trains nothing is done with its first video."""
    from magicid_cli.cli.identity import last_events, manifest_or_error

    manifest, name = manifest_or_error(space)[0], str(space.method)
    record = manifest.get("stages", {}).get(name)
    steps = (event for event in reversed(last_events(space)) if event.get("kind") == "step")
    found = _row(record["state"], record, running, next(steps, None)) if record else _row("done", {}, running, None)
    trained = next((space.path / manifest[kind] for kind in ("adapter", "keywords") if manifest.get(kind)), None)
    videos = len(list(space.videos.glob("*.mp4")))
    return {"stage": name, **found, "result": trained, "videos": videos, "fallbacks": manifest.get("fallbacks", [])}


def _preference(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """Which step's adapter the guards chose in the last round and why; None while that is not the adapter in use."""
    if Path(manifest.get("adapter") or "").parent.name != "prefer":
        return None
    result = manifest["stages"].get(named("prefer", recorded(manifest)), {}).get("result", {})
    known = "why" in result  # an earlier version's record does not tell
    return {name: result[name] for name in ("steps", "chosen", "stopped", "why")} if known else None


def _row(state: str, record: Mapping[str, Any], running: str | None, step: Mapping[str, Any] | None) -> dict[str, Any]:
    """One row: a stage that was begun and not finished is running, or was interrupted if nothing works on it."""
    if state == "running" and not running:
        state = "interrupted"
    counted = f"{step['step']:g}/{step['of']:g}" if step and state in ("running", "interrupted") else None
    return {"state": state, "progress": counted, "begun": record.get("begun"), "finished": record.get("finished")}


def _newest_step(events: list[dict[str, Any]], stage: str, since: float | None) -> dict[str, Any] | None:
    """The newest step of a stage's module since it was begun in the round at hand."""
    steps = (event for event in reversed(events) if event.get("kind") == "step" and event.get("stage") == stage)
    return next((event for event in steps if event.get("time", 0.0) >= (since or 0.0)), None)
