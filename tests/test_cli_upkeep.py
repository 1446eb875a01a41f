"""`status`, `ls`, `rm`, `cache`, `config` and `doctor`: against the contract, and folders made by hand.

Truth: what lies on disk before and after, and the order in which settings are looked up.
"""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fake_run
from fake_run import outcome
from magicid_cli import __version__
from magicid_cli.cli.app import main
from magicid_cli.cli.elsewhere import remember
from magicid_cli.cli.identity import gigabytes
from magicid_cli.cli.output import Terminal
from magicid_cli.config import KNOBS
from magicid_cli.hub import hub_cache
from magicid_cli.workspace import Workspace, append_line, data_home

REPO = "opencv/face_detection_yunet"


def rows(text: str) -> list[str]:
    """Lines with every run of spaces made one."""
    return [" ".join(line.split()) for line in text.splitlines()]


# ls, status


def test_ls_shows_every_identity_and_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    assert "Make one: magicid customize" in capsys.readouterr().out
    fake_run.identity("bob", model="hunyuan-video", ingest="done", reconstruct="running")
    alice = fake_run.identity("alice")
    alice.videos.mkdir()
    (alice.videos / "one.mp4").write_bytes(b"x" * 3_000_000)
    assert main(["ls"]) == 0
    lines = rows(capsys.readouterr().out)
    assert lines[0] == "NAME MODEL STATE VIDEOS SIZE CREATED"
    assert lines[1].startswith("alice tiny finished 1 3 MB 20")
    assert lines[2].startswith("bob hunyuan-video 1/6, next reconstruct 0 ")
    assert main(["ls", "-q"]) == 0
    assert capsys.readouterr().out == "alice\nbob\n"


def test_a_damaged_identity_is_listed_and_can_be_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    fake_run.identity("alice").manifest_path.write_text("{")
    assert main(["ls", "--json"]) == 0
    assert outcome(capsys)["data"]["identities"][0]["state"] == "manifest damaged"
    assert main(["status", "alice", "--json"]) == 1
    assert outcome(capsys)["error"]["code"] == "manifest-unreadable"
    fake_run.identity("bob").update(format=99)
    assert main(["ls", "--json"]) == 0
    assert outcome(capsys)["data"]["identities"][1]["state"] == "made by another version"
    assert main(["rm", "alice", "--yes"]) == 0
    assert not Workspace("alice").path.exists()


def test_status_from_another_process_while_it_runs_and_after_it_was_killed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    workspace = fake_run.identity("alice", ingest="done", reconstruct="running")
    append_line(workspace.events, {"time": time.time() - 100, "kind": "step", "stage": "ingest", "step": 3, "of": 3})
    event = {"time": time.time() - 100, "kind": "step", "stage": "reconstruct", "step": 120, "of": 1000}
    append_line(workspace.events, event)
    code = (
        "import sys, time; from magicid_cli.workspace import Workspace\n"
        "with Workspace('alice').lock(): print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    try:
        assert main(["status"]) == 0
        lines = rows(capsys.readouterr().out)
        assert lines[1].startswith(f"running: process {process.pid} on ")
        assert lines[2] == "last event: 2 min ago"
        assert any(line.startswith("reconstruct running 120/1000 1970-") for line in lines)
        assert "prefer not begun - - -" in lines
        assert main(["ls"]) == 0
        assert "(running)" in capsys.readouterr().out
        assert main(["rm", "alice", "--yes", "--json"]) == 1
        assert outcome(capsys)["error"]["code"] == "identity-busy"
        assert workspace.events.is_file()
    finally:
        process.kill()
        process.communicate()
    assert main(["status", "--json"]) == 0
    data = outcome(capsys)["data"]
    assert data["running"] is None
    assert [row["state"] for row in data["stages"][:3]] == ["done", "interrupted", "not begun"]
    assert data["stages"][1]["progress"] == "120/1000"
    assert 99 < data["last_event_age_s"] < 160


def test_while_a_stage_is_redone_what_follows_it_is_stale(capsys: pytest.CaptureFixture[str]) -> None:
    def states() -> list[str]:
        assert main(["status", "--json"]) == 0
        return [row["state"] for row in outcome(capsys)["data"]["stages"]]

    workspace = fake_run.identity("alice")
    stages = workspace.manifest()["stages"]
    again = {"state": "running", "begun": 5.0}
    workspace.update(stages={**stages, "reconstruct": again}, finished=None)
    assert states() == ["done", "interrupted", *["stale"] * 4]
    assert main(["ls"]) == 0
    assert " 1/6, next reconstruct " in rows(capsys.readouterr().out)[1]
    # Photos gave the same crops as before: stage 1 was found good on the way to the stage that runs now.
    ingest = {"state": "done", "begun": 7.0, "finished": 8.0}
    workspace.update(stages={**stages, "ingest": ingest, "sample": {"state": "running", "begun": 9.0}})
    assert states() == ["done", "done", "interrupted", *["stale"] * 3]
    workspace.update(stages={**stages, "ingest": ingest}, finished=10.0)
    assert states() == ["done"] * 6


def test_status_of_several_needs_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    fake_run.identity("alice")
    fake_run.identity("bob")
    assert main(["status"]) == 2
    assert "alice, bob" in capsys.readouterr().err
    assert main(["status", "BOB"]) == 0
    assert capsys.readouterr().out.startswith("bob (tiny)")


# rm


@pytest.fixture
def alice(tmp_path: Path) -> Workspace:
    """An identity with files, an export and a video elsewhere, and a link that leads out."""
    workspace = fake_run.identity("alice")
    for folder in (workspace.references, workspace.repository / "clips", workspace.videos):
        folder.mkdir(parents=True)
        (folder / "000.bin").write_bytes(b"x" * 1000)
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("export", "video.mp4", "linked"):
        (outside / name).write_bytes(b"x")
    workspace.update(exports=[str(outside / "export"), str(outside / "gone")])
    append_line(workspace.videos / "videos.jsonl", {"file": str(outside / "video.mp4")})
    append_line(workspace.videos / "videos.jsonl", {"file": str(workspace.videos / "000.bin")})
    (workspace.path / "link").symlink_to(outside, target_is_directory=True)
    return workspace


def test_rm_lists_all_it_will_delete_and_names_what_lies_elsewhere(
    alice: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rm", "alice", "-n"]) == 0
    text = capsys.readouterr().out
    listed = {line.split()[0] for line in rows(text) if line}
    assert {path.name for path in alice.path.iterdir()} <= listed
    assert "references photos' verdicts, crops and captions 1 1 kB" in rows(text)
    assert f"  {tmp_path / 'outside' / 'export'}\n  {tmp_path / 'outside' / 'video.mp4'}\n" in text
    assert "gone" not in text


def test_rm_names_exports_of_methods_and_pages_that_were_written_while_somebody_worked(
    alice: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, export = tmp_path / "page.html", tmp_path / "of-a-method"
    method = alice.of_method("dreambooth")
    for path in (page, export):
        path.write_bytes(b"x")
    method.create()
    method.update(exports=[str(export)])
    with alice.lock():
        remember(Terminal(), alice, [page])
    assert str(page) not in alice.manifest()["exports"]
    assert "is working on 'alice'" in capsys.readouterr().err
    assert main(["rm", "alice", "-n"]) == 0
    text = capsys.readouterr().out
    assert f"  {export}\n" in text and f"  {page}\n" in text
    assert "reports and their previews" in text
    assert alice.exists


def test_rm_deletes_nothing_without_a_yes(
    alice: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rm", "alice", "--json"]) == 2
    assert outcome(capsys)["error"]["code"] == "confirmation-missing"
    monkeypatch.setattr(Terminal, "interactive", True)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["rm", "alice"]) == 1
    shown = capsys.readouterr().err
    assert (
        shown.index("references") < shown.index("Delete 'alice' for good? [y/N]") < shown.index("Nothing was deleted")
    )
    assert alice.exists


@pytest.mark.parametrize("typed", ["y", None])
def test_rm_deletes_every_copy_and_nothing_else(
    alice: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str | None,
) -> None:
    fake_run.identity("bob")
    monkeypatch.setattr(Terminal, "interactive", typed is not None)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{typed}\n"))
    assert main(["rm", "alice", *([] if typed else ["-y"])]) == 0
    assert "references photos' verdicts, crops and captions 1 1 kB" in rows(capsys.readouterr().err)
    assert not alice.path.exists()
    assert Workspace("bob").exists
    assert sorted(path.name for path in (tmp_path / "outside").iterdir()) == ["export", "linked", "video.mp4"]
    assert not [path for path in data_home().rglob("*") if "alice" in path.name]


def test_rm_finishes_what_was_interrupted(alice: Workspace) -> None:
    alice.manifest_path.unlink()
    assert main(["rm", "alice", "-y"]) == 0
    assert not alice.path.exists()


# cache


def test_cache_lists_and_deletes_weights(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "path"]) == 0
    assert capsys.readouterr().out == f"{hub_cache()}\n"
    snapshot = hub_cache() / "models--opencv--face_detection_yunet" / "snapshots" / ("a1" * 20)
    snapshot.mkdir(parents=True)
    (snapshot / "model.onnx").write_bytes(b"x" * 232_589)
    assert main(["cache"]) == 0
    lines = rows(capsys.readouterr().out)
    assert lines[1] == f"{REPO} a1a1a1a1a1a1 1 233 kB MIT"
    assert lines[-1] == f"233 kB in {hub_cache()}"
    assert main(["cache", "ls", "-q"]) == 0
    assert capsys.readouterr().out == f"{REPO}\n"
    assert main(["cache", "rm", REPO]) == 2  # nobody to ask
    assert main(["cache", "rm", "../../etc", "--yes"]) == 2
    assert snapshot.is_dir()
    assert main(["cache", "rm", REPO, "--yes"]) == 0
    assert not snapshot.exists()
    capsys.readouterr()


# config


def test_config_shows_each_value_and_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data_home().mkdir(parents=True)
    user, project = data_home() / "config.toml", tmp_path / "magicid.toml"
    user.write_text('seed = 1\n[photos]\nlimit = 1\n[model]\nname = "tiny"\n')
    project.write_text("[photos]\nlimit = 2\nmin_face = 32\n")
    monkeypatch.setenv("MAGICID_PHOTOS_MIN_FACE", "48")
    assert main(["config", "show", "--preset", "paper", "--json"]) == 0
    found = {row["name"]: row for row in outcome(capsys)["data"]["settings"]}
    assert list(found) == list(KNOBS)
    for name, value, origin in [
        ("seed", 1, str(user)),
        ("photos.limit", 2, str(project)),
        ("photos.min_face", 48, "environment MAGICID_PHOTOS_MIN_FACE"),
        ("shape.size", "64x64", "model tiny"),
        ("prefer.steps", 5000, "preset paper (flag)"),
        ("adapter.rank", 4, "model tiny"),
        ("photos.class_word", "person", "default"),
    ]:
        assert (found[name]["value"], found[name]["origin"]) == (value, origin)
    assert found["prefer.beta"] == {
        "name": "prefer.beta",
        "value": None,
        "origin": "default",
        "flag": "--beta",
        "variable": "MAGICID_PREFER_BETA",
    }


def test_config_path_names_what_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "path", "-q"]) == 0
    assert capsys.readouterr().out == f"{data_home() / 'config.toml'}\n"
    assert main(["config", "path", "--json"]) == 0
    assert outcome(capsys)["data"]["project_settings"] == str(Path.cwd() / "magicid.toml")


def test_a_broken_file_of_settings_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "magicid.toml").write_text("[prefer\n")
    assert main(["config"]) == 2
    assert str(tmp_path / "magicid.toml") in capsys.readouterr().err


# doctor


def test_doctor_is_one_page_without_a_name_or_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home-of-somebody"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MAGICID_HOME", str(home / "magicid"))
    fake_run.identity("alice")
    assert main(["doctor"]) == 0
    page = capsys.readouterr().out
    assert f"magicid  {__version__}" in page
    assert "1 in ~/magicid" in page
    assert "InsightFace: non-commercial research only (no commercial use)" in page
    assert "problem" in page
    assert "FACE FINDERS\nyunet" in page and "yunet" not in page.partition("FACE MODELS")[2]
    for name in ("auraface", "drawn", "drawn-judge"):  # what `--face-model` takes
        assert f"\n{name} " in page.partition("FACE MODELS")[2]
    assert "alice" not in page
    assert "home-of-somebody" not in page
    assert len(page.splitlines()) < 60


def test_doctor_says_which_flow_auto_takes_and_how_to_get_the_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The words are those of `flow.choose` and `flow.raft_lack`, which have tests of their own."""
    from magicid_cli.rewards import flow

    lacks = [flow.Lack("torchvision is not installed", "python -m pip install torchvision"), None]
    for lack, taken, way in zip(lacks, ("DIS", "RAFT"), ("get it: python -m pip install", "--flow raft"), strict=True):
        monkeypatch.setattr(flow, "raft_lack", lambda lack=lack: lack)
        assert main(["doctor", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["data"]["optical_flow"]
        assert told["auto"].startswith(f"{taken}, because ") and told["raft"].startswith(way)
        assert told["dis"] == "--flow dis"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (232_589, "233 kB"), (41_900_000_000, "41.9 GB"), (4e12, "4000 GB")],
)
def test_sizes_are_spoken(size: float, text: str) -> None:
    assert gigabytes(size) == text
