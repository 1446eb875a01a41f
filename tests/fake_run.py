"""Stand-ins for the heavy half of magicid, so that the command line's own promises can be tested in milliseconds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from magicid_cli import config, generation, pipeline, plan
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models.catalog import VIDEO_MODELS
from magicid_cli.plan.machine import Machine
from magicid_cli.workspace import Workspace


def estimate(seconds: float | None = 0.1, todo: tuple[str, ...] = pipeline.ORDER) -> plan.Estimate:
    """An estimate whose last stage takes so long; None for an unknown time."""
    rows = [plan.Row(name, 1, 0.0, "measured", 0.0, "nothing") for name in todo[:-1]]
    last = plan.Row(todo[-1], 5, seconds, "unknown" if seconds is None else "estimated", 33.6, "5 steps")
    return plan.Estimate(
        model=VIDEO_MODELS["hunyuan-video"],
        settings=config.Settings(),
        machine=Machine("NVIDIA H100 80GB HBM3", 79.0, None, 128.0, 500.0),
        shape=plan.Shape(61, 320, 544),
        rows=(*rows, last),
        data_gb=12.3,
        downloads={"owner/weights": 41.9},
        assumptions=("Times are guesses.",),
    )


@dataclass
class Calls:
    """What the command line asked for.

    Attributes:
        seconds: what the plan says the run takes.
        states: the state of each stage; `todo` where it is not named.
        ran: arguments of every run.
        stop: raised inside the run, if set.
        problems: what the machine lacks.
    """

    seconds: float | None = 0.1
    states: dict[str, str] = field(default_factory=dict)
    ran: list[dict[str, Any]] = field(default_factory=list)
    stop: BaseException | None = None
    problems: list[MagicIDError] = field(default_factory=list)

    def plan(
        self, workspace: Workspace, resolved: config.Resolved, photos: list[Path], gpu: str | None = None
    ) -> pipeline.RunPlan:
        """In place of `pipeline.plan`."""
        stages = [
            pipeline.StageState(name, name.capitalize(), self.states.get(name, "todo"), "not begun")
            for name in pipeline.ORDER
        ]
        return pipeline.RunPlan(stages, estimate(self.seconds), self.problems)

    def run(
        self, workspace: Workspace, resolved: config.Resolved, photos: list[Path], events: Events
    ) -> pipeline.CustomizeResult:
        """In place of `pipeline.run`."""
        self.ran.append({"name": workspace.name, "settings": resolved.settings, "photos": photos})
        with workspace.lock():
            if self.stop is not None:
                raise self.stop
            workspace.update(
                model=resolved.settings.model.name,
                class_word=resolved.settings.photos.class_word,
                stages={name: {"state": "done", "begun": 1.0, "finished": 2.0} for name in pipeline.ORDER},
            )
        adapter = workspace.prefer / "adapter.safetensors"
        return pipeline.CustomizeResult(workspace.name, workspace.path, adapter, list(pipeline.ORDER), [], 12, 3.5)


def use(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Put the stand-ins in place of planning and running."""
    calls = Calls()
    monkeypatch.setattr(pipeline, "plan", calls.plan)
    monkeypatch.setattr(pipeline, "run", calls.run)
    return calls


def use_generation(monkeypatch: pytest.MonkeyPatch, seconds: float | None = 1.0) -> list[dict[str, Any]]:
    """Put a stand-in in place of what makes the videos; returns the list of its calls."""
    calls: list[dict[str, Any]] = []

    def generate_each(
        workspace: Workspace,
        settings: config.Settings,
        wanted: Sequence[generation.Asked],
        *,
        output: Path | None,
        force: bool,
        events: Events,
    ) -> list[generation.Made]:
        (prompt,) = {one.prompt for one in wanted}
        calls.append({"name": workspace.name, "settings": settings, "prompt": prompt, "force": force})
        folder = output or workspace.videos
        return [generation.Made(folder / f"{one.seed}.mp4", one.seed, one.prompt) for one in wanted]

    monkeypatch.setattr(generation, "generate_each", generate_each)
    monkeypatch.setattr(generation, "require", lambda *a, **k: None)
    monkeypatch.setattr(generation.secrets, "randbelow", lambda limit: 5)
    monkeypatch.setattr(plan, "for_run", lambda *a, **k: estimate(seconds, ("generate",)))
    return calls


def identity(name: str, *, model: str = "tiny", class_word: str = "person", **stages: str) -> Workspace:
    """An identity on disk whose stages are in these states; all are done by default."""
    workspace = Workspace(name)
    workspace.create()
    records = {
        stage: {"state": state, "begun": 1.0, "finished": 2.0 if state == "done" else None}
        for stage, state in (stages or dict.fromkeys(pipeline.ORDER, "done")).items()
    }
    workspace.update(model=model, class_word=class_word, stages=records)
    return workspace


def outcome(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The one object that a command printed with `--json`."""
    whole = json.loads(capsys.readouterr().out)
    assert isinstance(whole, dict)
    return whole
