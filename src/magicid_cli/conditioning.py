"""Text and static latents, encoded once and kept on disk, so that the encoders can leave memory.

Every file is named after the content that made it: a changed caption, photo or model gives another name, and what is
already there is never encoded twice.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models.base import Family, Shape
from magicid_cli.workspace import Workspace, atomic_path, digest, file_digest

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Reference:
    """One usable photo: its crop and its caption.

    Attributes:
        crop: the PNG.
        sha256: of the PNG's bytes.
        caption: what the photo shows, with the class word.
    """

    crop: Path
    sha256: str
    caption: str


def references(workspace: Workspace) -> list[Reference]:
    """The photos that ingest kept, in the order of their captions.

    Raises:
        MagicIDError: `captions-unusable`: people edit that file, and no photo may drop out of training by a slip.
    """
    path = workspace.references / "captions.jsonl"
    crops = {crop.name: crop for crop in sorted(workspace.references.glob("[0-9]*.png"))}
    captions: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        row = _caption(line)
        if row is None or row["crop"] not in crops or row["crop"] in captions:
            raise _unusable(path, f"line {number} is no caption of a photo in {path.parent.name}/")
        captions[row["crop"]] = row["caption"]
    if crops.keys() != captions.keys():
        raise _unusable(path, f"{', '.join(sorted(crops.keys() - captions.keys()))} has no caption")
    return [Reference(crops[name], file_digest(crops[name]), caption) for name, caption in captions.items()]


def _caption(line: str) -> dict[str, Any] | None:
    """A line of `captions.jsonl`, or None if it is not one."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    whole = isinstance(row, dict) and all(isinstance(row.get(name), str) for name in ("crop", "caption"))
    return row if whole and row["caption"].strip() else None


def _unusable(path: Path, why: str) -> MagicIDError:
    return MagicIDError(
        "captions-unusable",
        f"{path} cannot be used: {why}.",
        "Correct the line, or remove the file: the same command writes it anew.",
    )


def text_path(folder: Path, family: Family, prompt: str) -> Path:
    """Where the conditioning of `prompt` by this family's weights lies."""
    return folder / f"{digest(['text', family.commit, str(family.dtype), prompt])[:24]}.safetensors"


def encode_texts(family: Family, folder: Path, prompts: Iterable[str], events: Events, stage: str) -> None:
    """Encode the prompts that have no file yet; the text encoders are loaded only if there are any."""
    missing = [prompt for prompt in dict.fromkeys(prompts) if not text_path(folder, family, prompt).is_file()]
    if not missing:
        return
    family.load("text")
    for number, prompt in enumerate(missing, 1):
        cut = family.text_overflow(prompt)
        if cut:
            events.notice(f"A prompt is {cut} tokens too long for the text encoder; its end is ignored.", stage=stage)
        save_tensors(text_path(folder, family, prompt), family.encode_text(prompt))
        events.emit("step", stage=stage, part="texts", step=number, of=len(missing))
    family.unload("text")


def load_text(family: Family, folder: Path, prompt: str) -> "dict[str, torch.Tensor]":
    """The conditioning that `encode_texts` kept."""
    return load_tensors(text_path(folder, family, prompt))


def static_path(folder: Path, family: Family, crop_sha256: str, shape: Shape) -> Path:
    """Where the latents of a photo repeated to `shape.frames` lie."""
    return folder / f"{digest(['static', family.commit, str(family.dtype), crop_sha256, str(shape)])[:24]}.safetensors"


def encode_statics(
    family: Family, folder: Path, photos: list[Reference], shape: Shape, events: Events, stage: str
) -> None:
    """Encode the static clips that have no file yet.

    Args:
        family: its VAE is loaded only if something is missing.
        folder: where the latents are kept.
        photos: crops of `shape`'s height and width.
        shape: the training shape.
        events: where progress goes.
        stage: the stage that asks.
    """
    from magicid_cli.photos import decode

    missing = [photo for photo in photos if not static_path(folder, family, photo.sha256, shape).is_file()]
    if not missing:
        return
    family.load("vae")
    for number, photo in enumerate(missing, 1):
        latents = family.encode_static(decode(photo.crop).rgb, shape.frames)
        save_tensors(static_path(folder, family, photo.sha256, shape), {"latents": latents})
        events.emit("step", stage=stage, part="latents", step=number, of=len(missing))
    family.unload("vae")


def keep_statics(family: Family, folder: Path, photos: list[Reference], shape: Shape) -> None:
    """Remove the latents of photos that are not used any more: they still show the person."""
    names = {static_path(folder, family, photo.sha256, shape) for photo in photos}
    for path in set(folder.glob("*.safetensors")) - names:
        path.unlink()


def save_tensors(path: Path, tensors: "dict[str, torch.Tensor]", metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, atomically."""
    from safetensors.torch import save

    # Serialised here: the library's own file writer does not report a full disk as an OSError.
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=metadata)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def load_tensors(path: Path) -> "dict[str, torch.Tensor]":
    """Read a safetensors file into CPU memory."""
    from safetensors.torch import load_file

    return load_file(path)


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty if the file is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError:
        return {}
