"""One cell of a table: a person customized by a method, videos generated and measured, all by the public code path.

Cells share what they can: a customization starts from the finished workspace of the same person and seed that has the
most stages in common, and the pipeline's own rules of freshness skip what did not change. A cell that is cut goes on:
stages from their checkpoints, videos from those that are measured.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from benchmarks._claims_judges import Judges, summary
from benchmarks._claims_recipes import Amounts, Method, Probe, Split, points_of, save_every, unknown
from magicid_cli import adapters, config, generation, methods, models, pipeline, video
from magicid_cli.config import Resolved, Settings, subset, with_values
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events, Listener
from magicid_cli.rounds import FIRST, named, number_of
from magicid_cli.workspace import Workspace, append_line, digest, read_json, read_lines, write_text
from magicid_cli.world.albums import write_album
from magicid_cli.world.people import person

FORMAT = 1
"""Raise it when the meaning of a cell's figures changes: every cell is then measured again."""
STUDY = {"model.name": "mini", "model.device": "cpu"}
# What a method may come to grief of; anything else is a fault of ours or of the machine, and stops the work.
_RESULTS = {"beta-undetermined", "pairs-none", "training-diverged", "videos-unusable"}
_STAGE_1_STAGES = ("ingest", "reconstruct")
_NOT_ALIKE = ("generate.count",)  # how many videos a call makes says nothing about any of them


@dataclass(frozen=True)
class Cell:
    """A method, a person, a customization seed, and a look at what came of it."""

    method: Method
    who: int
    seed: int
    split: Split
    probe: Probe = Probe()

    @property
    def label(self) -> str:
        """The cell for people."""
        look = f", {self.probe.name}" if self.probe.name else ""
        return f"{self.method.name}{look}, person {self.who}, seed {self.seed}"


class Bench:
    """Where cells are worked on and what measures them.

    Args:
        results: folder of the cells' JSON files.
        work: folder of albums, identities and videos; what is in it saves time and is never read as a result.
        amounts: how much is looked at.
        listener: hears what happens in every cell.

    Attributes:
        base: the miniature's settings, with the doses of `amounts`.
        events: of the cell that is worked on; a stop is asked of them.
    """

    def __init__(self, results: Path, work: Path, amounts: Amounts, listener: Listener | None = None) -> None:
        self.results, self.work, self.amounts = results, work.absolute(), amounts
        self._listeners = [listener] if listener else []
        self.base = resolved(Method("base"), amounts, work).settings
        self.events = self.new_events()

    def new_events(self) -> Events:
        """A stream for one cell: a run's listeners stay on the stream that it was given."""
        self.events = Events(*self._listeners)
        return self.events

    @cached_property
    def judges(self) -> Judges:
        """The evaluation's judges."""
        return Judges(self.base)

    @cached_property
    def weights(self) -> str:
        """What all networks are made of: the video model, the face networks, the prompt scorer."""
        return digest([models.open_family(self.base.model, Events()).commit, self.judges.made_by])

    def settings(self, cell: Cell) -> Resolved:
        """The cell's settings as the command line would find them."""
        more = {**cell.probe.values, "seed": cell.seed, "photos.class_word": person(cell.who).kind}
        found = resolved(cell.method, self.amounts, self.work, more)
        # Checkpoints fall on the points of the curve; how often one is made changes no result.
        often = with_values(found.settings, {"training.save_every": save_every(found.settings)})
        return replace(found, settings=often)

    def prompts(self, cell: Cell) -> list[str]:
        """The evaluation's prompts for the cell's person."""
        return cell.split.prompts(self.amounts.prompts, cell.who)

    def noise(self, cell: Cell) -> list[int]:
        """The evaluation's seeds."""
        return cell.split.noise(cell.seed, self.amounts.noise)

    def key(self, cell: Cell) -> str:
        """Digest of all that decides the cell's figures; names, tables and the order of work are not in it."""
        settings = self.settings(cell).settings
        stages = {"none": (), "stage-1": _STAGE_1_STAGES}.get(settings.generate.adapter, stages_of(cell, settings))
        made = {name: v for name, v in subset(settings, ("model.name", "generate")).items() if name not in _NOT_ALIKE}
        shown = [self.prompts(cell), self.noise(cell), self.amounts.photos]
        who = [cell.who, settings.photos.class_word, cell.seed if stages else None]
        point = None if cell.probe.point is None else points_of(settings)[cell.probe.point]
        return digest([FORMAT, who, training_key(settings, stages), made, point, shown, self.weights])

    def path(self, cell: Cell) -> Path:
        """The cell's JSON file."""
        return self.results / f"{self.key(cell)[:24]}.json"

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What was measured, or None."""
        path = self.path(cell)
        return dict(read_json(path)) if path.is_file() else None

    def workspace(self, cell: Cell) -> Workspace:
        """The identity that the cell's method makes; methods that differ in generation alone share it."""
        settings = self.settings(cell).settings
        key = training_key(settings, stages_of(cell, settings))
        made_of = digest([key, self.weights, self.amounts.photos])[:12]
        return Workspace(f"p{cell.who}-s{cell.seed}-{made_of}", self.work)

    def videos(self, cell: Cell) -> Path:
        """The folder of the cell's videos."""
        return self.work / "videos" / self.key(cell)[:24]


def resolved(method: Method, amounts: Amounts, work: Path, more: Mapping[str, Any] | None = None) -> Resolved:
    """A method's settings in all the layers of the command line, of which only the flags and the model have any.

    Args:
        method: its values are flags.
        amounts: their doses lie below the method's.
        work: has no settings file.
        more: flags above the method's.

    Raises:
        MagicIDError: `settings-unknown` for a setting that this version lacks, or a value that it refuses.
    """
    missing = unknown(method)
    if missing:
        named = ", ".join(missing)
        raise MagicIDError("settings-unknown", f"'{method.name}' sets {named}: no such setting.", "Leave it out.")
    values = {**STUDY, **amounts.doses, **method.values, **(more or {})}
    return config.resolve(values, preset=method.preset, project=work)


def stages_of(cell: Cell, settings: Settings) -> tuple[str, ...]:
    """What a customization by the cell's method consists of."""
    return ("ingest", cell.method.other) if cell.method.other else pipeline.needed(settings)


def training_key(settings: Settings, stages: tuple[str, ...]) -> str:
    """Digest of the settings that some stages read and of the stages' formats; the seed counts in its place."""
    found = {}
    for name in stages:
        module = pipeline.stage(name)
        names = module.reads(settings) if hasattr(module, "reads") else module.READS
        found[name] = [module.FORMAT, subset(settings, names)]
    return digest(found)


# --------------------------------------------------------------------------------------------------------- customizing


def customize(bench: Bench, cell: Cell) -> Workspace:
    """The cell's identity, finished, or the folder of another method in it; nothing is done again that is there.

    Raises:
        MagicIDError: as the pipeline.
        KeyboardInterrupt: a stop was asked for; the same call goes on.
    """
    photos = album(bench, cell.who)
    workspace, settings = bench.workspace(cell), bench.settings(cell)
    if cell.method.other:
        pipeline.record_consent(workspace, photos, "benchmarks.claims", "a drawn person")
        methods.run(workspace, cell.method.other, settings, photos, bench.new_events())
        return workspace.of_method(cell.method.other)
    if not workspace.exists:
        start_from_another(bench, cell, workspace, photos)
    pipeline.record_consent(workspace, photos, "benchmarks.claims", "a drawn person")
    events = bench.new_events()
    keep_points(events, workspace, settings.settings)
    pipeline.run(workspace, settings, photos, events)
    rounds = range(FIRST, settings.settings.rounds + 1)
    for stage in (workspace.reconstruct, *(workspace.round(number).prefer for number in rounds)):
        shutil.rmtree(stage / "checkpoints", ignore_errors=True)  # large, and of no more use
    return workspace


def album(bench: Bench, who: int) -> list[Path]:
    """The person's photos, as `magicid mini photos` draws them."""
    folder = bench.work / "albums" / f"person-{who}-{bench.amounts.photos}"
    if not folder.is_dir():
        write_album(folder, seed=who, count=bench.amounts.photos, size=512, force=False)
    return sorted(folder.glob("*.png"))


def start_from_another(bench: Bench, cell: Cell, workspace: Workspace, photos: list[Path]) -> str | None:
    """Copy the identity of the same person and seed that has the most stages in common; returns its name, if any."""
    settings = bench.settings(cell).settings
    folder = workspace.path.parent
    others = [Workspace(path.name, bench.work) for path in sorted(folder.glob(f"p{cell.who}-s{cell.seed}-*"))]
    known = {other.name: _in_common(other, settings, photos) for other in others if other.exists}
    best = max(known, key=known.__getitem__, default=None)
    if best is None or not known[best]:
        return None
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
    try:
        leave = shutil.ignore_patterns("checkpoints", "snapshots", "videos", "lock", "events.jsonl", ".tmp-*")
        copy = shutil.copytree(folder / best, temporary / workspace.name, ignore=leave)
        if known[best] < len(pipeline.needed(settings)):
            for point in (copy / "points").glob("prefer*"):
                point.unlink()
        os.rename(temporary / workspace.name, workspace.path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    workspace.update(name=workspace.name)
    return best


def _in_common(other: Workspace, settings: Settings, photos: list[Path]) -> int:
    """How many stages of another identity would be skipped."""
    return sum(state.state == "cached" for state in pipeline.states(other, settings, photos))


def keep_points(events: Events, workspace: Workspace, settings: Settings) -> None:
    """Keep the adapters of the curve's points as they are passed; a checkpoint is made at each of them."""
    wanted = points_of(settings)
    later = {workspace.round(number).prefer: number for number in range(FIRST + 1, settings.rounds + 1)}

    def listen(event: Event) -> None:
        if event.kind != "checkpoint":
            return
        path = Path(event.data["path"])
        number = next((later[folder] for folder in path.parents if folder in later), FIRST)
        point = (named(event.data["stage"], number), event.data["step"])
        if point in wanted:
            values = load_file(path / "adapter.safetensors")
            adapters.save(point_path(workspace, *point), values, spec_of(settings))

    events.listen(listen)


def point_path(workspace: Workspace, stage: str, step: int) -> Path:
    """Where the adapter of a point of the curve lies; the step is the stage's own."""
    return workspace.path / "points" / f"{stage}-{step:06d}.safetensors"


def spec_of(settings: Settings) -> adapters.AdapterSpec:
    """What the settings' adapter is."""
    wanted = settings.adapter
    return adapters.AdapterSpec(wanted.rank, wanted.alpha, wanted.targets, wanted.double_blocks_only)


def at_point(bench: Bench, workspace: Workspace, settings: Settings, point: int) -> Workspace:
    """A workspace whose adapter is that of a point of the curve.

    Raises:
        LookupError: the customization ended before that point.
    """
    stage, step = points_of(settings)[point]
    source = point_path(workspace, stage, step)
    if not source.is_file():
        raise LookupError(f"the customization never came to step {step} of {stage}")
    view = Workspace(f"{workspace.name}-{stage.replace('@', '-')}-{step}", bench.work / "points")
    view.create()
    shutil.copyfile(source, view.path / "adapter.safetensors")
    known = workspace.manifest()
    view.update(adapter="adapter.safetensors", **{name: known[name] for name in ("model", "class_word", "seed")})
    return view


# ----------------------------------------------------------------------------------------------------------- measuring


def measure(bench: Bench, cell: Cell) -> dict[str, Any]:
    """The cell's result; made if it is not there, and written as a whole or not at all.

    A method that comes to grief on a person has a result that says so.

    Raises:
        MagicIDError: what is no fault of the method.
        KeyboardInterrupt: a stop was asked for; the same call goes on.
    """
    known = bench.result(cell)
    if known is not None:
        return known
    begun = time.monotonic()
    settings = bench.settings(cell)
    about = {
        "format": FORMAT,
        "key": bench.key(cell),
        "method": cell.method.name,
        "probe": cell.probe.name,
        "person": cell.who,
        "seed": cell.seed,
        "split": cell.split.name,
        "steps": steps_done(settings.settings, cell.probe.point, other=bool(cell.method.other)),
        "weights": bench.weights,
        "settings": asdict(settings.settings),
    }
    try:
        workspace = customize(bench, cell)
        trained = time.monotonic()
        if cell.probe.point is not None:
            workspace_shown = at_point(bench, workspace, settings.settings, cell.probe.point)
        else:
            workspace_shown = workspace
        rows = measured(bench, cell, workspace_shown)
    except (MagicIDError, LookupError) as error:
        if isinstance(error, MagicIDError) and error.code not in _RESULTS:
            raise
        what = error.message if isinstance(error, MagicIDError) else str(error)
        found: dict[str, Any] = {"failed": what}
    else:
        # Of the same content, in whichever call a stage or a video was made.
        seconds = {"customize": round(trained - begun, 1), "videos": round(time.monotonic() - trained, 1)}
        stages = {name: record.get("result") for name, record in workspace.manifest()["stages"].items()}
        found = {"figures": summary(rows), "seconds": seconds, "stages": _relevant(stages), "videos": rows}
    result = {**about, **found}
    write_text(bench.path(cell), json.dumps(result, ensure_ascii=False) + "\n")
    (bench.videos(cell) / "rows.jsonl").unlink(missing_ok=True)
    return result


def measured(bench: Bench, cell: Cell, workspace: Workspace) -> list[dict[str, Any]]:
    """Generate and look at every video that was not looked at before the work was cut."""
    folder, who = bench.videos(cell), bench.judges.of_person(album(bench, cell.who))
    folder.mkdir(parents=True, exist_ok=True)
    rows = {(row["prompt"], row["noise"]): row for row in read_lines(folder / "rows.jsonl")}
    wanted = [(n, prompt, noise) for n, prompt in enumerate(bench.prompts(cell)) for noise in bench.noise(cell)]
    for number, prompt, noise in wanted:
        if (prompt, noise) in rows:
            continue
        more = {**cell.probe.values, "seed": noise, "generate.count": 1}
        settings = resolved(cell.method, bench.amounts, bench.work, more)
        path = folder / f"{number:02d}-{noise}.mp4"
        (made,) = generation.generate(workspace, settings, prompt, output=path, force=True, events=bench.new_events())
        frames, _ = video.read_video(made.path)
        looked = bench.judges.look(frames, settings.settings.generate.fps, prompt, who)
        rows[prompt, noise] = {"prompt": prompt, "noise": noise, "file": path.name, **looked}
        append_line(folder / "rows.jsonl", rows[prompt, noise])
    return [rows[prompt, noise] for _, prompt, noise in wanted]


def steps_done(settings: Settings, point: int | None, *, other: bool = False) -> dict[str, int]:
    """Optimizer steps of each stage behind what is shown, as they are planned; a guard may end stage 2 earlier.

    Args:
        settings: of the cell.
        point: of the curve, None for the end.
        other: whether it is another method, which has one stage for all steps.
    """
    if other:
        return {"reconstruct": settings.total_steps, "prefer": 0}
    first, second = settings.reconstruct.steps, settings.prefer.steps * settings.rounds
    if settings.generate.adapter != "final":
        return {"reconstruct": 0 if settings.generate.adapter == "none" else first, "prefer": 0}
    if point is None:
        return {"reconstruct": first, "prefer": second}
    stage, step = points_of(settings)[point]
    if stage == "reconstruct":
        return {"reconstruct": step, "prefer": 0}
    return {"reconstruct": first, "prefer": (number_of(stage) - FIRST) * settings.prefer.steps + step}


def _relevant(stages: dict[str, Any]) -> dict[str, Any]:
    """What stages report, without paths of the machine."""
    return {
        name: {key: value for key, value in (report or {}).items() if not str(value).startswith("/")}
        for name, report in stages.items()
    }
