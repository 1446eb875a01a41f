"""Another method on an identity: what a run would do and cost, and doing it, with the pipeline's own records.

Its results lie in `methods/<name>/` inside the identity's folder. It learns from the identity's photos, crops and
captions as they are: where there are none yet they are made, and where they are others than asked for it refuses,
because what MagicID learned from them would become stale.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicid_cli import pipeline
from magicid_cli import plan as planning
from magicid_cli.baselines.registry import MAGICID, Method, method, trained_method
from magicid_cli.config import KNOBS, Resolved, Settings, with_values
from magicid_cli.destinations import destinations
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.models.catalog import video_model
from magicid_cli.pipeline import CustomizeResult, RunPlan, StageState
from magicid_cli.plan import Row
from magicid_cli.repeating import customize
from magicid_cli.workspace import Workspace

if TYPE_CHECKING:
    from magicid_cli.generation import Asked, Made


def seeded(identity: Workspace, space: Workspace, settings: Settings) -> Settings:
    """Settings with a seed: the given one, else the method's recorded one, else the identity's, else a fresh draw."""
    known = settings.seed if settings.seed is not None else space.manifest().get("seed")
    return pipeline.seeded(identity, with_values(settings, {"seed": known}))


def states(identity: Workspace, name: str, settings: Settings, photos: Sequence[Path] | None) -> list[StageState]:
    """What a run would do: about the photos, and about the method's training.

    Args:
        identity: whose photos are learned from.
        name: of the method.
        settings: of the run.
        photos: the photo files; None for those that the identity was made from.

    Raises:
        MagicIDError: `identity-unfinished`, `identity-other-photos`.
    """
    space = identity.of_method(name)
    settings = seeded(identity, space, settings)
    read = _photos_state(identity, settings, photos)
    title = pipeline.stage(name).TITLE
    if read.state != "cached":
        return [read, StageState(name, title, "todo", "follows ingest")]
    state, why = pipeline.state_of(name, space, settings, [], space.manifest()["stages"].get(name))
    return [read, StageState(name, title, state, why)]


def _photos_state(identity: Workspace, settings: Settings, photos: Sequence[Path] | None) -> StageState:
    record, title = identity.manifest()["stages"].get("ingest"), pipeline.stage("ingest").TITLE
    if photos is None:
        if record is None or record["outputs"] != pipeline.stage("ingest").outputs(identity):
            raise MagicIDError(
                "identity-unfinished",
                f"'{identity.name}' has no checked photos, or they were changed.",
                f"Run or resume: {customize(identity)}",
            )
        return StageState("ingest", title, "cached", "those of the identity")
    state, why = pipeline.state_of("ingest", identity, settings, list(photos), record)
    begun = [stage for stage in identity.manifest()["stages"] if stage != "ingest"]
    if record is not None and state == "todo" and (begun or identity.methods()):
        raise MagicIDError(
            "identity-other-photos",
            f"The photos or their settings are others than those '{identity.name}' was made from ({why}); what it has "
            "learned would become stale.",
            f"Give the same photos and settings, or customize '{identity.name}' again with the new ones first.",
        )
    return StageState("ingest", title, state, why)


def plan(identity: Workspace, name: str, resolved: Resolved, photos: Sequence[Path] | None) -> RunPlan:
    """What a run would do and cost, before it starts.

    Raises:
        MagicIDError: as `states`, or a setting that training could only refuse later.
    """
    trained_method(name)
    found = states(identity, name, resolved.settings, photos)
    todo = [one.name for one in found if one.state != "cached"]
    space = identity.of_method(name)
    begun = dict[str, planning.Begun]()
    if any(one.name == name and one.state == "resume" for one in found):
        begun = pipeline.stage(name).begun(space, seeded(identity, space, resolved.settings))
    estimate = estimate_of(identity, name, resolved.settings, len(photos or ()), todo, begun)
    # What would fit is known for the pipeline's own stages.
    problems = planning.check(replace(estimate, rows=tuple(renamed(estimate.rows, name, "reconstruct"))))
    return RunPlan(found, estimate, problems)


def renamed(rows: Sequence[Row], before: str, after: str) -> list[Row]:
    """Rows of a plan with one stage called otherwise."""
    return [replace(row, stage=after) if row.stage == before else row for row in rows]


def estimate_of(
    identity: Workspace,
    name: str,
    settings: Settings,
    photos: int,
    todo: Sequence[str],
    begun: Mapping[str, planning.Begun] | None = None,
) -> planning.Estimate:
    """What the stages to do take: the plan of a reconstruction of the method's length, with what the method adds.

    Args:
        identity: whose photos are learned from.
        name: of the method.
        settings: of the run.
        photos: how many are given.
        todo: names of the stages to do.
        begun: how far an interrupted training is, by the names of the plan's stages.
    """
    class_clips = settings.dreambooth.class_clips if name == "dreambooth" else 0
    values = {"reconstruct.steps": settings.total_steps}
    if name == "magic-me":
        values["reconstruct.batch"] = settings.magic_me.batch
    if class_clips:
        # A step takes a class clip for each photo, one after the other: twice the time in the same memory.
        values |= {"repository.tuned": class_clips, "repository.initial": 0}
        values["reconstruct.batch"] = 2 * settings.reconstruct.batch
    stages = {"ingest": "ingest", name: "reconstruct"}
    wanted = {stages[one] for one in todo} | ({"sample"} if class_clips and name in todo else set())
    found = planning.for_run(
        with_values(settings, values),
        photos=photos,
        todo=wanted,
        home=identity.of_method(name).path,
        begun=begun,
        method=name,
    )
    rows = {row.stage: row for row in found.rows}
    if "reconstruct" in rows:
        rows["reconstruct"] = _training_row(rows, name)
    return replace(found, settings=settings, rows=tuple(row for stage, row in rows.items() if stage != "sample"))


def _training_row(rows: Mapping[str, Row], name: str) -> Row:
    """The row of a method's training: a reconstruction, with what the method needs before it."""
    row, before = replace(rows["reconstruct"], stage=name), rows.get("sample")
    if before is None or not before.items:
        return row
    seconds = None if row.seconds is None or before.seconds is None else row.seconds + before.seconds
    note, memory = f"{row.note}; {before.items} class clips", max(row.memory_gb, before.memory_gb)
    return replace(row, seconds=seconds, note=note, memory_gb=memory)


def run(
    identity: Workspace, name: str, resolved: Resolved, photos: Sequence[Path] | None, events: Events
) -> CustomizeResult:
    """Train a method on an identity, resuming what was begun.

    Args:
        identity: whose photos are learned from; locked for the whole run.
        name: of the method.
        resolved: settings and where they came from, recorded in the method's manifest.
        photos: the photo files; None for those that the identity was made from.
        events: where progress goes; also appended to the method's `events.jsonl`.

    Raises:
        MagicIDError: as `states`, or training failed; what was finished stays.
        KeyboardInterrupt: somebody asked to stop; the same call resumes.
    """
    facts, begun = method(trained_method(name)), time.monotonic()
    space = identity.of_method(name)
    with identity.lock(), events.kept(space.events, lambda event: _record(space, event)):
        settings = seeded(identity, space, resolved.settings)
        found = states(identity, name, settings, photos)
        space.create()
        todo = [one.name for one in found if one.state != "cached"]
        for stage in todo:
            pipeline.stage(stage).prepare(settings, events)
        for number, one in enumerate(found, 1):
            about = {"stage": one.name, "title": one.title, "i": number, "n": len(found)}
            if one.name == name:
                _describe(identity, space, facts, settings, resolved.origins)
            if one.name not in todo:
                events.emit("stage", state="cached", **about)
                continue
            events.emit("stage", state="started", why=one.why, **about)
            if one.name == name:
                space.update(adapter=None, keywords=None, finished=None)
            where = space if one.name == name else identity
            pipeline.run_stage(one.name, where, settings, list(photos or ()), events)
            events.emit("stage", state="finished", **about)
        made = _results(space, name)
        space.update(**made, finished=time.time())
    cached = [one.name for one in found if one.name not in todo]
    (path,) = made.values()
    seconds = round(time.monotonic() - begun, 1)
    return CustomizeResult(identity.name, space.path, space.path / path, todo, cached, 0, seconds)


def _results(space: Workspace, name: str) -> dict[str, str]:
    """What the manifest says of the method's result: `adapter` or `keywords`, relative to its folder."""
    result = space.manifest()["stages"][name]["result"]
    return {kind: str(Path(result[kind]).relative_to(space.path)) for kind in ("adapter", "keywords") if kind in result}


def _describe(
    identity: Workspace, space: Workspace, facts: Method, settings: Settings, origins: dict[str, str]
) -> None:
    """Keep in the manifests what the run is made with; what the identity's own says already stays."""
    known = identity.manifest()
    own = {
        "seed": settings.seed,
        "model": settings.model.name,
        "class_word": settings.photos.class_word,
        "settings": {"values": asdict(settings), "origins": origins},
    }
    identity.update(**{name: value for name, value in own.items() if known.get(name) is None})
    space.update(**own, method=facts.name, licence=facts.licence)


def _record(space: Workspace, event: Event) -> None:
    """Second-best ways that were taken, and how the model was held, are kept in the method's manifest."""
    if event.kind == "fallback":
        space.record_fallback(event.data["message"])
    elif event.kind == "held":
        space.record_held(**event.data)


def licences(name: str, model: str) -> list[str]:
    """What a user must know before anything of a method is fetched: its licence, the model's, what is non-commercial.

    Args:
        name: of the method.
        model: the video model; not asked for by a method that brings its own.
    """
    facts = method(name)
    lines = [f"{facts.title} ({facts.paper}): {facts.licence}."] if name != MAGICID else []
    source = None if facts.own_model else video_model(model).source
    if source:
        lines.append(f"Video model {source.repo}: {source.licence}.")
    return [*lines, *(f"Non-commercial: {part}." for part in facts.non_commercial)]


# ------------------------------------------------------------------------------------------------------------- videos


def folder(identity: Workspace, name: str) -> Workspace:
    """Where a method's results lie: MagicID's own are the identity's."""
    return identity if name == MAGICID else identity.of_method(name)


def video_estimate(identity: Workspace, name: str, settings: Settings, videos: int) -> planning.Estimate:
    """What so many videos of a method take, downloads included.

    Args:
        identity: whose videos.
        name: of the method.
        settings: of the videos.
        videos: how many.
    """
    facts, wanted = method(name), with_values(settings, {"generate.count": videos})
    home = folder(identity, name).path
    if not facts.own_model:
        return planning.for_run(wanted, photos=0, todo={"generate"}, home=home)
    from magicid_cli.baselines import untrained

    # The video model of the settings has no part in it: only where the work would be is asked of its plan.
    about = planning.for_run(wanted, photos=0, todo=(), home=home)
    rows = tuple(pipeline.stage(name).plan_rows(wanted))
    return replace(about, rows=rows, downloads=untrained.downloads(facts), assumptions=())


# What `generate` takes and every method reads; the video model's name decides who looks for faces.
_ALWAYS = ("seed", "generate.count", "model.name", "model.dtype", "model.device", "model.offline")


def own_flags(name: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of `generate` as a method takes them: what a model of its own has, too, goes into its own section.

    Args:
        name: of the method.
        flags: values given on the command line, by dotted name.

    Raises:
        MagicIDError: `usage` for a flag that would change nothing.
    """
    facts, section = method(name), name.replace("-", "_")
    if not facts.own_model:
        return dict(flags)
    names = {flag: flag if flag in _ALWAYS else f"{section}.{flag.partition('.')[2]}" for flag in flags}
    ignored = [str(KNOBS[flag].flag) for flag, own in names.items() if own not in KNOBS]
    if ignored:
        also = [knob.flag for knob in KNOBS.values() if _takes(section, knob.name)]
        raise MagicIDError(
            "usage",
            f"{facts.title} brings a model of its own, for which {', '.join(ignored)} means nothing.",
            f"Leave it out. Its videos follow {', '.join(map(str, also))}, or [{section}] in magicid.toml.",
        )
    return {names[flag]: value for flag, value in flags.items()}


def _takes(section: str, flag: str) -> bool:
    """Whether a setting of `generate` is one of a method's section, too."""
    where, _, own = flag.partition(".")
    return where == "generate" and f"{section}.{own}" in KNOBS


def require(
    identity: Workspace, name: str, settings: Settings, prompt: str, *, output: Path | None, force: bool
) -> None:
    """Refuse in milliseconds what `generate` would refuse, with the same arguments, as far as that is known by then.

    Raises:
        MagicIDError: `identity-unfinished`, `model-mismatch`, `output-exists`, `output-invalid`, or what the method's
            own `require` raises.
    """
    from magicid_cli import generation

    if method(name).own_model:
        pipeline.stage(name).require(identity.of_method(name), settings)
        destinations(identity.of_method(name), prompt, list(range(settings.generate.count)), output, force)
    else:
        generation.require(folder(identity, name), settings, prompt, output=output, force=force)


def generate(
    identity: Workspace,
    name: str,
    resolved: Resolved,
    prompt: str,
    *,
    output: Path | None,
    force: bool,
    events: Events,
) -> "list[Made]":
    """Make `generate.count` videos with a method; see `generation.generate`."""
    from magicid_cli import generation

    wanted = generation.asked(prompt, resolved.settings)
    return generate_each(identity, name, resolved.settings, wanted, output=output, force=force, events=events)


def generate_each(
    identity: Workspace,
    name: str,
    settings: Settings,
    wanted: "Sequence[Asked]",
    *,
    events: Events,
    output: Path | None = None,
    force: bool = False,
) -> "list[Made]":
    """Make videos of several prompts with a method, its model loaded once; see `generation.generate_each`.

    The model leaves memory at the end: what follows may be another one, or the judges.
    """
    import torch

    from magicid_cli import generation
    from magicid_cli.rewards.loading import release

    space = folder(identity, name)
    if method(name).own_model:
        make = pipeline.stage(name).generate
    else:
        make, settings = generation.generate_each, with_values(settings, {"generate.count": len(wanted)})
    made: list[Made] = make(space, settings, wanted, output=output, force=force, events=events)
    # Nothing refers to it any more but it to itself, and so it would stay until Python happens to look.
    release("cuda" if torch.cuda.is_available() else "cpu")
    return made
