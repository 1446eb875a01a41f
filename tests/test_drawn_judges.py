"""Drawn faces and prompts behind the interfaces that every model has; without trained weights.

The truths: the rectangle that was painted (for what is found), the network itself on what Pillow cuts out (for what is
embedded), and arithmetic on the answers of a network that is told what to say (for the value of a prompt).
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from magicid_cli.alignment import aligned
from magicid_cli.config import RewardSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.faces import Face
from magicid_cli.faces.drawn import DrawnDetector, DrawnRecogniser
from magicid_cli.models.catalog import VIDEO_MODELS
from magicid_cli.rewards import drawn, semantics
from magicid_cli.rewards.base import Clip, Reward
from magicid_cli.rewards.drawn import DrawnJudge
from magicid_cli.world import networks
from magicid_cli.world.networks import FaceEncoder, FaceFinder, Found, PromptScorer
from magicid_cli.world.people import HELD_OUT
from magicid_cli.world.training import judges, pictures
from magicid_cli.world.training.judges import LABELS
from pictures import smooth

ANSWERS = [len(names) for names in LABELS.values()]


# --- the finder behind its interface --------------------------------------------------------------------------------


class _Blob(nn.Module):
    """Finds what is bright: its middle and size are the box, its corners and middle the landmarks."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, shown: torch.Tensor) -> Found:
        self.seen.append(shown)
        bright = ((shown[0].mean(0) + 1) / 2).double()
        there = float(bright.sum()) > 4
        ticks = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
        x, y = bright.sum(0), bright.sum(1)
        middle = torch.stack([(x @ ticks) / x.sum(), (y @ ticks) / y.sum()])
        # A uniform bar of width w has the variance w² / 12.
        spread = torch.stack([(x @ (ticks - middle[0]) ** 2) / x.sum(), (y @ (ticks - middle[1]) ** 2) / y.sum()])
        size = (12 * spread).sqrt()
        corners = torch.tensor([[-1, -1], [1, -1], [0, 0], [-1, 1], [1, 1]], dtype=torch.float64) / 2
        landmarks = middle + corners * size
        return Found(torch.tensor([9.0 if there else -9.0]), landmarks[None], torch.cat([middle, size.log()])[None])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Untrained weights of everything."""
    torch.manual_seed(0)
    networks.save(FaceFinder(), tmp_path / networks.FINDER, {})
    networks.save(networks.reward_encoder(), tmp_path / networks.ENCODER, {"same_person": 0.5})
    networks.save(networks.judging_encoder(), tmp_path / networks.JUDGE, {"same_person": 0.25})
    networks.save(PromptScorer(ANSWERS), tmp_path / networks.SCORER, {"labels": LABELS})
    return tmp_path


@pytest.mark.parametrize("size", [(48, 48), (512, 512), (90, 160), (320, 200)])
def test_a_face_is_told_in_pixels_of_the_picture(folder: Path, size: tuple[int, int]) -> None:
    """The truth: the white rectangle that was painted."""
    detector = DrawnDetector(folder)
    blob = _Blob()
    vars(detector)["_net"] = blob
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    left, top, wide, high = (round(share * min(size)) for share in (0.3, 0.2, 0.25, 0.4))
    image[top : top + high, left : left + wide] = 255
    (face,) = detector.find(image)
    pixel = min(size) / 48
    assert face.box == pytest.approx((left, top, wide, high), abs=pixel)
    assert face.landmarks.dtype == np.float32
    # In the middles of pixels: the corner of pixel 0 is at -0.5.
    assert face.landmarks[0] == pytest.approx((left - 0.5, top - 0.5), abs=pixel)
    assert face.landmarks[2] == pytest.approx((left + wide / 2 - 0.5, top + high / 2 - 0.5), abs=0.3 * pixel)
    assert 0.99 < face.score <= 1
    # The second look: the face's height fills as much of the square as it was taught to.
    rows = (blob.seen[1][0].mean(0) > 0).any(1).sum()
    assert int(rows) == pytest.approx(64 / 2.2, abs=2)


def test_nothing_is_found_where_nothing_is(folder: Path) -> None:
    detector = DrawnDetector(folder)
    vars(detector)["_net"] = _Blob()
    assert detector.find(np.zeros((64, 64, 3), np.uint8)) == []


def test_a_second_look_can_take_a_face_back(folder: Path) -> None:
    class Once(_Blob):
        def forward(self, shown: torch.Tensor) -> Found:
            found = super().forward(shown)
            return found if len(self.seen) == 1 else Found(-found.presence, found.landmarks, found.box)

    detector = DrawnDetector(folder)
    vars(detector)["_net"] = Once()
    assert detector.find(np.full((64, 64, 3), 255, np.uint8)) == []


def test_a_face_of_no_size_is_none(folder: Path) -> None:
    class Speck(_Blob):
        def forward(self, shown: torch.Tensor) -> Found:
            return Found(torch.tensor([9.0]), torch.rand(1, 5, 2), torch.tensor([[0.5, 0.5, -30.0, -30.0]]))

    detector = DrawnDetector(folder)
    vars(detector)["_net"] = Speck()
    assert detector.find(np.full((64, 64, 3), 255, np.uint8)) == []


@pytest.mark.parametrize(("side", "count"), [(16, 0), (80, 1)])
def test_a_face_of_three_pixels_is_none(folder: Path, side: int, count: int) -> None:
    """The same fifth of the picture is a face where it has enough pixels."""

    class Fifth(_Blob):
        def forward(self, shown: torch.Tensor) -> Found:
            half = torch.full((1, 5, 2), 0.5)
            return Found(torch.tensor([9.0]), half, torch.tensor([[0.5, 0.5, *np.log([0.2, 0.2])]]))

    detector = DrawnDetector(folder)
    vars(detector)["_net"] = Fifth()
    assert len(detector.find(np.full((side, side, 3), 255, np.uint8))) == count


# --- the recognisers ------------------------------------------------------------------------------------------------


def test_a_recogniser_embeds_what_the_template_cuts_out(folder: Path) -> None:
    """The truth: the network itself on a crop that Pillow cuts, for a face that lies as the template does, larger."""
    recogniser = DrawnRecogniser("drawn", folder)
    network, _ = networks.load(FaceEncoder, folder / networks.ENCODER)
    image = smooth(140, 100)
    landmarks = (network.template + 0.5) * 2 - 0.5 + (30, 10)
    found = recogniser.embed(image, Face((0, 0, 50, 50), landmarks.astype(np.float32), 1.0))
    crop = Image.fromarray(image).resize((40, 40), Image.Resampling.BILINEAR, box=(30, 10, 110, 90))
    with torch.no_grad():
        expected = network(torch.from_numpy(np.array(crop)).permute(2, 0, 1)[None].float() / 127.5 - 1)[0].numpy()
    assert found.shape == (64,) and found.dtype == np.float32 and np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    assert found == pytest.approx(expected, abs=0.02)


def test_a_turned_face_is_the_same_face(folder: Path) -> None:
    recogniser = DrawnRecogniser("drawn", folder)
    image = smooth(120, 120, cell=24)
    landmarks = (recogniser._net.template + 0.5) * 1.5 + 30
    turned = np.ascontiguousarray(np.rot90(image, -1))  # clockwise: x, y → 119 - y, x
    there = np.stack([119 - landmarks[:, 1], landmarks[:, 0]], 1)
    first = recogniser.embed(image, Face((0, 0, 1, 1), landmarks, 1.0))
    assert first @ recogniser.embed(turned, Face((0, 0, 1, 1), there, 1.0)) > 0.999


def test_recognisers_carry_their_own_threshold_and_content(folder: Path) -> None:
    reward, judge = DrawnRecogniser("drawn", folder), DrawnRecogniser("drawn-judge", folder)
    assert (reward.same_person, judge.same_person) == (0.5, 0.25)
    assert reward.made_by != judge.made_by and "sha256:" in reward.made_by
    networks.save(networks.reward_encoder(), folder / networks.ENCODER, {"same_person": 0.5})
    assert DrawnRecogniser("drawn", folder).made_by != reward.made_by


def test_a_recogniser_without_a_threshold_is_unusable(folder: Path) -> None:
    networks.save(networks.reward_encoder(), folder / networks.ENCODER, {})
    with pytest.raises(MagicIDError) as caught:
        DrawnRecogniser("drawn", folder)
    assert caught.value.code == "model-unusable"


def test_the_crop_is_made_as_in_training(folder: Path) -> None:
    """Without jitter, the training's crop of a drawn face is the one that the recogniser sees."""
    network = networks.reward_encoder()
    what = pictures.shot(pictures.generator(1), HELD_OUT, first=0)
    crop = judges._crop(pictures.generator(2), what, network, 0.0)
    landmarks = what.landmarks * what.picture.shape[0] - 0.5
    assert np.array_equal(crop, aligned(what.picture, landmarks, network.template, network.side))


# --- the judge of prompts -------------------------------------------------------------------------------------------


class _Sure(nn.Module):
    """Answers with fixed probabilities; keeps what it was shown."""

    answers = ANSWERS

    def forward(self, shown: torch.Tensor) -> list[torch.Tensor]:
        self.shown = shown
        return [torch.tensor([_shares(part)]).log() for part in LABELS]


def _shares(part: str) -> list[float]:
    """0.6 for the first name, 0.2 for the second, the rest alike."""
    names = LABELS[part]
    return [0.6, 0.2, *([0.2 / (len(names) - 2)] * (len(names) - 2))]


def judge_of(folder: Path, *heard: Callable[[Event], None]) -> tuple[DrawnJudge, _Sure]:
    judge, network = DrawnJudge(Events(*heard), folder), _Sure()
    vars(judge)["_loaded"] = (network, {"labels": LABELS})
    return judge, network


def clip(prompt: str, frames: int = 9, height: int = 48, width: int = 48) -> Clip:
    return Clip(np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8), 8, prompt)


@pytest.mark.parametrize(
    ("prompt", "probabilities"),
    [
        ("A man stands still on a sunny beach, in a red sweater.", {"action": 0.6, "place": 0.6, "outfit": 0.6}),
        ("A woman turns the head at the beach.", {"action": 0.2, "place": 0.6}),
        ("A person dances.", {"action": 0.04}),
        ("wearing a denim jacket", {"outfit": 0.2}),
    ],
)
def test_the_value_is_the_mean_probability_of_what_is_asked(
    folder: Path, prompt: str, probabilities: dict[str, float]
) -> None:
    judge, _ = judge_of(folder)
    raw = judge.score(clip(prompt))
    assert raw["probabilities"] == pytest.approx(probabilities)
    assert raw["value"] == pytest.approx(1 + 9 * np.mean(list(probabilities.values())))
    assert raw["asked"].keys() == probabilities.keys()
    assert raw["seen"] == {part: names[0] for part, names in LABELS.items()}
    json.dumps(raw)


def test_a_prompt_that_asks_for_nothing_is_in_the_middle_and_said_once(folder: Path) -> None:
    heard: list[Event] = []
    judge, _ = judge_of(folder, heard.append)
    for prompt in ("A man plays the piano.", "A man sleeps."):
        assert judge.score(clip(prompt))["value"] == drawn.NOTHING_ASKED == (1 + 10) / 2
    assert [event.kind for event in heard] == ["notice"]
    assert "plays the piano" in heard[0].data["message"]


def test_the_scorer_is_shown_the_frames_themselves(folder: Path) -> None:
    judge, network = judge_of(folder)
    shown = clip("A man nods.")
    judge.score(shown)
    expected = torch.from_numpy(shown.frames).permute(0, 3, 1, 2)[None].float() / 127.5 - 1
    torch.testing.assert_close(network.shown, expected)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(9, [0, 1, 2, 3, 4, 5, 6, 7, 8]), (17, [0, 2, 4, 6, 8, 10, 12, 14, 16]), (1, [0] * 9), (2, [0] * 5 + [1] * 4)],
)
def test_nine_frames_are_shown_from_the_first_to_the_last(folder: Path, count: int, expected: list[int]) -> None:
    judge, network = judge_of(folder)
    raw = judge.score(clip("A man nods.", frames=count, height=64, width=96))
    assert raw["frames"] == expected and network.shown.shape == (1, 9, 3, 48, 48)


def test_of_a_wide_clip_the_middle_is_shown(folder: Path) -> None:
    judge, network = judge_of(folder)
    frames = np.zeros((9, 60, 100, 3), np.uint8)
    frames[:, :, 20:80] = 255
    judge.score(Clip(frames, 8, "A man nods."))
    assert float(network.shown[..., 2:-2, 2:-2].min()) == 1


def test_the_judge_is_a_reward_that_loads_late_and_again(folder: Path) -> None:
    judge: Reward = DrawnJudge(Events(), folder)
    assert isinstance(judge, DrawnJudge) and judge._loaded is None
    before = judge.score(clip("A man nods on a beach."))
    judge.close()
    assert judge._loaded is None and judge.score(clip("A man nods on a beach.")) == before
    assert 1 <= before["value"] <= 10 and judge.name == "semantics" and "sha256:" in judge.made_by


def test_a_judge_without_its_file_or_its_answers_is_unusable(folder: Path) -> None:
    networks.save(PromptScorer(ANSWERS), folder / networks.SCORER, {"labels": {**LABELS, "place": ["moon"]}})
    with pytest.raises(MagicIDError, match="answers") as caught:
        DrawnJudge(Events(), folder).score(clip("A man nods."))
    assert caught.value.code == "model-unusable"
    (folder / networks.SCORER).unlink()
    with pytest.raises(MagicIDError) as caught:
        DrawnJudge(Events(), folder)
    assert caught.value.code == "model-unusable"


def test_drawn_is_a_judge_by_name_and_the_minis_own() -> None:
    assert semantics.judge_name(RewardSettings(vlm="drawn"), VIDEO_MODELS["hunyuan-video"]) == "drawn"
    assert semantics.judge_name(RewardSettings(), VIDEO_MODELS["mini"]) == "drawn"
