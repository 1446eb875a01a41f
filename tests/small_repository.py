"""A sampled repository of a few tiny clips, and one with scores written by hand: what scoring and selecting read."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magicid_cli import conditioning, config, video
from magicid_cli.rewards.base import Clip
from magicid_cli.stages import score
from magicid_cli.workspace import Workspace, file_digest, write_lines
from pictures import smooth

# Name, origin, prompt, photo, motion in pixels a frame.
VIDEOS: list[tuple[str, str, int | None, int | None, int]] = [
    ("tuned-000-0", "tuned", 0, None, 1),
    ("tuned-000-1", "tuned", 0, None, 4),
    ("initial-000-0", "initial", 0, None, 2),
    ("static-000", "static", None, 0, 0),
]
FRAMES, SIDE, FPS = 9, 64, 8
REWARDS = ("identity", "dynamics", "semantics")


def settings(**changes: Any) -> config.Settings:
    """Of the tiny model: its shape is the clips', its judges are the stand-ins, its flow is everywhere."""
    return config.resolve({"model.name": "tiny", "seed": 7, "rewards.flow": "dis", **changes}).settings


def moving(number: int, step: int, *, frames: int = FRAMES, side: int = SIDE) -> np.ndarray:
    """A window that moves over a picture of its own."""
    scene = smooth(side + step * frames, side, seed=number)
    return np.stack([scene[:, step * index : step * index + side] for index in range(frames)])


def sampled(name: str = "alice") -> Workspace:
    """An identity whose repository is sampled and not scored."""
    workspace = Workspace(name)
    workspace.create()
    embeddings = torch.nn.functional.normalize(torch.randn(3, 128, generator=torch.Generator().manual_seed(0)), dim=1)
    conditioning.save_tensors(workspace.references / "embeddings.safetensors", {"embeddings": embeddings})
    rows = []
    for number, (video_id, origin, prompt_id, photo, step) in enumerate(VIDEOS):
        path = workspace.repository / "clips" / f"{video_id}.mp4"
        video.write_video(path, moving(number, step), FPS)
        rows.append(
            {
                "id": video_id,
                "origin": origin,
                "prompt_id": prompt_id,
                "prompt": f"a person walks, {prompt_id}",
                "photo": photo,
                "key": f"key of {video_id}",
                "clip": f"clips/{video_id}.mp4",
                "clip_sha256": file_digest(path),
                "latents": f"latents/{video_id}.safetensors",
            }
        )
    write_lines(workspace.repository / "videos.jsonl", rows)
    done = {"state": "done", "begun": 1.0, "finished": 2.0, "key": "", "outputs": {}}
    _describe(workspace, dict.fromkeys(("ingest", "reconstruct", "sample"), done))
    return workspace


def scored(name: str = "alice", *, prompts: int = 4, videos: int = 4, statics: int = 3) -> Workspace:
    """An identity whose videos have scores written by hand, and that has selected its pairs; it has no clips.

    Video `v` of a prompt has a dynamics of `v` and an identity of `0.1 v`: the last dominates all others. Statics look
    most like the person and do not move.
    """
    from magicid_cli.events import Events
    from magicid_cli.stages import select

    workspace = Workspace(name)
    workspace.create()
    rows: list[dict[str, Any]] = []
    values: dict[str, tuple[float, float, float]] = {}
    for prompt in range(prompts):
        for number in range(videos):
            video_id = f"tuned-{prompt:03d}-{number}"
            rows.append(_row(video_id, "tuned", prompt, None))
            values[video_id] = 0.1 * number, 1.0 * number, 5.0 + 0.1 * number
    for photo in range(statics):
        rows.append(_row(f"static-{photo:03d}", "static", None, photo))
        values[f"static-{photo:03d}"] = 0.9 + 0.01 * photo, 0.0, 5.0
    write_lines(workspace.repository / "videos.jsonl", rows)
    write_lines(
        workspace.scores,
        [
            {
                "id": row["id"],
                "reward": reward,
                "value": values[row["id"]][n],
                "raw": {"value": values[row["id"]][n], **_beside(reward, values[row["id"]][n])},
                "made_by": f"judge of {reward}",
                "key": f"{row['id']} {reward}",
            }
            for n, reward in enumerate(REWARDS)
            for row in rows
        ],
    )
    select.run(workspace, settings(), Events())
    done = {"state": "done", "begun": 1.0, "finished": 2.0, "key": "", "outputs": {}}
    _describe(workspace, dict.fromkeys(("ingest", "reconstruct", "sample", "score", "select"), done))
    return workspace


def _beside(reward: str, value: float) -> dict[str, float]:
    """What else a raw score has; the subject moves most where the whole picture moves least."""
    return {"identity": {"found": 0.5}, "dynamics": {"total": value, "subject": 4.0 - value}}.get(reward, {})


def _row(video_id: str, origin: str, prompt_id: int | None, photo: int | None) -> dict[str, Any]:
    numbers = {"prompt_id": prompt_id, "photo": photo}
    files = {"clip": f"clips/{video_id}.mp4", "latents": f"latents/{video_id}.safetensors"}
    return {"id": video_id, "origin": origin, **numbers, "prompt": "a person", "key": video_id, **files}


def _describe(workspace: Workspace, stages: dict[str, Any]) -> None:
    values = {"values": asdict(settings()), "origins": {}}
    workspace.update(model="tiny", class_word="person", seed=7, stages=stages, settings=values)


class Counted:
    """Counts what every judge scores, by reward and content of the clip's prompt and frames."""

    def __init__(self, monkeypatch: Any) -> None:
        self.calls: list[str] = []
        real = score.passes

        def passes(*arguments: Any) -> Any:
            for judges in real(*arguments):
                for judge in judges:
                    self._count(judge)
                yield judges

        monkeypatch.setattr(score, "passes", passes)

    def _count(self, judge: Any) -> None:
        real = judge.score

        def counted(clip: Clip) -> Any:
            self.calls.append(judge.name)
            return real(clip)

        judge.score = counted

    def taken(self) -> dict[str, int]:
        """Calls by reward since the last time."""
        found = {reward: self.calls.count(reward) for reward in REWARDS if reward in self.calls}
        self.calls.clear()
        return found


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file below a folder."""
    return {
        str(path.relative_to(folder)): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }
