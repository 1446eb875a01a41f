"""Our attention against diffusers' masked one in float64, and the choice of a kernel against its rules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel

import executions
from magicid_cli.errors import MagicIDError
from magicid_cli.models import hunyuan_attention, kernels, tiny
from magicid_cli.models.execution import Execution, Kernel
from magicid_cli.models.hunyuan_attention import Processor
from magicid_cli.models.loading import load_weights

HOPPER, AMPERE, BLACKWELL, VOLTA, FUTURE = (9, 0), (8, 0), (10, 0), (7, 0), (13, 0)
NO_PACKAGES: frozenset[Kernel] = frozenset()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


# ------------------------------------------------------------------------------------------------------------ exactness


def outcome(family: Any, *, trimmed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Velocity and all gradients in float64, straight from the transformer."""
    length = executions.TOKENS if trimmed else None
    text = executions.text()
    family.transformer.double()
    velocity = family.transformer(
        hidden_states=executions.clip()[None].double(),
        timestep=executions.TIME * 1000,
        encoder_hidden_states=text["prompt_embeds"][None, :length].double(),
        encoder_attention_mask=text["prompt_attention_mask"][None, :length],
        pooled_projections=text["pooled_prompt_embeds"][None].double(),
        guidance=torch.tensor([1000.0]),
        return_dict=False,
    )[0]
    velocity.square().mean().backward()
    return velocity.detach(), torch.cat([one.flatten() for one in executions.taken(family).values()])


@pytest.mark.parametrize(
    "execution",
    [
        Execution(keep="everything"),
        Execution(keep="nothing"),
        Execution(keep="attention", kept_in="pinned"),
        Execution(keep="everything", attention="math"),
    ],
    ids=["plain", "recomputed", "kept", "math"],
)
def test_no_mask_and_no_padding_is_exact(folder: Path, execution: Execution) -> None:
    """With two adapters on, in float64, against diffusers' own processor on padded text with its mask."""
    theirs = executions.opened(folder, Execution(keep="everything"))
    original = load_weights(HunyuanVideoTransformer3DModel, folder, "transformer", torch.float32).attn_processors
    theirs.transformer.set_attn_processor(original)
    expected = outcome(theirs, trimmed=False)
    ours = executions.opened(folder, execution)
    blocks = [*ours.transformer.transformer_blocks, *ours.transformer.single_transformer_blocks]
    assert all(isinstance(block.attn.processor, Processor) for block in blocks)
    for found, true in zip(outcome(ours, trimmed=True), expected, strict=True):
        assert true.abs().max() > 1e-3
        assert (found - true).abs().max() < 1e-12


# -------------------------------------------------------------------------------------------------------------- choice


def refusing(*names: str) -> Callable[[Kernel], str | None]:
    return lambda name: f"{name} is out of order" if name in names else None


@pytest.mark.parametrize(
    ("capability", "present", "first"),
    [
        (HOPPER, {"flash-3", "flash-2"}, "flash-3"),
        (HOPPER, set(), "cudnn"),
        (BLACKWELL, {"flash-3"}, "cudnn"),
        (FUTURE, set(), "cudnn"),
        (AMPERE, {"flash-2"}, "flash-2"),
        (AMPERE, set(), "torch-flash"),
        (VOLTA, {"flash-2"}, "torch-efficient"),
        (None, set(), "torch-flash"),
    ],
)
def test_the_kernel_follows_the_machine(capability: Any, present: set[Kernel], first: str) -> None:
    assert kernels.expected("auto", capability, frozenset(present)) == first
    assert kernels.choose("auto", capability, refusing(), frozenset(present)).kernel == first


def test_a_refused_kernel_is_named_with_its_reason() -> None:
    choice = kernels.choose("auto", HOPPER, refusing("cudnn"), NO_PACKAGES)
    assert choice.kernel == "torch-flash"
    assert choice.refused == {
        "flash-3": "its package is not installed",
        "cudnn": "cudnn is out of order",
        "flash-2": "its package is not installed",
    }
    assert "torch-flash" in choice.second_best and "cudnn is out of order" in choice.second_best
    assert "flash-3" not in choice.second_best, "what was never there is no loss"
    assert kernels.choose("auto", HOPPER, refusing(), NO_PACKAGES).second_best == ""


def test_the_slow_way_is_never_taken_unasked_on_a_gpu() -> None:
    every = ("cudnn", "torch-flash", "torch-efficient", "flash-2", "flash-3")
    for capability in (HOPPER, AMPERE, BLACKWELL, VOLTA):
        with pytest.raises(MagicIDError, match="out of order") as caught:
            kernels.choose("auto", capability, refusing(*every), NO_PACKAGES)
        assert (caught.value.code, caught.value.exit_code) == ("attention-kernel", 3)
        assert "--attention math" in caught.value.hint
    assert kernels.choose("math", HOPPER, refusing(*every), NO_PACKAGES).kernel == "math"


def test_a_kernel_asked_for_by_name_is_that_or_an_error() -> None:
    with pytest.raises(MagicIDError, match="its package is not installed"):
        kernels.choose("flash-3", HOPPER, refusing(), NO_PACKAGES)
    with pytest.raises(MagicIDError, match="cudnn is out of order"):
        kernels.choose("cudnn", HOPPER, refusing("cudnn"), NO_PACKAGES)


# -------------------------------------------------------------------------------------------------------------- trials


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_trial_on_this_cpu(dtype: torch.dtype) -> None:
    def why(name: Kernel, *, keepable: bool) -> str | None:
        return hunyuan_attention.refusal(name, CPU, dtype, 32, keepable=keepable)

    assert why("torch-flash", keepable=True) is None
    assert why("math", keepable=False) is None
    # It is many operators, none of which is attention.
    assert why("math", keepable=True) == "its output cannot be kept for the backward pass"
    refused = why("cudnn", keepable=False)
    assert refused and "Triggered internally" not in refused and len(refused) <= 400


def test_a_kernel_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def causal(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        query, key, value = (one.transpose(1, 2) for one in (query, key, value))
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return out.transpose(1, 2)

    monkeypatch.setattr(hunyuan_attention, "kernel", lambda _: causal)
    why = hunyuan_attention.refusal("torch-flash", CPU, torch.float32, 32)
    assert why == "its numbers are not those of attention"


def test_memory_that_runs_out_in_the_trial_refuses_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(hunyuan_attention, "kernel", lambda _: full)
    with pytest.raises(torch.OutOfMemoryError):
        hunyuan_attention.refusal("torch-flash", CPU, torch.float32, 32)


def test_a_package_that_does_not_load_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flash_attn_interface.py").write_text("raise ImportError('undefined symbol: _ZN3c10')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "flash-3" in kernels.installed()
    why = hunyuan_attention.refusal("flash-3", CPU, torch.float32, 32)
    assert why == "undefined symbol: _ZN3c10"


def test_a_family_asked_for_a_kernel_that_is_not_there_says_so(folder: Path) -> None:
    with pytest.raises(MagicIDError, match="'cudnn' cannot be used here"):
        executions.opened(folder, Execution(attention="cudnn"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "torch's own"),
        ({"PYTORCH_ALLOC_CONF": "expandable_segments:True"}, "expandable_segments:True"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"}, "backend:cudaMallocAsync"),
    ],
    ids=["none", "ours", "old name"],
)
def test_the_allocator_is_reported_on_a_gpu(
    folder: Path, given: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    family = executions.opened(folder)
    assert "allocator" not in family.report()
    family._arranged().device = torch.device("cuda")
    assert family.report()["allocator"] == told


def test_what_is_in_effect_is_reported(folder: Path) -> None:
    report = executions.opened(folder, Execution(keep="attention")).report()
    assert (report["keep"], report["kernel"], report["refused"]) == ("attention", "torch-flash", {})
    assert report["attention"] == "auto", "what was asked for stays beside what was found"
