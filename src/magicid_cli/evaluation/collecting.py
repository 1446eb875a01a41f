"""Which videos there are, and which prompt belongs to which.

The rule for a folder of anybody's videos, the first of these that is there:

1. the file of prompts that the user names
   - `.json`: an object `{"video": "prompt"}`, a list of objects with `video` and `prompt`, or a list of texts
   - `.jsonl`: an object with `video` (or `file`, `clip`) and `prompt` a line: our own records are such files
   - `.csv`: with a header that names `video` (or `file`, `clip`, `name`) and `prompt`
   - `.txt` and any other: a prompt a line, `#` begins a remark
   A video is named by its file name, with or without folder and ending. Lists of texts belong to the videos in the
   natural order of their names (2 before 10), and must be as many.
2. `videos.jsonl` in the folder or above it, as `magicid generate` and `magicid customize` write it
3. beside a video, `NAME.json` with a `prompt` in it, or `NAME.txt`
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from magicid_cli.config import KNOBS, Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.evaluation.records import Item
from magicid_cli.workspace import Workspace, file_digest, read_lines

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif")
_NAMES = ("video", "file", "clip", "name", "path")
RECORDS = "videos.jsonl"
OWN, STAGE_1, UNTOUCHED = "magicid", "magicid, stage 1", "untouched model"
# What is no part of a video: how many were asked for together, and which adapter, which is told otherwise.
_APART = ("generate.count", "generate.adapter")
_GENERATE = tuple(name for name in KNOBS if name.startswith("generate.") and name not in _APART)
_ADAPTERS = {"final": OWN, "stage-1": STAGE_1, "none": UNTOUCHED}


@dataclass(frozen=True)
class Collected:
    """Videos to evaluate.

    Attributes:
        items: in natural order of their names.
        notes: what does not fit together, a sentence each.
        by: what made an identity's videos: a method, the adapter of stage 1, the untouched model.
        made_with: what they were made with beside that, as far as numbers depend on it; empty where it is not told.
        settings: of the newest one, as its record has them; empty where there is none.
    """

    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()
    by: str = ""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def in_folder(folder: Path, prompts: Path | None = None) -> Collected:
    """The videos of a folder, not of folders below it, with their prompts.

    Args:
        folder: with videos.
        prompts: the file with their prompts.

    Raises:
        MagicIDError: `videos-missing`; `prompts-file` if it cannot be read, has another form or, being a list of
            texts, another length.
    """
    paths = video_files(folder)
    known = _from_file(prompts, paths) if prompts else _beside(folder, paths)
    items = tuple(Item(path, path.name, _lookup(known, path)) for path in paths)
    notes = []
    if prompts:
        without = [item.name for item in items if item.prompt is None]
        used = {name for path in paths for name in _spellings(path)}
        unused = [name for name in known if name not in used]
        notes += [f"{prompts.name} has no prompt for {_listed(without)}."] if without else []
        notes += [f"{prompts.name} names videos that are not there: {_listed(unused)}."] if unused else []
    return Collected(items, tuple(notes))


def video_files(folder: Path) -> list[Path]:
    """The video files right in a folder, by name, 2 before 10.

    Raises:
        MagicIDError: `videos-missing`.
    """
    if not folder.is_dir():
        raise MagicIDError("videos-missing", f"'{folder}' is no folder.", "Give a folder with videos.")
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = [path for path in entries if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not found:
        below = sorted(path.name for path in entries if path.is_dir())
        hint = f"Name the folder below it: {folder / below[0]}" if below else "Videos end in " + ", ".join(SUFFIXES)
        raise MagicIDError("videos-missing", f"'{folder}' holds no video.", f"{hint}.")
    return sorted(found, key=lambda path: _natural(path.name))


def of_identity(*workspaces: Workspace) -> dict[str, Collected]:
    """The videos that `generate` made of an identity or by another method, by what made them.

    Videos made with another base model or with other settings (size, frames, steps, …) cannot be told from another
    method in a mean: they are groups of their own, and all groups then say in what they differ.

    Those of an adapter or of keywords that were replaced since are left out; so are those of a method with a model of
    its own that show a photo no longer there, or that were made with another model or settings than its newest one;
    and files that are gone or were moved. Nothing may remain.

    Args:
        workspaces: of the identity, of methods.
    """
    groups: list[Collected] = []
    for workspace in workspaces:
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in read_lines(workspace.videos / RECORDS):
            label = _ADAPTERS.get(row.get("settings", {}).get("adapter", "final"), OWN)
            if workspace.method and label == OWN:
                label = workspace.method
            rows.setdefault(label, []).append(row)
        groups += [one for label, some in rows.items() for one in _of_now(workspace, label, some)]
    told = [one.made_with for one in groups if one.made_with]
    differ = [name for name in (told[0] if told else ()) if any(one[name] != told[0][name] for one in told)]
    return {_label(one, differ): one for one in groups}


def _label(group: Collected, differ: Sequence[str]) -> str:
    """What made the videos, and with what where that differs between groups."""
    if not (group.made_with and differ):
        return group.by
    said = (f"{name.rpartition('.')[2].replace('_', ' ')} {_spoken(group.made_with[name])}" for name in differ)
    return f"{group.by} ({', '.join(said)})"


def _spoken(value: Any) -> str:
    if isinstance(value, str):
        return value or "none"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _made_with(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a video was made with; a record of an earlier version lacks what then was as the default says."""
    settings = row.get("settings", {})
    base = {"model": row.get("model"), "commit": str(row.get("commit"))[:8], "base": row.get("base", "full")}
    return base | {name: settings.get(name.rpartition(".")[2], KNOBS[name].default) for name in _GENERATE}


def untouched(workspace: Workspace) -> list[Path]:
    """Clips of the untouched model in an identity's repository: the reference set of its FVD."""
    rows = (row for row in read_lines(workspace.repository / RECORDS) if row.get("origin") == "initial")
    return [path for row in rows if (path := workspace.repository / row["clip"]).is_file()]


def untouched_apart(workspace: Workspace, settings: Settings, made_with: Mapping[str, Any], prompts: set[str]) -> str:
    """In what the clips of `untouched` differ from videos beside the method that made these, a sentence or nothing.

    Args:
        workspace: of the identity.
        settings: of its last run, which the repository was made with.
        made_with: of the videos, as far as it is known: `size`, `frames`, `steps`.
        prompts: of the videos.
    """
    rows = [row for row in read_lines(workspace.repository / RECORDS) if row.get("origin") == "initial"]
    if not rows:
        return ""
    shape, repository = settings.shape, settings.repository
    theirs = {"size": shape.size, "frames": shape.frames, "steps": repository.steps}
    said = [
        f"{name} {value} (the videos: {made_with[name]})"
        for name, value in theirs.items()
        if made_with.get(name, value) != value
    ]
    if repository.step_cache:
        said.append(f"the step cache {repository.step_cache_kind} at {repository.step_cache:g}, which is inexact")
    if not prompts <= {row.get("prompt") for row in rows}:
        said.insert(0, "the prompts, which are those that MagicID practised")
    if not said:
        return ""
    return f"FVD's reference set, the untouched model's clips, differs from the videos in: {'; '.join(said)}."


def photos_of(workspace: Workspace) -> list[Path]:
    """The crops of an identity's photos."""
    return sorted(workspace.references.glob("[0-9]*.png"))


def _of_now(workspace: Workspace, label: str, rows: Sequence[dict[str, Any]]) -> list[Collected]:
    """The videos that what is there now has made, each file once, a group for all that they were made with.

    The first group has the notes; it is empty where nothing remains.
    """
    latest = {row["file"]: row for row in rows}.values()
    if "photo" in rows[-1]:
        own, others = _of_one_model(workspace, latest), "from another photo, or with another model or settings"
    else:
        now = _trained_now(workspace, label)
        own = [row for row in latest if (row.get("adapter"), row.get("keywords")) == now]
        others = "of an earlier adapter"
    here = [row for row in own if Path(row["file"]).is_file()]
    notes = []
    if len(own) < len(latest):
        notes.append(f"Videos {others}, left out: {len(latest) - len(own)}.")
    if len(here) < len(own):
        notes.append(f"Videos that are not where they were made, left out: {len(own) - len(here)}.")
    found = [Collected(_items(some), (), label, with_, some[-1].get("settings", {})) for with_, some in _alike(here)]
    first = found[0] if found else Collected((), by=label)
    return [replace(first, notes=tuple(notes)), *found[1:]]


def _alike(rows: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Rows by what they were made with; those of a method with its own model are of one such already."""
    groups: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for row in rows:
        made_with = {} if "photo" in row else _made_with(row)
        known = next((some for known, some in groups if known == made_with), None)
        if known is None:
            groups.append((made_with, known := []))
        known.append(row)
    return groups


def _items(rows: Sequence[dict[str, Any]]) -> tuple[Item, ...]:
    names = _unique([Path(row["file"]) for row in rows])
    return tuple(Item(Path(row["file"]), name, row["prompt"]) for row, name in zip(rows, names, strict=True))


def _trained_now(workspace: Workspace, label: str) -> tuple[str | None, str | None]:
    """Digests of the adapter and of the keywords that videos of this label are made with now."""
    if label == UNTOUCHED:
        return None, None
    named = {"adapter": "reconstruct/adapter.safetensors"} if label == STAGE_1 else workspace.manifest()
    adapter, keywords = (workspace.path / named[kind] if named.get(kind) else None for kind in ("adapter", "keywords"))
    return _content(adapter), _content(keywords)


def _content(path: Path | None) -> str | None:
    return file_digest(path) if path and path.is_file() else None


def _of_one_model(workspace: Workspace, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of a photo that is there, with the weights and settings of the newest such one."""
    photos = {file_digest(crop) for crop in photos_of(workspace)}
    found = [row for row in rows if row["photo"]["sha256"] in photos]
    newest = max(found, key=lambda row: float(row["time"]), default=None)
    return [row for row in found if _model(row) == _model(newest or row)]


def _model(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a video was made with beside photo, prompt and seed."""
    return row["weights"], row.get("checkpoint_sha256"), row["settings"]


def _unique(paths: Sequence[Path]) -> list[str]:
    """File names, with folders where two are equal."""
    names = [path.name for path in paths]
    return [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]


# ------------------------------------------------------------------------------------------------------------ prompts


def _from_file(path: Path, videos: Sequence[Path]) -> dict[str, str]:
    """Prompts by what the file calls the videos."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise _unusable(path, "is not UTF-8 text") from None
    kind = path.suffix.lower()
    if kind == ".json":
        return _from_json(path, _json(path, text), videos)
    if kind == ".jsonl":
        return _pairs(path, [_json(path, line) for line in text.split("\n") if line.strip()])
    if kind == ".csv":
        return _pairs(path, list(csv.DictReader(io.StringIO(text, newline=""))))
    lines = (line.strip() for line in text.splitlines())
    return _in_order(path, [line for line in lines if line and not line.startswith("#")], videos)


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _unusable(path, f"is no JSON (line {error.lineno}: {error.msg})") from None


def _from_json(path: Path, data: Any, videos: Sequence[Path]) -> dict[str, str]:
    if isinstance(data, dict) and all(isinstance(value, str) for value in data.values()):
        return {_plain(name): prompt for name, prompt in data.items()}
    if isinstance(data, list) and all(isinstance(value, str) for value in data):
        return _in_order(path, data, videos)
    if isinstance(data, list):
        return _pairs(path, data)
    raise _unusable(path, 'is neither {"video": "prompt"} nor a list')


def _pairs(path: Path, rows: Iterable[Any]) -> dict[str, str]:
    found = {}
    for number, row in enumerate(rows, 1):
        name = next((row[key] for key in _NAMES if row.get(key)), None) if isinstance(row, dict) else None
        if not isinstance(name, str) or not isinstance(row.get("prompt"), str):
            raise _unusable(path, f"does not name a video and its prompt in row {number}")
        found[_plain(name)] = row["prompt"]
    return found


def _in_order(path: Path, prompts: Sequence[str], videos: Sequence[Path]) -> dict[str, str]:
    if len(prompts) != len(videos):
        raise _unusable(path, f"has {len(prompts)} prompts for {len(videos)} videos, and does not say whose they are")
    return {video.name: prompt for video, prompt in zip(videos, prompts, strict=True)}


def _unusable(path: Path, why: str) -> MagicIDError:
    return MagicIDError(
        "prompts-file",
        f"The prompts file {path} {why}.",
        'Write {"video": "prompt"} as JSON, a CSV with columns video and prompt, or one line for every video.',
    )


def _beside(folder: Path, videos: Sequence[Path]) -> dict[str, str]:
    """Prompts from our own records, or from a file beside each video."""
    for records in (folder / RECORDS, folder.parent / RECORDS):
        rows = [row for row in read_lines(records) if isinstance(row, dict) and isinstance(row.get("prompt"), str)]
        found = {
            _plain(str(name)): row["prompt"] for row in rows for name in [row.get("file") or row.get("clip")] if name
        }
        if any(_lookup(found, video) is not None for video in videos):
            return found
    return {video.name: prompt for video in videos if (prompt := _sidecar(video)) is not None}


def _sidecar(video: Path) -> str | None:
    try:
        data = json.loads(video.with_suffix(".json").read_text(encoding="utf-8-sig"))
        if isinstance(data, dict) and isinstance(data.get("prompt"), str):
            return str(data["prompt"])
    except (OSError, ValueError):
        pass  # none, or somebody else's: a text may lie there
    try:
        return video.with_suffix(".txt").read_text(encoding="utf-8-sig").strip() or None
    except (OSError, ValueError):
        return None


def _lookup(known: Mapping[str, str], video: Path) -> str | None:
    return next((known[name] for name in _spellings(video) if name in known), None)


def _spellings(video: Path) -> tuple[str, ...]:
    return video.name, video.stem


def _plain(name: str) -> str:
    """A name without its folder, whatever system wrote it."""
    return re.split(r"[/\\]", name.strip())[-1]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part.lower()) for part in re.split(r"(\d+)", name)]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
