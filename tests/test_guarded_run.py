"""Guards in a whole run of the tiny model: against the unguarded run, and a run that was cut.

The weights are random, so a large learning rate decides every pair within a few steps: the gradient factor is gone.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from album import SMALL
from magicid_cli import adapters, config, generation, guards, models, pipeline
from magicid_cli.cli.app import main
from magicid_cli.events import Event, Events
from magicid_cli.faces import open_faces
from magicid_cli.guards.watching import Watch
from magicid_cli.models.catalog import video_model
from magicid_cli.stages import prefer
from magicid_cli.workspace import Workspace, file_digest, read_json, read_lines, write_lines

pytestmark = pytest.mark.xdist_group("finished")

WILD = {"prefer.learning_rate": 0.5, "prefer.beta": 500.0, "prefer.steps": 12, "prefer.watch_every": 2}


def customize(home: Path, events: Events | None = None, **changes: Any) -> pipeline.CustomizeResult:
    resolved = config.resolve({**SMALL, **{name.replace("__", "."): value for name, value in changes.items()}})
    return pipeline.run(Workspace("alice"), resolved, sorted((home / "photos").glob("*.png")), events or Events())


def wild(home: Path, events: Events | None = None) -> pipeline.CustomizeResult:
    return customize(home, events, **{name.replace(".", "__"): value for name, value in WILD.items()})


def left_in(folder: Path) -> dict[str, Any]:
    """What stage 2 left, without its times."""
    lines = [
        [{name: value for name, value in row.items() if name != "seconds"} for row in read_lines(folder / name)]
        for name in ("metrics.jsonl", "looks.jsonl")
    ]
    kept = {path.name: file_digest(path) for path in [folder / "adapter.safetensors", *folder.glob("snapshots/*")]}
    return {"lines": lines, "files": kept, "guards": read_json(folder / "guards.json")}


class Cut(Exception):
    pass


def test_a_guard_fires_and_the_run_that_was_cut_ends_alike(
    alice: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace("alice")
    whole = wild(alice)
    assert whole.stopped == "saturation" and whole.stages_run == ["prefer"]
    rows = read_lines(workspace.prefer / "metrics.jsonl")
    looks = read_json(workspace.prefer / "guards.json")["looks"]
    assert len(rows) == looks[-1]["step"] < 12 and whole.chosen in {one["step"] for one in looks}
    assert [one["signs"][-1:] for one in looks[-2:]] == [["saturation"]] * 2
    assert looks[-1]["gradient_factor"] == pytest.approx(sum(row["gradient_factor"] for row in rows[-2:]) / 2)
    assert all(one["held_out_margin"] == rows[one["step"] - 1]["held_out_margin"] for one in looks)
    before = left_in(workspace.prefer)

    # The adapter in place is the snapshot of the chosen step, and generate uses it.
    adapter = workspace.prefer / "adapter.safetensors"
    (snapshot,) = (workspace.prefer / "snapshots").iterdir()
    assert snapshot.name == f"step-{whole.chosen:08d}.safetensors"
    assert adapter.read_bytes() == snapshot.read_bytes()
    assert generation.adapter_of(workspace) == adapter

    # What was decided is in the manifest and in `status`.
    result = workspace.manifest()["stages"]["prefer"]["result"]
    assert (result["chosen"], result["stopped"], result["why"]) == (whole.chosen, "saturation", whole.why)
    assert main(["status", "alice"]) == 0
    assert f"stage 2: {whole.why}" in capsys.readouterr().out
    assert main(["status", "alice", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]["preference"]
    assert told == {"steps": len(rows), **{name: result[name] for name in ("chosen", "stopped", "why")}}

    # From the start, without the encoded prompts, cut in the middle of the second look, and again.
    shutil.rmtree(workspace.prefer)
    shutil.rmtree(workspace.path / "texts")

    def cut(event: Event) -> None:
        if event.data.get("part") == "watched videos" and len(read_lines(workspace.prefer / "looks.jsonl")) == 2:
            raise Cut

    with pytest.raises(Cut):
        wild(alice, Events(cut))
    assert [row["step"] for row in read_lines(workspace.prefer / "looks.jsonl")] == [0, 2]
    again: list[Event] = []
    resumed = wild(alice, Events(again.append))
    assert left_in(workspace.prefer) == before
    assert (resumed.chosen, resumed.stopped, resumed.why) == (whole.chosen, whole.stopped, whole.why)
    assert [event.data["step"] for event in again if event.kind == "step" and "loss" in event.data][0] == 5


def test_without_guards_stage_2_is_what_it_was(alice: Path) -> None:
    """The same metrics and, the last step being the chosen one, the same adapter; beta is not probed again."""
    workspace = Workspace("alice")
    before, beta = left_in(workspace.prefer), read_json(workspace.prefer / "beta.json")
    assert workspace.manifest()["stages"]["prefer"]["result"]["chosen"] == 8
    done = customize(alice, prefer__guards=False)
    assert done.stages_run == ["prefer"] and (done.chosen, done.stopped) == (8, None)
    names = {"beta.json", "metrics.jsonl", "checkpoints", "adapter.safetensors"}
    assert {path.name for path in workspace.prefer.iterdir()} == names
    assert file_digest(workspace.prefer / "adapter.safetensors") == before["files"]["adapter.safetensors"]
    assert read_json(workspace.prefer / "beta.json") == beta
    rows = read_lines(workspace.prefer / "metrics.jsonl")
    assert [{name: value for name, value in row.items() if name != "seconds"} for row in rows] == before["lines"][0]


def test_guards_read_what_they_look_at_and_nothing_else_does(alice: Path) -> None:
    """Another judge of likeness makes stage 2 stale only while it is guarded by it."""
    settings = config.resolve(SMALL).settings
    off = config.with_values(settings, {"prefer.guards": False})
    assert set(prefer.reads(settings)) - set(prefer.reads(off)) == set(guards.READS) - set(prefer.READS)
    workspace = Workspace("alice")
    guarded, unguarded = prefer.inputs(workspace, settings), prefer.inputs(workspace, off)
    assert guarded.keys() - unguarded.keys() == {"watched", "references"}
    assert {name: guarded[name] for name in unguarded} == unguarded


def test_watched_prompts_are_held_out_ones_first_then_others_then_again_with_other_seeds(alice: Path) -> None:
    workspace = Workspace("alice")
    repository = [row["text"] for row in read_lines(workspace.repository / "prompts.jsonl")]
    rows = read_lines(workspace.pairs)
    write_lines(
        workspace.pairs,
        [
            {**rows[0], "split": "held-out", "prompt": "a caption of a photo"},
            {**rows[0], "split": "held-out", "prompt": repository[2]},
            {**rows[0], "split": "train", "prompt": repository[1]},
        ],
    )
    settings = config.resolve({**SMALL, "prefer.watch_videos": 6}).settings
    found = guards.wishes(workspace, settings)
    assert [wish.prompt for wish in found] == [repository[number] for number in (2, 0, 1, 3, 2, 0)]
    assert len({wish.seed for wish in found}) == 6
    assert guards.wishes(workspace, config.with_values(settings, {"prefer.watch_videos": 2})) == found[:2]


def test_the_guards_judge_with_the_reward_s_recogniser_and_the_stage_1_model_is_measured_as_it_was(
    alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the policy has become: the look at stage 1 is that of the stage-1 adapter, and leaves the policy."""
    settings, workspace = config.resolve(SMALL).settings, Workspace("alice")
    opened: list[str] = []

    def spy(rewards: Any, model: Any, **more: Any) -> Any:
        faces = open_faces(rewards, model, **more)
        opened.append(faces.recogniser.made_by)
        return faces

    monkeypatch.setattr("magicid_cli.guards.watching.open_faces", spy)
    family = models.open_family(settings.model, Events())
    stage_1 = adapters.load(workspace.reconstruct / "adapter.safetensors")
    family.load("transformer")
    adapters.attach(family.transformer, "policy", stage_1[1], seed=0)
    adapters.load_tensors(family.transformer, "policy", stage_1[0])
    plain, _ = Watch(workspace, settings, family, Events())()
    other = {name: tensor + 0.3 for name, tensor in stage_1[0].items()}
    adapters.load_tensors(family.transformer, "policy", other)
    guard = guards.open_guard(workspace, settings, family, stage_1, "another key", Events())
    assert not guard.ends(0, [])
    row = read_lines(workspace.prefer / "looks.jsonl")[0]
    assert (row["likeness"], row["motion"]) == (plain.likeness, plain.motion)
    now = adapters.tensors(family.transformer, "policy")
    assert all((now[name] == other[name]).all() for name in other)
    assert Watch(workspace, settings, family, Events())()[0] != plain, "else the other policy shows nothing"
    wanted = open_faces(settings.rewards, video_model("tiny"), offline=True, events=Events()).recogniser.made_by
    assert set(opened) == {wanted}
    assert {name for name, p in family.transformer.named_parameters() if p.requires_grad} != set()
