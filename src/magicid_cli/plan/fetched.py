"""What of a run's weights is still to be fetched."""

from collections.abc import Collection, Iterator

from magicid_cli import hub
from magicid_cli.config import Settings
from magicid_cli.models import PATTERNS
from magicid_cli.models.catalog import FACE_MODELS, JUDGES, Source, VideoModel
from magicid_cli.plan.workload import Judging
from magicid_cli.rounds import stage_of


def downloads(
    settings: Settings, model: VideoModel, todo: Collection[str], judging: Judging | None = None
) -> dict[str, float]:
    """GB still to fetch for these stages, by repository; see `hub.to_fetch`."""
    return hub.to_fetch(_sources(settings, model, todo, judging))


def _sources(
    settings: Settings, model: VideoModel, todo: Collection[str], judging: Judging | None
) -> Iterator[tuple[Source, list[str] | None]]:
    rewards = settings.rewards
    stages = [stage_of(name) for name in todo]

    def judges(reward: str) -> bool:
        return "score" in stages and (judging is None or stages.count("score") > 1 or reward in judging.rewards)

    if model.source and not {"reconstruct", "sample", "prefer", "generate"}.isdisjoint(stages):
        yield model.source, PATTERNS
    if "ingest" in stages or judges("identity") or ("prefer" in stages and settings.prefer.guards):
        finder = model.face_detector if rewards.face_detector == "auto" else rewards.face_detector
        recogniser = model.face_model if rewards.face_model == "auto" else rewards.face_model
        for name in (finder, recogniser):
            if name in FACE_MODELS:
                yield FACE_MODELS[name].source, [FACE_MODELS[name].file]
    judge = model.vlm if rewards.vlm == "auto" else rewards.vlm
    writes = settings.photos.captions == "vlm" and "ingest" in stages
    if (judges("semantics") or writes) and judge in JUDGES:
        yield JUDGES[judge].source, list(JUDGES[judge].files)
