"""Time and memory of scoring: identity and DIS dynamics of 61 frames of 720x1280, and of a repository of such clips.

`python -m benchmarks.score` prints the table and writes `results/score.json`. Every row is measured by a fresh process,
whose peak memory is its own; ffmpeg's, beside it, is not counted. The recogniser has SFace's size and random
weights (`_sface.py` says how near it is). The face finder is the real YuNet and the face a real one where the test data
are at hand (`MAGICID_SHARED_DATA`, else `../shared/data`); elsewhere the stand-in takes the picture's middle for a
face, and the row says so. `seconds` is what a clock shows, `cpu_s` what all processes together used: on a busy machine
only the second can be compared.
"""

import sys
from pathlib import Path

if not __package__:  # run by path: this folder would come first, and `select.py` would hide Python's own `select`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks import _alone, _table

ROOT = Path(__file__).resolve().parents[1]
FRAMES, WIDTH, HEIGHT, FPS = 61, 720, 1280, 24
LIMIT_S, REPOSITORY_LIMIT_S, LIMIT_GB = 3.0, 360.0, 1.5
CLIPS = 120


def main() -> None:
    """Measure every row and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where to write the JSON")
    parser.add_argument("--clips", type=int, default=CLIPS, help="clips of the repository")
    parser.add_argument("--runs", type=int, default=5, help="repetitions for a single video")
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(CASES[arguments.measure](arguments.folder, arguments)))
        return
    from benchmarks import _sface

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = _sface.write(folder / "recogniser.onnx")
        write_clip(folder / "clip.mp4")
        rows = [in_own_process(case, folder, arguments) for case in CASES]
    about = {**_table.machine("opencv-python-headless", "numpy", "torch", "imageio-ffmpeg"), "recogniser": network}
    _table.write("score", rows, arguments.output, about=about)


def in_own_process(case: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The row of one case, measured by a fresh Python whose libraries use as many threads as they like."""
    command = [sys.executable, "-m", "benchmarks.score", "--measure", case, "--folder", str(folder)]
    command += ["--clips", str(arguments.clips), "--runs", str(arguments.runs)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return {"case": case, **json.loads(finished.stdout)}


def write_clip(path: Path) -> None:
    """A person in motion before a pan: the real photo where it is at hand, else a drawing of nobody."""
    import cv2
    import numpy as np
    from PIL import Image

    from magicid_cli import video

    photo = shared("astronaut.png")
    picture = np.array(Image.open(photo).convert("RGB")) if photo else _blobs()
    large = cv2.resize(picture, (1536, 1536), interpolation=cv2.INTER_LANCZOS4)
    frames = []
    for index in range(FRAMES):
        x, y, scale = 150 + 2 * index, 4 * np.sin(index / 5), 1 + 0.002 * index
        view = np.array([[scale, 0, -x], [0, scale, -y]])
        frames.append(cv2.warpAffine(large, view, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT))
    video.write_video(path, np.stack(frames), FPS)


def _blobs() -> Any:
    import cv2
    import numpy as np

    coarse = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    return cv2.resize(coarse, (512, 512), interpolation=cv2.INTER_CUBIC)


def shared(name: str) -> Path | None:
    """A file of the test data, or None where they are not at hand."""
    folder = Path(os.environ.get("MAGICID_SHARED_DATA") or ROOT.parent / "shared" / "data")
    return folder / name if (folder / name).is_file() else None


def faces(folder: Path) -> Any:
    """The finder and the recogniser."""
    from magicid_cli.faces import Faces, OnnxRecogniser, StandInDetector, YuNet

    finder = shared("face_detection_yunet.onnx")
    detector = YuNet(finder, "YuNet") if finder else StandInDetector()
    return Faces(detector, OnnxRecogniser(folder / "recogniser.onnx", "sface", name="random", made_by="random SFace"))


def parts(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One video, part after part: the clip into memory, then each judge alone."""
    from magicid_cli import video
    from magicid_cli.rewards.base import Clip
    from magicid_cli.stages import score

    identity, dynamics = _judges(folder)
    found: dict[str, list[float]] = {"decode_s": [], "identity_s": [], "dynamics_s": []}
    with score.one_thread_each():
        for _ in range(1 + arguments.runs):
            (frames, _), seconds = _timed(video.read_video, folder / "clip.mp4")
            found["decode_s"].append(seconds)
            clip = Clip(frames, FPS, "")
            raw, seconds = _timed(identity.score, clip)
            found["identity_s"].append(seconds)
            found["dynamics_s"].append(_timed(dynamics.score, clip)[1])
    each = {name: round(median(values[1:]), 3) for name, values in found.items()}
    total = round(sum(each.values()), 3)
    return _row(folder, arguments.runs, total, LIMIT_S, face_found=raw["found"], **each)


def one_video(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One video as the stage does it: decoded once, both judges at once, the scores on disk."""
    from magicid_cli.events import Events
    from magicid_cli.stages import score

    seconds = []
    for run in range(1 + arguments.runs):
        job = _job(folder, Path(f"one {run}"), clips=1)
        judges = _judges(folder)
        with score.one_thread_each():
            seconds.append(_timed(score.score, job, list(judges), Events())[1])
    return _row(folder, arguments.runs, round(median(seconds[1:]), 3), LIMIT_S)


def repository(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """A whole repository, as the stage does it: identity and dynamics of every clip."""
    from magicid_cli.events import Events
    from magicid_cli.stages import score

    job = _job(folder, Path("repository"), clips=arguments.clips)
    judges = _judges(folder)
    with score.one_thread_each():
        seconds = _timed(score.score, job, list(judges), Events())[1]
    limit = REPOSITORY_LIMIT_S * arguments.clips / CLIPS
    return _row(folder, arguments.clips, round(seconds, 1), limit, videos=job.made // 2)


def _judges(folder: Path) -> tuple[Any, Any]:
    import numpy as np

    from magicid_cli.rewards.dynamics import DynamicsReward
    from magicid_cli.rewards.identity import IdentityReward

    references = np.random.default_rng(0).standard_normal((10, 128)).astype(np.float32)
    return IdentityReward(faces(folder), references), DynamicsReward("dis")


def _job(folder: Path, name: Path, *, clips: int) -> Any:
    """A sampled repository of one clip under many names, no two files with the same content."""
    from magicid_cli import config
    from magicid_cli.recordings import recorded
    from magicid_cli.scorebook import Scorebook
    from magicid_cli.stages import score
    from magicid_cli.workspace import Workspace, write_lines

    workspace = Workspace("benchmark", folder / name)
    (workspace.repository / "clips").mkdir(parents=True)
    rows = []
    for number in range(clips):
        path = workspace.repository / f"clips/tuned-{number:03d}.mp4"
        shutil.copy(folder / "clip.mp4", path)
        with path.open("ab") as file:
            file.write(_free_atom(number))
        rows.append({"id": path.stem, "prompt": "", "clip": f"clips/{path.name}"})
    write_lines(workspace.repository / "videos.jsonl", rows)
    settings = config.resolve({"shape.size": f"{WIDTH}x{HEIGHT}", "shape.frames": FRAMES, "shape.fps": FPS}).settings
    return score.Job(workspace, settings, "", recorded(workspace), Scorebook(workspace))


def _free_atom(number: int) -> bytes:
    """A part of an mp4 that players skip."""
    return (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    begun = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - begun


def _row(folder: Path, items: int, seconds: float, limit_s: float, **more: Any) -> dict[str, Any]:
    """A row; `cpu_s` is of the whole process and of ffmpeg, preparations and the first, unmeasured video included."""
    peak = _alone.peak_gb()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    row: dict[str, Any] = {"items": items, "seconds": seconds, "limit_s": limit_s}
    row |= {name: more.get(name) for name in ("decode_s", "identity_s", "dynamics_s")}
    row |= {"cpu_s": round(sum(one.ru_utime + one.ru_stime for one in used), 1), "peak_gb": peak, "limit_gb": LIMIT_GB}
    row |= {"finder": faces(folder).detector.made_by, "face_found": more.get("face_found")}
    return {**row, "kept": seconds <= limit_s and peak <= LIMIT_GB}


CASES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "one video, part after part": parts,
    "one video, as the stage does it": one_video,
    "a repository": repository,
}


if __name__ == "__main__":
    main()
