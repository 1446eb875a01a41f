"""What the methods that train nothing share: the photo that they see, licences, videos made before, records.

Such a method brings a video model of its own. It is asked for videos of an identity whose photos were looked at, and
leaves the same lines in `videos/videos.jsonl` of its folder as MagicID does, and in them also `key`, `method`, `photo`
and `weights`; their `denoising_s` has the prompt's encoding in it where that is the pipeline's work. A video that is
there and was made by the very same request is not made again.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from magicid_cli import __version__, hub, models, video
from magicid_cli.baselines.registry import Method
from magicid_cli.config import Settings
from magicid_cli.destinations import free_name
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events, Stopped
from magicid_cli.generation import Asked, Clock, Made, destinations_of
from magicid_cli.models.catalog import METHOD_WEIGHTS, video_model
from magicid_cli.repeating import customize
from magicid_cli.workspace import Workspace, append_line, digest, file_digest, read_lines

if TYPE_CHECKING:
    from magicid_cli.faces import Face

OnStep = Callable[[int], None]

# Part of every video's key; raise it when the same request makes another video.
FORMAT = 3


@dataclass(frozen=True, eq=False)
class Photo:
    """The one photo of the person that a method sees.

    Attributes:
        path: a crop of the identity's references.
        sha256: of its file.
        picture: uint8 RGB `(H, W, 3)`.
        face: the largest one in it.
    """

    path: Path
    sha256: str
    picture: np.ndarray
    face: "Face"


@dataclass(frozen=True)
class Place:
    """Where a method runs: `cuda` or `cpu`, and the name of torch's number type."""

    device: str
    dtype: str


@dataclass(frozen=True)
class Task:
    """What a method's models are brought into memory for.

    Attributes:
        photo: of the person.
        place: where they run.
        prompts: of the videos to come, each once.
        commits: of the method's repositories, see `hub.settled`; who fetches notes what is fetched.
    """

    photo: Photo
    place: Place
    prompts: tuple[str, ...]
    commits: hub.Commits


class Maker(Protocol):
    """A method's models in memory, ready for one person.

    Attributes:
        facts: what a record says of the models beside their commits, e.g. the content of a checkpoint.
    """

    facts: Mapping[str, Any]

    @property
    def held(self) -> Mapping[str, Any]:
        """How the models are held, see `held_by`; known once a video was made."""

    def frames(self, prompt: str, seed: int, on_step: OnStep) -> np.ndarray:
        """A video, uint8 RGB `(F, H, W, 3)`; `on_step` hears of every finished denoising step, counted from 1."""


def generate(
    workspace: Workspace,
    settings: Settings,
    wanted: Sequence[Asked],
    method: Method,
    section: Any,
    open_maker: Callable[[Task], Maker],
    *,
    output: Path | None,
    force: bool,
    events: Events,
) -> list[Made]:
    """Make videos, or find them made; the models are loaded once for all of them.

    Args:
        workspace: the method's folder.
        settings: of the run.
        wanted: the videos.
        method: which one.
        section: the method's own settings, a dataclass with `fps` and `steps`.
        open_maker: brings its models into memory.
        output: a file, or a folder to put free names into, for videos of one prompt; by default the method's `videos/`.
        force: whether an existing file may be replaced, and a video made before is made again.
        events: where progress goes.

    Raises:
        MagicIDError: `identity-unfinished`, `photos-none-usable`, `gpu-missing`, `gpu-memory`, or what fetching and
            reading the weights raises.
        Stopped: with the videos that are there until then.
    """
    require(workspace, method, settings)
    photo, place, at = choose_photo(workspace, settings, events), place_of(method, settings), commits(method)
    wish = _Wish(method, section, photo, place, at)
    known = {} if force or output else made_before(workspace)
    done = {one: known[key] for one in wanted if (key := wish.key(one)) in known}
    for one, path in done.items():
        events.notice(f"The video of seed {one.seed} is there already: {path}. To make it again: --force")
    todo = [one for one in wanted if one not in done]
    if todo:
        paths = destinations_of(workspace, todo, output, force)
        prompts = tuple(dict.fromkeys(one.prompt for one in todo))
        try:
            with models.gpu_memory("generating", "Free the GPU, or use a larger one."):
                maker = open_maker(Task(photo, place, prompts, at))
                for number, (one, path) in enumerate(zip(todo, paths, strict=True), 1):
                    about = {"stage": "generate", "of": section.steps, "video": number, "videos": len(todo)}
                    _make(workspace, settings, wish, maker, one, path, done, about, force=force, events=events)
        except KeyboardInterrupt as stop:
            made = [Made(done[one], one.seed, one.prompt) for one in wanted if one in done]
            raise Stopped(made, [one.seed for one in wanted if one not in done]) from stop
    return [Made(done[one], one.seed, one.prompt) for one in wanted]


@dataclass(frozen=True)
class _Wish:
    """What is asked for, apart from prompts and seeds."""

    method: Method
    section: Any
    photo: Photo
    place: Place
    commits: hub.Commits

    @property
    def weights(self) -> dict[str, str | None]:
        """The commit of each repository that is used, as far as it is known before anything is fetched."""
        return {one.source.repo: self.commits.get(one.source.repo) for one in METHOD_WEIGHTS[self.method.name]}

    def key(self, one: Asked) -> str:
        """A digest of everything that makes a video, how fast it plays included: a file has one rate."""
        return _key(self.method, self.section, self.place, self.weights, one.prompt, one.seed, self.photo.sha256)


def _key(
    method: Method,
    section: Any,
    place: Place,
    weights: Mapping[str, str | None],
    prompt: str,
    seed: int,
    photo: str,
) -> str:
    made_with = [FORMAT, method.name, dict(weights), version("diffusers"), asdict(place)]
    return digest([made_with, asdict(section), prompt, seed, photo])


def _make(
    workspace: Workspace,
    settings: Settings,
    wish: _Wish,
    maker: Maker,
    one: Asked,
    path: Path,
    done: dict[Asked, Path],
    about: Mapping[str, Any],
    *,
    force: bool,
    events: Events,
) -> None:
    """One video, with its record; it is in `done` also where a stop was asked for meanwhile."""
    clock, method = Clock(), wish.method

    def step_done(step: int) -> None:
        events.emit("step", step=step, **about)
        clock.denoised()  # so far: the last step's stays

    frames = maker.frames(one.prompt, one.seed, step_done)
    with events.finishing():
        written = path if force else free_name(path)
        comment = f"AI-generated video (magicid {__version__}, {method.name}, seed {one.seed})"
        video.write_video(written, frames, wish.section.fps, comment=comment)
        written.chmod(0o644)  # written private; what a user asked for is theirs to share
        weights = wish.weights
        record = {
            "model": method.name,
            "method": method.name,
            "commit": next(iter(weights.values())),
            "weights": weights,
            **maker.facts,
            **asdict(wish.place),
            "versions": {name: version(name) for name in ("magicid", "torch", "diffusers", "transformers")},
            "settings": asdict(wish.section),
            "file": str(written.absolute()),
            "prompt": one.prompt,
            "seed": one.seed,
            "adapter": None,
            "photo": {"file": wish.photo.path.name, "sha256": wish.photo.sha256},
            "key": wish.key(one),
            "time": time.time(),
            "held": dict(maker.held),
            **clock.seconds(),
        }
        append_line(workspace.videos / "videos.jsonl", record)
        facts = {"method": method.name, "licence": method.licence, "weights": weights}
        workspace.update(**facts, model=settings.model.name)
        done[one] = written
    made = {name: about[name] for name in ("stage", "video", "videos")}
    events.emit("video", **made, **clock.seconds())


def held_by(pipeline: Any) -> dict[str, Any]:
    """How a pipeline's models are held, in the words of `models.execution.Execution`: whole, in one place."""
    return {"base": "full", "offload": "none", "vae_tiling": bool(pipeline.vae.use_tiling)}


def require(workspace: Workspace, method: Method, settings: Settings) -> None:
    """Refuse before anything takes long.

    Raises:
        MagicIDError: `identity-unfinished` if no photo was looked at yet, `gpu-missing`.
    """
    if not (workspace.references / "captions.jsonl").is_file():
        raise MagicIDError(
            "identity-unfinished",
            f"No photo of '{workspace.name}' was looked at yet.",
            f"Run or resume: {customize(workspace)}",
        )
    place_of(method, settings)


def choose_photo(workspace: Workspace, settings: Settings, events: Events) -> Photo:
    """The identity's photo with the largest face; the first of equals.

    Raises:
        MagicIDError: `photos-none-usable` if no crop shows a face, or what opening the face finder raises.
    """
    from PIL import Image

    from magicid_cli.conditioning import references
    from magicid_cli.faces import open_faces

    detector = open_faces(
        settings.rewards, video_model(settings.model.name), offline=settings.model.offline, events=events
    ).detector
    seen = []
    for reference in references(workspace):
        picture = np.asarray(Image.open(reference.crop).convert("RGB"))
        seen += [Photo(reference.crop, reference.sha256, picture, face) for face in detector.find(picture)[:1]]
    if not seen:
        raise MagicIDError(
            "photos-none-usable",
            f"{detector.name} finds no face in the crops of '{workspace.name}'.",
            "Customize again with other photos, or with another --face-detector.",
        )
    return max(seen, key=lambda photo: photo.face.area)


def place_of(method: Method, settings: Settings) -> Place:
    """The device and the number type that the settings mean for a method with a model of its own.

    Raises:
        MagicIDError: `gpu-missing` if there is no GPU and a CPU was not asked for by name.
    """
    import torch

    wanted = settings.model
    device = "cuda" if wanted.device != "cpu" and torch.cuda.is_available() else "cpu"
    if device != wanted.device and device == "cpu":
        raise MagicIDError(
            "gpu-missing",
            f"No CUDA GPU is usable here, and on a CPU one video of {method.title} would take very long.",
            "To insist on the CPU: --device cpu",
        )
    automatic = {"cuda": method.gpu_dtype, "cpu": "float32"}[device]
    return Place(device, automatic if wanted.dtype == "auto" else wanted.dtype)


def announce(method: Method, events: Events) -> None:
    """Say whose weights are about to be fetched and under which licence; nothing if all of them are here.

    The method's own licence is the command line's to say, before it asks whether to go on.
    """
    for one in METHOD_WEIGHTS[method.name]:
        if hub.state(one.source, one.files) != "cached":
            use = "" if one.source.commercial else " Not for commercial use."
            size = f"{one.source.gigabytes:g} GB"
            events.notice(f"{one.what}: {one.source.repo}, about {size}. Licence: {one.source.licence}.{use}")


def fetch(method: Method, settings: Settings, events: Events, at: hub.Commits | None = None) -> list[Path]:
    """The method's weights on this machine, a verified folder for each entry of the catalog, in its order.

    Args:
        method: whose.
        settings: whether to stay offline.
        events: hears of downloads and licences.
        at: which commits are used, see `hub.settled`; gets what was fetched.
    """
    announce(method, events)
    at = {} if at is None else at
    folders = []
    for one in METHOD_WEIGHTS[method.name]:
        source, offline = hub.settled(one.source, at), settings.model.offline
        found = hub.fetch_repo(source, patterns=one.files, offline=offline, events=events)
        at[source.repo] = found.commit
        folders.append(found.path)
    return folders


def commits(method: Method) -> hub.Commits:
    """Which commits of the method's repositories are used, as far as this machine knows; nobody is asked.

    A commit that is known stays in use while its branch moves on, so that videos of one person stay comparable; who
    wants newer files removes those in the cache.
    """
    found: hub.Commits = {}
    for one in METHOD_WEIGHTS[method.name]:
        hub.settled(one.source, found)
    return found


def downloads(method: Method) -> dict[str, float]:
    """GB still to fetch, by repository; see `hub.to_fetch`."""
    return hub.to_fetch((one.source, one.files) for one in METHOD_WEIGHTS[method.name])


def made_before(workspace: Workspace) -> dict[str, Path]:
    """The videos of a method's folder that are still there, by what made them."""
    rows = [row for row in read_lines(workspace.videos / "videos.jsonl") if "key" in row]
    return {row["key"]: Path(row["file"]) for row in rows if Path(row["file"]).is_file()}


def still_holds(row: Mapping[str, Any], method: Method, section: Any, photos: Collection[str], at: hub.Commits) -> bool:
    """Whether a recorded video would be made with the same key now, where it was made, from a photo still there.

    Args:
        row: of `videos.jsonl`.
        method: whose folder it lies in.
        section: the method's settings.
        photos: contents of the identity's crops. No face finder is opened to choose among them.
        at: the commits that are used now, see `commits`.
    """
    photo = row.get("photo", {}).get("sha256")
    if photo not in photos or "key" not in row:
        return False
    place = Place(row["device"], row["dtype"])
    weights = {one.source.repo: at.get(one.source.repo) for one in METHOD_WEIGHTS[method.name]}
    return bool(row["key"] == _key(method, section, place, weights, row["prompt"], row["seed"], photo))


def content(path: Path, what: str, events: Events, *, first: bool) -> str:
    """The SHA-256 of a checkpoint, announced when it has just been fetched for the first time."""
    found = file_digest(path)
    if first:
        events.notice(f"{what} was fetched; its content (SHA-256) is {found}. It is recorded with every video.")
    return found
