"""An identity whose selected pairs have clips that a browser can play, and the review page of it."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from album import drawn_photos
from magicid_cli import video
from magicid_cli.cli.review import sheet_of
from magicid_cli.pages.review import Server
from magicid_cli.workspace import Workspace, file_digest, read_lines, write_lines
from small_repository import scored

FPS, FRAMES = 8, 9


def judged(*, side: int = 64, name: str = "alice") -> Workspace:
    """`small_repository.scored` with a clip for every video, each of another colour, and photos of the person."""
    workspace = scored(name, prompts=3, videos=3, statics=2)
    rows = read_lines(workspace.repository / "videos.jsonl")
    for number, row in enumerate(rows):
        path = workspace.repository / row["clip"]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_encoded(number, side, row["origin"] != "static"))
        row["clip_sha256"] = file_digest(path)
        if row["prompt_id"] is not None:
            row["prompt"] = f"A person in a red coat walks along street {row['prompt_id']}, <b>smiling</b> & waving"
    write_lines(workspace.repository / "videos.jsonl", rows)
    for number, photo in enumerate(drawn_photos(workspace.references / "from", 2)):
        photo.rename(workspace.references / f"{number:03d}.png")
    return workspace


@cache
def _encoded(number: int, side: int, moves: bool) -> bytes:
    """The clip's file; encoded once, for many tests want the same ones."""
    with TemporaryDirectory() as folder:
        video.write_video(Path(folder, "clip.mp4"), clip(number, side, moves=moves), FPS)
        return Path(folder, "clip.mp4").read_bytes()


def clip(number: int, side: int = 64, *, moves: bool = True) -> np.ndarray:
    """A bright square that crosses a ground whose colour tells the clip."""
    ground = np.array([40 + 23 * (number % 8), 200 - 17 * (number % 11), 60 + 31 * (number % 5)], np.uint8)
    frames = np.tile(ground, (FRAMES, side, side * 16 // 9 // 16 * 16 if side > 64 else side, 1))
    size = side // 4
    for index in range(FRAMES):
        left = index * size // 3 if moves else size
        frames[index, size : 2 * size, left : left + size] = 240
    return frames


@contextmanager
def served(workspace: Workspace, missed: int = 4) -> Iterator[Server]:
    """The page of an identity, served by a thread of this process."""
    with Server(lambda token: sheet_of(workspace, missed, token, selected=True), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def reviewing(*arguments: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """`magicid review` as a process of its own, and the address that it printed; ended as Ctrl-C does."""
    command = [sys.executable, "-m", "magicid_cli", "review", "alice", "--json", "--no-browser", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, process_group=0
    )
    try:
        yield announced(process), process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def announced(process: "subprocess.Popen[str]") -> str:
    """The address in the JSON object that the process prints first."""
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if line == "}\n":
            url = json.loads("".join(lines))["data"]["url"]
            assert isinstance(url, str)
            return url
    raise AssertionError(f"no address: {process.communicate()}")
