"""True guidance as one batch of two: against the two passes, in float64, and how it is chosen and given up."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import executions
from magicid_cli.models import tiny
from magicid_cli.models.base import StepCache
from magicid_cli.models.execution import Execution
from magicid_cli.models.guided import OneBatch
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.models.hunyuan_attention import EachAlone
from magicid_cli.models.hunyuan_text import unpadded
from out_of_memory import IDS, SAID

OPTIONS: dict[str, Any] = {"steps": 3, "guidance": 1.0, "seed": 5}
LONGER = executions.TOKENS + 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


def negative(tokens: int) -> dict[str, torch.Tensor]:
    """The conditioning of another prompt."""
    other = {name: value.flip(0) for name, value in executions.text().items()}
    return other | {"prompt_attention_mask": (torch.arange(256) < tokens).long()}


def asked(text: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What the pipeline asks the transformer, in the number type of the text."""
    like = text["prompt_embeds"]
    return {
        "hidden_states": executions.clip()[None].to(like),
        "timestep": executions.TIME.to(like) * 1000,
        "guidance": torch.tensor([7500.0]).to(like),
        "encoder_hidden_states": like,
        "encoder_attention_mask": text["prompt_attention_mask"],
        "pooled_projections": text["pooled_prompt_embeds"],
        "return_dict": False,
    }


@contextmanager
def calls(family: Hunyuan) -> Iterator[list[int]]:
    """The batch of every call of the transformer."""
    seen: list[int] = []

    def see(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        seen.append(len(inputs["hidden_states"]))

    handle = family.transformer.register_forward_pre_hook(see, with_kwargs=True)
    yield seen
    handle.remove()


@pytest.mark.parametrize(
    ("execution", "tokens"),
    [
        (Execution(), LONGER),
        (Execution(), executions.TOKENS - 4),
        (Execution(), executions.TOKENS),
        (Execution(attention="math"), LONGER),
        (Execution(base="int8"), LONGER),
    ],
    ids=["longer", "shorter", "equal", "math", "int8"],
)
def test_one_batch_is_the_two_passes(folder: Path, execution: Execution, tokens: int) -> None:
    """In float64, with an adapter on, texts of different lengths; one call of the transformer for two of ours."""
    family = executions.opened(folder, execution)
    family.transformer.double()
    conditions = [unpadded(one, family.device, torch.float64) for one in (executions.text(), negative(tokens))]
    inputs = [asked(text) for text in conditions]
    attention = family._arranged().attention
    assert attention is not None
    with torch.no_grad():
        expected = [family.transformer(**one)[0] for one in inputs]
        together = OneBatch(family.transformer, conditions[1], attention, lambda: pytest.fail("it fits"))
        with calls(family) as seen:
            found = [together(**one)[0] for one in inputs]
    assert seen == [2]
    assert float((expected[0] - expected[1]).abs().max()) > 1e-2, "two prompts"
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float64 and ours.shape == theirs.shape
        assert float((ours - theirs).abs().max()) < 1e-10
    assert attention.texts == (), "nothing of it stays"


def test_padding_would_reach_the_video(folder: Path) -> None:
    """The same batch with every token seeing every other: the shorter text's pass comes out wrong."""
    family = executions.opened(folder)
    text, other = (unpadded(one, family.device, torch.float32) for one in (executions.text(), negative(LONGER)))
    inputs = asked(text)
    attention = family._arranged().attention
    assert attention is not None
    with torch.no_grad():
        right = family.transformer(**inputs)[0]
        # Another object than the one that the blocks ask for lengths: they take the batch as if nothing were padded.
        wrong = OneBatch(family.transformer, other, EachAlone(attention.attend), lambda: None)(**inputs)[0]
    assert float((wrong - right).abs().max()) > 1e-3


def test_sampling_calls_the_transformer_once_a_step(folder: Path) -> None:
    """The latents are those of two passes, which `test_hunyuan` holds against diffusers."""
    text, other = executions.text(), negative(LONGER)
    ways = [Execution(guided="one batch"), Execution(guided="one batch", offload="blocks"), Execution()]
    made = []
    for execution, each in zip(ways, ([2] * 3, [2] * 3, [1] * 6), strict=True):
        family = executions.opened(folder, execution)
        assert family.report()["guided"] == execution.guided
        with calls(family) as seen:
            made.append(family.sample(text, executions.SHAPE, **OPTIONS, true_guidance=4.0, negative=other))
        assert seen == each
    batched, streamed, apart = made
    assert torch.equal(batched, streamed)
    assert float((batched - apart).abs().max()) < 1e-5
    assert float((batched - family.sample(text, executions.SHAPE, **OPTIONS)).abs().max()) > 1e-3


@pytest.mark.parametrize("guided", ["one batch", "two passes"])
def test_a_step_cache_does_not_go_with_true_guidance(folder: Path, guided: Any) -> None:
    """No command asks for both: the repository has the cache, `generate` the guidance."""
    family = executions.opened(folder, Execution(guided=guided))
    both: dict[str, Any] = {"negative": negative(LONGER), "step_cache": StepCache("first-block", 10.0)}
    with pytest.raises(AssertionError, match="two passes as one"):
        family.sample(executions.text(), executions.SHAPE, **OPTIONS, true_guidance=4.0, **both)


@pytest.mark.parametrize("said", SAID[:2], ids=IDS[:2])
def test_a_batch_that_memory_does_not_hold_is_given_up_once(folder: Path, said: RuntimeError) -> None:
    """From the step that failed on, two passes: the same bits as two passes from the beginning, told and reported."""
    text, other = executions.text(), negative(LONGER)
    plain = executions.opened(folder).sample(text, executions.SHAPE, **OPTIONS, true_guidance=4.0, negative=other)
    told: list[str] = []
    family = Hunyuan(
        folder,
        commit="test",
        device="cpu",
        dtype=torch.float32,
        execution=Execution(guided="one batch"),
        announce=told.append,
    )
    executions.wear(family)
    tried: list[int] = []

    def full(_: Any, inputs: tuple[Any, ...]) -> None:
        if len(inputs[0]) == 2:
            tried.append(2)
            raise said

    family.transformer.transformer_blocks[1].register_forward_pre_hook(full)
    for _ in range(2):
        found = family.sample(text, executions.SHAPE, **OPTIONS, true_guidance=4.0, negative=other)
        assert torch.equal(found, plain)
    assert tried == [2], "not again in the next video"
    assert told == ["Memory does not hold both passes of true guidance at once: they follow one another."]
    assert family.report()["guided"] == "two passes"
