"""Photos → checked, cropped, captioned references.

Every photo gets a verdict with a reason for its owner; the usable ones become crops at the training size, captions
that may be edited by hand, and face embeddings that the identity reward compares with.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

from magicid_cli import models
from magicid_cli.choosing import comparing
from magicid_cli.choosing.advice import Advice, advice
from magicid_cli.choosing.looking import OTHER_PERSON, USED, Keep, Seen, Verdict, look
from magicid_cli.config import Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.faces import Faces, open_faces, require_names
from magicid_cli.models.catalog import video_model
from magicid_cli.photos import content_digest
from magicid_cli.prompts import captions, describe, edited
from magicid_cli.workspace import Workspace, atomic_path, file_digest, read_lines, write_lines

NAME = "ingest"
TITLE = "Photos"
FORMAT = 2
ASIDE = "other-captions.jsonl"
"""Edited captions whose photo is not used now."""
READS = ("model.name", "photos", "shape.size", "rewards.face_detector", "rewards.face_model")


@dataclass(frozen=True)
class IngestResult:
    """What became of the photos.

    Attributes:
        used: how many became references.
        refused: the others, as (file name, code of the verdict).
        captions: the file whose captions may be edited.
        advice: what would make the used ones better.
        rule: see `Examined`.
    """

    used: int
    refused: tuple[tuple[str, str], ...]
    captions: Path
    advice: tuple[Advice, ...] = ()
    rule: str = ""


@dataclass(frozen=True)
class Examined:
    """What was decided about photos.

    Attributes:
        verdicts: one for every photo, in order.
        advice: what would make the used ones better, the most important first.
        rule: by which good photos were left out because there are more than wanted; empty if none was.
    """

    verdicts: tuple[Verdict, ...]
    advice: tuple[Advice, ...]
    rule: str


def inputs(workspace: Workspace, photos: list[Path]) -> dict[str, Any]:
    """Content of the photo files, whatever their names and order."""
    return {"photos": sorted(content_digest(photo) for photo in photos)}


def outputs(workspace: Workspace) -> dict[str, Any]:
    """Content of everything but the captions: those may be edited without this stage becoming stale."""
    folder = workspace.references
    files = [folder / "photos.jsonl", folder / "embeddings.safetensors", *sorted(folder.glob("[0-9]*.png"))]
    digests = {file.name: file_digest(file) for file in files if file.is_file()}
    return {**digests, "captions": (folder / "captions.jsonl").is_file()}


def reads(settings: Settings) -> tuple[str, ...]:
    """`READS`, and which model writes the captions where one does."""
    return READS if settings.photos.captions == describe.TEMPLATE else (*READS, "rewards.vlm")


def check(settings: Settings) -> None:
    """Refuse what could only fail after the photos were looked at.

    Raises:
        MagicIDError: `settings-unknown`, `settings-invalid` for a model that cannot write captions,
            `face-model-missing`.
    """
    require_names(settings.rewards, video_model(settings.model.name))
    if settings.photos.captions != describe.TEMPLATE:
        describe.writer_name(settings.rewards, video_model(settings.model.name))


def prepare(settings: Settings, events: Events) -> None:
    """Bring in what the stage needs from outside, before any stage starts."""
    open_faces(settings.rewards, video_model(settings.model.name), offline=settings.model.offline, events=events)
    _captioner(settings, events)


def _captioner(settings: Settings, events: Events) -> captions.Captioner:
    wanted, model = settings.photos, settings.model
    device = "cpu" if wanted.captions == describe.TEMPLATE else models.device_for(model)
    facts, offline = video_model(model.name), model.offline
    return describe.open_captioner(wanted, settings.rewards, facts, device=device, offline=offline, events=events)


def run(workspace: Workspace, settings: Settings, events: Events, *, photos: list[Path]) -> IngestResult:
    """Check the photos and write `references/`.

    Raises:
        MagicIDError: `photos-none-usable`, `photos-several-people`, or a face model is missing.
    """
    model = video_model(settings.model.name)
    faces = open_faces(settings.rewards, model, offline=settings.model.offline, events=events)
    seen, rule = _examine(photos, settings, faces, events)
    refused = tuple((item.verdict.file, item.verdict.code) for item in seen if item.verdict.code != USED)
    refuse([item.verdict for item in seen], "`magicid prepare PHOTOS` gives a verdict and advice for every photo.")
    if refused:
        named = ", ".join(f"{file} ({code})" for file, code in refused)
        events.notice(f"{len(seen) - len(refused)} of {len(seen)} photos are used; left out: {named}.", stage=NAME)
    wanting = tuple(advice([item for item in seen if item.used]))
    for text in filter(None, (rule, *(one.text for one in wanting))):
        events.notice(text, stage=NAME)
    captioner = _captioner(settings, events)
    _write(workspace, seen, captioner, f"{faces.detector.made_by}; {faces.recogniser.made_by}", events)
    captioner.close()
    used = len(seen) - len(refused)
    return IngestResult(used, refused, workspace.references / "captions.jsonl", wanting, rule)


def examine(photos: list[Path], settings: Settings, faces: Faces, events: Events, keep: Keep | None = None) -> Examined:
    """A verdict for every photo, and what would help most; nothing is written and nothing refused."""
    seen, rule = _examine(photos, settings, faces, events, keep)
    return Examined(tuple(item.verdict for item in seen), tuple(advice([item for item in seen if item.used])), rule)


def _examine(
    photos: list[Path], settings: Settings, faces: Faces, events: Events, keep: Keep | None = None
) -> tuple[list[Seen], str]:
    seen = []
    for number, path in enumerate(photos, 1):
        item = look(path, settings, faces, keep)
        about = {"file": item.verdict.file, "verdict": item.verdict.code}
        events.emit("step", stage=NAME, step=number, of=len(photos), **about)
        seen.append(item)
    wanted = settings.photos
    if not wanted.keep_duplicates:
        seen = comparing.without_duplicates(seen)
    notice = partial(events.notice, stage=NAME)
    seen = comparing.one_person(seen, faces.recogniser.same_person, wanted.force, notice)
    return comparing.chosen(comparing.compared(seen), wanted.limit)


def refuse(verdicts: Sequence[Verdict], hint: str) -> None:
    """Stop if the photos show several people, or none can be used.

    Args:
        verdicts: of all photos.
        hint: what to do next where none can be used for several reasons.

    Raises:
        MagicIDError: `photos-several-people`, `photos-none-usable`.
    """
    odd = [verdict.file for verdict in verdicts if verdict.code == OTHER_PERSON]
    if odd:
        raise MagicIDError(
            "photos-several-people",
            f"The photos seem to show different people. Unlike the rest: {', '.join(odd)}.",
            "Leave them out; if they do show the same person, go on with --force.",
        )
    if not any(verdict.code == USED for verdict in verdicts):
        listed = " ".join(f"{verdict.file}: {verdict.reason}" for verdict in verdicts[:5])
        more = f" And {len(verdicts) - 5} more." if len(verdicts) > 5 else ""
        one = len(verdicts) == 1
        none = "The only photo cannot be used." if one else f"None of the {len(verdicts)} photos can be used."
        faceless = {verdict.code for verdict in verdicts} == {"no-face"}
        raise MagicIDError("photos-none-usable", f"{none} {listed}{more}", verdicts[0].advice if faceless else hint)


def _write(workspace: Workspace, seen: list[Seen], captioner: captions.Captioner, made_by: str, events: Events) -> None:
    """Write `references/`: crops first, the lists that name them last, then remove crops that nothing names."""
    folder = workspace.references
    names = {index: f"{number:03d}.png" for number, index in enumerate(comparing.used(seen))}
    crops = {name: _png(seen[index].crop) for index, name in names.items()}
    pictures = {name: seen[index].crop for index, name in names.items()}
    origins = {
        name: edited.Origin(seen[index].verdict.sha256 or "", hashlib.sha256(crops[name]).hexdigest())
        for index, name in names.items()
    }
    old = edited.traced(read_lines(folder / "captions.jsonl"), read_lines(folder / "photos.jsonl"))
    edits, left = _edits(workspace, old, origins, events)
    lines = captions.rows(old, edits, origins, pictures, captioner, events, NAME)
    for name, content in crops.items():
        _write_bytes(folder / name, content)
    embeddings = np.stack([seen[index].embedding for index in names]).astype(np.float32)
    _write_bytes(folder / "embeddings.safetensors", save({"embeddings": embeddings}, {"made_by": made_by}))
    # Captions of earlier versions are traced through the photos.jsonl that they were written with: it goes last.
    write_lines(folder / "captions.jsonl", lines)
    write_lines(folder / "photos.jsonl", [_row(item.verdict, names.get(index)) for index, item in enumerate(seen)])
    if left:
        write_lines(folder / ASIDE, left)
    else:
        (folder / ASIDE).unlink(missing_ok=True)
    for stale in set(folder.glob("[0-9]*.png")) - {folder / name for name in names.values()}:
        stale.unlink()


def _edits(
    workspace: Workspace, old: list[dict[str, Any]], origins: dict[str, edited.Origin], events: Events
) -> tuple[dict[str, edited.Row], list[edited.Row]]:
    """The edited line of each crop, and those whose photo is not used; the latter lie safe once this returns."""
    path = workspace.references / ASIDE
    mine, aside = (
        [row for row in rows if edited.is_edited(row)] for rows in (old, edited.traced(read_lines(path), []))
    )
    everything = edited.with_aside(mine, aside)
    edits, left = edited.assigned(everything, origins)
    lost = [row for row in mine if row in left]
    if lost:
        write_lines(path, [*aside, *(row for row in lost if row not in aside)])
        events.notice(edited.told(lost, read_lines(workspace.references / "photos.jsonl"), path), stage=NAME)
    return edits, left


def _row(verdict: Verdict, crop: str | None) -> dict[str, Any]:
    row = asdict(verdict)
    return {"file": row.pop("file"), "verdict": row.pop("code"), "crop": crop, **row}


def _png(crop: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "PNG")
    return buffer.getvalue()


def _write_bytes(path: Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
