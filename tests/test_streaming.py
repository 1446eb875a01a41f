"""Blocks that come and go, against blocks that stay: the same numbers, two blocks at a time, the next one ahead."""

from pathlib import Path

import pytest
import torch
from torch import nn

import executions
from magicid_cli import adapters
from magicid_cli.models import tiny
from magicid_cli.models.base import StepCache
from magicid_cli.models.execution import Execution
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.models.streaming import Streaming
from magicid_cli.models.transfers import Transfers

BLOCKS, STEPS = 4, 12
OFFLOADED = Execution(offload="blocks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


def aligned(folder: Path, execution: Execution) -> Hunyuan:
    """With weights where vector units like them to begin: as offloaded blocks have them, and a mapped file has not."""
    family = executions.opened(folder, execution, arrange=False)
    for parameter in family.transformer.parameters():
        parameter.data = parameter.data.clone()
    family.arrange()
    return family


def first_of(block: nn.Module) -> nn.Module:
    """The first layer that a block runs."""
    children = dict(block.named_children())
    return children.get("norm1") or children["norm"]


def streaming_of(family: Hunyuan) -> Streaming:
    found = family._arranged()._streaming
    assert found is not None
    return found


@pytest.mark.parametrize(
    "execution",
    [
        OFFLOADED,
        Execution(offload="blocks", keep="attention", kept_in="pinned"),
        Execution(offload="blocks", base="fp8"),
    ],
    ids=["offloaded", "with everything", "fp8"],
)
def test_training_and_sampling_are_the_same_bits(folder: Path, execution: Execution) -> None:
    stays, comes = aligned(folder, Execution(base=execution.base)), aligned(folder, execution)
    for _ in range(2):
        for adapter in ("reference", "policy"):
            videos = []
            for family in (stays, comes):
                adapters.select(family.transformer, adapter)
                videos.append(family.sample(executions.text(), executions.SHAPE, steps=2, guidance=7.5, seed=0))
            assert torch.equal(*videos)
        for family in (stays, comes):
            adapters.select(family.transformer, "policy", trainable=True)
        assert executions.same(executions.training_pass(comes), executions.training_pass(stays))


def test_two_blocks_are_there_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight that a block uses is in one of two places of the device; the rest lies in main memory."""
    family = executions.opened(folder, OFFLOADED)
    streaming = streaming_of(family)
    blocks = family._arranged().blocks
    rooms: set[int] = set()
    for number, block in enumerate(blocks):

        def look(_block: object, _inputs: object, number: int = number) -> None:
            assert number in streaming.resident and len(streaming.resident) <= 2
            weight = blocks[number].get_parameter("attn.to_q.base_layer.weight")
            rooms.add(weight.untyped_storage().data_ptr())
            for other in set(range(BLOCKS)) - set(streaming.resident):
                elsewhere = blocks[other].get_parameter("attn.to_q.base_layer.weight").untyped_storage()
                assert elsewhere.data_ptr() == streaming._host[other].data_ptr()

        first_of(block).register_forward_pre_hook(look)
    executions.training_pass(family)
    assert len(rooms) == 2
    largest = max(content.numel() for content in streaming._host)
    assert sum(room.numel() for room, _ in streaming._here.values()) == 2 * largest


def test_the_next_block_is_sent_for_while_one_computes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: forward 0 1 2 3, backward 3 2 1 0; blocks 3 and 2 are still there when the backward begins."""
    family = executions.opened(folder, OFFLOADED)
    streaming = streaming_of(family)
    numbers = {content.data_ptr(): number for number, content in enumerate(streaming._host)}
    told: list[str] = []
    copy = Transfers.copy

    def watched(self: Transfers, target: torch.Tensor, source: torch.Tensor) -> None:
        told.append(f"copy {numbers[source.data_ptr()]}")
        copy(self, target, source)

    monkeypatch.setattr(Transfers, "copy", watched)
    for number, block in enumerate(family._arranged().blocks):
        first_of(block).register_forward_pre_hook(lambda *_, number=number: told.append(f"run {number}"))
    executions.training_pass(family)
    forward = "copy 0, copy 1, run 0, copy 2, run 1, copy 3, run 2, run 3"
    backward = "run 3, run 2, copy 1, run 2, run 1, copy 0, run 1, run 0"
    assert ", ".join(told[:8]) == forward
    assert [one for one in told[8:] if one.startswith("copy")] == ["copy 1", "copy 0"]
    assert [one for one in told[8:] if one.startswith("run")] == ["run 3", "run 2", "run 1", "run 0"]
    assert told.index("copy 1", 8) < told.index("run 2", 8) < told.index("copy 0", 8) < told.index("run 1", 8), backward
    told.clear()
    with torch.no_grad():
        for _ in range(2):
            family.predict(executions.clip(), executions.TIME, executions.text(), 1.0)
    # Blocks 0 and 1 were left by the backward; after the last block the first one is sent for again.
    once = "run 0, copy 2, run 1, copy 3, run 2, copy 0, run 3"
    assert ", ".join(told) == f"{once}, copy 1, {once}"


@pytest.mark.parametrize(
    ("cache", "whole"),
    [
        (StepCache("first-block", 10.0), 1),
        (StepCache("magcache", 100.0, (1.0,) * STEPS), 4),
        (StepCache("taylorseer", 3), 6),
    ],
    ids=lambda one: one.kind if isinstance(one, StepCache) else "",
)
def test_what_a_step_cache_skips_is_not_copied(
    folder: Path, cache: StepCache, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: a whole step copies four blocks, two of them for the next; the first one finds nothing there."""
    stays, comes = aligned(folder, Execution()), aligned(folder, OFFLOADED)
    copies: list[int] = []
    copy = Transfers.copy

    def watched(self: Transfers, target: torch.Tensor, source: torch.Tensor) -> None:
        copies.append(1)
        copy(self, target, source)

    def sampled(family: Hunyuan, cache: StepCache | None) -> torch.Tensor:
        copies.clear()
        return family.sample(executions.text(), executions.SHAPE, steps=STEPS, guidance=7.5, seed=0, step_cache=cache)

    monkeypatch.setattr(Transfers, "copy", watched)
    sampled(comes, None)
    every = len(copies)
    expected, found = sampled(stays, cache), sampled(comes, cache)
    assert torch.equal(found, expected)
    assert every == 4 * STEPS + 1 and len(copies) <= 4 * whole + 1


def test_adapters_stay_and_are_trained(folder: Path) -> None:
    family = executions.opened(folder, OFFLOADED)
    policy = adapters.parameters(family.transformer, "policy")
    places = {key: parameter.data_ptr() for key, parameter in policy.items()}
    optimizer = torch.optim.AdamW(policy.values(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss, gradients = executions.training_pass(family)
        for key, parameter in policy.items():
            parameter.grad = gradients[key]
        optimizer.step()
        losses.append(float(loss))
    assert losses[0] > losses[1] > losses[2]
    assert {key: parameter.data_ptr() for key, parameter in policy.items()} == places


def test_a_transformer_must_be_arranged_before_it_computes(folder: Path) -> None:
    """Its blocks are in main memory until then; on a CPU that is the device, so the order is all there is to test."""
    family = executions.opened(folder, OFFLOADED, arrange=False)
    assert family._arranged()._streaming is None
    family.arrange()
    before = streaming_of(family)
    family.arrange()
    assert streaming_of(family) is before, "arranging again copies nothing"


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="recomputed"):
        Execution(offload="blocks", keep="everything")
    with pytest.raises(ValueError, match="nf4"):
        Execution(offload="blocks", base="nf4")
