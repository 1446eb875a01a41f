"""Training the miniature again: the loop's resume, the order of the parts, the folder, the command.

Truth: the uninterrupted run, to the bit; the layout that the package has; the contract of the command line. The parts
themselves are replaced by quick ones, except for the autoencoder's loss and the bridge to the judges.
"""

import fcntl
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from fake_run import outcome
from magicid_cli.cli import mini
from magicid_cli.cli.app import main
from magicid_cli.cli.output import Terminal
from magicid_cli.cli.progress import spoken
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


# the parts


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Parts that only note that they were made; `base` can be told to fail."""
    names: list[str] = []

    def part(name: str) -> Callable[[Any], None]:
        def make(run: Any) -> None:
            names.append(name)
            for folder in recipe.PARTS[name].folders:
                (run.folder / folder).mkdir(exist_ok=True)
                (run.folder / folder / "weights.safetensors").touch()
            if name == "pack":
                (run.folder / "weights").mkdir(exist_ok=True)
                (run.folder / "weights" / "a").write_text("weights")

        return make

    quick = {
        name: recipe.Part(one.title, part(name), one.needs, one.folders, one.cpu_s)
        for name, one in recipe.PARTS.items()
    }
    monkeypatch.setattr(recipe, "PARTS", quick)
    return names


def train(folder: Path, only: str | None = None, scale: float = 1.0, events: Events | None = None) -> recipe.Trained:
    return recipe.train(folder, device="cpu", only=only, scale=scale, events=events or Events())


def test_parts_are_made_in_order_and_each_once(tmp_path: Path, made: list[str]) -> None:
    told: list[tuple[str, str]] = []

    def listen(event: Event) -> None:
        told.append((event.data["stage"], event.data["state"]))

    done = train(tmp_path / "new" / "mini", events=Events(listen))
    assert made == ["codec", "base", "finder", "encoder", "judge", "scorer", "pack"]
    assert done.files == [tmp_path / "new" / "mini" / "weights" / "a"]
    assert told == [(name, state) for name in made for state in ("started", "finished")]
    told.clear()
    train(tmp_path / "new" / "mini", events=Events(listen))
    assert made[7:] == ["pack"]
    assert told[:6] == [(name, "cached") for name in made[:6]]


def test_one_part_needs_what_comes_before_it(tmp_path: Path, made: list[str]) -> None:
    for only, first in (("base", "codec"), ("finder", "codec"), ("pack", "codec")):
        with pytest.raises(MagicIDError, match=f"'{only}' is made with what '{first}' leaves") as refused:
            train(tmp_path, only)
        assert refused.value.code == "training-order"
        assert refused.value.hint.endswith(f"mini train {tmp_path} --only {first}")
    train(tmp_path, "codec")
    train(tmp_path, "scorer")
    with pytest.raises(MagicIDError, match="'pack' is made with what 'base' leaves"):
        train(tmp_path, "pack")
    assert made == ["codec", "scorer"]


def test_a_folder_keeps_to_its_scale(tmp_path: Path, made: list[str]) -> None:
    train(tmp_path, "codec", scale=0.5)
    with pytest.raises(MagicIDError, match="was begun with --scale 0.5") as refused:
        train(tmp_path, "base", scale=1.0)
    assert refused.value.code == "settings-invalid"
    assert made == ["codec"]
    doses = json.loads((tmp_path / "recipe.json").read_text())["doses"]
    assert doses["codec"]["steps"] == round(0.5 * recipe.DOSE.steps)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path, made: list[str]) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(MagicIDError) as refused:
            train(tmp_path)
    assert refused.value.code == "folder-busy"
    assert made == []
    assert train(tmp_path).files


def test_the_time_that_is_left_counts_what_is_not_done(tmp_path: Path, made: list[str]) -> None:
    whole = recipe.seconds_left(tmp_path, only=None, scale=1.0)
    assert recipe.seconds_left(tmp_path, only=None, scale=0.5) == whole / 2
    train(tmp_path, "codec")
    assert recipe.seconds_left(tmp_path, only="codec", scale=1.0) == 0
    assert recipe.seconds_left(tmp_path, only=None, scale=1.0) == whole - recipe.PARTS["codec"].cpu_s


def test_the_last_figures_of_every_part_are_told(tmp_path: Path, made: list[str]) -> None:
    logs: dict[str, list[dict[str, float]]] = {
        "codec": [{"step": 5, "db": 20.0}, {"step": 9, "db": 28.0}],
        "base": [{"step": 5, "loss": 1.0}],
    }
    for name, rows in logs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = train(tmp_path)
    assert done.figures == {"codec": {"step": 9, "db": 28.0}}
    assert json.loads((tmp_path / "figures.json").read_text()) == done.figures


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


# the command


def test_the_command_offers_the_parts_there_are() -> None:
    assert get_args(mini.PartName) == tuple(recipe.PARTS)


def test_the_command_trains_and_prints_the_folder_of_the_weights(
    tmp_path: Path, made: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mini", "train", str(tmp_path), "--scale", "0.5", "--device", "cpu", "--json"]) == 0
    data = outcome(capsys)["data"]
    assert (data["weights"], data["files"], data["device"]) == (str(tmp_path / "weights"), {"a": 7}, "cpu")
    assert json.loads((tmp_path / "recipe.json").read_text())["scale"] == 0.5
    assert main(["mini", "train", str(tmp_path), "--scale", "0.5", "-q"]) == 0
    assert tuple(capsys.readouterr()) == (f"{tmp_path / 'weights'}\n", "")
    assert main(["mini", "train", str(tmp_path), "--only", "pack"]) == 2
    assert "was begun with --scale 0.5" in capsys.readouterr().err


def test_hours_are_asked_for_on_a_terminal(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Terminal, "interactive", True)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["mini", "train", str(tmp_path), "--device", "cpu"]) == 1
    expected = spoken(recipe.seconds_left(tmp_path, only=None, scale=1.0))
    assert f"The training takes about {expected} on one core" in capsys.readouterr().err
    assert made == []
    assert main(["mini", "train", str(tmp_path), "--device", "cpu", "--yes"]) == 0
    assert made[0] == "codec"


@pytest.mark.parametrize(
    "wrong", [("--only", "vae"), ("--scale", "0"), ("--scale", "11"), ("--device", "tpu"), ("surplus",)]
)
def test_what_cannot_be_understood_is_a_usage_error(wrong: tuple[str, ...], tmp_path: Path) -> None:
    assert main(["mini", "train", str(tmp_path), *wrong]) == 2
