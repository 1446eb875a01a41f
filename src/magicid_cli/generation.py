"""Prompt → video with an identity's adapter."""

import re
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magicid_cli import __version__, adapters, models, video
from magicid_cli.config import Resolved, parse_size
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models.base import Family, Shape
from magicid_cli.workspace import Workspace, append_line, file_digest


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
            f"'{workspace.name}' has no finished adapter yet.",
            f"Run or resume: magicid customize PHOTOS --name {workspace.name}",
        )
    return path


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
    """
    settings = resolved.settings
    adapter = adapter_of(workspace)
    trained = workspace.manifest()["model"]
    if settings.model.name != trained:
        raise MagicIDError(
            "model-mismatch",
            f"'{workspace.name}' was trained on the model '{trained}', not '{settings.model.name}'.",
            f"Leave --model out, or customize again with --model {settings.model.name}.",
        )
    wanted = settings.generate
    first = secrets.randbelow(2**31) if settings.seed is None else settings.seed
    seeds = [first + number for number in range(wanted.count)]
    paths = destinations(workspace, prompt, seeds, output, force)

    family = models.open_family(settings.model, events)
    family.load("text")
    cut = family.text_overflow(prompt)
    if cut:
        events.notice(f"The prompt is {cut} tokens too long for the text encoder; its end is ignored.")
    text = family.encode_text(prompt)
    negative = family.encode_text(wanted.negative_prompt) if wanted.true_guidance > 1 else None
    family.unload("text")

    load_adapted(family, adapter)
    width, height = parse_size(wanted.size)
    latents = []
    for number, seed in enumerate(seeds, 1):
        about: dict[str, Any] = {"stage": "generate", "of": wanted.steps, "video": number, "videos": len(seeds)}

        def report(step: int, about: dict[str, Any] = about) -> None:
            events.emit("step", step=step, **about)

        latents.append(
            family.sample(
                text,
                Shape(wanted.frames, height, width),
                steps=wanted.steps,
                guidance=wanted.guidance,
                seed=seed,
                true_guidance=wanted.true_guidance,
                negative=negative,
                on_step=report,
            )
        )
    family.unload("transformer")

    family.load("vae")
    made = []
    for seed, path, sampled in zip(seeds, paths, latents, strict=True):
        comment = f"AI-generated video (magicid {__version__}, {settings.model.name}, seed {seed})"
        video.write_video(path, family.decode(sampled), wanted.fps, comment=comment)
        path.chmod(0o644)  # written private; what a user asked for is theirs to share
        row = {"file": str(path), "prompt": prompt, "seed": seed, "adapter": file_digest(adapter), "time": time.time()}
        append_line(workspace.videos / "videos.jsonl", {**row, "commit": family.commit, "settings": asdict(wanted)})
        made.append(Made(path, seed, prompt))
    family.unload("vae")
    return made


def load_adapted(family: Family, adapter: Path) -> None:
    """Load the transformer with an adapter on it, ready to sample."""
    family.load("transformer")
    tensors, spec = adapters.load(adapter)
    adapters.attach(family.transformer, "policy", spec, seed=0)
    adapters.load_tensors(family.transformer, "policy", tensors)
    adapters.select(family.transformer, "policy", trainable=False)


def destinations(workspace: Workspace, prompt: str, seeds: list[int], output: Path | None, force: bool) -> list[Path]:
    """Where the videos go: never onto an existing file unless asked.

    Raises:
        MagicIDError: `output-exists`, or `output-invalid` for a name that is not .mp4.
    """
    slug = "-".join(re.findall(r"[a-z0-9]+", prompt.lower())[:6]) or "video"
    if output is None or output.is_dir():
        folder = output or workspace.videos
        return [free_name(folder / f"{slug}-{seed}.mp4") for seed in seeds]
    if output.suffix.lower() != ".mp4":
        raise MagicIDError(
            "output-invalid", f"'{output.name}' is not a name for a video.", "Name a .mp4 file or an existing folder."
        )
    paths = [output]
    if len(seeds) > 1:
        paths = [output.with_stem(f"{output.stem}-{number}") for number in range(1, len(seeds) + 1)]
    taken = [path for path in paths if path.exists()]
    if taken and not force:
        raise MagicIDError("output-exists", f"{taken[0]} exists already.", "Choose another --output, or add --force.")
    return paths


def free_name(path: Path) -> Path:
    """The path, or the first of path-2, path-3, … that is free."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate
