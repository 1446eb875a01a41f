"""The GPU benchmark's table against hand arithmetic: from rows as the command writes them to figures beside targets.

No figure here was measured: the rows are made up, of the 13B model on an H100.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks import _gpu_against, _gpu_expected, _gpu_rows, _gpu_table, gpu

from magicid_cli.config import AdapterSettings
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Execution
from magicid_cli.plan import costs, known

H100, H200 = "NVIDIA H100 80GB HBM3", "NVIDIA H200"
SMALL, LARGE = "61x320x544", "61x720x1280"
ARCH = costs.ARCHITECTURES["hunyuan-video"]


def shape_of(text: str) -> Shape:
    return Shape(*map(int, text.split("x")))


def rows_of(seconds: dict[tuple[str, str, str], float]) -> list[dict[str, Any]]:
    """Rows as the command writes them, of the 13B model on an H100."""
    found = []
    for (shape, kind, way), each in seconds.items():
        keep: Any = "attention" if way.startswith("80gb") else "nothing"
        cost = _gpu_expected.cost_of(ARCH, kind, shape_of(shape), way, keep)
        row = {"shape": shape, "row": kind, "way": way, "state": "done", "seconds": each, "allocated_gb": 40.0}
        row |= {"floor_s": cost.seconds(costs.BEST_RATES), "tflops": cost.flop / each / 1e12, "kernel": "cudnn"}
        row |= {"reserved_gb": 44.0, "compile_s": None, "parts_s": None}
        held = known.held(Execution(keep=keep, attention="cudnn"), kind)
        found.append(row | {"planned_gb": 38.0 if kind == "segment" else 41.0, "held": list(held)})
    return found


def lines(rows: list[dict[str, Any]], name: str = H100) -> dict[str, dict[str, str]]:
    return {line["what"]: line for line in _gpu_table.claims(rows, name)}


def got(rows: list[dict[str, Any]], name: str = H100) -> dict[str, str]:
    return {what: line["measured"] for what, line in lines(rows, name).items()}


def test_the_table_says_what_was_measured_and_what_was_not() -> None:
    """Ours 4 s and plain 8 s is twice as fast; 50 steps of 0.5 s and 2 s of decoding: 7.4 % is decoding."""
    rows = rows_of(
        {
            (SMALL, "preference step", "80gb"): 4.0,
            (SMALL, "preference step", "plain"): 8.0,
            (SMALL, "sampling step", "80gb"): 0.5,
            (SMALL, "decode", "80gb"): 2.0,
        }
    )
    found = lines(rows)
    step = found[f"preference step {SMALL}"]
    assert (step["measured"], step["met"], step["plain"]) == ("4.00 s", "yes", "8.00 s")
    assert (found[f"plain / ours {SMALL}"]["measured"], found[f"plain / ours {SMALL}"]["met"]) == ("2.00", "yes")
    assert found[f"decoding's share of it {SMALL}"]["measured"] == "7.4%"
    assert found[f"peak memory {SMALL}, plan 80gb"]["measured"] == "40.0 GB"
    assert found[f"preference step {LARGE}"]["measured"] == found["peak memory, plan 24gb"]["measured"] == "unmeasured"
    slower = lines(rows_of({(SMALL, "preference step", "80gb"): 4.4}))[f"preference step {SMALL}"]
    assert (slower["measured"], slower["met"], slower["plain"]) == ("4.40 s", "NO", "8.01 s predicted")


def test_without_a_gpu_the_whole_table_stands_with_its_targets_and_predictions() -> None:
    """Every target of the list, unmeasured; the predictions are those of the rows: 50 x 6.45 + 3.9 s."""
    found = lines([])
    assert {(line["measured"], line["met"]) for line in found.values()} == {("unmeasured", "")}
    targets = {what: (line["target"], line["predicted"]) for what, line in found.items()}
    assert [targets[f"preference step {shape}"][0] for shape in _gpu_table.TARGET_S] == [
        "<= 4.3 s",
        "<= 9.6 s",
        "<= 25.4 s",
        "<= 70 s",
    ]
    rows = {(row["shape"], row["row"], row["way"]): row["seconds"] for row in gpu.predictions()}
    assert targets[f"preference step {SMALL}"][1] == f"{rows[SMALL, 'preference step', '80gb']:.2f} s"
    whole = 50 * rows[LARGE, "sampling step", "80gb"] + rows[LARGE, "decode", "80gb"]
    assert targets[f"50-step video {LARGE}, cudnn"] == ("<= 345 s", f"{whole:.0f} s (50 x a step + decoding)")
    target, predicted = targets[f"50-step video {LARGE}, flash-3"]
    assert target == "<= 300 s" and 243 < int(predicted.split()[0]) < whole
    assert targets[f"share of peak, stage-1 step, {LARGE}"][0] == ">= 55 %"
    assert targets[f"default preset, whole pipeline, {H100}"][0] == "<= 8 h"
    assert targets[f"peak memory {LARGE}, plan 80gb"][0] == "<= 76 GB"
    assert found[f"preference step {SMALL}"]["floor"] == "2.93 s"


def test_a_machine_without_a_gpu_lists_every_row_and_the_table_of_what_was_measured_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    gpu.main(["--dry-run"])
    printed = capsys.readouterr().out
    for shape, kind, way in _gpu_rows.order("hunyuan-video"):
        assert re.search(rf"^{shape} +{kind} +{way} +\d", printed, re.MULTILINE)
    assert printed.count("unmeasured") == len(lines([])) and "4.96 s" in printed
    stored = {"rows": rows_of({(SMALL, "preference step", "80gb"): 4.0}), "machine": {"gpu": H200}}
    (tmp_path / "gpu.json").write_text(json.dumps(stored))
    gpu.main(["--predict"])
    again = capsys.readouterr().out
    assert re.search(rf"^preference step {SMALL} +<= 4.3 s +4.96 s +4.00 s +yes", again, re.MULTILINE)
    assert f"default preset, whole pipeline, {H200}" in again


def test_memory_is_told_once_the_row_that_takes_the_most_is_there() -> None:
    rows = rows_of({(LARGE, "sampling step", "24gb"): 6.0})
    assert got(rows)["peak memory, plan 24gb"] == "unmeasured"
    rows += rows_of({(LARGE, "preference step", "24gb"): 60.0})
    found = lines(rows)
    assert (found["peak memory, plan 24gb"]["measured"], found["peak memory, plan 24gb"]["met"]) == ("40.0 GB", "NO")
    assert found["reserved memory, plan 24gb"]["measured"] == "44.0 GB"
    lost = [rows[0], rows[1] | {"state": "out of memory", "seconds": None}]
    assert got(lost)["peak memory, plan 24gb"] == f"out of memory: preference step {LARGE}"


def test_compiled_blocks_are_the_default_only_if_they_pay_within_the_run() -> None:
    """By hand: 4032 preference steps 0.5 s shorter are 0.56 h; compiling for 180 s, once, leaves 0.51."""
    times, stages = _gpu_against.runs_of("preference step")
    assert (times, stages) == (4032, 1)
    assert _gpu_against.runs_of("stage-1 step") == (1000, 1)
    kinds = {"preference step": (4.0, 3.5), "stage-1 step": (2.0, 2.0), "sampling step": (0.5, 0.5)}
    rows = rows_of({(SMALL, kind, "80gb"): plain for kind, (plain, _) in kinds.items()})
    compiled = rows_of({(SMALL, kind, "80gb compile"): fast for kind, (_, fast) in kinds.items()})
    rows += [row | {"compile_s": 180.0} for row in compiled]
    found = lines(rows)
    name = "compiled blocks save, default preset, "
    assert found[name + "preference step"]["measured"] == "+0.51 h, compiling counted"
    assert found[name + "stage-1 step"]["measured"] == "-0.05 h, compiling counted"
    # Sampling is in two stages, the repository's and the guards' of stage 2: compiled twice.
    assert found[name + "sampling step"]["measured"] == "-0.10 h, compiling counted"
    assert (found[name + "all"]["measured"], found[name + "all"]["met"]) == ("+0.36 h", "yes")
    slower = [row | {"compile_s": 2000.0} if row["way"] == "80gb compile" else row for row in rows]
    assert lines(slower)[name + "all"]["met"] == "NO"
    assert got(rows[:-1])[name + "all"] == "unmeasured"


def test_the_base_of_the_smallest_plan_is_the_fastest_of_all_that_were_tried() -> None:
    took = {"24gb": 5.3, "24gb fp8": 5.2, "24gb int8": 5.6, "24gb nf4": 5.1}
    rows = rows_of({(SMALL, "preference step", way): each for way, each in took.items()})
    what = f"base of plan 24gb, preference step {SMALL}"
    assert got(rows)[what] == "nf4 5.10 s, fp8 5.20 s, full 5.30 s, int8 5.60 s"
    assert got(rows[1:])[what] == "unmeasured"
    rows[2] |= {"state": "out of memory", "seconds": None}
    assert got(rows)[what] == "nf4 5.10 s, fp8 5.20 s, full 5.30 s, int8 out of memory"


def test_the_share_outside_the_transformer_and_the_optimizers_are_of_their_rows() -> None:
    rows = rows_of({(SMALL, "segment", "80gb"): 150.0, (SMALL, "preference step", "80gb"): 4.0})
    rows[0]["parts_s"] = {"train": 80.0, "text": 1.0, "denoise": 92.0, "decode": 5.0, "write": 2.0}
    rows.append(rows[1] | {"row": "optimizer step", "seconds": 0.002, "tflops": None, "floor_s": None})
    found = lines(rows)
    assert found[f"outside the transformer {SMALL}: prompts, decoding, writing"]["measured"] == "8.0%"
    assert found[f"optimizer step by preference step {SMALL}"]["measured"] == "0.05%"
    assert all(step.kind != "optimizer step" for step in _gpu_against.steps(rows, H100)), "no step of the plan's"


def test_of_two_kernels_the_faster_one_counts_and_a_video_has_both() -> None:
    rows = rows_of({(LARGE, "sampling step", "80gb"): 6.0, (LARGE, "decode", "80gb"): 4.0})
    rows.append(rows[0] | {"kernel": "flash-3", "seconds": 5.5})
    found = lines(rows)
    assert found[f"50-step video {LARGE}, cudnn"]["measured"] == "304 s (50 x a step + decoding)"
    assert found[f"50-step video {LARGE}, flash-3"]["measured"] == "279 s (50 x a step + decoding)"
    assert [found[f"50-step video {LARGE}, {kernel}"]["met"] for kernel in ("cudnn", "flash-3")] == ["yes", "yes"]
    assert _gpu_against.seconds(rows, LARGE, "sampling step") == 5.5


def test_leaving_a_shape_out_shows_what_the_plan_would_have_missed() -> None:
    """Three shapes, each at 1.5 times its floor, are planned exactly; one that takes a tenth more is missed by 1/11."""
    shapes, arch = ("61x320x544", "33x544x960", "61x544x960"), costs.ARCHITECTURES["hunyuan-video"]
    floors = {
        shape: costs.preference_step(
            arch, Shape(*map(int, shape.split("x"))), AdapterSettings(), keep="attention"
        ).seconds(known.floor_rates("NVIDIA H100 80GB HBM3", "cudnn"))
        for shape in shapes
    }
    slower = {shape: 1.65 if shape == shapes[1] else 1.5 for shape in shapes}
    measured = rows_of({(shape, "preference step", "80gb"): slower[shape] * floors[shape] for shape in shapes})
    off = _gpu_against.left_out(measured, "NVIDIA H100 80GB HBM3")
    assert off[shapes[1]] == pytest.approx(-1 / 11)
    assert off[shapes[0]] > 0 and len(off) == 3


def test_the_plan_is_held_against_a_segment_in_time_and_memory() -> None:
    """20 steps of 4 s and two videos of 50 steps of 0.5 s and 2 s of decoding are 134 s; planned 38 GB, measured 40."""
    small, name = "61x320x544", "NVIDIA H100 80GB HBM3"
    each = {"preference step": 4.0, "sampling step": 0.5, "decode": 2.0, "segment": 160.0}
    measured = rows_of({(small, kind, "80gb"): seconds for kind, seconds in each.items()})
    assert _gpu_against.segment_off(measured, name) == pytest.approx(134 / 160 - 1)
    found = got(measured, name)
    assert found["plan against a segment of 20 steps + 2 videos: time"] == "-16.2%"
    assert found["plan against a segment of 20 steps + 2 videos: peak"] == "-5.0%"
    assert found["plan against peak memory, worst row"] == "-5.0% (61x320x544 segment 80gb)"
    assert _gpu_against.segment_off(measured[:3], name) is None
    assert _gpu_against.segment_off([row for row in measured if row["row"] != "decode"], name) is None


def test_the_default_preset_is_planned_from_measured_steps_and_estimated_for_an_h100() -> None:
    """By hand: 1000 + 4032 steps; 120 videos, 6 looks at 4, 16 + 4 times 4 forwards of 10 pairs; judging nominally."""
    small, name = "61x320x544", "NVIDIA H200"
    each = {"stage-1 step": 2.0, "preference step": 4.0, "sampling step": 0.5, "decode": 1.0}
    measured = rows_of({(small, kind, "80gb"): seconds for kind, seconds in each.items()})
    hours = (1000 * 2 + 4032 * 4 + (120 + 6 * 4) * 26 + 20 * 4 * 10 * 0.5 + 8 + 128 * 5 + 1) / 3600
    found = got(measured, name)
    whole = "default preset, whole pipeline, "
    assert found[whole + name] == f"{hours:.1f} h, planned from single steps"
    # The H200 has the H100's peak, so the same steps are estimated for it.
    assert found[whole + "NVIDIA H100 80GB HBM3"] == f"{hours:.1f} h, estimated from NVIDIA H200"
    less = got(measured[1:], name)
    assert less[whole + name] == less[whole + "NVIDIA H100 80GB HBM3"] == "unmeasured"


def test_every_row_is_expected_to_take_the_memory_of_its_plan() -> None:
    """By hand at 61x320x544: weights 25.642 GB, an adapter 0.4404; 21 or 35.2 tensors of 0.06842 GB in a block."""
    found = {(row["shape"], row["row"], row["way"]): row["allocated_gb"] for row in gpu.predictions()}
    small, hidden = "61x320x544", 11_136 * 3072 * 2 / 1e9
    assert found[small, "sampling step", "80gb"] == pytest.approx(25.642 + 2 * 0.4404 + 21 * hidden, abs=0.06)
    kept = 60 * (2 * hidden + 11_136 * 24 * 4 / 1e9)
    step = 25.642 + 7 * 0.4404 + kept + 35.2 * hidden
    assert found[small, "preference step", "80gb"] == found[small, "segment", "80gb"] == pytest.approx(step, abs=0.06)
    assert found[small, "stage-1 step", "80gb"] == pytest.approx(step - 2 * 0.4404, abs=0.06)
    # Plain diffusers keeps the inputs of both graphs.
    plain = 25.642 + 7 * 0.4404 + 2 * 60 * hidden + 35.2 * hidden
    assert found[small, "preference step", "plain"] == pytest.approx(plain, abs=0.06)
    # Decoding takes what a tile takes, 0.493 GB of weights and 4.107 of maps.
    assert found[small, "decode", "80gb"] == pytest.approx(25.642 + 2 * 0.4404 + 0.493 + 4.107, abs=0.06)


def test_measured_steps_are_shipped_to_where_the_plan_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "__file__", str(tmp_path / "known.py"))
    took = {"80gb": 4.0, "plain": 8.0, "80gb compile": 3.0, "24gb nf4": 5.0}
    rows = rows_of({("61x320x544", "preference step", way): each for way, each in took.items()})
    path = gpu.ship(rows, "NVIDIA H100 80GB HBM3")
    stored = json.loads(path.read_text())
    assert [step["seconds"] for step in stored["steps"]] == [3.0, 5.0, 4.0], "what runs by default is the last word"
    one = stored["steps"][-1]
    assert (one["gpu"], one["shape"], one["seconds"]) == ("NVIDIA H100 80GB HBM3", [61, 320, 544], 4.0)
    assert one["held"] == ["full", "attention", "gpu", "none", "False", "cudnn"]
    cost = costs.preference_step(
        costs.ARCHITECTURES["hunyuan-video"], Shape(61, 320, 544), AdapterSettings(), keep="attention"
    )
    assert one["floor_s"] == pytest.approx(cost.seconds(costs.Rates(794.5, 595, 516)))


def test_every_row_is_expected_to_take_longer_than_its_floor() -> None:
    """And ours less than plain, by the time that its masked attention takes."""
    found = {(row["shape"], row["row"], row["way"]): row for row in gpu.predictions()}
    assert len(found) == 4 * 5 + 2 + 2 * 6 + 4 + 6 + 4 * 4
    assert all(row["seconds"] > (row["floor_s"] or 0) > 0 for row in found.values() if row["row"] != "optimizer step")
    for shape in ("61x320x544", "61x720x1280"):
        ours, plain = (found[shape, "preference step", way]["seconds"] for way in ("80gb", "plain"))
        assert ours < plain
