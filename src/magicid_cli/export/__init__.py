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

from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import Workspace, data_home, fsync_folder

if TYPE_CHECKING:
    from magicid_cli.config import Settings
    from magicid_cli.events import Events

KINDS = ("diffusers", "comfyui", "merged")


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
    """Write an identity's adapter in a format of `KINDS`.

    Args:
        workspace: a customized identity.
        kind: the format.
        destination: the folder to make; by default `exports/<name>-<kind>` in magicid's data folder.
        force: whether an existing folder may be replaced.
        events: where progress goes.
        settings: the model's name, device and number type.

    Raises:
        MagicIDError: `output-exists`, `identity-unfinished`, or `export-unfaithful`: nothing is left behind then.
    """
    from magicid_cli import adapters, generation, models

    adapter = generation.adapter_of(workspace)
    folder = destination or data_home() / "exports" / f"{workspace.name}-{kind}"
    if folder.exists() and not force:
        raise MagicIDError("output-exists", f"{folder} exists already.", "Choose another --output, or add --force.")
    family = models.open_family(settings.model, events)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
    try:
        tensors, spec = adapters.load(adapter)
        if kind == "merged":
            from magicid_cli.export import merged

            _, checks = merged.write(temporary, family, adapter)
        elif kind == "comfyui":
            from magicid_cli.export import comfyui

            _, checks = comfyui.write(temporary, tensors, spec, family.transformer_config)
        else:
            from magicid_cli.export import diffusers

            _, checks = diffusers.write(temporary, tensors, spec, family.transformer_config)
        from magicid_cli.export import card

        (temporary / "README.md").write_text(card.text(workspace, kind, folder), encoding="utf-8")
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    with workspace.lock():
        exports = [entry for entry in workspace.manifest().get("exports", []) if entry != str(folder.resolve())]
        workspace.update(exports=[*exports, str(folder.resolve())])
    return Exported(folder, sorted(path for path in folder.rglob("*") if path.is_file()), checks)


def _publish(temporary: Path, folder: Path) -> None:
    """Make an export readable for others (weights are written 0600), durable, and visible under its name."""
    for path in [temporary, *temporary.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if folder.exists():
        old = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
        folder.replace(old / folder.name)
        temporary.replace(folder)
        shutil.rmtree(old)
    else:
        temporary.replace(folder)
    fsync_folder(folder.parent)
