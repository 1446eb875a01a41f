"""What an evaluation has left to fetch and to look at, told before it starts: nothing is fetched, no video is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from magicid_cli import hub
from magicid_cli.config import Settings
from magicid_cli.evaluation import harness
from magicid_cli.evaluation.features import Features
from magicid_cli.evaluation.measure import Photos, Store
from magicid_cli.evaluation.motion import Motion
from magicid_cli.evaluation.pictures import network_name
from magicid_cli.evaluation.records import Item
from magicid_cli.events import Events
from magicid_cli.models.catalog import FACE_MODELS, FEATURE_MODELS, JUDGES, Source, video_model

# Seconds that all judges take with a video on one core, nominal: processor time as it was measured, with decoding. For
# real people with the networks of `benchmarks/evaluate.py` and 61 frames of 720x1280, for the small models with videos
# of their own size. FVD's network is all that sees the reference set.
_VIDEO_S = {"hunyuan-video": 15.0, "mini": 0.4, "tiny": 0.35}
_REFERENCE_SHARE = 0.15


@dataclass(frozen=True)
class Left:
    """What is left.

    Attributes:
        videos: that some judge has not seen yet.
        reference: of FVD's reference set, that its network has not seen.
        seconds: for all of them, nominal.
        downloads: GB still to fetch for the judges, by repository.
    """

    videos: int
    reference: int
    seconds: float
    downloads: dict[str, float]


def left(
    there: Sequence[Item],
    to_come: int,
    references: Sequence[Path],
    settings: Settings,
    *,
    store: Path,
    fvd_reference: Sequence[Path] = (),
) -> Left:
    """What `evaluate` would do.

    Args:
        there: videos that exist.
        to_come: how many videos are still to be made; all judges will look at each.
        references: photos of the person.
        settings: as for `evaluate`.
        store: as for `evaluate`.
        fvd_reference: as for `evaluate`.

    Raises:
        MagicIDError: a judge that cannot be opened as it is asked for: `settings-unknown`, `settings-invalid`,
            `raft-missing`, `face-model-missing`, `features-unusable`, `gpu-missing`.
    """
    downloads = hub.to_fetch(_sources(settings, fvd=bool(fvd_reference)))
    videos, reference = _unseen(there, references, settings, store, fvd_reference, known=not downloads)
    videos += to_come
    # Where there is no video there is no FVD either.
    reference = reference if there or to_come else 0
    each = _VIDEO_S[settings.model.name]
    seconds = each * (videos + _REFERENCE_SHARE * reference)
    return Left(videos, reference, seconds, downloads if videos or reference else {})


def _unseen(
    there: Sequence[Item],
    references: Sequence[Path],
    settings: Settings,
    store: Path,
    fvd_reference: Sequence[Path],
    *,
    known: bool,
) -> tuple[int, int]:
    """Videos and clips of the reference set that a judge has not seen; all, if it is not known who judges."""
    events, kept = Events(), Store(store)
    if not known:
        Motion(settings, events)  # refuses a flow that there is not
        return len(there), len(fvd_reference)
    measures = harness.judges(settings, Photos(list(references)), kept, events, {})
    features = [Features(settings, events, used=False)] if fvd_reference else []
    clips = [Item(path, path.name) for path in fvd_reference]
    return (
        sum(harness.unseen(item, [*measures, *features], kept) for item in there),
        sum(harness.unseen(item, features, kept) for item in clips),
    )


def _sources(settings: Settings, *, fvd: bool) -> Iterator[tuple[Source, Sequence[str] | None]]:
    """The repositories of the judges, and what is needed of each."""
    rewards, model = settings.rewards, video_model(settings.model.name)
    finder = model.face_detector if rewards.face_detector == "auto" else rewards.face_detector
    reward = model.face_model if rewards.face_model == "auto" else rewards.face_model
    judge = rewards.evaluation_face_model
    if judge == "auto":
        judge = model.face_model if reward == model.evaluation_face_model else model.evaluation_face_model
    for name in dict.fromkeys((finder, reward, judge)):
        if name in FACE_MODELS:
            yield FACE_MODELS[name].source, [FACE_MODELS[name].file]
    network = network_name(settings)
    if network in JUDGES:
        yield JUDGES[network].source, JUDGES[network].files
    wanted = settings.evaluate.fvd_features
    wanted = model.evaluation_features if wanted == "auto" else wanted
    if fvd and wanted in FEATURE_MODELS:
        yield FEATURE_MODELS[wanted].source, [FEATURE_MODELS[wanted].file]
