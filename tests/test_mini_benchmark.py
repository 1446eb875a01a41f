"""The arithmetic of the miniature's benchmark: its measurements on models and judges whose answers are known.

Truth: hand arithmetic (decibels, shares, means), identities (drawn clips in the place of samples), and a parent process
with much memory. What the shipped weights reach is measured in `test_mini_gates.py` and by `python -m benchmarks.mini`.
"""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import _alone, _miniature, _sheet, mini
from PIL import Image

from magicid_cli.errors import MagicIDError
from magicid_cli.faces import Face
from magicid_cli.faces.base import normalised
from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.dynamics import DynamicsReward
from magicid_cli.world import captions, clips
from magicid_cli.world.people import HELD_OUT

OFF_BY_10 = 10 * math.log10(255**2 / 100)  # decibels, if every pixel is


class _Family:
    """Latents are the frames themselves; what comes back is changed by a function."""

    commit = "known"

    def __init__(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self.change = change

    def encode_video(self, frames: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(frames)

    def encode_static(self, photo: np.ndarray, frames: int) -> torch.Tensor:
        return torch.from_numpy(np.repeat(photo[None], frames, axis=0))

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        return self.change(latents.numpy())


class _Finder:
    """Takes any picture for a face, but not a black one."""

    def find(self, image: np.ndarray) -> list[Face]:
        return [Face((0, 0, 1, 1), np.zeros((5, 2)), 1.0)] if image.any() else []


class _Encoder:
    """A vector for every picture: the same for the same one, in no direction for another."""

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        return normalised(np.random.default_rng(list(image.tobytes()[::97])).standard_normal(64))


class _Scorer:
    """Has been told what some videos show; takes every other one for something the world does not have."""

    def __init__(self, told: dict[bytes, clips.Scene]) -> None:
        self.told = told

    def score(self, clip: Clip) -> dict[str, Any]:
        scene = self.told.get(clip.frames.tobytes())
        return {"seen": {part: getattr(scene, part, "nothing") for part in _miniature.PARTS}}


def off_by_10(frames: np.ndarray) -> np.ndarray:
    return np.where(frames < 128, frames + 10, frames - 10).astype(np.uint8)


def studio(change: Callable[[np.ndarray], np.ndarray], told: dict[bytes, clips.Scene] | None = None) -> Any:
    encoders: Any = {name: _Encoder() for name in ("drawn", "drawn-judge")}
    parts: list[Any] = [_Family(change), _Finder(), encoders, _Scorer(told or {}), DynamicsReward("dis")]
    return _miniature.Studio(*parts)


@pytest.fixture(scope="module")
def drawn() -> _miniature.Samples:
    """Drawn clips also in the place of samples."""
    scenes = _miniature.scenes(14)
    frames = np.stack([clips.render(scene).frames for scene in scenes])
    return _miniature.Samples(scenes, frames, frames.copy())


def known(samples: _miniature.Samples) -> dict[bytes, clips.Scene]:
    return {frames.tobytes(): scene for frames, scene in zip(samples.true, samples.scenes, strict=True)}


# ------------------------------------------------------------------------------------------------------ autoencoder


def test_decibels_by_hand() -> None:
    found = _miniature.codec(studio(off_by_10), 2)
    assert found.whole_db == pytest.approx(OFF_BY_10)
    assert found.face_db == pytest.approx(OFF_BY_10)
    assert set(found.action_db.values()) == {found.whole_db}
    assert len(found.shown) == 2
    assert np.abs(found.shown[0][0].astype(int) - found.shown[0][1]).min() == 10
    # Every picture is another one to this encoder, so its vectors have nothing in common.
    assert abs(found.cosine) < 0.15


def test_a_face_s_decibels_are_those_of_its_box() -> None:
    """Off by 10 inside the boxes alone: the whole picture is better by the share of its pixels in them."""
    drawn = clips.render(clips.scene(_miniature._CODEC, people=HELD_OUT))
    inside = np.zeros((clips.FRAMES, clips.SIZE, clips.SIZE), bool)
    for frame, face in enumerate(drawn.faces):
        x, y, width, height = (round(48 * edge) for edge in face.box)
        for row in range(max(0, y), min(48, y + height)):
            for column in range(max(0, x), min(48, x + width)):
                inside[frame, row, column] = True

    def change(frames: np.ndarray) -> np.ndarray:
        moving = np.array_equal(frames, drawn.frames)
        return np.where(inside[..., None], off_by_10(frames), frames) if moving else frames

    found = _miniature.codec(studio(change), 1)
    assert found.face_db == pytest.approx(OFF_BY_10)
    assert found.whole_db == pytest.approx(OFF_BY_10 - 10 * math.log10(inside.mean()))


def test_without_loss_a_face_is_the_same_and_stillness_is_still() -> None:
    found = _miniature.codec(studio(lambda frames: frames), 3)
    assert (found.whole_db, found.face_db) == (math.inf, math.inf)
    assert found.cosine == pytest.approx(1)
    assert found.static_px < 0.01
    assert found.motion_px[0] == found.motion_px[1] > 0.5
    lost = _miniature.codec(studio(lambda frames: 0 * frames), 1)
    assert lost.cosine == 0, "a face that is found no more"


def test_motion_is_stated_at_128_pixels() -> None:
    """A textured picture that moves one of 48 pixels a frame moves 128/48 of 128."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(coarse).resize((80, 48), Image.Resampling.BICUBIC))
    frames = np.stack([wide[:, 8 + number : 56 + number] for number in range(9)])
    assert _miniature.motion(studio(off_by_10), frames) == pytest.approx(128 / 48, rel=0.2)


# ---------------------------------------------------------------------------------------------------------- samples


def test_scenes_take_turns_and_are_of_people_of_their_own() -> None:
    scenes = _miniature.scenes(112)
    for part, table in (
        ("action", captions.ACTION_PHRASES),
        ("place", captions.PLACE_PHRASES),
        ("outfit", captions.OUTFIT_PHRASES),
    ):
        counted = {name: sum(getattr(scene, part) == name for scene in scenes) for name in table}
        assert set(counted.values()) == {112 // len(table)}, part
    assert len({scene.person for scene in scenes}) == 112 and all(scene.person in HELD_OUT for scene in scenes)
    assert len({(scene.place, scene.outfit) for scene in scenes}) > 56
    wishes = [captions.wish(scene.caption()) for scene in scenes]
    assert all((wish.action, wish.place) == (s.action, s.place) for wish, s in zip(wishes, scenes, strict=True))


@pytest.fixture
def measured_small(drawn: _miniature.Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn clips are measured at the size of samples, so that the same clips give the same figure."""
    small = {scene.seed: frames for scene, frames in zip(drawn.scenes, drawn.true, strict=True)}
    monkeypatch.setattr(_miniature, "true_motion", lambda what, scene: _miniature.motion(what, small[scene.seed]))


def test_samples_are_measured_against_clips_drawn_large(drawn: _miniature.Samples) -> None:
    judges = studio(off_by_10, known(drawn))
    moving = list(mini.sample_gates(judges, drawn))[-1]
    actions = np.array([scene.action for scene in drawn.scenes])
    large = np.array([_miniature.motion(judges, clips.render(scene, size=256).frames) for scene in drawn.scenes])
    small = np.array([_miniature.motion(judges, frames) for frames in drawn.true])

    def above_still(px: np.ndarray) -> float:
        each = {name: px[actions == name].mean() for name in set(actions)}
        return float(np.mean([value for name, value in each.items() if name != mini.STILL]) - each[mini.STILL])

    assert moving.measured == pytest.approx(above_still(small) / above_still(large), rel=1e-3)
    assert moving.measured > 1.1  # hard edges, enlarged, lead the search astray


@pytest.mark.usefixtures("measured_small")
def test_drawn_clips_are_as_good_as_drawn_clips(drawn: _miniature.Samples) -> None:
    gates = list(mini.sample_gates(studio(off_by_10, known(drawn)), drawn))
    assert [gate.measured for gate in gates] == [1, 1, 1, 1]
    assert [(gate.least, gate.passed) for gate in gates] == [(0.9, True), (0.95, True), (0.9, True), (0.8, True)]


@pytest.mark.usefixtures("measured_small")
def test_shares_count_what_is_recognised_and_what_moves(drawn: _miniature.Samples) -> None:
    """Two of the fourteen are of another scene, then half of them stand still: which actions is in the details."""
    made = drawn.made.copy()
    made[1], made[2] = drawn.true[2], drawn.true[1]
    swapped = _miniature.Samples(drawn.scenes, drawn.true, made)
    judges = studio(off_by_10, known(drawn))
    action, place, outfit, moving = mini.sample_gates(judges, swapped)
    assert [gate.measured for gate in (action, place)] == pytest.approx([12 / 14, 12 / 14])
    assert not action.passed and not place.passed
    assert action.details["sampled_each"] == {
        name: 0.5 if name in (drawn.scenes[1].action, drawn.scenes[2].action) else 1 for name in captions.ACTION_PHRASES
    }
    assert moving.measured == pytest.approx(1, abs=2e-3), "the same clips in another order"

    made = drawn.made.copy()
    made[7:] = made[7:, :1]
    frozen = _miniature.Samples(drawn.scenes, drawn.true, made)
    assert list(mini.sample_gates(judges, frozen))[-1].measured == pytest.approx(halved(judges, drawn), abs=0.01)


def halved(judges: Any, drawn: _miniature.Samples) -> float:
    """The share of motion that is left when the second seven stand still; the first seven are one of each action."""
    actions = [scene.action for scene in drawn.scenes]
    px = [_miniature.motion(judges, frames) for frames in drawn.true]
    first, second = (dict(zip(actions[part], px[part], strict=True)) for part in (slice(7), slice(7, None)))
    assert first.keys() == second.keys() == captions.ACTION_PHRASES.keys()
    assert first["still"] < 0.01 and second["still"] < 0.01
    return sum(first.values()) / (sum(first.values()) + sum(second.values()))


def test_flicker_is_no_motion(drawn: _miniature.Samples) -> None:
    """A model that does the same whatever is asked, even standing still, does not do what is asked: nothing is left."""
    judges = studio(off_by_10, known(drawn))
    moving = list(mini.sample_gates(judges, same_for_all(drawn, drawn.true[3])))[-1]
    assert moving.details["sampled_each"]["still"] > 0.5
    assert moving.measured == pytest.approx(0, abs=1e-3) and not moving.passed


def same_for_all(drawn: _miniature.Samples, frames: np.ndarray) -> _miniature.Samples:
    return _miniature.Samples(drawn.scenes, drawn.true, np.repeat(frames[None], len(drawn.scenes), axis=0))


def test_a_model_that_knows_nobody_is_at_one_half_and_one_that_knows_one_at_one(drawn: _miniature.Samples) -> None:
    judges = studio(off_by_10)
    cast = _miniature.cast(judges, drawn, "drawn")
    assert (cast.chance, cast.found) == (0.5, 1)
    assert cast.steadiness[0] == cast.steadiness[1] < 0.9, "every frame that moves is another face to this encoder"
    same = same_for_all(drawn, drawn.true[0])
    assert _miniature.cast(judges, same, "drawn").chance == 1
    gates = list(mini.face_gates(judges, same, range(600, 603)))
    assert [(gate.measured, gate.passed) for gate in gates[2:4]] == [(1, False), (1, False)]
    nobody = _miniature.Samples(drawn.scenes, drawn.true, np.concatenate([0 * drawn.true[:7], drawn.true[7:]]))
    assert _miniature.cast(judges, nobody, "drawn").found == 0.5
    frozen = _miniature.Samples(drawn.scenes, drawn.true, np.repeat(drawn.true[:, :1], 9, axis=1))
    assert _miniature.cast(judges, frozen, "drawn").steadiness[1] == pytest.approx(1)


def test_an_encoder_that_tells_nothing_apart_is_at_one_half() -> None:
    """Each picture is another one to it, so a person is as far from themselves as from everybody."""
    found = _miniature.verification(studio(off_by_10), range(600, 640))
    assert found.keys() == {"drawn", "drawn-judge"}
    assert found["drawn"].auc == pytest.approx(0.5, abs=0.1)
    assert found["drawn"].found == 1


# ------------------------------------------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ("measured", "passed"), [(0.9, True), (0.95, True), (0.89, False), (1.01, False), (float("nan"), False)]
)
def test_a_gate_keeps_its_bounds(measured: float, passed: bool) -> None:
    gate = mini.Gate("this", measured, least=0.9, most=1)
    assert gate.passed is passed
    assert gate.row()["passed"] == ("yes" if passed else "NO")
    assert gate.row()["bound"] == ">= 0.9 and <= 1"
    assert mini.Gate("this", measured).row()["passed"] == "-"


def test_a_process_of_its_own_does_not_count_what_its_parent_has() -> None:
    heavy = np.ones(50_000_000)
    code = "from benchmarks._alone import peak_gb; print(peak_gb())"
    done = subprocess.run([sys.executable, "-c", code], cwd=_alone.ROOT, capture_output=True, text=True, check=True)
    assert 0.01 < float(done.stdout) < 0.3 < heavy.nbytes / 1e9


def test_a_failing_process_says_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="nowhere"):
        _alone.plain_diffusers(
            tmp_path / "nowhere", tmp_path / "v.npy", "A man.", frames=9, side=48, steps=2, guidance=3, seed=0
        )


def test_a_failing_process_is_a_gate_that_is_not_kept() -> None:
    def gates() -> Iterator[mini.Gate]:
        yield mini.Gate("all weights", 18, most=25)
        raise RuntimeError("the wheel cannot be built: no room")

    first, second = mini.attempted("sizes", gates)
    assert (first.what, first.passed) == ("all weights", True)
    assert (second.what, second.passed) == ("sizes", False)
    assert second.row()["measured"] is None and "no room" in second.row()["details"]["failed"]


def test_the_command_writes_figures_and_pictures_and_fails_with_a_gate(
    drawn: _miniature.Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = known(drawn)
    for scene in (clips.scene(_miniature._SCORER + number, people=HELD_OUT) for number in range(3)):
        scored[clips.render(scene).frames.tobytes()] = scene
    judges = studio(lambda frames: frames, scored)
    told = {"seconds": [1.2, 1.1, 1.2], "cpu_s": [1.6, 1.0, 1.1], "load_s": 5.0, "peak_gb": 0.8}
    monkeypatch.setattr(_miniature, "studio", lambda: judges)
    monkeypatch.setattr(_miniature, "samples", lambda *_: drawn)
    monkeypatch.setattr(_miniature, "verification", lambda *_: {"drawn": _miniature.Verification(0.98, 1.0)})
    monkeypatch.setattr(mini, "plain_gate", lambda *_: mini.Gate("plain diffusers", 1, most=1))
    monkeypatch.setattr(_alone, "one_video", lambda *_: told)
    monkeypatch.setattr(_alone, "wheel", lambda _: (20_000_000, []))
    monkeypatch.setattr(_alone, "weight_files", lambda: [])
    monkeypatch.setattr(mini, "QUICK", mini.Amounts(codec=2, scorer=3, samples=14))
    with pytest.raises(SystemExit) as ended:
        mini.main(["--quick", "--output", str(tmp_path)])
    assert ended.value.code == 1
    written = json.loads((tmp_path / "mini.json").read_text())
    missed = [row["gate"] for row in written["rows"] if row["passed"] == "NO"]
    assert missed == ["face encoder drawn, unseen people, AUC", "all weights"], "there are none"
    kept = len([row for row in written["rows"] if row["passed"] == "yes"])
    told_last = f"{kept} of {kept + 2} gates are kept\nmissed: {missed[0]}\nmissed: {missed[1]}\n"
    assert capsys.readouterr().out.endswith(told_last)
    rows = {row["gate"]: row for row in written["rows"]}
    assert rows["one video on one core"]["measured"] == 1.1, "the median of the processor's seconds"
    assert rows["wheel"]["measured"] == 20
    assert written["machine"]["samples"] == 14 and written["machine"]["weights"] == "known"
    for name, size in (("mini-samples.png", (14, 10)), ("mini-codec.png", (2, 9))):
        width, height = Image.open(tmp_path / name).size
        assert width > size[1] * 96 and height > size[0] * 96, name


def test_without_weights_the_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MagicIDError("model-unusable", "They are missing.", "Install magicid again.")

    monkeypatch.setattr(_miniature, "studio", missing)
    with pytest.raises(SystemExit, match="They are missing"):
        mini.main([])


def test_a_sheet_shows_every_frame_of_every_row() -> None:
    colours = np.random.default_rng(1).integers(40, 200, (2, 2, 3, 3), dtype=np.uint8)
    flat = np.broadcast_to(colours[:, :, :, None, None], (2, 2, 3, 8, 8, 3))
    rows = [_sheet.Row(f"row {number}", list(groups)) for number, groups in enumerate(flat)]
    page = _sheet.drawn(rows, side=20, title="all", headings=["left", "right"])
    for colour in colours.reshape(-1, 3):
        place = np.argwhere((page == colour).all(-1))
        assert len(place) == 400 and np.ptp(place, axis=0).tolist() == [19, 19]
    places = [np.argwhere((page == colour).all(-1))[0].tolist() for colour in colours.reshape(-1, 3)]
    assert places == sorted(places, key=lambda place: (place[0], place[1])), "in the order of rows, groups and frames"
