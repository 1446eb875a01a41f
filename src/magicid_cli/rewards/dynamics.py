"""How much a video moves: optical flow at a fixed working rate and size, so that only the motion counts.

VBench's statistic without its threshold: the mean of the largest 5 % of the flow's magnitudes, per pair of frames,
averaged over the pairs. Unit: pixels per 1/8 s, with the shorter side at 256 pixels.
"""

import math
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from magicid_cli.errors import MagicIDError
from magicid_cli.rewards.base import Clip

SHORT_SIDE = 256
RATE = 8.0
TOP_SHARE = 0.05


class _Flow(Protocol):
    """Optical flow between two frames, both uint8 RGB `(H, W, 3)` → `(H, W, 2)` in pixels."""

    made_by: str

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray: ...


class DynamicsReward:
    """Motion of a clip.

    Args:
        flow: `dis` (OpenCV, no weights) or `raft` (torchvision with its weights).

    Raises:
        MagicIDError: `raft-missing`.
    """

    name = "dynamics"

    def __init__(self, flow: str) -> None:
        self._flow: _Flow = _Raft() if flow == "raft" else _Dis()
        self.made_by = f"{self._flow.made_by}, short side {SHORT_SIDE}, {RATE:g} frames/s, top {TOP_SHARE:.0%}"

    def score(self, clip: Clip) -> dict[str, Any]:
        """Motion.

        Returns:
            `value`: pixels per 1/8 s (0 with fewer than two frames at the working rate); `pairs`: the same for every
            pair of frames; `stride`: frames between the two of a pair.
        """
        stride = stride_for(clip.fps)
        frames = [_resized(frame) for frame in clip.frames[::stride]]
        per_pair = [
            top_magnitude(self._flow(first, second)) * clip.fps / (RATE * stride)
            for first, second in zip(frames, frames[1:], strict=False)
        ]
        value = float(np.mean(per_pair)) if per_pair else 0.0
        return {"value": value, "pairs": [round(number, 4) for number in per_pair], "stride": stride}


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


class _Dis:
    """OpenCV's dense inverse search (Kroeger et al. 2016), preset medium."""

    made_by = f"DIS medium (OpenCV {cv2.__version__})"

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        flow = np.zeros((*first.shape[:2], 2), np.float32)
        return np.asarray(
            self._flow.calc(cv2.cvtColor(first, cv2.COLOR_RGB2GRAY), cv2.cvtColor(second, cv2.COLOR_RGB2GRAY), flow)
        )


class _Raft:
    """RAFT large (Teed and Deng 2020) of torchvision, 20 updates as VBench uses it; nothing is downloaded here."""

    UPDATES = 20

    def __init__(self) -> None:
        import torch

        try:
            from torchvision.models import optical_flow
        # A torchvision of another build than torch raises RuntimeError while it is imported.
        except (ImportError, RuntimeError) as error:
            raise _raft_missing(f"torchvision cannot be used: {str(error).splitlines()[0]}") from error
        weights = optical_flow.Raft_Large_Weights.C_T_SKHT_V2
        file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
        if not file.is_file():
            raise _raft_missing(f"its weights {weights.url} are not at {file}")
        self.made_by = f"RAFT large {weights.name} ({self.UPDATES} updates)"
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        net = optical_flow.raft_large()
        # The file is there, so nothing is fetched; torchvision publishes pickles: tensors only.
        net.load_state_dict(weights.get_state_dict(progress=False, weights_only=True))
        self._net = net.to(self._device).eval()

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        import torch

        height, width = first.shape[:2]
        padding = (0, -width % 8, 0, -height % 8)
        with torch.inference_mode():
            frames = [
                torch.nn.functional.pad(
                    torch.from_numpy(frame).to(self._device).permute(2, 0, 1)[None] / 127.5 - 1, padding, "replicate"
                )
                for frame in (first, second)
            ]
            flow = self._net(*frames, num_flow_updates=self.UPDATES)[-1][0, :, :height, :width]
        return flow.permute(1, 2, 0).cpu().numpy()


def _raft_missing(why: str) -> MagicIDError:
    return MagicIDError(
        "raft-missing", f"RAFT is not available: {why}.", "Use the optical flow that needs no weights: --flow dis"
    )
