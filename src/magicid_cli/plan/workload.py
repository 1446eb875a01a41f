"""What each stage of a run computes, keeps in memory and writes, from its settings alone."""

from collections.abc import Collection
from dataclasses import dataclass

from magicid_cli.config import Settings, parse_size
from magicid_cli.models.base import Shape
from magicid_cli.models.catalog import JUDGES, VideoModel
from magicid_cli.plan import costs
from magicid_cli.plan.costs import GB, Architecture, Cost

STAGES = ("ingest", "reconstruct", "sample", "score", "select", "prefer", "generate")


@dataclass(frozen=True)
class Work:
    """What a stage does.

    Attributes:
        items: how many.
        item: what one is called.
        cost: of one on the transformer and the VAE, or None if they are not what takes the time.
        nominal_s: seconds of one, then.
        memory_gb: peak, where the models are.
    """

    items: int
    item: str
    cost: Cost | None
    nominal_s: float
    memory_gb: float


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


# Seconds of what is not the video model's work, nominal: reading a photo and finding its face; judging a clip (faces,
# flow at about 1.1 s on one core, a few frames through the judge).
_PHOTO_S = {"hunyuan-video": 1.0, "mini": 0.1, "tiny": 0.1}
_CLIP_S = {"hunyuan-video": 5.0, "mini": 0.4, "tiny": 0.1}


def work_of(
    settings: Settings, model: VideoModel, photos: int, value_bytes: int, judging: Judging | None = None
) -> dict[str, Work]:
    """Every stage's work, by stage.

    Args:
        settings: of the run.
        model: the video model.
        photos: how many are given.
        value_bytes: of a number of the base: 2 in bfloat16, 4 in float32.
        judging: what scoring has left to do; None if all of it.
    """
    arch, adapter, repository = costs.ARCHITECTURES[model.name], settings.adapter, settings.repository
    wanted, checkpointing = settings.generate, settings.training.gradient_checkpointing
    shape, large = training_shape(settings), generated_shape(settings)
    learnt = Shape(1, shape.height, shape.width) if settings.reconstruct.clip == "frame" else shape
    step = costs.training_pass(arch, learnt, adapter, checkpointing=checkpointing)
    videos, clips = repository.tuned + repository.initial, repository.tuned + repository.initial + photos
    denoise, negative = costs.forward(arch, shape, adapter), 2 if wanted.true_guidance > 1 else 1
    video = denoise * repository.steps + costs.decode(shape)
    made = costs.forward(arch, large, adapter) * (wanted.steps * negative) + costs.decode(large)

    def memory(at: Shape, *, training: bool) -> float:
        return costs.memory(
            arch, at, adapter, value_bytes=value_bytes, training=training, checkpointing=checkpointing
        ).total

    judge = model.vlm if settings.rewards.vlm == "auto" else settings.rewards.vlm
    judge_gb = JUDGES[judge].source.gigabytes if judge in JUDGES else 0.0
    writes = settings.photos.captions == "vlm"
    steps = settings.reconstruct.steps
    return {
        "ingest": Work(photos, "photo", None, _PHOTO_S[model.name], judge_gb if writes else 0.0),
        "reconstruct": Work(steps, "step", step * settings.reconstruct.batch, 0.0, memory(learnt, training=True)),
        "sample": Work(videos, "video", video, 0.0, memory(shape, training=False)),
        "score": Work(
            clips if judging is None else judging.clips,
            "clip",
            None,
            _CLIP_S[model.name],
            judge_gb if judging is None or "semantics" in judging.rewards else 0.0,
        ),
        "select": Work(1, "selection", None, 1.0, 0.0),
        "prefer": _preference(settings, arch, video, value_bytes),
        "generate": Work(wanted.count, "video", made, 0.0, memory(large, training=False)),
    }


def _preference(settings: Settings, arch: Architecture, video: Cost, value_bytes: int) -> Work:
    """Stage 2: the pairs of all steps and of the probe, the held-out pairs, and the videos that the guards sample."""
    prefer, shape, adapter = settings.prefer, training_shape(settings), settings.adapter
    checkpointing = settings.training.gradient_checkpointing
    pair = costs.preference_step(arch, shape, adapter, checkpointing=checkpointing)
    pairs = (prefer.steps + (prefer.probe_steps if prefer.beta is None else 0)) * prefer.batch
    looked_at = looks(settings)
    held_out_at = looked_at.union(range(0, prefer.steps + 1, prefer.held_out_every)) - {0}
    cost = pair * pairs + costs.forward(arch, shape, adapter) * (4 * len(held_out_at) * settings.pairs.held_out)
    cost += video * (len(looked_at) * prefer.watch_videos)
    step = costs.memory(arch, shape, adapter, value_bytes=value_bytes, reference=True, checkpointing=checkpointing)
    # The guards' videos are decoded beside the transformer and everything that is trained.
    look = step.weights + step.adapters + costs.decoding_memory(arch, shape, value_bytes=value_bytes)
    memory = max(step.total, look if looked_at else 0.0)
    return Work(prefer.steps, "step", cost * (1 / max(1, prefer.steps)), 0.0, memory)


def looks(settings: Settings) -> set[int]:
    """The steps of stage 2 after which the guards sample videos; 0 is the look at the stage-1 model."""
    prefer = settings.prefer
    if not (prefer.guards and prefer.steps):
        return set()
    return {*range(0, prefer.steps, prefer.watch_every), prefer.steps}


def training_shape(settings: Settings) -> Shape:
    """The one shape of repository and training."""
    return Shape(settings.shape.frames, settings.shape.height, settings.shape.width)


def generated_shape(settings: Settings) -> Shape:
    """The shape of `magicid generate`."""
    width, height = parse_size(settings.generate.size)
    return Shape(settings.generate.frames, height, width)


# A clip compressed for looking at, and copies of a checkpoint: two are kept while a third is written.
_BITS_PER_PIXEL, _CHECKPOINTS = 1.0, 3


def data_gb(settings: Settings, model: VideoModel, photos: int, todo: Collection[str]) -> float:
    """Disk that these stages take for the identity's files: latents and checkpoints in float32, clips; in GB."""
    arch = costs.ARCHITECTURES[model.name]
    shape = training_shape(settings)
    frames, height, width = costs.latent_size(shape, arch.compression)
    latents = arch.channels * frames * height * width * 4
    clip = costs.pixels(shape) * _BITS_PER_PIXEL / 8
    adapter = costs.adapter_parameters(arch, settings.adapter) * 4
    training = adapter * (1 + 3 * _CHECKPOINTS)
    videos = settings.repository.tuned + settings.repository.initial + photos
    size = {
        "reconstruct": photos * latents + training,
        "sample": videos * (latents + clip),
        "prefer": training + max(0, len(looks(settings)) - 1) * adapter,
        "generate": settings.generate.count * costs.pixels(generated_shape(settings)) * _BITS_PER_PIXEL / 8,
    }
    return sum(size.get(name, 0.0) for name in todo) / GB
