"""Who is the person in a clip: the faces of single frames joined into tracks, and the track that is the person's.

1. A face that stays in its place from one frame looked at to the next, or to the one after it, makes a *piece*: the
   boxes are less than a face apart, and neither is twice as large as the other. Of several faces and pieces, the most
   alike and nearest belong together. What is alone in its place need not be alike: a face that turns into another one
   is measured as what it has become, and whoever steps in front of the person is not kept when the person is back.
2. Pieces whose mean vectors are as alike as two photos of one person are one *track*, the most alike first, unless
   they share a frame: nobody is in a picture twice. So neither a cut nor frames without a face end a track.
3. The person is the track with the largest sum of face sizes, a size being the square root of a box's area. With the
   areas themselves, somebody who comes close to the camera for a moment would count as much as a whole clip.

The reference photos have no say in any of this. To take, frame by frame, the face most like them would pay for filling
the picture with faces, and would show likeness where there is only a choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from magicid_cli.faces.base import Face, normalised

LARGEST = 4
"""So many faces of a frame, the largest ones, are told apart; each costs a pass of the recogniser."""

_FAR = 1.0  # of a face's size: how far it gets between two frames that are looked at, a sixth of a second
_GROWTH = 2.0
_MISSED = 2  # frames further on, a face may still be in its place


@dataclass(frozen=True, eq=False)
class Sighting:
    """A face in a frame.

    Attributes:
        frame: which of the frames looked at.
        face: where.
        vector: who, `(D,)` of length 1.
    """

    frame: int
    face: Face
    vector: np.ndarray


Track = list[Sighting]


def person(frames: Sequence[Sequence[Sighting]], same_person: float) -> dict[int, Sighting]:
    """The person's face by frame; frames in which it is not seen are left out.

    Args:
        frames: the faces in each of the frames looked at.
        same_person: the recogniser's.
    """
    found = _joined(_pieces(frames), same_person)
    chosen = max(found, key=lambda track: sum(_size(seen.face) for seen in track), default=[])
    return {seen.frame: seen for seen in chosen}


def _pieces(frames: Sequence[Sequence[Sighting]]) -> list[Track]:
    """Rule 1."""
    pieces: list[Track] = []
    for number, faces in enumerate(frames):
        recent = [piece for piece in pieces if piece[-1].frame >= number - _MISSED]
        rated = [
            (float(_mean(piece) @ seen.vector) - distance, one, other)
            for one, piece in enumerate(recent)
            for other, seen in enumerate(faces)
            if (distance := _distance(piece[-1].face, seen.face)) < _FAR
        ]
        ends, begins = set(range(len(recent))), set(range(len(faces)))
        for _, one, other in sorted(rated, reverse=True):
            if one in ends and other in begins:
                recent[one].append(faces[other])
                ends.remove(one)
                begins.remove(other)
        pieces += [[faces[other]] for other in sorted(begins)]
    return pieces


def _joined(pieces: list[Track], same_person: float) -> list[Track]:
    """Rule 2."""
    tracks = list(pieces)
    while True:
        means = np.array([_mean(track) for track in tracks])
        rated = [
            (float(means[one] @ means[other]), one, other)
            for one, other in combinations(range(len(tracks)), 2)
            if not {seen.frame for seen in tracks[one]} & {seen.frame for seen in tracks[other]}
        ]
        likeness, one, other = max(rated, default=(-np.inf, 0, 0))
        if likeness < same_person:
            return tracks
        tracks[one] = sorted(tracks[one] + tracks.pop(other), key=lambda seen: seen.frame)


def _mean(track: Track) -> np.ndarray:
    mean: np.ndarray = normalised(np.mean([seen.vector for seen in track], axis=0))
    return mean


def _size(face: Face) -> float:
    return float(np.sqrt(face.area))


def _distance(one: Face, other: Face) -> float:
    """Between the middles of two boxes, in sizes of the faces; infinite if one is twice as large."""
    sizes = _size(one), _size(other)
    if max(sizes) > _GROWTH * min(sizes):
        return np.inf
    (left, top, width, height), (x, y, wide, high) = one.box, other.box
    apart = np.hypot(left + width / 2 - x - wide / 2, top + height / 2 - y - high / 2)
    return float(2 * apart / max(sum(sizes), 1e-12))
