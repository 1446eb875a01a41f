"""Alignment against independent implementations, to 0.1 pixel: the closed solution in complex numbers (a similarity of
the plane is z → a·z + b, so least squares needs no decomposition), OpenCV's own for SFace, and dots painted where
landmarks are, found again in the crop.
"""

from itertools import product

import cv2
import numpy as np
import pytest

from magicid_cli.alignment import similarity
from magicid_cli.faces import CROP, TEMPLATE, align


def by_complex_numbers(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The best z → a·z + b without a reflection, as a (2, 3) matrix."""
    z, w = source[:, 0] + 1j * source[:, 1], target[:, 0] + 1j * target[:, 1]
    centred = z - z.mean()
    a = (centred.conj() @ (w - w.mean())) / (np.abs(centred) ** 2).sum()
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def placed(angle: float, size: float, corner: tuple[float, float]) -> np.ndarray:
    """The template's face, turned by degrees, scaled and moved."""
    turn = np.radians(angle)
    rotation = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (TEMPLATE - TEMPLATE.mean(0)) @ rotation.T + corner


PROFILE = np.array([[40.0, 52], [47, 51], [30, 70], [42, 92], [47, 91]])  # both eyes and both mouth corners together
CASES = {
    **{f"turned {angle}, times {size}": placed(angle, size, (400, 300)) for angle, size in product(
        (0, 17, 90, 135, 180, 271), (0.05, 1, 40))},
    "mirrored": TEMPLATE * (-1, 1) + (112, 0),
    "mirrored and turned": placed(200, 2, (80, 900)) * (-1, 1),
    "a profile": PROFILE,
    "a profile, mirrored": PROFILE * (-1, 1),
    "far from the origin": placed(30, 3, (1e5, -1e5)),
    "on a line": np.array([[0.0, 0], [10, 10], [20, 20], [30, 30], [40, 40]]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("noise", [0.0, 0.08])
def test_the_transform_is_the_one_of_complex_numbers(name: str, noise: float) -> None:
    source = CASES[name]
    spread = np.ptp(source)
    source = source + np.random.default_rng(1).normal(size=source.shape) * noise * spread
    matrix, expected = similarity(source, TEMPLATE), by_complex_numbers(source, TEMPLATE)
    apart = np.hypot(*((source @ (matrix - expected)[:, :2].T) + (matrix - expected)[:, 2]).T)
    assert apart.max() < 1e-4  # pixels of the crop
    assert np.linalg.det(matrix[:, :2]) > 0


def test_landmarks_in_one_place_do_not_blow_up() -> None:
    assert np.isfinite(similarity(np.full((5, 2), 7.0), TEMPLATE)).all()


def dots(landmarks: np.ndarray, radius: float, width: int, height: int) -> np.ndarray:
    """A picture, black but for a soft dot at every landmark, each in a place of its own in the channels."""
    y, x = np.mgrid[:height, :width]
    squares = [(x - px) ** 2 + (y - py) ** 2 for px, py in landmarks]
    light = sum(np.exp(-square / (2 * radius**2)) for square in squares)
    return np.repeat(np.round(np.clip(255 * light, 0, 255)).astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize(("angle", "size"), [(0, 1.0), (25, 0.4), (-40, 2.3), (170, 5.0), (90, 8.5)])
def test_landmarks_lie_on_the_template_in_the_crop(angle: float, size: float) -> None:
    """Also where a large face is shrunk first: the truth is the middle of the light of each dot in the crop."""
    landmarks = placed(angle, size, (520.3, 500.6))
    crop = align(dots(landmarks, 3 * size, 1040, 1000), landmarks)[..., 0].astype(np.float64)
    y, x = np.mgrid[:CROP, :CROP]
    for px, py in TEMPLATE:
        near = crop * ((x - px) ** 2 + (y - py) ** 2 < 8.5**2)
        middle = (near * x).sum() / near.sum(), (near * y).sum() / near.sum()
        assert np.hypot(middle[0] - px, middle[1] - py) < 0.1


@pytest.mark.parametrize("name", ["a profile", "turned 135, times 1"])
def test_the_crop_is_opencvs(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of its SFace recogniser, which estimates the transform itself."""
    from pictures import smooth
    from tiny_onnx import write_recogniser

    landmarks = (CASES[name] - CASES[name].min(0) + 90).astype(np.float32)
    image = smooth(400, 300, seed=5, cell=12)
    row = np.concatenate([[90, 90, 100, 100], landmarks.ravel(), [1]]).astype(np.float32)
    path = write_recogniser(tmp_path_factory.mktemp("sface") / "sface.onnx")
    expected = cv2.FaceRecognizerSF.create(str(path), "").alignCrop(np.ascontiguousarray(image[..., ::-1]), row)
    assert np.abs(align(image, landmarks).astype(int) - expected[..., ::-1]).max() <= 1
