"""The identity reward against hand arithmetic, on chosen embeddings."""

import json
from typing import Any

import numpy as np
import pytest

from magicid_cli.faces import Face, Faces
from magicid_cli.rewards.base import Clip, Reward
from magicid_cli.rewards.identity import IdentityReward, photo_similarity, sampled

# --- identity -------------------------------------------------------------------------------------------------------


class MarkedFaces:
    """Finds as many faces as the red value of the first pixel says."""

    name = "marked"
    made_by = "marked detector"
    advice = "Mark it."

    def find(self, image: np.ndarray) -> list[Face]:
        return [Face((0, 0, 9 - index, 9), np.zeros((5, 2), np.float32), 1.0) for index in range(image[0, 0, 0])]


class MarkedPeople:
    """The largest face has the cosine green / 100 - 1 with the x axis; any other face would be (1, 0) itself."""

    name = "marked"
    made_by = "marked recogniser"
    same_person = 0.0

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        cosine = image[0, 0, 1] / 100 - 1 if face.box[2] == 9 else 1.0
        return np.array([cosine, np.sqrt(1 - cosine**2)], np.float32)


def marked(faces: list[int], cosines: list[float]) -> Clip:
    frames = np.zeros((len(faces), 4, 4, 3), np.uint8)
    frames[:, 0, 0, 0] = faces
    frames[:, 0, 0, 1] = np.round((np.array(cosines) + 1) * 100)
    return Clip(frames, 24, "")


def identity(references: Any = ((1.0, 0.0),)) -> IdentityReward:
    return IdentityReward(Faces(MarkedFaces(), MarkedPeople()), np.array(references, np.float32))


def test_identity_by_hand() -> None:
    # Four frames: cosine 0.8; no face, counts 0; -0.5, counts 0; two faces, the larger one 0.4.
    reward: Reward = identity()
    score = reward.score(marked([1, 0, 1, 2], [0.8, 0.9, -0.5, 0.4]))
    assert score["value"] == pytest.approx((0.8 + 0 + 0 + 0.4) / 4)
    assert score["first_half"] == pytest.approx(0.4) and score["second_half"] == pytest.approx(0.2)
    assert score["found"] == pytest.approx(0.75)
    assert score["cosines"][1] is None
    assert [score["cosines"][index] for index in (0, 2, 3)] == pytest.approx([0.8, -0.5, 0.4])
    assert json.loads(json.dumps(score)) == score


def test_hiding_the_face_is_no_better_than_a_wrong_face() -> None:
    hidden, wrong = identity().score(marked([0] * 4, [0] * 4)), identity().score(marked([1] * 4, [-0.3] * 4))
    assert hidden["value"] == wrong["value"] == 0 and hidden["found"] == 0 and wrong["found"] == 1


def test_references_are_normalised_before_and_after_the_mean() -> None:
    # (10, 0) and (0, 1) count alike: the person is (1, 1) / √2, and a face on the x axis has cosine 0.7071.
    score = identity([(10.0, 0.0), (0.0, 1.0)]).score(marked([1], [1.0]))
    assert score["value"] == pytest.approx(np.sqrt(0.5))


def test_one_frame_is_both_halves() -> None:
    score = identity().score(marked([1], [0.6]))
    assert score["first_half"] == pytest.approx(0.6) and score["second_half"] == pytest.approx(0.6)


def test_every_kth_frame_is_looked_at() -> None:
    assert sampled(61) == list(range(0, 61, 4))
    assert sampled(16) == list(range(16)) and sampled(17) == list(range(0, 17, 2)) and sampled(1) == [0]
    for frames in range(1, 400):
        assert 1 <= len(sampled(frames)) <= 16 and len(set(np.diff(sampled(frames)))) <= 1
    assert identity().score(marked([1] * 61, [0.5] * 61))["frames"] == sampled(61)


def test_references_must_be_there() -> None:
    with pytest.raises(ValueError, match="references"):
        identity(np.empty((0, 2)))


def test_the_identity_reward_names_who_judges() -> None:
    assert identity().made_by == "marked detector; marked recogniser; at most 16 frames, one person followed"


def test_likeness_is_also_told_in_units_of_the_photos_own() -> None:
    """Three photos in the plane at -20, 0 and 40 degrees, by hand: each against the direction of the other two's sum,
    which lies halfway between them: 20 to -20 is 40 apart, -20 to 40 (middle 10) from 0 is 10, -20 to 0 (middle -10)
    from 40 is 50.
    """
    angles = np.radians([-20, 0, 40])
    references = np.stack([np.cos(angles), np.sin(angles)], 1) * [[3], [1], [0.5]]  # lengths do not count
    own = np.mean(np.cos(np.radians([40, 10, 50])))
    score = identity(references).score(marked([1, 0], [0.9, 0]))
    assert score["photo_similarity"] == pytest.approx(own) == photo_similarity(references)
    assert score["relative"] == pytest.approx(score["value"] / own)


@pytest.mark.parametrize("references", [[(1.0, 0.0)], [(1.0, 0.0), (-1.0, 0.1)], [(1.0, 0.0), (0.05, 1.0)]])
def test_photos_that_say_nothing_about_each_other_give_no_unit(references: list[tuple[float, float]]) -> None:
    """One alone, two that are opposite, two at nearly right angles: 1 / 0.05 would be a likeness of 20."""
    score = identity(references).score(marked([1], [0.5]))
    assert score["relative"] is None and score["photo_similarity"] is None and score["value"] > 0
