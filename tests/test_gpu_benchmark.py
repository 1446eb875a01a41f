"""The GPU benchmark against its contract: every row once, resumed, skipped by name, out of memory as a result.

There is no GPU here, so what runs is the same code on the tiny configuration; its figures are not looked at.
"""

import builtins
import json
import os
import runpy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks import _gpu_model, _gpu_rows, _gpu_steps, gpu

from magicid_cli import adapters
from magicid_cli.errors import MagicIDError
from magicid_cli.models import arranging
from magicid_cli.models.base import Shape
from magicid_cli.models.compiling import Compiled
from magicid_cli.models.execution import Execution
from magicid_cli.plan import costs

KINDS = ["forward", "sampling step", "stage-1 step", "preference step", "decode"]
SMALL, LARGE = "9x64x64", "17x64x96"
ALL = [(shape, kind, "80gb") for shape in (SMALL, LARGE) for kind in KINDS] + [(SMALL, "segment", "80gb")]
ALL += [(SMALL, "optimizer step", "80gb")]
SMALLER = ("sampling step", "preference step", "decode")
ALL += [(s, k, w) for w in ("48gb", "24gb") for s in (SMALL, LARGE) for k in SMALLER]
ALL += [(shape, "preference step", "plain") for shape in (SMALL, LARGE)]
ALL += [(s, k, "80gb compile") for s in (SMALL, LARGE) for k in ("sampling step", "stage-1 step", "preference step")]
BASES = ("24gb fp8", "24gb int8", "24gb nf4", "80gb fp8-products")
ALL += [(s, k, w) for w in BASES for s in (SMALL, LARGE) for k in SMALLER[:2]]
PREFERENCE = [way for _, kind, way in ALL if kind == "preference step"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _gpu_model.tiny.build(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture
def command(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """The command with a results file of its own; returns the rows of that file."""
    monkeypatch.setattr(_gpu_rows, "repeats_for", lambda *_: 1)
    monkeypatch.setattr(_gpu_model.tiny, "build", lambda _: checkpoint)
    # The compiler takes minutes; one test below has a part of it.
    monkeypatch.setattr(arranging, "Compiled", lambda *_: SimpleNamespace(running=True))

    def run(*arguments: str, budget: float = 1000.0) -> list[dict[str, Any]]:
        path = tmp_path / "results.json"
        gpu.main(["--budget", str(budget), "--output", str(path), *arguments])
        return json.loads(path.read_text())["rows"]

    return run


@pytest.fixture(autouse=True)
def _compiler_as_before() -> Iterator[None]:
    """The compiler's settings and what it has compiled are of the process."""
    with (
        torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False),
        torch._functorch.config.patch(force_non_lazy_backward_lowering=False),
    ):
        yield
    torch._dynamo.reset()


def opened(folder: Path, attention: Any = "auto") -> _gpu_model.Bench:
    return _gpu_model.open_bench("tiny", torch.device("cpu"), folder, attention)


def never(*_: Any) -> Any:
    raise AssertionError("nothing had to be measured")


def test_every_row_is_measured_once_and_kept(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = command()
    assert [(row["shape"], row["row"], row["way"]) for row in rows] == ALL
    for row in rows:
        assert row["state"] == "done"
        if row["row"] == "optimizer step":  # memory bounds it
            assert row["tflops"] is None and row["seconds"] > 0
            continue
        assert row["tflops"] == pytest.approx(row["pflop"] * 1000 / row["seconds"])
        assert (row["times_floor"], row["allocated_gb"]) == (None, None)
    # tokens by hand: 3 × 4 × 4 and 5 × 4 × 6; a preference step is 8 to 11 forwards.
    assert [rows[0]["tokens"], rows[5]["tokens"]] == [48, 120]
    assert 8 < rows[3]["pflop"] / rows[0]["pflop"] < 11
    # Kept attention outputs are not computed again: 9 attentions instead of the 11 of the other ways.
    flop = {row["way"]: row["pflop"] for row in rows if (row["shape"], row["row"]) == (SMALL, "preference step")}
    attention = costs.forward(costs.ARCHITECTURES["tiny"], Shape(9, 64, 64)).attention_forward / 1e15
    assert flop["80gb"] == flop["80gb compile"] and flop["24gb nf4"] == flop["24gb"]
    assert flop["48gb"] == flop["24gb"] == flop["plain"] == pytest.approx(flop["80gb"] + 2 * attention)
    # 20 preference steps, and twice the tiny model's 4 sampling steps and a decoding.
    flop = {row["row"]: row["pflop"] for row in rows if (row["shape"], row["way"]) == (SMALL, "80gb")}
    videos = 2 * (4 * flop["sampling step"] + flop["decode"])
    assert flop["segment"] == pytest.approx(20 * flop["preference step"] + videos)
    kernels = {(row["row"], row["way"] == "plain"): row["kernel"] for row in rows}
    assert (kernels["decode", False], kernels["preference step", True], kernels["optimizer step", False]) == (None,) * 3
    assert {kernel for key, kernel in kernels.items() if key[0].endswith(("forward", "sampling step"))} == {
        "torch-flash"
    }
    bases = {row["way"]: row["held"][0] for row in rows if row["row"] == "sampling step"}
    assert [bases[way] for way in ("24gb", *BASES)] == ["full", "fp8", "int8", "nf4", "fp8-products"]
    about = json.loads((tmp_path / "results.json").read_text())["machine"]
    assert about["what"].startswith("tiny on CPU")
    assert about["torch"] == torch.__version__
    assert "tiny on CPU" in capsys.readouterr().out

    monkeypatch.setattr(_gpu_model, "random_transformer", never)
    assert command() == rows


def test_a_row_that_does_not_fit_is_skipped_by_name_and_done_later(
    command: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_gpu_rows, "measure", never)
        rows = command("--only", "preference", budget=0.0)
    assert [row["state"].partition(":")[0] for row in rows] == ["skipped"] * len(PREFERENCE)
    assert "17x64x96 preference step plain: skipped: about" in capsys.readouterr().out
    assert [row["state"] for row in command("--only", "preference")] == ["done"] * len(PREFERENCE)


def test_the_prediction_follows_from_the_rate_reached_so_far() -> None:
    """Of the same kind and way, of the kind, of any; ours is not asked about plain diffusers, nor the reverse."""
    rows: list[dict[str, Any]] = [
        {"row": "forward", "way": "80gb", "state": "done", "tflops": 300.0},
        {"row": "stage-1 step", "way": "80gb", "state": "done", "tflops": 200.0},
        {"row": "preference step", "way": "80gb", "state": "out of memory", "tflops": None},
    ]
    first = _gpu_rows.FIRST_RATE["hunyuan-video"]

    def rate(kind: str, way: str) -> float:
        return gpu.rate_reached(rows, kind, way, "hunyuan-video")

    assert (rate("forward", "80gb"), rate("forward", "24gb")) == (300.0, 300.0)
    assert rate("preference step", "80gb") == 200.0
    assert rate("preference step", "plain") == first == gpu.rate_reached([], "forward", "80gb", "hunyuan-video")
    rows += [{"row": "preference step", "way": way, "tflops": t} for way, t in (("24gb", 1), ("plain", 2))]
    assert (rate("preference step", "plain"), rate("preference step", "24gb"), rate("decode", "80gb")) == (2, 1, 1)


def test_a_prediction_is_flop_over_rate_for_the_warm_up_and_every_repeat(tmp_path: Path) -> None:
    bench, shape = opened(tmp_path), Shape(9, 64, 64)
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
        patch.setattr(_gpu_steps.reconstruct, "accumulate", broken)
        states = {row["row"]: row["state"] for row in command("--only", "[1eg] step 80gb$")}
    assert states["stage-1 step"] == "failed: cuDNN frontend: no plan" and states["sampling step"] == "done"
    assert {row["state"] for row in command("--only", "[1eg] step 80gb$")} == {"done"}


@pytest.mark.parametrize(
    ("problem", "state"),
    [
        (MagicIDError("memory", "Memory cannot be locked.", "-"), "failed: Memory cannot be locked."),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "out of memory"),
    ],
)
def test_a_way_that_cannot_be_held_leaves_the_others_and_a_model_built_anew(
    command: Any, monkeypatch: pytest.MonkeyPatch, problem: Exception, state: str
) -> None:
    built, arrange, build = list[str](), _gpu_model.Hunyuan.arrange, _gpu_model.Bench._build

    def half(family: Any) -> None:
        if (family.execution.keep, family.execution.offload) == ("nothing", "none"):
            raise problem
        arrange(family)

    def counted(bench: _gpu_model.Bench, execution: Execution | None) -> None:
        built.append("plain" if execution is None else execution.base)
        build(bench, execution)

    with monkeypatch.context() as patch:
        patch.setattr(_gpu_model.Hunyuan, "arrange", half)
        patch.setattr(_gpu_model.Bench, "_build", counted)
        rows = command("--only", "preference step ([0-9]+gb|plain)$")
    assert [row["state"] for row in rows] == ["done", "done", state, state, "done", "done", "done", "done"]
    assert built == ["full", "full", "full", "plain"], "anew after each of the two, and for plain"


def test_out_of_memory_is_a_result(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def full(*_: Any) -> Any:
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(_gpu_steps.reconstruct, "accumulate", full)
        rows = {(row["shape"], row["row"]): row for row in command("--only", "[1eg] step 80gb$")}
    assert len(calls) == 2
    states = {key[1]: row["state"] for key, row in rows.items()}
    expected = {"sampling step": "done", "stage-1 step": "out of memory", "preference step": "done"}
    assert states == expected
    assert rows[SMALL, "stage-1 step"]["seconds"] is None
    # It is not tried again, unless asked.
    assert [row["state"] for row in command("--only", "[1eg] step 80gb$")].count("out of memory") == 2
    again = command("--redo", "--only", "stage-1 step 80gb$")
    assert {row["state"] for row in again} == {"done"} and len(again) == len(rows), "and nothing else is done again"


def test_each_attention_kernel_has_its_own_rows(command: Any) -> None:
    """And what has no attention, or not ours, is measured once for all of them."""
    command("--only", f"{SMALL} (sampling step|decode) 80gb$")
    rows = command("--only", f"{SMALL} (sampling step|decode) 80gb$", "--attention", "math")
    assert [(row["row"], row["kernel"]) for row in rows] == [
        ("sampling step", "math"),
        ("sampling step", "torch-flash"),
        ("decode", None),
    ]
    assert [row["held"][-1] for row in rows[:2]] == ["math", "torch-flash"]
    # Doing those of one kernel again leaves the other's.
    again = command("--only", "sampling step 80gb$", "--attention", "math", "--redo", budget=0.0)
    states = {(row["shape"], row["row"], row["kernel"]): row["state"].partition(":")[0] for row in again}
    assert states[SMALL, "sampling step", "math"] == "skipped" and states[SMALL, "decode", None] == "done"
    assert states[SMALL, "sampling step", "torch-flash"] == "done"


def test_a_kernel_that_is_refused_is_said_and_the_others_are_measured(command: Any) -> None:
    rows = command("--only", f"{SMALL} (sampling step 80gb|preference step plain)$", "--attention", "flash-3")
    assert [row["state"] for row in rows] == [rows[0]["state"], "done"]
    assert rows[0]["state"].startswith("failed: The attention kernel 'flash-3' cannot be used here")


def test_a_compiled_row_keeps_the_time_of_compiling(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are captured and run as they are, without the code generator; once more for a text of another length."""
    seen, predict = list[int](), _gpu_model.Hunyuan.sample
    one = lambda blocks, announce: Compiled(blocks[:1], announce, backend="eager")  # noqa: E731
    monkeypatch.setattr(arranging, "Compiled", one)

    def sample(family: Any, text: Any, *rest: Any, **named: Any) -> Any:
        seen.append(int(text["prompt_attention_mask"].sum()))
        return predict(family, text, *rest, **named)

    monkeypatch.setattr(_gpu_model.Hunyuan, "sample", sample)
    rows = command("--only", f"{SMALL} sampling step 80gb compile")
    assert [row["state"] for row in rows] == ["done"]
    assert seen == [256, 40, 256]
    assert rows[0]["compile_s"] > rows[0]["seconds"]
    assert _gpu_rows.compile_reached(rows, "tiny") == rows[0]["compile_s"]
    assert _gpu_rows.compile_reached([], "tiny") == _gpu_rows.FIRST_COMPILE_S["tiny"]


def test_every_compiled_row_is_compiled_from_nothing(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch._dynamo, "reset", lambda: calls.append("reset"))
    monkeypatch.setattr(
        arranging,
        "Compiled",
        lambda *_: calls.append("blocks") or SimpleNamespace(running=True),  # type: ignore[func-returns-value]
    )
    command("--only", f"{SMALL} (sampling|stage-1) step 80gb compile")
    assert calls == ["reset", "blocks"] * 2


def test_blocks_that_were_not_compiled_are_no_compiled_row(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Any, announce: Any) -> Any:
        announce("The blocks run as they are: no C++ compiler")
        return SimpleNamespace(running=False)

    monkeypatch.setattr(arranging, "Compiled", broken)
    (row,) = command("--only", f"{SMALL} sampling step 80gb compile")
    assert row["state"] == "failed: The blocks run as they are: no C++ compiler"
    assert row["seconds"] is None and row["said"] == ["The blocks run as they are: no C++ compiler"]


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", None])
def test_memory_grows_in_pieces_unless_the_user_set_something_else(
    monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """Before torch is imported, which reads it; and only where the benchmark is the program."""
    given = {} if name is None else {name: "max_split_size_mb:512"}
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"], **given})
    monkeypatch.setattr(sys, "argv", ["gpu", "--help"])
    seen = list[dict[str, str]]()
    before = builtins.__import__

    def imported(what: str, *rest: Any) -> Any:
        if what == "torch" and not seen:
            seen.append({one: os.environ[one] for one in os.environ if "ALLOC" in one})
        return before(what, *rest)

    monkeypatch.setattr(builtins, "__import__", imported)
    with pytest.raises(SystemExit), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module is there already
        runpy.run_module("benchmarks.gpu", run_name="__main__")
    assert seen[0] == (given or {"PYTORCH_ALLOC_CONF": "expandable_segments:True"})


def test_more_memory_than_the_plans_card_has_is_no_result(tmp_path: Path) -> None:
    """A card of 24 GB: 24.8 less 1 are the plan's, reserved by torch for later or in use."""
    bench = opened(tmp_path)
    within = _gpu_rows.Measured([1.0], 0.0, None, {"allocated_gb": 20.0, "reserved_gb": 23.7})
    _gpu_rows.refuse_what_did_not_happen(bench, "24gb nf4", within)
    over = _gpu_rows.Measured([1.0], 0.0, None, {"allocated_gb": 20.0, "reserved_gb": 23.9})
    with pytest.raises(RuntimeError, match=r"23.9 GB were reserved, over the 23.8"):
        _gpu_rows.refuse_what_did_not_happen(bench, "24gb nf4", over)


def test_rows_of_another_machine_are_not_mixed_in(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    command("--only", "forward", budget=0.0)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"machine": stored["machine"] | {"torch": "1.0"}}))
    with pytest.raises(SystemExit, match="differs in torch"):
        command()


def test_training_rows_train_the_policy_and_nothing_else(tmp_path: Path) -> None:
    bench, shape = opened(tmp_path), Shape(9, 64, 64)
    bench.hold("80gb", shape)
    model = bench.family.transformer
    assert sum(parameter.numel() for name, parameter in model.named_parameters() if ".lora_" not in name) == 160_992
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for kind in ("stage-1 step", "preference step", "optimizer step"):
        step = gpu.KINDS[kind](bench, shape)
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
    step, first = lambda: calls.append("step"), lambda: calls.append("before")
    found = _gpu_rows.measure(step, 2, torch.device("cuda"), [first])
    assert calls == ["reset", "before", "wait"] + ["step", "wait"] * 2
    assert len(found.times) == 2 and found.before_s > 0
    assert found.peaks_gb == {"allocated_gb": 33.6, "reserved_gb": 35.0}


@pytest.mark.parametrize(("way", "limit"), [("80gb", 83.4), ("48gb", 49.4), ("24gb", 23.8)])
def test_a_larger_card_is_held_to_that_of_the_plan_with_one_gb_to_spare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, limit: float
) -> None:
    bench, limits = opened(tmp_path), list[float]()
    card = SimpleNamespace(name="NVIDIA H200", total_memory=150_000_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: limits.append(share * 150))
    monkeypatch.setattr(bench.family, "arrange", lambda: None)
    monkeypatch.setattr(bench, "_build", lambda _: None)
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


@pytest.mark.parametrize(("seconds", "repeats"), [(0.01, 5), (2.0, 5), (4.0, 2), (100.0, 1)])
def test_short_rows_are_timed_more_often(seconds: float, repeats: int) -> None:
    assert _gpu_rows.repeats_for(seconds, "decode") == repeats
    assert _gpu_rows.repeats_for(seconds, "sampling step") == 5, "the 50-step video stands for ten times five of them"
