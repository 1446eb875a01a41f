"""What a training pass keeps, against the pass that keeps everything: the same bits, with the recomputation counted."""

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import executions
from magicid_cli import adapters
from magicid_cli.models import hunyuan_attention, keeping, tiny
from magicid_cli.models.execution import Execution, KeptIn
from magicid_cli.models.keeping import Store
from magicid_cli.models.transfers import Transfers

# Of the tiny transformer; the text refiner's attention, before the blocks, is outside of all this.
BLOCKS, REFINER = 4, 1
# The kernel that a CPU has, as torch dispatches it.
KERNEL = "aten::_scaled_dot_product_flash_attention_for_cpu"
WAYS = [
    Execution(keep="nothing"),
    Execution(keep="attention"),
    Execution(keep="nothing", kept_in="pinned"),
    Execution(keep="attention", kept_in="inputs pinned"),
    Execution(keep="attention", kept_in="pinned"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Callable[[torch.dtype], Any]:
    """What the pass that keeps everything gives, made once for each number type."""

    @cache
    def made(dtype: torch.dtype) -> Any:
        return executions.training_pass(executions.opened(folder, Execution(keep="everything"), dtype=dtype))

    return made


class Counting(TorchDispatchMode):
    """Counts what reaches the kernels, below whatever checkpointing does with it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func._schema.name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("execution", WAYS, ids=lambda way: f"{way.keep} in {way.kept_in}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_same_bits_whatever_is_kept(
    folder: Path, whole: Callable[[torch.dtype], Any], execution: Execution, dtype: torch.dtype
) -> None:
    expected = whole(dtype)
    family = executions.opened(folder, execution, dtype=dtype)
    assert all(value.abs().max() > 0 for value in expected[1].values())
    for _ in range(2):
        assert executions.same(executions.training_pass(family), expected)


@pytest.mark.parametrize(
    ("execution", "attentions", "times"),
    [
        (Execution(keep="everything"), BLOCKS, 1),
        (Execution(keep="nothing"), 2 * BLOCKS, 2),
        (Execution(keep="attention"), BLOCKS, 2),
        (Execution(keep="attention", kept_in="inputs pinned"), BLOCKS, 2),
        (Execution(keep="attention", kept_in="pinned"), BLOCKS, 2),
        (Execution(keep="attention", offload="blocks"), BLOCKS, 2),
    ],
    ids=["everything", "nothing", "attention", "attention, inputs pinned", "attention, pinned", "attention, offloaded"],
)
def test_kept_attention_is_not_computed_again(folder: Path, execution: Execution, attentions: int, times: int) -> None:
    """Counted where kernels are called. The linear layers, by contrast, run again wherever blocks are recomputed."""
    family = executions.opened(folder, execution)
    runs: list[int] = []
    family.transformer.transformer_blocks[1].ff.register_forward_pre_hook(lambda *_: runs.append(1))
    with Counting() as counting:
        executions.training_pass(family)
    assert counting.calls[KERNEL] == REFINER + attentions
    assert counting.calls[f"{KERNEL}_backward"] == BLOCKS
    assert len(runs) == times


def test_the_count_shows_a_kernel_that_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pitfall itself: an operator of another name is recomputed, and a family refuses to keep it."""
    monkeypatch.setattr(keeping, "_ATTENTION", frozenset())
    family = executions.opened(folder, Execution(keep="nothing"))
    family.gradient_checkpointing(True)
    keep = keeping.Checkpointing(
        [*family.transformer.transformer_blocks, *family.transformer.single_transformer_blocks],
        "attention",
        "gpu",
        family.device,
    )
    family.transformer.enable_gradient_checkpointing(keep)
    with Counting() as counting:
        executions.training_pass(family)
    assert counting.calls[KERNEL] == REFINER + 2 * BLOCKS
    assert "cannot be kept" in str(
        hunyuan_attention.refusal("torch-flash", family.device, torch.float32, 16, keepable=True)
    )


@pytest.mark.parametrize("kept_in", ["inputs pinned", "pinned"])
def test_both_graphs_of_a_pair_may_be_alive(folder: Path, kept_in: KeptIn) -> None:
    """Two forwards before two backwards, in the same order: every pass has its own stores."""
    family = executions.opened(folder, Execution(keep="attention", kept_in=kept_in))

    def loss(seed: int) -> torch.Tensor:
        return family.predict(executions.clip(seed), executions.TIME, executions.text(), 1.0).square().mean()

    alone = []
    for seed in (0, 1):
        loss(seed).backward()
        alone.append(executions.taken(family))
    for waiting, expected in zip([loss(0), loss(1)], alone, strict=True):
        waiting.backward()
        found = executions.taken(family)
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_a_changed_execution_takes_effect_without_loading_again(folder: Path) -> None:
    """What a run does after an out-of-memory: the next plan on the same parameters, in the middle of training."""
    family = executions.opened(folder, Execution(keep="everything"))
    parameters = adapters.parameters(family.transformer, "policy")
    expected = executions.training_pass(family)
    for execution in [*WAYS, Execution(keep="attention", offload="blocks"), Execution(keep="everything")]:
        family.execution = execution
        family.arrange()
        now = adapters.parameters(family.transformer, "policy")
        assert all(now[key] is parameters[key] for key in parameters)
        (loss, found), (true, gradients) = executions.training_pass(family), expected
        # Where weights lie decides how a CPU's vector units group sums: the last bit may differ after an offload.
        assert abs(loss - true) < 1e-6
        assert all((found[key] - gradients[key]).abs().max() < 1e-6 for key in gradients)


def test_a_pass_that_was_cut_off_leaves_nothing_behind(folder: Path) -> None:
    family = executions.opened(folder, Execution(keep="attention", kept_in="pinned"))
    expected = executions.training_pass(family)
    handle = family.transformer.single_transformer_blocks[1].register_forward_pre_hook(raise_out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        executions.training_pass(family)
    handle.remove()
    assert executions.same(executions.training_pass(family), expected)


@pytest.mark.parametrize("kept_in", ["gpu", "inputs pinned", "pinned"])
def test_a_pass_that_ran_out_of_memory_gives_the_weights_back(folder: Path, kept_in: Any) -> None:
    """The next memory plan needs their room: a cycle through saved tensors would hold every block that had run."""
    family = executions.opened(folder, Execution(keep="nothing", kept_in=kept_in))
    family.transformer.single_transformer_blocks[1].register_forward_pre_hook(raise_out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        executions.training_pass(family)
    weights = [weakref.ref(value) for value in family.transformer.parameters()]
    del family
    gc.collect()
    assert weights and not [one for one in weights if one() is not None]


def raise_out_of_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError("of the test")


# --------------------------------------------------------------------------------------------------------------- store


class Recorded(Transfers):
    """Writes down what it is told, in order."""

    def __init__(self, told: list[str]) -> None:
        super().__init__(torch.device("cpu"))
        self.told = told

    def to_host(self, tensor: torch.Tensor) -> tuple[torch.Tensor, Any]:
        self.told.append(f"out {int(tensor)}")
        return super().to_host(tensor)[0], f"{int(tensor)} is out"

    def to_device(self, host: torch.Tensor) -> tuple[torch.Tensor, Any]:
        self.told.append(f"in {int(host)}")
        return super().to_device(host)[0], f"{int(host)} is in"

    def wait(self, event: Any) -> None:
        self.told.append(f"wait until {event}")


def test_copies_run_ahead_of_the_computation() -> None:
    """By hand, for three blocks: memory of a block is freed two blocks later; on the way back one block runs ahead."""
    told: list[str] = []
    store = Store(Recorded(told))
    entries = [store.put(torch.tensor(block), block) for block in range(3)]
    assert told == ["out 0", "out 1", "wait until 0 is out", "out 2"]
    told.clear()
    assert [int(store.get(entry)) for entry in reversed(entries)] == [2, 1, 0]
    assert told == [
        "wait until 1 is out",
        "wait until 2 is out",
        "in 2",
        "in 1",
        "wait until 2 is in",
        "in 0",
        "wait until 1 is in",
        "wait until 0 is in",
    ]


def test_memory_that_cannot_be_page_locked_is_memory_that_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next memory plan locks less; to CUDA it is a plain error."""

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: invalid argument")

    monkeypatch.setattr(torch, "empty_like", refuse)
    with pytest.raises(torch.OutOfMemoryError, match="page-locked: CUDA error: invalid"):
        Transfers(torch.device("cpu")).to_host(torch.ones(3))


def test_what_waits_in_main_memory_keeps_its_layout() -> None:
    """Attention gives a transposed view: copied into another layout, it would be transposed on the device first."""
    transfers = Transfers(torch.device("cpu"))
    tensor = torch.randn(2, 7, 3, 5).transpose(1, 2)
    host, _ = transfers.to_host(tensor)
    here, _ = transfers.to_device(host)
    assert tensor.stride() == host.stride() == here.stride()
    assert torch.equal(here, tensor)


def test_what_waits_in_main_memory_is_a_copy() -> None:
    store, tensor = Store(Transfers(torch.device("cpu"))), torch.ones(3)
    entry = store.put(tensor, 0)
    assert entry.here is None and entry.host is not None
    tensor.zero_()
    assert store.get(entry).tolist() == [1, 1, 1]
    assert store.get(entry).tolist() == [1, 1, 1], "a second time, too"


@pytest.mark.parametrize("kept_in", ["inputs pinned", "pinned"])
def test_only_what_was_asked_for_leaves_the_device(
    folder: Path, kept_in: KeptIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions, mask and time are shared by all blocks: copied once a block they would be most of the traffic."""
    shapes: list[tuple[int, ...]] = []
    to_host: Callable[..., Any] = Transfers.to_host

    def watched(transfers: Transfers, tensor: torch.Tensor) -> Any:
        shapes.append(tuple(tensor.shape))
        return to_host(transfers, tensor)

    monkeypatch.setattr(Transfers, "to_host", watched)
    executions.training_pass(executions.opened(folder, Execution(keep="attention", kept_in=kept_in)))
    video, text = 3 * 4 * 3, executions.TOKENS
    inputs, outputs = [(1, video, 32), (1, text, 32)] * BLOCKS, [(1, 2, video + text, 16)] * BLOCKS
    assert sorted(shapes) == sorted([*inputs, *(outputs if kept_in == "pinned" else [])])
