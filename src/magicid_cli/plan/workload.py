"""What each stage of a run computes, keeps in memory and writes, from its settings alone."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from magicid_cli.config import Settings, parse_size
from magicid_cli.models.base import Shape
from magicid_cli.models.catalog import JUDGES, VideoModel
from magicid_cli.models.execution import Execution
from magicid_cli.plan import costs, footprint
from magicid_cli.plan.begun import Begun
from magicid_cli.plan.costs import GB, Architecture, Cost
from magicid_cli.plan.machine import Machine
from magicid_cli.plan.memory import Choice, Need, choose
from magicid_cli.rounds import stage_of

STAGES = ("ingest", "reconstruct", "sample", "score", "select", "prefer", "generate")
# Those that hold the transformer.
HOLDING = ("reconstruct", "sample", "prefer", "generate")
TRAINING = ("reconstruct", "prefer")


@dataclass(frozen=True)
class Part:
    """A kind of computation that an item consists of.

    Attributes:
        kind: as `benchmarks/gpu.py` calls it: `sampling step`, `stage-1 step`, `preference step`, `decode`.
        times: how often an item has it done.
        cost: of once.
        shape: of the video.
    """

    kind: str
    times: float
    cost: Cost
    shape: Shape


@dataclass(frozen=True)
class Work:
    """What a stage does.

    Attributes:
        items: how many.
        item: what one is called.
        parts: what one has done on the transformer and the VAE; empty if they are not what takes the time.
        nominal_s: seconds of one, then.
        need: memory, where the models are.
    """

    items: int
    item: str
    parts: tuple[Part, ...]
    nominal_s: float
    need: Need

    @property
    def cost(self) -> Cost:
        """Of one item."""
        return sum((part.cost * part.times for part in self.parts), Cost())


@dataclass(frozen=True)
class Judging:
    """What scoring has left to do in a repository that is sampled.

    Attributes:
        clips: how many videos lack a score.
        rewards: those whose judges have something to do.
        exact: whether it is certain; who judges is sometimes known only once the Hub was asked.
    """

    clips: int
    rewards: tuple[str, ...]
    exact: bool

    @property
    def at_most(self) -> bool:
        """Whether it may take less than the nominal time, which is that of all three judges."""
        return bool(self.clips) and not (self.exact and len(self.rewards) == 3)


# Parameters of the text encoders that stay in memory while Magic-Me trains input embeddings: Llama's embeddings and 30
# of its 32 layers, and CLIP. Those of the small models are next to nothing.
_TEXT_PARAMETERS = {"hunyuan-video": 525_598_720 + 30 * 218_112_000 + 123_060_480}

# Seconds of what is not the video model's work, nominal: reading a photo and finding its face; judging a clip (faces,
# flow at about 1.1 s on one core, a few frames through the judge).
_PHOTO_S = {"hunyuan-video": 1.0, "mini": 0.1, "tiny": 0.1}
_CLIP_S = {"hunyuan-video": 5.0, "mini": 0.4, "tiny": 0.1}


def work_of(
    settings: Settings,
    model: VideoModel,
    photos: int,
    value_bytes: int,
    judging: Judging | None = None,
    executions: Mapping[str, Execution] | None = None,
) -> dict[str, Work]:
    """Every stage's work, by stage.

    Args:
        settings: of the run.
        model: the video model.
        photos: how many are given.
        value_bytes: of a number of the base: 2 in bfloat16, 4 in float32.
        judging: what scoring has left to do; None if all of it.
        executions: how each stage of `HOLDING` holds the model; the plainest way by default.
    """
    arch, adapter, repository = costs.ARCHITECTURES[model.name], settings.adapter, settings.repository
    held = {stage: (executions or {}).get(stage, Execution()) for stage in HOLDING}
    wanted, shape, learnt = settings.generate, training_shape(settings), learnt_shape(settings)
    step = costs.training_pass(arch, learnt, adapter, keep=held["reconstruct"].keep)
    used = min(photos, settings.photos.limit)
    videos, clips = repository.tuned + repository.initial, repository.tuned + repository.initial + used
    judge = model.vlm if settings.rewards.vlm == "auto" else settings.rewards.vlm
    judge_gb = JUDGES[judge].source.gigabytes if judge in JUDGES else 0.0
    writes = settings.photos.captions == "vlm"
    semantics = judging is None or "semantics" in judging.rewards
    needs = {stage: need(settings, arch, stage, value_bytes, execution) for stage, execution in held.items()}
    batch = settings.reconstruct.batch
    negative = 2 if has_two_passes(settings, "generate") else 1
    return {
        "ingest": Work(photos, "photo", (), _PHOTO_S[model.name], Need(judge_gb if writes else 0.0)),
        "reconstruct": Work(
            settings.reconstruct.steps, "step", (Part("stage-1 step", batch, step, learnt),), 0.0, needs["reconstruct"]
        ),
        "sample": Work(videos, "video", video(settings, arch, shape, sampled_steps(settings)), 0.0, needs["sample"]),
        "score": Work(
            clips if judging is None else judging.clips,
            "clip",
            (),
            _CLIP_S[model.name],
            Need(judge_gb if semantics else 0.0),
        ),
        "select": Work(1, "selection", (), 1.0, Need(0.0)),
        "prefer": Work(settings.prefer.steps, "step", preference(settings, arch, held["prefer"]), 0.0, needs["prefer"]),
        "generate": Work(
            wanted.count,
            "video",
            video(settings, arch, generated_shape(settings), wanted.steps * negative),
            0.0,
            needs["generate"],
        ),
    }


def video(settings: Settings, arch: Architecture, shape: Shape, steps: float) -> tuple[Part, ...]:
    """A sampled video: forwards of the transformer with an adapter, and its decoding."""
    step = costs.forward(arch, shape, settings.adapter)
    return Part("sampling step", steps, step, shape), Part("decode", 1, costs.decode(shape), shape)


def sampled_steps(settings: Settings) -> float:
    """Denoising steps of a video of the repository, and its share of the one that MagCache's ratios are measured on."""
    wanted = settings.repository
    more = 1 if wanted.step_cache and wanted.step_cache_kind == "magcache" else 0
    return wanted.steps * (1 + more / max(1, wanted.tuned + wanted.initial))


def preference(settings: Settings, arch: Architecture, execution: Execution) -> tuple[Part, ...]:
    """A step of stage 2: its pairs and the probe's, and its share of held-out pairs and of the guards' videos."""
    prefer, shape, steps = settings.prefer, training_shape(settings), max(1, settings.prefer.steps)
    pair = costs.preference_step(arch, shape, settings.adapter, keep=execution.keep)
    alone = costs.training_pass(arch, shape, settings.adapter, keep=execution.keep)
    pairs = (prefer.steps + (prefer.probe_steps if prefer.beta is None else 0)) * prefer.batch
    looked_at = looks(settings)
    held_out_at = looked_at.union(range(0, prefer.steps + 1, prefer.held_out_every)) - {0}
    measured = 4 * len(held_out_at) * settings.pairs.held_out
    watched = len(looked_at) * prefer.watch_videos / steps
    whole = measured_anew(settings, pairs)
    parts = [
        Part("preference step", whole / steps, pair, shape),
        # Where the bank knows the reference's errors, what is left of a pair is a training pass of each video.
        Part("stage-1 step", 2 * (pairs - whole) / steps, alone, shape),
        # Forwards with an adapter on, as a sampler's steps are.
        Part("sampling step", measured / steps, costs.forward(arch, shape, settings.adapter), shape),
        *(
            Part(part.kind, part.times * watched, part.cost, part.shape)
            for part in video(settings, arch, shape, settings.repository.steps)
        ),
    ]
    return tuple(part for part in parts if part.times)


def measured_anew(settings: Settings, pairs: float) -> float:
    """Of so many pairs that are trained on, how many have their reference measured: all of them without a bank.

    A pair's draw is taken at random, so of `k` draws `k (1 - (1 - 1/k)^n)` are expected to be met in `n` steps.
    """
    draws, each = settings.prefer.bank, pairs / settings.pairs.count
    return pairs if not draws else settings.pairs.count * draws * (1 - (1 - 1 / draws) ** each)


def need(settings: Settings, arch: Architecture, stage: str, value_bytes: int, execution: Execution) -> Need:
    """Memory of a stage of `HOLDING`, if it holds the model in this way.

    `generate` and the guards of stage 2 decode beside the transformer; the repository is decoded when that is gone.
    """
    shape = {"reconstruct": learnt_shape, "generate": generated_shape}.get(stage, training_shape)(settings)
    found = footprint.memory(
        arch,
        shape,
        settings.adapter,
        value_bytes=value_bytes,
        training=stage in TRAINING,
        reference=stage == "prefer",
        execution=execution,
        samples=2 if execution.guided == "one batch" else 1,
    )
    decoding = footprint.decoding_memory(arch, shape, value_bytes=value_bytes)
    beside = stage == "generate" or (stage == "prefer" and bool(looks(settings)))
    look = found.weights + found.adapters + decoding if beside else 0.0
    loading = footprint.loading_memory(arch, execution, value_bytes)
    cache = settings.repository.step_cache_kind if stage == "sample" and settings.repository.step_cache else ""
    cached = footprint.step_cache_memory(arch, shape, cache, value_bytes) if cache else 0.0
    return Need(max(found.total + cached, look), found.pinned, loading)


def value_bytes_of(settings: Settings, machine: Machine) -> int:
    """Bytes of a number of the base where it is stored in full, on this machine."""
    return {"float32": 4, "bfloat16": 2}.get(settings.model.dtype, 2 if machine.gpu else 4)


def beside_gb(settings: Settings, machine: Machine, method: str) -> float:
    """GB that a method's training keeps in memory beside the model: Magic-Me's text encoders."""
    if method != "magic-me" or settings.magic_me.kind != "input":
        return 0.0
    return _TEXT_PARAMETERS.get(settings.model.name, 0) * value_bytes_of(settings, machine) / GB


def chosen(settings: Settings, model: VideoModel, machine: Machine, stage: str) -> Choice:
    """How a stage of `HOLDING` holds the model on this machine.

    Args:
        settings: of the run.
        model: the video model.
        machine: where it runs.
        stage: its name.
    """
    arch, value_bytes = costs.ARCHITECTURES[model.name], value_bytes_of(settings, machine)

    def needs(execution: Execution) -> Need:
        return need(settings, arch, stage, value_bytes, execution)

    guided, text_gb = has_two_passes(settings, stage), footprint.text_memory(arch, value_bytes)
    choice = choose(settings, machine, needs, text_gb=text_gb, guided=guided)
    if stage in TRAINING:
        return choice
    # Nothing is kept for a backward pass that never comes, and every attention kernel will do.
    return replace(choice, execution=replace(choice.execution, keep="nothing", kept_in="gpu"))


def has_two_passes(settings: Settings, stage: str) -> bool:
    """Whether every denoising step of the stage has a pass with the prompt and one with the negative prompt."""
    return stage == "generate" and settings.generate.true_guidance > 1


def looks(settings: Settings) -> set[int]:
    """The steps of stage 2 after which the guards sample videos; 0 is the look at the stage-1 model."""
    prefer = settings.prefer
    if not (prefer.guards and prefer.steps):
        return set()
    return {*range(0, prefer.steps, prefer.watch_every), prefer.steps}


def training_shape(settings: Settings) -> Shape:
    """The one shape of repository and training."""
    return Shape(settings.shape.frames, settings.shape.height, settings.shape.width)


def learnt_shape(settings: Settings) -> Shape:
    """The shape of stage 1: single frames if those are what it learns from."""
    shape = training_shape(settings)
    return Shape(1, shape.height, shape.width) if settings.reconstruct.clip == "frame" else shape


def generated_shape(settings: Settings) -> Shape:
    """The shape of `magicid generate`."""
    width, height = parse_size(settings.generate.size)
    return Shape(settings.generate.frames, height, width)


# A clip compressed for looking at, and copies of a checkpoint: two are kept while a third is written.
_BITS_PER_PIXEL, _CHECKPOINTS = 1.0, 3


def clip_bytes(settings: Settings) -> float:
    """Disk that a clip of the repository is planned with."""
    return costs.pixels(training_shape(settings)) * _BITS_PER_PIXEL / 8


def data_gb(
    settings: Settings,
    model: VideoModel,
    photos: int,
    todo: Collection[str],
    begun: Mapping[str, Begun],
) -> float:
    """Disk that these stages still take for the identity's files: latents and checkpoints in float32, clips; in GB."""
    arch = costs.ARCHITECTURES[model.name]
    shape = training_shape(settings)
    frames, height, width = costs.latent_size(shape, arch.compression)
    latents = arch.channels * frames * height * width * 4
    clip = clip_bytes(settings)
    adapter = costs.adapter_parameters(arch, settings.adapter) * 4
    training = adapter * (1 + 3 * _CHECKPOINTS)
    used = min(photos, settings.photos.limit)
    videos = settings.repository.tuned + settings.repository.initial + used
    size = {
        "reconstruct": used * latents + training,
        "sample": videos * (latents + clip),
        "prefer": training + max(0, len(looks(settings)) - 1) * adapter,
        "generate": settings.generate.count * costs.pixels(generated_shape(settings)) * _BITS_PER_PIXEL / 8,
    }
    taken = {name: one.gb for name, one in begun.items()}
    return sum(max(0.0, size.get(stage_of(name), 0.0) / GB - taken.get(name, 0.0)) for name in todo)
