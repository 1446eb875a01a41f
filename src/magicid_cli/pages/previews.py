"""Videos small enough to be put into a page: a poster, and a short preview that plays where the file cannot."""

import base64
import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from magicid_cli import video
from magicid_cli.workspace import atomic_path

if TYPE_CHECKING:
    import numpy as np

HEIGHT = 224
"""Pixels; of a smaller video its own height."""

_SECONDS = 4.0
_POSTER_HEIGHT = 144
_POSTER_QUALITY = 70


@dataclass(frozen=True)
class Preview:
    """A video made small.

    Attributes:
        poster: a frame of it, WebP.
        clip: its first seconds, mp4; empty where only the poster was wanted.
        width: of the poster, in pixels.
        height: of the poster.
    """

    poster: bytes
    clip: bytes
    width: int
    height: int


def make(path: Path, folder: Path, name: str, *, moving: bool = True) -> Preview:
    """The preview of a video, made once.

    Args:
        path: the video.
        folder: where previews are kept.
        name: of the preview's files there; it must change with the video's content.
        moving: whether a clip is wanted besides the poster.

    Raises:
        MagicIDError: as `video.read_video` and `video.write_video`.
    """
    poster, clip = folder / f"{name}.webp", folder / f"{name}.mp4"
    if not poster.is_file() or (moving and not clip.is_file()):
        frames, fps = video.read_video(path)
        with atomic_path(poster) as temporary:
            temporary.write_bytes(picture(frames[len(frames) // 2], _POSTER_HEIGHT))
        if moving:
            _shrink(frames[: max(1, round(_SECONDS * fps))], fps, clip)
    from PIL import Image

    with Image.open(poster) as shown:
        width, height = shown.size
    return Preview(poster.read_bytes(), clip.read_bytes() if moving else b"", width, height)


def keep(folder: Path, names: Collection[str]) -> None:
    """Remove the previews of videos that are gone: they still show the person."""
    for path in folder.glob("*.*"):
        if path.stem not in names:
            path.unlink(missing_ok=True)


def picture(rgb: "np.ndarray", height: int) -> bytes:
    """A picture `(H, W, 3)`, no higher than `height` pixels, as WebP."""
    from PIL import Image

    shown = Image.fromarray(rgb)
    shown.thumbnail((8 * height, height))
    file = io.BytesIO()
    shown.save(file, "WEBP", quality=_POSTER_QUALITY)
    return file.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a `data:` address.

    Args:
        content: the file.
        kind: its media type, such as `image/webp`.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _shrink(frames: "np.ndarray", fps: float, target: Path) -> None:
    import cv2
    import numpy as np

    height, width = frames.shape[1:3]
    factor = min(1.0, HEIGHT / height)
    size = tuple(max(2, 2 * round(side * factor / 2)) for side in (width, height))
    small = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    video.write_video(target, small, fps, quality=video.SMALL)
