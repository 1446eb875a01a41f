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
from benchmarks import gpu

from magicid_cli import adapters
from magicid_cli.models.base import Shape
from magicid_cli.plan import costs

KINDS = ["forward", "sampling step", "stage-1 step", "preference step"]
ALL = [(shape, kind) for shape in ("9x64x64", "17x64x96") for kind in KINDS]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """The command with a results file of its own; returns the rows of that file."""
    monkeypatch.setattr(gpu, "repeats_for", lambda _: 1)

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
    assert [(row["shape"], row["row"]) for row in rows] == ALL
    for row in rows:
        assert row["state"] == "done"
        assert row["tflops"] == pytest.approx(row["pflop"] * 1000 / row["seconds"])
        assert (row["times_floor"], row["allocated_gb"]) == (None, None)
    # tokens by hand: 3 × 4 × 4 and 5 × 4 × 6; a preference step is 8 to 11 forwards.
    assert [rows[0]["tokens"], rows[4]["tokens"]] == [48, 120]
    assert 8 < rows[3]["pflop"] / rows[0]["pflop"] < 11
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
        patch.setattr(gpu, "measure", never)
        rows = command(budget=0.0)
    assert [row["state"].partition(":")[0] for row in rows] == ["skipped"] * 8
    assert "17x64x96 preference step: skipped: about" in capsys.readouterr().out
    assert [row["state"] for row in command()] == ["done"] * 8


def test_the_prediction_follows_from_the_rate_reached_so_far() -> None:
    rows: list[dict[str, Any]] = [
        {"row": "forward", "state": "done", "tflops": 300.0},
        {"row": "stage-1 step", "state": "done", "tflops": 200.0},
        {"row": "preference step", "state": "out of memory", "tflops": None},
    ]
    assert gpu.rate_reached(rows, "forward", "hunyuan-video") == 300.0
    assert gpu.rate_reached(rows, "preference step", "hunyuan-video") == 200.0
    assert gpu.rate_reached([], "forward", "hunyuan-video") == gpu.FIRST_RATE["hunyuan-video"]


def test_a_prediction_is_flop_over_rate_for_the_warm_up_and_every_repeat(tmp_path: Path) -> None:
    bench = gpu.build("tiny", torch.device("cpu"), tmp_path)
    shape = Shape(9, 64, 64)
    flop = costs.forward(bench.architecture, shape).flop
    row = gpu.try_row(bench, "forward", shape, rate=flop / 1e12 / 20, left_s=39.0)
    assert row["predicted_s"] == pytest.approx(20.0)
    assert row["state"] == "skipped: about 40 s, 39 s are left"


def test_out_of_memory_is_a_result(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def full(*_: Any) -> Any:
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(gpu.reconstruct, "accumulate", full)
        rows = {(row["shape"], row["row"]): row for row in command()}
    assert len(calls) == 2
    assert {key[1]: row["state"] for key, row in rows.items()} == {
        "forward": "done",
        "sampling step": "done",
        "stage-1 step": "out of memory",
        "preference step": "done",
    }
    assert rows["9x64x64", "stage-1 step"]["seconds"] is None
    # It is not tried again, unless asked.
    assert [row["state"] for row in command()].count("out of memory") == 2
    assert [row["state"] for row in command("--redo")] == ["done"] * 8


def test_rows_of_another_machine_are_not_mixed_in(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    command(budget=0.0)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"machine": stored["machine"] | {"torch": "1.0"}}))
    with pytest.raises(SystemExit, match="differs in torch"):
        command()


def test_training_rows_train_the_policy_and_nothing_else(tmp_path: Path) -> None:
    bench = gpu.build("tiny", torch.device("cpu"), tmp_path)
    model, shape = bench.family.transformer, Shape(9, 64, 64)
    assert sum(parameter.numel() for name, parameter in model.named_parameters() if ".lora_" not in name) == 160_992
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for kind in ("stage-1 step", "preference step"):
        step, _ = gpu.ROWS[kind](bench, shape)
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
    times, peaks = gpu.measure(lambda: calls.append("step"), 2, torch.device("cuda"))
    assert calls == ["reset"] + ["step", "wait"] * 3
    assert len(times) == 2
    assert peaks == {"allocated_gb": 33.6, "reserved_gb": 35.0}


def test_a_larger_card_is_held_to_80_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    card = SimpleNamespace(name="NVIDIA H200", total_memory=150_000_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: limits.append(share * 150))
    assert gpu.prepare(True) == ("hunyuan-video", torch.device("cuda", 0))
    assert limits == [pytest.approx(84.4)]
    about = gpu.about(torch.device("cuda", 0))
    assert (about["gpu"], about["gpu_gb"], about["cap_gb"]) == ("NVIDIA H200", 150.0, 84.4)


@pytest.mark.parametrize(("seconds", "repeats"), [(0.01, 5), (2.0, 5), (4.0, 2), (100.0, 1)])
def test_short_rows_are_timed_more_often(seconds: float, repeats: int) -> None:
    assert gpu.repeats_for(seconds) == repeats
