"""The inexact step cache: what it skips, what that changes at tiny size, and that nothing of it stays."""

from pathlib import Path

import pytest
import torch

import executions
from magicid_cli.models import tiny

STEPS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


def test_fewer_blocks_run_and_the_video_is_another(folder: Path) -> None:
    """Measured on random weights, with bounds: the higher the threshold, the fewer whole steps, the other the video."""
    family = executions.opened(folder)
    runs: list[int] = []
    counted = family.transformer.single_transformer_blocks[0].attn.to_q
    counted.register_forward_pre_hook(lambda *_: runs.append(1))

    def sampled(threshold: float) -> tuple[torch.Tensor, int]:
        runs.clear()
        latents = family.sample(
            executions.text(), executions.SHAPE, steps=STEPS, guidance=7.5, seed=0, step_cache=threshold
        )
        return latents, len(runs)

    exact, all_steps = sampled(0.0)
    errors, whole = [], []
    for threshold in (0.1, 0.4, 10.0):
        latents, steps = sampled(threshold)
        errors.append(float((latents - exact).norm() / exact.norm()))
        whole.append(steps)
    # Random weights change slowly: measured 0, 2.5 and 5.2 percent of the latents, with 12, 2 and 1 whole steps.
    assert all_steps == STEPS == whole[0] > whole[1] > whole[2] == 1
    assert errors[0] == 0 < errors[1] < errors[2] < 0.1
    again, steps = sampled(0.0)
    assert torch.equal(again, exact) and steps == STEPS, "undone without a trace"
