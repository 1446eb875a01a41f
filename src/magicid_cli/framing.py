"""Head and shoulders at the training aspect: what part of a photo the model is shown."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# How far the frame reaches from the face's centre, in half sides of the face box (which ends at chin and forehead):
# above it the hair, below it the chest, to the sides the shoulders.
UP, DOWN, SIDEWAYS = 2.2, 3.2, 3.2
# Of the height that a portrait frame has to spare, this share goes above the head.
_SPARE_ABOVE = 0.25
# A frame that is larger than the photo by less than this is tightened, below and at the sides, instead of filled up.
_TIGHTEST = 0.85


def head_and_shoulders(
    rgb: "np.ndarray", box: tuple[float, float, float, float], width: int, height: int
) -> "np.ndarray":
    """Cut head and shoulders out of a photo, at exactly the training size, without stretching.

    The frame is the face box grown by `UP`, `DOWN` and `SIDEWAYS`, then widened or heightened to the aspect. It is
    moved into the photo as far as the head allows. What still lies outside is filled with the mean colour of what is
    visible: mirrored or smeared edges would be content that the model learns.

    Args:
        rgb: uint8 `(H, W, 3)`.
        box: the face: x, y, width, height in pixels.
        width: of the result.
        height: of the result.

    Returns:
        uint8 `(height, width, 3)`.
    """
    import numpy as np
    from PIL import Image

    left, top, frame_width, frame_height = frame(rgb.shape[1], rgb.shape[0], box, width / height)
    columns = _visible(left, frame_width, rgb.shape[1], width)
    rows = _visible(top, frame_height, rgb.shape[0], height)
    source = columns.start, rows.start, columns.stop, rows.stop
    size = columns.target_stop - columns.target_start, rows.target_stop - rows.target_start
    seen = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS, box=source))
    result = np.empty((height, width, 3), np.uint8)
    result[:] = np.round(seen.mean((0, 1)))
    result[rows.target_start : rows.target_stop, columns.target_start : columns.target_stop] = seen
    return result


def frame(
    photo_width: int, photo_height: int, box: tuple[float, float, float, float], aspect: float
) -> tuple[float, float, float, float]:
    """The frame around a face: left, top, width, height in pixels of the photo; it may reach outside.

    Args:
        photo_width: in pixels.
        photo_height: in pixels.
        box: the face: x, y, width, height in pixels.
        aspect: width / height of the frame.
    """
    x, y, face_width, face_height = box
    centre_x, centre_y = x + face_width / 2, y + face_height / 2
    reach = SIDEWAYS * face_width / 2
    top, bottom = centre_y - UP * face_height / 2, centre_y + DOWN * face_height / 2
    width = max(2 * reach, aspect * (bottom - top))
    height = width / aspect
    fits = (photo_width / width, photo_height / height)
    tighter = min((fit for fit in fits if _TIGHTEST <= fit < 1), default=1.0)
    width, height, reach = tighter * width, tighter * height, tighter * reach
    bottom = top + tighter * (bottom - top)
    spare = height - (bottom - top)
    return (
        _moved(centre_x - width / 2, width, photo_width, centre_x - reach, centre_x + reach),
        _moved(top - _SPARE_ABOVE * spare, height, photo_height, top, bottom),
        width,
        height,
    )


def _moved(start: float, length: float, photo: float, first: float, last: float) -> float:
    """Move a frame along one axis into the photo, keeping what the photo has of `first` to `last` inside."""
    start = min(max(start, min(0.0, photo - length)), max(0.0, photo - length))
    return min(max(start, min(last, photo) - length), max(first, 0.0))


@dataclass(frozen=True)
class _Span:
    """The part of a frame, along one axis, that shows the photo: where it is there and in the result."""

    start: float
    stop: float
    target_start: int
    target_stop: int


def _visible(start: float, length: float, photo: int, target: int) -> _Span:
    scale = target / length
    target_start = min(max(0, round(-start * scale)), target - 1)
    target_stop = max(min(target, round((photo - start) * scale)), target_start + 1)
    # Back from whole pixels of the result, so that nothing is stretched.
    first, last = start + target_start / scale, start + target_stop / scale
    return _Span(max(0.0, first), min(float(photo), last), target_start, target_stop)
