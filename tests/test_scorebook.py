"""Scores are never lost: what a kill, a failure or a change of judge leaves, and what switching back costs.

Truth: the undisturbed run, whose files must come out in every byte; kill -9 at every single sync of the disk; counts of
what the judges were asked.
"""

import os
import signal
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_run import outcome
from magicid_cli import pipeline
from magicid_cli.cli.app import main
from magicid_cli.cli.pairs import scored
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.rewards.base import Clip
from magicid_cli.stages import score
from magicid_cli.workspace import Workspace, file_digest, read_json, read_lines, write_lines
from small_repository import REWARDS, VIDEOS, sampled, settings

ALL = len(VIDEOS)


class Judge:
    """A judge who takes no time: the value follows from who judges and what is asked."""

    def __init__(self, name: str, made_by: str, asked: list[str]) -> None:
        self.name, self.made_by, self.asked = name, made_by, asked

    def score(self, clip: Clip) -> dict[str, Any]:
        self.asked.append(self.name)
        value = len(self.made_by) + float(clip.frames[0, 0, 0, 0])
        return {"value": value, "total": value, "subject": value, "found": 1.0}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Quick judges in place of all, of whom `--vlm` names the third; what they were asked."""
    calls: list[str] = []

    def made_by(workspace: Workspace, chosen: Any) -> dict[str, str]:
        return {"identity": "one", "dynamics": "two", "semantics": chosen.rewards.vlm}

    def passes(w: Workspace, chosen: Any, e: Events, needed: Collection[str] = REWARDS) -> Iterator[list[Judge]]:
        judges = [Judge(name, who, calls) for name, who in made_by(w, chosen).items() if name in needed]
        yield from ([judge] for judge in judges)

    def frames(one: Any, shape: Any) -> np.ndarray:
        return np.full((1, 1, 1, 3), int(one.content[:2], 16), np.uint8)

    monkeypatch.setattr(score, "made_by", made_by)
    monkeypatch.setattr(score, "passes", passes)
    monkeypatch.setattr(score, "frames_of", frames)
    monkeypatch.setattr(score, "prepare", lambda *_: None)
    return calls


def run(workspace: Workspace, again: Collection[str] = (), **changes: Any) -> bool:
    return pipeline.score(workspace, settings(**changes), Events(), again=again)


def files(workspace: Workspace) -> dict[str, bytes]:
    """The scores, what is kept beside them, and whatever should not be there."""
    names = ("scores.jsonl", "other-scores.jsonl", "score-again.json", "set-aside.jsonl")
    found = [workspace.path / name for name in names] + list(workspace.path.rglob(".tmp-*"))
    return {path.name: path.read_bytes() for path in found if path.is_file()}


def scores(workspace: Workspace) -> set[tuple[str, str]]:
    return {(row["id"], row["reward"]) for row in read_lines(workspace.scores)}


WHOLE = {(name, reward) for name, *_ in VIDEOS for reward in REWARDS}


def killed_at(sync: int, work: Callable[[], Any]) -> bool:
    """Do the work in a process of its own, which kills itself when it comes to that sync; whether it came to it."""
    child = os.fork()
    if child == 0:
        left, real = sync, os.fsync

        def fsync(fd: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            real(fd)

        os.fsync = fsync
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(("again", "changes"), [(("identity",), {}), ((), {"rewards.vlm": "drawn"})])
def test_no_kill_loses_a_score(
    asked: list[str], again: tuple[str, ...], changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = sampled()
    run(workspace)
    before = files(workspace)
    run(workspace, again, **changes)
    undisturbed = files(workspace)
    run(workspace)  # back again
    kills = 0
    while True:
        path = workspace.path / "other-scores.jsonl"
        path.unlink(missing_ok=True)  # else the other judge has been here already
        run(workspace)
        assert files(workspace) == before
        if not killed_at(kills + 1, lambda: run(workspace, again, **changes)):
            break
        kills += 1
        # Every score is there, and whoever looks is told so or told what to type.
        assert scores(workspace) == WHOLE
        code = main(["pairs", "alice", "--json"])
        error = outcome(capsys)["error"]
        assert code == 0 or (error["code"] == "scores-missing" and error["hint"].endswith("magicid score alice"))
        # What is left to be made again is made, and nothing else; and it all comes out as without the kill.
        left = read_json(workspace.score_again) if workspace.score_again.is_file() else []
        asked.clear()
        run(workspace)
        assert len(asked) == len(left)
        assert files(workspace)["scores.jsonl"] == before["scores.jsonl"]
        assert not workspace.score_again.exists() and not list(workspace.path.rglob(".tmp-*"))
        run(workspace, **changes)
        assert files(workspace) == undisturbed
        run(workspace)
    assert kills >= 8


def test_a_stopped_wish_goes_on_with_the_same_command_or_without(asked: list[str]) -> None:
    workspace = sampled()
    run(workspace)
    whole = workspace.scores.read_bytes()

    def stop(event: Event) -> None:
        if event.kind == "step":
            raise KeyboardInterrupt

    for again in (["identity"], ["identity"], []):
        asked.clear()
        with pytest.raises(KeyboardInterrupt):
            pipeline.score(workspace, settings(), Events(stop), again=again)
        assert asked == ["identity"]
    asked.clear()
    assert run(workspace) and asked == ["identity"]
    assert workspace.scores.read_bytes() == whole and not run(workspace)


def test_what_cannot_be_fetched_leaves_everything_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """As the review typed it."""
    workspace = sampled()
    run(workspace)
    before = files(workspace), workspace.manifest()
    flags = ["--again", "identity", "--again", "semantics", "--vlm", "clip-vit-b-32", "--offline"]
    assert main(["score", "alice", *flags, "--json"]) == 5
    assert outcome(capsys)["error"]["code"] == "weights-offline"
    assert (files(workspace), workspace.manifest()) == before
    assert main(["pairs", "alice", "--tau", "9", "--json"]) == 0
    assert outcome(capsys)["data"]["pairs"]


def test_a_judge_that_fails_leaves_the_scores_in_use(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = sampled()
    run(workspace)
    whole = files(workspace)

    def fail(*_: Any) -> None:
        raise MagicIDError("model-unusable", "Damaged.", "Mend it.")

    with monkeypatch.context() as broken:
        broken.setattr(Judge, "score", fail)
        with pytest.raises(MagicIDError):
            run(workspace, ["semantics"])
    assert scored("alice", None)[1]["score"] == "done"
    asked.clear()
    assert not run(workspace) and asked == [] and files(workspace) == whole
    assert workspace.manifest()["stages"]["score"]["state"] == "done"


@pytest.mark.parametrize("what", ["file", "line"])
def test_removed_scores_are_named_with_the_command_that_makes_them(
    what: str, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = sampled()
    run(workspace)
    whole = workspace.scores.read_bytes()
    if what == "file":
        workspace.scores.unlink()
    else:
        write_lines(workspace.scores, read_lines(workspace.scores)[1:])
    assert main(["pairs", "alice", "--tau", "9", "--json"]) == 1
    error = outcome(capsys)["error"]
    assert error["code"] == "scores-missing" and error["hint"].endswith("magicid score alice")
    asked.clear()
    assert run(workspace) and len(asked) == (3 * ALL if what == "file" else 1)
    assert workspace.scores.read_bytes() == whole


def test_switching_a_judge_and_back_costs_nothing(asked: list[str]) -> None:
    workspace = sampled()
    run(workspace)
    first = files(workspace)
    for vlm, cost in (("drawn", ALL), ("auto", 0), ("drawn", 0), ("clip-vit-b-32", ALL), ("drawn", 0), ("auto", 0)):
        asked.clear()
        run(workspace, **{"rewards.vlm": vlm})
        assert asked == ["semantics"] * cost
        assert {row["made_by"] for row in read_lines(workspace.scores)} == {"one", "two", vlm}
        assert scores(workspace) == WHOLE and len(read_lines(workspace.scores)) == 3 * ALL
    assert files(workspace)["scores.jsonl"] == first["scores.jsonl"]
    assert len(read_lines(workspace.other_scores)) == 2 * ALL


def test_what_other_judges_said_goes_with_its_video(asked: list[str]) -> None:
    workspace = sampled()
    run(workspace)
    run(workspace, **{"rewards.vlm": "drawn"})
    rows = read_lines(workspace.repository / "videos.jsonl")
    path = workspace.repository / rows[0]["clip"]
    path.write_bytes(path.read_bytes() + b"\0")
    rows[0]["clip_sha256"] = file_digest(path)
    write_lines(workspace.repository / "videos.jsonl", rows[:-1])
    asked.clear()
    run(workspace, **{"rewards.vlm": "drawn"})
    assert sorted(asked) == sorted(REWARDS)
    kept = read_lines(workspace.other_scores)
    assert {row["id"] for row in kept} == {row["id"] for row in rows[1:-1]} and len(kept) == ALL - 2


def test_scores_that_were_made_before_they_named_their_clip_still_count(asked: list[str]) -> None:
    workspace = sampled()
    run(workspace)
    whole, rows = files(workspace), read_lines(workspace.scores)
    write_lines(workspace.scores, [{key: row[key] for key in row if key != "content"} for row in rows])
    asked.clear()
    run(workspace)
    assert asked == [] and files(workspace) == whole


# Only judges with something to do


def test_only_the_judges_that_are_needed_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = sampled()
    run(workspace)
    whole = workspace.scores.read_bytes()

    def closed(*_: Any, **__: Any) -> None:
        raise AssertionError("nobody asked for this judge")

    with monkeypatch.context() as patched:
        patched.setattr(score, "open_judge", closed)
        patched.setattr(score, "open_faces", closed)
        assert run(workspace, ["dynamics"])
        patched.setattr(score, "DynamicsReward", closed)
        workspace.update(stages={**workspace.manifest()["stages"], "score": {"state": "running", "key": "other"}})
        assert run(workspace)
    assert workspace.scores.read_bytes() == whole


def test_frames_are_of_the_judges_that_are_shown_them(tmp_path: Path) -> None:
    workspace = sampled()

    def judge(vlm: str, frames: int) -> tuple[str | None, bool]:
        chosen = settings(**{"rewards.vlm": vlm, "rewards.sampled_frames": frames})
        return score.made_by(workspace, chosen)["semantics"], "rewards.sampled_frames" in score.reads(chosen)

    for vlm in ("drawn", "stand-in"):
        assert judge(vlm, 3) == judge(vlm, 4) and not judge(vlm, 4)[1]
    for vlm in ("clip-vit-b-32", "qwen3-vl-2b"):
        assert judge(vlm, 3)[0] != judge(vlm, 4)[0] and judge(vlm, 4)[1]
