"""Video files: H.264 in mp4 that every player opens, and back.

Both directions run the ffmpeg that comes with imageio-ffmpeg. It is started in a process group of its own, so that a
Ctrl-C for magicid does not cut a clip that is being written.
"""

import math
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, cast

import numpy as np

from magicid_cli.errors import MagicIDError
from magicid_cli.workspace import atomic_path

# Visually lossless: the clips are looked at and judged, and must not show what the encoder did.
_QUALITY = ["-crf", "17", "-preset", "medium"]
SMALL = ("-crf", "30", "-preset", "medium")
"""For previews: what the encoder does may be seen."""
# The same frames give the same bytes on any machine: one thread, and no version strings or dates.
_REPRODUCIBLE = ["-threads", "1", "-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
# A playlist must not make ffmpeg open anything else, least of all over the network.
_LOCAL_ONLY = ["-protocol_whitelist", "file,pipe"]
_SILENT = ["-nostdin", "-hide_banner", "-v", "error"]
# Bytes that are set aside for the frames that a file says it has.
_TRUSTED = 1 << 30
_MOST = 4 << 30
"""Bytes of decoded frames from which on a video is too long to be judged as a clip: it would fill the memory."""


def write_video(path: Path, frames: np.ndarray, fps: float, *, comment: str = "", quality: Sequence[str] = ()) -> None:
    """Write an mp4 (H.264, yuv420p, playable while it loads), atomically.

    Args:
        path: the file; its folder is made.
        frames: uint8 RGB `(F, H, W, 3)`, at least one frame, sides even.
        fps: frames per second.
        comment: kept as the file's comment.
        quality: ffmpeg's options for it; visually lossless by default.

    Raises:
        MagicIDError: `disk-full`, `ffmpeg-missing`, or `video-unwritable` with what ffmpeg says.
        ValueError: frames of another shape or type.
    """
    if frames.ndim != 4 or not len(frames) or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 (F, H, W, 3), not {frames.dtype} {frames.shape}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"yuv420p needs even sides, not {width}x{height}")
    rate = str(Fraction(fps).limit_denominator(100_000))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "pipe:0"]
    # RGB → YUV by the matrix that players expect of the size, and said so in the file.
    matrix = "bt709" if min(height, width) >= 720 else "smpte170m"
    colour = ["-vf", f"scale=out_color_matrix={matrix}:out_range=tv:flags=accurate_rnd+full_chroma_int"]
    colour += ["-colorspace", matrix, "-color_primaries", matrix, "-color_trc", matrix, "-color_range", "tv"]
    codec = ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", *(quality or _QUALITY), *_REPRODUCIBLE]
    about = ["-metadata", f"comment={comment}", "-movflags", "+faststart"]
    with atomic_path(path) as temporary:
        target = ["-f", "mp4", "-y", f"file:{temporary.resolve()}"]
        done = _ffmpeg([*source, *colour, *codec, *about, *target], np.ascontiguousarray(frames))
        if b"No space left" in done.stderr:
            raise MagicIDError(
                "disk-full",
                f"The disk is full: {path.name} cannot be written. What was finished is kept.",
                "Make room, then run the same command again.",
            )
        if done.returncode:
            raise MagicIDError(
                "video-unwritable",
                f"{path.name} cannot be written: {_reason(done.stderr)}.",
                f"Is there room and permission in {path.parent}? The same command tries again.",
            )


def read_video(path: Path) -> tuple[np.ndarray, float]:
    """Read a whole video.

    Returns:
        Frames as uint8 RGB `(F, H, W, 3)`, and frames per second.

    Raises:
        MagicIDError: `video-unreadable`, also for a file that is damaged somewhere in the middle or whose frames would
            take more than 4 GiB, or `ffmpeg-missing`.
    """
    if not path.is_file():
        raise _unreadable(path, "there is no such file")
    width, height, fps, expected = _look(path)
    return _decoded(path, (height, width, 3), expected), fps


def static_clip(photo: np.ndarray, frames: int) -> np.ndarray:
    """A photo `(H, W, 3)` → a motionless clip `(frames, H, W, 3)`."""
    return np.repeat(photo[None], frames, axis=0)


def _look(path: Path) -> tuple[int, int, float, int]:
    """Width, height, frames per second and, about, the number of frames of a video file."""
    import imageio_ffmpeg

    _program()
    reader = imageio_ffmpeg.read_frames(f"file:{path.resolve()}", input_params=_LOCAL_ONLY)
    try:
        facts = next(reader)
        (width, height), fps, seconds = facts["size"], float(facts["fps"]), float(facts["duration"])
    # imageio-ffmpeg reads ffmpeg's report as text: what is no video fails anywhere in there.
    except (OSError, RuntimeError, LookupError, ValueError, AttributeError, StopIteration) as error:
        raise _unreadable(path, "it is no video that ffmpeg can read") from error
    finally:
        reader.close()
    if width * height == 0 or not math.isfinite(fps) or fps <= 0:
        raise _unreadable(path, "it has no pictures or no frame rate")
    return width, height, fps, round(seconds * fps) if math.isfinite(seconds) else 0


def _decoded(path: Path, shape: tuple[int, int, int], expected: int) -> np.ndarray:
    """All frames `(F, *shape)`, read from ffmpeg straight to where they stay: a clip is in memory once.

    Args:
        path: the video.
        shape: of a frame.
        expected: about how many frames there are; what a file says of itself is not trusted with memory.
    """
    size = math.prod(shape)
    frames = np.empty((min(max(1, expected), max(1, _TRUSTED // size)), *shape), np.uint8)
    arguments = ["-xerror", *_LOCAL_ONLY, "-i", f"file:{path.resolve()}"]
    arguments += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "pipe:1"]
    with TemporaryFile() as said, _started(arguments, said) as (process, output):
        filled = output.readinto(frames.data.cast("B"))
        rest = output.read(_MOST - frames.nbytes)  # more than the file said it has, or than is trusted: seldom
        if output.read(1):
            raise _unreadable(path, f"its frames take more than {_MOST >> 30} GiB; cut it shorter")
        code = process.wait()
        said.seek(0)
        reason = _reason(said.read())
    if code or not filled or (filled + len(rest)) % size:
        raise _unreadable(path, reason)
    frames = frames[: filled // size]
    return np.concatenate([frames, np.frombuffer(rest, np.uint8).reshape(-1, *shape)]) if rest else frames


@contextmanager
def _started(arguments: list[str], said: IO[bytes]) -> Iterator[tuple["subprocess.Popen[bytes]", BufferedReader]]:
    """A running ffmpeg and its output, which is read while it works; it does not outlive the block."""
    command = [_program(), *_SILENT, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, process_group=0)
    try:
        with cast(BufferedReader, process.stdout) as output:
            yield process, output
    finally:
        process.kill()
        process.wait()


def _ffmpeg(arguments: list[str], frames: np.ndarray) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [_program(), *_SILENT, *arguments],
        # As bytes: subprocess counts items, and an item of a whole array is a frame.
        input=frames.data.cast("B"),
        capture_output=True,
        process_group=0,
        check=False,
    )


def _program() -> str:
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise MagicIDError(
            "ffmpeg-missing",
            "ffmpeg cannot be started: imageio-ffmpeg came without it on this machine.",
            "Install ffmpeg with your system's package manager, or name it in IMAGEIO_FFMPEG_EXE.",
        ) from error


def _reason(said: bytes) -> str:
    """The last thing that ffmpeg said, without addresses."""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].rpartition("] ")[2].rstrip(".") if lines else "ffmpeg gave no frames"


def _unreadable(path: Path, why: str) -> MagicIDError:
    return MagicIDError(
        "video-unreadable", f"{path.name} cannot be read: {why}.", "Make or copy it again; `magicid customize` resumes."
    )
