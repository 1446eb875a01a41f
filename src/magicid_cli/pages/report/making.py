"""How it was made: settings with origins, versions, licences, seeds, hours, energy, and the command to repeat it."""

from collections.abc import Mapping
from typing import Any

from magicid_cli.config import KNOBS
from magicid_cli.export.card import licences
from magicid_cli.models.catalog import FACE_MODELS, FEATURE_MODELS, VIDEO_MODELS
from magicid_cli.repeating import command
from magicid_cli.workspace import Workspace, read_lines

LONGEST_PAUSE_S = 900.0
"""Between two events of one stage: a longer one counts as an interruption and not as work."""

WATTS = {
    "NVIDIA H100 80GB HBM3": 700,
    "NVIDIA H100 PCIe": 350,
    "NVIDIA H200": 700,
    "NVIDIA A100-SXM4-80GB": 400,
    "NVIDIA A100 80GB PCIe": 300,
    "NVIDIA GeForce RTX 4090": 450,
    "NVIDIA GeForce RTX 3090": 350,
}
"""Board power limits that the maker states for them."""

CPU_WATTS = 65
"""Taken for a CPU: a usual desktop processor's. Nothing is measured."""

_UNKNOWN_WATTS = 400

_FILES: dict[str, frozenset[str]] = {
    "repository.prompts_file": frozenset(),
    "compare.prompts_file": frozenset(),
    "rewards.face_model": frozenset({"auto", *FACE_MODELS}),
    "rewards.evaluation_face_model": frozenset({"auto", *FACE_MODELS}),
    "evaluate.fvd_features": frozenset({"auto", *FEATURE_MODELS}),
}
"""Settings that can be a file, and their values that are none."""

_ORIGINS = ("default", "model", "identity", "flag", "environment", "not")
"""How an origin begins that names no file; `not` is that of one that is not recorded."""


def section(workspace: Workspace, manifest: Mapping[str, Any], gpu: str | None, *, private: bool) -> dict[str, Any]:
    """How the identity was made.

    Args:
        workspace: of the identity.
        manifest: its manifest.
        gpu: name of this machine's GPU, which is taken for the one that was used; None without.
        private: whether paths and who consented may be shown.
    """
    hours = _seconds(workspace)
    recorded = manifest.get("settings", {})
    on_gpu = any(row.get("device") == "cuda" for row in read_lines(workspace.repository / "videos.jsonl"))
    return {
        "settings": _settings(recorded, private=private),
        "command": command(workspace.name, recorded, hidden=() if private else _files(recorded)) if recorded else "",
        "versions": _versions(workspace),
        "licences": licences(manifest) if manifest.get("model") in VIDEO_MODELS and recorded else [],
        "hours": hours,
        "seconds": sum(hours.values()),
        "energy": energy(sum(hours.values()), gpu if on_gpu else None, on_gpu=on_gpu),
        "seed": manifest.get("seed"),
        "model": manifest.get("model"),
        "commit": manifest.get("stages", {}).get("reconstruct", {}).get("result", {}).get("commit"),
        "fallbacks": manifest.get("fallbacks", []),
        "consent": manifest.get("consent", []) if private else [],
        "judges": sorted({f"{row['reward']}: {row['made_by']}" for row in read_lines(workspace.scores)}),
    }


def _seconds(workspace: Workspace) -> dict[str, float]:
    """Seconds of work by the stage's title, pauses between sessions left out."""
    titles: dict[str, str] = {}
    found: dict[str, float] = {}
    before: Mapping[str, Any] | None = None
    for row in read_lines(workspace.events):
        if not isinstance(row, dict) or "time" not in row:
            continue
        stage = row.get("stage")
        if row.get("kind") == "stage":
            titles[str(stage)] = str(row.get("title", stage))
        begins = row.get("kind") == "stage" and row.get("state") != "finished"
        if before is not None and not begins:
            passed = row["time"] - before["time"]
            name = stage or before.get("stage")
            if name is not None and 0 <= passed <= LONGEST_PAUSE_S:
                found[name] = found.get(name, 0.0) + passed
        before = {"stage": stage or (before or {}).get("stage"), "time": row["time"]}
    return {titles.get(name, name): seconds for name, seconds in found.items() if seconds >= 1}


def energy(seconds: float, gpu: str | None, *, on_gpu: bool) -> str:
    """An estimate of the energy that went into the run, with what it takes for granted."""
    if not seconds:
        return ""
    if on_gpu:
        watts = WATTS.get(gpu or "", _UNKNOWN_WATTS)
        where = f"{gpu or 'a GPU'} at its full board power" if gpu in WATTS else "a GPU of unknown board power"
    else:
        watts, where = CPU_WATTS, "a CPU"
    hours = watts * seconds / 3600
    said = f"{hours / 1000:.2g} kWh" if hours >= 100 else f"{hours:.2g} Wh"
    return f"{said} (estimated: {where}, taken as {watts} W, for the whole time; cooling and the rest come on top)"


def _settings(recorded: Mapping[str, Any], *, private: bool) -> list[dict[str, Any]]:
    values, origins = recorded.get("values", {}), recorded.get("origins", {})
    rows = []
    for name, knob in KNOBS.items():
        section, _, inner = name.rpartition(".")
        part = values.get(section, {}) if section else values
        if inner not in part:
            continue
        value = _spoken(part[inner])
        origin = origins.get(name, "not recorded")
        if not private:
            value = "(a file)" if _is_file(name, part[inner]) else value
            origin = _without_files(origin)
        rows.append({"name": name, "value": value, "origin": origin, "help": knob.help})
    return rows


def _is_file(name: str, value: Any) -> bool:
    return bool(value) and name in _FILES and value not in _FILES[name]


def _without_files(origin: str) -> str:
    """Where a value came from, without the path or the name of a file of settings."""
    first, _, rest = origin.partition(" ")
    if first == "preset":
        return f"preset {rest.partition(' (')[0]}"
    return origin if first in _ORIGINS else "a file"


def _spoken(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "–" if value is None or value == "" else str(value)


def _files(recorded: Mapping[str, Any]) -> set[str]:
    """The recorded settings whose values are files."""
    values = recorded.get("values", {})
    sections = {name: name.rpartition(".") for name in _FILES}
    return {name for name, (part, _, inner) in sections.items() if _is_file(name, values.get(part, {}).get(inner))}


def _versions(workspace: Workspace) -> dict[str, str]:
    """The libraries that made the newest video; of this environment where there is none."""
    made = [row["versions"] for row in read_lines(workspace.repository / "videos.jsonl") if "versions" in row]
    if made:
        return dict(made[-1])
    from importlib.metadata import version

    return {name: version(name) for name in ("magicid", "torch", "diffusers", "peft")}
