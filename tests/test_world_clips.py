"""What the drawn people do, wear and where they are, and their albums.

Truth: optical flow (OpenCV's DIS) and differences of frames for the actions; the tables of colours for the outfits;
a nearest neighbour for the places.
"""

import itertools
import runpy
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from magicid_cli.world import clips
from magicid_cli.world.actions import ACTIONS
from magicid_cli.world.captions import LIGHT_PHRASES
from magicid_cli.world.clips import Drawn, Scene, render, scene
from magicid_cli.world.outfits import OUTFITS
from magicid_cli.world.people import HELD_OUT, person
from magicid_cli.world.places import PLACES


def shrunk(frame: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)


def flows(frames: np.ndarray) -> np.ndarray:
    """DIS flow between neighbours, (F-1, H, W, 2) pixels."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    return np.stack(
        [dis.calc(one, other, np.zeros((*one.shape, 2), np.float32)) for one, other in itertools.pairwise(grey)]
    )


def motion(frames: np.ndarray) -> float:
    """Mean length of the largest 5 % of the flow, pixels a frame."""
    length = np.sort(np.linalg.norm(flows(frames), axis=-1).reshape(len(frames) - 1, -1), axis=1)
    return float(length[:, -(length.shape[1] // 20) :].mean())


def centres(drawn: Drawn) -> np.ndarray:
    """The middle of the face's box in each frame."""
    return np.array([(x + width / 2, y + height / 2) for x, y, width, height in (face.box for face in drawn.faces)])


def acted(action: str, seeds: range = range(25)) -> list[Drawn]:
    return [render(replace(scene(seed, people=HELD_OUT), action=action, light="clear"), size=128) for seed in seeds]


@pytest.fixture(scope="module")
def clips_of() -> dict[str, list[Drawn]]:
    return {action: acted(action) for action in ACTIONS}


def test_nothing_moves_in_a_clip_of_somebody_who_stands_still(clips_of: dict[str, list[Drawn]]) -> None:
    for drawn in clips_of["still"]:
        assert (drawn.frames == drawn.frames[0]).all()
    assert len({drawn.frames.tobytes() for drawn in clips_of["still"]}) == 25


def test_actions_move_as_much_as_they_should(clips_of: dict[str, list[Drawn]]) -> None:
    moved = {action: float(np.median([motion(drawn.frames) for drawn in made])) for action, made in clips_of.items()}
    head, body = {"turn", "nod", "wave"}, {"walk", "dance", "approach"}
    assert moved["still"] < 0.02
    assert min(moved[action] for action in head) > 1.5
    assert min(moved[action] for action in body) > 1.7 * max(moved[action] for action in head)
    every = [motion(drawn.frames) for action in head | body for drawn in clips_of[action]]
    assert min(every) > 0.5


def test_a_walk_crosses_the_picture_and_the_flow_goes_the_same_way(clips_of: dict[str, list[Drawn]]) -> None:
    ways = set()
    for drawn in clips_of["walk"]:
        steps = np.diff(centres(drawn)[:, 0])
        assert (steps > 0).all() or (steps < 0).all()
        assert 0.19 < abs(steps.sum()) < 0.5
        flow = flows(drawn.frames)
        fast = np.linalg.norm(flow, axis=-1) > 2
        assert np.sign(flow[..., 0][fast].mean()) == np.sign(steps.sum())
        ways.add(np.sign(steps.sum()))
    assert ways == {-1, 1}


def test_who_comes_closer_grows(clips_of: dict[str, list[Drawn]]) -> None:
    for drawn in clips_of["approach"]:
        heights = np.array([face.box[3] for face in drawn.faces])
        assert (np.diff(heights) > 0).all()
        assert heights[-1] > 1.2 * heights[0]
        assert np.ptp(centres(drawn)[:, 0]) < 0.03


def test_turning_and_nodding_move_the_nose_within_the_face(clips_of: dict[str, list[Drawn]]) -> None:
    for action, along, across in (("turn", 0, 1), ("nod", 1, 0)):
        for drawn in clips_of[action]:
            height = drawn.faces[0].box[3]
            nose = (np.array([face.landmarks[2] for face in drawn.faces]) - centres(drawn)) / height
            assert np.ptp(nose[:, along]) > 0.15, action
            assert np.ptp(nose[:, across]) < 1e-9, action
            assert np.ptp(centres(drawn), axis=0).max() < 0.08, action


def test_a_dance_sways_and_a_wave_moves_one_arm(clips_of: dict[str, list[Drawn]]) -> None:
    for drawn in clips_of["dance"]:
        assert np.ptp(centres(drawn)[:, 0]) > 0.12
    for drawn in clips_of["wave"]:
        assert np.ptp(centres(drawn), axis=0).max() < 0.02
        changed = np.any(drawn.frames[1:] != drawn.frames[:-1], axis=(0, 3))
        middle = round(centres(drawn)[0, 0] * 128)
        beside = round(0.75 * drawn.faces[0].box[3] * 128)  # the head rolls a little, and hair with it
        sides = changed[:, : middle - beside].sum(), changed[:, middle + beside :].sum()
        assert 20 * min(sides) < max(sides)
        assert max(sides) > 150


def test_a_waving_hand_is_seen(clips_of: dict[str, list[Drawn]]) -> None:
    """Skin beside the head, between its top and its chin: of the 25 clips' frames, most show the hand there."""
    shown = []
    for seed, drawn in enumerate(clips_of["wave"]):
        skin = person(scene(seed, people=HELD_OUT).person).skin
        for frame, (x, y, width, height) in zip(drawn.frames, (face.box for face in drawn.faces), strict=True):
            rows = frame[: round((y + height) * 128)]
            left, right = round((x - 0.3 * width) * 128), round((x + 1.3 * width) * 128)
            hand = np.abs(np.concatenate([rows[:, :left], rows[:, right:]], axis=1).astype(int) - skin).max(axis=2) <= 1
            shown.append(hand.sum() > 20)
    assert np.mean(shown) > 0.7


# --- outfits, places, light, albums ---------------------------------------------------------------------------------


@pytest.mark.parametrize("outfit", OUTFITS)
def test_the_outfit_is_seen_by_its_colour(outfit: str) -> None:
    for seed in range(20):
        what = replace(scene(seed, people=HELD_OUT), outfit=outfit, light="clear", action="still")
        frame = render(what, size=192, frames=1).frames[0].astype(int)
        share = {
            name: max((frame == colour).all(axis=2).mean() for colour in (clothes.main, clothes.accent))
            for name, clothes in OUTFITS.items()
        }
        assert share[outfit] > 0.04
        assert share[outfit] == max(share.values())


def test_a_place_is_known_by_its_looks_and_differs_every_time() -> None:
    """Beside the head, the nearest of the other pictures (of other people) is of the same place."""
    small, names, whole = [], [], set()
    for place in PLACES:
        for seed in range(12):
            what = replace(scene(seed, people=HELD_OUT), place=place, light="clear", action="still")
            frames = render(what, size=192, frames=1).frames
            whole.add(frames.tobytes())
            frame = shrunk(frames[0], 12).astype(int)
            small.append(np.concatenate([frame[:7, :3], frame[:7, 9:]]))
            names.append(place)
    distance = np.abs(np.array(small)[:, None] - np.array(small)[None]).mean(axis=(2, 3, 4))
    np.fill_diagonal(distance, np.inf)
    assert (np.array(names)[distance.argmin(axis=1)] == names).mean() > 0.95
    assert len(whole) == len(names)


def test_light_changes_the_colours_and_nothing_else() -> None:
    what = scene(17, people=HELD_OUT)
    clear, golden, dim = (
        render(replace(what, light=light)).frames.astype(float).mean(axis=(0, 1, 2)) for light in LIGHT_PHRASES
    )
    assert (dim < 0.85 * clear).all()
    assert golden[0] > clear[0] and golden[2] < 0.8 * clear[2]
    assert render(replace(what, light="dim")).faces[0].box == render(what).faces[0].box


@pytest.mark.parametrize("seed", [0, 7, 421, 999])
def test_an_album_shows_one_person_in_all_the_variety_there_is(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[Scene, Drawn]] = []

    def watched(what: Scene, **options: int) -> Drawn:
        taken.append((what, render(what, **options)))
        return taken[-1][1]

    monkeypatch.setattr(clips, "render", watched)
    photos = clips.album(seed, 10, 96)
    assert len(photos) == len(taken) == 10
    for photo, (what, drawn) in zip(photos, taken, strict=True):
        assert what.person == seed
        assert any(np.array_equal(photo, frame) for frame in drawn.frames)
        for x, y, width, height in (face.box for face in drawn.faces):
            assert min(x, y) >= 0 and x + width <= 1 and y + height <= 1
            assert height * 512 > 100  # pixels of a face in a photo of the usual size
    kinds = {
        name: {getattr(what, name) for what, _ in taken} for name in ("place", "outfit", "light", "mood", "action")
    }
    assert {name: len(found) for name, found in kinds.items()} == {
        **{"place": 8, "outfit": 8, "light": 3, "mood": 3},
        "action": 5,
    }
    assert not kinds["action"] & {"walk", "approach"}


def test_the_world_is_still_drawn_as_when_the_models_learned_it() -> None:
    """The picture of the documentation against a new one: a changed drawing asks for a new training."""
    docs = Path(__file__).resolve().parents[1] / "docs"
    shown = cv2.imread(str(docs / "explanation" / "world.png"))
    assert shown is not None
    now = runpy.run_path(str(docs / "draw_world.py"))["sheet"]()
    assert now.shape == shown.shape
    # Another OpenCV may round an edge differently.
    assert np.abs(cv2.cvtColor(shown, cv2.COLOR_BGR2RGB).astype(int) - now).mean() < 0.5
