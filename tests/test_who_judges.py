"""Which judges a plan and a run need, and which recogniser may judge what another one rewarded.

Truth: the judges themselves, once opened; the content of files; the sizes in the catalog.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from album import drawn_photos
from fake_run import outcome
from hub_server import HubServer
from magicid_cli import config, faces, plan
from magicid_cli.cli.app import main
from magicid_cli.config import RewardSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.evaluation.likeness import Likeness
from magicid_cli.evaluation.measure import Photos, Store
from magicid_cli.events import Events
from magicid_cli.hub import Fetched
from magicid_cli.models.catalog import FACE_MODELS, VIDEO_MODELS
from magicid_cli.plan.machine import Machine
from magicid_cli.plan.workload import Judging
from magicid_cli.rewards import identity, semantics
from magicid_cli.rewards.base import Clip
from magicid_cli.stages import score
from magicid_cli.workspace import Workspace
from small_repository import VIDEOS, sampled, settings
from tiny_onnx import write_recogniser

ALL = len(VIDEOS)
CPU = Machine(None, 0.0, None, 64.0, 500.0)


@pytest.fixture
def hub_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A hub with a network of its own for every recogniser, all of one commit."""
    paths = {
        model.source.repo: write_recogniser(tmp_path / f"{name}.onnx", seed=number)
        for number, (name, model) in enumerate(FACE_MODELS.items())
    }

    def fetch(source: Any, file: str, *, offline: bool, events: Events) -> Fetched:
        return Fetched(paths[source.repo], "c0ffee")

    monkeypatch.setattr(faces.hub, "fetch_file", fetch)
    monkeypatch.setattr(faces.hub, "known_commit", lambda source: "c0ffee")
    return {name: paths[model.source.repo] for name, model in FACE_MODELS.items()}


def judging(reward: str, judge: str = "auto") -> faces.Faces:
    wanted = RewardSettings(face_detector="stand-in", face_model=reward, evaluation_face_model=judge)
    return faces.open_evaluation_faces(wanted, VIDEO_MODELS["hunyuan-video"], offline=False, events=Events())


# A copy of a recogniser's file is that recogniser


def test_a_copy_of_a_known_recogniser_is_not_judged_by_itself(hub_of: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "glintr100.onnx"
    copy.write_bytes(hub_of["auraface"].read_bytes())
    assert judging(str(copy)).recogniser.name == "sface"
    for reward, judge in ((str(copy), "auraface"), ("auraface", str(copy))):
        with pytest.raises(MagicIDError) as caught:
            judging(reward, judge)
        assert caught.value.code == "settings-invalid" and "already judged" in caught.value.message
    other = write_recogniser(tmp_path / "other.onnx", seed=77)
    assert judging(str(other)).recogniser.name == "auraface"
    assert judging("auraface", str(other)).recogniser.name == "other.onnx"


@pytest.mark.parametrize("name", ["nosuch", "yunet", "/no/such.onnx"])
def test_a_recogniser_that_is_none_is_refused_before_the_plan(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = str(drawn_photos(tmp_path / "photos", 1)[0])
    code = "settings-unknown" if name == "yunet" else "face-model-missing"
    for command in (["customize", photos, "--name", "alice"], ["prepare", photos], ["prepare"]):
        assert main([*command, "--model", "mini", "--face-model", name, "-n", "--json"]) in (2, 5)
        answer = outcome(capsys)
        assert answer["error"]["code"] == code and "auraface" in answer["error"]["hint"]
        assert not answer["data"]


# Who would judge, without asking anybody


def test_the_judges_names_are_known_before_they_are_opened(
    hub_of: dict[str, Path], tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = str(write_recogniser(tmp_path / "mine.onnx", seed=9))
    hub_of["yunet"].write_bytes((shared_data / "face_detection_yunet.onnx").read_bytes())
    model = VIDEO_MODELS["tiny"]
    for finder, recogniser in (("yunet", "sface"), ("stand-in", own), ("drawn", "drawn"), ("auto", "auto")):
        wanted = RewardSettings(face_detector=finder, face_model=recogniser)
        opened = faces.open_faces(wanted, model, offline=False, events=Events())
        signatures = faces.signatures(wanted, model)
        assert signatures == (opened.detector.made_by, opened.recogniser.made_by)
        reward = identity.IdentityReward(opened, _references())
        assert identity.made_by(*signatures) == reward.made_by
    monkeypatch.setattr(faces.hub, "known_commit", lambda source: None)
    assert faces.signatures(RewardSettings(face_detector="yunet"), model) is None
    assert faces.signatures(RewardSettings(face_model=str(tmp_path / "gone.onnx")), model) is None


def test_who_was_said_to_judge_is_opened_whatever_a_branch_means_by_then(hub: HubServer, tmp_path: Path) -> None:
    """`main` moves, and another program asks for it, between the name and the opening; the next evaluation sees it."""
    source, model = FACE_MODELS["sface"].source, FACE_MODELS["sface"]
    for number in range(2):
        write_recogniser(tmp_path / f"{number}" / model.file, seed=number)
    first = hub.add(source.repo, tmp_path / "0")
    chosen = config.resolve(
        {"model.name": "tiny", "rewards.face_detector": "stand-in", "rewards.face_model": "sface"}
    ).settings
    photos, store = Photos(drawn_photos(tmp_path / "photos", 2)), Store(tmp_path / "store")

    def fetched(settings: Any = chosen) -> faces.Faces:
        return faces.open_faces(settings.rewards, VIDEO_MODELS["tiny"], offline=False, events=Events())

    old, clip = fetched(), Clip(np.zeros((2, 64, 64, 3), np.uint8), 8.0, "")
    likeness = Likeness(chosen, photos, store, Events())
    assert first in likeness.recognisers["face_sim_reward"]
    second = hub.add(source.repo, tmp_path / "1")
    new = fetched()
    assert second in new.recogniser.made_by
    opened = likeness._open()[1].recogniser
    assert opened.made_by == likeness.recognisers["face_sim_reward"] == old.recogniser.made_by
    face, picture = faces.Face((0, 0, 112, 112), faces.TEMPLATE, 1.0), photos.pictures()[0]
    assert np.array_equal(opened.embed(picture, face), old.recogniser.embed(picture, face))
    assert not np.array_equal(opened.embed(picture, face), new.recogniser.embed(picture, face))
    assert likeness.look(clip, None)["frames"] == [0, 1]
    assert second in Likeness(chosen, photos, store, Events()).recognisers["face_sim_reward"]
    # Several evaluations of one table have the judges of the first.
    at = {source.repo: first}
    assert first in Likeness(chosen, photos, store, Events(), at).recognisers["face_sim_reward"]


@pytest.mark.parametrize("vlm", ["clip-vit-b-32", "qwen3-vl-2b", "drawn", "stand-in"])
def test_so_is_the_judge_of_prompt_following(vlm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fetched(source: Any, **_: Any) -> Fetched:
        return Fetched(tmp_path, source.revision)

    for module in ("clip", "qwen"):
        monkeypatch.setattr(f"magicid_cli.rewards.{module}.hub.fetch_repo", fetched)
    wanted, model = RewardSettings(vlm=vlm, sampled_frames=5), VIDEO_MODELS["tiny"]
    opened = semantics.open_judge(wanted, model, device="cpu", offline=True, events=Events())
    assert semantics.judge_made_by(wanted, model, device="cpu") == opened.made_by


def _references() -> Any:
    return np.eye(2, 8, dtype=np.float32)


# The plan


def large(**changes: Any) -> Any:
    return settings(**{"model.name": "hunyuan-video", "shape.size": "64x64", "shape.frames": 9, **changes})


def filled(workspace: Workspace, chosen: Any) -> None:
    """Scores of the judges that these settings name, which nobody has here."""
    job, judges = score._job(workspace, chosen), score.made_by(workspace, chosen)
    rows = [
        {
            "id": one.id,
            "reward": reward,
            "value": 1.0,
            "raw": {"value": 1.0},
            "made_by": judges[reward],
            "key": job.key(reward, str(judges[reward]), one),
            "content": one.content,
        }
        for reward in score.REWARDS
        for one in job.videos
    ]
    job.scores.settle(rows, {one.content for one in job.videos})


def estimated(judging: Judging | None) -> plan.Estimate:
    chosen, model = large(), VIDEO_MODELS["hunyuan-video"]
    return plan.estimate(
        chosen,
        machine=CPU,
        model=model,
        photos=1,
        todo={"score"},
        downloads=plan.downloads(chosen, model, {"score"}, judging),
        judging=judging,
    )


def test_motion_alone_needs_no_gpu_and_no_download(hub_of: dict[str, Path]) -> None:
    """As the review tried it: without any other judge on the machine, and without a GPU."""
    workspace = sampled()
    filled(workspace, large())
    left = score.to_do(workspace, large(), ["dynamics"])
    assert left == Judging(ALL, ("dynamics",), exact=True)
    found = estimated(left)
    assert (found.memory_gb, found.downloads, plan.check(found)) == (0.0, {}, [])
    (row,) = found.rows
    assert row.items == ALL
    everything = estimated(None)
    assert everything.memory_gb > 8 and "Qwen/Qwen3-VL-4B-Instruct" in everything.downloads
    assert [problem.code for problem in plan.check(everything)] == ["gpu-missing"]
    likeness = estimated(score.to_do(workspace, large(), ["identity"]))
    assert set(likeness.downloads) == {FACE_MODELS[name].source.repo for name in ("yunet", "sface")}


def test_the_plan_counts_the_clips_that_lack_a_score(
    hub_of: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = sampled()
    filled(workspace, settings())
    assert score.to_do(workspace, settings()) == Judging(0, (), exact=True)
    lines = workspace.scores.read_text().splitlines(keepends=True)
    workspace.scores.write_text("".join(lines[1:]))
    assert main(["score", "-n", "--json"]) == 0
    data = outcome(capsys)["data"]
    assert data["judging"] == {"clips": 1, "rewards": ["identity"], "exact": True}
    assert [row["items"] for row in data["stages"]] == [1]
    assert main(["score", "-n"]) == 0
    shown = capsys.readouterr().out
    assert "time, at most" in shown and "To judge: identity." in shown
    # Where nobody knows who would judge, all may be left.
    monkeypatch.setattr(faces.hub, "known_commit", lambda source: None)
    left = score.to_do(workspace, settings(**{"rewards.face_model": "sface"}))
    assert left.clips == ALL and left.at_most and not left.exact
