"""Where a person is in a photo, drawn around the face by proportion; no segmentation, and no weights for one.

Magic-Me masks its loss with a segmentation of the person. Ours is an outline: an oval for head and hair, and below the
chin a body that widens to the shoulders and goes on to the lower edge. It is right for one upright person seen from the
front, which is what the photos are cropped to; raised hands lie outside it, and background beside the neck inside.
"""

import numpy as np
import torch

# In units of the face box's width and height, which reaches from forehead to chin: how far the head's oval reaches from
# the face's centre, with hair and ears; where the shoulders begin below the chin, and how far they reach sideways.
_HEAD_SIDEWAYS, _HEAD_UP, _HEAD_DOWN = 0.85, 1.0, 0.65
_NECK_SIDEWAYS, _SHOULDERS_BELOW, _SHOULDERS_SIDEWAYS = 0.55, 0.45, 1.7


def outline(height: int, width: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """The person's outline in a photo.

    Args:
        height: of the photo in pixels.
        width: of the photo in pixels.
        box: the face: x, y, width, height in pixels.

    Returns:
        float32 `(height, width)`, 1 inside and 0 outside.
    """
    left, top, face_width, face_height = box
    # Pixel centres, from the face's centre, in face widths and heights.
    x = (np.arange(width) + 0.5 - left - face_width / 2)[None] / face_width
    y = (np.arange(height) + 0.5 - top - face_height / 2)[:, None] / face_height
    reach = np.where(y < 0, _HEAD_UP, _HEAD_DOWN)
    head = (x / _HEAD_SIDEWAYS) ** 2 + (y / reach) ** 2 <= 1
    below_chin = y - 0.5
    widening = np.clip(below_chin / _SHOULDERS_BELOW, 0, 1)
    half = _NECK_SIDEWAYS + (_SHOULDERS_SIDEWAYS - _NECK_SIDEWAYS) * widening
    body = (below_chin >= 0) & (np.abs(x) <= half)
    return (head | body).astype(np.float32)


def at_latents(mask: np.ndarray, height: int, width: int) -> torch.Tensor:
    """A mask at the latents' resolution: the share of each latent's pixels that lies inside.

    Args:
        mask: float32 `(H, W)`.
        height: of the latents; divides `H`.
        width: of the latents; divides `W`.

    Returns:
        float32 `(height, width)`, on the CPU.
    """
    return torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(mask)[None], (height, width))[0]


def masked_error(target: torch.Tensor, prediction: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean squared error, weighted by the mask: `Σ m (target - prediction)² / Σ m` over all channels and frames.

    The mean over what counts, so that a person who fills less of the picture does not learn more slowly.

    Args:
        target: `(C, f, h, w)`.
        prediction: of the same shape.
        mask: `(h, w)` with a positive sum; None where everything counts alike.
    """
    squares = (target - prediction).square()
    if mask is None:
        return squares.mean()
    weights = mask.to(squares.device).expand_as(squares)
    return (weights * squares).sum() / weights.sum()
