"""The GPU benchmark's table against hand arithmetic: from rows as the command writes them to figures beside targets.

No figure here was measured: the rows are made up, of the 13B model on an H100.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import _gpu_expected, _gpu_table, gpu

from magicid_cli.config import AdapterSettings
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Execution
from magicid_cli.plan import costs, known


def rows_of(seconds: dict[tuple[str, str, str], float]) -> list[dict[str, Any]]:
    """Rows as the command writes them, of the 13B model on an H100."""
    found = []
    for (shape, kind, way), each in seconds.items():
        keep: Any = "attention" if way == "80gb" else "nothing"
        there = Shape(*map(int, shape.split("x")))
        cost = _gpu_expected.cost_of(costs.ARCHITECTURES["hunyuan-video"], kind, there, way, keep)
        row = {"shape": shape, "row": kind, "way": way, "state": "done", "seconds": each, "allocated_gb": 40.0}
        row |= {"floor_s": cost.seconds(costs.BEST_RATES), "tflops": cost.flop / each / 1e12, "kernel": "cudnn"}
        held = known.held(Execution(keep=keep, attention="cudnn"), kind)
        found.append(row | {"planned_gb": 38.0 if kind == "segment" else 41.0, "held": list(held)})
    return found


def test_the_table_says_what_was_measured_and_what_was_not() -> None:
    """Ours 4 s and plain 8 s is twice as fast; 50 steps of 0.5 s and 2 s of decoding: 7.4 % outside."""
    small, gpu_name = "61x320x544", "NVIDIA H100 80GB HBM3"
    measured = rows_of(
        {
            (small, "preference step", "80gb"): 4.0,
            (small, "preference step", "plain"): 8.0,
            (small, "sampling step", "80gb"): 0.5,
            (small, "decode", "80gb"): 2.0,
        }
    )
    found = {what: got for what, _, got in _gpu_table.claims(measured, gpu_name)}
    assert (found[f"preference step {small}"], found[f"plain / ours {small}"]) == ("4.00 s", "2.00")
    assert found[f"outside the transformer {small}"] == "7.4%"
    assert found["peak of plan 80gb"] == "40.0 GB"
    assert found["preference step 61x720x1280"] == found["peak of plan 24gb"] == "not measured"
    assert set({what: got for what, _, got in _gpu_table.claims([], gpu_name)}.values()) == {"not measured"}


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
    off = _gpu_table.left_out(measured, "NVIDIA H100 80GB HBM3")
    assert off[shapes[1]] == pytest.approx(-1 / 11)
    assert off[shapes[0]] > 0 and len(off) == 3


def test_the_plan_is_held_against_a_segment_in_time_and_memory() -> None:
    """20 steps of 4 s and two videos of 50 steps of 0.5 s and 2 s of decoding are 134 s; planned 38 GB, measured 40."""
    small, name = "61x320x544", "NVIDIA H100 80GB HBM3"
    each = {"preference step": 4.0, "sampling step": 0.5, "decode": 2.0, "segment": 160.0}
    measured = rows_of({(small, kind, "80gb"): seconds for kind, seconds in each.items()})
    assert _gpu_table.segment_off(measured, name) == pytest.approx(134 / 160 - 1)
    found = {what: got for what, _, got in _gpu_table.claims(measured, name)}
    assert found["plan against a segment of 20 steps + 2 videos: time"] == "-16.2%"
    assert found["plan against a segment of 20 steps + 2 videos: peak"] == "-5.0%"
    assert found["plan against peak memory, worst row"] == "-5.0% (61x320x544 segment 80gb)"
    assert _gpu_table.segment_off(measured[:3], name) is None
    assert _gpu_table.segment_off([row for row in measured if row["row"] != "decode"], name) is None


def test_the_default_preset_is_planned_from_measured_steps_and_estimated_for_an_h100() -> None:
    """By hand: 1000 + 4032 steps; 120 videos, 6 looks at 4, 16 + 4 times 4 forwards of 10 pairs; judging nominally."""
    small, name = "61x320x544", "NVIDIA H200"
    each = {"stage-1 step": 2.0, "preference step": 4.0, "sampling step": 0.5, "decode": 1.0}
    measured = rows_of({(small, kind, "80gb"): seconds for kind, seconds in each.items()})
    hours = (1000 * 2 + 4032 * 4 + (120 + 6 * 4) * 26 + 20 * 4 * 10 * 0.5 + 8 + 128 * 5 + 1) / 3600
    found = {what: got for what, _, got in _gpu_table.claims(measured, name)}
    whole = "default preset, whole pipeline, "
    assert found[whole + name] == f"{hours:.1f} h, planned from measured steps"
    # The H200 has the H100's peak, so the same steps are estimated for it.
    assert found[whole + "NVIDIA H100 80GB HBM3"] == f"{hours:.1f} h, estimated from NVIDIA H200"
    less = {what: got for what, _, got in _gpu_table.claims(measured[1:], name)}
    assert less[whole + name] == less[whole + "NVIDIA H100 80GB HBM3"] == "not measured"


def test_a_long_video_has_the_target_of_its_attention_kernel() -> None:
    large = "61x720x1280"
    rows = rows_of({(large, "sampling step", "80gb"): 6.0, (large, "decode", "80gb"): 4.0})
    for kernel, target in (("cudnn", "<= 345 s (cudnn)"), ("flash-3", "<= 300 s (flash-3)")):
        found = _gpu_table.claims([row | {"kernel": kernel} for row in rows], "NVIDIA H100 80GB HBM3")
        assert (f"50-step video {large}", target, "304 s (50 x a step + decoding)") in found


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
    rows = rows_of({("61x320x544", "preference step", way): 4.0 for way in ("80gb", "plain")})
    path = gpu.ship(rows, "NVIDIA H100 80GB HBM3")
    stored = json.loads(path.read_text())
    (one,) = stored["steps"]
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
