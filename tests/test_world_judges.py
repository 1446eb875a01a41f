"""The trained judges that come with magicid, through the interfaces that a user's run uses.

The truths: where the renderer drew a face, whom it drew and what it drew, for people and scenes that no training saw;
and the gates: verification AUC of at least 0.99 on 300 people for either encoder, 95 % for each answer of the scorer.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from magicid_cli.choosing.comparing import strangers
from magicid_cli.config import RewardSettings, Settings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.faces import Face, Faces, open_faces
from magicid_cli.models.catalog import VIDEO_MODELS
from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.identity import IdentityReward
from magicid_cli.rewards.semantics import open_judge
from magicid_cli.stages import ingest
from magicid_cli.world import clips, networks
from magicid_cli.world.clips import album
from magicid_cli.world.people import HELD_OUT
from magicid_cli.world.places import PLACES
from magicid_cli.world.training import pictures, verification
from pictures import smooth

PEOPLE = 300
MINI = VIDEO_MODELS["mini"]


def opened(recogniser: str = "auto") -> Faces:
    return open_faces(RewardSettings(face_model=recogniser), MINI, offline=True, events=Events())


def judge() -> Any:
    return open_judge(RewardSettings(), MINI, device="cpu", offline=True, events=Events())


@pytest.fixture(scope="module")
def shots() -> list[list[pictures.Shot]]:
    """Four frames, of different scenes, of each of 300 people."""
    draw = pictures.generator(100)
    return [[pictures.shot(draw, HELD_OUT[who : who + 1], first=0) for _ in range(4)] for who in range(PEOPLE)]


@pytest.fixture(scope="module")
def found(shots: list[list[pictures.Shot]]) -> list[list[list[Face]]]:
    detector = opened().detector
    return [[detector.find(what.picture) for what in row] for row in shots]


# --- the finder -----------------------------------------------------------------------------------------------------


def test_the_face_is_found_where_it_was_drawn(shots: list[list[pictures.Shot]], found: list[list[list[Face]]]) -> None:
    off, boxes = [], []
    for what, faces in zip(sum(shots, []), sum(found, []), strict=True):
        if faces:
            (face,) = faces
            size, height = what.picture.shape[0], what.box[3] * what.picture.shape[0]
            off.append(np.linalg.norm(face.landmarks - (what.landmarks * size - 0.5), axis=1).mean() / height)
            boxes.append(abs(np.log(face.box[3] / height)))
    assert len(off) >= 0.995 * 4 * PEOPLE
    # A head is about 20 pixels high there: 0.05 of it is one pixel of 48.
    assert np.mean(off) < 0.04 and np.quantile(off, 0.95) < 0.08
    assert np.mean(boxes) < 0.08


def test_no_face_is_found_where_nobody_is() -> None:
    detector, draw = opened().detector, pictures.generator(101)
    empty = [pictures.nobody(draw, HELD_OUT, first=0) for _ in range(300)]
    assert sum(bool(detector.find(picture)) for picture in empty) <= 6
    for place in PLACES.values():
        from magicid_cli.world.canvas import Canvas

        canvas = Canvas(192)
        place(canvas, np.random.default_rng(0))
        assert detector.find(canvas.shrunk(48)) == [], place.__name__
    for picture in (smooth(300, 200), np.full((480, 640, 3), 90, np.uint8), np.zeros((16, 16, 3), np.uint8)):
        assert detector.find(picture) == []


def test_a_photo_of_any_shape_and_size_shows_the_same_face() -> None:
    detector = opened().detector
    (photo,) = album(3, 1, 512)
    (face,) = detector.find(photo)
    wide = np.zeros((512, 900, 3), np.uint8)
    wide[:, 200:712] = photo
    (moved,) = detector.find(wide)
    assert moved.landmarks == pytest.approx(face.landmarks + (200, 0), abs=0.05 * face.box[3])
    (smaller,) = detector.find(np.array(Image.fromarray(photo).resize((128, 128), Image.Resampling.BOX)))
    assert (smaller.landmarks + 0.5) * 4 - 0.5 == pytest.approx(face.landmarks, abs=0.05 * face.box[3])


def test_a_photograph_of_a_real_person_is_told_what_to_do(shared_data: Path, tmp_path: Path) -> None:
    """Whether the finder sees a face in it is chance; if it sees none, the error names the way on."""
    verdicts = ingest.examine([shared_data / "astronaut.png"], Settings(), opened(), Events()).verdicts
    if verdicts[0].code == "no-face":
        with pytest.raises(MagicIDError) as caught:
            ingest.refuse(verdicts, "another hint")
        assert "magicid mini photos" in caught.value.hint


# --- the encoders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["drawn", "drawn-judge"])
def test_people_are_told_apart(name: str, shots: list[list[pictures.Shot]], found: list[list[list[Face]]]) -> None:
    """Found and embedded as a run does it; a frame without a face has the vector of nobody."""
    recogniser = opened(name).recogniser
    vectors = np.zeros((PEOPLE, 4, networks.EMBEDDING), np.float32)
    for who, (row, faces) in enumerate(zip(shots, found, strict=True)):
        for index, (what, seen) in enumerate(zip(row, faces, strict=True)):
            if seen:
                vectors[who, index] = recogniser.embed(what.picture, seen[0])
    own, strangers = verification.pairs(vectors)
    assert verification.auc(own, strangers) >= 0.99
    assert abs(strangers.mean()) < 0.1 and own.mean() > 0.6


@pytest.mark.parametrize("name", ["drawn", "drawn-judge"])
def test_an_album_is_of_one_person_and_a_stranger_in_it_is_noticed(name: str) -> None:
    faces = opened(name)

    def embedded(who: int, count: int) -> np.ndarray:
        photos = album(who, count, 256)
        return np.stack([faces.recogniser.embed(photo, faces.detector.find(photo)[0]) for photo in photos])

    refused = noticed = 0
    for who in range(0, 60, 2):
        vectors = embedded(who, 6)
        refused += bool(strangers(vectors, faces.recogniser.same_person))
        mixed = np.concatenate([vectors[:5], embedded(who + 1, 1)])
        noticed += 5 in strangers(mixed, faces.recogniser.same_person)
    assert refused <= 3 and noticed >= 26


def test_colour_tells_people_apart() -> None:
    """Somebody whose hair or skin alone is of another colour is somebody else; clothes say nothing."""
    from dataclasses import replace

    from magicid_cli.world import people

    faces = opened()
    original = people.person(5)
    scene = clips.Scene(5, "still", "kitchen", "red sweater", "clear", "serious", 7)

    def vector(who: people.Person, outfit: str = "red sweater") -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clips, "person", lambda _: who)
            frame = clips.render(replace(scene, outfit=outfit)).frames[0]
        return faces.recogniser.embed(frame, faces.detector.find(frame)[0])

    self = vector(original)
    clothed = [float(self @ vector(original, outfit)) for outfit in ("black suit", "yellow raincoat", "white coat")]
    blue = float(self @ vector(replace(original, hair=(52, 92, 190), style="long")))
    dark = float(self @ vector(replace(original, skin=(88, 58, 42) if sum(original.skin) > 400 else (255, 224, 196))))
    assert min(clothed) > 0.85 and max(blue, dark) < min(clothed) - 0.2


def test_likeness_of_a_clip_in_the_time_of_a_few_frames() -> None:
    faces = opened()
    clip = clips.render(clips.scene(11, people=HELD_OUT[11:12]))
    photos = album(11, 4, 256)
    references = np.stack([faces.recogniser.embed(photo, faces.detector.find(photo)[0]) for photo in photos])
    reward = IdentityReward(faces, references)
    shown = Clip(clip.frames, 8, "")
    raw = reward.score(shown)
    assert raw["value"] > 0.6 and raw["found"] == 1
    other = clips.render(clips.scene(12, people=HELD_OUT[12:13]))
    assert reward.score(Clip(other.frames, 8, ""))["value"] < raw["value"] - 0.3
    begun = time.process_time()
    for _ in range(5):
        reward.score(shown)
    assert (time.process_time() - begun) / 5 < 0.15  # 0.05 on a quiet core


# --- the scorer -----------------------------------------------------------------------------------------------------


def test_a_clip_is_seen_to_show_what_it_shows() -> None:
    scorer = judge()
    right = {"action": 0, "place": 0, "outfit": 0}
    count, values, wrong = 200, [], []
    for number in range(count):
        scene = clips.scene(200_000 + number, people=HELD_OUT)
        frames = clips.render(scene).frames
        raw = scorer.score(Clip(frames, 8, scene.caption()))
        for part in right:
            right[part] += raw["seen"][part] == getattr(scene, part)
        values.append(raw["value"])
        other = clips.scene(300_000 + number, people=HELD_OUT)
        wrong.append(scorer.score(Clip(frames, 8, other.caption()))["value"])
    assert min(right.values()) >= 0.95 * count, right
    assert np.mean(values) > 8.5 and np.mean(wrong) < 4


def test_a_frozen_clip_stands_still_to_the_scorer() -> None:
    scorer = judge()
    for number in range(8):
        scene = clips.Scene(number, "walk", "beach", "red sweater", "clear", "smiling", number)
        frames = np.repeat(clips.render(scene).frames[4:5], 9, 0)
        still = scorer.score(Clip(frames, 8, "A man stands still."))["value"]
        assert still > scorer.score(Clip(frames, 8, "A man walks across."))["value"] + 2


def test_a_clip_is_judged_in_a_blink() -> None:
    torch.set_num_threads(1)
    scorer, clip = judge(), clips.render(clips.scene(1, people=HELD_OUT))
    shown = Clip(clip.frames, 8, "A man waves a hand.")
    scorer.score(shown)
    begun = time.process_time()
    for _ in range(5):
        scorer.score(shown)
    assert (time.process_time() - begun) / 5 < 0.05


# --- the files ------------------------------------------------------------------------------------------------------


def test_the_files_carry_the_figures_of_their_gates() -> None:
    for file in (networks.ENCODER, networks.JUDGE):
        _, facts = networks.load(networks.FaceEncoder, networks.WEIGHTS / file)
        assert facts["auc"] >= 0.99 and facts["codec"] >= 0.9
    _, facts = networks.load(networks.PromptScorer, networks.WEIGHTS / networks.SCORER)
    assert min(facts[part] for part in ("action", "place", "outfit")) >= 0.95


def test_the_evaluations_encoder_is_another_one() -> None:
    """Not a copy: on the same faces the two give unrelated vectors."""
    draw = pictures.generator(102)
    reward, other = opened("drawn"), opened("drawn-judge")
    cosines = []
    for _ in range(40):
        frame = pictures.shot(draw, HELD_OUT, first=0).picture
        faces = reward.detector.find(frame)
        if faces:
            cosines.append(
                abs(float(reward.recogniser.embed(frame, faces[0]) @ other.recogniser.embed(frame, faces[0])))
            )
    assert len(cosines) > 35 and np.mean(cosines) < 0.4
