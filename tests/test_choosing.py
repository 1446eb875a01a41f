"""Choosing photos against hand arithmetic (projected points, painted colours), the drawn world, where the truth about
place, light and cover is known, and an exhaustive search for the subset.
"""

from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from magicid_cli.choosing import comparing, measures
from magicid_cli.choosing.advice import advice
from magicid_cli.choosing.looking import Seen, Verdict
from magicid_cli.choosing.measures import Light, Pose
from magicid_cli.config import PhotoSettings
from magicid_cli.faces import TEMPLATE, Face, align
from magicid_cli.world.canvas import Canvas
from magicid_cli.world.figure import FacePlace, draw_person
from magicid_cli.world.figure import Pose as DrawnPose
from magicid_cli.world.outfits import OUTFITS
from magicid_cli.world.people import SKINS, person
from magicid_cli.world.places import PLACES

SIZE = 160
DIM = (0.66, 0.68, 0.8)  # the drawn world's dim light

# ------------------------------------------------------------------------------------------------------ head pose


def turned(points: np.ndarray, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Points x right, y down, z towards the viewer, first raised, then turned to the right, then tilted clockwise."""
    yaw, pitch, roll = np.deg2rad([yaw, pitch, roll])
    x, y, z = points.T
    y, z = y * np.cos(pitch) - z * np.sin(pitch), y * np.sin(pitch) + z * np.cos(pitch)
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
    return np.stack([x, y, z], 1)


def head(nose: float = 17.0) -> np.ndarray:
    points = np.column_stack([TEMPLATE, [0, 0, nose, 1.5, 1.5]])
    return points - points.mean(0)


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (-45, 10, 5), (20, -25, -40), (70, 5, 15)])
def test_a_head_seen_from_afar_gives_its_angles_back(angles: tuple[float, float, float]) -> None:
    landmarks = 2.5 * turned(head(), *angles)[:, :2] + [300, 200]
    pose = measures.head_pose(landmarks)
    assert (pose.yaw, pose.pitch, pose.roll) == pytest.approx(angles, abs=0.06)


@pytest.mark.parametrize("yaw", [-50, -25, 0, 25, 50])
@pytest.mark.parametrize("nose", [14.0, 20.0])
def test_another_nose_and_a_near_camera_cost_a_few_degrees(yaw: float, nose: float) -> None:
    points = turned(head(nose), yaw, 5, 0)
    distance = 335.0  # 60 cm in units of the template
    landmarks = points[:, :2] * (distance / (distance - points[:, 2:]))
    assert measures.head_pose(landmarks).yaw == pytest.approx(yaw, abs=12)


# ------------------------------------------------------------------------------------------ light, cover, background


def drawn(
    who: int = 3, place: str = "", seed: int = 0, outfit: str = "", skin: Any = None, mood: str = "serious"
) -> tuple[np.ndarray, Face]:
    """A picture of a drawn person, and the face where it was drawn."""
    someone = person(who) if skin is None else replace(person(who), skin=skin)
    canvas = Canvas(SIZE)
    draw = np.random.default_rng(seed)
    PLACES[place or list(PLACES)[0]](canvas, np.random.default_rng(99))
    x, size, yaw = draw.uniform(0.44, 0.56), draw.uniform(0.34, 0.42), draw.uniform(-0.3, 0.3)
    pose = DrawnPose(x, 0.1 + 0.62 * size, size, roll=draw.uniform(-5, 5), yaw=yaw, mouth=mood)
    there = draw_person(canvas, someone, OUTFITS[outfit or list(OUTFITS)[seed % len(OUTFITS)]], pose)
    return canvas.shrunk(SIZE), face_of(there)


def face_of(place: FacePlace) -> Face:
    x, y, width, height = (SIZE * number for number in place.box)
    return Face((x, y, width, height), (SIZE * place.landmarks).astype(np.float32), 1.0)


def test_light_by_hand() -> None:
    assert measures.light(np.full((112, 112, 3), 90, np.uint8)) == Light(90.0, 0.0)
    half = np.zeros((112, 112, 3), np.uint8)
    half[:, 56:] = 255  # 26 of the 52 columns between 30 and 82
    assert measures.light(half) == Light(255.0, 0.5)
    frame = np.full((112, 112, 3), 255, np.uint8)
    frame[36:100, 30:82] = 20  # hair, hat and background do not count
    assert measures.light(frame) == Light(20.0, 0.0)


@pytest.mark.parametrize("skin", [SKINS[0], SKINS[-1]], ids=["light", "dark"])
def test_dark_skin_is_not_darkness(skin: tuple[int, int, int]) -> None:
    least = PhotoSettings().min_light
    for who in range(6):
        picture, face = drawn(who, skin=skin)
        dim = (picture * np.array(DIM)).astype(np.uint8)
        assert measures.light(align(dim, face.landmarks)).bright > least
        night = (picture * 0.12).astype(np.uint8)
        assert measures.light(align(night, face.landmarks)).bright < least


def test_detail_by_hand() -> None:
    # Stripes of one wave: the differences of two blurs pass known parts of it, exp(-2 π² σ² f²).
    def passed(near: float, far: float, frequency: float) -> float:
        return float(np.exp(-2 * (np.pi * near * frequency) ** 2) - np.exp(-2 * (np.pi * far * frequency) ** 2))

    for period in (8, 16):
        wave = 128 + 90 * np.sin(2 * np.pi * np.arange(112) / period)
        crop = np.broadcast_to(np.round(wave)[None, :, None], (112, 112, 3)).astype(np.uint8)
        expected = 100 * passed(1.25, 2.5, 1 / period) / passed(2.5, 12.0, 1 / period)
        assert measures.detail(crop).sharpness == pytest.approx(expected, rel=0.03)
        assert measures.detail(crop).noise < 1, "stripes are no noise"
    assert measures.detail(np.full((112, 112, 3), 77, np.uint8)) == measures.Detail(0.0, 0.0)


def test_noise_is_measured_and_not_taken_for_detail() -> None:
    # Features of 16 pixels, whose contrast is known, and white noise.
    wave = 128 + 40 * np.sin(2 * np.pi * np.arange(112) / 16)
    clean = np.broadcast_to(wave[None, :], (112, 112))
    before = measures.detail(grey_picture(clean))
    contrast = 40 / np.sqrt(2) * (np.exp(-2 * (np.pi * 2.5 / 16) ** 2) - np.exp(-2 * (np.pi * 12 / 16) ** 2))
    for amount in (3, 8):
        after = measures.detail(grey_picture(clean + np.random.default_rng(1).normal(0, amount, (112, 112))))
        assert after.noise == pytest.approx(100 * amount / contrast, rel=0.12)
        assert 0.9 * before.sharpness < after.sharpness < 1.03 * before.sharpness


def grey_picture(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(np.round(values), 0, 255).astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize("skin", [SKINS[0], SKINS[-1]], ids=["light", "dark"])
def test_drawn_faces_are_sharp_whatever_their_skin_and_light_and_blurred_ones_are_not(skin: Any) -> None:
    least = PhotoSettings().min_sharpness
    for who in range(6):
        picture, face = drawn(who, skin=skin)
        dim = (picture * np.array(DIM) * 0.5).astype(np.uint8)
        sharp, in_the_dark = (measures.detail(align(one, face.landmarks)).sharpness for one in (picture, dim))
        assert sharp > least and in_the_dark == pytest.approx(sharp, rel=0.2)
        # As large as in a photo (a face of 40 pixels is refused anyway), and blurred by 3 pixels of the aligned face.
        large, marks = cv2.resize(picture, (4 * SIZE, 4 * SIZE)), (face.landmarks + 0.5) * 4 - 0.5
        eyes = float(np.linalg.norm(marks[1] - marks[0])) / float(np.linalg.norm(TEMPLATE[1] - TEMPLATE[0]))
        blurred = cv2.GaussianBlur(large, (0, 0), 3 * eyes)
        grainy = np.clip(blurred + np.random.default_rng(who).normal(0, 10, blurred.shape), 0, 255).astype(np.uint8)
        for one in (blurred, grainy):
            assert measures.detail(align(one, marks)).sharpness < least


def test_hiding_a_part_changes_that_part_only() -> None:
    picture, face = drawn(1)
    for part, hidden, shown in (("eyes", (0, 1), 3), ("mouth", (3, 4), 0)):
        painted = measures.without(picture, face.landmarks, part)
        crop, before = align(painted, face.landmarks), align(picture, face.landmarks)
        for mark in hidden:
            x, y = TEMPLATE[mark].round().astype(int)
            assert np.abs(crop[y, x].astype(int) - 127).max() <= 2
        x, y = TEMPLATE[shown].round().astype(int)
        assert (crop[y, x] == before[y, x]).all()
    assert (drawn(1)[0] == picture).all(), "the picture itself was painted on"


def plain(colour: tuple[int, int, int], person_colour: tuple[int, int, int] = (9, 9, 9)) -> np.ndarray:
    """A person of one colour before a wall of another; the face's box is 60, 40, 40, 50."""
    picture = np.zeros((200, 160, 3), np.uint8)
    picture[:] = colour
    picture[30:, 50:110] = person_colour
    picture[100:, 20:140] = person_colour
    return picture


BOX = (60.0, 40.0, 40.0, 50.0)


def test_backgrounds_by_hand() -> None:
    red, blue = (measures.background(plain(colour), BOX) for colour in ((255, 0, 0), (0, 0, 255)))
    assert red is not None and blue is not None
    assert np.linalg.norm(red - blue) == pytest.approx(1.0)  # no colour in common
    dressed = measures.background(plain((255, 0, 0), (200, 180, 160)), BOX)
    assert dressed is not None and np.linalg.norm(red - dressed) == pytest.approx(0.0)
    assert measures.background(plain((255, 0, 0)), (0.0, 0.0, 160.0, 200.0)) is None


def test_one_place_is_told_from_two_in_the_drawn_world() -> None:
    found = {
        place: [measures.background(picture, face.box) for picture, face in (drawn(3, place, 1), drawn(8, place, 2))]
        for place in PLACES
    }
    same = comparing.same_background([one for both in found.values() for one in both])
    pairs = [same[2 * number, 2 * number + 1] for number in range(len(found))]
    assert np.mean(pairs) >= 0.75
    others = [same[a, b] for a, b in combinations(range(len(same)), 2) if a // 2 != b // 2]
    assert np.mean(others) <= 0.03


# ------------------------------------------------------------------------------------------ covered, other people


def embedded(views: list[np.ndarray], face: Face, recogniser: Any) -> np.ndarray:
    return np.stack([recogniser.embed(view, face) for view in views])


def looked_at(picture: np.ndarray, face: Face, recogniser: Any, name: str) -> Seen:
    pictures = [picture, *(measures.without(picture, face.landmarks, part) for part in measures.PARTS)]
    return Seen(Verdict(name, "used", "It is used."), views=embedded(pictures, face, recogniser))


def with_sunglasses(picture: np.ndarray, face: Face) -> np.ndarray:
    covered, unit = picture.copy(), face.box[3]
    for eye in face.landmarks[:2].tolist():
        cv2.ellipse(covered, (tuple(eye), (0.3 * unit, 0.2 * unit), 0), (18, 18, 22), -1)
    left, right = (tuple(int(round(number)) for number in eye) for eye in face.landmarks[:2].tolist())
    cv2.line(covered, left, right, (18, 18, 22), 3)
    return covered


def said(seen: list[Seen], same_person: float) -> list[str]:
    """What is said of each photo: the code, and the part that is odd."""
    heard: list[str] = []
    seen = comparing.compared(comparing.one_person(seen, same_person, False, heard.append))
    return [f"{item.verdict.code} {item.verdict.reason} {item.odd or ''}" for item in seen]


def test_sunglasses_are_noticed_and_nothing_else_is() -> None:
    from magicid_cli.faces.drawn import DrawnRecogniser

    recogniser = DrawnRecogniser("drawn")
    noticed, wrongly, strangers_used, people = 0, 0, 0, range(20, 28)
    moods = ("serious", "smiling", "surprised")
    albums = {
        who: [drawn(who, list(PLACES)[number % 5], number, mood=moods[number % 3]) for number in range(6)]
        for who in people
    }
    clean = {
        who: [looked_at(*photo, recogniser, f"{number}.png") for number, photo in enumerate(photos)]
        for who, photos in albums.items()
    }
    for who, photos in albums.items():
        wrongly += sum("eyes" in one or "mouth" in one for one in said(clean[who], recogniser.same_person))
        dark = looked_at(with_sunglasses(*photos[0]), photos[0][1], recogniser, "dark.png")
        first = said([dark, *clean[who][1:]], recogniser.same_person)[0]
        noticed += "eyes" in first
        stranger = clean[20 + (who - 20 + 3) % 8][0]
        strangers_used += said([stranger, *clean[who][1:]], recogniser.same_person)[0].startswith("used")
    assert wrongly == 0
    assert strangers_used == 0
    assert noticed >= 5, f"{noticed} of 8"


def views(*cosines: float) -> np.ndarray:
    """Embeddings of a face and of its two hidden views with these cosines to the first axis."""
    return np.array([[value, np.sqrt(1 - value**2)] for value in cosines])


def good(name: str, **facts: Any) -> Seen:
    return Seen(Verdict(name, "used", "It is used.", face={}), **{"views": views(1.0, 1.0, 1.0), **facts})


def test_a_face_that_is_like_the_rest_without_its_eyes_is_covered_and_not_a_stranger() -> None:
    rest = [good(f"{number}.png") for number in range(3)]
    for odd, code, word in (
        (views(0.1, 0.9, 0.2), "covered", "eyes"),
        (views(0.1, 0.2, 0.9), "covered", "mouth"),
        (views(0.1, 0.2, 0.2), "other-person", "another person"),
    ):
        heard: list[str] = []
        first, *others = comparing.one_person([good("odd.png", views=odd), *rest], 0.5, False, heard.append)
        assert first.verdict.code == code and word in first.verdict.reason and "0.10" in first.verdict.reason
        assert all(item.used for item in others) and not heard
        forced = comparing.one_person([good("odd.png", views=odd), *rest], 0.5, True, heard.append)
        assert all(item.used for item in forced) and "odd.png" in heard[0]
    # With two others left nobody can tell what is odd about the third.
    few = comparing.one_person([good("odd.png", views=views(0.1, 0.9, 0.2)), *rest[:2]], 0.5, False, print)
    assert few[0].verdict.code == "other-person"


def test_odd_parts_by_hand() -> None:
    likes = np.array([[0.9, 0.92, 0.9], [0.88, 0.9, 0.88], [0.7, 0.91, 0.7], [0.9, 0.92, 0.9], [0.75, 0.77, 0.95]])
    # Hiding the eyes gains 0.02 everywhere, 0.21 in the third; hiding the mouth gains 0.2 in the last.
    assert comparing.odd_parts(likes) == [None, None, "eyes", None, "mouth"]
    assert comparing.odd_parts(likes[:3]) == [None] * 3
    noisy = likes + np.array([0, 0.1, 0]) * np.array([[1], [-1], [0], [1], [-1]])
    assert comparing.odd_parts(noisy)[2] is None, "among faces that vary as much, it is not odd"


# ------------------------------------------------------------------------------------------------------- the subset


def smallest_gap(points: np.ndarray, taken: Any) -> float:
    return min(float(np.linalg.norm(points[a] - points[b])) for a, b in combinations(taken, 2))


@pytest.mark.parametrize("seed", range(10))
def test_the_greedy_subset_is_at_least_half_as_spread_as_the_best_one(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(9, 3))
    for count in (2, 3, 4):
        taken = comparing.far_apart(points, count)
        assert taken[0] == 0 and len(set(taken)) == count
        best = max(smallest_gap(points, choice) for choice in combinations(range(9), count))
        assert smallest_gap(points, taken) >= best / 2


def test_faces_that_are_sharp_enough_rank_equal_so_dusk_can_be_chosen(tmp_path: Path) -> None:
    """Drawn photos, each in bright and in dim light: light is nothing that one face is better by."""
    from magicid_cli.choosing.looking import look
    from magicid_cli.config import Settings
    from magicid_cli.faces import Faces
    from magicid_cli.faces.drawn import DrawnDetector, DrawnRecogniser
    from magicid_cli.world.clips import album

    faces = Faces(DrawnDetector(), DrawnRecogniser("drawn"))
    seen = []
    for number, picture in enumerate(album(7, 5, 384)):
        for light in (1.0, 0.45):
            path = tmp_path / f"{number} {light}.png"
            Image.fromarray((picture * light).astype(np.uint8)).save(path)
            seen.append(look(path, Settings(), faces))
    seen = [item for item in seen if item.used]
    assert len(seen) >= 7
    for item in seen:
        side = min(item.verdict.face["box"][2:]) if item.verdict.face else 0.0
        assert item.quality / side == pytest.approx(28, rel=0.05), "every one is sharp enough"
    result, _ = comparing.chosen(seen, 4)
    taken = [item.verdict.file for item in result if item.used]
    assert any("0.45" in name for name in taken) and any("1.0" in name for name in taken)


def test_over_the_limit_photos_that_differ_are_taken() -> None:
    # Three situations; the first has the four best photos.
    yaws = [0, 1, 2, 3, 60, 61, -60, -61]
    seen = [good(f"{n}.png", pose=Pose(yaw, 0, 0), quality=100 - n) for n, yaw in enumerate(yaws)]
    result, rule = comparing.chosen(seen, 3 + 1)
    taken = {item.verdict.file for item in result if item.used}
    assert "0.png" in taken and len(taken) == 4
    assert taken & {"4.png", "5.png"} and taken & {"6.png", "7.png"}
    assert rule.startswith("4 of 8 good photos are taken: of the 8 best by face size times sharpness")
    for order in list(permutations(range(8)))[::7919]:
        again, _ = comparing.chosen([seen[index] for index in order], 4)
        assert {item.verdict.file for item in again if item.used} == taken
    same, none = comparing.chosen(seen, 8)
    assert same == seen and none == ""


def test_covered_faces_are_taken_last() -> None:
    seen = [good("covered.png", odd="eyes", quality=9.0), good("a.png", quality=2.0), good("b.png", quality=1.0)]
    result, _ = comparing.chosen(seen, 1)
    assert [item.verdict.code for item in result] == ["over-limit", "used", "over-limit"]
    assert "2 better" in result[0].verdict.reason


# ------------------------------------------------------------------------------------------------------------ advice


def album(count: int, **facts: list[Any]) -> list[Seen]:
    """Photos that lack nothing, but for these facts."""
    yaws = [0, 30, -30, 5, -50, 40, 10, -25][:count]
    base = [
        good(f"{n}.png", pose=Pose(yaw, 0, 0), background=np.eye(64)[n] / np.sqrt(2), light=Light(200, 0))
        for n, yaw in enumerate(yaws)
    ]
    return [replace(item, **{name: values[n] for name, values in facts.items()}) for n, item in enumerate(base)]


def poses(*yaws: float) -> list[Pose]:
    return [Pose(yaw, 0, 0) for yaw in yaws]


WALL = np.eye(64)[0] / np.sqrt(2)


@pytest.mark.parametrize(
    ("photos", "codes", "words"),
    [
        (album(8), [], ""),
        ([], [], ""),
        (album(1), ["few-photos"], "only one photo"),
        (album(2, pose=poses(30, -30)[:2]), ["few-photos", "no-front-view"], "third"),
        (album(4, background=[WALL] * 4), ["one-background"], "All photos"),
        (album(4, background=[WALL] * 3 + [None]), ["one-background"], "3 of 4 photos"),
        (album(4, background=[WALL] * 2 + [None] * 2), [], ""),
        (album(4, pose=poses(3, -8, 1, 12)), ["no-side-view"], "about 12 degrees"),
        (album(4, pose=poses(3, -30, 1, -40)), ["one-side"], "looks to the right"),
        (album(4, pose=poses(30, -30, 40, -40)), ["no-front-view"], "from the front"),
        (album(4, pose=[None] * 4), [], ""),
        (album(4, light=[Light(50, 0)] * 4), ["dim"], "All faces are dim"),
        (album(4, light=[Light(50, 0)] * 2 + [Light(200, 0)] * 2), [], ""),
        (album(4, enlarged=[2.0, 2.2, 1.0, 2.4]), ["enlarged"], "2.1 times"),
        (album(4, odd=[None, "eyes", None, None]), ["covered"], "1.png"),
    ],
)
def test_what_would_help_most(photos: list[Seen], codes: list[str], words: str) -> None:
    found = advice(photos)
    assert [one.code for one in found] == codes
    assert words in " ".join(one.text for one in found)
