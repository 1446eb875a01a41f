"""`magicid compare`: where its settings come from, what it plans, and how often it loads a model.

Truths: the layers of the settings as every other command has them, records on disk, and counted loadings.
"""

import gc
import json
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from album import SMALL
from magicid_cli import competition, config, generation, methods, video
from magicid_cli.baselines import dreambooth
from magicid_cli.cli.app import main
from magicid_cli.errors import MagicIDError
from magicid_cli.evaluation import collecting
from magicid_cli.evaluation import left as judging
from magicid_cli.events import Event, Events
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.workspace import Workspace, read_lines

pytestmark = pytest.mark.xdist_group("finished")

STEPS = 16  # of SMALL's two stages


def resolved(home: Path, **changes: Any) -> config.Resolved:
    return config.resolve({**SMALL, **changes}, project=home)


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, Any]]:
    """The rows of a dry run, by stage."""
    main(["compare", "alice", "--methods", "magicid,id-animator", "--device", "cpu", "-n", "--json", *arguments])
    rows = json.loads(capsys.readouterr().out)["data"]["estimate"]["stages"]
    return {row["stage"]: row for row in rows}


def test_what_is_asked_of_all_methods_is_looked_up_as_every_setting_is(
    alice: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flag before environment before file before default; what the identity's own run recorded of it says nothing."""
    monkeypatch.chdir(tmp_path)
    recorded = Workspace("alice").manifest()["settings"]["values"]
    assert recorded["compare"]["prompts"] == 3 and recorded["id_animator"]["steps"] == 30
    assert planned(capsys)["magicid: videos"]["items"] == 3  # the model's own default, too
    (tmp_path / "magicid.toml").write_text("[compare]\nprompts = 4\n[id_animator]\nsteps = 7\n", encoding="utf-8")
    rows = planned(capsys)
    assert rows["magicid: videos"]["items"] == 4 and "7 steps" in rows["id-animator: videos"]["note"]
    monkeypatch.setenv("MAGICID_COMPARE_PROMPTS", "5")
    monkeypatch.setenv("MAGICID_ID_ANIMATOR_STEPS", "6")
    rows = planned(capsys)
    assert rows["magicid: videos"]["items"] == 5 and "6 steps" in rows["id-animator: videos"]["note"]
    assert planned(capsys, "--test-prompts", "2")["magicid: videos"]["items"] == 2


def test_a_method_that_was_trained_keeps_its_own_settings_but_for_a_flag(
    alice: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was not gets them as `customize --method` would."""

    def clips(*arguments: str) -> list[str]:
        asked = ["compare", "alice", "--methods", "dreambooth", "--test-prompts", "1", "-n", "--json", *arguments]
        assert main(asked) == 0
        rows = json.loads(capsys.readouterr().out)["data"]["estimate"]["stages"]
        return [row["note"].rpartition("; ")[2] for row in rows if row["stage"] == "dreambooth: training"]

    monkeypatch.setenv("MAGICID_DREAMBOOTH_CLASS_CLIPS", "3")
    assert clips() == ["3 class clips"]
    monkeypatch.setenv("MAGICID_DREAMBOOTH_CLASS_CLIPS", "0")
    methods.run(Workspace("alice"), "dreambooth", resolved(alice), None, Events())
    assert clips() == []
    monkeypatch.setenv("MAGICID_DREAMBOOTH_CLASS_CLIPS", "3")
    assert clips() == []
    assert clips("--class-clips", "2") == ["2 class clips"]


def test_the_plan_has_the_judges_until_they_have_seen_everything(
    alice: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one loading of the model serves all of a method's videos."""
    loaded, real = list[str](), Hunyuan.load

    def load(family: Hunyuan, part: Any) -> None:
        loaded.append(part)
        real(family, part)

    monkeypatch.setattr(Hunyuan, "load", load)
    identity, asked = Workspace("alice"), resolved(alice, **{"compare.prompts": 3})
    clips = len([row for row in read_lines(identity.repository / "videos.jsonl") if row["origin"] == "initial"])
    found, problems = competition.plan(identity, ["magicid"], asked)
    row = found.rows[-1]
    assert not problems and (row.stage, row.items) == ("evaluate", 3 + clips)
    assert row.seconds == pytest.approx(0.35 * (3 + 0.15 * clips)) and row.basis == "estimated"
    done = competition.run(identity, ["magicid"], asked, Events())
    assert done.made == 3 and (loaded.count("text"), loaded.count("transformer")) == (1, 1)
    assert competition.plan(identity, ["magicid"], asked)[0].rows == ()
    more, _ = competition.plan(identity, ["magicid"], resolved(alice, **{"compare.prompts": 4}))
    assert [(row.stage, row.items) for row in more.rows] == [("magicid: videos", 1), ("evaluate", 1)]
    # A damaged one is told with what to do, and that helps.
    (broken, *_) = done.videos["magicid"]
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(MagicIDError, match="tables are written") as caught:
        competition.run(identity, ["magicid"], asked, Events())
    assert caught.value.code == "video-unreadable" and broken.name in caught.value.message
    assert "it is no video" in (identity.path / "compare" / "table.md").read_text(encoding="utf-8")
    broken.unlink()
    assert competition.run(identity, ["magicid"], asked, Events()).made == 1
    # Videos that are there and that a judge has not seen are work, too.
    for kept in (identity.path / "evaluation").iterdir():
        kept.unlink()
    assert [(row.stage, row.items) for row in competition.plan(identity, ["magicid"], asked)[0].rows] == [
        ("evaluate", 3 + clips)
    ]


def test_what_fvd_s_reference_set_differs_in_is_said_beside_it(alice: Path) -> None:
    """The repository's clips were made of practised prompts, in SMALL's steps, at the shape of training."""
    identity = Workspace("alice")
    kept = [row for row in read_lines(identity.repository / "videos.jsonl") if row["origin"] == "initial"]
    own = identity.manifest()["settings"]["values"]
    asked = resolved(alice, **{"compare.prompts": 2, "generate.steps": 5, "generate.frames": 5})
    notes = competition.run(identity, ["magicid"], asked, Events()).evaluations["MagicID"].notes
    (said,) = [note for note in notes if note.startswith("FVD's reference set")]
    assert "the prompts" in said and "steps 2 (the videos: 5)" in said and "size" not in said
    assert f"frames {own['shape']['frames']} (the videos: 5)" in said
    alike = {"size": own["shape"]["size"], "frames": own["shape"]["frames"], "steps": 2}
    prompts = {row["prompt"] for row in kept}
    assert collecting.untouched_apart(identity, asked.settings, alike, prompts) == ""
    inexact = config.with_values(asked.settings, {"repository.step_cache": 0.1})
    assert "the step cache first-block at 0.1" in collecting.untouched_apart(identity, inexact, alike, prompts)


def test_methods_of_other_frame_rates_are_told_apart_in_every_form(
    alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Videos of 8 and of 6 frames a second, as if both methods had made them before."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)
    there = dict[str, list[Path]]()
    for name, rate in (("magicid", 8), ("id-animator", 6)):
        there[name] = [tmp_path / f"{name}.mp4"]
        video.write_video(there[name][0], noise, rate)
    monkeypatch.setattr(competition, "made_before", lambda identity, name, settings: there[name])
    asked = ["compare", "alice", "--methods", ",".join(there), "--test-prompts", "1", "--device", "cpu", "--yes"]
    told = "Frames a second: 6; of MagicID: 8."
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["data"]["evaluations"]
    assert [one["videos"][0]["fps"] for one in found.values()] == [8, 6]
    assert [any(told in note for note in one["notes"]) for one in found.values()] == [False, True]
    folder = Workspace("alice").path / "compare"
    for file in ("table.md", "table.json", "table.tex"):
        assert told in (folder / file).read_text(encoding="utf-8")
    assert main(asked) == 0
    assert told in " ".join(capsys.readouterr().out.split())


def test_a_method_s_model_is_gone_when_its_videos_are_made(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not when Python comes to look for what refers to itself: the next one needs the room."""
    held, real = list[weakref.ref[Any]](), Hunyuan.load

    def load(family: Hunyuan, part: Any) -> None:
        real(family, part)
        held.extend([weakref.ref(family.transformer)] if part == "transformer" else [])

    monkeypatch.setattr(Hunyuan, "load", load)
    wanted = [generation.Asked("a person waves", 1)]
    gc.disable()
    try:
        methods.generate_each(Workspace("alice"), "magicid", resolved(alice).settings, wanted, events=Events())
        assert held and not [one for one in held if one() is not None]
    finally:
        gc.enable()


def test_judges_of_real_people_are_fetched_and_refused_in_the_plan(alice: Path) -> None:
    """Each repository with the catalog's size; a flow that is not there is told before hours of training."""
    large = config.resolve({"model.name": "hunyuan-video", "rewards.flow": "dis"}, project=alice).settings
    given = (Workspace("alice").path / "references" / "000.png",)

    def found(settings: config.Settings, *reference: Path) -> judging.Left:
        return judging.left([], 4, given, settings, store=alice / "store", fvd_reference=reference)

    without = found(large)
    assert without.downloads == {
        "opencv/face_detection_yunet": 0.0003,
        "opencv/face_recognition_sface": 0.0387,
        "fal/AuraFace-v1": 0.261,
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": 0.608,
    }
    assert set(found(large, alice / "a.mp4").downloads) - set(without.downloads) == {"flateon/FVD-I3D-torchscript"}
    swapped = config.with_values(large, {"rewards.face_model": "auraface"})
    assert set(found(swapped).downloads) == set(without.downloads)
    with pytest.raises(MagicIDError) as caught:
        found(config.with_values(large, {"rewards.flow": "raft"}))
    assert caught.value.code == "raft-missing"
    raft = resolved(alice, **{"compare.prompts": 1, "rewards.flow": "raft"})
    assert "raft-missing" in [one.code for one in competition.plan(Workspace("alice"), ["magicid"], raft)[1]]


def test_a_disk_must_hold_all_methods_together(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two fits by itself."""
    identity, asked = Workspace("alice"), resolved(alice, **{"compare.prompts": 1})
    sizes = {name: competition.plan(identity, [name], asked)[0].data_gb for name in ("dreambooth", "magic-me")}
    free = max(sizes.values()) + 0.5 * min(sizes.values())
    real = competition.planning.for_run

    def tight(*given: Any, **more: Any) -> Any:
        found = real(*given, **more)
        # So much room on the one disk.
        return replace(found, machine=replace(found.machine, data_disk_gb=free, cache_disk_gb=None))

    monkeypatch.setattr(competition.planning, "for_run", tight)
    for name in sizes:
        assert not competition.plan(identity, [name], asked)[1]
    (problem,) = competition.plan(identity, list(sizes), asked)[1]
    assert problem.code == "disk-space"


def test_a_stopped_training_is_planned_from_where_it_is(alice: Path) -> None:
    """By its newest checkpoint and the class clips that are there; other settings begin anew."""
    identity = Workspace("alice")

    def rows(name: str, **changes: Any) -> dict[str, tuple[int, str]]:
        found = methods.plan(identity, name, resolved(alice, **changes), None).estimate
        assert not found.at_most
        return {row.stage: (row.items, row.note) for row in found.rows}

    for name, changes in (("dreambooth", {"dreambooth.class_clips": 2}), ("magic-me", {})):
        assert rows(name, **changes)[name][0] == STEPS
        events = Events()
        events.listen(partial(_stop_at, events, 5))
        with pytest.raises(KeyboardInterrupt):
            methods.run(identity, name, resolved(alice, **changes), None, events)
        items, note = rows(name, **changes)[name]
        assert items == STEPS - 5 and "class clips" not in note
        assert rows(name, **changes, **{"adapter.rank": 2, "magic_me.batch": 2})[name][0] == STEPS


def _stop_at(events: Events, step: int, event: Event) -> None:
    if event.kind == "step" and event.data.get("step") == step and "loss" in event.data:
        events.request_stop()


def test_class_clips_that_are_there_are_not_planned_again(alice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity, asked = Workspace("alice"), resolved(alice, **{"dreambooth.class_clips": 3})
    space, real = identity.of_method("dreambooth"), dreambooth.conditioning.save_tensors
    made = list[Path]()

    def save(path: Path, tensors: Any) -> None:
        real(path, tensors)
        made.extend([path] if path.parent.name == "class-clips" else [])
        if len(made) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(dreambooth.conditioning, "save_tensors", save)
    with pytest.raises(KeyboardInterrupt):
        methods.run(identity, "dreambooth", asked, None, Events())
    assert len(list((space.path / "class-clips").iterdir())) == 2
    (row,) = methods.plan(identity, "dreambooth", asked, None).estimate.rows
    assert row.items == STEPS and row.note.endswith("; 1 class clips")
