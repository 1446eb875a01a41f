"""Which stages run again: against a finished run, changed one thing at a time, and against what stages really read."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import magicid_cli
from album import SMALL
from magicid_cli import config, generation, models, pipeline, plan
from magicid_cli.cli.estimate import blocks
from magicid_cli.cli.output import Table
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.workspace import Workspace, read_lines, write_lines

pytestmark = pytest.mark.xdist_group("finished")


def stale(home: Path, **changes: Any) -> list[str]:
    """Names of the stages that would run."""
    resolved = config.resolve({**SMALL, **changes}, project=home)
    photos = sorted((home / "photos").glob("*.png"))
    return [s.name for s in pipeline.states(Workspace("alice"), resolved.settings, photos) if s.state != "cached"]


def test_nothing_runs_twice(alice: Path) -> None:
    assert stale(alice) == []
    resolved = config.resolve(SMALL, project=alice)
    result = pipeline.run(Workspace("alice"), resolved, sorted((alice / "photos").glob("*.png")), Events())
    assert result.stages_run == []
    assert result.stages_cached == list(pipeline.ORDER)
    assert result.adapter.is_file()


def test_what_is_told_after_a_run_is_in_no_file_of_it(alice: Path) -> None:
    """Of several identities with one stream of events, each keeps its own; nor does scoring leave anything behind."""
    workspace, events = Workspace("alice"), Events()
    resolved = config.resolve({**SMALL, "prefer.beta": 100.0}, project=alice)
    pipeline.run(workspace, resolved, sorted((alice / "photos").glob("*.png")), events)
    known = read_lines(workspace.events)
    assert [row for row in known if row["kind"] == "stage" and row["stage"] == "prefer"]
    assert events.path is None
    assert pipeline.score(workspace, resolved.settings, events, again=["identity"])
    assert events.path is None and len(read_lines(workspace.events)) > len(known)
    known = read_lines(workspace.events)
    events.emit("fallback", message="of the next identity", stage="score")
    assert "of the next identity" not in workspace.manifest()["fallbacks"]
    assert read_lines(workspace.events) == known


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"photos.class_word": "man"}, "ingest"),
        ({"photos.min_sharpness": 1.0}, "ingest"),
        ({"adapter.rank": 2}, "reconstruct"),
        ({"reconstruct.steps": 9}, "reconstruct"),
        ({"reconstruct.clip": "frame"}, "reconstruct"),
        ({"repository.guidance": 3.0}, "sample"),
        ({"rewards.flow": "raft"}, "score"),
        ({"pairs.tau": 2.0}, "select"),
        ({"pairs.fronts": "global"}, "select"),
        ({"model.base": "nf4"}, "reconstruct"),
        ({"prefer.beta": 100.0}, "prefer"),
        ({"prefer.reference": "base"}, "prefer"),
    ],
)
def test_a_changed_setting_makes_the_first_stage_that_reads_it_stale(
    alice: Path, change: dict[str, Any], first: str
) -> None:
    found = stale(alice, **change)
    assert found[0] == first
    assert found == list(pipeline.ORDER)[pipeline.ORDER.index(first) :]


def test_how_a_video_is_generated_makes_no_stage_stale(alice: Path) -> None:
    assert stale(alice, **{"generate.adapter_start": 0.5, "generate.adapter": "stage-1"}) == []


@pytest.mark.parametrize("name", [knob.name for knob in config.KNOBS.values() if not knob.result])
def test_a_setting_that_cannot_change_a_result_makes_nothing_stale(alice: Path, name: str) -> None:
    values: dict[str, Any] = {
        "model.device": "cpu",
        "model.offline": True,
        "model.memory_plan": "24gb",
        "model.attention": "math",
        "model.compile": True,
        "training.gradient_checkpointing": False,
        "rewards.evaluation_face_model": "sface",
        "evaluate.clip": "clip-vit-l",
        "evaluate.fvd_features": "features.pt",
        "evaluate.fvd_frames": 20,
    }
    assert stale(alice, **{name: values.get(name, 5)}) == []


def test_a_new_version_makes_nothing_stale(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(magicid_cli, "__version__", "99.0.0")
    assert stale(alice) == []


def test_a_new_format_of_a_stage_makes_it_stale(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.stage("select"), "FORMAT", 2)
    assert stale(alice)[0] == "select"


def test_an_edited_caption_runs_what_reads_captions(alice: Path) -> None:
    path = Workspace("alice").references / "captions.jsonl"
    rows = read_lines(path)
    rows[0]["caption"] = "a person in a red coat"
    write_lines(path, rows)
    assert stale(alice)[0] == "reconstruct"


def test_a_removed_clip_or_adapter_is_noticed(alice: Path) -> None:
    workspace = Workspace("alice")
    next(workspace.repository.glob("clips/*.mp4")).unlink()
    assert stale(alice)[0] == "sample"
    (workspace.reconstruct / "adapter.safetensors").unlink()
    assert stale(alice)[0] == "reconstruct"


def test_only_what_changed_is_made_again(alice: Path) -> None:
    """More videos: the old ones are kept, the new ones are sampled; selection and training follow."""
    workspace = Workspace("alice")
    before = {row["id"]: row["key"] for row in read_lines(workspace.repository / "videos.jsonl")}
    times = {path.name: path.stat().st_mtime_ns for path in workspace.repository.glob("latents/*")}
    resolved = config.resolve({**SMALL, "repository.tuned": 12}, project=alice)
    result = pipeline.run(workspace, resolved, sorted((alice / "photos").glob("*.png")), Events())
    after = {row["id"]: row["key"] for row in read_lines(workspace.repository / "videos.jsonl")}
    assert result.stages_run == ["sample", "score", "select", "prefer"]
    assert len(after) == len(before) + 4
    assert before.items() <= after.items()
    kept = {path.name: path.stat().st_mtime_ns for path in workspace.repository.glob("latents/*") if path.name in times}
    assert kept == times
    assert workspace.manifest()["stages"]["sample"]["result"]["made"] == 4


def test_the_drawn_seed_is_recorded_and_used_again(tmp_path: Path) -> None:
    workspace = Workspace("bob")
    settings = config.resolve({"model.name": "tiny"}, project=tmp_path).settings
    first = pipeline.seeded(workspace, settings).seed
    assert first is not None
    workspace.create()
    workspace.update(seed=first)
    assert pipeline.seeded(workspace, settings).seed == first
    given = config.resolve({"model.name": "tiny", "seed": 5}, project=tmp_path).settings
    assert pipeline.seeded(workspace, given).seed == 5


def test_no_preference_steps_is_reconstruction_alone(alice: Path) -> None:
    """DreamBooth-LoRA: the run ends after stage 1 and its adapter is the one that generate uses."""
    workspace = Workspace("alice")
    resolved = config.resolve({**SMALL, "prefer.steps": 0}, project=alice)
    result = pipeline.run(workspace, resolved, sorted((alice / "photos").glob("*.png")), Events())
    assert result.stages_run == [] and result.stages_cached == ["ingest", "reconstruct"]
    assert result.adapter == workspace.reconstruct / "adapter.safetensors"
    assert workspace.manifest()["adapter"] == "reconstruct/adapter.safetensors"


def test_consent_is_missing_for_new_photos_only(alice: Path) -> None:
    workspace = Workspace("alice")
    photos = sorted((alice / "photos").glob("*.png"))
    assert pipeline.consent_missing(workspace, photos) == []
    new = alice / "photos" / "new.png"
    new.write_bytes(photos[0].read_bytes() + b"0")
    assert len(pipeline.consent_missing(workspace, [*photos, new])) == 1
    pipeline.record_consent(workspace, [*photos, new], "somebody", "test")
    assert pipeline.consent_missing(workspace, [*photos, new]) == []
    entries = workspace.manifest()["consent"]
    assert [entry["who"] for entry in entries] == ["the tests", "somebody"]
    assert len(entries[1]["photos"]) == 1


class Spy:
    """Stands for a settings section (or all of them) and notes which fields are read."""

    def __init__(self, real: Any, prefix: str, read: set[str]) -> None:
        self.__dict__["_real"], self.__dict__["_prefix"], self.__dict__["_read"] = real, prefix, read

    def __getattr__(self, name: str) -> Any:
        real, prefix, read = self.__dict__["_real"], self.__dict__["_prefix"], self.__dict__["_read"]
        value = (
            getattr(type(real), name).fget(Spy(real, prefix, read))
            if isinstance(getattr(type(real), name, None), property)
            else getattr(real, name)
        )
        if dataclasses.is_dataclass(value):
            return Spy(value, f"{name}.", read)
        if f"{prefix}{name}" in config.KNOBS:
            read.add(f"{prefix}{name}")
        return value


@pytest.mark.parametrize("name", pipeline.ORDER)
def test_a_stage_declares_exactly_what_it_reads(alice: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the stage once more from its inputs, with settings that note every read."""
    module = pipeline.stage(name)
    workspace = Workspace("alice")
    photos = sorted((alice / "photos").glob("*.png"))
    settings = config.resolve(SMALL, project=alice).settings
    read: set[str] = set()
    spy: Any = Spy(settings, "", read)
    # The digest of everything declared is not a use of it.
    if hasattr(module, "subset"):
        monkeypatch.setattr(module, "subset", lambda _settings, _names: {})
    for leftover in ("beta.json", "checkpoints"):
        path = workspace.prefer / leftover
        if path.is_file():
            path.unlink()
    if name == "sample":
        (workspace.repository / "videos.jsonl").unlink()
        next(workspace.repository.glob("latents/tuned*")).unlink()
    if name == "score":
        workspace.scores.unlink()
    module.inputs(workspace, photos if name == "ingest" else spy)
    if name == "ingest":
        module.run(workspace, spy, Events(), photos=photos)
    else:
        module.run(workspace, spy, Events())
    declared = set(config.subset(settings, module.reads(settings) if hasattr(module, "reads") else module.READS))
    used = {knob for knob in read if config.KNOBS[knob].result}
    assert used == declared


def test_a_fallback_is_kept_in_the_manifest(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pipeline.stage("select")
    real = module.run

    def run(workspace: Workspace, settings: config.Settings, events: Events) -> Any:
        events.emit("fallback", message="The second-best way was taken.")
        return real(workspace, settings, events)

    monkeypatch.setattr(module, "run", run)
    workspace = Workspace("alice")
    resolved = config.resolve({**SMALL, "pairs.video_cap": 9, "prefer.steps": 1}, project=alice)
    pipeline.run(workspace, resolved, sorted((alice / "photos").glob("*.png")), Events())
    assert workspace.manifest()["fallbacks"] == ["The second-best way was taken."]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"repository.prompts_file": "/no/such/file"}, "prompts-file"),
        ({"repository.prompts": 5000}, "prompts-too-few"),
        ({"rewards.vlm": "nonsense"}, "settings-unknown"),
        ({"rewards.flow": "raft"}, "raft-missing"),
        ({"repository.tuned": 0, "repository.initial": 0}, "settings-invalid"),
    ],
)
def test_what_a_late_stage_would_refuse_is_refused_at_once(alice: Path, change: dict[str, Any], code: str) -> None:
    """In the plan too; and the finished identity stays as it is."""
    workspace = Workspace("alice")
    before = workspace.manifest_path.read_bytes()
    resolved = config.resolve({**SMALL, "reconstruct.steps": 9, **change}, project=alice)
    photos = sorted((alice / "photos").glob("*.png"))
    for call in (
        lambda: pipeline.plan(workspace, resolved, photos),
        lambda: pipeline.run(workspace, resolved, photos, Events()),
    ):
        with pytest.raises(MagicIDError) as caught:
            call()
        assert caught.value.code == code
    assert workspace.manifest_path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"rewards.vlm": "qwen3-vl-4b", "model.offline": True}, "weights-offline"),
        ({"rewards.face_model": "/no/such/file.onnx"}, "face-model-missing"),
    ],
)
def test_weights_of_every_stage_are_brought_in_before_the_first_one(
    alice: Path, change: dict[str, Any], code: str
) -> None:
    """The judge is missing two stages later, but stage 1 does not begin; the adapter stays in use."""
    workspace = Workspace("alice")
    resolved = config.resolve({**SMALL, "reconstruct.steps": 9, **change}, project=alice)
    seen: list[Event] = []
    with pytest.raises(MagicIDError) as caught:
        pipeline.run(workspace, resolved, sorted((alice / "photos").glob("*.png")), Events(seen.append))
    assert caught.value.code == code
    assert [event for event in seen if event.kind == "stage"] == []
    assert generation.adapter_of(workspace).is_file()


def test_photos_that_are_refused_leave_the_adapter_in_use(alice: Path) -> None:
    workspace = Workspace("alice")
    before = workspace.manifest()["settings"]
    (alice / "photos" / "no photo.jpg").write_bytes(b"<html>")
    resolved = config.resolve({**SMALL, "photos.class_word": "man"}, project=alice)
    with pytest.raises(MagicIDError) as caught:
        pipeline.run(workspace, resolved, [alice / "photos" / "no photo.jpg"], Events())
    assert caught.value.code == "photos-none-usable"
    assert generation.adapter_of(workspace).is_file()
    assert workspace.manifest()["settings"] == before and workspace.manifest()["class_word"] == "person"


def test_events_tell_the_story(alice: Path) -> None:
    """`events.jsonl` has a start and an end for every stage, in order."""
    rows = [json.loads(line) for line in Workspace("alice").events.read_text().splitlines()]
    story = [(row["stage"], row["state"]) for row in rows if row["kind"] == "stage"]
    assert story == [(name, state) for name in pipeline.ORDER for state in ("started", "finished")]
    seen: list[Event] = []
    resolved = config.resolve(SMALL, project=alice)
    pipeline.run(Workspace("alice"), resolved, sorted((alice / "photos").glob("*.png")), Events(seen.append))
    assert [(e.data["stage"], e.data["state"]) for e in seen] == [(name, "cached") for name in pipeline.ORDER]


def interrupted(home: Path, name: str, **changes: Any) -> pipeline.RunPlan:
    """The plan of a run whose stage was begun with the same inputs and is not done."""
    workspace = Workspace("alice")
    stages = workspace.manifest()["stages"]
    workspace.update(stages={**stages, name: {**stages[name], "state": "running"}})
    return pipeline.plan(
        workspace, config.resolve({**SMALL, **changes}, project=home), sorted((home / "photos").glob("*.png"))
    )


def left(planned: pipeline.RunPlan) -> int:
    return planned.estimate.rows[0].items


@pytest.mark.parametrize("name", ["reconstruct", "prefer"])
def test_the_steps_of_an_interrupted_training_are_not_planned_again(alice: Path, name: str) -> None:
    folder = Workspace("alice").path / name / "checkpoints"
    shutil.rmtree(folder / "step-00000008")
    planned = interrupted(alice, name)
    assert planned.stages[0].name == "ingest" and left(planned) == 8 - 6 and not planned.estimate.at_most
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9
    taken = planned.estimate.data_gb
    state = folder / "step-00000006" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "key": "of other settings"}))
    assert left(interrupted(alice, name)) == 8
    shutil.rmtree(folder)
    again = interrupted(alice, name)
    assert left(again) == 8 and again.estimate.data_gb == pytest.approx(taken + there)


def test_the_videos_of_an_interrupted_sampling_are_not_planned_again(alice: Path) -> None:
    repository = Workspace("alice").repository
    whole = interrupted(alice, "sample")
    assert left(whole) == 0
    removed = repository / "latents/tuned-000-0.safetensors"
    latents, clip = removed.stat().st_size / 1e9, 9 * 64 * 64 / 8 / 1e9
    removed.unlink()
    planned = interrupted(alice, "sample")
    more = planned.estimate.data_gb - whole.estimate.data_gb
    assert left(planned) == 1 and more == pytest.approx(latents + clip)


def test_where_the_weights_are_not_known_an_interrupted_stage_is_planned_whole(
    alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = interrupted(alice, "reconstruct").estimate
    monkeypatch.setattr(models, "known", lambda model: None)
    planned = interrupted(alice, "reconstruct")
    assert left(planned) == 8 and planned.estimate.at_most and planned.estimate.data_gb == exact.data_gb
    totals = blocks(planned.estimate, planned.stages)[1]
    assert isinstance(totals, Table) and totals.rows[0][0] == "time, at most"


def test_a_full_disk_does_not_refuse_what_remains(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same plan without what is there: the disk has room for what is left and not for all of it."""
    rest = interrupted(alice, "prefer").estimate.data_gb
    machine = dataclasses.replace(plan.this_machine("cpu"), data_disk_gb=rest, cache_disk_gb=100.0)
    monkeypatch.setattr(plan, "this_machine", lambda *given: machine)
    assert interrupted(alice, "prefer").problems == []
    shutil.rmtree(Workspace("alice").prefer / "checkpoints")
    assert [problem.code for problem in interrupted(alice, "prefer").problems] == ["disk-space"]
