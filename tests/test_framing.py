"""The frame around a head against hand arithmetic, and its promise: the head is inside, nothing is stretched."""

import numpy as np
import pytest

from magicid_cli.framing import DOWN, SIDEWAYS, UP, frame, head_and_shoulders
from pictures import smooth


def test_a_frame_in_a_large_photo_by_hand() -> None:
    # Face 40 x 50, centre (500, 400). Head and shoulders: up 2.2 · 25 = 55, down 3.2 · 25 = 80, sideways 3.2 · 20 = 64.
    # 135 high; at 16:10 that is 216 wide, more than 128, so it is widened evenly.
    assert frame(1000, 1000, (480, 375, 40, 50), 1.6) == pytest.approx((392, 345, 216, 135))
    # At 1:2 it is 128 wide and 256 high: of the 121 to spare a quarter goes above.
    assert frame(1000, 1000, (480, 375, 40, 50), 0.5) == pytest.approx((436, 345 - 121 / 4, 128, 256))


def test_a_frame_is_moved_into_the_photo() -> None:
    left, top, width, height = frame(1000, 1000, (10, 20, 40, 50), 1.6)
    assert (left, top) == (0, 0) and (width, height) == pytest.approx((216, 135))
    left, top, width, height = frame(1000, 1000, (960, 940, 40, 50), 1.6)
    assert (left + width, top + height) == pytest.approx((1000, 1000))


def test_a_frame_slightly_larger_than_the_photo_is_tightened_below_and_at_the_sides() -> None:
    # 135 high as above, the photo only 130: nothing is filled up, and the frame still begins above the hair.
    left, top, width, height = frame(1000, 130, (480, 30, 40, 50), 1.6)
    assert height == pytest.approx(130) and width == pytest.approx(208) and top == pytest.approx(0)


@pytest.mark.parametrize("size", [(544, 320), (320, 544), (64, 64)])
@pytest.mark.parametrize("photo", [(600, 400), (300, 900), (90, 80)])
def test_the_head_is_never_cut(size: tuple[int, int], photo: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        width, height = random.uniform(8, photo[0]), random.uniform(8, photo[1])
        x, y = random.uniform(-0.2, 1, 2) * (photo[0] - width / 2, photo[1] - height / 2)
        left, top, wide, high = frame(*photo, (x, y, width, height), size[0] / size[1])
        assert wide / high == pytest.approx(size[0] / size[1])
        # Half a face height above the face is hair, a third of its width beside it ears: what the photo has of them.
        head = x - width / 3, y - (UP - 1.2) / 2 * height, x + width * 4 / 3, y + height
        assert left <= max(head[0], 0) + 1e-6 and top <= max(head[1], 0) + 1e-6
        assert left + wide >= min(head[2], photo[0]) - 1e-6 and top + high >= min(head[3], photo[1]) - 1e-6


def test_pixels_are_where_the_frame_says_and_the_rest_is_the_mean_colour() -> None:
    photo = smooth(60, 120, cell=30)
    box = (20.0, 40.0, 20.0, 25.0)
    crop = head_and_shoulders(photo, box, 320, 160)
    left, top, width, height = frame(60, 120, box, 2.0)
    assert crop.shape == (160, 320, 3)
    scale = 320 / width
    first, last = round(-left * scale), round((60 - left) * scale)
    seen = crop[:, first:last]
    assert 0 < first < last < 320
    outside = np.concatenate([crop[:, :first], crop[:, last:]], 1)
    assert (outside == np.round(seen.mean((0, 1)))).all()
    # The pixel at column c, row r shows the photo at left + (c + 0.5) / scale, top + (r + 0.5) / scale.
    for column, row in ((first + 30, 40), (160, 80), (last - 30, 120)):
        x, y = left + (column + 0.5) / scale - 0.5, top + (row + 0.5) / scale - 0.5
        assert np.abs(crop[row, column].astype(int) - photo[round(y), round(x)]).max() <= 25


def test_a_face_that_fills_a_huge_photo_needs_no_huge_canvas() -> None:
    crop = head_and_shoulders(np.full((3000, 4000, 3), 77, np.uint8), (100, 100, 3800, 2800), 544, 320)
    assert crop.shape == (320, 544, 3) and (crop == 77).all()


def test_the_shoulders_reach_further_than_the_hair() -> None:
    assert DOWN > UP and SIDEWAYS > UP
