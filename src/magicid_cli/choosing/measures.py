"""What one photo is like: where the head points, how the face is lit, what is behind it. Pure functions of pixels."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from magicid_cli.alignment import opencv
from magicid_cli.faces import TEMPLATE, similarity

# The landmarks in space, in pixels of `TEMPLATE` (35 of them are the distance of the pupils, about 63 mm): the nose tip
# stands 30 mm before the eyes, the corners of the mouth 3 mm.
_HEAD = np.column_stack([TEMPLATE, [0.0, 0.0, 17.0, 1.5, 1.5]])

# Parts of the face that can be hidden, as corners in an aligned face: brows to cheekbones, and all below the nose.
PARTS = {
    "eyes": np.array([[22, 36], [90, 36], [90, 64], [22, 64]], np.float64),
    "mouth": np.array([[22, 74], [90, 74], [90, 118], [22, 118]], np.float64),
}
_HIDDEN = (127, 127, 127)

# Rows and columns of an aligned face between brows and chin, where there is no hair and no background.
_SKIN = slice(36, 100), slice(30, 82)
_LUMA = np.array([0.299, 0.587, 0.114])
_WHITE = 250

# The same with brows, cheeks and chin: where detail is measured.
_FACE = slice(24, 104), slice(18, 94)
# Detail is what lies between two blurs, in pixels of an aligned face (standard deviations): fine detail, which a blur
# takes away first, and what there is of contrast at the scale of eyes, nose and mouth.
_FINE, _FEATURES = (1.25, 2.5), (2.5, 12.0)
# Noise is what this filter lets through: no slope and no straight edge (Immerkær 1996). White noise comes out 6 times.
_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_GAIN = 6.0
# More than the noise's own share is taken off, so that noise is never taken for sharpness.
_NOISE_COUNTS = 2.0

_SMALL = 96  # longest side of the picture whose background is described
_LEVELS = 4  # of each colour
_LEAST_SEEN = 0.05  # of the picture: with less beside the person there is no background to speak of


@dataclass(frozen=True)
class Pose:
    """Where a head points, in degrees as the viewer sees it; an estimate from five points and a head of middling shape.

    Attributes:
        yaw: turned to the right of the picture; negative to the left.
        pitch: raised; negative lowered.
        roll: tilted clockwise.
    """

    yaw: float
    pitch: float
    roll: float


def head_pose(landmarks: np.ndarray) -> Pose:
    """Estimate where a head points.

    The affine map that takes the head's points to the landmarks with the least squared error is replaced by the nearest
    two rows of a rotation, times a scale (a camera far away). A nose that is longer than most looks like a turn, and
    landmarks half a pixel off in a face of 100 pixels like several degrees.

    Args:
        landmarks: (5, 2) as in `faces.Face`.
    """
    head, points = _HEAD - _HEAD.mean(0), landmarks.astype(np.float64)
    affine = np.linalg.lstsq(head, points - points.mean(0), rcond=None)[0].T
    left, _, right = np.linalg.svd(affine, full_matrices=False)
    across, down = left @ right
    ahead = np.cross(across, down)
    # The rows of Rz(roll) · Ry(yaw) · Rx(pitch), with x to the right, y down and z towards the viewer.
    yaw = np.arcsin(np.clip(-ahead[0], -1, 1))
    pitch, roll = np.arctan2(ahead[1], ahead[2]), np.arctan2(down[0], across[0])
    return Pose(*np.degrees([yaw, pitch, roll]).round(1).tolist())


@dataclass(frozen=True)
class Light:
    """How a face is lit.

    Attributes:
        bright: the 95th percentile of its brightness, 0 to 255. Even the darkest skin has bright places in good light
            (the white of the eyes, highlights), so this tells little light from dark skin.
        blown_out: share of it that is white (brightness of 250 and more), 0 to 1.
    """

    bright: float
    blown_out: float


def light(aligned: np.ndarray) -> Light:
    """Measure the light on a face between brows and chin.

    Args:
        aligned: uint8 `(112, 112, 3)`, see `faces.align`.
    """
    brightness = aligned[_SKIN] @ _LUMA
    return Light(
        round(float(np.percentile(brightness, 95)), 1), round(float((np.round(brightness) >= _WHITE).mean()), 3)
    )


@dataclass(frozen=True)
class Detail:
    """How much of a face can be seen.

    Attributes:
        sharpness: fine detail (about 5 to 12 pixels of an aligned face) in percent of the contrast of the features.
            The same in little light, in low contrast and beside strong light from one side, and hardly more with noise.
        noise: its standard deviation in percent of the same contrast.
    """

    sharpness: float
    noise: float


def detail(aligned: np.ndarray) -> Detail:
    """Measure how sharp and how noisy a face is.

    Args:
        aligned: uint8 `(112, 112, 3)`, see `faces.align`.
    """
    grey = (aligned @ _LUMA).astype(np.float32)
    through = np.abs(opencv().filter2D(grey, -1, _LAPLACIANS)[_FACE])
    noise = float(np.median(through)) / 0.6745 / _GAIN  # the median leaves edges out; 0.6745 is a normal one's
    fine = float((_between(grey, *_FINE)[_FACE] ** 2).mean()) - _NOISE_COUNTS * _share_of_noise() * noise**2
    contrast = float(np.sqrt((_between(grey, *_FEATURES)[_FACE] ** 2).mean()))
    if contrast < 1.0:  # less than a step of brightness: a blank
        return Detail(0.0, 0.0)
    return Detail(round(100 * max(0.0, fine) ** 0.5 / contrast, 1), round(100 * noise / contrast, 1))


def _between(grey: np.ndarray, near: float, far: float) -> np.ndarray:
    """What a blur by `far` takes away and one by `near` leaves, in pixels."""
    blur = opencv().GaussianBlur
    difference: np.ndarray = blur(grey, (0, 0), near) - blur(grey, (0, 0), far)
    return difference


@cache
def _share_of_noise() -> float:
    """The variance of white noise of variance 1 in what is measured as fine detail."""
    point = np.zeros((61, 61), np.float32)
    point[30, 30] = 1
    return float((_between(point, *_FINE) ** 2).sum())


def without(rgb: np.ndarray, landmarks: np.ndarray, part: str) -> np.ndarray:
    """A copy of a picture in which one of `PARTS` of a face is painted over in grey."""
    back = similarity(TEMPLATE, landmarks)
    corners = PARTS[part] @ back[:, :2].T + back[:, 2]
    painted = rgb.copy()
    opencv().fillConvexPoly(painted, np.round(corners * 16).astype(np.int32), _HIDDEN, opencv().LINE_AA, shift=4)
    return painted


def background(rgb: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray | None:
    """The colours beside and above a person, whatever their places: how much there is of each of 64.

    Head and shoulders are left out by the face's box, not by their outline. Distances between two of these vectors are
    Hellinger's, 0 (the same colours) to 1 (no colour in common).

    Args:
        rgb: uint8 `(H, W, 3)`.
        box: the face: x, y, width, height in pixels.

    Returns:
        float64 `(64,)`, or None if the person fills the picture.
    """
    cv2 = opencv()
    scale = min(1.0, _SMALL / max(rgb.shape[:2]))
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    seen = small[_beside(small.shape[0], small.shape[1], np.array(box) * scale)].astype(np.float64)
    if len(seen) < _LEAST_SEEN * small.shape[0] * small.shape[1]:
        return None
    # Each pixel counts for the eight colours around its own, so that a little more light moves it a little.
    place = seen / 255 * (_LEVELS - 1)
    low = np.minimum(place.astype(int), _LEVELS - 2)
    above = place - low
    colours = np.zeros((_LEVELS,) * 3)
    for corner in np.ndindex(2, 2, 2):
        share = np.where(corner, above, 1 - above).prod(1)
        np.add.at(colours, tuple((low + corner).T), share)
    amounts: np.ndarray = np.sqrt(colours.ravel() / len(seen) / 2)
    return amounts


def _beside(height: int, width: int, box: np.ndarray) -> np.ndarray:
    """Which pixels are beside and above a person: not the head's column, nor the shoulders' below it."""
    x, y, face_width, face_height = box
    across = np.abs(np.arange(width) + 0.5 - (x + face_width / 2))[None, :]
    down = (np.arange(height) + 0.5)[:, None]
    head = (across < 1.1 * face_width) & (down > y - 0.6 * face_height)
    shoulders = (across < 2.2 * face_width) & (down > y + 1.1 * face_height)
    seen: np.ndarray = ~(head | shoulders)
    return seen
