"""What shows a person and lies outside the identity's folder: noted where it is written, so that `rm` can name it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from magicid_cli.cli.identity import readable_manifest
from magicid_cli.cli.output import Terminal
from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import Workspace, append_line, read_lines


def remember(terminal: Terminal, workspace: Workspace, paths: Iterable[Path]) -> None:
    """Note files and folders; those inside the identity's folder need none.

    Args:
        terminal: hears if another command holds the identity, and the note goes beside the manifest.
        workspace: the identity.
        paths: what was written.
    """
    known = workspace.manifest().get("exports", [])
    places = [str(path.resolve()) for path in paths if _is_outside(workspace, path)]
    places = [place for place in places if place not in known]
    if not places:
        return
    try:
        with workspace.lock():  # another command may write the manifest, too
            workspace.update(exports=[*workspace.manifest().get("exports", []), *places])
    except MagicIDError as error:
        if error.code != "identity-busy":
            raise
        # Appending needs no lock, and `found` reads both.
        for place in places:
            append_line(workspace.pages_elsewhere, {"page": place})
        terminal.warn(f"{error.message} What was written is noted beside the manifest, which is not changed meanwhile.")


def found(workspace: Workspace) -> list[str]:
    """Exports, pages, studies and videos that lie elsewhere, of methods, too, as far as they were noted and exist."""
    noted: list[Any] = [row.get("page") for row in read_lines(workspace.pages_elsewhere)]
    for space in (workspace, *workspace.methods()):
        noted += readable_manifest(space).get("exports", [])
        noted += [row.get("file") for row in read_lines(space.videos / "videos.jsonl")]
    places = {str(place): Path(str(place)) for place in noted if place}
    return sorted(name for name, path in places.items() if path.exists() and _is_outside(workspace, path))


def _is_outside(workspace: Workspace, path: Path) -> bool:
    return not path.resolve().is_relative_to(workspace.path.resolve())
