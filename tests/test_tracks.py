"""Who is followed through a clip: constructed clips in which it is known who is where.

Faces are put into frames by hand, with vectors on axes of their own (so that every cosine is known); drawn people, each
in a tile of a wide picture, are found and told apart by the real networks of the drawn world.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from magicid_cli.config import RewardSettings
from magicid_cli.events import Events
from magicid_cli.faces import Face, Faces, open_faces
from magicid_cli.faces.tracks import Sighting, person
from magicid_cli.models.catalog import VIDEO_MODELS
from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.identity import IdentityReward
from magicid_cli.world import clips
from magicid_cli.world.people import HELD_OUT

SAME = 0.3
FRAMES = 16
NOWHERE = np.zeros((5, 2), np.float32)


def vector(who: int, wobble: float = 0.0, seed: int = 0) -> np.ndarray:
    """Somebody: an axis of their own, and a part at right angles to everybody's."""
    found = np.zeros(32)
    found[who] = np.sqrt(1 - wobble**2)
    noise = np.random.default_rng(seed).normal(size=16)
    found[16:] = wobble * noise / np.linalg.norm(noise)
    return found


def seen(frame: int, who: int, x: float, side: float, wobble: float = 0.5) -> Sighting:
    face = Face((x, 100.0, side, side * 1.3), NOWHERE, 1.0)
    return Sighting(frame, face, vector(who, wobble, seed=100 * who + frame))


def clip(*people: Callable[[int], Sighting | None]) -> list[list[Sighting]]:
    """The frames of a clip, the largest face first as a detector gives them."""
    frames = [[one for someone in people if (one := someone(number))] for number in range(FRAMES)]
    return [sorted(faces, key=lambda one: -one.face.area) for faces in frames]


def who(found: dict[int, Sighting]) -> dict[int, int]:
    """Frame → the person who is followed there."""
    return {frame: int(np.argmax(np.abs(one.vector[:16]))) for frame, one in found.items()}


def subject(number: int) -> Sighting:
    return seen(number, 0, 300 + 2 * number, 60)


def test_a_face_alone_is_followed_throughout() -> None:
    assert who(person(clip(subject), SAME)) == dict.fromkeys(range(FRAMES), 0)


@pytest.mark.parametrize("side", [61, 90, 150, 230])
def test_a_passer_by_who_is_larger_for_some_frames_does_not_take_over(side: float) -> None:
    """Up to four times as large in a quarter of the frames, right across the subject's place."""
    passing = clip(subject, lambda n: seen(n, 1, 300 + 60 * (n - 7), side) if 6 <= n < 10 else None)
    assert who(person(passing, SAME)) == dict.fromkeys(range(FRAMES), 0)


def test_a_passer_by_who_hides_the_person_is_not_followed_on() -> None:
    """For two frames there is only the other one, exactly in the person's place, and is taken for what the person has
    become; then both are there.
    """
    hidden = clip(
        lambda n: None if n in (7, 8) else subject(n),
        lambda n: seen(n, 1, 305 + 2 * n + (0 if n < 9 else 50 * (n - 8)), 64) if n >= 7 else None,
    )
    assert who(person(hidden, SAME)) == {n: int(n in (7, 8)) for n in range(FRAMES)}


def test_neither_a_cut_nor_missed_frames_end_a_track() -> None:
    """After the cut the person is elsewhere and half as large, after a pause again; a bystander is always there."""

    def moving(number: int) -> Sighting | None:
        if number in (3, 8, 9, 10):
            return None
        return subject(number) if number < 8 else seen(number, 0, 900, 28)

    followed = who(person(clip(moving, lambda n: seen(n, 1, 40, 20)), SAME))
    assert followed == {n: 0 for n in range(FRAMES) if moving(n)}


def test_a_blurred_face_in_its_place_is_still_the_person() -> None:
    """Its vector alone (a cosine of 0.2 or 0.3 with the others) would be nobody's; where it is says whose it is."""
    blurred = clip(lambda n: seen(n, 0, 300 + 2 * n, 60, 0.96 if n == 8 else 0.2))
    assert 8 in person(blurred, SAME)
    jumped = clip(lambda n: seen(n, 0, 300 if n != 8 else 900, 60, 0.98 if n == 8 else 0.2))
    assert 8 not in person(jumped, SAME)


def test_a_face_that_becomes_another_one_in_its_place_is_measured_as_that() -> None:
    """It is still found, with the cosine that it has: no likeness, but no missing face."""
    raw = scored(clip(lambda n: seen(n, 0 if n < 8 else 1, 300, 60, 0)), vector(0)[None])
    assert raw["found"] == 1 and raw["value"] == raw["first_half"] / 2 == pytest.approx(0.5)


def test_two_people_who_are_alike_are_not_one() -> None:
    """Twins: the same vector, side by side; the larger one is followed and never swapped."""
    twins = clip(lambda n: seen(n, 0, 300, 60, 0.1), lambda n: seen(n, 0, 380, 50, 0.1))
    found = person(twins, SAME)
    assert len(found) == FRAMES and {one.face.side for one in found.values()} == {60}


def test_whoever_is_there_longer_counts_more_than_whoever_is_closer() -> None:
    """16 frames of 60 against 6 of 150: 960 to 900 by size; by area it would be the other one."""
    both = clip(subject, lambda n: seen(n, 1, 800, 150) if n >= 10 else None)
    assert set(who(person(both, SAME)).values()) == {0}
    longer = clip(subject, lambda n: seen(n, 1, 800, 150) if n >= 9 else None)
    assert set(who(person(longer, SAME)).values()) == {1}


def test_nobody_is_followed_where_nobody_is() -> None:
    assert person([[] for _ in range(FRAMES)], SAME) == {}


# --- in the reward --------------------------------------------------------------------------------------------------


class Listed:
    """Finds and knows what it was told: the first pixel holds the frame's number."""

    name = made_by = advice = "listed"
    same_person = SAME

    def __init__(self, frames: list[list[Sighting]]) -> None:
        self._frames = frames

    def find(self, image: np.ndarray) -> list[Face]:
        return [one.face for one in self._frames[image[0, 0, 0]]]

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        return next(one.vector for one in self._frames[image[0, 0, 0]] if one.face is face)


def scored(frames: list[list[Sighting]], references: np.ndarray) -> dict[str, Any]:
    listed = Listed(frames)
    pictures = np.zeros((len(frames), 8, 8, 3), np.uint8)
    pictures[:, 0, 0, 0] = np.arange(len(frames))
    return IdentityReward(Faces(listed, listed), references).score(Clip(pictures, 24, ""))


def test_likeness_is_not_won_by_a_face_in_the_crowd() -> None:
    """The person who is followed is somebody else; the one in the photos is in every frame, smaller. The best face of
    each frame would give 1.
    """
    crowd = clip(lambda n: seen(n, 1, 300, 60, 0), lambda n: seen(n, 0, 600, 40, 0), lambda n: seen(n, 2, 900, 30, 0))
    raw = scored(crowd, vector(0)[None])
    assert raw["value"] == pytest.approx(0, abs=1e-9) and raw["found"] == 1 and raw["faces"] == [3] * FRAMES


def test_the_followed_box_of_every_frame_is_kept() -> None:
    """For two frames there is only somebody else, elsewhere: the person is not found there, and they count 0."""
    hidden = clip(
        lambda n: None if n in (7, 8) else seen(n, 0, 300 + n, 60, 0),
        lambda n: seen(n, 1, 500, 90, 0) if n in (7, 8) else None,
    )
    raw = scored(hidden, vector(0)[None])
    assert raw["boxes"] == [None if n in (7, 8) else [300.0 + n, 100.0, 60.0, 78.0] for n in range(FRAMES)]
    assert raw["value"] == raw["found"] == pytest.approx(14 / 16)


# --- drawn people ---------------------------------------------------------------------------------------------------


class Tiles:
    """Drawn people side by side: each tile of the picture is looked at by itself, as its finder knows one face."""

    name = made_by = advice = "tiles"

    def __init__(self, faces: Faces, side: int) -> None:
        self._faces, self._side = faces, side

    def find(self, image: np.ndarray) -> list[Face]:
        found = []
        for x in range(0, image.shape[1], self._side):
            for face in self._faces.detector.find(image[: self._side, x : x + self._side]):
                left, top, width, height = face.box
                found.append(Face((left + x, top, width, height), face.landmarks + (x, 0), face.score))
        return sorted(found, key=lambda face: -face.area)


def test_a_drawn_person_is_followed_past_another() -> None:
    """Who is drawn where is known: the first person changes tiles at a cut, the second is close for three frames."""
    faces = open_faces(RewardSettings(), VIDEO_MODELS["mini"], offline=True, events=Events())
    side, count = 96, 9
    one, other = (
        clips.render(clips.Scene(HELD_OUT[number], "nod", "garden", "red sweater", "clear", "serious", number)).frames
        for number in (3, 8)
    )
    large = [np.repeat(np.repeat(frame, 2, 0), 2, 1) for frame in (*one, *other)]
    empty = np.full((side, side, 3), 200, np.uint8)
    frames = []
    for number in range(count):
        tiles = [empty, empty, empty]
        tiles[0 if number < 5 else 2] = large[number]
        if 3 <= number < 6:
            tiles[1] = large[count + number]
        frames.append(np.concatenate(tiles, 1))
    photos = [one[number] for number in (0, 4, 8)]
    references = np.stack([faces.recogniser.embed(photo, faces.detector.find(photo)[0]) for photo in photos])
    reward = IdentityReward(Faces(Tiles(faces, side), faces.recogniser), references)
    raw = reward.score(Clip(np.stack(frames), 8, ""))
    places = [None if box is None else int(box[0] // side) for box in raw["boxes"]]
    assert places == [0] * 5 + [2] * 4 and raw["value"] > 0.7
