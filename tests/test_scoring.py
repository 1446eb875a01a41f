"""Scoring as a job: what is scored again after which change, what an interruption costs, and what damage does.

Truth: counts of what the judges are asked; the undisturbed run, whose scores must come out in every byte; the judges'
own answers about the same frames.
"""

import gc
import shutil
import weakref
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from magicid_cli import conditioning, pipeline, video
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.dynamics import DynamicsReward
from magicid_cli.stages import score, select
from magicid_cli.workspace import Workspace, append_line, file_digest, read_lines, write_lines
from small_repository import FPS, REWARDS, VIDEOS, Counted, moving, sampled, settings

ALL = len(VIDEOS)


class OtherFlow(DynamicsReward):
    """DIS under the name of the flow that was asked for: RAFT's weights are not everywhere."""

    def __init__(self, flow: str, device: str) -> None:
        super().__init__("dis", device)
        self.made_by = f"{flow}: {self.made_by}"


@pytest.fixture
def repository(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return sampled()


def scores(workspace: Workspace) -> dict[tuple[str, str], Any]:
    return {(row["id"], row["reward"]): row for row in read_lines(workspace.scores)}


def told(workspace: Workspace, **changes: Any) -> list[str]:
    """Score; returns the notices."""
    notices: list[str] = []

    def listen(event: Event) -> None:
        if event.kind == "notice":
            notices.append(event.data["message"])

    score.run(workspace, settings(**changes), Events(listen))
    return notices


def other_references(workspace: Workspace) -> None:
    path = workspace.references / "embeddings.safetensors"
    conditioning.save_tensors(path, {"embeddings": -conditioning.load_tensors(path)["embeddings"]})


def other_clip(workspace: Workspace) -> None:
    """One video is sampled again and comes out differently."""
    rows = read_lines(workspace.repository / "videos.jsonl")
    video.write_video(workspace.repository / rows[0]["clip"], moving(9, 3), FPS)
    rows[0]["clip_sha256"] = file_digest(workspace.repository / rows[0]["clip"])
    write_lines(workspace.repository / "videos.jsonl", rows)


def other_prompt(workspace: Workspace) -> None:
    rows = read_lines(workspace.repository / "videos.jsonl")
    rows[0]["prompt"] = "a person sings"
    write_lines(workspace.repository / "videos.jsonl", rows)


def nothing(workspace: Workspace) -> None:
    """Only a setting changes."""


@pytest.mark.parametrize(
    ("changes", "disturb", "again"),
    [
        ({}, nothing, {}),
        ({"rewards.flow": "raft"}, nothing, {"dynamics": ALL}),
        ({"rewards.vlm": "drawn"}, nothing, {"semantics": ALL}),
        ({"rewards.sampled_frames": 3}, nothing, {}),  # this judge chooses its frames itself
        ({"rewards.face_detector": "drawn"}, nothing, {"identity": ALL}),
        ({"shape.fps": 12}, nothing, {"dynamics": ALL, "semantics": ALL}),
        ({}, other_references, {"identity": ALL}),
        ({}, other_clip, dict.fromkeys(REWARDS, 1)),
        ({}, other_prompt, {"semantics": 1}),
    ],
)
def test_a_change_runs_again_exactly_what_reads_it(
    repository: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    disturb: Callable[[Workspace], None],
    again: dict[str, int],
) -> None:
    monkeypatch.setattr(score, "DynamicsReward", OtherFlow)
    count = Counted(monkeypatch)
    told(repository)
    assert count.taken() == dict.fromkeys(REWARDS, ALL)
    before = scores(repository)
    disturb(repository)
    told(repository, **changes)
    assert count.taken() == again
    after = scores(repository)
    assert after.keys() == before.keys()
    changed = [reward for (name, reward) in after if after[name, reward]["key"] != before[name, reward]["key"]]
    assert {reward: changed.count(reward) for reward in changed} == again


def test_the_scores_are_what_each_judge_says_alone(repository: Workspace) -> None:
    """Side by side in threads, against one after the other; and the raw values are kept, not a scale of 1 to 10."""
    told(repository)
    found = scores(repository)
    for judges in score.passes(repository, settings(), Events()):
        for judge in judges:
            for row in read_lines(repository.repository / "videos.jsonl"):
                frames, _ = video.read_video(repository.repository / row["clip"])
                assert found[row["id"], judge.name]["raw"] == judge.score(Clip(frames, FPS, row["prompt"]))
    assert found["static-000", "dynamics"]["value"] < 0.1 < found["tuned-000-1", "dynamics"]["value"]


def test_an_interruption_loses_and_repeats_nothing(repository: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after every single video, in both passes, and once in the middle of a line."""
    told(repository)
    undisturbed = repository.scores.read_bytes()
    repository.scores.unlink()
    count = Counted(monkeypatch)

    def stop(event: Event) -> None:
        if event.kind == "step":
            raise KeyboardInterrupt

    for _ in range(2 * ALL):
        with pytest.raises(KeyboardInterrupt):
            score.run(repository, settings(), Events(stop))
    with repository.scores.open("ab") as file:
        file.write(b'{"id": "tuned-000-0", "rew')
    told(repository)
    assert count.taken() == dict.fromkeys(REWARDS, ALL)
    assert repository.scores.read_bytes() == undisturbed


def test_a_clip_is_decoded_once_for_judges_that_share_it_and_never_two_are_held(
    repository: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    real = video.read_video

    def watched(path: Any) -> tuple[np.ndarray, float]:
        gc.collect()
        assert not any(one() is not None for one in alive)
        frames, fps = real(path)
        alive.append(weakref.ref(frames))
        return frames, fps

    monkeypatch.setattr(video, "read_video", watched)
    told(repository)
    assert len(alive) == 2 * ALL  # identity and dynamics together, then the judge of prompt following
    repository.scores.write_text("".join(f"{line}\n" for line in repository.scores.read_text().split("\n")[:-2]))
    told(repository)
    assert len(alive) == 2 * ALL + 1


def test_a_judge_of_several_clips_gets_several(repository: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Batched:
        name, made_by, at_once = "semantics", "batched", 3

        def score(self, clip: Clip) -> dict[str, Any]:
            return self.score_many([clip])[0]

        def score_many(self, clips: Any) -> list[dict[str, Any]]:
            asked.append(len(clips))
            return [{"value": float(clip.frames.mean())} for clip in clips]

        def close(self) -> None:
            asked.append(0)

    monkeypatch.setattr(score, "open_judge", lambda *_, **__: Batched())
    told(repository)
    assert asked == [3, 1, 0]
    found = scores(repository)
    for row in read_lines(repository.repository / "videos.jsonl"):
        frames, _ = video.read_video(repository.repository / row["clip"])
        assert found[row["id"], "semantics"]["value"] == float(frames.mean())


def test_equal_clips_of_two_videos_are_scored_once(repository: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_lines(repository.repository / "videos.jsonl")
    rows[1] |= {"clip_sha256": rows[0]["clip_sha256"]}
    write_lines(repository.repository / "videos.jsonl", rows)
    shutil.copy(repository.repository / rows[0]["clip"], repository.repository / rows[1]["clip"])
    count = Counted(monkeypatch)
    told(repository)
    assert count.taken() == dict.fromkeys(REWARDS, ALL - 1)
    found = scores(repository)
    assert len(found) == 3 * ALL and found["tuned-000-0", "identity"]["raw"] == found["tuned-000-1", "identity"]["raw"]


def test_no_score_depends_on_how_many_threads_opencv_has(repository: Workspace) -> None:
    found = []
    for threads in (1, 2):
        cv2.setNumThreads(threads)
        told(repository)
        assert cv2.getNumThreads() == threads
        found.append(repository.scores.read_bytes())
        repository.scores.unlink()
    cv2.setNumThreads(1)
    assert found[0] == found[1]


# Damaged and foreign videos


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


DAMAGE: dict[str, tuple[Callable[[Workspace, Any], None], str]] = {
    "cut": (lambda w, path: path.write_bytes(cut(path.read_bytes())), "cannot be read"),
    "empty": (lambda w, path: path.write_bytes(b""), "is empty"),
    "removed": (lambda w, path: path.unlink(), "no such file"),
    "a page": (lambda w, path: path.write_text("<html>not found</html>"), "cannot be read"),
    "size": (lambda w, path: video.write_video(path, moving(0, 1, side=96), FPS), "9 frames of 96x96, not 9 of 64x64"),
    "frames": (lambda w, path: video.write_video(path, moving(0, 1, frames=5), FPS), "5 frames of 64x64"),
    "another": (lambda w, path: shutil.copy(path.with_name("static-000.mp4"), path), "another video than the one"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_or_foreign_video_is_set_aside_and_comes_back(
    repository: Workspace, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    disturb, reason = DAMAGE[what]
    path = repository.repository / "clips" / "tuned-000-0.mp4"
    whole = path.read_bytes()
    disturb(repository, path)
    (notice,) = told(repository)
    assert "clips/tuned-000-0.mp4" in notice and reason in notice and "`magicid customize`" in notice
    (row,) = read_lines(repository.set_aside)
    assert row["id"] == "tuned-000-0" and reason in row["why"] and "tuned" not in row["why"]
    # Not a zero: no score at all, and no pair.
    names = {name for name, _ in scores(repository)}
    assert names == {name for name, *_ in VIDEOS} - {"tuned-000-0"}
    choice = select.choose(repository, settings(**{"pairs.held_out": 0}))
    assert choice.report["set_aside"] == ["tuned-000-0"]
    used = {pair[side]["id"] for pair in choice.rows for side in ("winner", "rejected")}
    assert "tuned-000-0" not in used
    # Whole again, it is scored, and nothing else is.
    path.write_bytes(whole)
    count = Counted(monkeypatch)
    assert told(repository) == []
    assert count.taken() == dict.fromkeys(REWARDS, 1)
    assert read_lines(repository.set_aside) == []


def test_damage_after_scoring_is_noticed(repository: Workspace) -> None:
    told(repository)
    before = score.inputs(repository, settings())
    path = repository.repository / "clips" / "static-000.mp4"
    path.write_bytes(cut(path.read_bytes()))
    assert score.inputs(repository, settings()) != before
    told(repository)
    assert ("static-000", "identity") not in scores(repository)


def test_a_video_that_nobody_recorded_is_named_and_left_out(repository: Workspace) -> None:
    before = score.inputs(repository, settings())
    shutil.copy(repository.repository / "clips" / "static-000.mp4", repository.repository / "clips" / "holiday.mp4")
    assert score.inputs(repository, settings()) != before
    (notice,) = told(repository)
    assert "clips/holiday.mp4" in notice and "no record names it" in notice
    assert len(scores(repository)) == 3 * ALL


def test_without_a_usable_video_the_run_ends_with_the_reason(repository: Workspace) -> None:
    for path in repository.repository.glob("clips/*"):
        path.write_bytes(b"")
    with pytest.raises(MagicIDError) as caught:
        told(repository)
    assert caught.value.code == "videos-unusable"
    assert "is empty" in caught.value.message and "customize" in caught.value.hint


def test_many_damaged_videos_are_one_message(repository: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "_NAMED", 2)
    for path in sorted(repository.repository.glob("clips/*"))[:3]:
        path.write_bytes(b"")
    (notice,) = told(repository)
    assert "; and 1 more." in notice
    assert len(read_lines(repository.set_aside)) == 3


@pytest.mark.xdist_group("finished")
@pytest.mark.parametrize("damage", [lambda content: content[:-200], lambda content: content[:-200] + bytes(200)])
def test_the_same_command_makes_a_damaged_clip_again(alice: Any, damage: Callable[[bytes], bytes]) -> None:
    """Shorter, and of the same length; from its latents, so that every byte is the same and nothing else has to run."""
    from album import SMALL
    from magicid_cli import config

    workspace = Workspace("alice")
    path = workspace.repository / "clips" / "tuned-001-0.mp4"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    photos = sorted((alice / "photos").glob("*.png"))
    result = pipeline.run(workspace, config.resolve(SMALL, project=alice), photos, Events())
    assert path.read_bytes() == whole
    assert result.stages_run == ["sample"]


def test_rows_of_an_earlier_judge_are_gone_in_the_end(repository: Workspace) -> None:
    told(repository)
    append_line(repository.scores, {"id": "tuned-000-0", "reward": "identity", "value": 1.0, "raw": {}, "key": "old"})
    told(repository)
    assert len(read_lines(repository.scores)) == 3 * ALL
