"""Rewards against hand arithmetic: identity on chosen embeddings, dynamics on scenes whose motion is known."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from magicid_cli.errors import MagicIDError
from magicid_cli.faces import Face, Faces
from magicid_cli.rewards.base import Clip, Reward
from magicid_cli.rewards.dynamics import DynamicsReward, stride_for, top_magnitude
from magicid_cli.rewards.identity import IdentityReward, sampled
from pictures import smooth

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
    assert identity().made_by == "marked detector; marked recogniser; at most 16 frames"


# --- dynamics -------------------------------------------------------------------------------------------------------

SCENE = smooth(1024, 512, cell=32)


def panned(fps: float, speed: float, seconds: float = 1.0, size: int = 256) -> Clip:
    """A camera that pans over a picture.

    Args:
        fps: frames per second.
        speed: pixels per second where the shorter side has 256.
        seconds: length.
        size: shorter side of the clip, the longer is 1.5 times that.
    """
    scale = size / 256
    frames = []
    for index in range(round(fps * seconds)):
        x, y = 100 + speed * index / fps, 80
        half = 0.5 * scale - 0.5  # pixel centres
        view = np.array([[scale, 0, half - scale * x], [0, scale, half - scale * y]])
        frames.append(cv2.warpAffine(SCENE, view, (size * 3 // 2, size), flags=cv2.INTER_LINEAR))
    return Clip(np.stack(frames), fps, "")


def motion(clip: Clip) -> float:
    return float(DynamicsReward("dis").score(clip)["value"])


def test_a_still_clip_does_not_move() -> None:
    assert motion(panned(24, 0)) < 0.01


@pytest.mark.parametrize("speed", [8, 40, 80])
def test_a_pan_has_the_motion_it_has(speed: float) -> None:
    # In 1/8 s the camera moves speed / 8 pixels; the top 5 % of an even field lie a little above its mean.
    assert motion(panned(8, speed)) == pytest.approx(speed / 8, rel=0.08)


def test_one_motion_reads_the_same_at_every_frame_rate() -> None:
    values = [motion(panned(fps, 40)) for fps in (8, 12, 16, 24, 30, 60)]
    assert values == pytest.approx([5.0] * 6, rel=0.04)


def test_one_motion_reads_the_same_at_every_resolution() -> None:
    values = [motion(panned(24, 40, size=size)) for size in (128, 256, 384)]
    assert values == pytest.approx([5.0] * 3, rel=0.04)


def test_motion_of_a_small_part_counts() -> None:
    # A square of a quarter of the height and a sixth of the width is 4 % of a 384 x 256 picture: in the top 5 %.
    frames = np.repeat(smooth(384, 256, 1)[None], 8, 0)
    for index, frame in enumerate(frames):
        frame[96:160, 100 + 6 * index : 164 + 6 * index] = SCENE[:64, :64]
    part = motion(Clip(frames, 8, ""))
    assert 3 < part < 12


def test_a_clip_too_short_for_a_pair_has_no_motion() -> None:
    for clip in (panned(24, 80, 1 / 24), panned(24, 80, 3 / 24)):
        score = DynamicsReward("dis").score(clip)
        assert score == {"value": 0.0, "pairs": [], "stride": 3}


def test_the_score_keeps_every_pair() -> None:
    score = DynamicsReward("dis").score(panned(24, 40))
    assert len(score["pairs"]) == 7 and np.mean(score["pairs"]) == pytest.approx(score["value"], abs=1e-4)
    assert json.loads(json.dumps(score)) == score


def test_the_stride_is_nearest_to_eight_a_second() -> None:
    expected = {1: 1, 8: 1, 12: 2, 16: 2, 24: 3, 25: 3, 30: 4, 60: 8, 29.97: 4, 23.976: 3}
    assert {fps: stride_for(fps) for fps in expected} == expected


def test_the_top_five_percent_by_hand() -> None:
    # 100 vectors of lengths 0 to 99: the top five are 95 to 99, mean 97. (3, 4) has length 5.
    flow = np.zeros((10, 10, 2))
    flow[..., 0] = np.random.default_rng(0).permutation(100).reshape(10, 10)
    assert top_magnitude(flow) == 97
    assert top_magnitude(np.full((1, 1, 2), (3.0, 4.0))) == 5


def test_the_dynamics_reward_names_who_judges() -> None:
    reward: Reward = DynamicsReward("dis")
    assert reward.made_by == f"DIS medium (OpenCV {cv2.__version__}), short side 256, 8 frames/s, top 5%"


# --- RAFT -----------------------------------------------------------------------------------------------------------


def torchvision_with(monkeypatch: pytest.MonkeyPatch, optical_flow: Any) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", SimpleNamespace(optical_flow=optical_flow))


def test_without_torchvision_raft_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MagicIDError) as caught:
        DynamicsReward("raft")
    assert caught.value.code == "raft-missing" and "--flow dis" in caught.value.hint


class Weights:
    """Stands for torchvision's description of RAFT's weights."""

    name = "C_T_SKHT_V2"
    url = "https://example.org/models/raft_large.pth"

    @staticmethod
    def get_state_dict(*, progress: bool, weights_only: bool) -> dict[str, Any]:
        assert weights_only, "weights are pickles: tensors only"
        return {}


def test_without_its_weights_raft_is_refused_and_nothing_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torchvision_with(monkeypatch, SimpleNamespace(Raft_Large_Weights=SimpleNamespace(C_T_SKHT_V2=Weights)))
    with pytest.raises(MagicIDError) as caught:
        DynamicsReward("raft")
    assert caught.value.code == "raft-missing" and "raft_large.pth" in caught.value.message


def test_raft_gets_what_it_expects_and_its_last_flow_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Net(torch.nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor, num_flow_updates: int) -> list[torch.Tensor]:
            assert num_flow_updates == 20
            seen.append((first, second))
            flow = torch.zeros(1, 2, *first.shape[2:])
            flow[:, 0, :256, :300], flow[:, 1, :256, :300] = 3, 4
            return [flow * 100, flow]

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "raft_large.pth").touch()
    stand_in = SimpleNamespace(Raft_Large_Weights=SimpleNamespace(C_T_SKHT_V2=Weights), raft_large=Net)
    torchvision_with(monkeypatch, stand_in)
    frames = np.stack([np.full((128, 150, 3), value, np.uint8) for value in (0, 255)])
    reward = DynamicsReward("raft")
    # The flow is (3, 4) everywhere, length 5, in the 300 x 256 picture; the padding to 304 columns does not count.
    assert reward.score(Clip(frames, 8, ""))["value"] == pytest.approx(5)
    first, second = seen[0]
    assert first.shape == (1, 3, 256, 304)
    assert float(first.min()) == float(first.max()) == -1 and float(second.min()) == float(second.max()) == 1
    assert "RAFT large C_T_SKHT_V2 (20 updates)" in reward.made_by
