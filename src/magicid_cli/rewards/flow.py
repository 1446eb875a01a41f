"""Optical flow between two frames, and the camera's part of it, by one of two estimators."""

import functools
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from magicid_cli.errors import MagicIDError
from magicid_cli.rewards.base import device_for
from magicid_cli.rewards.camera import camera_field


@dataclass(frozen=True, eq=False)
class Motion:
    """What moved between two frames.

    Attributes:
        flow: of everything, float32 `(H, W, 2)` in pixels.
        camera: the part that the camera explains, likewise.
    """

    flow: np.ndarray
    camera: np.ndarray


class Flow(Protocol):
    """An estimator.

    Attributes:
        made_by: which one, in which version; part of every stored score.
    """

    made_by: str

    def __call__(self, first: np.ndarray, second: np.ndarray) -> Motion:
        """Motion from one frame to the next, both uint8 RGB `(H, W, 3)`."""


RAFT, DIS = "raft", "dis"
AUTO = "auto"


@dataclass(frozen=True)
class Choice:
    """An estimator that was chosen.

    Attributes:
        name: `raft` or `dis`.
        why: the reason, for people.
    """

    name: str
    why: str

    def __str__(self) -> str:
        """The choice and its reason as part of a sentence."""
        return f"{self.name.upper()}, because {self.why}"


def choose(wanted: str, scored_by: str = "") -> Choice:
    """The estimator that the setting means; nowhere else is `auto` resolved.

    `auto` keeps the estimator that made the scores which are there, so that no repository is measured by two, nor
    once more because torchvision was installed later. Without scores it is RAFT where that can be used, else DIS.

    Args:
        wanted: `auto`, `raft` or `dis`.
        scored_by: `made_by` of the scores that a repository has, empty if it has none.
    """
    if wanted != AUTO:
        return Choice(wanted, f"--flow {wanted} asks for it")
    for name in (RAFT, DIS):
        if scored_by.startswith(name.upper()):
            return Choice(name, "it made the scores that are there")
    lack = raft_lack()
    return Choice(DIS, f"RAFT cannot be used: {lack.what}") if lack else Choice(RAFT, "it can be used here")


@dataclass(frozen=True)
class Lack:
    """What RAFT lacks on this machine.

    Attributes:
        what: for people.
        remedy: the commands that mend it, in magicid's own environment.
    """

    what: str
    remedy: str


def raft_lack() -> Lack | None:
    """What RAFT lacks on this machine, None if it can be used; torch is only loaded where torchvision is installed."""
    if not find_spec("torchvision"):
        return Lack("torchvision is not installed", f"{_install()} && {_FETCH}")
    import torch

    try:
        from torchvision.models import optical_flow
    # A torchvision of another build than torch raises RuntimeError while it is imported.
    except (ImportError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        remedy = f"python -m pip uninstall -y torchvision && {_install()} && {_FETCH}"
        return Lack(f"torchvision does not work ({reason})", remedy)
    weights = optical_flow.Raft_Large_Weights.C_T_V1
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    return None if file.is_file() else Lack(f"its weights {weights.url} are not at {file}", _FETCH)


# torchvision's own way to fetch them, into the folder where it looks for them.
_FETCH = (
    'python -c "from torchvision.models.optical_flow import Raft_Large_Weights as weights; '
    'weights.C_T_V1.get_state_dict(progress=True)"'
)


def _install() -> str:
    """How to get the torchvision that was built for the torch that is here: each release requires one of torch.

    A build that is not PyPI's has its mark in the version ("+cpu", "+cu126") and an index of its own.
    """
    torch = version("torch")
    build = torch.partition("+")[2]
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    return f'python -m pip install "torch=={torch}" torchvision{index}'


def require(name: str) -> None:
    """Refuse an estimator that cannot be used here.

    Raises:
        MagicIDError: `raft-missing`.
    """
    if name == RAFT and (lack := raft_lack()):
        raise MagicIDError(
            "raft-missing",
            f"RAFT is not available: {lack.what}.",
            f"Use the optical flow that needs no weights (--flow {DIS}), or get RAFT: {lack.remedy}",
        )


def made_by(name: str) -> str:
    """What an estimator's scores say of it; nothing is loaded."""
    return Raft.made_by if name == RAFT else Dis.made_by


def open_flow(name: str, device: str | None = None) -> Flow:
    """The estimator of a name: `dis` (OpenCV, no weights) or `raft` (torchvision with its weights).

    Args:
        name: of the estimator.
        device: what `--device` says, None for the GPU if there is one; only RAFT reads it.

    Raises:
        MagicIDError: `raft-missing`, `gpu-missing`.
    """
    return Raft(device) if name == RAFT else Dis()


class Dis:
    """OpenCV's dense inverse search (Kroeger et al. 2016), preset medium, with its guesses taken out.

    Where there is nothing to go by (plain walls, along straight edges, what leaves the picture or is covered), dense
    search still answers, at times with tens of pixels, and the mean of the largest 5 % collects just these answers. So
    a vector counts only if the search from the second frame back to the first agrees, and if it explains the picture
    better than the camera's motion does. Every other pixel moves as the camera does. Two frames that have little in
    common (a cut) have no motion.
    """

    made_by = f"DIS medium, both ways (OpenCV {cv2.__version__})"

    AGREEMENT, RELATIVE = 0.5, 0.02
    """The way there and back may miss its beginning by so many pixels; squared, plus this share of both ways squared.

    An arm that swings is never found to half a pixel: without the second part it counts for half of what it moves.
    """
    COMMON = 0.2
    """Least share of the picture where both ways agree. Across cuts between drawn scenes it is 0.04 (the largest of 40:
    0.17); in dances that went through the miniature's autoencoder, the worst that we have, 0.33 (the least: 0.21)."""
    WINDOW = 21
    """Side of the neighbourhood in which two explanations of a pixel are compared: plain sleeves have only edges."""
    BETTER = 2.0
    """A vector explains its neighbourhood if the camera's motion leaves this many times its squared error, and..."""
    NOISE = 2.0
    """... this much more, in squared grey levels: what H.264 does to a still picture."""

    def __init__(self) -> None:
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> Motion:
        """As the Protocol says."""
        one, two = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second))
        there, back = (
            np.asarray(self._search.calc(*pair, np.zeros((*one.shape, 2), np.float32)))
            for pair in ((one, two), (two, one))
        )
        trusted = self._agree(there, back)
        if trusted.mean() < self.COMMON:
            return Motion(np.zeros_like(there), np.zeros_like(there))
        camera = camera_field(there, trusted, one)
        told = self._unexplained(one, two, there), self._unexplained(one, two, camera)
        trusted &= told[1] > self.BETTER * told[0] + self.NOISE
        return Motion(np.where(trusted[..., None], there, camera), camera)

    def _agree(self, there: np.ndarray, back: np.ndarray) -> np.ndarray:
        """Where the way there and back ends where it began, inside the picture; bool `(H, W)`."""
        height, width = there.shape[:2]
        x, y = _targets(there)
        again = cv2.remap(back, x, y, cv2.INTER_LINEAR)
        inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        allowed = self.AGREEMENT**2 + self.RELATIVE * (_squared(there) + _squared(again))
        return inside & (_squared(there + again) < allowed)

    def _unexplained(self, one: np.ndarray, two: np.ndarray, flow: np.ndarray) -> np.ndarray:
        """Variance, in each neighbourhood, of what is left of the first frame when the second one is moved back.

        Of the variance, because a change of light is no motion.
        """
        moved = cv2.remap(two, *_targets(flow), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        left = cv2.subtract(one, moved, dtype=cv2.CV_32F)
        size = self.WINDOW, self.WINDOW
        return np.asarray(cv2.sqrBoxFilter(left, cv2.CV_32F, size) - cv2.blur(left, size) ** 2)


def _squared(flow: np.ndarray) -> np.ndarray:
    """Squared length of every vector, `(H, W)`."""
    return np.asarray(flow[..., 0] ** 2 + flow[..., 1] ** 2)


def _targets(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where every pixel goes: x and y, float32 `(H, W)`."""
    x, y = _pixels(*flow.shape[:2])
    return x + flow[..., 0], y + flow[..., 1]


@functools.lru_cache(4)
def _pixels(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]


class Raft:
    """RAFT large (Teed and Deng 2020) of torchvision as VBench uses it; nothing is downloaded here.

    Weights trained on FlyingChairs and FlyingThings3D, the authors' own, 20 updates. Its field is taken as it is.

    Args:
        device: what `--device` says: `auto`, `cuda` or `cpu`.

    Raises:
        MagicIDError: `raft-missing`, `gpu-missing`.
    """

    UPDATES = 20
    made_by = f"RAFT large C_T_V1 ({UPDATES} updates)"

    def __init__(self, device: str | None = None) -> None:
        require(RAFT)
        import torch
        from torchvision.models import optical_flow

        weights = optical_flow.Raft_Large_Weights.C_T_V1
        self._device = torch.device(device_for(device))
        net = optical_flow.raft_large()
        # The file is there, so nothing is fetched; torchvision publishes pickles: tensors only.
        net.load_state_dict(weights.get_state_dict(progress=False, weights_only=True))
        self._net = net.to(self._device).eval()

    def __call__(self, first: np.ndarray, second: np.ndarray) -> Motion:
        """As the Protocol says."""
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
        found = np.ascontiguousarray(flow.permute(1, 2, 0).cpu().numpy())
        everywhere = np.ones((height, width), bool)
        return Motion(found, camera_field(found, everywhere, cv2.cvtColor(first, cv2.COLOR_RGB2GRAY)))
