"""`magicid score` and `magicid pairs` at the command line.

Truth: the contract of the command line (streams, exit codes, 80 columns), scores written by hand, and the selection
stage, which must do what the what-if showed.
"""

import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from album import drawn_photos
from fake_run import outcome
from magicid_cli import config
from magicid_cli.cli import score as cli_score
from magicid_cli.cli.app import main
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.rewards.standin import StandInJudge
from magicid_cli.stages import score as stage
from magicid_cli.stages import select
from magicid_cli.workspace import Workspace, read_lines, write_lines
from small_repository import REWARDS, VIDEOS, Counted, files, sampled, scored, settings

ALL = len(VIDEOS)


def rows(text: str) -> list[str]:
    """Lines with every run of spaces made one."""
    return [" ".join(line.split()) for line in text.splitlines()]


# score


def test_score_scores_what_has_no_scores_and_shows_the_means(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, count = sampled(), Counted(monkeypatch)
    assert main(["score"]) == 0
    shown = capsys.readouterr()
    assert count.taken() == dict.fromkeys(REWARDS, ALL)
    values = {(row["id"], row["reward"]): row["value"] for row in read_lines(workspace.scores)}
    tuned = [values[name, "dynamics"] for name in ("tuned-000-0", "tuned-000-1")]
    lines = rows(shown.out)
    assert lines[0] == "REWARD ORIGIN VIDEOS MEAN MIN MAX"
    assert f"dynamics tuned 2 {fmean(tuned):.3f} {min(tuned):.3f} {max(tuned):.3f}" in lines
    assert "face found static 1 1.000 1.000 1.000" in lines
    assert any(line.startswith("dynamics by DIS") for line in lines)
    assert "[1/1] Rewards: started (not begun)" in shown.err
    assert shown.err.endswith("Pairs that follow: magicid pairs alice\n")
    # Once more there is nothing to do.
    assert main(["score", "alice", "--videos"]) == 0
    shown = capsys.readouterr()
    assert count.taken() == {} and shown.err.startswith("Nothing had to be scored.")
    row = next(line for line in rows(shown.out) if line.startswith("tuned-000-1 "))
    raw = {row["reward"]: row["raw"] for row in read_lines(workspace.scores) if row["id"] == "tuned-000-1"}
    figures = [raw["dynamics"]["value"], raw["dynamics"]["subject"], raw["semantics"]["value"]]
    # These photos are no more alike than strangers': there is nothing to divide likeness by.
    likeness = [f"{raw['identity']['value']:.3f}", "-", "1.000"]
    assert row == " ".join(["tuned-000-1", "tuned", *likeness, *(f"{figure:.3f}" for figure in figures)])
    assert workspace.manifest()["stages"]["score"]["state"] == "done"


def test_again_forgets_one_reward_and_a_flag_changes_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, count = sampled(), Counted(monkeypatch)
    assert main(["score", "-q"]) == 0
    assert capsys.readouterr().out == f"{workspace.scores}\n"
    before = workspace.scores.read_bytes()
    count.taken()
    assert main(["score", "alice", "--again", "identity", "--again", "dynamics"]) == 0
    assert count.taken() == {"identity": ALL, "dynamics": ALL}
    assert workspace.scores.read_bytes() == before
    capsys.readouterr()
    assert main(["score", "alice", "--vlm", "drawn", "--json"]) == 0
    assert count.taken() == {"semantics": ALL}
    data = outcome(capsys)["data"]
    assert "drawn prompt scorer" in data["judges"]["semantics"]
    assert {video["id"] for video in data["videos"]} == {name for name, *_ in VIDEOS}
    beside = {"relative", "first_half", "second_half", "camera", "subject"}
    assert all(video.keys() == {"id", "origin", "face_found", *REWARDS, *beside} for video in data["videos"])
    assert main(["score", "alice", "--again", "beauty"]) == 2


def test_new_scores_leave_the_adapter_in_use_and_what_follows_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    from magicid_cli.cli.identity import stage_states

    workspace = sampled()
    assert main(["score", "-q"]) == 0
    done = workspace.manifest()["stages"]
    later = {name: {"state": "done", "begun": 3.0} for name in ("select", "prefer")}
    workspace.update(stages={**done, **later}, adapter="prefer/adapter.safetensors", finished=5.0)
    assert main(["score", "-q", "--again", "identity"]) == 0  # the same scores again
    assert stage_states(workspace.manifest())["select"] == "done"
    assert main(["score", "-q", "--vlm", "drawn"]) == 0
    assert stage_states(workspace.manifest())["select"] == "stale"
    assert workspace.manifest()["adapter"] == "prefer/adapter.safetensors"


def test_score_names_what_is_set_aside(capsys: pytest.CaptureFixture[str]) -> None:
    workspace = sampled()
    (workspace.repository / "clips" / "tuned-000-0.mp4").write_bytes(b"")
    assert main(["score"]) == 0
    shown = capsys.readouterr()
    assert "clips/tuned-000-0.mp4 the file is empty" in rows(shown.out)
    (workspace.repository / "clips" / "tuned-000-0.mp4").write_bytes(b"no video")
    assert main(["score"]) == 0
    shown = capsys.readouterr()
    assert any(line.startswith("clips/tuned-000-0.mp4 cannot be read: ") for line in rows(shown.out))
    assert "Set aside" in shown.err


def test_a_dry_run_scores_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, count = sampled(), Counted(monkeypatch)
    before = files(workspace.path)
    assert main(["score", "-n"]) == 0
    assert "score" in capsys.readouterr().out and count.taken() == {} and files(workspace.path) == before


def test_a_stop_says_how_to_go_on_and_loses_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled()
    count = Counted(monkeypatch)
    real = stage.Job.keep

    def stop(job: stage.Job, *arguments: Any) -> None:
        real(job, *arguments)
        if job.made == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(stage.Job, "keep", stop)
        assert main(["score", "alice", "--json"]) == 130
    assert outcome(capsys)["error"]["code"] == "interrupted"
    assert count.taken() == {"identity": 2, "dynamics": 2}
    assert main(["pairs", "alice", "--json"]) == 1
    assert "magicid score alice" in outcome(capsys)["error"]["hint"]
    assert main(["score", "alice"]) == 0
    assert count.taken() == {"identity": ALL - 2, "dynamics": ALL - 2, "semantics": ALL}


def test_an_identity_that_is_being_worked_on_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    sampled()
    code = (
        "import time; from magicid_cli.workspace import Workspace\n"
        "with Workspace('alice').lock(): print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    try:
        assert main(["score", "alice", "--json"]) == 1
        assert outcome(capsys)["error"]["code"] == "identity-busy"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("command", ["score", "pairs"])
def test_without_videos_the_next_command_is_customize(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace("alice")
    workspace.create()
    workspace.update(stages={"ingest": {"state": "done", "begun": 1.0}})
    assert main([command, "--json"]) == 1
    error = outcome(capsys)["error"]
    assert error["code"] == "scores-missing" and error["hint"].endswith("magicid customize PHOTOS --name alice")
    assert "not sampled" in error["message"]


def test_settings_of_the_last_run_hold_unless_a_flag_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    from magicid_cli.cli.identity import recorded_settings

    workspace, recorded = scored(), settings()
    monkeypatch.setenv("MAGICID_PAIRS_COUNT", "3")
    monkeypatch.setenv("MAGICID_MODEL_DEVICE", "cpu")
    found = recorded_settings(workspace, {"pairs.tau": 2.5})
    assert found.pairs.count == recorded.pairs.count != 3
    assert found.model.device == "cpu" != recorded.model.device
    assert (found.pairs.tau, found.seed, found.model.name) == (2.5, 7, "tiny")
    assert config.with_values(found, {"pairs.tau": None, "model.device": "auto"}) == recorded


def test_what_is_stored_beside_the_rewards_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The bias guard, whose motion it is, whether likeness fades, and whether the question was understood."""
    workspace = scored()
    lines = read_lines(workspace.scores)
    beside = {
        "identity": {"relative": 0.75, "first_half": 0.6, "second_half": 0.4},
        "dynamics": {"camera": 3.0, "subject": 1.25},
        "semantics": {"mass": 0.3},
    }
    for row in lines:
        row["raw"] |= beside[row["reward"]]
    write_lines(workspace.scores, lines)
    data = cli_score.summary(workspace)
    expected = {name: value for values in beside.values() for name, value in values.items()}
    assert all(video.items() >= expected.items() for video in data["videos"])
    tuned = next(row for row in data["origins"] if (row["reward"], row["origin"]) == ("relative", "tuned"))
    assert (tuned["mean"], tuned["min"], tuned["max"]) == (0.75, 0.75, 0.75)
    table = rows(cli_score._by_origin(data["origins"]).text())
    assert "relative tuned 16 0.750 0.750 0.750" in table and "subject static 3 1.250 1.250 1.250" in table
    assert rows(cli_score._by_video(data["videos"]).text())[0].startswith("VIDEO ORIGIN IDENTITY RELATIVE FACE")
    assert "probability of 0.30 only (median of 19 videos)" in data["doubt"]
    for row in lines[-len(lines) // 3 :]:
        row["raw"]["mass"] = 0.5
    write_lines(workspace.scores, lines)
    assert cli_score.summary(workspace)["doubt"] is None


def test_a_judge_that_does_not_understand_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When it judges, and whenever its scores are looked at."""
    sampled()
    real = StandInJudge.score
    monkeypatch.setattr(StandInJudge, "score", lambda self, clip: {**real(self, clip), "mass": 0.2})
    for _ in range(2):
        assert main(["score"]) == 0
        shown = capsys.readouterr()
        assert " ".join(shown.err.split()).count("probability of 0.20 only") == 1


# pairs


def test_pairs_are_shown_with_raw_and_scaled_rewards_and_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    workspace = scored()
    pairs = read_lines(workspace.pairs)
    assert {pair["kind"] for pair in pairs} == {"identity", "dynamic"}
    assert main(["pairs"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    lines, words = rows(shown.out), " ".join(shown.out.split())
    for pair in pairs:
        assert " ".join(pair["why"].split()) in words
        for side in (pair["winner"], pair["rejected"]):
            figures = [
                f"{side['rewards'][name]['raw']:.3f} ({side['rewards'][name]['scaled']:.1f})" for name in REWARDS
            ]
            assert any(line.endswith(" ".join([side["id"], *figures])) for line in lines)
    assert lines[0].startswith("Pairs of 'alice': ") and "tau: " in words


def test_pairs_as_data_and_as_names(capsys: pytest.CaptureFixture[str]) -> None:
    workspace = scored()
    pairs = read_lines(workspace.pairs)
    assert main(["pairs", "--json"]) == 0
    data = outcome(capsys)["data"]
    assert data["pairs"] == pairs and data["what_if"] is None
    assert sum(data["selected"].values()) == len(pairs)
    assert main(["pairs", "-q"]) == 0
    names = [f"{pair['winner']['id']} {pair['rejected']['id']}" for pair in pairs]
    assert capsys.readouterr().out.splitlines() == names


WHAT_IF = [
    {"pairs.tau": 1.5},
    {"pairs.identity_share": 0.0},
    {"pairs.count": 3, "pairs.held_out": 0},
    {"pairs.rewards": "identity"},
    {"pairs.dynamics": "subject"},
    {"pairs.fronts": "global"},
    {"pairs.dynamic_rule": "motion-gap", "pairs.identity_tolerance": 9.0, "pairs.identity_share": 0.0},
    {"seed": 3},
]


@pytest.mark.parametrize("changes", WHAT_IF, ids=str)
def test_a_what_if_touches_nothing_and_is_what_selection_then_does(
    changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = scored()
    now = read_lines(workspace.pairs)
    flags = [str(word) for name, value in changes.items() for word in (config.KNOBS[name].flag, value)]
    before = files(workspace.path)
    assert main(["pairs", "alice", *flags, "--json"]) == 0
    data = outcome(capsys)["data"]
    assert main(["pairs", "alice", *flags]) == 0
    shown = capsys.readouterr()
    assert files(workspace.path) == before
    assert "Nothing was written." in shown.out and "customize" in shown.err
    assert data["what_if"] == {config.KNOBS[name].flag: value for name, value in changes.items()}
    select.run(workspace, settings(**changes), Events())
    assert data["pairs"] == read_lines(workspace.pairs)
    both = {(p["winner"]["id"], p["rejected"]["id"]) for p in now} & {
        (p["winner"]["id"], p["rejected"]["id"]) for p in data["pairs"]
    }
    assert data["kept"] == len(both)
    assert f"in both {len(both)} {len(both)}" in rows(shown.out)


def test_the_prompt_of_an_identity_pair_is_the_rejected_video_s_or_the_static_clip_s() -> None:
    """Against the records of the videos; a dynamic pair's videos share their prompt."""
    workspace = scored()
    prompts = {row["id"]: row["prompt"] for row in read_lines(workspace.repository / "videos.jsonl")}
    for which, side in (("rejected", "rejected"), ("static", "winner")):
        pairs = select.choose(workspace, settings(**{"pairs.prompt": which})).rows
        assert {pair["kind"] for pair in pairs} == {"identity", "dynamic"}
        for pair in pairs:
            of = side if pair["kind"] == "identity" else "winner"
            assert pair["prompt"] == prompts[pair[of]["id"]]
            assert pair["kind"] == "identity" or pair["prompt"] == prompts[pair["rejected"]["id"]]


def test_rules_that_leave_no_pair_are_an_error_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    workspace = scored()
    before = files(workspace.path)
    assert main(["pairs", "--tau", "-5", "--identity-share", "1", "--json"]) == 1
    error = outcome(capsys)["error"]
    assert error["code"] == "pairs-none" and "more than tau" in error["message"]
    assert files(workspace.path) == before


def test_without_a_pair_what_is_set_aside_is_made_again_first(capsys: pytest.CaptureFixture[str]) -> None:
    """A what-if writes no counts, so it points to none; only the stage does."""
    workspace = scored()
    names = [row["id"] for row in read_lines(workspace.repository / "videos.jsonl")]
    for aside, hint in (([], "--tuned 200"), (names[1:], "magicid customize PHOTOS --name alice")):
        write_lines(workspace.set_aside, [{"id": name, "clip": f"clips/{name}.mp4", "why": "gone"} for name in aside])
        flags = [] if aside else ["--identity-share", "1"]
        assert main(["pairs", "--tau", "-5", *flags, "--json"]) == 1
        error = outcome(capsys)["error"]
        assert error["code"] == "pairs-none" and hint in error["hint"] and "pairs.json" not in error["hint"]
    with pytest.raises(MagicIDError) as caught:
        select.run(workspace, settings(), Events())
    assert caught.value.hint.endswith("--name alice --seed 7")
    assert caught.value.message.endswith("see set-aside.jsonl); pairs.json has the counts.")


def test_the_number_of_pairs_has_two_spellings(capsys: pytest.CaptureFixture[str]) -> None:
    scored()
    found = []
    for flag in ("--pairs", "--pair-count"):
        assert main(["pairs", "alice", flag, "3", "--json"]) == 0
        found.append(outcome(capsys)["data"])
    assert found[0] == found[1] and found[0]["what_if"] == {"--pair-count": 3}


@pytest.mark.parametrize("command", [["pairs", "alice"], ["customize", "photos", "--name", "bob", "--dry-run"]])
def test_pairs_by_motion_gap_need_motion_as_a_reward(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Told when nothing was computed yet."""
    scored()
    photos = str(drawn_photos(tmp_path / "photos", 1)[0].parent)
    flags = ["--dynamic-rule", "motion-gap", "--pair-rewards", "identity", "--json"]
    assert main([photos if word == "photos" else word for word in command] + flags) == 2
    assert outcome(capsys)["error"]["code"] == "settings-invalid"


def test_pairs_that_were_not_selected_yet_are_shown_as_they_would_be(capsys: pytest.CaptureFixture[str]) -> None:
    workspace = scored()
    expected = read_lines(workspace.pairs)
    stages = workspace.manifest()["stages"]
    stages.pop("select")
    workspace.update(stages=stages)
    workspace.pairs.unlink()
    assert main(["pairs"]) == 0
    shown = capsys.readouterr()
    assert "would give" in shown.out and "magicid customize PHOTOS --name alice" in shown.err
    assert main(["pairs", "--json"]) == 0
    assert outcome(capsys)["data"]["pairs"] == expected
    assert not workspace.pairs.exists()


@pytest.mark.parametrize("arguments", [["score"], ["score", "--videos"], ["pairs"], ["pairs", "--pair-count", "5"]])
def test_the_tables_fit_into_80_columns(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    workspace = scored(prompts=12, videos=3)
    if arguments[0] == "score":
        text = _shown_summary(workspace, by_video="--videos" in arguments)
    else:
        assert main(arguments) == 0
        text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80


def _shown_summary(workspace: Workspace, *, by_video: bool) -> str:
    data = cli_score.summary(workspace)
    table = cli_score._by_video(data["videos"]) if by_video else cli_score._by_origin(data["origins"])
    return table.text()


def test_the_home_is_not_made_by_looking(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pairs", "--json"]) == 2
    assert outcome(capsys)["error"]["code"] == "identity-missing"
    assert not Workspace("alice").path.exists()
