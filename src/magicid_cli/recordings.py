"""The videos of a repository as they are on disk now: those that are recorded, and files that nobody recorded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from magicid_cli import video
from magicid_cli.config import ShapeSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import Workspace, file_digest, read_lines


@dataclass(frozen=True)
class Video:
    """A recorded video.

    Attributes:
        id: its name.
        prompt: what it should show.
        clip: the file.
        content: SHA-256 of the file, empty if there is none.
        sampled: SHA-256 of the file that was sampled, None where the record does not say.
    """

    id: str
    prompt: str
    clip: Path
    content: str
    sampled: str | None

    @property
    def whole(self) -> bool:
        """Whether the file is there and, as far as the record says, the one that was sampled."""
        return bool(self.content) and self.sampled in (None, self.content)


class UnusableError(Exception):
    """Why a file is no clip of the repository."""


def recorded(workspace: Workspace) -> list[Video]:
    """The videos that are recorded, with the content of their files as they are now."""
    found = []
    for row in read_lines(workspace.repository / "videos.jsonl"):
        clip = workspace.repository / row["clip"]
        content = file_digest(clip) if clip.is_file() else ""
        found.append(Video(row["id"], row["prompt"], clip, content, row.get("clip_sha256")))
    return found


def strangers(workspace: Workspace) -> list[str]:
    """Files among the clips that no record names, as paths inside the repository."""
    names = {row["clip"] for row in read_lines(workspace.repository / "videos.jsonl")}
    files = (f"clips/{path.name}" for path in (workspace.repository / "clips").glob("[!.]*"))
    return sorted(set(files) - names)


def frames_of(one: Video, shape: ShapeSettings) -> np.ndarray:
    """Frames of a recorded video, uint8 RGB `(F, H, W, 3)`.

    Args:
        one: the video.
        shape: that it must have.

    Raises:
        UnusableError: if it is damaged, or is not the clip that was sampled.
        MagicIDError: `ffmpeg-missing`.
    """
    if one.content and not one.clip.stat().st_size:
        raise UnusableError("the file is empty")
    try:
        frames, _ = video.read_video(one.clip)
    except MagicIDError as error:
        if error.code != "video-unreadable":
            raise
        raise UnusableError(error.message.rstrip(".").removeprefix(f"{one.clip.name} ")) from error
    if frames.shape[:3] != (shape.frames, shape.height, shape.width):
        count, height, width = frames.shape[:3]
        raise UnusableError(
            f"it has {count} frames of {width}x{height}, not {shape.frames} of {shape.width}x{shape.height}"
        )
    if not one.whole:
        raise UnusableError("it is another video than the one that was sampled")
    return frames
