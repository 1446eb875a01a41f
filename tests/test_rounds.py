"""On-policy rounds, on the tiny model.

Truth: the first round alone (nothing of it may change), the uninterrupted run (a run that was cut in a later round must
end alike in every bit), seeds and files written down here by hand, and the command line's own promises.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from album import SMALL
from magicid_cli import config, generation, guards, pipeline, plan
from magicid_cli.cli.app import main
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.export import card
from magicid_cli.guards.keeping import Guard
from magicid_cli.guards.rules import Seen
from magicid_cli.guards.watching import started_by
from magicid_cli.rounds import folder_of, named, number_of, rounds_done, stage_of
from magicid_cli.stages import prefer
from magicid_cli.workspace import Workspace, digest, file_digest, read_json, read_lines, write_lines

pytestmark = pytest.mark.xdist_group("finished")

SECOND = ["sample@2", "score@2", "select@2", "prefer@2"]


def customize(home: Path, events: Events | None = None, **changes: Any) -> pipeline.CustomizeResult:
    resolved = config.resolve({**SMALL, **changes}, project=home)
    return pipeline.run(Workspace("alice"), resolved, sorted((home / "photos").glob("*.png")), events or Events())


def stale(home: Path, **changes: Any) -> list[str]:
    """Names of the stages that would run."""
    settings = config.resolve({**SMALL, **changes}, project=home).settings
    found = pipeline.states(Workspace("alice"), settings, sorted((home / "photos").glob("*.png")))
    return [state.name for state in found if state.state != "cached"]


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def first_round(workspace: Workspace) -> dict[str, str]:
    """Every file that a first round leaves, and its records in the manifest."""
    files: dict[str, str] = {}
    for path in (workspace.references, workspace.reconstruct, workspace.repository, workspace.prefer):
        files |= {f"{path.name}/{name}": value for name, value in contents(path).items()}
    for path in (workspace.scores, workspace.pairs, workspace.pairs_report):
        files[path.name] = file_digest(path)
    records = workspace.manifest()["stages"]
    return files | {name: digest(records[name]) for name in pipeline.ORDER}


def second_round(workspace: Workspace) -> dict[str, Any]:
    """What the second round leaves, without its times."""
    later = workspace.round(2)
    files = {name: value for name, value in contents(later.prefer.parent).items() if "checkpoints/" not in name}
    timed = ("prefer/metrics.jsonl", "prefer/looks.jsonl")
    rows = [[{**row, "seconds": 0} for row in read_lines(later.prefer.parent / name)] for name in timed]
    return {"files": {name: value for name, value in files.items() if name not in timed}, "rows": rows}


@pytest.fixture(scope="session")
def twice_home(finished_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose identity went through two rounds; copy it before changing anything."""
    home = tmp_path_factory.mktemp("twice") / "home"
    shutil.copytree(finished_home, home)
    before = os.environ.get("MAGICID_HOME")
    os.environ["MAGICID_HOME"] = str(home)
    try:
        once = first_round(Workspace("alice"))
        done = customize(home, rounds=2)
        # Raised later: nothing of the first round runs again or changes.
        assert (done.stages_run, done.stages_cached) == (SECOND, list(pipeline.ORDER))
        assert first_round(Workspace("alice")) == once
    finally:
        if before is None:
            del os.environ["MAGICID_HOME"]
        else:
            os.environ["MAGICID_HOME"] = before
    return home


@pytest.fixture
def twice(twice_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private copy of it, already the one in use."""
    home = tmp_path / "twice-home"
    shutil.copytree(twice_home, home)
    monkeypatch.setenv("MAGICID_HOME", str(home))
    yield home


# names and places


def test_names_and_folders_of_rounds() -> None:
    assert [named("sample", number) for number in (1, 2, 10)] == ["sample", "sample@2", "sample@10"]
    assert [(stage_of(name), number_of(name)) for name in ("prefer", "prefer@3")] == [("prefer", 1), ("prefer", 3)]
    assert folder_of(Path("alice"), 1) == Path("alice") and folder_of(Path("alice"), 3) == Path("alice/rounds/3")
    first, third = Workspace("alice"), Workspace("alice").round(3)
    assert third.path == first.path and third.manifest_path == first.manifest_path
    assert (third.references, third.reconstruct) == (first.references, first.reconstruct)
    assert third.prefer == first.path / "rounds" / "3" / "prefer" and third.round(1).prefer == first.prefer
    assert first.start == first.reconstruct / "adapter.safetensors"
    assert third.start == first.path / "rounds" / "2" / "prefer" / "adapter.safetensors"
    assert first.round(2).start == first.prefer / "adapter.safetensors"


def test_a_run_has_the_stages_of_its_rounds() -> None:
    settings = config.resolve({**SMALL, "rounds": 3}).settings
    assert pipeline.needed(settings) == (*pipeline.ORDER, *SECOND, *(name.replace("2", "3") for name in SECOND))
    # Without stage 2 there is nothing to repeat.
    alone = config.with_values(settings, {"prefer.steps": 0})
    assert pipeline.needed(alone) == ("ingest", "reconstruct")
    with pytest.raises(MagicIDError, match="rounds"):
        config.resolve({"rounds": 0})


def test_what_came_of_rounds_is_read_from_their_records() -> None:
    """The record of a version without guards has neither a chosen step nor a reason."""
    old: dict[str, Any] = {"pairs": 3, "steps": 8}
    new: dict[str, Any] = {"pairs": 4, "chosen": 6, "stopped": "saturation", "why": "because"}
    found = {"prefer": old, "prefer@2": new, "select": {"pairs": 9}}
    records = {name: {"result": result} for name, result in found.items()}
    assert rounds_done(records, ["select", "prefer", "prefer@2"]) == (
        {"round": 1, "pairs": 3, "chosen": None, "stopped": None, "why": ""},
        {"round": 2, **new},
    )
    assert rounds_done(records, ["ingest", "reconstruct"]) == ()


# what a later round does


def test_the_second_round_goes_on_from_the_first_ones_adapter(twice: Path) -> None:
    workspace = Workspace("alice")
    later, adapter = workspace.round(2), file_digest(workspace.prefer / "adapter.safetensors")
    videos = {row["id"]: row for row in read_lines(later.repository / "videos.jsonl")}
    before = {row["id"]: row for row in read_lines(workspace.repository / "videos.jsonl")}
    assert videos.keys() == before.keys()
    for name, row in videos.items():
        assert row["prompt"] == before[name]["prompt"]
        assert row["made_by"].get("adapter") == (adapter if row["origin"] == "tuned" else None)
        if row["origin"] != "static":
            # Seeds as written down: of the run's seed and the name; in a later round of its number, too.
            assert before[name]["seed"] == int(digest([7, name])[:12], 16)
            assert row["seed"] == int(digest([7, 2, name])[:12], 16)
            assert row["clip_sha256"] != before[name]["clip_sha256"]
    # Policy and reference are the first round's adapter: before the first update no error differs.
    assert read_lines(later.prefer / "metrics.jsonl")[0]["margin"] == 0.0
    assert read_lines(later.prefer / "metrics.jsonl")[-1]["margin"] != 0.0
    record = workspace.manifest()["stages"]["prefer@2"]
    settings = config.resolve(SMALL, project=twice).settings
    assert prefer.trained_on(later)["adapter"] == adapter
    assert record["key"] == pipeline.key_of("prefer@2", workspace, settings, [])
    # Its pairs are of its own videos, its strength is its own probe's, and its order is its own.
    named_in_pairs = {row["winner"]["id"] for row in read_lines(later.pairs)}
    assert named_in_pairs <= videos.keys() and file_digest(later.pairs) != file_digest(workspace.pairs)
    assert read_json(later.prefer / "beta.json")["key"] != read_json(workspace.prefer / "beta.json")["key"]
    assert prefer.training_seed(workspace, settings) == 7
    assert prefer.training_seed(later, settings) == int(digest([7, 2, "prefer"])[:12], 16)
    # What is held out of one round is held out of all.
    held_out = [read_json(one.pairs_report)["held_out"] for one in (workspace, later)]
    assert held_out[0]["prompts"] == held_out[1]["prompts"] and held_out[0]["photos"] == held_out[1]["photos"]


def test_the_last_rounds_adapter_is_the_one_in_use(twice: Path) -> None:
    workspace = Workspace("alice")
    final = workspace.round(2).prefer / "adapter.safetensors"
    assert workspace.manifest()["adapter"] == "rounds/2/prefer/adapter.safetensors"
    assert generation.adapter_of(workspace) == final
    settings = config.resolve({**SMALL, "generate.adapter": "stage-1"}, project=twice).settings
    assert generation.chosen_adapter(workspace, settings) == workspace.reconstruct / "adapter.safetensors"
    text = card.text(workspace, "diffusers")
    values = [row["value"] for row in read_lines(workspace.round(2).scores)]
    tuned = {
        row["id"] for row in read_lines(workspace.round(2).repository / "videos.jsonl") if row["origin"] == "tuned"
    }
    motion = [
        row["value"]
        for row in read_lines(workspace.round(2).scores)
        if row["id"] in tuned and row["reward"] == "dynamics"
    ]
    assert values and f"| {sum(motion) / len(motion):.4g} |" in text.split("| after round 1 |")[1].split("\n")[0]
    assert '"rounds": 2' in text


def test_fewer_rounds_take_the_earlier_adapter_and_more_take_it_back(twice: Path) -> None:
    workspace, before = Workspace("alice"), second_round(Workspace("alice"))
    fewer = customize(twice)
    assert fewer.stages_run == [] and fewer.stages_cached == list(pipeline.ORDER)
    assert fewer.adapter == workspace.prefer / "adapter.safetensors" == generation.adapter_of(workspace)
    assert [one["round"] for one in fewer.rounds] == [1] and fewer.pairs == fewer.rounds[0]["pairs"]
    assert second_round(workspace) == before, "what the second round made stays"
    again = customize(twice, rounds=2)
    assert again.stages_run == [] and again.stages_cached == [*pipeline.ORDER, *SECOND]
    assert again.adapter == workspace.round(2).prefer / "adapter.safetensors"
    assert [one["round"] for one in again.rounds] == [1, 2]
    assert (again.chosen, again.why) == (again.rounds[1]["chosen"], again.rounds[1]["why"])
    assert again.pairs == sum(one["pairs"] for one in again.rounds) > fewer.pairs


def test_a_run_that_is_cut_in_a_later_round_ends_alike(twice: Path) -> None:
    """Cut while videos are sampled, decoded, scored, in the probe, in training and in the middle of a look."""
    workspace, before = Workspace("alice"), second_round(Workspace("alice"))
    once = first_round(workspace)
    shutil.rmtree(workspace.path / "rounds")
    records = {name: one for name, one in workspace.manifest()["stages"].items() if number_of(name) == 1}
    workspace.update(stages=records)

    class Cut(Exception):
        pass

    def cut_at(stage: str, part: str | None, step: int) -> Events:
        def listener(event: Event) -> None:
            at = (event.data.get("stage"), event.data.get("part"), event.data.get("step"))
            if event.kind == "step" and at == (stage, part, step):
                raise Cut

        return Events(listener)

    places = [
        ("sample", "videos", 3),
        ("sample", "clips", 4),
        ("score", "identity and dynamics", 5),
        ("prefer", None, 2),
        ("prefer", None, 5),
        ("prefer", "watched videos", 1),
    ]
    states = []
    for place in places:
        with pytest.raises(Cut):
            customize(twice, cut_at(*place), rounds=2)
        assert workspace.manifest()["adapter"] is None, "the first round's adapter is not what was asked for"
        begun = {name: one["state"] for name, one in workspace.manifest()["stages"].items() if number_of(name) == 2}
        states.append([f"{name} {state}" for name, state in begun.items() if state != "done"])
    assert states[0] == states[1] == ["sample@2 running"] and states[2] == ["score@2 running"]
    assert states[3:] == [["prefer@2 running"]] * 3
    assert customize(twice, rounds=2).stages_run == ["prefer@2"]
    assert second_round(workspace) == before and first_round(workspace) == once


# what makes a round stale


def test_the_number_of_rounds_is_in_no_key(alice: Path) -> None:
    workspace = Workspace("alice")
    settings = [config.resolve({**SMALL, "rounds": rounds}, project=alice).settings for rounds in (1, 4)]
    for name in pipeline.ORDER[1:]:
        assert pipeline.key_of(name, workspace, settings[0], []) == pipeline.key_of(name, workspace, settings[1], [])


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"repository.guidance": 3.0}, "sample"),
        ({"pairs.tau": 2.0}, "select"),
        ({"prefer.learning_rate": 1e-4}, "prefer"),
    ],
)
def test_a_changed_setting_makes_all_rounds_stale_from_its_first_stage_on(
    twice: Path, change: dict[str, Any], first: str
) -> None:
    everything = [*pipeline.ORDER, *SECOND]
    assert stale(twice, rounds=2) == []
    assert stale(twice, rounds=2, **change) == everything[everything.index(first) :]


def test_what_is_damaged_in_one_round_leaves_the_other_alone(twice: Path) -> None:
    workspace = Workspace("alice")
    next(workspace.round(2).repository.glob("clips/tuned-*.mp4")).unlink()
    assert stale(twice) == [] and stale(twice, rounds=2) == SECOND
    (workspace.prefer / "adapter.safetensors").unlink()
    assert stale(twice, rounds=2) == ["prefer", *SECOND]


# the plan


def test_the_plan_has_every_round_and_says_whose_steps_they_are(twice: Path) -> None:
    """Hours are those of one round twice, disk too; what is measured in one round counts for the others."""
    workspace = Workspace("alice")
    photos = sorted((twice / "photos").glob("*.png"))
    large = {**SMALL, "model.name": "hunyuan-video", "repository.steps": 10}
    once, thrice = (
        plan.for_run(
            config.resolve({**large, "rounds": rounds}, project=twice).settings,
            photos=3,
            todo=pipeline.order(8, rounds),
            home=twice / "nobody",
        )
        for rounds in (1, 3)
    )
    assert [row.stage for row in thrice.rows] == list(pipeline.order(8, 3))
    seconds = {row.stage: row.seconds for row in thrice.rows}
    assert once.seconds is not None and thrice.seconds == pytest.approx(
        once.seconds + 2 * sum(seconds[name] or 0.0 for name in pipeline.PREFERENCE)
    )
    assert [seconds["sample@3"], seconds["prefer@2"]] == [seconds["sample"], seconds["prefer"]]
    assert thrice.memory_gb == once.memory_gb and thrice.data_gb > once.data_gb
    assert "--prefer-steps is of each round; 3 rounds of 8 steps are 24 in all" in thrice.assumptions[-1]
    assert not any("each round" in text for text in once.assumptions)

    planned = pipeline.plan(workspace, config.resolve({**SMALL, "rounds": 3}, project=twice), photos)
    assert [state.name for state in planned.stages if state.state == "todo"] == [name[:-1] + "3" for name in SECOND]
    rows = {row.stage: row for row in planned.estimate.rows}
    assert rows["prefer@3"].basis == "measured" and rows["prefer@3"].items == 8
    # A part of one round's scores is missing: that round's clips are counted, those of the round after it are all.
    scores = read_lines(workspace.round(2).scores)
    write_lines(workspace.round(2).scores, [row for row in scores if row["id"] != "tuned-000-0"])
    planned = pipeline.plan(workspace, config.resolve({**SMALL, "rounds": 3}, project=twice), photos)
    assert {row.stage: row.items for row in planned.estimate.rows if "score" in row.stage} == {
        "score@2": 1,
        "score@3": 15,
    }


def test_weights_are_asked_for_once_however_many_rounds_there_are(twice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the judges only those with something to do, while no later round has all of its scores to come."""
    workspace = Workspace("alice")
    scores = read_lines(workspace.round(2).scores)
    write_lines(workspace.round(2).scores, [row for row in scores if row["reward"] != "dynamics"])
    photos = sorted((twice / "photos").glob("*.png"))
    asked: list[tuple[str, Any]] = []
    for name in ("sample", "score", "prefer"):
        monkeypatch.setattr(pipeline.stage(name), "prepare", lambda *given, name=name: asked.append((name, given[2:])))
    for rounds in (2, 3):
        settings = config.resolve({**SMALL, "rounds": rounds}, project=twice).settings
        pipeline._prepare(workspace, settings, photos, Events())
    assert asked == [("score", (("dynamics",),)), ("prefer", ()), ("score", ()), ("prefer", ()), ("sample", ())]


# guards


def test_each_round_is_guarded_against_its_own_start(twice: Path) -> None:
    workspace = Workspace("alice")
    later, settings = workspace.round(2), config.resolve(SMALL, project=twice).settings
    seeds = [[wish.seed for wish in guards.wishes(one, settings)] for one in (workspace, later)]
    assert seeds[1] == [int(digest([7, 2, "watched", number])[:12], 16) for number in range(2)]
    assert not set(seeds[0]) & set(seeds[1]), "a start that was chosen by some videos is not judged by them again"
    looks = read_lines(later.prefer / "looks.jsonl")
    assert [row["step"] for row in looks] == [0, 8]
    assert [[video["seed"] for video in row["videos"]] for row in looks] == [seeds[1]] * 2
    report = read_json(later.prefer / "guards.json")
    assert "round 1's likeness and motion" in report["why"] or "motion of round 1;" in report["why"]
    assert report["stage_1"]["likeness"] == looks[0]["likeness"]


def test_a_later_round_that_loses_names_the_way_back(twice: Path, tmp_path: Path) -> None:
    """A guard of the third round whose every look lost half of the motion."""

    def save(path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"adapter")

    def save_start(path: Path) -> None:
        path.write_bytes(b"round 2")

    told: list[Event] = []
    looking = guards.Looking(
        policy=lambda: (Seen(0.5, 1.0), []),
        stage_1=lambda: (Seen(0.5, 2.0), []),
        save=save,
        save_start=save_start,
        **started_by(3),
    )
    guard = Guard(tmp_path, steps=4, every=2, key="k", looking=looking, events=Events(told.append))
    row = {"margin": -1.0, "winner_shift": 0.0, "rejected_shift": 1.0, "gradient_factor": 0.3}
    rows = [{"step": step, **row} for step in range(1, 5)]
    assert not guard.ends(2, rows[:2]) and guard.ends(4, rows)
    verdict = guard.finish(rows, tmp_path / "adapter.safetensors")
    assert "every look lost more than it gained against round 2, which stays" in verdict.why
    assert (tmp_path / "adapter.safetensors").read_bytes() == b"round 2"
    (fallback,) = [event.data["message"] for event in told if event.kind == "fallback"]
    assert "or round 2's adapter (--rounds 2)." in fallback
    assert started_by(1) == {}


# the command line


def test_status_and_ls_know_the_rounds(twice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace("alice")
    assert main(["status", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    assert [row["stage"] for row in told["stages"]] == [*pipeline.ORDER, *SECOND]
    assert {row["state"] for row in told["stages"]} == {"done"}
    assert told["preference"]["why"] == workspace.manifest()["stages"]["prefer@2"]["result"]["why"]
    assert main(["ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["identities"][0]["state"] == "finished"
    # Killed in the second round: its own steps are counted, not those of the first round's stage of that name.
    records = workspace.manifest()["stages"]
    del records["score@2"], records["select@2"], records["prefer@2"]
    records["sample@2"]["state"] = "running"
    workspace.update(stages=records, finished=None, adapter=None)
    assert main(["status", "--json"]) == 0
    rows = {row["stage"]: row for row in json.loads(capsys.readouterr().out)["data"]["stages"]}
    assert rows["sample@2"]["state"] == "interrupted" and rows["sample@2"]["progress"] == "15/15"
    workspace.events.write_text("\n".join(workspace.events.read_text().splitlines()[:20]) + "\n")
    assert main(["status", "--json"]) == 0
    rows = {row["stage"]: row for row in json.loads(capsys.readouterr().out)["data"]["stages"]}
    assert rows["sample@2"]["progress"] is None
    assert main(["ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["identities"][0]["state"] == "6/10, next sample@2"


def test_pairs_and_scores_of_a_round(twice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest round's by default; a round that the run did not have is refused, with the way to it."""
    workspace = Workspace("alice")
    for flags, number in (([], 2), (["--round", "1"], 1), (["--round", "2"], 2)):
        assert main(["pairs", "alice", *flags, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["data"]
        assert (told["round"], told["pairs"]) == (number, read_lines(workspace.round(number).pairs))
        assert main(["score", "alice", *flags, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["data"]
        assert told["round"] == number
        dynamics = {row["id"]: row["dynamics"] for row in told["videos"]}
        rows = read_lines(workspace.round(number).scores)
        assert dynamics == {row["id"]: row["value"] for row in rows if row["reward"] == "dynamics"}
    assert main(["pairs", "alice", "--round", "3"]) == 2
    hint = capsys.readouterr().err.partition("hint: ")[2]
    assert "magicid customize PHOTOS --name alice " in hint and hint.count("--rounds") == 1 and "--rounds 3" in hint
    assert main(["pairs", "alice"]) == 0
    assert capsys.readouterr().out.startswith("Pairs of 'alice', round 2: ")


def test_a_round_scored_again_leaves_what_follows_it_stale(twice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """New scores of the first round: its own and the other round's followers may not hold, the second's scores may."""
    workspace = Workspace("alice")
    before = contents(workspace.round(2).prefer.parent)
    assert main(["score", "alice", "--round", "1", "--again", "dynamics"]) == 0
    assert capsys.readouterr().err.endswith("Pairs that follow: magicid pairs alice --round 1\n")
    assert contents(workspace.round(2).prefer.parent) == before
    # The judge said the same again, so nothing has to be done again.
    assert stale(twice, rounds=2) == []
    scores = workspace.round(2).scores
    kept = read_lines(scores)
    write_lines(scores, [row for row in kept if row["reward"] != "dynamics"])
    assert main(["score", "alice"]) == 0
    assert read_lines(scores) == kept
    assert workspace.manifest()["stages"]["score@2"]["result"]["made"] == 15


def test_rm_lists_and_deletes_the_rounds(twice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = Workspace("alice")
    assert main(["rm", "alice", "--dry-run", "--json"]) == 0
    entries = {Path(row["path"]).name: row for row in json.loads(capsys.readouterr().out)["data"]["entries"]}
    assert entries["rounds"]["files"] == len(contents(workspace.path / "rounds")) > 40
    assert entries["rounds"]["what"].startswith("later rounds: ")
    assert main(["rm", "alice", "--yes"]) == 0
    assert not workspace.path.exists()
