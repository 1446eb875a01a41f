"""How much a video moves: optical flow at a fixed working rate and size, so that only the motion counts.

VBench's statistic without its threshold: the mean of the largest 5 % of the flow's magnitudes, per pair of frames,
averaged over the pairs. Unit: pixels per 1/8 s, with the shorter side at 256 pixels. The camera's part and what is left
without it are measured in the same way beside the whole.
"""

import math
from typing import Any

import cv2
import numpy as np

from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.flow import Flow, open_flow
from magicid_cli.rewards.flow import made_by as flow_made_by

SHORT_SIDE = 256
RATE = 8.0
TOP_SHARE = 0.05


class DynamicsReward:
    """Motion of a clip.

    Args:
        flow: `dis` (OpenCV, no weights) or `raft` (torchvision with its weights).
        device: what `--device` says, for `raft`: `auto`, `cuda` or `cpu`.

    Raises:
        MagicIDError: `raft-missing`, `gpu-missing`.
    """

    name = "dynamics"

    def __init__(self, flow: str, device: str | None = None) -> None:
        self._flow: Flow = open_flow(flow, device)
        self.made_by = made_by(flow)

    def score(self, clip: Clip) -> dict[str, Any]:
        """Motion.

        Returns:
            In pixels per 1/8 s, 0 with fewer than two frames at the working rate: `value` and `total`, of everything;
            `camera`, of the affine motion that most of the picture follows; `subject`, of what is left without it;
            `pairs` and `subject_pairs`: `total` and `subject` for every pair of frames. `stride`: frames between the
            two of a pair.
        """
        stride = stride_for(clip.fps)
        unit = clip.fps / (RATE * stride)
        frames = [_resized(frame) for frame in clip.frames[::stride]]
        rows = []
        for first, second in zip(frames, frames[1:], strict=False):
            motion = self._flow(first, second)
            fields = motion.flow, motion.camera, motion.flow - motion.camera
            rows.append([top_magnitude(field) * unit for field in fields])
        table = np.array(rows).reshape(-1, 3)
        total, camera, subject = table.mean(0).tolist() if rows else [0.0, 0.0, 0.0]
        return {
            "value": total,
            "total": total,
            "camera": camera,
            "subject": subject,
            "pairs": table[:, 0].round(4).tolist(),
            "subject_pairs": table[:, 2].round(4).tolist(),
            "stride": stride,
        }


def made_by(flow: str) -> str:
    """What the scores of this reward say of their making, by the name of the flow; nothing is loaded."""
    return f"{flow_made_by(flow)}, short side {SHORT_SIDE}, {RATE:g} frames/s, top {TOP_SHARE:.0%}"


def stride_for(fps: float) -> int:
    """The number of frames, at least 1, after which 1/8 s has passed most nearly (halves are rounded up)."""
    return max(1, math.floor(fps / RATE + 0.5))


def top_magnitude(flow: np.ndarray) -> float:
    """Mean length of the largest 5 % (at least one) of the vectors of a flow field `(H, W, 2)`."""
    lengths = np.hypot(flow[..., 0], flow[..., 1]).ravel()
    count = max(1, int(lengths.size * TOP_SHARE))
    return float(np.partition(lengths, -count)[-count:].mean(dtype=np.float64))


def _resized(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    size = max(SHORT_SIDE, round(width * scale)), max(SHORT_SIDE, round(height * scale))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
