"""Hours, memory, disk and downloads of a run, before it starts.

A time is the FLOP of `costs.py` at the rate that whole samplers of this model are seen to reach, unless this identity
has measured its own seconds; where nothing was published for a GPU it stays unknown. Every figure says which it is.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magicid_cli import hub
from magicid_cli.config import Settings, with_values
from magicid_cli.errors import MagicIDError
from magicid_cli.models import PATTERNS
from magicid_cli.models.base import Shape
from magicid_cli.models.catalog import FACE_MODELS, JUDGES, Source, VideoModel, video_model
from magicid_cli.plan import costs
from magicid_cli.plan.costs import GB, Architecture
from magicid_cli.plan.machine import Machine, elsewhere, this_machine
from magicid_cli.plan.measured import seconds_of
from magicid_cli.plan.workload import STAGES, Judging, Work, data_gb, generated_shape, training_shape, work_of

__all__ = ["STAGES", "Estimate", "Judging", "Row", "check", "downloads", "duration", "estimate", "for_run", "require"]


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
    """

    stage: str
    items: int
    seconds: float | None
    basis: str
    memory_gb: float
    note: str


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
    """

    model: VideoModel
    settings: Settings
    machine: Machine
    shape: Shape
    rows: tuple[Row, ...]
    data_gb: float
    downloads: dict[str, float]
    assumptions: tuple[str, ...]

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
) -> Estimate:
    """What a run would take.

    Args:
        settings: of the run.
        machine: where it would be.
        model: the video model.
        photos: how many are given.
        todo: names of the stages that are to be done, of `STAGES`.
        downloads: GB still to fetch, by repository.
        measured: seconds of one item (photo, step, video, clip), by stage, where this identity has measured them.
        judging: what scoring has left to do; None if all of it.
    """
    value_bytes = {"float32": 4, "bfloat16": 2}.get(settings.model.dtype, 2 if machine.gpu else 4)
    work = work_of(settings, model, photos, value_bytes, judging)
    rows = [
        _row(name, work[name], costs.ARCHITECTURES[model.name], machine, value_bytes, (measured or {}).get(name))
        for name in STAGES
        if name in todo
    ]
    return Estimate(
        model=model,
        settings=settings,
        machine=machine,
        shape=training_shape(settings),
        rows=tuple(rows),
        data_gb=data_gb(settings, model, photos, todo),
        downloads=dict(downloads),
        assumptions=_assumptions(settings, model, machine, value_bytes),
    )


def _row(
    name: str, work: Work, arch: Architecture, machine: Machine, value_bytes: int, measured_s: float | None
) -> Row:
    count = f"{work.items} {work.item}{'' if work.items == 1 else 's'}"
    if measured_s is not None:
        note = f"{count}, {measured_s:.3g} s each"
        return Row(name, work.items, measured_s * work.items, "measured", work.memory_gb, note)
    if work.cost is None:
        note = f"{count}, nominally {work.nominal_s:g} s each"
        return Row(name, work.items, work.nominal_s * work.items, "estimated", work.memory_gb, note)
    if arch.pass_s is not None:
        each = work.cost.passes * arch.pass_s
        note = f"{count}, {each:.3g} s each"
        return Row(name, work.items, each * work.items, "estimated", work.memory_gb, note)
    note = f"{count}, {work.cost.flop / 1e15:.3g} PFLOP each"
    if machine.rates is None or value_bytes != 2:
        return Row(name, work.items, None, "unknown", work.memory_gb, note)
    seconds = work.cost.seconds(machine.rates) * work.items
    return Row(name, work.items, seconds, "estimated", work.memory_gb, note)


def _assumptions(settings: Settings, model: VideoModel, machine: Machine, value_bytes: int) -> tuple[str, ...]:
    blocks = "recomputed in the backward pass" if settings.training.gradient_checkpointing else "kept"
    kind = {2: "bfloat16", 4: "float32"}[value_bytes]
    plan = f"Memory: a {kind} base, activations of blocks {blocks}, one video's graph at a time (within a block ±30 %)."
    if costs.ARCHITECTURES[model.name].pass_s is not None:
        return ("Times: seconds of a pass as measured on one CPU thread.", plan)
    if machine.rates is None or value_bytes != 2:
        where = machine.gpu or "a CPU"
        return (f"Times: how fast this model runs on {where} in {kind} is not known, so they are left open.", plan)
    rate = f"{machine.rates.linear:.0f} TFLOP/s on {machine.gpu}"
    times = f"Times: {rate}, from published runs of this model and the GPU's peak; loading and encoding come on top."
    if machine.assumed:
        return (f"There is no GPU here: the figures are for one {machine.gpu}.", times, plan)
    return (times, plan)


def check(estimate: Estimate) -> list[MagicIDError]:
    """What this machine lacks for the run; empty if nothing."""
    return [problem for problem in (_gpu(estimate), _memory(estimate), _disk(estimate)) if problem is not None]


def require(estimate: Estimate) -> None:
    """Stop before the work starts if this machine cannot do it.

    Raises:
        MagicIDError: `gpu-missing`, `gpu-memory`, `memory` or `disk-space` (exit code 3).
    """
    for problem in check(estimate):
        raise problem


def _gpu(estimate: Estimate) -> MagicIDError | None:
    here = (estimate.machine.gpu and not estimate.machine.assumed) or not estimate.memory_gb
    device = estimate.settings.model.device
    if here or device == "cpu" or not (estimate.model.needs_gpu or device == "cuda"):
        return None
    if not estimate.model.needs_gpu:
        return MagicIDError("gpu-missing", "No CUDA GPU is usable here.", "Leave --device out, or set it to cpu.")
    return MagicIDError(
        "gpu-missing",
        f"No CUDA GPU is usable here; {estimate.model.name} needs one with {estimate.memory_gb:.0f} GB for this run.",
        "For a small model that runs anywhere: --model mini",
    )


def _memory(estimate: Estimate) -> MagicIDError | None:
    machine, need = estimate.machine, estimate.memory_gb
    worst = max(estimate.rows, key=lambda row: row.memory_gb, default=None)
    if worst is None:
        return None
    shape = generated_shape(estimate.settings) if worst.stage == "generate" else estimate.shape
    stage = f"Stage '{worst.stage}' at {shape} needs about {need:.0f} GB"
    if machine.gpu and need > machine.gpu_memory_gb:
        return MagicIDError(
            "gpu-memory",
            f"{stage} of GPU memory; {machine.gpu_memory_gb:.0f} GB are free on {machine.gpu}.",
            _smaller(estimate),
        )
    if not machine.gpu and need > machine.ram_gb:
        return MagicIDError(
            "memory",
            f"{stage} of memory; this machine has {machine.ram_gb:.0f} GB.",
            "Use fewer frames, a smaller size, or --model mini.",
        )
    return None


# Shapes worth proposing, largest first.
_SHAPES = ((61, "960x544"), (33, "960x544"), (61, "544x320"), (33, "544x320"))


def _smaller(estimate: Estimate) -> str:
    """The largest shape that fits, as flags to type."""
    todo = {row.stage for row in estimate.rows}
    section = "generate" if todo == {"generate"} else "shape"
    for frames, size in _SHAPES:
        settings = with_values(estimate.settings, {f"{section}.frames": frames, f"{section}.size": size})
        work = work_of(settings, estimate.model, 1, 2)
        if max(work[name].memory_gb for name in todo) <= estimate.machine.gpu_memory_gb:
            return f"This fits: --frames {frames} --size {size}"
    return "No shape of this model fits this GPU; a small model that runs anywhere: --model mini"


def _disk(estimate: Estimate) -> MagicIDError | None:
    machine = estimate.machine
    if machine.cache_disk_gb is None:
        wanted = [("for weights and videos", estimate.data_gb + estimate.download_gb, machine.data_disk_gb)]
    else:
        wanted = [
            ("for weights", estimate.download_gb, machine.cache_disk_gb),
            ("for videos and checkpoints", estimate.data_gb, machine.data_disk_gb),
        ]
    for what, need, free in wanted:
        if need > free:
            return MagicIDError(
                "disk-space",
                f"About {need:.1f} GB of disk are needed {what}; {free:.1f} GB are free.",
                "Make room (`magicid cache` lists what can go), or choose another disk with HF_HOME or MAGICID_HOME.",
            )
    return None


def for_run(
    settings: Settings, *, photos: int, todo: Collection[str], home: Path, judging: Judging | None = None
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

    Raises:
        MagicIDError: `settings-unknown`.
    """
    model = video_model(settings.model.name)
    machine = this_machine(settings.model.device, hub.hub_cache())
    if model.needs_gpu and machine.gpu is None and settings.model.device != "cpu":
        machine = elsewhere(machine)
    return estimate(
        settings,
        machine=machine,
        model=model,
        photos=photos,
        todo=todo,
        downloads=downloads(settings, model, todo, judging),
        measured=seconds_of(home, settings),
        judging=judging,
    )


def downloads(
    settings: Settings, model: VideoModel, todo: Collection[str], judging: Judging | None = None
) -> dict[str, float]:
    """GB still to fetch for these stages, by repository; the catalog's figure where the Hub was not asked yet."""
    found: dict[str, float] = {}
    for source, patterns in _sources(settings, model, todo, judging):
        if hub.state(source, patterns) != "cached":
            missing = hub.missing_bytes(source, patterns)
            found[source.repo] = source.gigabytes if missing is None else missing / GB
    return found


def _sources(
    settings: Settings, model: VideoModel, todo: Collection[str], judging: Judging | None
) -> Iterator[tuple[Source, list[str] | None]]:
    rewards = settings.rewards

    def judges(reward: str) -> bool:
        return "score" in todo and (judging is None or reward in judging.rewards)

    if model.source and not {"reconstruct", "sample", "prefer", "generate"}.isdisjoint(todo):
        yield model.source, PATTERNS
    if "ingest" in todo or judges("identity") or ("prefer" in todo and settings.prefer.guards):
        finder = model.face_detector if rewards.face_detector == "auto" else rewards.face_detector
        recogniser = model.face_model if rewards.face_model == "auto" else rewards.face_model
        for name in (finder, recogniser):
            if name in FACE_MODELS:
                yield FACE_MODELS[name].source, [FACE_MODELS[name].file]
    judge = model.vlm if rewards.vlm == "auto" else rewards.vlm
    writes = settings.photos.captions == "vlm" and "ingest" in todo
    if (judges("semantics") or writes) and judge in JUDGES:
        yield JUDGES[judge].source, list(JUDGES[judge].files)
