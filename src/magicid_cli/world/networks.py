"""The small networks that judge the drawn world: where a face is, whose it is, and whether a clip shows its prompt.

They are pure functions of pictures: float32 RGB from -1 to 1. What turns a user's picture into that lives with the
interfaces they serve (`faces/drawn.py`, `rewards/drawn.py`), what trains them in `training/judges.py`. They know drawn
people only; about a photograph they say nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.memory_format import convert_conv2d_weight_memory_format

from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import atomic_path

WEIGHTS = Path(__file__).parent / "weights"
"""The trained networks that come with the package."""

FINDER, ENCODER, JUDGE, SCORER = (
    f"{name}.safetensors" for name in ("face_finder", "face_encoder", "face_judge", "prompt_scorer")
)

PICTURE = 64
"""Side of the picture that the finder sees, in pixels."""
CLIP = (9, 48)
"""Frames, and their side in pixels, of the clip that the scorer sees."""
EMBEDDING = 64
"""Length of a face's vector."""

# Where the landmarks of a person of middling looks lie on a face seen from the front, in units of the head's height
# from its centre: `world.figure` draws them there.
_FRONT = np.array([[-0.1625, -0.02], [0.1625, -0.02], [0.0, 0.125], [-0.112, 0.27], [0.112, 0.27]])


def seen(pixels: torch.Tensor) -> torch.Tensor:
    """What a network sees of a picture: uint8 RGB `(…, H, W, 3)` → float32 `(…, 3, H, W)` from -1 to 1."""
    return pixels.movedim(-1, -3).float() / 127.5 - 1


def _block(inputs: int, outputs: int, *, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()
    )


@dataclass(frozen=True)
class Found:
    """What the finder says about pictures, in units of a picture's side.

    Attributes:
        presence: (B,) logits that there is a face.
        landmarks: (B, 5, 2) x, y from the picture's upper left corner.
        box: (B, 4) the centre's x and y, and the natural logarithms of width and height.
    """

    presence: torch.Tensor
    landmarks: torch.Tensor
    box: torch.Tensor


class FaceFinder(nn.Module):
    """One face in a square picture: there is one person in a picture of the drawn world, by construction.

    Landmarks are the means of softmax maps over a grid of 2 pixels; presence and box come from the whole picture.

    Args:
        width: channels of the first layer.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.sizes: dict[str, Any] = {"width": width}
        self.by_2 = _block(3, width, stride=2)
        self.by_4 = nn.Sequential(_block(width, 2 * width, stride=2), _block(2 * width, 2 * width))
        self.by_8 = nn.Sequential(
            _block(2 * width, 3 * width, stride=2), _block(3 * width, 3 * width), _block(3 * width, 3 * width)
        )
        self.from_8 = nn.Conv2d(3 * width, 2 * width, 1)
        self.up_4 = _block(2 * width, 32)
        self.from_4 = nn.Conv2d(32, width, 1)
        self.up_2 = _block(width, 16)
        self.maps = nn.Conv2d(16, 5, 1)
        self.narrow = _block(3 * width, 16, kernel=1)
        self.whole = nn.Sequential(nn.Flatten(), nn.Linear(16 * (PICTURE // 8) ** 2, 64), nn.SiLU(), nn.Linear(64, 5))

    def forward(self, pictures: torch.Tensor) -> Found:
        """Look for the face in `(B, 3, 64, 64)`."""
        half = self.by_2(pictures)
        quarter = self.by_4(half)
        eighth = self.by_8(quarter)
        up = self.up_4(quarter + functional.interpolate(self.from_8(eighth), scale_factor=2.0))
        up = self.up_2(half + functional.interpolate(self.from_4(up), scale_factor=2.0))
        whole = self.whole(self.narrow(eighth))
        return Found(whole[:, 0], _centres(self.maps(up)), whole[:, 1:])


def _centres(maps: torch.Tensor) -> torch.Tensor:
    """The mean place under the softmax of each map: `(B, N, S, S)` → `(B, N, 2)` x, y in units of the side."""
    side = maps.shape[-1]
    weights = maps.flatten(2).softmax(-1).unflatten(2, (side, side))
    middles = (torch.arange(side, device=maps.device, dtype=maps.dtype) + 0.5) / side
    return torch.stack([weights.sum(2) @ middles, weights.sum(3) @ middles], -1)


class FaceEncoder(nn.Module):
    """An aligned face as a vector of length 1; cosines tell people apart.

    Args:
        channels: of the six convolutions.
        side: of the crop, in pixels.
        span: what the crop shows, in units of the head's height: hair, yes; clothes, no.
        top: its upper edge, in the same units from the head's centre.
    """

    def __init__(self, channels: list[int], side: int, span: float, top: float) -> None:
        super().__init__()
        if len(channels) != 6:
            raise ValueError(f"six convolutions are wanted, not {len(channels)}")
        self.sizes: dict[str, Any] = {"channels": channels, "side": side, "span": span, "top": top}
        self.side = side
        self.template = (_FRONT - (-span / 2, top)) * side / span - 0.5
        """(5, 2) x, y of the landmarks in the crop, in pixels."""
        strides = (1, 2, 1, 2, 1, 2)
        pairs = zip([3, *channels[:-1]], channels, strides, strict=True)
        self.layers = nn.Sequential(*(_block(first, second, stride=stride) for first, second, stride in pairs))
        self.last = nn.Linear(channels[-1] * (-(-side // 8)) ** 2, EMBEDDING)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """`(B, 3, side, side)` → `(B, 64)`."""
        return functional.normalize(self.last(self.layers(crops).flatten(1)))


def reward_encoder() -> FaceEncoder:
    """The untrained encoder of the identity reward."""
    return FaceEncoder([32, 48, 64, 96, 96, 96], side=40, span=1.4, top=-0.82)


def judging_encoder() -> FaceEncoder:
    """The untrained encoder of the evaluation: other widths and another crop, so that its errors are its own."""
    return FaceEncoder([24, 48, 56, 80, 112, 88], side=44, span=1.25, top=-0.68)


class PromptScorer(nn.Module):
    """What a clip shows, out of fixed lists: one action, one place, one outfit.

    Each frame is seen together with its difference to the one before; a convolution over time follows.

    Args:
        answers: how many actions, places and outfits there are.
        width: channels of the first layer.
    """

    def __init__(self, answers: list[int], width: int = 24) -> None:
        super().__init__()
        self.sizes: dict[str, Any] = {"answers": answers, "width": width}
        self.answers = answers
        self.frame = nn.Sequential(
            _block(6, width, stride=2),
            _block(width, 2 * width, stride=2),
            _block(2 * width, 3 * width, stride=2),
            _block(3 * width, 24, kernel=1),
            nn.Flatten(),
            nn.Linear(24 * (CLIP[1] // 8) ** 2, 96),
            nn.SiLU(),
        )
        self.over_time = nn.Sequential(
            nn.Conv1d(96, 128, 3, padding=1), nn.SiLU(), nn.Conv1d(128, 128, 3, padding=1), nn.SiLU()
        )
        self.action = nn.Linear(2 * 128, answers[0])
        self.others = nn.Linear(96, sum(answers[1:]))

    def forward(self, clips: torch.Tensor) -> list[torch.Tensor]:
        """`(B, 9, 3, 48, 48)` → the logits of actions, of places and of outfits, `(B, answers)` each."""
        moving, pictures = self.features(clips)
        return [self.action(moving), *self.others(pictures).split(self.answers[1:], 1)]

    def features(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(B, F, 3, 48, 48)` → what the answers are read from: of the motion `(B, 256)`, of the pictures `(B, 96)`."""
        change = torch.cat([torch.zeros_like(clips[:, :1]), clips[:, 1:] - clips[:, :-1]], 1)
        frames = self.frame(torch.cat([clips, change], 2).flatten(0, 1)).unflatten(0, clips.shape[:2])
        moving = self.over_time(frames.transpose(1, 2))
        return torch.cat([moving.mean(2), moving.amax(2)], 1), frames.mean(1)


Network = TypeVar("Network", bound=FaceFinder | FaceEncoder | PromptScorer)


def save(network: FaceFinder | FaceEncoder | PromptScorer, path: Path, facts: dict[str, Any]) -> None:
    """Write a network as float16, with a header that says what it is.

    Args:
        network: what is kept.
        path: a safetensors file; replaced as a whole.
        facts: what was measured about it, JSON-serialisable.

    Raises:
        ValueError: for weights that are not finite in float16.
    """
    from safetensors.torch import save_file

    tensors = {
        name: value.detach().cpu().half().contiguous()
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }
    wrong = sorted(name for name, value in tensors.items() if not value.isfinite().all())
    if wrong:
        raise ValueError(f"{wrong[0]} is not finite in float16")
    header = {
        "format": "pt",
        "network": type(network).__name__,
        "world": "drawn people only; RGB from -1 to 1; see magicid_cli/world/networks.py",
        "sizes": json.dumps(network.sizes),
        "facts": json.dumps(facts),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, header)


def load(kind: type[Network], path: Path) -> tuple[Network, dict[str, Any]]:
    """A trained network on the CPU in float32, for use only; and the facts that were saved with it.

    Args:
        kind: what the file must hold.
        path: the safetensors file.

    Raises:
        MagicIDError: `model-unusable` for a file that is missing, damaged or of another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118, no mapping
        if header.get("network") != kind.__name__:
            raise ValueError(f"it holds '{header.get('network', 'something unknown')}'")
        network, facts = kind(**json.loads(header["sizes"])), json.loads(header["facts"])
        wanted = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
        if {n: v.shape for n, v in wanted.items()} != {n: v.shape for n, v in tensors.items()}:
            raise ValueError("its tensors are not those of its header")
        if not all(bool(value.isfinite().all()) for value in tensors.values()):
            raise ValueError("its numbers are not finite")
        network.load_state_dict(tensors, strict=False)  # what lacks are counters of batches, used in training only
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise unusable(path, f"it is no {kind.__name__} of the drawn world: {error}") from error
    _hurried(network.eval().requires_grad_(False))
    return network, facts


def _hurried(network: nn.Module) -> None:
    """Let a network that learns nothing any more answer in two thirds of the time."""
    for block in [part for part in network.modules() if isinstance(part, nn.Sequential)]:
        first, second = block[0], block[1]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            # A convolution can do what a fixed normalisation does after it.
            block[0], block[1] = fuse_conv_bn_eval(first, second), nn.Identity()
    convert_conv2d_weight_memory_format(network, torch.channels_last)


def unusable(path: Path, why: str) -> MagicIDError:
    """The error for a file of the package that is not what it should be."""
    return MagicIDError(
        "model-unusable", f"{path.name} cannot be used: {why}.", "It comes with magicid: install magicid again."
    )
