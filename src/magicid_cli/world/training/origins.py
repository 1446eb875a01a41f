"""What each part of a training was made from, kept beside it, so that nothing is ever built on what has been replaced.

A folder that was made with something else than what is there now counts as unfinished, and is cleared before the part
is made again: neither its finished weights nor its state may be gone on with.
"""

import shutil
from pathlib import Path

from magicid_cli.events import Events
from magicid_cli.workspace import file_digest, read_json, write_json
from magicid_cli.world.training.damage import reading

DONE = "weights.safetensors"
_RECORD = "made-of.json"
_SOURCES = {
    "latents": ("codec",),
    "base": ("codec",),
    "guided": ("codec", "base"),
    "face_finder": ("codec",),
    "face_encoder": ("codec",),
    "face_judge": ("codec",),
    "prompt_scorer": ("codec",),
}


def finished(folder: Path, name: str) -> bool:
    """Whether a part's folder holds its finished weights, made with what is there now.

    Raises:
        MagicIDError: `training-damaged` if it cannot be told.
    """
    return (folder / name / DONE).is_file() and _current(folder, name)


def begin(folder: Path, name: str, events: Events) -> None:
    """Make a part's folder ready: kept if it was made with what is there now, else cleared, which is announced.

    Args:
        folder: of the training.
        name: of the part's folder.
        events: told of what is cleared.
    """
    if _current(folder, name):
        return
    clear(folder, name, f"it was not made with the present {' and '.join(_SOURCES[name])}", events)
    write_json(folder / name / _RECORD, _made_of(folder, name))


def clear(folder: Path, name: str, why: str, events: Events) -> None:
    """Delete a part's folder, if there is one, and say so."""
    if (folder / name).exists():
        events.notice(f"{folder / name} begins anew: {why}.")
        shutil.rmtree(folder / name)


def _current(folder: Path, name: str) -> bool:
    made_of, path = _made_of(folder, name), folder / name / _RECORD
    if not made_of or not path.is_file():
        return not made_of
    with reading(path, f"'{name}' begins anew"):
        return bool(read_json(path) == made_of)


def _made_of(folder: Path, name: str) -> dict[str, str | None]:
    """Source → SHA-256 of its finished weights, or None where it is not finished."""
    paths = {source: folder / source / DONE for source in _SOURCES.get(name, ())}
    return {source: file_digest(path) if path.is_file() else None for source, path in paths.items()}
