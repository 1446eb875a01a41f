"""An identity as other tools want it: diffusers, ComfyUI, merged weights, with a model card.

Every file is loaded back and compared before the export counts as done; it is put together in a temporary folder and
appears as a whole.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicid_cli.checkpoints import room_to_write
from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import Workspace, data_home, fsync_folder

if TYPE_CHECKING:
    from magicid_cli.config import Settings
    from magicid_cli.events import Events
    from magicid_cli.models.base import Family

KINDS = ("diffusers", "comfyui", "merged")
_FILES = (
    "README.md",
    "keywords.safetensors",
    "pytorch_lora_weights.safetensors",
    "adapter-comfyui.safetensors",
    "transformer",
)


@dataclass(frozen=True)
class Exported:
    """What was written, and what loading it back found."""

    folder: Path
    files: list[Path]
    checks: dict[str, Any]


def export(
    workspace: Workspace,
    kind: str,
    destination: Path | None,
    *,
    force: bool,
    events: "Events",
    settings: "Settings",
) -> Exported:
    """Write an identity's adapter in a format of `KINDS`, or another method's adapter or keywords.

    Args:
        workspace: a customized identity, or the folder of a method that trains something.
        kind: the format.
        destination: the folder to make; by default `exports/<name>-<kind>` in magicid's data folder, with -2,
            -3, … where that is taken.
        force: whether an existing folder may be replaced.
        events: where progress goes.
        settings: the model's name, device and number type.

    Raises:
        MagicIDError: `output-exists`, `output-invalid`, `identity-unfinished`, `identity-busy`, `disk-full`,
            `model-mismatch`, `settings-invalid` for keywords in another format than `diffusers`, or
            `export-unfaithful`: nothing is left behind then.
    """
    from magicid_cli import models

    _require(workspace, kind, settings)
    # The lock: nothing may change the adapter while it is read, and nobody else has a temporary folder of this name.
    with workspace.lock(), models.gpu_memory("merging", "Export the adapter itself: --format diffusers"):
        folder = _folder(workspace, kind, destination, force)
        family = models.open_family(settings.model, events)
        folder.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".tmp-magicid.{workspace.name}."  # a dot is in no name
        for left in folder.parent.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)  # of an export that was killed
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        try:
            with room_to_write(folder):
                checks = _fill(temporary, kind, workspace, family)
                _publish(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        exports = [entry for entry in workspace.manifest().get("exports", []) if entry != str(folder.resolve())]
        workspace.update(exports=[*exports, str(folder.resolve())])
    return Exported(folder, sorted(path for path in folder.rglob("*") if path.is_file()), checks)


def _require(workspace: Workspace, kind: str, settings: "Settings") -> None:
    """Refuse what is not finished, belongs to another model, or has no such format."""
    from magicid_cli import generation

    if not workspace.method:
        generation.require_model(workspace, settings)
        return
    generation.require_method(workspace, settings)
    if generation.keywords_of(workspace) and kind != "diffusers":
        raise MagicIDError(
            "settings-invalid",
            f"'{workspace.method}' trains keywords for the text encoder, no weights of the video model.",
            "Export them with --format diffusers: the card says how a prompt is encoded with them.",
        )


def _fill(temporary: Path, kind: str, workspace: Workspace, family: "Family") -> dict[str, Any]:
    """Write everything into the temporary folder; returns what loading it back found."""
    from magicid_cli import adapters, generation
    from magicid_cli.export import card, comfyui, diffusers, keywords, merged

    words = generation.keywords_of(workspace)
    if words:
        return keywords.write(temporary, workspace, words, family)
    adapter = generation.adapter_of(workspace)
    tensors, spec = adapters.load(adapter)
    if kind == "merged":
        _, checks = merged.write(temporary, family, adapter)
    elif kind == "comfyui":
        _, checks = comfyui.write(temporary, tensors, spec, family.transformer_config)
    else:
        _, checks = diffusers.write(temporary, tensors, spec, family.transformer_config)
    (temporary / "README.md").write_text(card.text(workspace, kind), encoding="utf-8")
    return checks


def _folder(workspace: Workspace, kind: str, destination: Path | None, force: bool) -> Path:
    """Where the export goes: a free name by default, and never onto anything unless asked.

    Raises:
        MagicIDError: `output-exists`, `output-invalid`.
    """
    from magicid_cli.destinations import free_name, require_writable

    parts = [workspace.name, *([workspace.method] if workspace.method else []), kind]
    folder = (destination or data_home() / "exports" / "-".join(parts)).absolute()
    if destination is None and not force:
        folder = free_name(folder)
    require_writable(folder)
    _refuse_taken(folder, force)
    return folder


def _refuse_taken(folder: Path, force: bool) -> None:
    """Replace a folder only when asked, and only if everything in it is an export's: the rest cannot be made again.

    Raises:
        MagicIDError: `output-exists`, `output-invalid`.
    """
    if not os.path.lexists(folder):
        return
    if not force:
        raise MagicIDError("output-exists", f"{folder} exists already.", "Choose another --output, or add --force.")
    known = folder.is_dir() and not folder.is_symlink()
    foreign = [path for path in folder.rglob("*") if not _is_ours(path.relative_to(folder))] if known else [folder]
    if foreign:
        raise MagicIDError(
            "output-invalid",
            f"{folder} would be replaced as a whole, and {foreign[0].name} is nothing that an export writes.",
            "Name a folder of its own with --output.",
        )


def _is_ours(path: Path) -> bool:
    """Whether an export may have written this path (relative to its folder)."""
    return str(path) in _FILES or (path.parts[0] == "transformer" and path.suffix in (".json", ".safetensors"))


def _publish(temporary: Path, folder: Path) -> None:
    """Make an export readable for others (weights are written 0600), durable, and visible under its name."""
    for path in [temporary, *temporary.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if folder.exists():
        folder.replace(temporary.with_name(f"{temporary.name}-old"))
    temporary.replace(folder)
    shutil.rmtree(temporary.with_name(f"{temporary.name}-old"), ignore_errors=True)
    fsync_folder(folder.parent)
