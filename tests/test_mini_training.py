"""What trains the miniature: the loop and its resume, the autoencoder's loss, guidance, the bridge to the judges.

Truth: the uninterrupted run, to the bit, and losses worked out by hand.
"""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.models import mini as sizes
from magicid_cli.world.actions import ACTIONS
from magicid_cli.world.captions import wish
from magicid_cli.world.training import base, codec, recipe
from magicid_cli.world.training.loop import Dose, fit, schedule


class Sums:
    """Learn the sum of 20 numbers, through a layer that also measures its inputs."""

    name = "sums"

    def __init__(self, steps: int = 25) -> None:
        torch.manual_seed(1)
        self.dose = Dose(steps=steps, matrix_rate=0.02, rate=0.01, average=0.9)
        self.model = nn.Sequential(
            nn.Linear(20, 32), nn.BatchNorm1d(32), nn.SiLU(), nn.Linear(32, 16), nn.Linear(16, 1)
        )
        self.seen: list[int] = []

    def batch(self, step: int) -> torch.Tensor:
        self.seen.append(step)
        return torch.randn(64, 20, generator=torch.Generator().manual_seed(step)) + 2

    def loss(self, batch: torch.Tensor, step: int) -> torch.Tensor:
        return (self.model(batch).squeeze(1) - batch.sum(1)).square().mean()

    def evaluate(self) -> dict[str, float]:
        return {"off": float(self.loss(self.batch(10_000), 0).detach())}


class Stopped(Sums):
    """Somebody presses Ctrl-C while step 10 runs."""

    events = Events()

    def loss(self, batch: torch.Tensor, step: int) -> torch.Tensor:
        if step == 10:
            self.events.request_stop()
        return super().loss(batch, step)


def test_a_loop_that_was_stopped_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    whole = fit(Sums(), tmp_path / "whole", Events()).state_dict()
    first = Stopped()
    with pytest.raises(KeyboardInterrupt):
        fit(first, tmp_path / "cut", first.events)
    assert max(first.seen) == 10
    second = Sums()
    ended = fit(second, tmp_path / "cut", Events()).state_dict()
    assert min(second.seen) == 11
    assert all(torch.equal(ended[name], value) for name, value in whole.items() if value.is_floating_point())


def test_a_finished_loop_gives_its_averaged_weights_again(tmp_path: Path) -> None:
    task = Sums()
    kept = {name: value.clone() for name, value in fit(task, tmp_path, Events()).state_dict().items()}
    again = Sums()
    assert all(
        torch.equal(value, kept[name])
        for name, value in fit(again, tmp_path, Events()).state_dict().items()
        if value.is_floating_point()
    )
    assert again.seen == []


def test_the_loop_learns_and_writes_what_it_measures(tmp_path: Path) -> None:
    steps: list[dict[str, Any]] = []
    before = Sums().evaluate()["off"]
    fit(Sums(200), tmp_path, Events(lambda event: steps.append(event.data)), evaluate_every=100)
    rows = [json.loads(line) for line in (tmp_path / "sums" / "log.jsonl").read_text().splitlines()]
    measured = {row["step"]: row["off"] for row in rows if "off" in row}
    assert set(measured) == {100, 200}
    assert measured[200] < 0.1 * before
    assert [row["step"] for row in steps] == list(range(1, 201))
    assert {row["of"] for row in steps} == {200}


def test_the_rates_rise_hold_and_fall() -> None:
    dose = Dose(steps=1000, hold=0.4)
    factors = [schedule(step, dose) for step in range(1000)]
    assert factors[0] == pytest.approx(0.02)
    assert factors[49:401] == [1.0] * 352
    assert factors[700] == pytest.approx(0.01 + 0.99 * 0.5)
    assert factors[999] == pytest.approx(0.01, abs=1e-3)


def test_a_cut_state_is_named_with_the_part_that_begins_anew(tmp_path: Path) -> None:
    fit(Sums(5), tmp_path, Events())
    path = tmp_path / "sums" / "state.pt"
    whole = path.read_bytes()
    other = io.BytesIO()
    torch.save({"step": 3}, other)
    for damaged in (whole[: len(whole) // 2], b"", b"nonsense", other.getvalue()):
        path.write_bytes(damaged)
        with pytest.raises(MagicIDError, match="state.pt is damaged") as refused:
            fit(Sums(5), tmp_path, Events())
        assert refused.value.code == "training-damaged"
        assert refused.value.hint == f"Delete it, and 'sums' begins anew: rm {path}"


# the losses


def test_what_the_autoencoder_makes_of_clips_are_clips() -> None:
    class Mirror(nn.Module):
        """Gives back what it was given, one step of 255 brighter."""

        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.zeros(1))

        def encode(self, video: torch.Tensor) -> Any:
            return type("E", (), {"latent_dist": type("D", (), {"mode": lambda self: video})()})

        def decode(self, latents: torch.Tensor) -> Any:
            return type("O", (), {"sample": latents + 2 / 255})

    frames = np.random.default_rng(0).integers(0, 256, (2, 9, 48, 48, 3), dtype=np.uint8)
    assert np.array_equal(recipe._through(Mirror(), frames), np.minimum(frames.astype(int) + 1, 255))
    true = recipe._through(sizes.vae(), frames)
    assert (true.shape, true.dtype) == (frames.shape, np.uint8)


def test_guidance_leads_away_from_no_prompt_and_from_standing_still() -> None:
    says = {"walks": 3.0, "": 1.0, "stands still": 2.0}

    class Teacher:
        def encode(self, prompts: list[str]) -> list[str]:
            return prompts

        def velocity(self, x_t: torch.Tensor, t: torch.Tensor, text: list[str], guidance: torch.Tensor) -> torch.Tensor:
            assert torch.equal(guidance, torch.ones(len(text)))  # the teacher itself is asked without guidance
            return torch.tensor([says[one] for one in text])[:, None, None, None, None].expand_as(x_t)

    task = type("Task", (), {"_teacher": Teacher(), "device": "cpu"})()
    x_t, t, guidance = torch.zeros(3, 2, 1, 2, 2), torch.zeros(3), torch.tensor([1.0, 2.0, 3.0])
    made = base.Base._guided(task, x_t, t, (["walks", "walks", ""], ["stands still", "stands still", ""]), guidance)
    away = 1.0 + base._FROM_STILL * (2.0 - 1.0)  # between both
    assert made.flatten(1).unique(dim=1).flatten().tolist() == pytest.approx([3.0, 3.0 + (3.0 - away), 1.0])


def test_what_guidance_leads_away_from_is_the_same_scene_without_movement(tmp_path: Path) -> None:
    scenes = [base.training_scene(number) for number in range(40)]
    data = base.Latents(torch.zeros(40, sizes.LATENT_CHANNELS, 1, 2, 2, dtype=torch.float16), scenes, 1.0)
    task = base.Base(data, data, tmp_path)
    seen = [task.batch(step) for step in range(4)]
    pairs = [pair for one in seen for pair in zip(one.prompts, one.still, strict=True)]
    assert {action for prompt, _ in pairs if (action := wish(prompt).action)} == set(ACTIONS)
    assert 0 < sum(prompt == "" for prompt, _ in pairs) < 0.3 * len(pairs)
    for prompt, still in pairs:
        wanted = wish(prompt)
        assert (still == "") == (prompt == "")
        assert wish(still) == (replace(wanted, action="still") if prompt else wanted)


def test_the_autoencoder_is_taught_that_half_the_latents_mean_half_the_picture() -> None:
    class Plain(nn.Module):
        """Latents are the picture at half the size; its decoder takes them so, or also darkens what is small."""

        def __init__(self, darker: float) -> None:
            super().__init__()
            self.darker = darker

        def encode(self, video: torch.Tensor) -> Any:
            small = nn.functional.avg_pool3d(video, (1, 2, 2))
            return type("E", (), {"latent_dist": type("D", (), {"mean": small})()})

        def decode(self, latents: torch.Tensor) -> Any:
            made = nn.functional.interpolate(latents, scale_factor=(1, 2, 2))
            return type("O", (), {"sample": made - self.darker * (made.shape[-1] < codec._SIDE)})

    losses = []
    for darker in (0.0, 0.5):
        task = codec.Codec()
        task.model = Plain(darker)
        batch = task.batch(0)
        flat = codec.Windows(torch.full_like(batch.video, 0.25), batch.weight)
        torch.manual_seed(0)
        losses.append(float(task.loss(flat, 0)))
    assert losses[0] == pytest.approx(0, abs=1e-4)
    assert losses[1] - losses[0] == pytest.approx(codec._SMALLER * 0.5**2, rel=0.02)


# the latents


def test_a_cut_file_of_latents_is_made_again_and_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Event] = []
    monkeypatch.setattr(base, "_SHARD", 20)
    monkeypatch.setattr(base, "encoded", lambda _, scenes: torch.full((20, 8, 1), float(scenes[0].person)))
    first = base.latents(nn.Identity(), tmp_path, 30, Events(told.append))
    assert [event.data["step"] for event in told] == [20, 30]
    path = tmp_path / "000020.pt"
    whole = path.read_bytes()
    other = io.BytesIO()
    torch.save(torch.zeros(3), other)
    for damaged in (whole[:-50], b"", other.getvalue()):
        path.write_bytes(damaged)
        told.clear()
        assert torch.equal(base.latents(nn.Identity(), tmp_path, 30, Events(told.append)), first)
        assert [event.data["message"].partition(" (")[0] for event in told if event.kind == "notice"] == [
            f"{path} is damaged and is made again"
        ]
        assert torch.equal(torch.load(path)[:10], first[20:])
