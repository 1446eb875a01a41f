"""Several methods on one identity: one plan, the same prompts and seeds, one table and one page.

What is there is not made again: a method that is trained, a video that the very same adapter or keywords made with the
same settings, a measurement of the same file. The files lie in the identity's `compare/`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from magicid_cli import generation, hub, methods, pipeline
from magicid_cli import plan as planning
from magicid_cli.baselines import untrained
from magicid_cli.baselines.registry import MAGICID, METHODS, method
from magicid_cli.conditioning import references
from magicid_cli.config import Resolved, Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.evaluation import Evaluation, Item, collecting, evaluate, sheet, summary
from magicid_cli.evaluation.left import Left, left
from magicid_cli.events import Events
from magicid_cli.models.catalog import video_model
from magicid_cli.pages import side_by_side
from magicid_cli.plan import Estimate, Row
from magicid_cli.prompts import choose, drawn
from magicid_cli.prompts.names import resolve as resolve_name
from magicid_cli.rounds import FIRST, recorded
from magicid_cli.workspace import Workspace, file_digest, read_lines, write_text

TABLES = tuple(f"table{ending}" for ending in (".csv", ".md", ".tex", ".json"))
PAGE = "videos.html"

# Prompts of a comparison are chosen by another seed than those that MagicID practises.
_PROMPTS_SEED = 71


@dataclass(frozen=True)
class Wanted:
    """A video that every method makes.

    Attributes:
        prompt: with the class word where the person is.
        number: of the prompt, from 0.
        seed: of the noise.
    """

    prompt: str
    number: int
    seed: int

    @property
    def name(self) -> str:
        """What the video is called in tables."""
        return f"prompt {self.number + 1}, seed {self.seed}"

    @property
    def asked(self) -> generation.Asked:
        """As those who make it are asked for it."""
        return generation.Asked(self.prompt, self.seed)


@dataclass(frozen=True)
class Compared:
    """What a comparison left.

    Attributes:
        evaluations: by method.
        videos: files by method, in the order of `wanted`.
        made: how many videos this call made.
        trained: methods that this call trained.
        folder: where tables and page lie.
    """

    evaluations: dict[str, Evaluation]
    videos: dict[str, list[Path]]
    made: int
    trained: list[str]
    folder: Path

    @property
    def files(self) -> list[Path]:
        """Tables and page."""
        return [self.folder / name for name in (*TABLES, PAGE)]


def names_of(text: str) -> list[str]:
    """`a,b,c` → the methods, each once, in that order.

    Raises:
        MagicIDError: `settings-unknown`, or `usage` if none is named.
    """
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise MagicIDError("usage", "No method is named.", f"Name some: --methods {','.join(METHODS)}")
    return [method(name).name for name in found]


def wanted(identity: Workspace, settings: Settings) -> list[Wanted]:
    """The videos that every method makes, prompt by prompt.

    Raises:
        MagicIDError: `prompts-file`, `prompts-too-few`, `identity-ambiguous`.
    """
    own = settings.compare
    seeds = range(own.test_seed, own.test_seed + own.videos)
    prompts = enumerate(_prompts(identity, settings))
    return [Wanted(prompt, number, seed) for number, prompt in prompts for seed in seeds]


def _prompts(identity: Workspace, settings: Settings) -> list[str]:
    own, class_word = settings.compare, settings.photos.class_word
    is_drawn = video_model(settings.model.name).drawn
    if own.prompts_file:
        given = choose.from_file(Path(own.prompts_file).expanduser(), class_word)
        texts = [resolve_name(text, {identity.name: class_word}, identity.name).text for text in given]
        return [drawn.spelled(text) for text in texts] if is_drawn else texts
    practised = _practised(identity, settings)
    pick = drawn.pick if is_drawn else choose.pick
    # As many more as could be among those that were practised.
    found = pick(own.prompts + len(practised), _PROMPTS_SEED, class_word)
    return [text for text in found if text not in practised][: own.prompts]


def _practised(identity: Workspace, settings: Settings) -> set[str]:
    """The prompts that MagicID's repositories were made for; before there is one, those that it would be made for."""
    repositories = [identity.round(number).repository for number in range(FIRST, recorded(identity.manifest()) + 1)]
    found = {row["text"] for folder in repositories for row in read_lines(folder / "prompts.jsonl")}
    return found or set(pipeline.stage("sample").chosen_prompts(pipeline.seeded(identity, settings)))


# --------------------------------------------------------------------------------------------------------------- plan


def plan(identity: Workspace, names: Sequence[str], resolved: Resolved) -> tuple[Estimate, list[MagicIDError]]:
    """What all methods together take, each row called after its method, then the judges; and what is lacking for it.

    Raises:
        MagicIDError: `identity-unfinished` if MagicID is among them and has not ended, or as `methods.states`.
    """
    settings, parts, problems = resolved.settings, list[tuple[str, Estimate]](), list[MagicIDError]()
    made, to_make = dict[str, list[Path | None]](), 0
    for name in names:
        if to_train(identity, name, settings):
            planned = methods.plan(identity, name, resolved, None)
            problems += planned.problems
            parts.append((name, _called(planned.estimate, name, "training")))
        made[name] = made_before(identity, name, settings)
        missing = made[name].count(None)
        to_make += missing
        if missing:
            videos = methods.video_estimate(identity, name, settings, missing)
            problems += [*planning.check(videos), *_refusals(identity, name, settings)]
            parts.append((name, _called(videos, "generate", "videos")))
    nothing = planning.for_run(settings, photos=0, todo=(), home=identity.path)
    try:
        judging = _judging(identity, made, settings)
    except MagicIDError as error:
        judging = None
        problems.append(error)
    whole = _together(parts, judging, nothing)
    # Each part may fit a disk that has no room for all of them.
    too_much = planning.disk(whole)
    problems = [one for one in problems if one.code != "disk-space"]
    return whole, [*problems, *([too_much] if too_much else [])]


def _called(estimate: Estimate, before: str, after: str) -> Estimate:
    return replace(estimate, rows=tuple(methods.renamed(estimate.rows, before, after)))


def _together(parts: Sequence[tuple[str, Estimate]], judging: Left | None, nothing: Estimate) -> Estimate:
    """The plan of all: parts by the method whose they are, and the judges, on a plan with nothing to do."""
    rows = [replace(row, stage=f"{name}: {row.stage}") for name, one in parts for row in one.rows]
    downloads = {repo: size for _, one in parts for repo, size in one.downloads.items()}
    if judging:
        downloads |= judging.downloads
        rows += _judging_rows(judging)
    assumptions = [text for _, one in parts for text in one.assumptions] or nothing.assumptions
    return replace(
        nothing,
        rows=tuple(rows),
        downloads=downloads,
        data_gb=sum(one.data_gb for _, one in parts),
        assumptions=tuple(dict.fromkeys(assumptions)),
        at_most=any(one.at_most for _, one in parts),
    )


def _judging(identity: Workspace, made: Mapping[str, Sequence[Path | None]], settings: Settings) -> Left:
    """What the judges have left to do.

    Raises:
        MagicIDError: as `left`: what they would refuse only after hours of training.
    """
    asked = wanted(identity, settings)
    pairs = [(path, one) for paths in made.values() for path, one in zip(paths, asked, strict=True)]
    there = [Item(path, one.name, one.prompt) for path, one in pairs if path is not None]
    return left(
        there,
        len(pairs) - len(there),
        collecting.photos_of(identity),
        settings,
        store=_store(identity),
        fvd_reference=collecting.untouched(identity),
    )


def _judging_rows(judging: Left) -> list[Row]:
    if not (judging.videos or judging.reference):
        return []
    note = f"{judging.videos} videos" + (f", {judging.reference} of the reference set" if judging.reference else "")
    items = judging.videos + judging.reference
    return [Row("evaluate", items, judging.seconds, "estimated", 0.0, f"{note}, nominally")]


def _store(identity: Workspace) -> Path:
    """Where what was measured of an identity's videos is kept, for `magicid evaluate`, too."""
    return identity.path / "evaluation"


def _refusals(identity: Workspace, name: str, settings: Settings) -> list[MagicIDError]:
    """What a method with a model of its own would refuse only after the others were trained."""
    if not METHODS[name].own_model:
        return []
    try:
        pipeline.stage(name).require(identity.of_method(name), settings)
    except MagicIDError as error:
        return [error]
    return []


def to_train(identity: Workspace, name: str, settings: Settings) -> bool:
    """Whether a method has to be trained first.

    Raises:
        MagicIDError: `identity-unfinished` for MagicID, whose own training starts from the photos.
    """
    if name == MAGICID:
        generation.require_model(identity, settings)
        return False
    if not METHODS[name].trains:
        return False
    return any(one.state != "cached" for one in methods.states(identity, name, settings, None))


# -------------------------------------------------------------------------------------------------------------- videos


def made_before(identity: Workspace, name: str, settings: Settings) -> list[Path | None]:
    """For every wanted video the file, if it is there and what made it still holds; else None."""
    asked = wanted(identity, settings)
    if METHODS[name].trains and name != MAGICID and to_train(identity, name, settings):
        return [None] * len(asked)
    space, holds = methods.folder(identity, name), _holding(identity, name, settings)
    known = {}
    for row in read_lines(space.videos / "videos.jsonl"):
        if holds(row) and Path(row["file"]).is_file():
            known[row["prompt"], row["seed"]] = Path(row["file"])
    return [known.get((one.prompt, one.seed)) for one in asked]


def _holding(identity: Workspace, name: str, settings: Settings) -> Callable[[dict[str, Any]], bool]:
    """What tells of a video's record whether the video still counts."""
    if METHODS[name].own_model:
        section = getattr(settings, name.replace("-", "_"))
        looked_at = (identity.references / "captions.jsonl").is_file()
        photos = {one.sha256 for one in references(identity)} if looked_at else set[str]()
        at = untrained.commits(METHODS[name])
        return lambda row: untrained.still_holds(row, METHODS[name], section, photos, at)
    made_with = _made_with(identity, name, settings)
    return lambda row: all(_as_made(row, key) == value for key, value in made_with.items())


def _made_with(identity: Workspace, name: str, settings: Settings) -> dict[str, Any]:
    """What a record of a video must say for the video to count."""
    space = methods.folder(identity, name)
    adapter, words = generation.chosen_adapter(space, settings), generation.keywords_of(space)
    return {
        "model": settings.model.name,
        "base": None if settings.model.base == "full" else settings.model.base,
        "adapter": file_digest(adapter) if adapter else None,
        "keywords": file_digest(words) if words else None,
        "settings": {**asdict(settings.generate), "count": None},
    }


def _as_made(row: dict[str, Any], key: str) -> Any:
    """A record's value as it counts: how many videos were asked for together changes none of them."""
    value = row.get(key)
    return {**value, "count": None} if isinstance(value, dict) and "count" in value else value


def run(identity: Workspace, names: Sequence[str], resolved: Resolved, events: Events) -> Compared:
    """Train what is not trained, make what is not made, measure all of it, and write tables and page.

    Args:
        identity: with checked photos.
        names: of the methods.
        resolved: settings and their origins.
        events: where progress goes.

    Raises:
        MagicIDError: as training, generating and measuring do; what was finished stays.
        KeyboardInterrupt: somebody asked to stop; the same call goes on.
    """
    settings = resolved.settings
    trained = [name for name in names if to_train(identity, name, settings)]
    for name in trained:
        methods.run(identity, name, resolved, None, events)
    asked, videos, made = wanted(identity, settings), dict[str, list[Path]](), 0
    for name in names:
        before = made_before(identity, name, settings)
        missing = [one.asked for path, one in zip(before, asked, strict=True) if path is None]
        new = methods.generate_each(identity, name, settings, missing, events=events) if missing else []
        paths = iter([one.path for one in new])
        videos[name] = [path or next(paths) for path in before]
        made += len(missing)
    # One table, so the same judges for every method, whatever a branch of the Hub means meanwhile.
    commits: hub.Commits = {}
    evaluations = {
        METHODS[name].title: evaluate(
            [Item(path, one.name, one.prompt) for path, one in zip(paths, asked, strict=True)],
            collecting.photos_of(identity),
            settings,
            store=_store(identity),
            events=events,
            fvd_reference=collecting.untouched(identity),
            about_reference=_about_reference(identity, name, settings, asked),
            commits=commits,
        )
        for name, paths in videos.items()
    }
    evaluations = summary.beside(evaluations)
    found = Compared(evaluations, videos, made, trained, identity.path / "compare")
    _write(identity, names, asked, found)
    return found


def _about_reference(identity: Workspace, name: str, settings: Settings, asked: Sequence[Wanted]) -> str:
    """In what FVD's reference set differs from a method's videos."""
    section = getattr(settings, name.replace("-", "_")) if METHODS[name].own_model else settings.generate
    return collecting.untouched_apart(identity, settings, asdict(section), {one.prompt for one in asked})


def _write(identity: Workspace, names: Iterable[str], asked: Sequence[Wanted], found: Compared) -> None:
    for name in TABLES:
        write_text(found.folder / name, sheet.WRITERS[Path(name).suffix](found.evaluations))
    header, rows = sheet.by_metric(found.evaluations)
    said = [f"{title}: {text}" for title, one in found.evaluations.items() for text in (*one.notes, *sheet.gaps(one))]
    columns = [
        side_by_side.Column(METHODS[name].title, METHODS[name].trains or "nothing is trained", found.videos[name])
        for name in names
    ]
    prompts = [side_by_side.Line(one.prompt, one.seed) for one in asked]
    try:
        side_by_side.write(found.folder / PAGE, identity.name, header, rows, said, columns, prompts)
    except MagicIDError as error:
        if error.code != "video-unreadable":
            raise
        raise MagicIDError(
            error.code,
            f"{error.message} The tables are written, and it counts nowhere in them; the page is not.",
            f"Remove it from {identity.path}: the same command makes it again.",
        ) from error
