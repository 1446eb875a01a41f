"""The dynamics reward against constructed motion.

Truth: pictures moved by known maps, whose flow and its largest 5 % are computed; the same picture shown again and
again; one motion filmed at several sizes and rates; hand arithmetic. Which estimator measures is in `test_flow.py`.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from magicid_cli import pipeline, video
from magicid_cli.config import subset
from magicid_cli.rewards.base import Clip, Reward
from magicid_cli.rewards.camera import camera_field
from magicid_cli.rewards.dynamics import DynamicsReward, stride_for, top_magnitude
from magicid_cli.stages import select
from magicid_cli.workspace import read_lines, write_lines
from magicid_cli.world import clips
from motions import SHORT, STILL, Affine, Cutout, bust, by, enlarged, frame, octaves
from pictures import smooth
from small_repository import scored, settings

WIDE = 455  # columns of a 16:9 frame of 256 lines


def measured(*frames: np.ndarray, fps: float = 8) -> dict[str, Any]:
    return DynamicsReward("dis").score(Clip(np.stack(frames), fps, ""))


@pytest.fixture(scope="module")
def nature() -> np.ndarray:
    return octaves()


@pytest.fixture(scope="module")
def somebody() -> Cutout:
    """A person with clothes of their own pattern before another one."""
    return Cutout(octaves(3), bust(), octaves(4))


# --- known motion ---------------------------------------------------------------------------------------------------


def errors(picture: np.ndarray, width: int = WIDE) -> list[float]:
    """Relative errors of `total` over kinds, directions and 1 to 20 pixels of motion."""
    found = []
    for kind in ("shift", "rotate", "zoom"):
        for pixels, direction in ((1, 0.4), (2.5, 2.2), (6, -2.0), (12, 0.9), (20, 3.5)):
            moved = by(kind, pixels, width=width, direction=direction)
            truth = top_magnitude(moved.field(SHORT, width))
            seen = measured(frame(picture, STILL, width=width), frame(picture, moved, width=width))
            found.append(seen["total"] / truth - 1)
    return found


@pytest.mark.parametrize("name", ["octaves", "blobs"])
def test_known_motion_is_measured(name: str, nature: np.ndarray) -> None:
    found = np.abs(errors(nature if name == "octaves" else smooth(2048, 2048, 3, 24)))
    assert found.max() < 0.08 and np.median(found) < 0.02


def test_known_motion_of_a_portrait_is_measured(shared_data: Path) -> None:
    portrait = cv2.imread(str(shared_data / "astronaut.png"))
    assert portrait is not None
    found = np.abs(errors(enlarged(portrait), width=256))
    assert found.max() < 0.08 and np.median(found) < 0.02


def test_a_still_clip_does_not_move(nature: np.ndarray) -> None:
    still = frame(nature, STILL, width=WIDE)
    assert measured(still, still) == {
        **dict.fromkeys(("value", "total", "camera", "subject"), 0.0),
        **{"pairs": [0.0], "subject_pairs": [0.0], "stride": 1},
    }


@pytest.mark.parametrize("what", ["nature", "dark", "plain", "grain"])
def test_the_encoder_alone_does_not_move(
    what: str, nature: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture, 13 times, through H.264: sharp, nearly black, half of it an empty wall, or like old film."""
    still = frame(nature, STILL, width=640, lines=360)
    random = np.random.default_rng(0)
    if what == "dark":
        still = np.clip(still * 0.08 + random.normal(0, 1.5, still.shape), 0, 255).astype(np.uint8)
    if what == "plain":
        still[:, 300:] = (200, 190, 180)
    if what == "grain":
        still = np.clip(still * 0.6 + random.normal(40, 6, still.shape), 0, 255).astype(np.uint8)
    changed = False
    for crf in (18, 23, 28):
        monkeypatch.setattr(video, "_QUALITY", ["-crf", str(crf), "-preset", "medium"])
        video.write_video(tmp_path / "still.mp4", video.static_clip(still, 13), 24)
        frames, fps = video.read_video(tmp_path / "still.mp4")
        changed |= bool(np.ptp(frames, axis=0).any())
        assert measured(*frames, fps=fps)["total"] < 0.3
    assert changed, "the encoder changes nothing: nothing is tested"


def test_one_clip_reads_the_same_at_every_size_and_rate(somebody: Cutout) -> None:
    """A person sways before a camera that pans ever faster; 0.75 s of it."""
    values = []
    for fps in (12, 24, 30):
        # Only the frames that are looked at are drawn; between two of them there is nothing to see.
        times = np.arange(0, round(0.75 * fps) + 1, stride_for(fps)) / fps
        shown = []
        for time in times:
            camera = STILL.then_by(24 * time + 12 * time**2, 0)
            person = camera.then_by(-30 * np.sin(2 * time), 8 * time)
            shown.append(somebody.frame(camera, person, width=456, lines=720, drawn=1))
        for lines in (720, 540, 360):
            small = [cv2.resize(one, (lines * 57 // 32, lines), interpolation=cv2.INTER_AREA) for one in shown]
            spread = np.zeros((len(small) * stride_for(fps), *small[0].shape), np.uint8)
            spread[:: stride_for(fps)] = small
            found = DynamicsReward("dis").score(Clip(spread, fps, ""))
            values.append((found["total"], found["subject"]))
    low, high = np.min(values, axis=0), np.max(values, axis=0)
    assert (low > 2).all() and (high < 1.1 * low).all(), values


def test_one_motion_reads_the_same_at_every_frame_rate(nature: np.ndarray) -> None:
    # 40 pixels a second are 5 in 1/8 s, whatever the rate.
    for fps in (8, 12, 16, 24, 30, 60):
        stride = stride_for(fps)
        frames = np.zeros((stride + 1, SHORT, WIDE, 3), np.uint8)
        for index in (0, stride):
            frames[index] = frame(nature, STILL.then_by(0, 40 * index / fps), width=WIDE)
        assert DynamicsReward("dis").score(Clip(frames, fps, ""))["value"] == pytest.approx(5, rel=0.02)


def test_a_fast_swing_reads_what_its_frames_show_and_no_more(nature: np.ndarray) -> None:
    """Two frames do not show the way between them: truth is the shift from one to the next, and it depends on the rate.

    The figures are those of docs/explanation/dynamics.md, which calls this a limit.
    """
    values = []
    for fps, told in ((24, 17.5), (12, 15.1), (30, 14.3)):
        stride = stride_for(fps)
        shifts = 19 * np.sin(4 * np.pi * np.arange(0, fps + 1, stride) / fps + 0.4)
        shown = np.zeros((stride * (len(shifts) - 1) + 1, SHORT, WIDE, 3), np.uint8)
        for place, shift in enumerate(shifts):
            shown[place * stride] = frame(nature, STILL.then_by(shift, 0), width=WIDE)
        values.append(measured(*shown, fps=fps)["value"])
        assert values[-1] == pytest.approx(np.abs(np.diff(shifts)).mean() * fps / (8 * stride), rel=0.02)
        assert values[-1] == pytest.approx(told, abs=0.06)
    assert max(values[1:]) < 0.9 * values[0]


def test_a_cut_and_a_change_of_light_are_no_motion(nature: np.ndarray) -> None:
    still = frame(nature, STILL, width=WIDE)
    # The search alone answers with the size of the picture, and one cut in a clip would outweigh a dance.
    assert measured(still, frame(octaves(7), STILL, width=WIDE))["total"] == 0
    assert measured(still, cv2.convertScaleAbs(still, alpha=0.85))["total"] < 0.3
    black = np.zeros_like(still)
    assert measured(black, black)["total"] == measured(still, black)["total"] == 0


# --- camera and subject ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "pixels"), [("shift", 3), ("shift", 12), ("rotate", 8), ("zoom", 2), ("zoom", 10)])
def test_a_camera_over_a_portrait_is_no_moving_person(kind: str, pixels: float, shared_data: Path) -> None:
    portrait = cv2.imread(str(shared_data / "astronaut.png"))
    assert portrait is not None
    picture, moved = enlarged(portrait), by(kind, pixels, width=256)
    found = measured(frame(picture, STILL, width=256), frame(picture, moved, width=256))
    truth = top_magnitude(moved.field(SHORT, 256))
    assert found["camera"] == pytest.approx(truth, rel=0.04)
    assert found["subject"] < max(0.1, 0.03 * truth)


@pytest.mark.parametrize("place", ["beach", "library"])
def test_a_camera_over_a_drawn_person_is_no_moving_person(place: str) -> None:
    what = clips.Scene(3, "still", place, "striped shirt", "clear", "smiling", 5)
    picture, moved = clips.render(what, size=2048, frames=1).frames[0], by("shift", 6, width=WIDE)
    found = measured(frame(picture, STILL, width=WIDE), frame(picture, moved, width=WIDE))
    assert found["camera"] == pytest.approx(6, rel=0.04) and found["subject"] < 0.9


@pytest.mark.parametrize("pixels", [1.5, 4, 12])
def test_a_person_before_a_still_background_keeps_the_motion(pixels: float, somebody: Cutout) -> None:
    moved = by("shift", pixels, width=WIDE, direction=2.4)
    found = measured(*(somebody.frame(STILL, person, width=WIDE) for person in (STILL, moved)))
    assert 0.9 * pixels < found["subject"] < 1.1 * pixels and found["camera"] < 0.1 * pixels
    assert found["total"] == pytest.approx(pixels, rel=0.1)


@pytest.mark.parametrize("kind", ["shift", "zoom"])
def test_a_person_who_moves_while_the_camera_does(kind: str, somebody: Cutout) -> None:
    camera = by(kind, 6, width=WIDE, direction=0.2)
    person = camera.then_by(-3, 4)
    found = measured(*(somebody.frame(*both, width=WIDE) for both in ((STILL, STILL), (camera, person))))
    field = somebody.field(camera, person, width=WIDE)
    assert found["subject"] == pytest.approx(5, rel=0.1)
    assert found["camera"] == pytest.approx(top_magnitude(camera.field(SHORT, WIDE)), rel=0.05)
    assert found["total"] == pytest.approx(top_magnitude(field), rel=0.08)


@pytest.mark.parametrize(("wall", "halo"), [("nature", 1.15), ("empty", 1.5)])
def test_a_swinging_arm_is_not_the_camera(wall: str, halo: float) -> None:
    """It turns by 1/6 about its elbow, the tip by 15 pixels; an empty wall seems to go along for a few pixels."""
    arm = np.zeros((2048, 2048), np.uint8)
    cv2.rectangle(arm, (904, 664), (1144, 1024), 255, -1)
    background = octaves(4) if wall == "nature" else np.full((2048, 2048, 3), (200, 190, 180), np.uint8)
    cutout = Cutout(octaves(3), cv2.GaussianBlur(arm, (0, 0), 3), background)
    cos, sin = np.cos(1 / 6), np.sin(1 / 6)
    swung = Affine(np.array([[cos, -sin], [sin, cos]]), np.zeros(2))
    found = measured(*(cutout.frame(STILL, person, width=WIDE) for person in (STILL, swung)))
    truth = top_magnitude(cutout.field(STILL, swung, width=WIDE))
    assert found["camera"] < 0.2 and 0.9 * truth < found["subject"] < halo * truth


def test_the_camera_is_found_among_what_does_not_follow_it() -> None:
    """40 % of the field goes elsewhere, the rest is off by 0.1 pixels: the map is found, again and again the same."""
    random = np.random.default_rng(1)
    truth = Affine(np.array([[1.01, -0.02], [0.015, 0.99]]), np.array([3.0, -2.0])).field(256, 384)
    field = truth + random.normal(0, 0.1, truth.shape)
    field[80:, 90:310] = (-7, 5) + random.normal(0, 0.1, field[80:, 90:310].shape)
    grey = smooth(384, 256, 5, 8)[..., 0]
    everywhere = np.ones((256, 384), bool)
    found = camera_field(field.astype(np.float32), everywhere, grey)
    assert np.abs(found - truth).max() < 0.1
    assert np.array_equal(found, camera_field(field.astype(np.float32), everywhere, grey))
    # What is not to be believed is not looked at; with nothing in common there is no camera.
    trusted = np.abs(field[..., 0] + 7) < 1
    assert camera_field(field.astype(np.float32), trusted, grey)[200, 200] == pytest.approx((-7, 5), abs=0.1)
    scattered = random.uniform(-20, 20, truth.shape).astype(np.float32)
    assert not camera_field(scattered, everywhere, grey).any()
    assert not camera_field(field.astype(np.float32), ~everywhere, grey).any()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_miniature_s_clips_are_ordered_by_how_much_they_move(seed: int) -> None:
    """48 pixels a side, enlarged to 256."""
    found = {
        action: measured(
            *clips.render(clips.Scene(seed, action, "street", "red sweater", "clear", "serious", seed)).frames
        )
        for action in ("still", "walk", "dance")
    }
    for which in ("total", "subject"):
        assert found["still"][which] < 0.3 and min(found["walk"][which], found["dance"][which]) > 1.5


# --- by hand --------------------------------------------------------------------------------------------------------


def test_a_clip_too_short_for_a_pair_has_no_motion() -> None:
    for count in (1, 3):
        found = measured(*np.zeros((count, 64, 64, 3), np.uint8), fps=24)
        numbers = dict.fromkeys(("value", "total", "camera", "subject"), 0.0)
        assert found == {**numbers, "pairs": [], "subject_pairs": [], "stride": 3}


def test_the_score_keeps_every_pair(somebody: Cutout) -> None:
    moves = [STILL, STILL.then_by(2, 0), STILL.then_by(8, 0)]
    found = measured(*(somebody.frame(STILL, person, width=256) for person in moves))
    assert found["pairs"] == pytest.approx([2, 6], rel=0.1) and found["subject_pairs"] == pytest.approx([2, 6], rel=0.1)
    assert found["value"] == found["total"] == pytest.approx(np.mean(found["pairs"]), abs=1e-4)
    assert json.loads(json.dumps(found)) == found


def test_the_stride_is_nearest_to_eight_a_second() -> None:
    expected = {1: 1, 8: 1, 12: 2, 16: 2, 24: 3, 25: 3, 30: 4, 60: 8, 29.97: 4, 23.976: 3}
    assert {fps: stride_for(fps) for fps in expected} == expected


def test_the_top_five_percent_by_hand() -> None:
    # 100 vectors of lengths 0 to 99: the top five are 95 to 99, mean 97. (3, 4) has length 5.
    field = np.zeros((10, 10, 2))
    field[..., 0] = np.random.default_rng(0).permutation(100).reshape(10, 10)
    assert top_magnitude(field) == 97
    assert top_magnitude(np.full((1, 1, 2), (3.0, 4.0))) == 5


def test_the_dynamics_reward_names_who_judges() -> None:
    reward: Reward = DynamicsReward("dis")
    assert reward.made_by == f"DIS medium, both ways (OpenCV {cv2.__version__}), short side 256, 8 frames/s, top 5%"


# --- which motion selects -------------------------------------------------------------------------------------------


def test_whose_motion_counts_is_chosen_without_scoring_again() -> None:
    def read(which: str) -> dict[str, dict[str, Any]]:
        chosen = settings(**{"pairs.dynamics": which})
        return {name: subset(chosen, pipeline.stage(name).READS) for name in pipeline.ORDER}

    total, subject = read("total"), read("subject")
    assert [name for name in pipeline.ORDER if total[name] != subject[name]] == ["select"]


def test_selection_goes_by_the_motion_that_is_chosen() -> None:
    """By `total` the last video of a prompt dominates the others; by `subject` it is the stillest and cannot."""
    workspace = scored()
    rows = read_lines(workspace.scores)
    for row in rows:
        if row["reward"] == "dynamics":
            row["raw"]["subject"] = 9.0 - row["value"]
    write_lines(workspace.scores, rows)

    def winners(which: str) -> set[str]:
        chosen = select.choose(workspace, settings(**{"pairs.dynamics": which}))
        return {row["winner"]["id"] for row in chosen.rows if row["kind"] == "dynamic"}

    assert any(name.endswith("-3") for name in winners("total")) and winners("subject") == set()
