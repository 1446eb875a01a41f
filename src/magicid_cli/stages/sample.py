"""The preference repository: prompts × models → videos, and the static clips beside them.

Each video is an independent work item with its own seed, latents (to train on), clip (to look at) and record. Items
are done in two passes so that only one large part is in memory: the transformer denoises every missing item, then the
VAE decodes. A record says exactly what made its video; an item whose record still holds is never made again.
"""

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from magicid_cli import adapters, conditioning, models, video
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models.base import Family, Shape
from magicid_cli.models.catalog import video_model
from magicid_cli.photos import decode
from magicid_cli.plan import running
from magicid_cli.plan.begun import Begun
from magicid_cli.plan.costs import GB
from magicid_cli.plan.workload import clip_bytes
from magicid_cli.prompts import choose, drawn
from magicid_cli.step_caching import made_with, step_cache_of
from magicid_cli.workspace import Workspace, append_line, digest, file_digest, read_lines, write_lines

NAME = "sample"
TITLE = "Preference repository"
FORMAT = 1
READS = (
    "seed",
    "model.name",
    "model.dtype",
    "model.base",
    "photos.class_word",
    "shape",
    "repository",
)

_ITEM = re.compile(r"(tuned|initial)-\d+-\d+|static-\d+")


@dataclass(frozen=True)
class Item:
    """One video of the repository: what it is called and everything that determines it."""

    id: str
    origin: str
    prompt_id: int | None
    prompt: str
    photo: int | None
    seed: int | None
    made_by: dict[str, Any]

    @property
    def key(self) -> str:
        """Digest of what determines the video; library versions are recorded but do not count."""
        return digest([self.origin, self.prompt, self.seed, self.made_by])


@dataclass(frozen=True)
class SampleResult:
    """What the repository holds and what this call did for it.

    Attributes:
        videos: how many there are, by origin.
        made: how many of them this call made.
        timing: of this call, where it denoised a video: `denoised` (how many), `seconds_per_video` (with everything
            around them: encoding, loading, decoding, writing) and `outside_share` (of the time that was not denoising).
    """

    videos: dict[str, int]
    made: int
    timing: dict[str, float] = field(default_factory=dict)


def inputs(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Content of the adapter that the round starts from, the photos and the prompts."""
    photos = {photo.crop.name: [photo.sha256, photo.caption] for photo in conditioning.references(workspace)}
    return {"adapter": file_digest(workspace.start), "photos": photos, "prompts": chosen_prompts(settings)}


def outputs(workspace: Workspace) -> dict[str, str]:
    """Content of the records and of the clips, and the size of the latents."""
    records = workspace.repository / "videos.jsonl"
    found = {path.name: file_digest(path) for path in (records, records.with_name("prompts.jsonl")) if path.is_file()}
    for row in read_lines(records):
        clip, latents = workspace.repository / row["clip"], workspace.repository / row["latents"]
        found[row["clip"]] = file_digest(clip) if clip.is_file() else "missing"
        found[row["latents"]] = str(latents.stat().st_size) if latents.is_file() else "missing"
    return found


def check(settings: Settings) -> None:
    """Refuse what could only fail after hours of stage 1.

    Raises:
        MagicIDError: `settings-invalid` if no video would be sampled; `prompts-file`, `prompts-too-few`.
    """
    if not settings.repository.tuned + settings.repository.initial:
        raise MagicIDError(
            "settings-invalid",
            "Stage 2 learns from pairs of videos, and neither tuned nor initial ones would be sampled.",
            "Sample some (--tuned 100 --initial 20), or stop after stage 1 (--prefer-steps 0).",
        )
    chosen_prompts(settings)


def prepare(settings: Settings, events: Events) -> None:
    """Bring in what the stage needs from outside, before any stage starts."""
    models.open_family(settings.model, events)
    if video_model(settings.model.name).drawn and settings.repository.prompts_file:
        unknown = drawn.advice(chosen_prompts(settings))
        if unknown:
            events.notice(unknown, stage=NAME)


def run(workspace: Workspace, settings: Settings, events: Events) -> SampleResult:
    """Fill the repository.

    Raises:
        MagicIDError: weights, prompts or memory failed; the code says which.
    """
    begun = time.monotonic()
    family = running.open_family(settings, NAME, events)
    folder = workspace.repository
    prompts = chosen_prompts(settings)
    write_lines(folder / "prompts.jsonl", [{"id": number, "text": text} for number, text in enumerate(prompts)])
    references = conditioning.references(workspace)
    items = work(workspace, settings, (family.commit, str(family.dtype)), prompts, references)
    records = {row["id"]: row for row in read_lines(folder / "videos.jsonl")}
    missing = [item for item in items if not is_made(folder, item, records.get(item.id))]

    texts = workspace.path / "texts"
    conditioning.encode_texts(family, texts, prompts, events, NAME)
    statics = workspace.reconstruct / "static"
    conditioning.encode_statics(family, statics, references, shape_of(settings), events, NAME)
    generated = [item for item in missing if item.origin != "static"]
    undone = [item for item in generated if not has_latents(folder, item)]
    denoising_s = denoise(workspace, settings, family, undone, texts, events)
    if generated:
        family.load("vae")
    for number, item in enumerate(missing, 1):
        finish(workspace, settings, family, item, references)
        events.emit("step", stage=NAME, part="clips", step=number, of=len(missing), id=item.id)
    family.unload("vae")

    latest = {row["id"]: row for row in read_lines(folder / "videos.jsonl")}
    remove_stale(folder, items, latest)
    write_lines(folder / "videos.jsonl", [latest[item.id] for item in items])
    timing = timing_of(len(undone), denoising_s, time.monotonic() - begun)
    if timing:
        events.emit("timing", stage=NAME, **timing)
    return SampleResult(dict(Counter(item.origin for item in items)), len(missing), timing)


def begun(workspace: Workspace, settings: Settings) -> Begun:
    """How far an interrupted sampling is: by the latents of its generated videos, whose clips are the smaller work."""
    weights = models.known(settings.model)
    if weights is None:
        return Begun()
    items = work(workspace, settings, weights, chosen_prompts(settings), conditioning.references(workspace))
    folder = workspace.repository
    there = [item for item in items if has_latents(folder, item)]
    records = {row["id"]: row for row in read_lines(folder / "videos.jsonl")}
    clips = [folder / f"clips/{one.id}.mp4" for one in there if records.get(one.id, {}).get("key") == one.key]
    size = float(sum((folder / latents_name(item)).stat().st_size for item in there))
    # A clip that took more than was planned for it takes nothing off the others.
    size += sum(min(path.stat().st_size, clip_bytes(settings)) for path in clips if path.is_file())
    return Begun(sum(item.origin != "static" for item in there), size / GB, exact=True)


def timing_of(denoised: int, denoising_s: float, whole_s: float) -> dict[str, float]:
    """Seconds a video and the share of them that was not denoising; empty where no video was denoised.

    Args:
        denoised: how many videos were.
        denoising_s: what that took.
        whole_s: what the stage took, from opening the model to the last clip.
    """
    if not denoised:
        return {}
    return {
        "denoised": denoised,
        "seconds_per_video": round(whole_s / denoised, 3),
        "outside_share": round(1 - denoising_s / whole_s, 4),
    }


def chosen_prompts(settings: Settings) -> list[str]:
    """The repository's prompts: from the user's file, or picked by seed from those that the model understands."""
    repository, class_word = settings.repository, settings.photos.class_word
    is_drawn = video_model(settings.model.name).drawn
    if repository.prompts_file:
        texts = choose.from_file(Path(repository.prompts_file).expanduser(), class_word)
        # A prompt that occurs twice is one prompt: held-out pairs must not share theirs with training.
        return list(dict.fromkeys(map(drawn.spelled, texts) if is_drawn else texts))
    pick = drawn.pick if is_drawn else choose.pick
    return pick(repository.prompts, settings.seed or 0, class_word)


def work(
    workspace: Workspace,
    settings: Settings,
    weights: tuple[str, str],
    prompts: list[str],
    references: list[conditioning.Reference],
) -> list[Item]:
    """Every item of the repository, dealt round the prompts; an item's seed depends on its name alone.

    Args:
        workspace: as its round sees it.
        settings: seed set.
        weights: commit and number type of the model.
        prompts: in order.
        references: the photos.
    """
    shape = shape_of(settings)
    common = {
        "model": settings.model.name,
        "commit": weights[0],
        "dtype": weights[1],
        "shape": str(shape),
        "fps": settings.shape.fps,
    }
    # Only where it makes other videos: those of a base stored in full, every step computed, were always made so.
    stored: dict[str, Any] = {} if settings.model.base == "full" else {"base": settings.model.base}
    stored |= made_with(workspace, settings, prompts[0])
    adapter = file_digest(workspace.start)
    items = []
    for origin, count in (("tuned", settings.repository.tuned), ("initial", settings.repository.initial)):
        for number in range(count):
            prompt_id, copy = number % len(prompts), number // len(prompts)
            name = f"{origin}-{prompt_id:03d}-{copy}"
            made_by = {
                **common,
                **stored,
                "adapter": adapter if origin == "tuned" else None,
                "sampler": "euler",
                "steps": settings.repository.steps,
                "guidance": settings.repository.guidance,
            }
            seed = workspace.seed_of(settings.seed, name)
            items.append(Item(name, origin, prompt_id, prompts[prompt_id], None, seed, made_by))
    for number, photo in enumerate(references):
        made_by = {**common, "photo": photo.sha256}
        items.append(Item(f"static-{number:03d}", "static", None, photo.caption, number, None, made_by))
    return items


def shape_of(settings: Settings) -> Shape:
    """The one shape of repository and training."""
    return Shape(settings.shape.frames, settings.shape.height, settings.shape.width)


def is_made(folder: Path, item: Item, record: dict[str, Any] | None) -> bool:
    """Whether the record describes exactly this item and its files are there, the clip as it was written."""
    if record is None or record["key"] != item.key or not has_latents(folder, item):
        return False
    clip = folder / record["clip"]
    return clip.is_file() and record.get("clip_sha256") in (None, file_digest(clip))


def has_latents(folder: Path, item: Item) -> bool:
    """Whether this very item was already denoised (its latents carry its key)."""
    return conditioning.metadata_of(folder / latents_name(item)).get("key") == item.key


def latents_name(item: Item) -> str:
    """Path of an item's latents inside the repository."""
    return f"latents/{item.id}.safetensors"


def denoise(
    workspace: Workspace, settings: Settings, family: Family, items: list[Item], texts: Path, events: Events
) -> float:
    """Noise → latents for every item, the adapter of the start on for `tuned` ones and off for `initial` ones.

    The transformer is loaded once for all.

    Returns:
        Seconds that its sampler took.
    """
    if not items:
        return 0.0
    family.load("transformer")
    tensors, spec = adapters.load(workspace.start)
    adapters.attach(family.transformer, "reference", spec, seed=0)
    adapters.load_tensors(family.transformer, "reference", tensors)
    running.arrange(family, NAME, events)
    begun = time.monotonic()
    cache = step_cache_of(workspace, settings, family, texts, chosen_prompts(settings)[0], events)
    denoising_s = time.monotonic() - begun
    for number, item in enumerate(items, 1):
        begun = time.monotonic()
        adapters.select(family.transformer, "reference" if item.origin == "tuned" else None, trainable=False)
        latents = family.sample(
            conditioning.load_text(family, texts, item.prompt),
            shape_of(settings),
            steps=settings.repository.steps,
            guidance=settings.repository.guidance,
            seed=item.seed or 0,
            step_cache=cache,
        )
        denoising_s += time.monotonic() - begun
        path = workspace.repository / latents_name(item)
        conditioning.save_tensors(path, {"latents": latents}, {"key": item.key})
        events.emit("step", stage=NAME, part="videos", step=number, of=len(items), id=item.id)
    family.unload("transformer")
    return denoising_s


def finish(
    workspace: Workspace,
    settings: Settings,
    family: Family,
    item: Item,
    references: list[conditioning.Reference],
) -> None:
    """Latents → clip and record. A static clip is the photo itself, repeated."""
    folder = workspace.repository
    latents = folder / latents_name(item)
    if item.origin == "static":
        photo = references[item.photo or 0]
        source = conditioning.static_path(workspace.reconstruct / "static", family, photo.sha256, shape_of(settings))
        conditioning.save_tensors(latents, conditioning.load_tensors(source), {"key": item.key})
        frames = video.static_clip(decode(photo.crop).rgb, settings.shape.frames)
    else:
        frames = family.decode(conditioning.load_tensors(latents)["latents"])
    clip = f"clips/{item.id}.mp4"
    video.write_video(folder / clip, frames, settings.shape.fps)
    row = {
        **vars(item),
        "key": item.key,
        "clip": clip,
        "clip_sha256": file_digest(folder / clip),
        "latents": latents_name(item),
        "device": family.device.type,
        "versions": {name: version(name) for name in ("magicid", "torch", "diffusers", "peft")},
    }
    append_line(folder / "videos.jsonl", row)


def remove_stale(folder: Path, items: list[Item], records: dict[str, dict[str, Any]]) -> None:
    """Remove clips and latents that are no longer part of the repository, while their records still say whose they are.

    What we did not write stays where it is, also under a name that was ours.

    Args:
        folder: the repository's.
        items: that are part of it.
        records: of what was made, by the item's name.
    """
    names = {item.id for item in items}
    for row in (row for name, row in records.items() if name not in names):
        clip = folder / row["clip"]
        if clip.is_file() and row.get("clip_sha256") in (None, file_digest(clip)):
            clip.unlink()
    for path in folder.glob("latents/*.safetensors"):
        # Latents say themselves that they are ours; a run that was stopped leaves some that have no record yet.
        ours = _ITEM.fullmatch(path.stem) and "key" in conditioning.metadata_of(path)
        if ours and path.stem not in names:
            path.unlink()
