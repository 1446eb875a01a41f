"""The GPU benchmark against its contract: every row once, resumed, skipped by name, out of memory as a result.

There is no GPU here, so what runs is the same code on the tiny configuration; its figures are not looked at.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks import _gpu_model, _gpu_profile, _gpu_rows, _gpu_table, gpu

from magicid_cli import adapters, checkpoints, video
from magicid_cli.config import AdapterSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Execution
from magicid_cli.plan import costs, known

KINDS = ["forward", "sampling step", "stage-1 step", "preference step", "decode"]
SMALL, LARGE = "9x64x64", "17x64x96"
ALL = [(shape, kind, "80gb") for shape in (SMALL, LARGE) for kind in KINDS] + [(SMALL, "segment", "80gb")]
SMALLER = ("sampling step", "preference step", "decode")
ALL += [(s, k, w) for w in ("48gb", "24gb") for s in (SMALL, LARGE) for k in SMALLER]
ALL += [(shape, "preference step", "plain") for shape in (SMALL, LARGE)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _gpu_model.tiny.build(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture
def command(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """The command with a results file of its own; returns the rows of that file."""
    monkeypatch.setattr(_gpu_rows, "repeats_for", lambda *_: 1)
    monkeypatch.setattr(_gpu_model.tiny, "build", lambda _: checkpoint)

    def run(*arguments: str, budget: float = 1000.0) -> list[dict[str, Any]]:
        path = tmp_path / "results.json"
        gpu.main(["--budget", str(budget), "--output", str(path), *arguments])
        return json.loads(path.read_text())["rows"]

    return run


def never(*_: Any) -> Any:
    raise AssertionError("nothing had to be measured")


def test_every_row_is_measured_once_and_kept(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = command()
    assert [(row["shape"], row["row"], row["way"]) for row in rows] == ALL
    for row in rows:
        assert row["state"] == "done"
        assert row["tflops"] == pytest.approx(row["pflop"] * 1000 / row["seconds"])
        assert (row["times_floor"], row["allocated_gb"]) == (None, None)
    # tokens by hand: 3 × 4 × 4 and 5 × 4 × 6; a preference step is 8 to 11 forwards.
    assert [rows[0]["tokens"], rows[5]["tokens"]] == [48, 120]
    assert 8 < rows[3]["pflop"] / rows[0]["pflop"] < 11
    # Kept attention outputs are not computed again: 9 attentions instead of the 11 of the other ways.
    flop = {row["way"]: row["pflop"] for row in rows if (row["shape"], row["row"]) == (SMALL, "preference step")}
    attention = costs.forward(costs.ARCHITECTURES["tiny"], Shape(9, 64, 64)).attention_forward / 1e15
    assert flop["48gb"] == flop["24gb"] == flop["plain"] == pytest.approx(flop["80gb"] + 2 * attention)
    # 20 preference steps, and twice the tiny model's 4 sampling steps and a decoding.
    flop = {row["row"]: row["pflop"] for row in rows if (row["shape"], row["way"]) == (SMALL, "80gb")}
    videos = 2 * (4 * flop["sampling step"] + flop["decode"])
    assert flop["segment"] == pytest.approx(20 * flop["preference step"] + videos)
    about = json.loads((tmp_path / "results.json").read_text())["machine"]
    assert about["what"].startswith("tiny on CPU")
    assert about["torch"] == torch.__version__
    assert "tiny on CPU" in capsys.readouterr().out

    monkeypatch.setattr(gpu, "build", never)
    assert command() == rows


def test_a_row_that_does_not_fit_is_skipped_by_name_and_done_later(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_gpu_rows, "measure", never)
        rows = command("--only", "preference", budget=0.0)
    assert [row["state"].partition(":")[0] for row in rows] == ["skipped"] * 8
    assert "17x64x96 preference step plain: skipped: about" in capsys.readouterr().out
    assert [row["state"] for row in command("--only", "preference")] == ["done"] * 8


def test_the_prediction_follows_from_the_rate_reached_so_far() -> None:
    rows: list[dict[str, Any]] = [
        {"row": "forward", "state": "done", "tflops": 300.0},
        {"row": "stage-1 step", "state": "done", "tflops": 200.0},
        {"row": "preference step", "state": "out of memory", "tflops": None},
    ]
    assert gpu.rate_reached(rows, "forward", "hunyuan-video") == 300.0
    assert gpu.rate_reached(rows, "preference step", "hunyuan-video") == 200.0
    assert gpu.rate_reached([], "forward", "hunyuan-video") == _gpu_rows.FIRST_RATE["hunyuan-video"]


def test_a_prediction_is_flop_over_rate_for_the_warm_up_and_every_repeat(tmp_path: Path) -> None:
    bench = gpu.build("tiny", torch.device("cpu"), tmp_path)
    shape = Shape(9, 64, 64)
    flop = costs.forward(bench.architecture, shape).flop
    row = gpu.try_row(bench, (shape, "forward", "80gb"), rate=flop / 1e12 / 20, left_s=39.0)
    assert row["predicted_s"] == pytest.approx(20.0)
    assert row["state"] == "skipped: about 40 s, 39 s are left"


@pytest.mark.parametrize(
    "problem",
    [RuntimeError("cuDNN frontend: no plan\nand more"), MagicIDError("memory", "cuDNN frontend: no plan", "-")],
)
def test_a_row_that_fails_leaves_the_others_and_is_tried_again(
    command: Any, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def broken(*_: Any) -> Any:
        raise problem

    with monkeypatch.context() as patch:
        patch.setattr(_gpu_rows.reconstruct, "accumulate", broken)
        states = {row["row"]: row["state"] for row in command("--only", "step 80gb")}
    assert states["stage-1 step"] == "failed: cuDNN frontend: no plan" and states["sampling step"] == "done"
    assert {row["state"] for row in command("--only", "step 80gb")} == {"done"}


def test_out_of_memory_is_a_result(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def full(*_: Any) -> Any:
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(_gpu_rows.reconstruct, "accumulate", full)
        rows = {(row["shape"], row["row"]): row for row in command("--only", "step 80gb")}
    assert len(calls) == 2
    states = {key[1]: row["state"] for key, row in rows.items()}
    expected = {"sampling step": "done", "stage-1 step": "out of memory", "preference step": "done"}
    assert states == expected
    assert rows[SMALL, "stage-1 step"]["seconds"] is None
    # It is not tried again, unless asked.
    assert [row["state"] for row in command("--only", "step 80gb")].count("out of memory") == 2
    assert [row["state"] for row in command("--redo", "--only", "stage-1")] == ["done"] * 2


def test_rows_of_another_machine_are_not_mixed_in(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    command("--only", "forward", budget=0.0)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"machine": stored["machine"] | {"torch": "1.0"}}))
    with pytest.raises(SystemExit, match="differs in torch"):
        command()


def test_training_rows_train_the_policy_and_nothing_else(tmp_path: Path) -> None:
    bench = gpu.build("tiny", torch.device("cpu"), tmp_path)
    model, shape = bench.family.transformer, Shape(9, 64, 64)
    assert sum(parameter.numel() for name, parameter in model.named_parameters() if ".lora_" not in name) == 160_992
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    bench.hold("80gb", shape)
    for kind in ("stage-1 step", "preference step"):
        step, _ = gpu.KINDS[kind](bench, shape)
        step()
        assert all(torch.isfinite(value).all() for value in adapters.tensors(model, "policy").values())
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed
    assert all(".policy." in name for name in changed)


def test_measuring_on_a_gpu_waits_for_it_and_reads_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fakes = {
        "reset_peak_memory_stats": lambda: calls.append("reset"),
        "synchronize": lambda: calls.append("wait"),
        "max_memory_allocated": lambda: 33_600_000_000,
        "max_memory_reserved": lambda: 35_000_000_000,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    times, peaks = _gpu_rows.measure(lambda: calls.append("step"), 2, torch.device("cuda"))
    assert calls == ["reset"] + ["step", "wait"] * 3
    assert len(times) == 2
    assert peaks == {"allocated_gb": 33.6, "reserved_gb": 35.0}


@pytest.mark.parametrize(("way", "limit"), [("80gb", 83.4), ("48gb", 49.4), ("24gb", 23.8)])
def test_a_larger_card_is_held_to_that_of_the_plan_with_one_gb_to_spare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, limit: float
) -> None:
    bench, limits = gpu.build("tiny", torch.device("cpu"), tmp_path), list[float]()
    card = SimpleNamespace(name="NVIDIA H200", total_memory=150_000_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: limits.append(share * 150))
    monkeypatch.setattr(bench.family, "arrange", lambda: None)
    bench.family.device = torch.device("cuda", 0)
    bench.hold(way, Shape(9, 64, 64))
    assert limits == pytest.approx([150, limit]), "the whole card only while the weights move"
    about = gpu.about(torch.device("cuda", 0))
    assert (about["gpu"], about["gpu_gb"]) == ("NVIDIA H200", 150.0)


@pytest.mark.parametrize("way", ["80gb", "48gb", "24gb"])
def test_a_plan_is_measured_as_a_run_would_hold_it(way: str) -> None:
    """At full shape inputs wait in main memory beside kept attention outputs, then alone, then the blocks, too."""
    found = _gpu_model.execution_of("hunyuan-video", way, Shape(61, 720, 1280))
    assert found.kept_in == ("inputs pinned" if way == "80gb" else "pinned")
    assert (found.keep, found.offload) == {
        "80gb": ("attention", "none"),
        "48gb": ("nothing", "none"),
        "24gb": ("nothing", "blocks"),
    }[way]
    sampling = _gpu_model.execution_of("hunyuan-video", way, Shape(61, 720, 1280), trains=False)
    assert (sampling.keep, sampling.kept_in, sampling.offload) == ("nothing", "gpu", found.offload)


def rows_of(seconds: dict[tuple[str, str, str], float]) -> list[dict[str, Any]]:
    """Rows as the command writes them, of the 13B model on an H100."""
    found = []
    for (shape, kind, way), each in seconds.items():
        keep: Any = "attention" if way == "80gb" else "nothing"
        there = Shape(*map(int, shape.split("x")))
        cost = _gpu_rows.cost_of(costs.ARCHITECTURES["hunyuan-video"], kind, there, way, keep)
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


def test_a_segment_trains_by_the_training_loop_and_writes_its_videos(tmp_path: Path) -> None:
    """20 lines of metrics, a checkpoint of the last step, two clips; the policy has moved, the reference has not."""
    bench, shape = gpu.build("tiny", torch.device("cpu"), tmp_path), Shape(9, 64, 64)
    bench.hold("80gb", shape)
    before = {name: adapters.tensors(bench.family.transformer, name) for name in ("policy", "reference")}
    step, _ = gpu.KINDS["segment"](bench, shape)
    step()
    folder = tmp_path / "segment"
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [*range(1, 21)]
    assert checkpoints.last(folder / "checkpoints") == (20, "segment")
    assert [len(video.read_video(folder / f"{number}.mp4")[0]) for number in (0, 1)] == [9, 9]
    after = {name: adapters.tensors(bench.family.transformer, name) for name in before}
    assert all(torch.equal(value, before["reference"][key]) for key, value in after["reference"].items())
    assert not all(torch.equal(value, before["policy"][key]) for key, value in after["policy"].items())
    assert bench.family.execution.keep == "nothing", "videos are sampled as the stage that samples holds the model"


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
    found = {(row["shape"], row["row"], row["way"]): row["memory_gb"] for row in gpu.predictions()}
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
    assert len(found) == 4 * 5 + 1 + 12 + 4
    assert all(row["expected_s"] > row["floor_s"] > 0 for row in found.values())
    for shape in ("61x320x544", "61x720x1280"):
        ours, plain = (found[shape, "preference step", way]["expected_s"] for way in ("80gb", "plain"))
        assert ours < plain


def test_kernels_are_sorted_by_kind() -> None:
    """3 ms of attention, 1 of matrix products: three quarters and one."""
    times = [("cudnn_flash_fprop_sdpa", 3000.0), ("nvjet_hsh_128x256", 600.0), ("sm90_xmma_gemm_bf16", 400.0)]
    assert _gpu_profile.by_kind(times) == [
        {"kind": "attention", "ms": 3.0, "share": 0.75},
        {"kind": "linear", "ms": 1.0, "share": 0.25},
    ]


def test_a_profile_of_the_tiny_model_names_attention_and_linear_layers(command: Any, tmp_path: Path) -> None:
    gpu.main(["--profile", "--output", str(tmp_path / "results.json")])
    rows = json.loads((tmp_path / "results-profile.json").read_text())["rows"]
    assert {"attention", "linear"} <= {row["kind"] for row in rows}
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)


@pytest.mark.parametrize(("seconds", "repeats"), [(0.01, 5), (2.0, 5), (4.0, 2), (100.0, 1)])
def test_short_rows_are_timed_more_often(seconds: float, repeats: int) -> None:
    assert _gpu_rows.repeats_for(seconds, "decode") == repeats
    assert _gpu_rows.repeats_for(seconds, "sampling step") == 5, "the 50-step video stands for ten times five of them"
