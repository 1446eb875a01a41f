"""Photos → checked, cropped, captioned references.

Every photo gets a verdict with a reason for its owner; the usable ones become crops at the training size, captions
that may be edited by hand, and face embeddings that the identity reward compares with.
"""

import io
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

from magicid_cli import models
from magicid_cli.config import PhotoSettings, Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.faces import Face, Faces, align, normalised, open_faces, sharpness
from magicid_cli.framing import head_and_shoulders
from magicid_cli.models.catalog import video_model
from magicid_cli.photos import (
    NEAR_DUPLICATE_BITS,
    Photo,
    Unreadable,
    content_digest,
    decode,
    hash_distance,
    name_of,
    perceptual_hash,
)
from magicid_cli.prompts import captions, describe
from magicid_cli.workspace import Workspace, atomic_path, file_digest, read_lines, write_lines

NAME = "ingest"
TITLE = "Photos"
FORMAT = 1
READS = ("model.name", "photos", "shape.size", "rewards.face_detector", "rewards.face_model")

USED = "used"
OTHER_PERSON = "other-person"
_DOMINANT = 3.0  # the largest face counts as the only one from so many times the next one's area


@dataclass(frozen=True)
class Verdict:
    """What was decided about one photo, and why.

    Attributes:
        file: its name, without the folder.
        code: `used`, or why not: `unreadable`, `no-face`, `several-faces`, `face-too-small`, `blurred`,
            `near-duplicate`, `other-person`, `over-limit`.
        reason: the same as a sentence.
        advice: what its owner can do.
        sha256: of the file, None if it could not be read.
        notes: what had to be decided to decode it.
        face: `box` (x, y, width, height in pixels), `score`, `sharpness` and the `picture`'s (width, height), or None.
    """

    file: str
    code: str
    reason: str
    advice: str = ""
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    face: dict[str, Any] | None = None


@dataclass(frozen=True)
class IngestResult:
    """What became of the photos.

    Attributes:
        used: how many became references.
        refused: the others, as (file name, code of the verdict).
        captions: the file whose captions may be edited.
    """

    used: int
    refused: tuple[tuple[str, str], ...]
    captions: Path


@dataclass(frozen=True, eq=False)
class _Seen:
    """A photo that was looked at; what is needed to compare it with others and to use it."""

    verdict: Verdict
    crop: np.ndarray = field(default_factory=lambda: np.empty(0))
    embedding: np.ndarray = field(default_factory=lambda: np.empty(0))
    hash: int = 0
    quality: float = 0.0


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
        MagicIDError: `settings-unknown`, `settings-invalid` for a model that cannot write captions.
    """
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
    seen = _examine(photos, settings, faces, events)
    refused = tuple((item.verdict.file, item.verdict.code) for item in seen if item.verdict.code != USED)
    refuse([item.verdict for item in seen], "`magicid prepare PHOTOS` gives a verdict and advice for every photo.")
    if refused:
        named = ", ".join(f"{file} ({code})" for file, code in refused)
        events.notice(f"{len(seen) - len(refused)} of {len(seen)} photos are used; left out: {named}.", stage=NAME)
    captioner = _captioner(settings, events)
    _write(workspace, seen, captioner, f"{faces.detector.made_by}; {faces.recogniser.made_by}", events)
    captioner.close()
    return IngestResult(len(seen) - len(refused), refused, workspace.references / "captions.jsonl")


def examine(photos: list[Path], settings: Settings, faces: Faces, events: Events) -> list[Verdict]:
    """A verdict for every photo, in order; nothing is written and nothing refused."""
    return [item.verdict for item in _examine(photos, settings, faces, events)]


def _examine(photos: list[Path], settings: Settings, faces: Faces, events: Events) -> list[_Seen]:
    seen = []
    for number, path in enumerate(photos, 1):
        item = _look(path, settings, faces)
        about = {"file": item.verdict.file, "verdict": item.verdict.code}
        events.emit("step", stage=NAME, step=number, of=len(photos), **about)
        seen.append(item)
    if not settings.photos.keep_duplicates:
        seen = _without_duplicates(seen)
    seen = _one_person(seen, faces.recogniser.same_person, settings.photos.force, events)
    return _best(seen, settings.photos.limit)


def _look(path: Path, settings: Settings, faces: Faces) -> _Seen:
    """Everything that can be said about a photo by itself."""
    try:
        photo = decode(path)
    except Unreadable as error:
        return _Seen(Verdict(name_of(path), "unreadable", f"It cannot be read: {error.reason}.", error.advice))
    found = faces.detector.find(photo.rgb)
    if not found:
        return _Seen(_verdict(photo, "no-face", "No face was found in it.", faces.detector.advice))
    face = found[0]
    aligned = align(photo.rgb, face.landmarks)
    sharp = sharpness(aligned)
    facts = {
        "box": [round(number, 1) for number in face.box],
        "score": round(face.score, 3),
        "sharpness": round(sharp, 1),
        "picture": [photo.rgb.shape[1], photo.rgb.shape[0]],
    }
    code, reason, advice = _problem(found, sharp, settings.photos) or (USED, "It is used.", "")
    verdict = _verdict(photo, code, reason, advice, facts)
    if code != USED:
        return _Seen(verdict)
    return _Seen(
        verdict,
        crop=head_and_shoulders(photo.rgb, face.box, settings.shape.width, settings.shape.height),
        embedding=faces.recogniser.embed(photo.rgb, face),
        hash=perceptual_hash(photo.rgb),
        quality=face.side * sharp,
    )


def _verdict(photo: Photo, code: str, reason: str, advice: str, face: dict[str, Any] | None = None) -> Verdict:
    return Verdict(photo.name, code, reason, advice, photo.sha256, photo.notes, face)


def _problem(found: list[Face], sharp: float, wanted: PhotoSettings) -> tuple[str, str, str] | None:
    """Code, reason and advice if the largest face cannot be used."""
    face = found[0]
    if len(found) > 1 and face.area < _DOMINANT * found[1].area:
        reason = f"It shows {len(found)} faces, and the largest is only {face.area / found[1].area:.1f} times the next."
        return "several-faces", reason, f"Cut the person out (the largest face must be {_DOMINANT:g} times the next)."
    if face.side < wanted.min_face:
        reason = f"The face is only {face.side:.0f} pixels wide; {wanted.min_face} are needed."
        return "face-too-small", reason, "Use a closer or larger photo, or lower --min-face."
    if sharp < wanted.min_sharpness:
        reason = f"The face is blurred: sharpness {sharp:.1f}, {wanted.min_sharpness:g} is needed."
        return "blurred", reason, "Use a sharper photo, or lower --min-sharpness."
    return None


def _usable(seen: list[_Seen]) -> list[int]:
    return [index for index, item in enumerate(seen) if item.verdict.code == USED]


def _by_quality(seen: list[_Seen]) -> list[int]:
    """Usable photos, the best first: face size times sharpness."""
    return sorted(_usable(seen), key=lambda index: -seen[index].quality)


def _marked(item: _Seen, code: str, reason: str, advice: str) -> _Seen:
    return replace(item, verdict=replace(item.verdict, code=code, reason=reason, advice=advice))


def _without_duplicates(seen: list[_Seen]) -> list[_Seen]:
    """Of photos that are nearly the same picture, the best stays."""
    result = list(seen)
    kept: list[_Seen] = []
    for index in _by_quality(seen):
        item = seen[index]
        twin = next((other for other in kept if hash_distance(item.hash, other.hash) <= NEAR_DUPLICATE_BITS), None)
        if twin is None:
            kept.append(item)
            continue
        reason = f"It is nearly the same picture as {twin.verdict.file}, whose face is larger or sharper."
        result[index] = _marked(item, "near-duplicate", reason, "Keep it with --keep-duplicates.")
    return result


def strangers(embeddings: np.ndarray, threshold: float) -> dict[int, float]:
    """Which of at least three photos seem to show somebody else.

    Each photo is compared with the normalised mean of the others. While the least similar one is below the
    threshold, it is set aside and the rest compared anew, so that it does not spoil the mean for them; at least two
    photos stay.

    Args:
        embeddings: (N, D), of length 1 each.
        threshold: smallest cosine of the same person.

    Returns:
        Index → cosine of the photos set aside.
    """
    odd: dict[int, float] = {}
    rest = list(range(len(embeddings)))
    while len(rest) >= 3:
        vectors = embeddings[rest].astype(np.float64)
        cosines = (vectors * normalised(vectors.sum(0) - vectors)).sum(1)
        worst = int(np.argmin(cosines))
        if cosines[worst] >= threshold:
            break
        odd[rest.pop(worst)] = float(cosines[worst])
    return odd


def _one_person(seen: list[_Seen], threshold: float, force: bool, events: Events) -> list[_Seen]:
    """Mark the photos of other people; two photos alone cannot tell which is the odd one, so they only warn."""
    usable = _usable(seen)
    embeddings = np.array([seen[index].embedding for index in usable])
    if len(usable) == 2:
        cosine = float(embeddings[0] @ embeddings[1])
        if cosine < threshold:
            names = " and ".join(seen[index].verdict.file for index in usable)
            events.notice(f"{names} may show different people (similarity {cosine:.2f}).", stage=NAME)
        return seen
    result = list(seen)
    for position, cosine in strangers(embeddings, threshold).items():
        index = usable[position]
        reason = f"It seems to show another person than the rest (similarity {cosine:.2f}, at least {threshold:g})."
        if force:
            events.notice(f"{seen[index].verdict.file}: {reason} It is used, as --force says.", stage=NAME)
        else:
            result[index] = _marked(seen[index], OTHER_PERSON, reason, "Leave it out, or use it with --force.")
    return result


def _best(seen: list[_Seen], limit: int) -> list[_Seen]:
    """At most `limit` photos, the best by face size times sharpness."""
    result = list(seen)
    for index in _by_quality(seen)[limit:]:
        reason = f"There are {limit} better ones (face size times sharpness)."
        result[index] = _marked(seen[index], "over-limit", reason, "Use more with --max-photos.")
    return result


def refuse(verdicts: list[Verdict], hint: str) -> None:
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


def _write(
    workspace: Workspace, seen: list[_Seen], captioner: captions.Captioner, made_by: str, events: Events
) -> None:
    """Write `references/`: crops first, the lists that name them last, then remove crops that nothing names."""
    folder = workspace.references
    names = {index: f"{number:03d}.png" for number, index in enumerate(_usable(seen))}
    crops = {name: _png(seen[index].crop) for index, name in names.items()}
    pictures = {name: seen[index].crop for index, name in names.items()}
    lines = captions.rows(read_lines(folder / "captions.jsonl"), crops, pictures, captioner, events, NAME)
    for name, content in crops.items():
        _write_bytes(folder / name, content)
    embeddings = np.stack([seen[index].embedding for index in names]).astype(np.float32)
    _write_bytes(folder / "embeddings.safetensors", save({"embeddings": embeddings}, {"made_by": made_by}))
    write_lines(folder / "photos.jsonl", [_row(item.verdict, names.get(index)) for index, item in enumerate(seen)])
    write_lines(folder / "captions.jsonl", lines)
    for stale in set(folder.glob("[0-9]*.png")) - {folder / name for name in names.values()}:
        stale.unlink()


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
