"""What the plan says lives inside a block, against the tensors of small blocks of the real classes.

Three heads of 128 and an adapter of rank 8: everything a token takes is in the real model's proportion to its width.
Counted are bytes that a token more takes, in tensors of its width, so that nothing counts that does not grow with the
video. The tables of positions and the weights are there before and are left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel

from live_memory import Live, place_of, saved
from magicid_cli import adapters
from magicid_cli.config import AdapterSettings
from magicid_cli.models import storage
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Execution, Keep, Storage
from magicid_cli.models.hunyuan_attention import attend_without_mask, kernel
from magicid_cli.models.keeping import Checkpointing
from magicid_cli.plan import costs, footprint

LARGE = costs.ARCHITECTURES["hunyuan-video"]
WIDTH, BLOCKS, SHORT, LONG = 384, 3, 128, 256
SHAPES = {SHORT: Shape(1, 128, 256), LONG: Shape(1, 256, 256)}
DTYPES = {2: torch.bfloat16, 4: torch.float32}
# Of a block without adapted layers there is only the single kind, where double blocks alone have an adapter.
CASES = [
    ("dual", "attention", False),
    ("dual", "attention+mlp", False),
    ("single", "attention", True),
    ("single", "attention", False),
    ("single", "attention+mlp", False),
]
EVERY = pytest.mark.parametrize("value_bytes", [2, 4], ids=["bfloat16", "float32"])
KIND = pytest.mark.parametrize(
    ("kind", "targets", "double_only"), CASES, ids=["dual", "dual-mlp", "bare", "single", "single-mlp"]
)


@cache
def transformer(targets: str, double_only: bool, value_bytes: int, base: Storage = "full") -> Any:
    """The real class, its base stored, its policy trained."""
    model = HunyuanVideoTransformer3DModel(
        num_attention_heads=WIDTH // 128,
        num_layers=BLOCKS,
        num_single_layers=BLOCKS,
        num_refiner_layers=1,
        text_embed_dim=16,
        pooled_projection_dim=16,
    ).to(DTYPES[value_bytes])
    for blocks in (model.transformer_blocks, model.single_transformer_blocks):
        storage.store(blocks, base, torch.device("cpu"))
    attend_without_mask(model, kernel("torch-flash"))
    adapters.attach(model, "policy", adapters.AdapterSpec(8, 8.0, targets, double_only), seed=0)
    adapters.select(model, "policy", trainable=True)
    return model


def blocks_of(kind: str, *which: Any) -> list[Any]:
    model = transformer(*which)
    return list(model.transformer_blocks if kind == "dual" else model.single_transformer_blocks)


def chain(
    blocks: Sequence[Any], tokens: int, value_bytes: int, keep: Keep
) -> tuple[Callable[[], torch.Tensor], set[int]]:
    """A pass through the blocks to a loss, and the places of what is there before it."""
    given = [torch.randn(1, length, WIDTH).to(DTYPES[value_bytes]).requires_grad_(True) for length in (tokens, 32)]
    other = torch.randn(1, tokens, WIDTH).to(DTYPES[value_bytes])
    time, positions = torch.randn(1, WIDTH).to(DTYPES[value_bytes]), torch.randn(2, tokens, 128)
    kept = Checkpointing(blocks, keep, "gpu", torch.device("cpu"))

    def loss() -> torch.Tensor:
        states: Sequence[torch.Tensor] = given
        for block in blocks:
            inputs = (*states, time, None, tuple(positions))
            states = kept(block, *inputs) if torch.is_grad_enabled() and keep != "everything" else block(*inputs)
        return (states[0] * other).float().mean() + states[1].float().mean()

    weights = [parameter for block in blocks for parameter in block.parameters()]
    return loss, {place_of(tensor) for tensor in (*weights, positions)}


def growth(measured: Callable[[int], float], value_bytes: int, lengths: tuple[int, int] = (SHORT, LONG)) -> float:
    """Tensors of the tokens' width by which something grows."""
    short, long = lengths
    return (measured(long) - measured(short)) / ((long - short) * WIDTH * value_bytes)


def planned(
    kind: str, targets: str, double_only: bool, value_bytes: int, keep: Keep | None, base: Storage = "full"
) -> float:
    """What the plan says of the same blocks, in the same unit; without a graph if nothing is said of what is kept."""
    counts = {"dual": 0, "single": 0} | {kind: BLOCKS}
    arch = replace(LARGE, heads=WIDTH // 128, **counts)
    adapter = AdapterSettings(rank=8, targets=targets, double_blocks_only=double_only)

    def memory(tokens: int) -> float:
        execution = Execution(keep=keep or "nothing", base=base)
        found = footprint.memory(
            arch, SHAPES[tokens], adapter, value_bytes=value_bytes, training=keep is not None, execution=execution
        )
        return (found.kept + found.block) * costs.GB

    return growth(memory, value_bytes)


@EVERY
@KIND
@pytest.mark.parametrize("keep", ["nothing", "attention", "everything"])
def test_a_training_pass_takes_what_lives_at_once_in_real_blocks(
    kind: str, targets: str, double_only: bool, value_bytes: int, keep: Keep
) -> None:
    """Never less than is counted, and at most 3 more of 26 to 121 tensors. The first block's input is there before."""
    blocks = blocks_of(kind, targets, double_only, value_bytes)

    counted = 1 + growth(lambda tokens: peak(blocks, tokens, value_bytes, keep), value_bytes)
    assert -0.1 < planned(kind, targets, double_only, value_bytes, keep) - counted < 3.1


@pytest.mark.parametrize("kind", ["dual", "single"])
def test_products_in_fp8_take_what_lives_at_once_in_real_blocks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their roundings, too, some rows at a time; longer videos, beside which an unpacked weight is small."""
    monkeypatch.setattr(storage, "_ROUNDED_AT_ONCE", 4 * 5 * WIDTH)
    blocks = blocks_of(kind, "attention", False, 2, "fp8-products")
    counted = 1 + growth(lambda tokens: peak(blocks, tokens, 2, "nothing"), 2, (2 * LONG, 3 * LONG))
    assert -0.1 < planned(kind, "attention", False, 2, "nothing", "fp8-products") - counted < 3.1


def peak(blocks: Sequence[Any], tokens: int, value_bytes: int, keep: Keep) -> float:
    """Most bytes that a training pass has at once."""
    loss, _ = chain(blocks, tokens, value_bytes, keep)
    with Live() as live:
        loss().backward()
    for block in blocks:
        block.zero_grad(set_to_none=True)
    return live.peak


@EVERY
@KIND
def test_sampling_takes_what_lives_at_once_in_real_blocks(
    kind: str, targets: str, double_only: bool, value_bytes: int
) -> None:
    blocks = blocks_of(kind, targets, double_only, value_bytes)

    def peak(tokens: int) -> float:
        loss, _ = chain(blocks, tokens, value_bytes, "nothing")
        with Live() as live, torch.no_grad():
            loss()
        return live.peak

    expected = planned(kind, targets, double_only, value_bytes, None)
    assert expected == pytest.approx(growth(peak, value_bytes), abs=0.1)


@EVERY
@KIND
def test_a_blocks_graph_saves_what_the_plan_keeps_where_nothing_is_recomputed(
    kind: str, targets: str, double_only: bool, value_bytes: int
) -> None:
    """A block more against one less: its saved tensors, each storage once, its input among them."""
    blocks = blocks_of(kind, targets, double_only, value_bytes)

    def held(count: int) -> Callable[[int], float]:
        def at(tokens: int) -> float:
            loss, there = chain(blocks[:count], tokens, value_bytes, "everything")
            with saved(there) as found:
                loss()
            return sum(found.values())

        return at

    counted = growth(held(BLOCKS), value_bytes) - growth(held(BLOCKS - 1), value_bytes)
    which = "" if double_only and kind == "single" else targets
    assert 1 + footprint._INSIDE[value_bytes, kind, which].saved == pytest.approx(counted, abs=0.1)
