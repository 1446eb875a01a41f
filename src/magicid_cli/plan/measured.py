"""What an identity's own runs took, so that the next plan need not guess."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

from magicid_cli.config import KNOBS, Settings
from magicid_cli.plan.workload import STAGES, looks
from magicid_cli.workspace import read_json, read_lines

# What the time of an item depends on: figures measured under other values say nothing.
_ALWAYS = (
    "model.name",
    "model.dtype",
    "model.device",
    "model.base",
    "model.memory_plan",
    "model.attention",
    "model.compile",
    "shape.frames",
    "shape.size",
    "adapter.rank",
    "adapter.targets",
    "adapter.double_blocks_only",
)
_DEPENDS_ON = {
    "reconstruct": (*_ALWAYS, "training.gradient_checkpointing", "reconstruct.batch", "reconstruct.clip"),
    "sample": (*_ALWAYS, "repository.steps", "repository.step_cache", "repository.step_cache_kind"),
    "prefer": (
        *_ALWAYS,
        "training.gradient_checkpointing",
        "prefer.batch",
        "prefer.bank",
        "prefer.guards",
        "prefer.watch_every",
        "prefer.watch_videos",
        "repository.steps",
    ),
}


def seconds_of(home: Path, settings: Settings) -> dict[str, float]:
    """Median seconds of a step or a video, by stage, from what this identity did before at the same shape and size.

    Args:
        home: the identity's folder; one that was not begun has measured nothing.
        settings: of the run to come.
    """
    if not (home / "manifest.json").is_file():
        return {}
    manifest = read_json(home / "manifest.json")
    before, now = manifest.get("settings", {}).get("values", {}), asdict(settings)
    found: dict[str, float] = {}
    for stage, names in _DEPENDS_ON.items():
        begun = _begun(manifest.get("stages", {}), stage)
        if begun is None or any(_value(before, name) != _value(now, name) for name in names):
            continue
        seconds = _step_seconds(home / stage)
        if stage == "sample":
            timing = manifest["stages"][stage].get("result", {}).get("timing", {})
            # A finished stage has told its seconds with everything around them: writing clips comes after denoising.
            whole = timing.get("seconds_per_video")
            seconds = [whole] if whole else list(_video_seconds(home, begun))
        if seconds:
            found[stage] = median(seconds)
        if seconds and stage == "prefer":
            found[stage] += _looking_seconds(home / stage, settings) / settings.prefer.steps
    return found


def _looking_seconds(folder: Path, settings: Settings) -> float:
    """What all looks of the guards take, by those that were taken: the first one comes before any step."""
    taken = [row["seconds"] for row in read_lines(folder / "looks.jsonl")]
    return mean(taken) * len(looks(settings)) if taken else 0.0


def _value(values: dict[str, Any], name: str) -> Any:
    section, _, field = name.partition(".")
    # A manifest of an earlier version lacks settings that came later: it ran as their defaults say.
    return values.get(section, {}).get(field, KNOBS[name].default)


def _begun(records: dict[str, Any], stage: str) -> float | None:
    """When a stage was last begun; None if never, or if an earlier one was begun anew since, so that it is stale."""
    times = [records[name]["begun"] for name in STAGES[: STAGES.index(stage) + 1] if name in records]
    own = records.get(stage, {}).get("begun")
    return own if own is not None and own == max(times) else None


def _step_seconds(folder: Path) -> list[float]:
    return [row["seconds"] for row in read_lines(folder / "metrics.jsonl")]


def _video_seconds(home: Path, since: float) -> Iterator[float]:
    """Seconds between one sampled video and the next."""
    last: dict[str, Any] = {}
    for event in read_lines(home / "events.jsonl"):
        if event["time"] >= since and event.get("stage") == "sample" and event.get("part") == "videos":
            if last and event["step"] == last["step"] + 1:
                yield event["time"] - last["time"]
            last = event
