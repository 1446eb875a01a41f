"""The ordered stages: what a run would do, and doing it.

A stage is fresh when the digest of everything it reads (its settings, the content of its inputs, its format number)
is the one in the manifest and its outputs are as it left them. So a new option re-runs exactly the stages that read
it, an edited caption exactly those that read captions, and a new version of magicid alone none. The stages of a later
round (`rounds.py`) are the same modules at work on the round's own files, with records of their own.
"""

import importlib
import secrets
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magicid_cli import models
from magicid_cli import plan as planning
from magicid_cli.baselines.registry import METHODS
from magicid_cli.checkpoints import room_to_write
from magicid_cli.config import Resolved, Settings, subset, with_values
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.named_files import by_content
from magicid_cli.photos import content_digest
from magicid_cli.plan.running import with_next_plan
from magicid_cli.rounds import FIRST, named, number_of, rounds_done, stage_of
from magicid_cli.workspace import Workspace, digest, plain

ORDER = ("ingest", "reconstruct", "sample", "score", "select", "prefer")
PREFERENCE = ("sample", "score", "select", "prefer")


@dataclass(frozen=True)
class StageState:
    """What a run would do about one stage.

    Attributes:
        name: as the manifest calls it: the stage's module, with its round from the second one on.
        title: the stage's name for people.
        state: `cached` (fresh, skipped), `resume` (begun with the same inputs) or `todo`.
        why: the reason, for people.
    """

    name: str
    title: str
    state: str
    why: str


@dataclass(frozen=True)
class RunPlan:
    """What a run would do, what it would cost, and what this machine lacks for it (nothing, if `problems` is empty)."""

    stages: list[StageState]
    estimate: planning.Estimate
    problems: list[MagicIDError]


@dataclass(frozen=True)
class CustomizeResult:
    """What a finished run left.

    Attributes:
        name: of the identity.
        path: its folder.
        adapter: the final adapter's file.
        stages_run: names of the stages that were done.
        stages_cached: names of those that were fresh.
        pairs: preference pairs that were trained on, in all rounds; 0 without stage 2.
        seconds: that it took.
        chosen: the step of stage 2 whose adapter it is; None without stage 2. Of the last round, as what follows.
        stopped: the guards' rule that ended stage 2 early, or None.
        why: why it was ended, if it was, and why that step was chosen; empty without stage 2.
        rounds: `round`, `pairs`, `chosen`, `stopped` and `why` of each round; empty without stage 2.
    """

    name: str
    path: Path
    adapter: Path
    stages_run: list[str]
    stages_cached: list[str]
    pairs: int
    seconds: float
    chosen: int | None = None
    stopped: str | None = None
    why: str = ""
    rounds: tuple[dict[str, Any], ...] = ()


def stage(name: str) -> Any:
    """The module of a stage, or of another method's; imported on demand, because it brings torch."""
    module = METHODS[name].module if name in METHODS else f"stages.{stage_of(name)}"
    return importlib.import_module(f"magicid_cli.{module}")


def title(name: str) -> str:
    """A stage's name for people."""
    number = number_of(name)
    return str(stage(name).TITLE) if number == FIRST else f"{stage(name).TITLE}, round {number}"


def needed(settings: Settings) -> tuple[str, ...]:
    """The stages a run consists of: without preference steps it ends after reconstruction (DreamBooth-LoRA)."""
    return order(settings.prefer.steps, settings.rounds)


def order(preference_steps: int, rounds: int) -> tuple[str, ...]:
    """The stages of a run with so many steps of stage 2 in each of so many rounds."""
    if not preference_steps:
        return tuple(name for name in ORDER if name not in PREFERENCE)
    return (*ORDER, *(named(name, number) for number in range(FIRST + 1, rounds + 1) for name in PREFERENCE))


def seeded(workspace: Workspace, settings: Settings) -> Settings:
    """Settings with a seed: the given one, else the identity's recorded one, else a fresh draw."""
    if settings.seed is not None:
        return settings
    known = workspace.manifest().get("seed")
    return with_values(settings, {"seed": secrets.randbelow(2**31) if known is None else known})


def key_of(name: str, workspace: Workspace, settings: Settings, photos: list[Path]) -> str:
    """Digest of everything a stage reads; its inputs must be on disk."""
    module, workspace = stage(name), workspace.round(number_of(name))
    read = module.inputs(workspace, photos) if name == "ingest" else module.inputs(workspace, settings)
    names = module.reads(settings) if hasattr(module, "reads") else module.READS
    return digest([module.FORMAT, by_content(subset(settings, names)), read])


def states(workspace: Workspace, settings: Settings, photos: list[Path]) -> list[StageState]:
    """What a run would do about each stage, in order."""
    settings = seeded(workspace, settings)
    records = workspace.manifest()["stages"]
    found: list[StageState] = []
    waiting = ""
    for name in needed(settings):
        record = records.get(name)
        if waiting:
            found.append(StageState(name, title(name), "todo", f"follows {waiting}"))
            continue
        state, why = state_of(name, workspace, settings, photos, record)
        found.append(StageState(name, title(name), state, why))
        if state != "cached":
            waiting = name
    return found


def state_of(
    name: str, workspace: Workspace, settings: Settings, photos: list[Path], record: dict[str, Any] | None
) -> tuple[str, str]:
    """What a run would do about one stage, and why: see `StageState`.

    Args:
        name: of the stage or of another method.
        workspace: its folder; its inputs must be on disk.
        settings: seed set.
        photos: the photo files, which `ingest` alone reads.
        record: of the stage in the manifest, if there is one.
    """
    if record is None:
        return "todo", "not begun"
    if record["key"] != key_of(name, workspace, settings, photos):
        return "todo", "what it reads has changed"
    if record["state"] != "done":
        return "resume", "was interrupted"
    if record["outputs"] != stage(name).outputs(workspace.round(number_of(name))):
        return "todo", "its files were changed or removed"
    return "cached", "nothing it reads has changed"


def plan(workspace: Workspace, resolved: Resolved, photos: list[Path], gpu: str | None = None) -> RunPlan:
    """What a run would do and cost, before it starts, here or on another GPU of that short name.

    Raises:
        MagicIDError: a setting that a later stage could only refuse hours later.
    """
    _check(resolved.settings)
    found = states(workspace, resolved.settings, photos)
    todo = [state.name for state in found if state.state != "cached"]
    estimate = planning.for_run(
        resolved.settings,
        photos=len(photos),
        todo=todo,
        home=workspace.path,
        judging=_left_to_judge(workspace, resolved.settings, found),
        begun=_begun(workspace, resolved.settings, found),
        gpu=gpu,
    )
    return RunPlan(found, estimate, planning.check(estimate))


def to_judge(workspace: Workspace, settings: Settings, again: Collection[str] = ()) -> planning.Judging:
    """What scoring has left to do in a repository that is sampled.

    Args:
        workspace: the identity, as the repository's round sees it.
        settings: of the judges.
        again: rewards that are to be scored again whatever is there.

    Raises:
        MagicIDError: `settings-unknown` for a judge that does not exist.
    """
    judging: planning.Judging = stage("score").to_do(workspace, settings, again)
    return judging


def _left_to_judge(workspace: Workspace, settings: Settings, found: list[StageState]) -> planning.Judging | None:
    """What is left to score if a run would begin with scoring: only then what that reads is on disk as it will be."""
    first = next((state.name for state in found if state.state != "cached"), "")
    return to_judge(workspace.round(number_of(first)), settings) if stage_of(first) == "score" else None


def _begun(workspace: Workspace, settings: Settings, found: list[StageState]) -> dict[str, planning.Begun]:
    """How far the stage is that a run would resume; what is left to score is told otherwise."""
    names = [state.name for state in found if state.state == "resume" and stage_of(state.name) != "score"]
    settings, tell = seeded(workspace, settings), {name: getattr(stage(name), "begun", None) for name in names}
    return {
        name: begun(workspace.round(number_of(name)), settings) if begun else planning.Begun()
        for name, begun in tell.items()
    }


def _check(settings: Settings) -> None:
    """Let every stage refuse at once what it could only refuse hours later; nothing is fetched."""
    for name in dict.fromkeys(map(stage_of, needed(settings))):
        if hasattr(stage(name), "check"):
            stage(name).check(settings)


def _prepare(workspace: Workspace, settings: Settings, photos: list[Path], events: Events) -> None:
    """Bring in the weights of every stage that may be done, before the first one starts."""
    found = states(workspace, settings, photos)
    judging = _left_to_judge(workspace, settings, found)
    todo = [stage_of(state.name) for state in found if state.state != "cached"]
    for name in dict.fromkeys(todo):
        if judging and todo.count("score") == 1 and name == "score":
            stage(name).prepare(settings, events, judging.rewards)
        elif hasattr(stage(name), "prepare"):
            stage(name).prepare(settings, events)


def consent_missing(workspace: Workspace, photos: Iterable[Path]) -> list[str]:
    """SHA-256 of the photos that nobody has consented to yet; what cannot be read is not used and needs none."""
    known = {sha for entry in workspace.manifest().get("consent", []) for sha in entry["photos"]}
    return sorted({content_digest(photo) for photo in photos} - known - {"unreadable"})


def record_consent(workspace: Workspace, photos: Iterable[Path], who: str, how: str) -> None:
    """Keep who consented to the use of which photos, when and how, in the manifest."""
    missing = consent_missing(workspace, photos)
    if missing:
        workspace.create()
        entry = {"who": who, "how": how, "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "photos": missing}
        workspace.update(consent=[*workspace.manifest().get("consent", []), entry])


def run(workspace: Workspace, resolved: Resolved, photos: list[Path], events: Events) -> CustomizeResult:
    """Do every stage that is not fresh, resuming what was begun.

    Args:
        workspace: the identity; locked for the whole run.
        resolved: settings and where they came from, recorded in the manifest.
        photos: the photo files.
        events: where progress goes; also appended to the identity's `events.jsonl`.

    Raises:
        MagicIDError: a stage failed; what was finished stays.
        KeyboardInterrupt: somebody asked to stop; the same call resumes.
    """
    _check(resolved.settings)
    begun = time.monotonic()
    with workspace.lock(), events.kept(workspace.events, lambda event: _record(workspace, event)):
        settings = seeded(workspace, resolved.settings)
        _prepare(workspace, settings, photos, events)
        names = needed(settings)
        done: list[str] = []
        cached: list[str] = []
        for number, name in enumerate(names, 1):
            about = {"stage": name, "title": title(name), "i": number, "n": len(names)}
            if number == 2:
                # The photos were accepted: from here on the manifest describes this run.
                _describe(workspace, settings, resolved.origins)
            record = workspace.manifest()["stages"].get(name)
            state, why = state_of(name, workspace, settings, photos, record)
            if state == "cached":
                events.emit("stage", state="cached", **about)
                cached.append(name)
                continue
            events.emit("stage", state="started", why=why, **about)
            if number >= 2:
                # What the manifest says is no longer true of the adapter of an earlier run.
                workspace.update(adapter=None, finished=None)
            run_stage(name, workspace, settings, photos, events)
            events.emit("stage", state="finished", **about)
            done.append(name)
        trained = rounds_done(workspace.manifest()["stages"], names)
        # What one more round would start from.
        adapter = workspace.round(trained[-1]["round"] + 1 if trained else FIRST).start
        workspace.update(adapter=str(adapter.relative_to(workspace.path)), finished=time.time())
        pairs = sum(one["pairs"] for one in trained)
        choice = {name: trained[-1][name] for name in ("chosen", "stopped", "why")} if trained else {}
        seconds = round(time.monotonic() - begun, 1)
        return CustomizeResult(
            workspace.name, workspace.path, adapter, done, cached, pairs, seconds, **choice, rounds=trained
        )


def score(workspace: Workspace, settings: Settings, events: Events, *, again: Collection[str] = ()) -> bool:
    """Score a round's repository as it is, and do nothing else.

    The adapter stays in use. Whether pairs and adapter still follow from the scores, the next run finds out. No score
    goes before its successor is there: weights are fetched first, and if a judge fails, the scores that were to be made
    again hold as they are.

    Args:
        workspace: the identity, as the round sees it; locked while this works.
        settings: of the judges.
        events: where progress goes; also appended to the identity's `events.jsonl`.
        again: rewards whose scores are made again; an interrupted call of that kind is gone on with.

    Returns:
        Whether there was anything to do.

    Raises:
        MagicIDError: as the stage.
        KeyboardInterrupt: somebody asked to stop; the scores made so far stay.
    """
    module, name = stage("score"), named("score", workspace.number)
    with workspace.lock(), events.kept(workspace.events, lambda event: _record(workspace, event)):
        before = module.outputs(workspace)
        state, why = state_of(name, workspace, settings, [], workspace.manifest()["stages"].get(name))
        if state == "cached" and not again:
            return False
        module.prepare(settings, events, to_judge(workspace, settings, again).rewards)
        module.make_again(workspace, settings, again)
        about = {"stage": name, "title": title(name), "i": 1, "n": 1}
        events.emit("stage", state="started", why=f"{' and '.join(again)} again" if again else why, **about)
        record = workspace.manifest()["stages"].get(name)
        try:
            run_stage(name, workspace, settings, [], events)
        except MagicIDError:
            module.leave(workspace)
            if record is not None and module.outputs(workspace) == before:
                _keep(workspace, name, record)  # the scores from before stay in use
            raise
        events.emit("stage", state="finished", **about)
        if module.outputs(workspace) != before:
            workspace.update(finished=None)
        return True


def _describe(workspace: Workspace, settings: Settings, origins: dict[str, str]) -> None:
    """Keep in the manifest what the run is made with."""
    workspace.update(
        seed=settings.seed,
        model=settings.model.name,
        class_word=settings.photos.class_word,
        settings={"values": asdict(settings), "origins": origins},
    )


def run_stage(name: str, workspace: Workspace, settings: Settings, photos: list[Path], events: Events) -> None:
    """Run one stage with its record in the manifest kept before and after."""
    begun = time.time()
    record: dict[str, Any] = {"key": key_of(name, workspace, settings, photos), "state": "running", "begun": begun}
    _keep(workspace, name, record)
    module, workspace = stage(name), workspace.round(number_of(name))
    smaller = "Train smaller (--size 544x320 --frames 33), or free the GPU; the same command resumes."
    with room_to_write(workspace.path), models.gpu_memory(f"working on stage '{name}'", smaller):
        given = {"photos": photos} if name == "ingest" else {}
        result = with_next_plan(lambda now: module.run(workspace, now, events, **given), settings, name, events)
    finished = {"state": "done", "finished": time.time(), "outputs": module.outputs(workspace)}
    _keep(workspace, name, {**record, **finished, "result": plain(result)})


def _record(workspace: Workspace, event: Event) -> None:
    """Second-best ways that were taken, and how each stage held the model, are kept in the manifest."""
    if event.kind == "fallback":
        workspace.record_fallback(event.data["message"])
    elif event.kind == "held":
        workspace.record_held(**event.data)


def _keep(workspace: Workspace, name: str, record: dict[str, Any]) -> None:
    """Put a stage's record into the manifest; records of later stages stay, their keys tell if they still hold."""
    workspace.update(stages={**workspace.manifest()["stages"], name: record})
