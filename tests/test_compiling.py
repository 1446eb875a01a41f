"""Compiled blocks against plain ones, and the announced way back where compiling fails."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import executions
from magicid_cli import config
from magicid_cli.models import tiny
from magicid_cli.models.compiling import Compiled
from magicid_cli.models.execution import Execution
from magicid_cli.plan import running

BLOCKS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The compiler's settings and what it has compiled are of the process."""
    with (
        torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=False),
        torch._functorch.config.patch(force_non_lazy_backward_lowering=False),
    ):
        yield
    torch._dynamo.reset()


def test_compiled_blocks_give_the_same_pass(folder: Path) -> None:
    """Without the code generator, which takes minutes: the graphs of forward and backward, run as they are.

    One block of each kind is compiled, with the outputs of attention kept, which compiled code would hide.
    """
    expected = executions.training_pass(executions.opened(folder, Execution(keep="everything")))
    said: list[str] = []
    family = executions.opened(folder, Execution(keep="attention"))
    family._arranged().attend(Execution(keep="attention", compile=True))
    blocks = [family.transformer.transformer_blocks[0], family.transformer.single_transformer_blocks[0]]
    compiled = Compiled(blocks, said.append, backend="aot_eager")
    (loss, gradients), (true, others) = executions.training_pass(family), expected
    assert abs(loss - true) < 1e-6
    assert all((gradients[key] - others[key]).abs().max() < 1e-6 for key in others)
    assert compiled.running and said == []
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_a_compiler_that_fails_is_announced_once_and_left(folder: Path) -> None:
    expected = executions.training_pass(executions.opened(folder))
    said: list[str] = []
    family = executions.opened(folder)

    def broken(*_: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    compiled = Compiled(family._arranged().blocks, said.append, backend=broken)  # type: ignore[arg-type]
    for _ in range(2):
        assert executions.same(executions.training_pass(family), expected)
    assert not compiled.running
    assert len(said) == 1 and "cannot be compiled" in said[0] and "no C++ compiler" in said[0]


@pytest.mark.parametrize("offload", ["none", "blocks"])
@pytest.mark.parametrize("asked", [False, True])
def test_the_setting_compiles_the_blocks_of_an_arranged_model(
    folder: Path, asked: bool, offload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From `--compile` to compiled code, by a compiler that counts. Blocks that come and go are there when it runs."""
    wanted = config.resolve({"model.name": "tiny", "model.compile": asked}).settings
    execution = replace(running.held(wanted, "reconstruct")[1], offload=offload)
    family = executions.opened(folder, execution, arrange=False)
    arranged, runs = family._arranged(), list[int]()

    def compiler(plain: Any, backend: str) -> Any:
        number = [block.forward for block in arranged.blocks].index(plain)

        def run(*inputs: Any) -> Any:
            runs.append(number)
            assert arranged._streaming is None or number in arranged._streaming.resident
            return plain(*inputs)

        return run

    monkeypatch.setattr(torch, "compile", compiler)
    family.arrange()
    family.arrange()
    executions.training_pass(family)
    once = [*range(BLOCKS), *reversed(range(BLOCKS))]
    assert runs == (once if asked else [])
    assert family.report()["compiled"] is asked
