"""The cells of the benchmark of the claims: whom they look at, what makes one another, and that a cut loses nothing.

Truth: the settings themselves, the prompts that are practised, and the work that was not cut. Weights are random and
the judges of the cells are told: nothing here says anything about a method.
"""

import argparse
import json
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import _claims_cells as cells
from benchmarks import _claims_page as pages
from benchmarks import _claims_recipes as recipes
from benchmarks import _claims_report as report
from benchmarks import _claims_six as six
from benchmarks import _miniature, claims, mini

from claims_rows import row
from magicid_cli import config, pipeline
from magicid_cli.config import KNOBS, Settings, value_of
from magicid_cli.errors import INTERRUPTED, MagicIDError
from magicid_cli.evaluation import METRICS, Evaluation, Figure
from magicid_cli.events import Event, Events
from magicid_cli.prompts import drawn
from magicid_cli.workspace import Workspace, read_lines, write_text
from magicid_cli.world import captions
from magicid_cli.world.people import HELD_OUT, TRAINED, person

pytestmark = pytest.mark.xdist_group("mini")

BASE = _miniature.SETTINGS


# ------------------------------------------------------------------------------------------------ what is looked at


def combinations(texts: Sequence[str]) -> set[tuple[str | None, str | None, str | None]]:
    return {(wish.action, wish.place, wish.outfit) for wish in map(captions.wish, texts)}


def test_the_two_splits_share_nobody_no_prompt_no_seed_and_no_noise() -> None:
    development, final = recipes.DEVELOPMENT, recipes.FINAL
    who = {*development.people, *final.people}
    assert len(who) == len(development.people) + len(final.people) == 10
    assert who <= set(HELD_OUT) and not who & set(TRAINED)
    assert not who & {*mini.Amounts().people, *mini.QUICK.people, *range(300), 7}, "gates, judges' tests, samples, demo"
    assert {person(one).kind for one in final.people} == {person(one).kind for one in development.people[:2]}
    prompts = [combinations(split.prompts(recipes.Amounts().prompts, who.pop())) for split in (development, final)]
    assert not prompts[0] & prompts[1] and len(prompts[0] | prompts[1]) == 28
    # The paper's preset samples twenty prompts.
    seeds = development.seeds + final.seeds
    practised = set().union(*(combinations(drawn.pick(20, seed, "woman")) for seed in seeds))
    assert len(set(seeds)) == 6 and not practised & (prompts[0] | prompts[1])
    noise = [seed for split in (development, final) for one in split.seeds for seed in split.noise(one, 100)]
    assert len(set(noise)) == 600


def test_every_setting_of_every_method_exists_and_is_allowed(tmp_path: Path) -> None:
    found = recipes.methods(BASE)
    assert len(found) > 40
    for method in found.values():
        assert recipes.unknown(method) == []
        settings = cells.resolved(method, recipes.Amounts(), tmp_path).settings
        pipeline._check(settings)
        assert all(value_of(settings, name) == value for name, value in method.values.items())
    with pytest.raises(MagicIDError, match="no such setting"):
        cells.resolved(recipes.Method("x", {"prefer.magic": 1}), recipes.Amounts(), tmp_path)
    with pytest.raises(MagicIDError, match="settings-invalid|at most"):
        cells.resolved(recipes.Method("x", {"pairs.identity_share": 2.0}), recipes.Amounts(), tmp_path)


def test_no_variation_is_the_default_and_each_departs_in_one_thing() -> None:
    found = dict(recipes.variations(BASE))
    for name, values in found.items():
        assert any(value_of(BASE, setting) != value for setting, value in values.items()), name
    other = config.with_values(BASE, found["noise: independent"])
    assert "noise: same" in dict(recipes.variations(other)) and "noise: same" not in found
    assert {name.partition(".")[0] for values in found.values() for name in values} >= {"pairs", "prefer", "generate"}


def test_all_methods_of_a_table_take_the_same_number_of_steps(tmp_path: Path) -> None:
    """Apart from the untouched base, stage 1 alone, and the paper's own doses."""
    total = BASE.reconstruct.steps + BASE.prefer.steps
    fewer = {recipes.BASE, recipes.STAGE_1, recipes.LOW_STAGE_1}
    for table in recipes.TABLES.values():
        for name in {*table.methods} - fewer - {recipes.PAPER_DOSES}:
            settings = cells.resolved(recipes.methods(BASE)[name], recipes.Amounts(), tmp_path).settings
            assert settings.reconstruct.steps + settings.rounds * settings.prefer.steps == total, name
    paper = cells.resolved(recipes.methods(BASE)[recipes.PAPER], recipes.Amounts(), tmp_path).settings
    assert paper.prefer.steps == pytest.approx(5 * paper.reconstruct.steps, rel=0.05)
    assert (paper.repository.tuned, paper.pairs.held_out) == (100, 0)
    assert (paper.shape.size, paper.adapter.rank) == (BASE.shape.size, BASE.adapter.rank)


@pytest.mark.parametrize(("first", "second"), [(300, 120), (70, 350), (420, 0), (6, 8), (1000, 5000), (1, 1)])
def test_a_checkpoint_falls_on_every_point_of_the_curve(first: int, second: int) -> None:
    settings = config.with_values(BASE, {"reconstruct.steps": first, "prefer.steps": second})
    points, every = recipes.points_of(settings), recipes.save_every(settings)
    assert points == sorted(set(points), key=lambda point: (point[0] == "prefer", point[1]))
    assert len(points) <= recipes.CURVE_POINTS and every <= 60
    steps = {"reconstruct": first, "prefer": second}
    assert all(0 < step <= steps[stage] and (step % every == 0 or step == steps[stage]) for stage, step in points)
    assert (("reconstruct", first) in points) == bool(second), "the last step is the evaluation as it is"
    assert ("prefer", second) not in points


# --------------------------------------------------------------------------------------------------------------- keys


@pytest.fixture
def bench(mini_here: Path, tmp_path: Path) -> cells.Bench:
    return cells.Bench(tmp_path / "results", tmp_path / "work", recipes.TRIAL)


def cell_of(bench: cells.Bench, name: str = recipes.MAGICID, **changes: Any) -> cells.Cell:
    split = recipes.FINAL
    cell = cells.Cell(recipes.methods(bench.base)[name], split.people[0], split.seeds[0], split)
    return replace(cell, **changes)


def test_what_makes_a_cell_another_one(bench: cells.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of(bench)
    method, other = cell.method, recipes.Method
    keys = [
        bench.key(one)
        for one in (
            cell,
            replace(cell, who=951),
            replace(cell, seed=102),
            replace(cell, split=replace(cell.split, prompts_from=1088)),
            replace(cell, split=replace(cell.split, noise_from=5)),
            replace(cell, probe=recipes.Probe("5", {"generate.frames": 5})),
            replace(cell, probe=recipes.Probe("p", point=0)),
            replace(cell, probe=recipes.Probe("p", point=1)),
            replace(cell, method=other("x", {"prefer.learning_rate": 1e-5})),
            replace(cell, method=other("x", {"pairs.tau": 1.0})),
            replace(cell, method=other("x", {"generate.guidance": 4.0})),
            cell_of(bench, recipes.DREAMBOOTH),
            cell_of(bench, recipes.STAGE_1),
            cell_of(bench, recipes.BASE),
        )
    ]
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.stage("prefer"), "FORMAT", 999)
        keys.append(bench.key(cell))
        assert bench.key(cell_of(bench, recipes.DREAMBOOTH)) == keys[11], "DreamBooth has no stage 2"
    with monkeypatch.context() as patch:
        patch.setattr(cells, "FORMAT", 999)
        keys.append(bench.key(cell))
    with monkeypatch.context() as patch:
        patch.setitem(bench.__dict__, "weights", "others")
        keys.append(bench.key(cell))
    assert len(set(keys)) == len(keys)
    assert bench.key(replace(cell, method=replace(method, name="renamed", about="other words"))) == keys[0]
    for setting, value in (("training.save_every", 7), ("prefer.held_out_every", 3), ("model.offline", True)):
        assert not KNOBS[setting].result
        assert bench.key(replace(cell, method=other("x", {setting: value}))) == keys[0]


def test_what_a_method_does_not_read_does_not_change_its_cells(bench: cells.Bench) -> None:
    def key(name: str, **values: Any) -> str:
        changed = {setting.replace("__", "."): value for setting, value in values.items()}
        method = recipes.methods(bench.base)[name]
        return bench.key(cell_of(bench, method=replace(method, values={**method.values, **changed})))

    for name in (recipes.DREAMBOOTH, recipes.STAGE_1, recipes.BASE):
        assert key(name) == key(name, pairs__tau=1.0, repository__tuned=9)
    assert key(recipes.BASE) == key(recipes.BASE, reconstruct__steps=9)
    assert key(recipes.STAGE_1) != key(recipes.STAGE_1, reconstruct__steps=9)


def test_methods_that_differ_in_generation_alone_share_an_identity(bench: cells.Bench) -> None:
    late = recipes.Method("late", {"generate.adapter_start": 0.5})
    names = [bench.workspace(cell_of(bench, name)).name for name in (recipes.MAGICID, recipes.STAGE_1, recipes.BASE)]
    assert {*names, bench.workspace(cell_of(bench, method=late)).name} == {names[0]}
    assert bench.workspace(cell_of(bench, recipes.DREAMBOOTH)).name != names[0]


def test_a_method_of_one_s_own_is_screened_with_the_others(bench: cells.Bench) -> None:
    options = claims._parser().parse_args(["--screen", "--method", "mine: prefer.anchor=0.5, pairs.tau=2"])
    study = claims.study_of(options, bench.results)
    assert study.split is recipes.DEVELOPMENT and study.amounts == recipes.SCREEN
    (table,) = study.tables
    rows = {method.name: method for method, _ in study.rows(bench, table)}
    assert {recipes.BASE, recipes.MAGICID, "mine", "double blocks only"} <= set(rows)
    settings: Settings = cells.resolved(rows["mine"], recipes.Amounts(), bench.work).settings
    assert (settings.prefer.anchor, settings.pairs.tau) == (0.5, 2.0)
    wrong = argparse.Namespace(**{**vars(options), "method": ["mine: prefer.magic=1"]})
    with pytest.raises(MagicIDError):
        claims.study_of(wrong, bench.results)
    # Later calls know it, those for the other split do not.
    for more, names in ((["--screen"], ["mine"]), ([], [])):
        again = claims.study_of(claims._parser().parse_args(more), bench.results)
        assert [method.name for method in again.more] == names


# ------------------------------------------------------------------------------------------------------ cut and go on


class _Judges:
    """Says of a video what its prompt's length is."""

    def of_person(self, photos: Sequence[Path]) -> tuple[()]:
        return ()

    def look(self, frames: np.ndarray, fps: float, prompt: str, who: tuple[()]) -> dict[str, Any]:
        said = row(prompt, [float(frames[1].mean()), 2.0], [0.1, 0.2, len(prompt) / 100])
        return {name: value for name, value in said.items() if name != "prompt"}


@pytest.fixture
def small(bench: cells.Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[cells.Bench]:
    """A bench whose one table has DreamBooth alone, with few steps and a judge that is told what to say."""
    doses = {
        **recipes.TRIAL.doses,
        "reconstruct.steps": 3,
        "prefer.steps": 1,
        "generate.frames": 5,
        "generate.steps": 1,
    }
    amounts = replace(recipes.TRIAL, people=1, prompts=1, noise=2, photos=2, doses=doses)
    table = recipes.Table("table-1", "One method", (recipes.DREAMBOOTH,), recipes.DREAMBOOTH)
    for module in (recipes, claims):
        monkeypatch.setattr(module, "TABLES", {"table-1": table})
        monkeypatch.setattr(module, "TRIAL", amounts)
    monkeypatch.setattr(cells, "Judges", lambda settings: _told())
    yield cells.Bench(bench.results, bench.work, amounts)


def _told() -> Any:
    judges = _Judges()
    judges.made_by = "told"  # type: ignore[attr-defined]
    return judges


def call(folder: Path, *more: str) -> int:
    return claims.main(["--trial", "--out", str(folder / "out" / "cells"), "--work", str(folder / "work"), *more])


def figures(folder: Path) -> list[dict[str, Any]]:
    """All results, without how long they took."""
    found = [json.loads(path.read_text()) for path in sorted((folder / "out" / "cells").glob("*.json"))]
    for one in found:
        for report_ in one["stages"].values():
            report_.pop("resumed_from", None)
    return [{name: value for name, value in one.items() if name != "seconds"} for one in found]


def test_magic_me_s_cell_is_made_by_its_own_method(small: cells.Bench) -> None:
    """Keywords in the method's folder, videos that were encoded with them, and all steps in one stage."""
    cell = cell_of(small, recipes.MAGIC_ME)
    assert small.key(cell) not in (small.key(cell_of(small, recipes.DREAMBOOTH)), small.key(cell_of(small)))
    slower = replace(cell.method, values={"magic_me.learning_rate": 1e-4})
    unread = replace(cell.method, values={"pairs.tau": 1.0})
    assert small.key(replace(cell, method=slower)) != small.key(cell) == small.key(replace(cell, method=unread))
    found = cells.measure(small, cell)
    assert found["steps"] == {"reconstruct": 4, "prefer": 0} and found["stages"]["magic-me"]["steps"] == 4
    space = small.workspace(cell).of_method("magic-me")
    rows = read_lines(space.videos / "videos.jsonl")
    assert len(rows) == 2 and all(one["keywords"] and one["adapter"] is None for one in rows)


def test_the_six_metrics_of_a_cell_are_the_evaluation_s(small: cells.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which videos, photos and reference set the harness is given; what it finds is averaged within a person."""
    asked: list[tuple[Any, ...]] = []
    value = iter((1.0, 3.0, 5.0))

    def evaluate(items: Any, photos: Any, settings: Any, **more: Any) -> Any:
        asked.append((items, photos, more["fvd_reference"]))
        return Evaluation(dict.fromkeys(METRICS, Figure(next(value), videos=1, prompts=1)), (), (), {"fvd": "a judge"})

    monkeypatch.setattr(six, "evaluate", evaluate)
    cell = cell_of(small, recipes.DREAMBOOTH)
    others = [cell, replace(cell, seed=102), replace(cell, who=951), replace(cell, who=952)]
    base = small.videos(cell_of(small, recipes.BASE))
    for number, one in enumerate(others[:3]):
        folder = small.videos(one)
        folder.mkdir(parents=True)
        (folder / "00.mp4").touch()
        write_text(small.path(one), json.dumps({"videos": [{"file": "00.mp4", "prompt": f"prompt {number}"}]}))
    base.mkdir(parents=True)
    (base / "base.mp4").touch()
    said = six.table(small, others)
    (found,) = said["rows"]
    assert found["method"] == recipes.DREAMBOOTH and found["fvd"]["mean"] == pytest.approx(((1 + 3) / 2 + 5) / 2)
    assert found["face_sim"]["people"] == 2, "the fourth cell is not measured"
    assert (found["cells"], found["of"]) == (3, 4)
    assert said["made_by"]["fvd"] == ["a judge"] and said["made_by"]["face_sim"] == []
    assert [items[0].prompt for items, _, _ in asked] == ["prompt 0", "prompt 1", "prompt 2"]
    assert asked[0][2] == [base / "base.mp4"] and asked[1][2] == []
    shown = list(pages._six({"trial": False, "weights": "w", **said}, "w"))
    (line,) = (line for line in shown if line.startswith("| DreamBooth-LoRA | 3.500 ["))
    assert line.endswith("| 3.50 [2.00, 5.00] | 3 of 4 |") and "| 3.5000 [" in line, "each metric has its own digits"
    assert "- FVD: a judge" in shown
    assert any(line.startswith("| ID-Animator | needs its weights") for line in shown)


def test_the_six_metrics_from_a_trial_to_the_page(small: cells.Bench, tmp_path: Path) -> None:
    """A cell by the commands alone, with the drawn world's judges; the page has it without `claims.json`, too.

    In the place of the untouched model's videos lie its own, so FVD is 0.
    """
    assert call(tmp_path) == 0
    bench = cells.Bench(tmp_path / "out" / "cells", tmp_path / "work", recipes.TRIAL)
    shutil.copytree(bench.videos(cell_of(bench, recipes.DREAMBOOTH)), bench.videos(cell_of(bench, recipes.BASE)))
    assert call(tmp_path, "--six") == 0
    path, page = tmp_path / "out" / "six-metrics.json", tmp_path / "page.md"
    found = json.loads(path.read_text())
    others = json.loads(path.with_name("claims.json").read_text())["about"]
    assert found["trial"] and others["weights"] == found["weights"]
    (one,) = found["rows"]
    assert (one["method"], one["cells"], one["of"]) == (recipes.DREAMBOOTH, 1, 1)
    assert all(one[name]["people"] == 1 for name in six.PAPER)
    assert one["dynamic_degree"]["mean"] > 0 and one["fvd"]["mean"] == pytest.approx(0, abs=1e-3)
    assert all(found["made_by"][name] for name in six.PAPER)

    def written() -> str:
        assert call(tmp_path, "--page", "--page-path", str(page)) == 0
        return page.read_text()

    motion = format(one["dynamic_degree"]["mean"], f".{METRICS['dynamic_degree'].digits}f")
    line = next(line for line in written().splitlines() if line.startswith("| DreamBooth-LoRA ") and "1 of 1" in line)
    assert f"| {motion} |" in line and "Stale" not in page.read_text()
    path.write_text(json.dumps({**found, "weights": "other"}))
    assert "**Stale: measured with weights `other`" in written()
    path.with_name("claims.json").unlink()
    assert line in written().splitlines() and "## The paper's six metrics" in page.read_text()


def test_a_work_that_is_cut_anywhere_ends_as_one_that_was_not(
    small: cells.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut in stage 1 by SIGTERM, then between two videos without warning; what is done is not done again."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert call(whole) == 0
    assert call(cut, "--hours", "0") == INTERRUPTED and figures(cut) == []
    steps: list[int] = []

    def at_step_2(event: Event) -> None:
        if event.kind == "step" and event.data.get("stage") == "reconstruct" and "loss" in event.data:
            steps.append(event.data["step"])
            if steps == [1, 2]:
                os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(claims, "tell", at_step_2)
        assert call(cut) == INTERRUPTED and figures(cut) == []
        write = cells.append_line
        written: list[str] = []

        def second(path: Path, row: Any) -> None:
            if path.name == "rows.jsonl" and len(written) == 1:
                raise KeyboardInterrupt
            written.append(row["file"])
            write(path, row)

        patch.setattr(cells, "append_line", second)
        assert call(cut) == INTERRUPTED and figures(cut) == []
        patch.setattr(cells, "append_line", write)
        assert call(cut) == 0
    assert steps == [1, 2, 3, 4], "no step was done twice"
    assert figures(cut) == figures(whole) != []
    (result,) = figures(cut)
    assert [one["file"] for one in result["videos"]][:1] == written and len(result["videos"]) == 2
    assert (result["steps"], result["figures"]["place"]) == ({"reconstruct": 4, "prefer": 0}, 1.0)
    (sheet,) = (cut / "out").glob("*.png")
    assert sheet.name == "claims-table-1.png"
    said = json.loads((cut / "out" / "claims.json").read_text())
    assert said["about"]["trial"] and said["tables"][0]["rows"][0]["cells"] == 1
    assert str(tmp_path) not in (cut / "out" / "claims.json").read_text()
    capsys.readouterr()
    assert call(cut, "--list") == 0 and "1 of 1 cells" in capsys.readouterr().out


def test_a_method_that_comes_to_grief_is_a_result_and_a_full_disk_is_none(
    small: cells.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(code: str) -> Any:
        def run(*_: object) -> None:
            raise MagicIDError(code, "What happened.", "What to type.")

        return run

    cell = cell_of(small)
    monkeypatch.setattr(pipeline, "run", fail("disk-full"))
    with pytest.raises(MagicIDError):
        cells.measure(small, cell)
    assert small.result(cell) is None
    monkeypatch.setattr(pipeline, "run", fail("beta-undetermined"))
    assert cells.measure(small, cell)["failed"] == "What happened."
    assert report.row_figures([small.result(cell) or {}], [])["failed"][0]["person"] == cell.who


def test_a_customization_starts_from_the_one_with_the_most_in_common(
    small: cells.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More steps of stage 1 keep the photos alone; another seed or another person keeps nothing."""
    monkeypatch.setenv("MAGICID_HOME", str(small.work))
    cell = cell_of(small, recipes.DREAMBOOTH)
    first = cells.customize(small, cell)
    events: list[Event] = []
    small._listeners.append(events.append)
    longer = replace(cell, method=recipes.Method("longer", {"reconstruct.steps": 5, "prefer.steps": 0}))
    second = cells.customize(small, longer)
    found = {e.data["title"]: e.data["state"] for e in events if e.kind == "stage" and e.data["state"] != "finished"}
    assert found == {"Photos": "cached", "Stage 1: reconstruction": "started"}
    assert first.name != second.name == second.manifest()["name"]
    assert len(read_lines(second.reconstruct / "metrics.jsonl")) == 5
    photos = cells.album(small, cell.who)
    stranger = Workspace("p950-s102-x", small.work)
    assert cells.start_from_another(small, replace(cell, seed=102), stranger, photos) is None and not stranger.exists


def test_the_adapters_of_the_curve_s_points_are_kept(tmp_path: Path, small: cells.Bench) -> None:
    """As they were at those steps, under the settings' own spec; a point that was never reached is told."""
    from safetensors.torch import save_file

    from magicid_cli import adapters

    settings = config.with_values(BASE, {"reconstruct.steps": 300, "prefer.steps": 120})
    workspace, events = Workspace("p1", tmp_path / "home"), Events()
    workspace.update(model="mini", class_word="man", seed=1)
    cells.keep_points(events, workspace, settings)
    import torch

    for stage, step in (("reconstruct", 50), ("reconstruct", 60), ("prefer", 60)):
        folder = tmp_path / f"{stage}-{step}"
        folder.mkdir()
        save_file({"a.lora_A.weight": torch.full((1,), float(step))}, folder / "adapter.safetensors")
        events.emit("checkpoint", stage=stage, step=step, path=str(folder))
    kept = sorted(path.name for path in (workspace.path / "points").iterdir())
    assert kept == ["prefer-000060.safetensors", "reconstruct-000060.safetensors"]
    points = recipes.points_of(settings)
    view = cells.at_point(small, workspace, settings, points.index(("prefer", 60)))
    tensors, spec = adapters.load(view.path / view.manifest()["adapter"])
    assert (float(tensors["a.lora_A.weight"]), spec.rank) == (60.0, settings.adapter.rank)
    with pytest.raises(LookupError, match="step 120 of reconstruct"):
        cells.at_point(small, workspace, settings, points.index(("reconstruct", 120)))


def test_points_of_a_later_round_are_its_own(tmp_path: Path, small: cells.Bench) -> None:
    """300 steps, then twice 120: 540, a seventh of them is 80. The rounds' adapters of one step are two adapters."""
    import torch
    from safetensors.torch import save_file

    from magicid_cli import adapters

    settings = config.with_values(BASE, {"reconstruct.steps": 300, "prefer.steps": 120, "rounds": 2})
    points = recipes.points_of(settings)
    assert points == [("reconstruct", step) for step in (80, 160, 240, 300)] + [("prefer", 80), ("prefer@2", 80)]
    assert cells.steps_done(settings, points.index(("prefer@2", 80))) == {"reconstruct": 300, "prefer": 200}
    assert cells.steps_done(settings, points.index(("prefer", 80))) == {"reconstruct": 300, "prefer": 80}
    assert cells.steps_done(settings, None) == {"reconstruct": 300, "prefer": 240}
    workspace, events = Workspace("p1", tmp_path / "home"), Events()
    workspace.update(model="mini", class_word="man", seed=1)
    cells.keep_points(events, workspace, settings)
    for number in (1, 2):
        folder = workspace.round(number).prefer / "checkpoints" / "step-80"
        folder.mkdir(parents=True)
        save_file({"a.lora_A.weight": torch.full((1,), float(number))}, folder / "adapter.safetensors")
        events.emit("checkpoint", stage="prefer", step=80, path=str(folder))
    for number, point in ((1, ("prefer", 80)), (2, ("prefer@2", 80))):
        view = cells.at_point(small, workspace, settings, points.index(point))
        tensors, _ = adapters.load(view.path / view.manifest()["adapter"])
        assert float(tensors["a.lora_A.weight"]) == number


def test_a_cell_of_rounds_is_a_cell_of_its_own(bench: cells.Bench) -> None:
    """One round or two: another key; both start from the same repository. What both rounds did is reported."""
    one, two = cell_of(bench), cell_of(bench, recipes.ROUNDS)
    assert bench.key(one) != bench.key(two) and bench.workspace(one).name != bench.workspace(two).name
    settings = [bench.settings(cell).settings for cell in (one, two)]
    shared = ("ingest", "reconstruct", "sample", "score", "select")
    assert cells.training_key(settings[0], shared) == cells.training_key(settings[1], shared)
    assert settings[0].prefer.steps == 2 * settings[1].prefer.steps == 8
    result = {"settings": {"rounds": 2}, "stages": {"select": 1, "prefer": 2, "select@2": 3, "prefer@2": 4}}
    row = report.row_figures([{**result, "person": 1, "steps": {}, "figures": {"curve": [0.5]}}], [])
    assert (row["pairs"], row["stage_2"]) == ([[1, 3]], [[2, 4]])


def test_a_figure_has_one_seed_and_a_table_all(bench: cells.Bench) -> None:
    study = report.Study(recipes.FINAL, recipes.Amounts(), list(recipes.TABLES.values()))
    found = {table.name: {cell.seed for cell in study.cells(bench, table)} for table in study.tables}
    assert found["table-1"] == {*recipes.FINAL.seeds} and found["figure-2a"] == found["figure-2b"] == {101}
