"""Faces against reference implementations (OpenCV's own alignment and transform estimation, numpy arithmetic of a tiny
network) and the real detector on a real photo.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from magicid_cli import faces
from magicid_cli.config import RewardSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.faces import Face, OnnxRecogniser, StandInDetector, StandInRecogniser, YuNet, align, similarity
from magicid_cli.models.catalog import FACE_MODELS, VIDEO_MODELS
from pictures import smooth
from tiny_onnx import write_classifier, write_recogniser


@pytest.fixture
def astronaut(shared_data: Path) -> np.ndarray:
    return np.array(Image.open(shared_data / "astronaut.png").convert("RGB"))


@pytest.fixture
def yunet(shared_data: Path) -> YuNet:
    return YuNet(shared_data / "face_detection_yunet.onnx", "yunet test")


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def test_similarity_recovers_an_exact_transform() -> None:
    angle, scale, shift = 0.7, 1.9, np.array([12.0, -5.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    source = np.random.default_rng(0).normal(size=(5, 2)) * 40
    expected = np.column_stack([turn, shift])
    assert similarity(source, source @ turn.T + shift) == pytest.approx(expected, abs=1e-9)
    reference, _ = cv2.estimateAffinePartial2D(source, source @ turn.T + shift)
    assert similarity(source, source @ turn.T + shift) == pytest.approx(reference, abs=1e-5)


def test_similarity_never_mirrors() -> None:
    source = np.random.default_rng(0).normal(size=(5, 2))
    matrix = similarity(source, source * (-1, 1))[:, :2]
    assert np.linalg.det(matrix) > 0


def test_similarity_is_the_least_squares_solution() -> None:
    # The best s·R = [[a, -b], [b, a]] and t solve a linear least-squares problem in (a, b, tx, ty).
    random = np.random.default_rng(2)
    source, target = random.normal(size=(5, 2)) * 30, random.normal(size=(5, 2)) * 30
    rows = [row for x, y in source for row in ((x, -y, 1, 0), (y, x, 0, 1))]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), target.ravel(), rcond=None)[0]
    assert similarity(source, target) == pytest.approx(np.array([[a, -b, tx], [b, a, ty]]), abs=1e-9)


def test_alignment_equals_opencv(astronaut: np.ndarray, yunet: YuNet, tmp_path: Path) -> None:
    face = yunet.find(astronaut)[0]
    row = np.concatenate([face.box, face.landmarks.ravel(), [face.score]]).astype(np.float32)
    reference = cv2.FaceRecognizerSF.create(str(write_recogniser(tmp_path / "sface.onnx")), "")
    expected = reference.alignCrop(np.ascontiguousarray(astronaut[..., ::-1]), row)[..., ::-1]
    assert np.abs(align(astronaut, face.landmarks).astype(int) - expected).max() <= 1


def test_alignment_of_a_large_face_does_not_alias(astronaut: np.ndarray, yunet: YuNet) -> None:
    landmarks = yunet.find(astronaut)[0].landmarks
    small = align(astronaut, landmarks)
    factor = 6
    large = resized(astronaut, 512 * factor, 512 * factor)
    # A pattern of single pixels that no 112-pixel crop can show; sampled every sixth pixel it would.
    large[::2, ::2] = np.clip(large[::2, ::2].astype(int) + 60, 0, 255)
    large[1::2, 1::2] = np.clip(large[1::2, 1::2].astype(int) - 60, 0, 255)
    crop = align(large, (landmarks + 0.5) * factor - 0.5)
    assert np.abs(crop.astype(int) - small).mean() < 7  # 19 when it is sampled directly


def test_yunet_finds_the_face_where_it_is(astronaut: np.ndarray, yunet: YuNet) -> None:
    found = yunet.find(resized(astronaut, 640, 640))
    assert len(found) == 1 and found[0].score > 0.9
    assert found[0].box == pytest.approx((226, 67, 115, 155), abs=3)


@pytest.mark.parametrize("size", [(128, 128), (512, 512), (3000, 3000), (501, 517)])
def test_yunet_answers_in_pixels_of_the_picture(astronaut: np.ndarray, yunet: YuNet, size: tuple[int, int]) -> None:
    face = yunet.find(resized(astronaut, *size))[0]
    eyes_nose_mouth = [(204, 103.5), (247.5, 104.5), (224, 127.5), (203.5, 143), (243, 143.5)]
    assert face.landmarks / (np.array(size) / 512) == pytest.approx(np.array(eyes_nose_mouth), abs=8)
    assert face.side == min(face.box[2:])


def test_yunet_looks_closer_before_it_gives_up(astronaut: np.ndarray, yunet: YuNet) -> None:
    # A face of 9 pixels at the usual working size, and one that fills its picture.
    wide = np.full((1200, 4000, 3), 128, np.uint8)
    wide[400:800, 1000:1400] = resized(astronaut, 400, 400)
    face = yunet.find(wide)[0]
    assert 1000 < face.box[0] < 1400 and 400 < face.box[1] < 800
    assert yunet.find(resized(astronaut[60:185, 165:285], 1152, 1200))


def inside(portrait: np.ndarray, truth: Face, side: float, width: int, height: int) -> tuple[np.ndarray, Face]:
    """A frame with the portrait so small that its face is `side` pixels wide, and where the face then is."""
    pixels = round(len(portrait) * side / truth.side)
    factor = pixels / len(portrait)
    frame = smooth(width, height, seed=3, cell=90) // 3 + 90
    x, y = width // 2 - pixels // 3, max(0, height // 2 - pixels // 2)
    part = resized(portrait, pixels, pixels)[: height - y, : width - x]
    frame[y : y + part.shape[0], x : x + part.shape[1]] = part
    left, top, wide, high = (edge * factor for edge in truth.box)
    landmarks = (truth.landmarks + 0.5) * factor + (x, y) - 0.5
    return frame, Face((left + x, top + y, wide, high), landmarks, 1.0)


def overlap(one: Face, other: Face) -> float:
    """Intersection over union."""
    (left, top, width, height), (x, y, wide, high) = one.box, other.box
    across = min(left + width, x + wide) - max(left, x)
    down = min(top + height, y + high) - max(top, y)
    shared = max(0, across) * max(0, down)
    return shared / (one.area + other.area - shared)


@pytest.mark.parametrize("side", [10, 14, 20, 30, 50, 100, 200, 300])
@pytest.mark.parametrize("size", [(1280, 720), (544, 320)])
def test_faces_of_every_size_are_found_where_they_are(
    astronaut: np.ndarray, yunet: YuNet, size: tuple[int, int], side: int
) -> None:
    """The truth: the same portrait's face where it is large and clear, scaled with the portrait."""
    if side > 0.5 * size[1]:
        pytest.skip("it would not be in the frame as a whole")
    # The mean of four cuts: one alone is off by a twentieth of the eyes' distance.
    cuts = [(x, height) for x in (0, 27) for height in (400, 470)]
    looks = [(yunet.find(astronaut[:height, x : x + height])[0], x) for x, height in cuts]
    box = np.mean([np.add(face.box, (x, 0, 0, 0)) for face, x in looks], 0).tolist()
    landmarks = np.mean([face.landmarks + (x, 0) for face, x in looks], 0)
    frame, truth = inside(astronaut, Face(tuple(box), landmarks, 1.0), side, *size)
    (found,) = yunet.find(frame)
    assert overlap(found, truth) > 0.7
    eyes = np.linalg.norm(truth.landmarks[1] - truth.landmarks[0])
    errors = np.linalg.norm(found.landmarks - truth.landmarks, axis=1) / eyes
    # Of ten pixels the eyes are five apart: 0.15 of that would be less than a pixel.
    assert errors.mean() < (0.15 if side > 10 else 0.22), errors


def test_a_close_up_is_found_beside_a_small_face(astronaut: np.ndarray, yunet: YuNet) -> None:
    """A look that finds the small one alone would make it the person."""
    frame = np.full((720, 1280, 3), 120, np.uint8)
    frame[:, :700] = resized(astronaut[55:178, 165:285], 700, 720)
    frame[20:220, 1050:1250] = resized(astronaut, 200, 200)
    found = yunet.find(frame)
    assert len(found) == 2 and found[0].side > 350 and found[1].side < 60
    assert found[0].box[0] < 300 and found[1].box[0] > 1050


def test_yunet_finds_nothing_where_nothing_is(yunet: YuNet) -> None:
    assert yunet.find(np.full((300, 200, 3), 90, np.uint8)) == []
    assert yunet.find(smooth(300, 200)) == []


def test_several_faces_come_largest_first(astronaut: np.ndarray, yunet: YuNet) -> None:
    both = np.concatenate([np.pad(resized(astronaut, 300, 300), ((0, 212), (0, 0), (0, 0))), astronaut], 1)
    found = yunet.find(both)
    assert len(found) == 2 and found[0].area > 2 * found[1].area and found[0].box[0] > 300


def network(path: Path) -> list[np.ndarray]:
    import onnx

    return [onnx.numpy_helper.to_array(tensor).astype(np.float64) for tensor in onnx.load(path).graph.initializer]


@pytest.mark.parametrize(("kind", "scale", "mean"), [("sface", 1.0, 0.0), ("arcface", 1 / 127.5, 127.5)])
def test_a_recogniser_computes_what_numpy_computes(tmp_path: Path, kind: str, scale: float, mean: float) -> None:
    path = write_recogniser(tmp_path / "Gesichter 顔" / "tiny.onnx")
    recogniser = OnnxRecogniser(path, kind, name="tiny", made_by="tiny")
    image, face = smooth(112, 112), Face((0, 0, 112, 112), faces.TEMPLATE.astype(np.float32), 1.0)
    filters, mixing = network(path)
    values = (image.astype(np.float64) - mean) * scale
    patches = values.reshape(16, 7, 16, 7, 3)
    expected = np.einsum("rycxk,fkyx->frc", patches, filters).ravel() @ mixing
    embedding = recogniser.embed(image, face)
    assert embedding.dtype == np.float32 and embedding.shape == (128,)
    assert embedding == pytest.approx(expected / np.linalg.norm(expected), abs=1e-4)


@pytest.mark.parametrize("content", ["classifier", "text", "empty", "detector"])
def test_what_is_no_recogniser_is_refused(
    tmp_path: Path, content: str, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file.onnx"
    if content == "classifier":
        write_classifier(path)
    elif content == "detector":
        path = request.getfixturevalue("shared_data") / "face_detection_yunet.onnx"
    else:
        path.write_bytes(b"no network" * 10 if content == "text" else b"")
    with pytest.raises(MagicIDError) as caught:
        OnnxRecogniser(path, "arcface", name="x", made_by="x")
    assert caught.value.code == "face-model-unusable" and caught.value.exit_code == 5
    assert capfd.readouterr().err == ""


def test_what_is_no_detector_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MagicIDError) as caught:
        YuNet(write_recogniser(tmp_path / "recogniser.onnx"), "x")
    assert caught.value.code == "face-model-unusable"
    assert capfd.readouterr().err == ""


def test_a_working_detector_is_silent(shared_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    YuNet(shared_data / "face_detection_yunet.onnx", "x").find(smooth(64, 64))
    assert capfd.readouterr().err == ""


def test_the_stand_ins_take_the_middle_of_any_picture() -> None:
    image = smooth(300, 200)
    (face,) = StandInDetector().find(image)
    assert face.box == (100.0, 50.0, 100.0, 100.0)
    # Aligned, it is the centred square of 200 pixels, shrunk.
    expected = np.array(Image.fromarray(image[:, 50:250]).resize((112, 112), Image.Resampling.BILINEAR))
    assert np.abs(align(image, face.landmarks).astype(int) - expected)[2:-2, 2:-2].mean() < 2


def test_the_stand_in_recogniser_is_fixed_and_tells_pictures_apart() -> None:
    pictures = [smooth(128, 128, seed) for seed in range(6)]
    face = StandInDetector().find(pictures[0])[0]
    embeddings = np.array([StandInRecogniser().embed(picture, face) for picture in pictures])
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(6), abs=1e-5)
    cosines = embeddings @ embeddings.T - np.eye(6)
    assert np.abs(cosines).max() < 0.7
    again = StandInRecogniser().embed(np.clip(pictures[0].astype(int) + 10, 0, 255).astype(np.uint8), face)
    assert again @ embeddings[0] > 0.98


@dataclass(frozen=True)
class Fetched:
    path: Path
    commit: str


@pytest.fixture
def hub_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    """A hub that gives a tiny recogniser for every name; what it was asked for."""
    asked: list[tuple[str, str, bool]] = []
    path = write_recogniser(tmp_path / "fetched.onnx")

    def fetch(source: Any, file: str, *, offline: bool, events: Events) -> Fetched:
        asked.append((source.repo, file, offline))
        return Fetched(path, "c0ffee")

    monkeypatch.setattr(faces.hub, "fetch_file", fetch)
    return asked


def opened(model: str, events: Events | None = None, **rewards: Any) -> faces.Faces:
    return faces.open_faces(RewardSettings(**rewards), VIDEO_MODELS[model], offline=False, events=events or Events())


def test_auto_means_what_the_catalog_names(hub_with: list[tuple[str, str, bool]]) -> None:
    tiny = opened("tiny")
    assert tiny.detector.name == tiny.recogniser.name == "stand-in"
    assert "stand-in" in tiny.detector.made_by and "random projection" in tiny.recogniser.made_by
    assert hub_with == []
    large = opened("hunyuan-video", face_detector="stand-in")
    assert large.recogniser.name == "sface"
    assert large.recogniser.made_by == "sface c0ffee (Apache-2.0)"
    assert hub_with == [("opencv/face_recognition_sface", "face_recognition_sface_2021dec.onnx", False)]


def test_a_licence_is_shown_when_a_recogniser_is_asked_for(hub_with: list[tuple[str, str, bool]]) -> None:
    heard: list[Event] = []
    opened("hunyuan-video", Events(heard.append), face_detector="stand-in")
    assert heard == []
    for name in ("auraface", "antelopev2", "buffalo_l"):
        heard.clear()
        found = opened("tiny", Events(heard.append), face_model=name)
        licence = FACE_MODELS[name].source.licence
        assert found.recogniser.name == name and licence in found.recogniser.made_by
        assert licence in heard[0].data["message"]
        assert ("must not be used commercially" in heard[0].data["message"]) == (name != "auraface")


def judging(model: str, **rewards: Any) -> faces.Faces:
    settings = RewardSettings(face_detector="stand-in", **rewards)
    return faces.open_evaluation_faces(settings, VIDEO_MODELS[model], offline=False, events=Events())


@pytest.mark.parametrize(
    ("model", "reward", "expected"),
    [
        ("hunyuan-video", "auto", "auraface"),
        ("hunyuan-video", "buffalo_l", "auraface"),
        ("hunyuan-video", "auraface", "sface"),
        ("tiny", "auto", "stand-in-judge"),
        ("tiny", "stand-in-judge", "stand-in"),
    ],
)
def test_results_are_judged_by_another_recogniser_than_the_rewards(
    hub_with: list[tuple[str, str, bool]], model: str, reward: str, expected: str
) -> None:
    assert judging(model, face_model=reward).recogniser.name == expected


def test_no_model_is_judged_by_the_recogniser_that_rewarded_it() -> None:
    assert all(model.evaluation_face_model != model.face_model for model in VIDEO_MODELS.values())
    picture = smooth(96, 96)
    (face,) = StandInDetector().find(picture)
    one, other = StandInRecogniser(), StandInRecogniser("stand-in-judge")
    assert abs(float(one.embed(picture, face) @ other.embed(picture, face))) < 0.5


def test_the_rewards_own_recogniser_is_refused_as_a_judge(tmp_path: Path) -> None:
    """By name, as what `auto` stands for, and as a copy of the same file."""
    first = write_recogniser(tmp_path / "one.onnx")
    copy = write_recogniser(tmp_path / "copy.onnx")
    for reward, judge in (("auto", "sface"), ("auraface", "auraface"), (str(first), str(copy))):
        with pytest.raises(MagicIDError) as caught:
            judging("hunyuan-video", face_model=reward, evaluation_face_model=judge)
        assert caught.value.code == "settings-invalid" and "evaluation_face_model" in caught.value.hint
    other = write_recogniser(tmp_path / "other.onnx", seed=1)
    chosen = judging("hunyuan-video", face_model=str(first), evaluation_face_model=str(other))
    assert chosen.recogniser.name == "other.onnx"


def test_an_own_file_is_named_by_its_content(tmp_path: Path) -> None:
    path = write_recogniser(tmp_path / "eigenes Gesicht.onnx", dimensions=512)
    heard: list[Event] = []
    found = opened("tiny", Events(heard.append), face_model=str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.recogniser.made_by == f"eigenes Gesicht.onnx sha256:{digest[:16]} (licence unknown)"
    assert str(tmp_path) not in heard[0].data["message"] and "licence" in heard[0].data["message"]
    face = StandInDetector().find(smooth(64, 64))[0]
    assert found.recogniser.embed(smooth(64, 64), face).shape == (512,)


@pytest.mark.parametrize(
    ("name", "code"), [("nosuchmodel", "face-model-missing"), ("/no/such.onnx", "face-model-missing"),
                       ("yunet", "settings-unknown")]
)  # fmt: skip
def test_a_name_that_is_no_recogniser_is_refused_with_the_names(name: str, code: str) -> None:
    with pytest.raises(MagicIDError) as caught:
        opened("tiny", face_model=name)
    assert caught.value.code == code and "auraface" in caught.value.hint


def test_the_detector_comes_from_the_hub(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = Fetched(shared_data / "face_detection_yunet.onnx", "abc")
    monkeypatch.setattr(faces.hub, "fetch_file", lambda *_, **__: fetched)
    detector = opened("tiny", face_detector="yunet").detector
    assert detector.name == "yunet" and detector.made_by == "yunet abc (MIT), sides 640+320/1280/160"
