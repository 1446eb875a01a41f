"""What can be said about a photo by itself: its verdict, and what is needed to compare it with others."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from magicid_cli.choosing.measures import PARTS, Detail, Light, Pose, background, detail, head_pose, light, without
from magicid_cli.config import PhotoSettings, Settings
from magicid_cli.faces import STAND_IN, Face, Faces, align
from magicid_cli.framing import frame, head_and_shoulders
from magicid_cli.models.catalog import DRAWN
from magicid_cli.photos import Photo, Unreadable, decode, name_of, perceptual_hash

Box = tuple[float, float, float, float]
Keep = Callable[[Path, np.ndarray, Box | None], None]
"""Hears a decoded photo (its file, uint8 `(H, W, 3)`, and the face's box if there is one) before it is forgotten."""

USED = "used"
OTHER_PERSON = "other-person"
_DOMINANT = 3.0  # the largest face counts as the only one from so many times the next one's area
DIM = 70.0
"""Faces whose `Light.bright` is below this are dim."""
_BRIGHT = 0.25  # share of a face: with more of it white, it is bright
_ENLARGED = 2.0
_SHARP = 28.0  # from this sharpness on a face is sharp enough, and a sharper one no better
# Finders whose landmarks do not tell where a head points. The drawn finder sees a face in 29 pixels: heads that were
# drawn turned by 40 to 54 degrees read as 0 to 17.
_WITHOUT_POSE = {STAND_IN, *DRAWN}


@dataclass(frozen=True)
class Verdict:
    """What was decided about one photo, and why.

    Attributes:
        file: its name, without the folder.
        code: `used`, or why not: `unreadable`, `no-face`, `several-faces`, `face-too-small`, `too-dark`, `blown-out`,
            `blurred`, `near-duplicate`, `other-person`, `covered`, `over-limit`.
        reason: the same as a sentence.
        advice: what its owner can do.
        sha256: of the file, None if it could not be read.
        notes: what had to be decided to decode it.
        remarks: what could be better about it, a sentence each.
        face: what was measured, or None: `box` (x, y, width, height in pixels), `score`, `sharpness` and `noise` (see
            `Detail`), the `picture`'s (width, height), `light` and `blown_out` (see `Light`), `pose` (see `Pose`; None
            where the finder cannot tell), `enlarged` (how many times its crop is larger than the photo); of a photo
            that was compared with the others also `likeness` (cosine to the mean of the others), the same
            `without_eyes` and `without_mouth`, the `odd` one of these parts or None, and `same_background`, the number
            of other good photos that seem to have its background.
    """

    file: str
    code: str
    reason: str
    advice: str = ""
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    face: dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """A photo that was looked at; what is needed to compare it with others and to use it.

    Attributes:
        verdict: so far.
        crop: head and shoulders at the training size, uint8 `(height, width, 3)`.
        views: (1 + P, D) embeddings of the face, and of it with each of `PARTS` hidden.
        hash: see `photos.perceptual_hash`.
        quality: the face's size in pixels times its sharpness, as far as that counts.
        noise: see `Detail`.
        bytes: the size of the file.
        light: on the face.
        pose: of the head, None where the finder cannot tell.
        background: see `measures.background`.
        enlarged: how many times the crop is larger than the photo.
        odd: the one of `PARTS` that makes the face unlike the others, known once they were compared.
    """

    verdict: Verdict
    crop: np.ndarray = field(default_factory=lambda: np.empty(0))
    views: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    hash: int = 0
    quality: float = 0.0
    noise: float = 0.0
    bytes: int = 0
    light: Light = Light(255.0, 0.0)
    pose: Pose | None = None
    background: np.ndarray | None = None
    enlarged: float = 1.0
    odd: str | None = None

    @property
    def embedding(self) -> np.ndarray:
        """The face as a vector of length 1."""
        return np.asarray(self.views[0])

    @property
    def used(self) -> bool:
        """Whether nothing speaks against it so far."""
        return self.verdict.code == USED

    def marked(self, code: str, reason: str, advice: str) -> "Seen":
        """The same photo with another verdict."""
        return replace(self, verdict=replace(self.verdict, code=code, reason=reason, advice=advice))

    def remarked(self, remark: str) -> "Seen":
        """The same photo with one more remark."""
        return replace(self, verdict=replace(self.verdict, remarks=(*self.verdict.remarks, remark)))

    def measured(self, **facts: Any) -> "Seen":
        """The same photo with more facts about its face."""
        return replace(self, verdict=replace(self.verdict, face={**(self.verdict.face or {}), **facts}))


def look(path: Path, settings: Settings, faces: Faces, keep: Keep | None = None) -> Seen:
    """Decode a photo, find the face and judge it; a file that cannot be read gets that verdict."""
    try:
        photo = decode(path)
    except Unreadable as error:
        return Seen(Verdict(name_of(path), "unreadable", f"It cannot be read: {error.reason}.", error.advice))
    found = faces.detector.find(photo.rgb)
    if keep:
        keep(path, photo.rgb, found[0].box if found else None)
    if not found:
        return Seen(_verdict(photo, "no-face", "No face was found in it.", faces.detector.advice))
    face = found[0]
    aligned = align(photo.rgb, face.landmarks)
    detailed, lit = detail(aligned), light(aligned)
    pose = None if faces.detector.name in _WITHOUT_POSE else head_pose(face.landmarks)
    height, width = photo.rgb.shape[:2]
    size = settings.shape.width, settings.shape.height
    enlarged = size[0] / frame(width, height, face.box, size[0] / size[1])[2]
    facts = {
        "box": [round(number, 1) for number in face.box],
        "score": round(face.score, 3),
        "sharpness": detailed.sharpness,
        "noise": detailed.noise,
        "picture": [width, height],
        "light": lit.bright,
        "blown_out": lit.blown_out,
        "pose": pose and {"yaw": pose.yaw, "pitch": pose.pitch, "roll": pose.roll},
        "enlarged": round(enlarged, 2),
    }
    problem = _problem(found, detailed, lit, settings.photos)
    if problem:
        return Seen(_verdict(photo, *problem, facts))
    return Seen(
        _verdict(photo, USED, "It is used.", "", facts, tuple(_remarks(lit, enlarged))),
        crop=head_and_shoulders(photo.rgb, face.box, *size),
        views=_views(photo.rgb, face, faces),
        hash=perceptual_hash(photo.rgb),
        quality=face.side * min(detailed.sharpness, _SHARP),
        noise=detailed.noise,
        bytes=photo.bytes,
        light=lit,
        pose=pose,
        background=background(photo.rgb, face.box),
        enlarged=enlarged,
    )


def _verdict(
    photo: Photo,
    code: str,
    reason: str,
    advice: str,
    face: dict[str, Any] | None = None,
    remarks: tuple[str, ...] = (),
) -> Verdict:
    return Verdict(photo.name, code, reason, advice, photo.sha256, photo.notes, remarks, face)


def _views(rgb: np.ndarray, face: Face, faces: Faces) -> np.ndarray:
    pictures = (rgb, *(without(rgb, face.landmarks, part) for part in PARTS))
    return np.stack([faces.recogniser.embed(picture, face) for picture in pictures])


def _problem(found: list[Face], detailed: Detail, lit: Light, wanted: PhotoSettings) -> tuple[str, str, str] | None:
    """Code, reason and advice if the largest face cannot be used."""
    face = found[0]
    if len(found) > 1 and face.area < _DOMINANT * found[1].area:
        reason = f"It shows {len(found)} faces, and the largest is only {face.area / found[1].area:.1f} times the next."
        return "several-faces", reason, f"Cut the person out (the largest face must be {_DOMINANT:g} times the next)."
    if face.side < wanted.min_face:
        reason = f"The face is only {face.side:.0f} pixels wide; {wanted.min_face} are needed."
        return "face-too-small", reason, "Use a closer or larger photo, or lower --min-face."
    # Light comes before sharpness: what is lost in the dark or in the glare is no blur.
    if lit.bright < wanted.min_light:
        reason = f"The face is too dark: brightness {lit.bright:.0f} of 255, {wanted.min_light:g} is needed."
        return "too-dark", reason, "Use a photo with more light on the face, or lower --min-light."
    if lit.blown_out > wanted.max_blown_out:
        reason = f"{lit.blown_out:.0%} of the face is blown out to white; at most {wanted.max_blown_out:.0%} may be."
        return "blown-out", reason, "Use a photo with less light on the face, or raise --max-blown-out."
    if detailed.sharpness < wanted.min_sharpness:
        reason = f"The face is blurred: sharpness {detailed.sharpness:.1f}, {wanted.min_sharpness:g} is needed."
        return "blurred", reason, "Use a sharper photo, or lower --min-sharpness."
    return None


def _remarks(lit: Light, enlarged: float) -> list[str]:
    """What could be better about a face that can be used."""
    remarks = []
    if lit.bright < DIM:
        remarks.append(f"The face is dim (brightness {lit.bright:.0f} of 255).")
    if lit.blown_out > _BRIGHT:
        remarks.append(f"{lit.blown_out:.0%} of the face is blown out to white.")
    if enlarged > _ENLARGED:
        remarks.append(f"Its crop is enlarged {enlarged:.1f} times.")
    return remarks
