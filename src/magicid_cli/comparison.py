"""The same prompts and seeds with the untouched model, with stage 1 and with the final adapter: what the report shows.

The prompts and seeds are those that the guards watch, at the repository's shape and sampling; so the values of stage 1
are those of `prefer/looks.jsonl`, up to what a video file loses. Everything lies in the identity's `comparison/` and is
made once: a video again only if what made it has changed, a score only if its video or its judge has.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from magicid_cli import generation, models, video
from magicid_cli.config import GenerateSettings, Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.guards.watching import Wish, wishes
from magicid_cli.models.base import Family
from magicid_cli.pages.report.answer import Compared
from magicid_cli.plan import Estimate, Judging, for_run, running
from magicid_cli.repeating import customize
from magicid_cli.rewards.base import Clip
from magicid_cli.stages import sample, score
from magicid_cli.workspace import Workspace, append_line, digest, file_digest, read_lines, write_lines

STAGE = "generate"
METHODS = ("base", "stage-1", "final")


@dataclass(frozen=True)
class Item:
    """A video of the comparison.

    Attributes:
        id: its name.
        method: one of `METHODS`.
        wish: its prompt and seed.
        adapter: the adapter's file, or None.
        key: digest of everything that makes it.
    """

    id: str
    method: str
    wish: Wish
    adapter: Path | None
    key: str


def folder(workspace: Workspace) -> Path:
    """Where the comparison lies."""
    return workspace.path / "comparison"


def items(workspace: Workspace, settings: Settings) -> list[Item]:
    """The videos that a comparison of this identity consists of; none before stage 1 has ended.

    An identity without stage 2 is compared with the untouched model alone.
    """
    manifest = workspace.manifest()
    stage_1, final = workspace.reconstruct / "adapter.safetensors", manifest.get("adapter")
    files: dict[str, Path | None] = {"base": None, "stage-1": stage_1}
    if final is not None and (workspace.path / final).is_file() and workspace.path / final != stage_1:
        files["final"] = workspace.path / final
    photos = workspace.references / "embeddings.safetensors"  # by which likeness is judged
    if not (stage_1.is_file() and photos.is_file()):
        return []
    if manifest["stages"].get("reconstruct", {}).get("state") != "done":
        return []  # what lies there is of earlier settings
    wanted = sampling(settings)
    made_with = [
        manifest["stages"]["reconstruct"].get("result", {}).get("commit"),
        settings.model.name,
        settings.model.dtype,
        [wanted.size, wanted.frames, wanted.fps, wanted.steps, wanted.guidance, wanted.adapter_start],
    ]
    if settings.model.base != "full":  # it makes other videos; keys of full ones stay what they were
        made_with.append(settings.model.base)
    contents = {method: None if path is None else file_digest(path) for method, path in files.items()}
    return [
        Item(
            f"{method}-{number:02d}",
            method,
            wish,
            path,
            digest([method, made_with, contents[method], wish.prompt, wish.seed]),
        )
        for number, wish in enumerate(_wishes(workspace, settings))
        for method, path in files.items()
    ]


def _wishes(workspace: Workspace, settings: Settings) -> list[Wish]:
    """The watched prompts and seeds; without a repository, prompts as the repository would have had."""
    if (workspace.repository / "prompts.jsonl").is_file():
        return wishes(workspace, settings)
    try:
        chosen = sample.chosen_prompts(settings)[: settings.prefer.watch_videos]
    except MagicIDError as error:
        if error.code != "prompts-file":
            raise
        return []  # their file is gone, and no repository keeps them
    return [Wish(text, int(digest([settings.seed, "watched", n])[:12], 16)) for n, text in enumerate(chosen)]


def sampling(settings: Settings) -> GenerateSettings:
    """How the videos are sampled: as the repository's, and as `generate` wears the adapter."""
    shape, repository = settings.shape, settings.repository
    return replace(
        settings.generate,
        size=shape.size,
        frames=shape.frames,
        fps=shape.fps,
        steps=repository.steps,
        guidance=repository.guidance,
        true_guidance=1.0,
        negative_prompt="",
    )


def found(workspace: Workspace, settings: Settings) -> list[Compared]:
    """The videos that are here as they would be made now, with what the judges said of them, by prompt and method."""
    here = {row["key"]: row for row in read_lines(folder(workspace) / "videos.jsonl")}
    scores = {
        (row["id"], row.get("content"), row["reward"]): row["raw"]
        for row in read_lines(folder(workspace) / "scores.jsonl")
    }
    shown = []
    for item in items(workspace, settings):
        row = here.get(item.key)
        if row is None or not _is_whole(workspace, row):
            continue
        content = row["clip_sha256"]
        identity = scores.get((item.id, content, "identity"), {})
        shown.append(
            Compared(
                id=item.id,
                method=item.method,
                prompt=item.wish.prompt,
                seed=item.wish.seed,
                clip=folder(workspace) / row["clip"],
                content=content,
                likeness=identity.get("value"),
                motion=scores.get((item.id, content, "dynamics"), {}).get(settings.pairs.dynamics),
                following=scores.get((item.id, content, "semantics"), {}).get("value"),
                face_found=identity.get("found"),
                frames=tuple(identity.get("frames", ())),
                cosines=tuple(identity.get("cosines", ())),
            )
        )
    return shown


def to_make(workspace: Workspace, settings: Settings) -> list[Item]:
    """The videos that are not here as they would be made now."""
    here = {row["key"]: row for row in read_lines(folder(workspace) / "videos.jsonl")}
    return [item for item in items(workspace, settings) if not _is_whole(workspace, here.get(item.key))]


def _is_whole(workspace: Workspace, row: Mapping[str, Any] | None) -> bool:
    clip = None if row is None else folder(workspace) / row["clip"]
    return row is not None and clip is not None and clip.is_file() and file_digest(clip) == row["clip_sha256"]


def estimate(workspace: Workspace, settings: Settings) -> Estimate:
    """What making and judging the missing videos takes."""
    count = len(to_make(workspace, settings))
    wanted = replace(settings, generate=replace(sampling(settings), count=max(1, count)))
    judging = Judging(len(items(workspace, settings)), tuple(score.REWARDS), False)
    todo = {STAGE, score.NAME} if count else {score.NAME}
    return for_run(wanted, photos=0, todo=todo, home=workspace.path, judging=judging)


def make(workspace: Workspace, settings: Settings, events: Events) -> int:
    """Make and judge what is missing.

    Args:
        workspace: of the identity; locked while this works.
        settings: of its last run.
        events: where progress goes.

    Returns:
        The number of videos that were made.

    Raises:
        MagicIDError: what sampling or judging raises; what was finished stays.
        KeyboardInterrupt: somebody asked to stop; the same call goes on.
    """
    with workspace.lock():
        todo = to_make(workspace, settings)
        if todo:
            smaller = "Leave the videos out (--no-videos), or free the GPU."
            with models.gpu_memory("generating", smaller):
                _sample(workspace, settings, todo, events)
        _judge(workspace, settings, events)
        return len(todo)


def _sample(workspace: Workspace, settings: Settings, todo: list[Item], events: Events) -> None:
    from magicid_cli import adapters, conditioning

    wanted = replace(sampling(settings), count=len(todo))
    family = running.open_family(replace(settings, generate=wanted), STAGE, events)
    known = workspace.manifest()["stages"]["reconstruct"].get("result", {}).get("commit")
    if family.commit != known:
        raise MagicIDError(
            "model-mismatch",
            f"'{workspace.name}' was trained on weights that are not here any more ({known}; here: {family.commit}).",
            f"Customize again: {customize(workspace)}",
        )
    texts = workspace.path / "texts"
    conditioning.encode_texts(family, texts, [item.wish.prompt for item in todo], events, STAGE)
    number = 0
    for method in METHODS:
        group = [item for item in todo if item.method == method]
        if not group:
            continue
        if group[0].adapter is None:
            family.load("transformer")
        else:
            generation.put_on(family, *adapters.load(group[0].adapter))
        running.arrange(family, STAGE, events)
        latents = []
        for item in group:
            number += 1
            text = conditioning.load_text(family, texts, item.wish.prompt)
            latents.append(generation.sample(family, wanted, text, None, item.wish.seed, number, events))
        family.unload("transformer")
        family.load("vae")
        for item, one in zip(group, latents, strict=True):
            with events.finishing():
                _keep(workspace, settings, item, family, family.decode(one))
        family.unload("vae")


def _keep(workspace: Workspace, settings: Settings, item: Item, family: Family, frames: Any) -> None:
    clip = folder(workspace) / "clips" / f"{item.id}.mp4"
    video.write_video(clip, frames, settings.shape.fps, comment=f"AI-generated video (magicid, {settings.model.name})")
    made_by = generation.made_by(family, settings)
    row = {
        "id": item.id,
        "method": item.method,
        **vars(item.wish),
        "clip": f"clips/{item.id}.mp4",
        "clip_sha256": file_digest(clip),
        "adapter": None if item.adapter is None else file_digest(item.adapter),
        "key": item.key,
        "device": made_by["device"],
        "versions": made_by["versions"],
    }
    path = folder(workspace) / "videos.jsonl"
    rows = [other for other in read_lines(path) if other["id"] != item.id]
    write_lines(path, sorted([*rows, row], key=lambda one: one["id"]))


def _judge(workspace: Workspace, settings: Settings, events: Events) -> None:
    """Score the videos that have no score of the present judges, and drop the scores of videos that are gone."""
    rows, path = _current(workspace, settings), folder(workspace) / "scores.jsonl"
    write_lines(folder(workspace) / "videos.jsonl", rows)
    known = {row["key"]: row for row in read_lines(path)}
    references = file_digest(workspace.references / "embeddings.safetensors")
    needed = _unjudged(workspace, settings)
    judges = score.made_by(workspace, settings)
    kept = {_key(name, judge, row, references) for name, judge in judges.items() if judge for row in rows}
    for together in score.passes(workspace, settings, events, needed):
        part = " and ".join(judge.name for judge in together)
        for number, row in enumerate(rows, 1):
            frames, fps = video.read_video(folder(workspace) / row["clip"])
            for judge in together:
                name = _key(judge.name, judge.made_by, row, references)
                kept.add(name)
                if name not in known:
                    raw = judge.score(Clip(frames, fps, row["prompt"]))
                    about = {
                        "id": row["id"],
                        "reward": judge.name,
                        "value": raw["value"],
                        "content": row["clip_sha256"],
                    }
                    known[name] = {**about, "raw": raw, "made_by": judge.made_by, "key": name}
                    append_line(path, known[name])
            events.emit("step", stage=score.NAME, part=part, step=number, of=len(rows))
    write_lines(path, [row for name, row in known.items() if name in kept])


def _current(workspace: Workspace, settings: Settings) -> list[dict[str, Any]]:
    """Records of the videos that are here as they would be made now."""
    keys = {item.key for item in items(workspace, settings)}
    rows = read_lines(folder(workspace) / "videos.jsonl")
    return [row for row in rows if row["key"] in keys and _is_whole(workspace, row)]


def _key(reward: str, judge: str, row: Mapping[str, Any], references: str) -> str:
    """Digest of everything that determines a judge's score of a video."""
    return digest([reward, judge, row["id"], row["clip_sha256"], references, row["prompt"]])


def _unjudged(workspace: Workspace, settings: Settings) -> list[str]:
    """The rewards whose present judge has not scored every video that is here, or is not known without a fetch."""
    rows = _current(workspace, settings)
    known = {row["key"] for row in read_lines(folder(workspace) / "scores.jsonl")}
    references = file_digest(workspace.references / "embeddings.safetensors")
    return [
        reward
        for reward, judge in score.made_by(workspace, settings).items()
        if judge is None or any(_key(reward, judge, row, references) not in known for row in rows)
    ]


def to_do(workspace: Workspace, settings: Settings) -> bool:
    """Whether a video or a score is missing."""
    return bool(to_make(workspace, settings) or _unjudged(workspace, settings))
