"""What the judges of the drawn world are taught with, and how it is measured.

The truths: marks painted at known places (for parts of pictures), Pillow's resizing, hand arithmetic and brute force
over all pairs (for losses and figures), and a spy on the renderer for who was drawn.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from magicid_cli.alignment import square
from magicid_cli.world import clips, networks
from magicid_cli.world.networks import PromptScorer
from magicid_cli.world.people import HELD_OUT, TRAINED
from magicid_cli.world.training import judges, pictures, verification
from magicid_cli.world.training.judges import LABELS, EncoderTask, FinderTask, ScorerTask
from pictures import smooth

# --- parts of pictures ----------------------------------------------------------------------------------------------


def test_a_square_part_equals_pillows() -> None:
    image = smooth(200, 120)
    crop = square(image, np.array([30.0, 50.0]), 64.0, 96)
    box = (30, 50, 94, 114)
    expected = np.array(Image.fromarray(image).resize((96, 96), Image.Resampling.BILINEAR, box=box))
    assert np.abs(crop.astype(int) - expected)[2:-2, 2:-2].max() <= 2
    assert np.array_equal(square(image, np.zeros(2), 120.0, 120), image[:, :120])


def test_a_square_part_is_black_outside_the_picture() -> None:
    white = np.full((40, 80, 3), 255, np.uint8)
    crop = square(white, np.array([0.0, -20.0]), 80.0, 80)
    assert crop[:19].max() == crop[61:].max() == 0 and crop[21:59].min() == 255


def test_a_square_of_a_large_picture_does_not_alias() -> None:
    checks = np.repeat((np.indices((640, 640)).sum(0) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    crop = square(checks, np.zeros(2), 640.0, 64)
    assert np.abs(crop[2:-2, 2:-2].astype(int) - 127).max() < 20


def dotted(landmarks: np.ndarray, size: int = 90) -> np.ndarray:
    """Landmarks, in units of the side, as soft white dots on black."""
    y, x = np.indices((size, size)) + 0.5
    bright = sum(np.exp(-((x - u * size) ** 2 + (y - v * size) ** 2) / 8) for u, v in landmarks)
    return np.repeat((255 * np.clip(bright, 0, 1)).astype(np.uint8)[..., None], 3, 2)


def brightness_at(picture: np.ndarray, landmarks: np.ndarray) -> list[float]:
    places = np.floor(landmarks * len(picture)).astype(int)
    return [float(picture[y, x, 0]) for x, y in places]


LANDMARKS = np.array([[0.4, 0.3], [0.6, 0.32], [0.5, 0.42], [0.43, 0.55], [0.58, 0.56]])


def test_what_is_cropped_or_mirrored_keeps_its_landmarks() -> None:
    what = pictures.Shot(dotted(LANDMARKS), LANDMARKS, (0.3, 0.2, 0.4, 0.5))
    for changed in (
        pictures.cropped(what, (0.2, 0.1), 0.6, 64),
        pictures.cropped(what, (-0.3, -0.1), 1.4, 120),
        pictures.mirrored(what),
    ):
        assert min(brightness_at(changed.picture, changed.landmarks)) > 150
    assert pictures.cropped(what, (0.2, 0.1), 0.5, 64).box == pytest.approx((0.2, 0.2, 0.8, 1.0))
    mirrored = pictures.mirrored(what)
    assert mirrored.landmarks[0, 0] < mirrored.landmarks[1, 0] and mirrored.box == pytest.approx(what.box)
    assert np.array_equal(pictures.mirrored(mirrored).picture, what.picture)
    assert pictures.mirrored(mirrored).landmarks == pytest.approx(LANDMARKS)


def test_wear_differs_from_picture_to_picture_and_not_from_run_to_run() -> None:
    clean = np.stack([smooth(48, 48)] * 2)
    for number in range(20):
        worn = pictures.degraded(pictures.generator(number), clean)
        assert worn.dtype == np.uint8 and worn.shape == clean.shape
        assert 0 < np.abs(worn.astype(int) - clean).mean() < 40
        assert np.array_equal(worn, pictures.degraded(pictures.generator(number), clean))


def test_pictures_of_nobody_are_of_many_kinds() -> None:
    """Every sixteenth is one colour, an eighth has black bars; none shows a whole drawn head."""
    draw = pictures.generator(3)
    shown = [pictures.nobody(draw, HELD_OUT, first=0) for _ in range(150)]
    assert {(picture.shape, picture.dtype) for picture in shown} == {((192, 192, 3), np.dtype(np.uint8))}
    plain = [picture for picture in shown if picture[60:130, 60:130].std((0, 1)).max() == 0]
    barred = [p for p in shown if p[[0, -1]].max() == 0 != p[96].max() or p[:, [0, -1]].max() == 0 != p[:, 96].max()]
    assert 3 <= len(plain) <= 25 and 15 <= len(barred) <= 60


# --- loss and figures -----------------------------------------------------------------------------------------------


def at(*degrees: float) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angles.cos(), angles.sin()], 1)


def test_the_margin_loss_by_hand() -> None:
    """Two people at 0 and 90 degrees, their second crops 30 degrees further; s = 2, m = 10 degrees.

    Every crop is 30 degrees, with the margin 40, from its other half. The angles to the other person's two crops are
    (90, 120), (60, 90), (90, 60), (120, 90).
    """
    loss = verification.margin_loss(at(0, 90, 30, 120), torch.tensor([5, 8, 5, 8]), 2.0, float(np.deg2rad(10)))

    def row(*others: float) -> float:
        own = np.exp(2 * np.cos(np.deg2rad(40)))
        return float(-np.log(own / (own + sum(np.exp(2 * np.cos(np.deg2rad(angle))) for angle in others))))

    expected = np.mean([row(90, 120), row(60, 90), row(90, 60), row(120, 90)])
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_a_person_who_comes_twice_is_nobodys_stranger() -> None:
    vectors = at(0, 1, 90, 2, 3, 95)
    twice = verification.margin_loss(vectors, torch.tensor([1, 1, 2, 1, 1, 2]), 20.0, 0.0)
    taken_for_two = verification.margin_loss(vectors, torch.tensor([1, 3, 2, 1, 3, 2]), 20.0, 0.0)
    assert float(twice) < 1e-6 < 0.1 < float(taken_for_two)


def test_equal_and_opposite_crops_have_a_finite_gradient() -> None:
    for degrees in ((0, 90, 0, 90), (0, 90, 180, 270)):
        vectors = at(*degrees).float().requires_grad_()
        verification.margin_loss(vectors, torch.tensor([1, 2, 1, 2]), 20.0, 0.2).backward()
        assert vectors.grad is not None and vectors.grad.isfinite().all()


def test_auc_counts_all_pairs() -> None:
    draw = np.random.default_rng(0)
    own, strangers = draw.integers(0, 9, 40) / 8, draw.integers(0, 7, 50) / 8
    expected = np.mean([(a > b) + 0.5 * (a == b) for a in own for b in strangers])
    assert verification.auc(own, strangers) == pytest.approx(expected)
    assert verification.auc(np.array([0.9]), np.array([0.1, 0.2])) == 1


def test_pairs_are_of_one_person_or_of_two() -> None:
    vectors = np.repeat(np.eye(6)[:, None], 3, 1)  # person i is the i-th axis
    own, strangers = verification.pairs(vectors)
    assert own.tolist() == [1.0] * 6 * 3 and strangers.tolist() == [0.0] * 15


def test_thresholds_lie_between_a_person_and_others() -> None:
    vectors = np.repeat(np.eye(50)[:, None], 4, 1)
    vectors[7, 2] = (vectors[7, 2] + np.eye(50)[8]) / np.sqrt(2)  # one odd photo of 200
    low, high = verification.thresholds(vectors)
    assert 0.7 < low < 1 and high == pytest.approx(0, abs=0.05)


# --- the tasks ------------------------------------------------------------------------------------------------------

TASKS: dict[str, Callable[[judges.Codec | None], Any]] = {
    "finder": lambda codec: FinderTask(0, codec),
    "encoder": lambda codec: EncoderTask(0, networks.reward_encoder, codec),
    "scorer": lambda codec: ScorerTask(0, codec),
}


@pytest.fixture
def drawn_scenes(monkeypatch: pytest.MonkeyPatch) -> list[clips.Scene]:
    """Every scene that is drawn."""
    seen = []
    render = clips.render

    def spy(what: clips.Scene, **shape: Any) -> clips.Drawn:
        seen.append(what)
        return render(what, **shape)

    monkeypatch.setattr(clips, "render", spy)
    return seen


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_depends_on_its_step_alone(name: str, drawn_scenes: list[clips.Scene]) -> None:
    task = TASKS[name](None)
    first = task.batch(7)
    torch.rand(3)
    again, other = TASKS[name](None).batch(7), task.batch(8)
    assert all(torch.equal(first[key], again[key]) for key in first)
    key = next(iter(first))
    assert first[key].dtype == torch.uint8 and not torch.equal(first[key], other[key])
    assert {scene.person for scene in drawn_scenes} <= set(TRAINED)
    assert min(scene.seed for scene in drawn_scenes) >= pictures.SCENES


@pytest.mark.parametrize("name", TASKS)
def test_a_loss_reaches_every_weight_and_falls(name: str) -> None:
    task = TASKS[name](None)
    batch = task.batch(1)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=2e-3)
    losses = []
    for _ in range(4):
        loss = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    for part, value in task.model.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, part
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("name", "measure"), [("finder", "found"), ("encoder", "auc"), ("scorer", "worn_outfit")])
def test_figures_are_of_people_it_never_saw(name: str, measure: str, drawn_scenes: list[clips.Scene]) -> None:
    facts = TASKS[name](lambda frames: frames).evaluate(8)
    assert all(isinstance(value, float) and np.isfinite(value) for value in facts.values())
    assert 0 <= facts[measure] <= 1
    assert {scene.person for scene in drawn_scenes} <= set(HELD_OUT)
    assert max(scene.seed for scene in drawn_scenes) < pictures.SCENES


def test_a_saved_task_says_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = TASKS["scorer"](None)
    monkeypatch.setattr(task, "evaluate", lambda: {"action": 0.25})
    task.save(tmp_path / "one.safetensors")
    _, facts = networks.load(PromptScorer, tmp_path / "one.safetensors")
    assert facts == {"action": 0.25, "labels": LABELS}


def test_part_of_every_batch_went_through_the_codec() -> None:
    given = []

    def codec(frames: np.ndarray) -> np.ndarray:
        given.append(frames)
        return np.full_like(frames, 77)

    grey = {
        "finder": TASKS["finder"](codec).batch(0)["pictures"],
        "encoder": TASKS["encoder"](codec).batch(0)["second"],
        "scorer": TASKS["scorer"](codec).batch(0)["clips"],
    }
    for frames in given:
        assert frames.dtype == np.uint8 and frames.shape[1:] == (9, 48, 48, 3)
    # Squares that reach outside a frame are black there, so a part may be darker; nothing that is drawn is all grey.
    plain = {name: (batch.amax(-1) - batch.amin(-1)).flatten(1).amax(1) == 0 for name, batch in grey.items()}
    assert {name: int(which.sum()) for name, which in plain.items()} == {"finder": 18, "encoder": 9, "scorer": 8}


def test_a_frozen_clip_stands_still() -> None:
    frozen = total = 0
    for step in range(6):
        batch = TASKS["scorer"](None).batch(step)
        for clip, labels in zip(batch["clips"].float(), batch["labels"], strict=True):
            total += 1
            if (clip[1:] - clip[:1]).abs().mean() < 12 and (clip.mean((1, 2, 3)).diff().abs() < 0.3).all():
                frozen += 1
                assert LABELS["action"][int(labels[0])] in {"still", "nod", "turn", "wave"}
    assert 0.1 < frozen / total < 0.6
