"""Videos in, the table's row out: every video × every measure, kept one by one, then means with intervals."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magicid_cli import hub, video
from magicid_cli.alignment import one_thread_each
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.evaluation import summary
from magicid_cli.evaluation.features import Features
from magicid_cli.evaluation.likeness import Likeness
from magicid_cli.evaluation.measure import Measure, Photos, Store
from magicid_cli.evaluation.motion import Motion
from magicid_cli.evaluation.pictures import Pictures
from magicid_cli.evaluation.records import FORMAT, Evaluation, Item, SetAside
from magicid_cli.events import Events
from magicid_cli.rewards.base import Clip
from magicid_cli.workspace import digest, file_digest

NAME = "evaluate"


@dataclass
class Measured:
    """A video and what was found about it.

    Attributes:
        item: the video.
        content: SHA-256 of the file.
        found: by the measure's name; each has `fps`, the video's frames per second, beside what the measure found.
    """

    item: Item
    content: str
    found: dict[str, dict[str, Any]] = field(default_factory=dict)


def evaluate(
    videos: Sequence[Item],
    references: Sequence[Path],
    settings: Settings,
    *,
    store: Path,
    events: Events,
    fvd_reference: Sequence[Path] = (),
    about_reference: str = "",
    commits: hub.Commits | None = None,
) -> Evaluation:
    """Measure videos of one person.

    What was measured before, of the same file by the same models, is taken from `store`: a second call loads no model.

    Args:
        videos: the videos, each with its prompt.
        references: photos of the person.
        settings: `model.name` decides which judges `auto` means; `rewards` and `evaluate` name others.
        store: a folder for results of single videos; made if it is missing.
        events: told about progress, downloads and what a user should know.
        fvd_reference: video files of the reference set; without any there is no FVD.
        about_reference: what a reader of FVD must know of that set, a sentence.
        commits: which commits of the face networks judge, see `hub.settled`; the same object given to several calls
            makes them use the same ones.

    Raises:
        MagicIDError: `videos-missing` without videos, `photos-none-usable` if no photo shows a face, `videos-unusable`
            if no video can be read, or what opening a judge raises.
    """
    if not videos:
        raise MagicIDError("videos-missing", "There is no video to evaluate.", "Give a folder with videos.")
    kept, photos = Store(store), Photos(list(references))
    measures = judges(settings, photos, kept, events, {} if commits is None else commits)
    faces = next(one for one in measures if isinstance(one, Likeness))
    features, no_fvd = _features(settings, fvd_reference, events)
    with one_thread_each(), _closing([*measures, *([features] if features else [])]):
        about_photos = faces.about_photos()
        looks = [*measures, features] if features else measures
        rows, aside = measured(videos, looks, kept, events, part="videos")
        reference: list[Measured] = []
        if features:
            files = [Item(path, path.name) for path in fvd_reference]
            reference, lost = measured(files, [features], kept, events, part="reference set of FVD")
            aside += [SetAside(f"{one.name} (reference set of FVD)", one.why) for one in lost]
    if not rows:
        named = "; ".join(f"{one.name} ({one.why})" for one in aside[:5])
        raise MagicIDError("videos-unusable", f"No video can be evaluated: {named}.", "Make or copy them again.")
    return summary.evaluation(rows, reference, looks, about_photos, aside, no_fvd, settings, about_reference)


def judges(settings: Settings, photos: Photos, kept: Store, events: Events, commits: hub.Commits) -> list[Measure]:
    """Who looks at every video, in the order of the table; see `evaluate` for the arguments."""
    likeness = Likeness(settings, photos, kept, events, commits)
    return [likeness, Motion(settings, events), Pictures(settings, photos, events)]


def unseen(item: Item, measures: Sequence[Measure], store: Store) -> bool:
    """Whether one of the measures has not looked at a video that can be opened."""
    try:
        row = Measured(item, file_digest(item.path))
    except OSError:
        return False
    return any(store.get(_key(measure, row)) is None for measure in measures)


def _features(settings: Settings, reference: Sequence[Path], events: Events) -> tuple[Features | None, str]:
    """What FVD compares; or None and why there is no FVD."""
    if not reference:
        return None, "no reference set"
    try:
        return Features(settings, events), ""
    except MagicIDError as error:
        # The other five metrics are worth having without it; the gap is stated where the number would stand.
        if not error.code.startswith("weights-"):
            raise
        events.notice(f"There will be no FVD. {error.message} {error.hint}", stage=NAME)
        return None, error.message.rstrip(".")


@contextmanager
def _closing(measures: Sequence[Measure]) -> Iterator[None]:
    try:
        yield
    finally:
        for measure in measures:
            measure.close()


def measured(
    items: Sequence[Item], measures: Sequence[Measure], store: Store, events: Events, *, part: str
) -> tuple[list[Measured], list[SetAside]]:
    """Let measures look at the videos that they have not seen, each video decoded once for all of them.

    Args:
        items: the videos.
        measures: who looks.
        store: what they found before.
        events: told after every video that was looked at.
        part: what the videos are, for the progress.

    Returns:
        What was found about every video that can be read, in order; and the others with their reasons.
    """
    rows, aside, todo = [], [], []
    for item in items:
        try:
            row = Measured(item, file_digest(item.path))
        except OSError as error:
            aside.append(SetAside(item.name, f"it cannot be opened: {error.strerror}"))
            continue
        rows.append(row)
        keys = {measure.name: _key(measure, row) for measure in measures}
        row.found = {name: found for name, key in keys.items() if (found := store.get(key)) is not None}
        if len(row.found) < len(measures):
            todo.append(row)
    for number, row in enumerate(todo, 1):
        try:
            _look(row, measures, store)
        except MagicIDError as error:
            if error.code != "video-unreadable":
                raise
            rows.remove(row)
            aside.append(SetAside(row.item.name, error.message.rstrip(".").removeprefix(f"{row.item.path.name} ")))
        events.emit("step", stage=NAME, part=part, step=number, of=len(todo))
    return rows, aside


def _key(measure: Measure, row: Measured) -> str:
    return digest([FORMAT, measure.name, measure.made_by, row.content, *measure.reads(row.item.prompt)])


def _look(row: Measured, measures: Sequence[Measure], store: Store) -> None:
    """Decode one video and have it looked at, a thread each: OpenCV and torch release the interpreter."""
    # Of two equal files the second one may be known by now.
    missing = []
    for measure in measures:
        known = row.found.get(measure.name) or store.get(_key(measure, row))
        if known is None:
            missing.append(measure)
        else:
            row.found[measure.name] = known
    if not missing:
        return
    frames, fps = video.read_video(row.item.path)
    clip = Clip(frames, fps, row.item.prompt or "")
    with ThreadPoolExecutor(len(missing)) as pool:
        running = {pool.submit(measure.look, clip, row.item.prompt): measure for measure in missing}
        for done in as_completed(running):
            measure = running[done]
            row.found[measure.name] = {**done.result(), "fps": round(fps, 3)}
            store.put(_key(measure, row), row.found[measure.name])
