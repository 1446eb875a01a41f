"""The benchmark of shortcuts: its arithmetic by hand, and its training against what the options promise."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from benchmarks import _miniature, shortcuts

from magicid_cli import adapters, conditioning
from magicid_cli.models.base import Family
from magicid_cli.preference import Pair
from magicid_cli.world import clips


def test_a_difference_is_told_as_a_share() -> None:
    assert shortcuts.of_lot(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)


def test_videos_off_by_ten_are_28_decibels_away_and_equal_ones_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_miniature, "motion", lambda _, frames: float(frames.mean()))
    exact = [np.full((2, 4, 4, 3), value, np.uint8) for value in (100, 120)]
    found = shortcuts.judged(cast(Any, SimpleNamespace()), [one + 10 for one in exact], exact)
    assert found["psnr_db"] == pytest.approx(28.1308, abs=1e-3) and found["motion_px"] == 120
    assert shortcuts.judged(cast(Any, SimpleNamespace()), exact, exact)["psnr_db"] is None


@pytest.fixture(scope="module")
def family() -> Family:
    return shortcuts.opened()


def test_rows_of_the_bank_are_trainings_of_the_miniature(family: Family, tmp_path: Path) -> None:
    """Nothing is preferred before the first step; then the margin falls, with a bank and without; draws are kept."""
    pairs = []
    for number, scene in enumerate(_miniature.scenes(shortcuts.PAIRS + 1)):
        latents = family.encode_video(clips.render(scene).frames)
        winner, rejected = (tmp_path / f"{side}-{number}.safetensors" for side in ("winner", "rejected"))
        for path, values in ((winner, latents), (rejected, latents.flip(1))):
            conditioning.save_tensors(path, {"latents": values})
        pairs.append(Pair(winner, rejected, family.encode_text(scene.caption())))
    start = {name: one.clone() for name, one in adapters.tensors(family.transformer, "policy").items()}
    for size in (0, 2):
        adapters.load_tensors(family.transformer, "policy", start)
        assert shortcuts.margin(family, pairs[:2]) == 0.0
        path = tmp_path / f"{size}.jsonl"
        row = shortcuts.trained(family, pairs, size, 4, path)
        assert (row["bank"], row["steps"], path.exists()) == (size, 4, bool(size))
        assert row["margin_trained"] < 0 < row["cpu_s_a_step"]
