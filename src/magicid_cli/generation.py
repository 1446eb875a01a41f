"""Prompt → video with an identity's adapter.

Nothing heavy is imported at the top: what can be refused is refused at once.
"""

import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicid_cli import __version__, models
from magicid_cli.config import GenerateSettings, Resolved, Settings, parse_size
from magicid_cli.destinations import destinations, free_name
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events, Stopped
from magicid_cli.models.base import Family, Shape
from magicid_cli.plan import running
from magicid_cli.repeating import customize
from magicid_cli.texts import Text, encode
from magicid_cli.workspace import Workspace, append_line, file_digest

if TYPE_CHECKING:
    import torch

    from magicid_cli.adapters import AdapterSpec

WORN = "policy"  # what an adapter that `put_on` puts on is called in the transformer


@dataclass(frozen=True)
class Asked:
    """A video that is asked for: its prompt, with the identity's name already replaced, and the seed of its noise."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Made:
    """One generated video."""

    path: Path
    seed: int
    prompt: str


def adapter_of(workspace: Workspace) -> Path:
    """The identity's finished adapter.

    Raises:
        MagicIDError: `identity-unfinished` if customization has not ended.
    """
    name = workspace.manifest().get("adapter")
    path = workspace.path / name if name else None
    if path is None or not path.is_file():
        raise MagicIDError(
            "identity-unfinished",
            f"'{workspace.name}' has no finished adapter: its customization was not begun or not ended.",
            f"Run or resume: {customize(workspace)}",
        )
    return path


def require_model(workspace: Workspace, settings: Settings) -> Path:
    """The identity's finished adapter, if it is one for the model of the settings.

    Raises:
        MagicIDError: `identity-unfinished`, `model-mismatch`.
    """
    adapter = adapter_of(workspace)
    _require_same_model(workspace, settings)
    return adapter


def _require_same_model(workspace: Workspace, settings: Settings) -> None:
    trained = workspace.manifest()["model"]
    if settings.model.name != trained:
        raise MagicIDError(
            "model-mismatch",
            f"'{workspace.name}' was trained on the model '{trained}', not '{settings.model.name}'.",
            f"Leave --model out, or customize again with --model {settings.model.name}.",
        )


def chosen_adapter(workspace: Workspace, settings: Settings) -> Path | None:
    """The adapter that `generate.adapter` names, if it is one for the model of the settings; None for none.

    Raises:
        MagicIDError: `identity-unfinished`, `model-mismatch`, `settings-invalid`.
    """
    if workspace.method:
        require_method(workspace, settings)
        named = workspace.manifest().get("adapter")
        return workspace.path / named if named else None
    if settings.generate.adapter == "final":
        return require_model(workspace, settings)
    adapter = workspace.reconstruct / "adapter.safetensors"
    # Also for the untouched model: only then is it known which model the identity belongs to.
    ended = workspace.manifest()["stages"].get("reconstruct", {}).get("state") == "done"
    if not (adapter.is_file() and ended):
        raise MagicIDError(
            "identity-unfinished",
            f"'{workspace.name}' has no adapter of stage 1: its customization was not begun, or stage 1 not ended.",
            f"Run or resume: {customize(workspace)}",
        )
    _require_same_model(workspace, settings)
    return adapter if settings.generate.adapter == "stage-1" else None


def keywords_of(workspace: Workspace) -> Path | None:
    """The keywords of a method that trains some, or None."""
    named = workspace.manifest().get("keywords") if workspace.method else None
    return workspace.path / named if named else None


def require_method(workspace: Workspace, settings: Settings) -> None:
    """Refuse another method whose training has not ended, or that has no such adapter as is asked for.

    Raises:
        MagicIDError: `settings-invalid`, `identity-unfinished`, `model-mismatch`.
    """
    if settings.generate.adapter != "final":
        raise MagicIDError(
            "settings-invalid",
            f"--adapter {settings.generate.adapter} is of MagicID; '{workspace.method}' has only what it ended with.",
            "Leave --adapter or --method out.",
        )
    trained = [workspace.manifest().get(kind) for kind in ("adapter", "keywords")]
    if not any(name and (workspace.path / name).is_file() for name in trained):
        raise MagicIDError(
            "identity-unfinished",
            f"'{workspace.name}' was not customized by '{workspace.method}', or that has not ended.",
            f"Run or resume: {customize(workspace)}",
        )
    _require_same_model(workspace, settings)


def require(workspace: Workspace, settings: Settings, prompt: str, *, output: Path | None, force: bool) -> None:
    """Refuse in milliseconds what `generate` would refuse, with the same arguments.

    Raises:
        MagicIDError: `identity-unfinished`, `model-mismatch`, `output-exists`, `output-invalid`.
    """
    chosen_adapter(workspace, settings)
    destinations(workspace, prompt, list(range(settings.generate.count)), output, force)


def generate(
    workspace: Workspace,
    resolved: Resolved,
    prompt: str,
    *,
    output: Path | None,
    force: bool,
    events: Events,
) -> list[Made]:
    """Make `generate.count` videos.

    Args:
        workspace: a customized identity.
        resolved: settings; the model must be the identity's.
        prompt: with the identity's name already replaced by the trained phrase.
        output: a file, or a folder to put free names into; by default the identity's `videos/`.
        force: whether an existing file may be replaced.
        events: where progress goes.

    Returns:
        The videos in order; seeds count up from `settings.seed`, or from a drawn one.

    Raises:
        MagicIDError: no adapter, another model, or a file that exists.
        Stopped: with the videos that were made until then.
    """
    wanted = asked(prompt, resolved.settings)
    return generate_each(workspace, resolved.settings, wanted, output=output, force=force, events=events)


def asked(prompt: str, settings: Settings) -> list[Asked]:
    """`generate.count` videos of one prompt; seeds count up from `settings.seed`, or from a drawn one."""
    first = secrets.randbelow(2**31) if settings.seed is None else settings.seed
    return [Asked(prompt, first + number) for number in range(settings.generate.count)]


def destinations_of(workspace: Workspace, wanted: Sequence[Asked], output: Path | None, force: bool) -> list[Path]:
    """Where the videos go, see `destinations`; an output is given only to videos of one prompt."""
    if output is not None:
        return destinations(workspace, wanted[0].prompt, [one.seed for one in wanted], output, force)
    return [path for one in wanted for path in destinations(workspace, one.prompt, [one.seed], None, force)]


def generate_each(
    workspace: Workspace,
    settings: Settings,
    wanted: Sequence[Asked],
    *,
    output: Path | None,
    force: bool,
    events: Events,
) -> list[Made]:
    """Make videos of several prompts, as `generate` does of one; the model is loaded once for all of them.

    Args:
        workspace: a customized identity.
        settings: the model must be the identity's; the seed does not count.
        wanted: the videos, `generate.count` of them.
        output: as in `generate`, for videos of one prompt.
        force: whether an existing file may be replaced.
        events: where progress goes.

    Raises:
        MagicIDError: as `generate`.
        Stopped: with the videos that were made until then.
    """
    from magicid_cli import adapters, keywords

    adapter, words = chosen_adapter(workspace, settings), keywords_of(workspace)
    paths = destinations_of(workspace, wanted, output, force)
    smaller = "Make a smaller video (--size 960x544 --frames 33), or free the GPU."
    with models.gpu_memory("generating", smaller):
        # Read once: a customization that is running may replace a file at any time.
        wish = Wish(
            list(zip(wanted, paths, strict=True)),
            force,
            (file_digest(adapter), *adapters.load(adapter)) if adapter else None,
            (file_digest(words), keywords.load(words)) if words else None,
        )
        made: list[Made] = []
        try:
            running.with_next_plan(lambda now: _make(workspace, now, wish, made, events), settings, "generate", events)
        except KeyboardInterrupt as stop:
            raise Stopped(made, [one.seed for one in wanted[len(made) :]]) from stop
    return made


@dataclass(frozen=True)
class Wish:
    """What a call of `generate` is to make.

    Attributes:
        videos: what is asked for, and its file.
        force: whether a file may be replaced.
        adapter: its digest, its tensors and what it is; None for the untouched model.
        words: digest and content of the identity's keywords, if it has any.
    """

    videos: list[tuple[Asked, Path]]
    force: bool
    adapter: "tuple[str, dict[str, torch.Tensor], AdapterSpec] | None"
    words: tuple[str, Any] | None


def _make(workspace: Workspace, settings: Settings, wish: Wish, made: list[Made], events: Events) -> None:
    """Make the videos that are not in `made` yet, and put them there; every part of the model is loaded once."""
    from magicid_cli import adapters

    wanted = settings.generate
    family = running.open_family(settings, "generate", events)
    left = list(enumerate(wish.videos, 1))[len(made) :]
    prompts = [one.prompt for _, (one, _) in left]
    texts, negative = encode(family, prompts, wanted, events, wish.words[1] if wish.words else None)
    if wish.adapter:
        put_on(family, *wish.adapter[1:])
    else:
        family.load("transformer")
    running.arrange(family, "generate", events)
    for number, (one, path) in left:
        clock = Clock()
        if wish.adapter:
            adapters.select(family.transformer, WORN)  # the video before may have begun without it
        latents = sample(family, wanted, texts[one.prompt], negative, one.seed, number, events)
        clock.denoised()
        with events.finishing():
            # The transformer stays: every video is a file before the next one is begun.
            written = write(family, settings, latents, one.seed, path, wish.force)
            record = {
                **made_by(family, settings),
                "file": str(written.absolute()),
                "prompt": one.prompt,
                "seed": one.seed,
                "adapter": wish.adapter[0] if wish.adapter else None,
                **({"method": workspace.method} if workspace.method else {}),
                **({"keywords": wish.words[0]} if wish.words else {}),
                "time": time.time(),
                "held": family.report(),
                **clock.seconds(),
            }
            append_line(workspace.videos / "videos.jsonl", record)
            made.append(Made(written, one.seed, one.prompt))
        events.emit("video", stage="generate", video=number, videos=wanted.count, **clock.seconds())


class Clock:
    """How long a video takes, and how much of that its denoising is; begins to run when it is made."""

    def __init__(self) -> None:
        self._begun, self._denoised = time.monotonic(), 0.0

    def denoised(self) -> None:
        """Note that the latents are there."""
        self._denoised = time.monotonic() - self._begun

    def seconds(self) -> dict[str, float]:
        """`seconds` since the beginning, and `denoising_s` of them in the transformer's sampler."""
        return {"seconds": round(time.monotonic() - self._begun, 3), "denoising_s": round(self._denoised, 3)}


def sample(
    family: Family,
    wanted: GenerateSettings,
    text: Text,
    negative: Text | None,
    seed: int,
    number: int,
    events: Events,
) -> "torch.Tensor":
    """Noise → latents of video `number`, every denoising step reported.

    An adapter that `put_on` has put on takes part from the first step on, or only after the share
    `wanted.adapter_start` of the steps: the untouched model then lays out what moves where.
    """
    from magicid_cli import adapters

    width, height = parse_size(wanted.size)
    worn = adapters.is_attached(family.transformer, WORN)
    alone = steps_alone(wanted.adapter_start, wanted.steps) if worn else 0
    about: dict[str, Any] = {"stage": "generate", "of": wanted.steps, "video": number, "videos": wanted.count}

    def step_done(step: int) -> None:
        if step == alone:
            adapters.select(family.transformer, WORN)
        events.emit("step", step=step, **about)

    if alone:
        adapters.select(family.transformer, None)
    return family.sample(
        text,
        Shape(wanted.frames, height, width),
        steps=wanted.steps,
        guidance=wanted.guidance,
        seed=seed,
        true_guidance=wanted.true_guidance,
        negative=negative,
        on_step=step_done,
    )


def steps_alone(share: float, steps: int) -> int:
    """Denoising steps that the untouched model does before the adapter is switched on; halves are rounded up."""
    return math.floor(share * steps + 0.5)


def write(family: Family, settings: Settings, latents: "torch.Tensor", seed: int, path: Path, force: bool) -> Path:
    """Latents → a video file; where a file of that name has appeared meanwhile, a free name beside it.

    The VAE stays in memory for the next one.
    """
    from magicid_cli import video

    family.load("vae")
    frames = family.decode(latents)
    target = path if force else free_name(path)
    comment = f"AI-generated video (magicid {__version__}, {settings.model.name}, seed {seed})"
    video.write_video(target, frames, settings.generate.fps, comment=comment)
    target.chmod(0o644)  # written private; what a user asked for is theirs to share
    return target


def made_by(family: Family, settings: Settings) -> dict[str, Any]:
    """What a generated video depends on besides adapter, prompt and seed."""
    return {
        "model": settings.model.name,
        "commit": family.commit,
        "dtype": str(family.dtype),
        "device": family.device.type,
        "versions": {name: version(name) for name in ("magicid", "torch", "diffusers", "peft")},
        "settings": asdict(settings.generate),
        **({} if settings.model.base == "full" else {"base": settings.model.base}),
    }


def load_adapted(family: Family, adapter: Path) -> None:
    """Load the transformer with an adapter on it, ready to sample."""
    from magicid_cli import adapters

    put_on(family, *adapters.load(adapter))


def put_on(family: Family, tensors: "dict[str, torch.Tensor]", spec: "AdapterSpec") -> None:
    """Load the transformer and give it an adapter that was read before."""
    from magicid_cli import adapters

    family.load("transformer")
    adapters.attach(family.transformer, WORN, spec, seed=0)
    adapters.load_tensors(family.transformer, WORN, tensors)
    adapters.select(family.transformer, WORN, trainable=False)
