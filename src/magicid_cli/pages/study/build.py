"""A folder that raters open without a network: one page and videos whose names say nothing."""

import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magicid_cli import video
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.pages import previews, shell
from magicid_cli.pages.study.questions import QUESTIONS
from magicid_cli.workspace import write_json

FORMAT = 1
KEY = "magicid study key"
PAGE = "index.html"
MOST_METHODS = 8
_PHOTO_HEIGHT = 320  # pixels
_MEDIA = "media"
_SCRIPTS = ("in_step.js", "study.js")


@dataclass(frozen=True)
class Candidate:
    """A video that may take part.

    Attributes:
        path: the file.
        prompt: what it should show, if that is known.
    """

    path: Path
    prompt: str | None


@dataclass(frozen=True)
class Built:
    """A study on the disk.

    Attributes:
        folder: what raters get.
        key: the file that says which video is whose; raters must not get it.
        sets: how many there are.
        methods: that are compared.
        notes: what may tell raters whose a video is, or what was left out, a sentence each.
    """

    folder: Path
    key: Path
    sets: int
    methods: tuple[str, ...]
    notes: tuple[str, ...]


Set = dict[str, Candidate]
"""One video of each method that belong together, by method."""


def sets_of(methods: Mapping[str, Sequence[Candidate]]) -> tuple[list[Set], list[str]]:
    """Videos of several methods → sets, and notes on what was left out.

    Videos with the same file name, but for its ending, belong together, unless they are known to show different
    prompts. Where no name is shared by all methods so, it is those with the same prompt: the first of each method, the
    second, and so on.

    Raises:
        MagicIDError: `study-unusable` for fewer than two methods or more than eight, or if nothing belongs together.
    """
    if not 2 <= len(methods) <= MOST_METHODS:
        raise MagicIDError(
            "study-unusable",
            f"A study compares two to {MOST_METHODS} methods; here are {len(methods)}: {', '.join(methods) or 'none'}.",
            "Name them: magicid study build --videos magicid=FOLDER --videos other=FOLDER",
        )
    named = _together([{item.path.stem: item for item in items} for items in methods.values()])
    found = [of_set for of_set in named if len({item.prompt for item in of_set} - {None}) < 2]
    if not found:
        found = _together([_by_prompt(items) for items in methods.values()])
    if not found:
        raise MagicIDError(
            "study-unusable",
            f"No video of {' and '.join(methods)} belongs together: neither by file name nor by prompt.",
            "Give the videos of one prompt and seed the same file name in every folder.",
        )
    unlike = [of_set[0].path.stem for of_set in named if len({item.prompt for item in of_set} - {None}) > 1]
    notes = [f"The videos called {', '.join(unlike)} show different prompts and are no set."] if unlike else []
    notes += [
        f"{len(items) - len(found)} videos of {method} have no counterpart everywhere and are left out."
        for method, items in methods.items()
        if len(items) > len(found)
    ]
    return [dict(zip(methods, of_set, strict=True)) for of_set in found], notes


def _together(by_name: Sequence[Mapping[Any, Candidate]]) -> list[list[Candidate]]:
    first, *others = by_name
    return [[items[name] for items in by_name] for name in first if all(name in items for items in others)]


def _by_prompt(items: Sequence[Candidate]) -> dict[tuple[str, int], Candidate]:
    found: dict[tuple[str, int], Candidate] = {}
    for item in items:
        if item.prompt is not None:
            number = sum(prompt == item.prompt for prompt, _ in found)
            found[item.prompt, number] = item
    return found


def build(
    sets: Sequence[Set], photos: Sequence[Path], folder: Path, events: Events, *, title: str, count: int, seed: int
) -> Built:
    """Write the study's folder, all of it or nothing, and its key beside it.

    Every video is decoded and encoded alike: names, comments and encoders of the originals would tell whose it is.

    Args:
        sets: from `sets_of`.
        photos: of the person, to judge likeness by.
        folder: a path that is free.
        events: where progress goes.
        title: of the page.
        count: most sets to take, chosen by seed; 0 takes all.
        seed: also of the order in the folder.

    Raises:
        MagicIDError: a video cannot be read, or the disk is full.
    """
    chance = random.Random(seed)
    chosen = chance.sample(list(sets), min(count or len(sets), len(sets)))
    key_path = folder.with_name(f"{folder.name}.key.json")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".tmp-study-", dir=folder.parent))
    try:
        packed, notes = _pack(chosen, unfinished / _MEDIA, chance, events)
        study = secrets.token_hex(8)
        shown = {
            "format": FORMAT,
            "study": study,
            "photos": _photos(photos, unfinished / _MEDIA),
            "questions": [asdict(question) for question in QUESTIONS],
            "sets": [{"id": one["id"], "prompt": one["prompt"], "videos": list(one["videos"])} for one in packed],
        }
        media = f"'self' {shell.MEDIA}"  # a folder that is put on a web server works, too
        page = shell.render(
            "study.html", styles=("study.css",), scripts=_SCRIPTS, media=media, title=title, study=shown
        )
        shell.write_private(unfinished / PAGE, page)
        methods = tuple(chosen[0])
        key = {"kind": KEY, "format": FORMAT, "study": study, "title": title, "created": round(time.time(), 3)}
        write_json(key_path, {**key, "seed": seed, "methods": methods, "sets": packed})
        try:
            unfinished.rename(folder)
        except OSError:
            key_path.unlink()  # a key of no study
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Built(folder, key_path, len(packed), methods, tuple(notes))


def _pack(
    sets: Sequence[Set], media: Path, chance: random.Random, events: Events
) -> tuple[list[dict[str, Any]], list[str]]:
    """Write the videos under names by chance; what the key says of each set, and notes."""
    packed, unlike = [], 0
    for number, one in enumerate(sets, 1):
        named: dict[str, dict[str, str]] = {}
        shapes = set()
        for method in chance.sample(sorted(one), len(one)):
            name = f"{secrets.token_hex(8)}.mp4"
            shapes.add(_copy(one[method].path, media / name))
            named[name] = {"method": method, "file": str(one[method].path.absolute())}
        unlike += len(shapes) > 1
        prompt = next((item.prompt for item in one.values() if item.prompt), None)
        packed.append({"id": secrets.token_hex(8), "prompt": prompt, "videos": named})
        events.emit("step", stage="study", part="sets", step=number, of=len(sets))
    notes = []
    if unlike:
        notes.append(f"In {unlike} sets the videos differ in size, length or frame rate, which tells them apart.")
    without = sum(one["prompt"] is None for one in packed)
    if without:
        notes.append(f"{without} sets have no prompt: raters cannot judge what the text says.")
    return packed, notes


def _copy(path: Path, target: Path) -> tuple[int, int, int, float]:
    """The same pictures, written as we write all; frames, height, width and frames per second."""
    frames, fps = video.read_video(path)
    height, width = (side - side % 2 for side in frames.shape[1:3])
    video.write_video(target, frames[:, :height, :width], fps)
    target.chmod(shell.PRIVATE)
    return len(frames), height, width, round(fps, 2)


def _photos(photos: Sequence[Path], media: Path) -> list[str]:
    """Write the photos; their names."""
    from magicid_cli.photos import decode

    names = []
    for photo in photos:
        name = f"{secrets.token_hex(8)}.webp"
        (media / name).write_bytes(previews.picture(decode(photo).rgb, _PHOTO_HEIGHT))
        (media / name).chmod(shell.PRIVATE)
        names.append(name)
    return names
