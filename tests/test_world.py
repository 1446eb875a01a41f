"""The drawn world's pictures.

Truth: the description of the person and the pose that was asked for, looked up in the pixels; plane geometry for the
canvas.
"""

import subprocess
import sys
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magicid_cli.world import people
from magicid_cli.world.actions import ACTIONS
from magicid_cli.world.canvas import Canvas, Colour, shade
from magicid_cli.world.clips import render, scene
from magicid_cli.world.figure import FacePlace, Pose, draw_person
from magicid_cli.world.outfits import OUTFITS
from magicid_cli.world.people import HELD_OUT, TRAINED, person

SEEDS = st.integers(0, 999_999)


def shrunk(frames: np.ndarray, size: int) -> np.ndarray:
    """Frames at `size` pixels, each the mean of those it covers."""
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames])


def softened(frames: np.ndarray, size: int) -> np.ndarray:
    """Frames at `size` pixels, as soft as the world's lens makes such pixels: half of one."""
    already, wanted = 0.5, 0.5 * frames.shape[1] / size
    lens = float(np.sqrt(wanted**2 - already**2))
    return shrunk(np.stack([cv2.GaussianBlur(frame, (0, 0), lens) for frame in frames]), size)


def portrait(who: people.Person, pose: Pose | None = None, pixels: int = 400) -> tuple[np.ndarray, FacePlace]:
    """A person before a green wall, nothing shrunk."""
    canvas = Canvas(pixels, np.full((pixels, pixels, 3), (0, 255, 0), np.uint8))
    place = draw_person(canvas, who, OUTFITS["black suit"], pose or Pose(0.5, 0.4, 0.6))
    return canvas.picture, place


def near(picture: np.ndarray, point: np.ndarray, colours: list[Colour], radius: float) -> bool:
    """Whether one of the colours is found within `radius` (of the frame's side) of a point."""
    side = len(picture)
    y, x = np.ogrid[:side, :side]
    disc = (x - point[0] * side) ** 2 + (y - point[1] * side) ** 2 <= (radius * side) ** 2
    distance = [np.abs(picture[disc].astype(int) - colour).max(axis=1).min() for colour in colours]
    return min(distance) <= 2


# --- the same picture every time ------------------------------------------------------------------------------------

_DIGEST = """
import hashlib, cv2
from magicid_cli.world import clips
cv2.setNumThreads({threads})
digest = hashlib.sha256()
for seed in range(20):
    drawn = clips.render(clips.scene(seed, people=range(1000)), size=(48, 37, 256)[seed % 3])
    digest.update(drawn.frames.tobytes() + b"".join(face.landmarks.tobytes() for face in drawn.faces))
digest.update(b"".join(photo.tobytes() for photo in clips.album(7, 4, 96)))
print(digest.hexdigest())
"""


def test_every_process_draws_the_same_bytes() -> None:
    found = set()
    for threads in (1, 2):
        environment = {"PYTHONHASHSEED": str(threads), "OPENCV_FOR_THREADS_NUM": str(threads)}
        command = [sys.executable, "-c", _DIGEST.format(threads=threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
        found.add(done.stdout.strip())
    assert len(found) == 1
    assert len(found.pop()) == 64


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(0, 999_999))
def test_a_seed_is_a_clip_and_another_seed_another_one(one: int, other: int) -> None:
    first, again = (render(scene(one, people=HELD_OUT), frames=2) for _ in range(2))
    assert np.array_equal(first.frames, again.frames)
    if one != other:
        assert not np.array_equal(first.frames, render(scene(other, people=HELD_OUT), frames=2).frames)


def test_random_numbers_of_the_caller_are_not_touched() -> None:
    np.random.seed(3)
    expected = np.random.random(3)
    np.random.seed(3)
    render(scene(1, people=HELD_OUT), frames=1)
    assert np.array_equal(np.random.random(3), expected)


# --- sizes, frames, seconds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "frames"), [(48, 9), (37, 1), (96, 25), (300, 2)])
def test_a_clip_has_the_shape_that_was_asked_for(size: int, frames: int) -> None:
    drawn = render(scene(5, people=HELD_OUT), size=size, frames=frames)
    assert drawn.frames.shape == (frames, size, size, 3)
    assert drawn.frames.dtype == np.uint8
    assert len(drawn.faces) == frames
    assert all(face.landmarks.shape == (5, 2) for face in drawn.faces)


@settings(deadline=None, max_examples=40)
@given(SEEDS)
def test_a_large_picture_made_small_is_the_small_picture(seed: int) -> None:
    what = scene(seed, people=HELD_OUT)
    small, large = render(what, size=48, frames=2), render(what, size=96, frames=2)
    difference = np.abs(softened(large.frames, 48).astype(int) - small.frames)
    # In units of 1/255. Both were drawn at 192, but a lens of half a pixel is not quite a Gaussian: at most 3.0 and 16
    # of 400 seeds.
    assert difference.mean() < 4
    assert np.percentile(difference, 99) < 24
    # Drawn at another size, every edge is half of another pixel wider: at most 6.6.
    huge = render(what, size=384, frames=2)
    assert np.abs(softened(huge.frames, 48).astype(int) - small.frames).mean() < 9
    for one, other in zip(small.faces, large.faces, strict=True):
        assert np.array_equal(one.landmarks, other.landmarks)
        assert one.box == other.box


@pytest.mark.parametrize("action", ACTIONS)
def test_the_speed_does_not_depend_on_the_frame_rate(action: str) -> None:
    what = replace(scene(11, people=HELD_OUT), action=action)
    slow, fast = render(what, frames=5, fps=8), render(what, frames=9, fps=16)
    assert np.array_equal(slow.frames, fast.frames[::2])


# --- the canvas against plane geometry ------------------------------------------------------------------------------


def whiteness(canvas: Canvas) -> float:
    """The share of the picture that is white."""
    return float(canvas.picture.mean() / 255)


@settings(deadline=None)
@given(st.floats(0.1, 0.4), st.floats(0.1, 0.4), st.floats(0, 180))
def test_an_ellipse_has_its_area(width: float, height: float, tilt: float) -> None:
    canvas = Canvas(192)
    canvas.ellipse((0.5, 0.5), (width, height), (255, 255, 255), tilt=tilt)
    wider = np.pi * (width + 1 / 192) * (height + 1 / 192)  # a soft edge is drawn around the shape
    assert 0.98 * np.pi * width * height < whiteness(canvas) < wider


@settings(deadline=None)
@given(st.floats(0, 0.3), st.floats(0.6, 1), st.floats(0, 1))
def test_a_triangle_has_its_area_and_soft_edges(left: float, right: float, top: float) -> None:
    canvas = Canvas(192)
    canvas.polygon([(left, 0.9), (right, 0.9), (top, 0.1)], (255, 255, 255))
    area, sides = (right - left) * 0.8 / 2, right - left + np.hypot(left - top, 0.8) + np.hypot(right - top, 0.8)
    assert 0.98 * area < whiteness(canvas) < area + sides / 192
    edge = canvas.shrunk(48)
    soft = ((edge > 0) & (edge < 255)).any(axis=2).sum()
    assert soft > 40  # along two slopes of at least 38 pixels' height


def test_a_box_a_line_and_a_gradient_are_where_they_belong() -> None:
    canvas = Canvas(100)
    canvas.box((0.2, 0.4), (0.5, 0.1), (255, 0, 0))
    rows, columns = np.nonzero(canvas.picture[..., 0] > 127)
    assert (rows.min(), columns.min()) == pytest.approx((40, 20), abs=1)
    assert (rows.max(), columns.max()) == pytest.approx((50, 70), abs=1)
    canvas.stroke([(0.1, 0.8), (0.9, 0.8)], (0, 255, 0), 0.06)
    assert 6 <= canvas.picture[:, 50, 1].sum() / 255 <= 8
    assert [canvas.picture[80, x, 1] for x in (4, 8, 92, 96)] == [0, 255, 255, 0]  # its ends are round
    canvas.gradient((0, 0, 10), (0, 0, 110), (0.0, 0.25))
    assert list(canvas.picture[[0, 12, 24], 50, 2]) == pytest.approx([10, 60, 110], abs=5)
    assert canvas.picture[26, 50, 2] == 0


# --- people ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 2**62))
def test_a_person_is_within_what_a_person_can_be(seed: int) -> None:
    somebody = person(seed)
    assert somebody == person(seed)
    colours = (somebody.skin, somebody.hair, somebody.iris, somebody.frames, somebody.lips)
    assert all(0 <= part <= 255 for colour in colours for part in colour)
    assert somebody.style in people.HAIR_STYLES
    assert somebody.glasses in people.GLASSES
    assert somebody.beard in (people.BEARDS if somebody.kind == "man" else ("none",))
    assert somebody.kind == "woman" or somebody.style != "bun"
    assert 0 < somebody.eye_size < somebody.eye_gap < somebody.width / 2 < 0.5


def test_nobody_has_a_double() -> None:
    crowd = [asdict(person(seed)) for seed in range(3000)]
    keys = [tuple(value for name, value in facts.items() if name != "seed") for facts in crowd]
    assert len(set(keys)) == len(keys)
    for name in ("kind", "style", "beard", "glasses", "hair_name", "iris", "frames"):
        assert len({facts[name] for facts in crowd}) > 1
    for name in ("width", "jaw", "eye_gap", "eye_size", "brow", "brow_tilt", "nose", "nose_width", "mouth", "build"):
        assert len({facts[name] for facts in crowd}) > 2900


def test_any_two_people_look_different() -> None:
    faces = [shrunk(portrait(person(seed))[0][None], 50)[0].astype(int) for seed in range(80)]
    distances = [np.abs(one - other).mean() for i, one in enumerate(faces) for other in faces[:i]]
    assert min(distances) > 1.0
    assert float(np.median(distances)) > 10


@pytest.mark.parametrize(
    "attribute",
    [
        "width",
        "jaw",
        "eye_gap",
        "eye_size",
        "brow",
        "brow_tilt",
        "nose",
        "nose_width",
        "mouth",
        "build",
        "skin",
        "lips",
    ],
)
def test_every_attribute_is_seen(attribute: str) -> None:
    somebody, other = replace(person(8), beard="none", glasses="none"), person(9)
    assert getattr(somebody, attribute) != getattr(other, attribute)
    double = replace(somebody, **{attribute: getattr(other, attribute)})
    assert not np.array_equal(portrait(somebody)[0], portrait(double)[0])


def test_training_and_measurement_share_nobody() -> None:
    assert not set(HELD_OUT) & set(TRAINED)
    assert (len(HELD_OUT), HELD_OUT[0], TRAINED[0]) == (1000, 0, 1000)


@settings(deadline=None)
@given(st.integers(0, 2**62), st.integers(0, 10**6), st.integers(1, 500))
def test_only_the_people_who_may_appear_do(seed: int, first: int, number: int) -> None:
    allowed = range(first, first + number)
    assert scene(seed, people=allowed).person in allowed


def test_scenes_are_spread_over_all_there_is() -> None:
    many = [scene(seed, people=TRAINED) for seed in range(4000)]
    for name, kinds in (("action", 7), ("place", 8), ("outfit", 8), ("light", 3), ("mood", 3)):
        counts = np.unique([getattr(what, name) for what in many], return_counts=True)[1]
        expected = 4000 / kinds
        assert len(counts) == kinds
        assert np.abs(counts - expected).max() < 4 * np.sqrt(expected)
    assert len({what.person for what in many}) > 3900


# --- where the face is ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(SEEDS)
def test_the_landmarks_of_a_frontal_face_lie_on_eyes_nose_and_mouth(seed: int) -> None:
    who = person(seed)
    picture, face = portrait(who)
    eyes, nose, corners = face.landmarks[:2], face.landmarks[2], face.landmarks[3:]
    pixels = np.round(eyes * len(picture)).astype(int)
    for x, y in pixels:
        assert np.abs(picture[y, x].astype(int) - (10, 10, 12)).max() <= 2  # the pupil
    assert all(near(picture, eye, [who.iris], 0.04) and near(picture, eye, [(250, 250, 250)], 0.06) for eye in eyes)
    assert near(picture, nose, [shade(who.skin, 0.74)], 0.01)
    assert all(near(picture, corner, [who.lips], 0.01) for corner in corners)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.sampled_from(["smiling", "surprised"]))
def test_the_mouth_of_every_mood_is_where_its_corners_are(seed: int, mood: str) -> None:
    who = person(seed)
    picture, face = portrait(who, Pose(0.5, 0.4, 0.6, mouth=mood))
    middle = face.landmarks[3:].mean(axis=0)
    assert near(picture, middle, [who.lips, (252, 250, 246), (70, 16, 24)], 0.02)
    serious, _ = portrait(who)
    changed = np.argwhere(np.any(picture != serious, axis=2)) / len(picture)
    low, high = changed.min(axis=0)[::-1], changed.max(axis=0)[::-1]
    x, y, width, height = face.box
    assert x < low[0] < middle[0] < high[0] < x + width
    assert y + height / 2 < low[1] < middle[1] + 0.03 < high[1] < y + height


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.floats(-1, 1), st.floats(-1, 1), st.floats(-12, 12), st.floats(0.2, 0.6))
def test_turning_the_other_way_mirrors_the_face(seed: int, yaw: float, pitch: float, roll: float, size: float) -> None:
    who = person(seed)
    _, one = portrait(who, Pose(0.5, 0.4, size, yaw=yaw, pitch=pitch, roll=roll), pixels=32)
    _, other = portrait(who, Pose(0.5, 0.4, size, yaw=-yaw, pitch=pitch, roll=-roll), pixels=32)
    mirrored = np.array([1, 0]) + other.landmarks[[1, 0, 2, 4, 3]] * (-1, 1)
    assert one.landmarks == pytest.approx(mirrored)
    assert one.box == pytest.approx((1 - other.box[0] - other.box[2], *other.box[1:]))


def test_the_nose_points_where_the_head_turns_and_nods() -> None:
    def nose(**pose: float) -> np.ndarray:
        return portrait(person(3), Pose(0.5, 0.4, 0.6, **pose), pixels=32)[1].landmarks[2]  # type: ignore[arg-type]

    ahead = nose()
    assert ahead[0] == pytest.approx(0.5)
    turned = [nose(yaw=yaw)[0] for yaw in (-1, -0.5, 0, 0.5, 1)]
    assert turned == sorted(turned)
    assert turned[-1] - turned[0] > 0.3
    nodded = [nose(pitch=pitch)[1] for pitch in (-1, -0.5, 0, 0.5, 1)]
    assert nodded == sorted(nodded)
    assert nodded[-1] - nodded[0] > 0.15


@pytest.mark.parametrize("action", ACTIONS)
def test_the_landmarks_stay_on_the_face_and_in_order(action: str) -> None:
    for seed in range(40):
        drawn = render(replace(scene(seed, people=HELD_OUT), action=action), size=16)
        for face in drawn.faces:
            (x, y, width, height), marks = face.box, face.landmarks
            assert (marks[:, 0] > x - 0.02 * width).all() and (marks[:, 0] < x + 1.02 * width).all()
            assert (marks[:, 1] > y).all() and (marks[:, 1] < y + height).all()
            assert marks[0, 0] < marks[1, 0] and marks[3, 0] < marks[4, 0]
            assert marks[:2, 1].max() < marks[2, 1] < marks[3:, 1].max()


@pytest.mark.parametrize("action", sorted(set(ACTIONS) - {"turn"}))
def test_the_face_is_where_the_frames_show_skin(action: str) -> None:
    """Between an eye and the tip of the nose are cheek and nose, whatever the hair; nothing is shrunk at this size."""
    scenes = [replace(scene(seed, people=HELD_OUT), light="clear", action=action) for seed in range(40)]
    for what in [what for what in scenes if person(what.person).glasses == "none"]:
        drawn = render(what, size=192)
        for frame, face in zip(drawn.frames, drawn.faces, strict=True):
            for eye in face.landmarks[:2]:
                middle, reach = (eye + face.landmarks[2]) / 2, 0.1 * face.box[3]
                assert near(frame, middle, [shade(person(what.person).skin, part) for part in (1, 0.8)], reach), what
