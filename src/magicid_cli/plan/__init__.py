"""Hours, memory, disk and downloads of a run, before it starts.

A time is what this identity has measured itself; else what `known.py` knows of the GPU. Where nothing was published for
a GPU it stays unknown. Every figure says which it is.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from magicid_cli import hub
from magicid_cli.config import Settings
from magicid_cli.models.base import Shape
from magicid_cli.models.catalog import VideoModel, video_model
from magicid_cli.models.execution import Execution
from magicid_cli.plan import costs, known
from magicid_cli.plan.begun import Begun
from magicid_cli.plan.costs import Architecture
from magicid_cli.plan.fetched import downloads
from magicid_cli.plan.lacking import check, disk, require
from magicid_cli.plan.machine import Machine, elsewhere, gpu_called, this_machine
from magicid_cli.plan.measured import seconds_of
from magicid_cli.plan.memory import SPARE_GB, Choice
from magicid_cli.plan.workload import (
    HOLDING,
    STAGES,
    Judging,
    Work,
    beside_gb,
    chosen,
    data_gb,
    has_two_passes,
    training_shape,
    value_bytes_of,
    work_of,
)
from magicid_cli.rounds import FIRST, number_of, stage_of

__all__ = [
    "STAGES",
    "Begun",
    "Estimate",
    "Judging",
    "Row",
    "check",
    "chosen",
    "disk",
    "downloads",
    "duration",
    "estimate",
    "for_run",
    "require",
    "value_bytes_of",
]


@dataclass(frozen=True)
class Row:
    """One stage of a run.

    Attributes:
        stage: its name.
        items: how many photos, steps, videos or clips.
        seconds: for all of them, or None where no rate is known.
        basis: `measured` (this identity's own seconds), `estimated`, or `unknown`.
        memory_gb: peak on the GPU, or in main memory where there is none; 0 where it does not matter.
        note: what one item is and what it takes.
        held: how the stage holds the model, if it does: memory plan, what fits.
        beside_gb: what of the peak another method's training keeps beside the model.
        shape: of the videos, where they are not of the run's own shape.
    """

    stage: str
    items: int
    seconds: float | None
    basis: str
    memory_gb: float
    note: str
    held: Choice | None = None
    beside_gb: float = 0.0
    shape: Shape | None = None


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        model: the video model.
        settings: what it was made for.
        machine: where the run would be.
        shape: of repository and training.
        rows: the stages to do, in order.
        data_gb: disk for the identity's files.
        downloads: GB still to fetch, by repository.
        assumptions: what the figures take for granted, in sentences.
        at_most: whether an interrupted stage may have less left than is counted.
    """

    model: VideoModel
    settings: Settings
    machine: Machine
    shape: Shape
    rows: tuple[Row, ...]
    data_gb: float
    downloads: dict[str, float]
    assumptions: tuple[str, ...]
    at_most: bool = False

    @property
    def seconds(self) -> float | None:
        """Of all stages, or None if one is unknown."""
        known = [row.seconds for row in self.rows if row.seconds is not None]
        return sum(known) if len(known) == len(self.rows) else None

    @property
    def memory_gb(self) -> float:
        """The largest peak."""
        return max((row.memory_gb for row in self.rows), default=0.0)

    @property
    def memory_plans(self) -> dict[str, str]:
        """The memory plan of every stage that needs one."""
        return {row.stage: row.held.plan for row in self.rows if row.held and row.held.plan}

    @property
    def attention(self) -> str | None:
        """The attention kernel, if none is refused; None without a GPU whose generation is known."""
        held = [row.held.execution for row in self.rows if row.held]
        return known.kernel_of(held[0], self.machine) if held else None

    @property
    def pinned_gb(self) -> float:
        """The largest amount of page-locked main memory."""
        return max((row.held.need.pinned_gb for row in self.rows if row.held), default=0.0)

    @property
    def download_gb(self) -> float:
        """All downloads."""
        return sum(self.downloads.values())

    def as_rows(self) -> list[dict[str, str]]:
        """The stages as text, for a table."""
        return [
            {
                "stage": row.stage,
                "time": duration(row.seconds),
                "memory": f"{row.memory_gb:.0f} GB" if row.memory_gb >= 1 else "-",
                "basis": row.basis,
                "note": row.note,
            }
            for row in self.rows
        ]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "model": self.model.name,
            "shape": str(self.shape),
            "tokens": costs.tokens(self.shape, costs.ARCHITECTURES[self.model.name].token_side),
            "machine": asdict(self.machine),
            "stages": [asdict(row) for row in self.rows],
            "seconds": self.seconds,
            "memory_gb": round(self.memory_gb, 2),
            "memory_plans": self.memory_plans,
            "attention_kernel": self.attention,
            "pinned_gb": round(self.pinned_gb, 2),
            "data_gb": round(self.data_gb, 2),
            "downloads_gb": {repo: round(size, 4) for repo, size in self.downloads.items()},
            "assumptions": list(self.assumptions),
        }


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "unknown"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def estimate(
    settings: Settings,
    *,
    machine: Machine,
    model: VideoModel,
    photos: int,
    todo: Collection[str],
    downloads: Mapping[str, float],
    measured: Mapping[str, float] | None = None,
    judging: Judging | None = None,
    begun: Mapping[str, Begun] | None = None,
    method: str = "",
    steps: Sequence[known.Step] | None = None,
) -> Estimate:
    """What a run would take.

    Args:
        settings: of the run.
        machine: where it would be.
        model: the video model.
        photos: how many are given.
        todo: names of the stages that are to be done, of `STAGES`; those of later rounds as `rounds.py` calls them.
        downloads: GB still to fetch, by repository.
        measured: seconds of one item (photo, step, video, clip), by stage, where this identity has measured them.
        judging: what scoring has left to do in the earliest of the rounds; None if all of it.
        begun: how far interrupted stages are, by their names.
        method: another method, whose training `reconstruct` then is.
        steps: measured on GPUs; by default those that come with magicid.
    """
    steps = known.shipped() if steps is None else steps
    value_bytes, stages = value_bytes_of(settings, machine), set(map(stage_of, todo))
    beside = beside_gb(settings, machine, method)
    held = {stage: chosen(settings, model, machine.without(beside), stage) for stage in HOLDING if stage in stages}
    executions = {stage: choice.execution for stage, choice in held.items()}
    work, later = (work_of(settings, model, photos, value_bytes, left, executions) for left in (judging, None))
    names = sorted(todo, key=lambda name: (name == "generate", number_of(name), STAGES.index(stage_of(name))))
    rows, done = [], begun or {}
    for name in names:
        stage, arch = stage_of(name), costs.ARCHITECTURES[model.name]
        of_round = (work if number_of(name) == number_of(names[0]) else later)[stage]
        of_round = replace(of_round, items=max(0, of_round.items - done.get(name, Begun()).items))
        measured_s = (measured or {}).get(stage)
        row = _row(name, of_round, arch, machine, value_bytes, measured_s, held.get(stage), steps)
        rows.append(replace(row, memory_gb=row.memory_gb + beside, beside_gb=beside) if row.held else row)
    return Estimate(
        model=model,
        settings=settings,
        machine=machine,
        shape=training_shape(settings),
        rows=tuple(rows),
        data_gb=data_gb(settings, model, photos, todo, done),
        downloads=dict(downloads),
        assumptions=(
            *_assumptions(settings, model, machine, value_bytes, bool(steps)),
            *_of_guidance(settings, held),
            *_of_step_cache(settings, guessed="sample" in held and "sample" not in (measured or {})),
            *_of_rounds(settings),
        ),
        at_most=not all(one.exact for one in done.values()),
    )


def _row(
    name: str,
    work: Work,
    arch: Architecture,
    machine: Machine,
    value_bytes: int,
    measured_s: float | None,
    held: Choice | None,
    steps: Sequence[known.Step],
) -> Row:
    count = f"{work.items} {work.item}{'' if work.items == 1 else 's'}"
    gb = work.need.gpu_gb
    if measured_s is not None:
        note = f"{count}, {measured_s:.3g} s each"
        return Row(name, work.items, measured_s * work.items, "measured", gb, note, held)
    if not work.parts:
        note = f"{count}, nominally {work.nominal_s:g} s each"
        return Row(name, work.items, work.nominal_s * work.items, "estimated", gb, note, held)
    if arch.pass_s is not None:
        each = work.cost.passes * arch.pass_s
        return Row(name, work.items, each * work.items, "estimated", gb, f"{count}, {each:.3g} s each", held)
    note = f"{count}, {work.cost.flop / 1e15:.3g} PFLOP each"
    if value_bytes != 2 or held is None:
        return Row(name, work.items, None, "unknown", gb, note, held)
    each_s, basis = _seconds(work, held.execution, machine, steps)
    return Row(name, work.items, None if each_s is None else each_s * work.items, basis, gb, note, held)


def _seconds(
    work: Work, execution: Execution, machine: Machine, steps: Sequence[known.Step]
) -> tuple[float | None, str]:
    """Seconds of an item on a GPU; measured only if every part of it was."""
    found = [known.seconds(part.kind, part.cost, part.shape, execution, machine, steps) for part in work.parts]
    times = [part.times * each for part, (each, _) in zip(work.parts, found, strict=True) if each is not None]
    if len(times) < len(work.parts):
        return None, "unknown"
    return sum(times), "measured" if {basis for _, basis in found} == {"measured"} else "estimated"


def _assumptions(
    settings: Settings, model: VideoModel, machine: Machine, value_bytes: int, has_steps: bool
) -> tuple[str, ...]:
    kind = {2: "bfloat16", 4: "float32"}[value_bytes]
    stored = kind if settings.model.base == "full" else f"{settings.model.base} ({kind} when used)"
    plan = f"Memory: a base in {stored}, one video's graph at a time, a block's tensors as counted on a CPU"
    if machine.gpu:
        plan += f", {SPARE_GB:g} GB left free"
    plan += "."
    if costs.ARCHITECTURES[model.name].pass_s is not None:
        return ("Times: seconds of a pass as measured on one CPU thread.", plan)
    if machine.rates is None or value_bytes != 2:
        where = machine.gpu or "a CPU"
        return (f"Times: how fast this model runs on {where} in {kind} is not known, so they are left open.", plan)
    if has_steps:
        times = f"Times: measured steps, scaled by FLOP and peak to {machine.gpu} where it was not measured itself"
    else:
        rate = f"{machine.rates.linear:.0f} TFLOP/s on {machine.gpu}"
        times = f"Times: {rate}, from published runs of this model and the GPU's peak"
    times += "; loading and encoding come on top."
    if machine.assumed:
        here = "These figures are" if machine.asked else "There is no GPU here: the figures are"
        return (f"{here} for one {machine.gpu}.", times, plan)
    return (times, plan)


def _of_guidance(settings: Settings, held: Mapping[str, Choice]) -> tuple[str, ...]:
    """How the two passes of true guidance are computed, where there are two."""
    if "generate" not in held or not has_two_passes(settings, "generate"):
        return ()
    how = {
        "one batch": "one batch of two",
        "two passes": "one after the other: there is no memory for a batch of two",
    }
    return (f"True guidance: the two passes of a step are {how[held['generate'].execution.guided]}.",)


def _of_step_cache(settings: Settings, *, guessed: bool) -> tuple[str, ...]:
    """That nobody knows beforehand how many steps a cache will skip, unless this identity has measured it."""
    if not guessed or not settings.repository.step_cache:
        return ()
    return ("Repository: every denoising step is counted whole, though the step cache skips some.",)


def _of_rounds(settings: Settings) -> tuple[str, ...]:
    """How many steps of stage 2 there are in all, where a setting's value is not that number."""
    each, rounds = settings.prefer.steps, settings.rounds
    if rounds == FIRST or not each:
        return ()
    return (f"Stage 2: --prefer-steps is of each round; {rounds} rounds of {each} steps are {rounds * each} in all.",)


def for_run(
    settings: Settings,
    *,
    photos: int,
    todo: Collection[str],
    home: Path,
    judging: Judging | None = None,
    begun: Mapping[str, Begun] | None = None,
    gpu: str | None = None,
    method: str = "",
) -> Estimate:
    """What a run would take, with what the identity in `home` has measured before.

    The figures are for this machine; where it lacks the GPU that the model needs they are for `REFERENCE_GPU`, so that
    a plan can be made anywhere. `check` then says what is missing.

    Args:
        settings: of the run.
        photos: how many are given.
        todo: names of the stages that are to be done, of `STAGES`.
        home: the identity's folder.
        judging: what scoring has left to do; None if all of it.
        begun: how far interrupted stages are, by their names.
        gpu: a short name of another GPU to plan for.
        method: another method, whose training `reconstruct` then is.

    Raises:
        MagicIDError: `settings-unknown`, also for a GPU that is not known.
    """
    model = video_model(settings.model.name)
    machine = this_machine(settings.model.device, hub.hub_cache())
    if gpu is not None:
        machine = elsewhere(machine, gpu_called(gpu), asked=True)
    elif model.needs_gpu and machine.gpu is None and settings.model.device != "cpu":
        machine = elsewhere(machine)
    return estimate(
        settings,
        machine=machine,
        model=model,
        photos=photos,
        todo=todo,
        downloads=downloads(settings, model, todo, judging),
        measured={} if machine.asked else seconds_of(home, settings),
        judging=judging,
        begun=begun,
        method=method,
    )
