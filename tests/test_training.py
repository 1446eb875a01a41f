"""Training, against the uninterrupted run: whatever cuts a run, starting it again gives the same bits.

The model is a small LoRA-like layer whose loss uses every kind of randomness that a run may use: dropout (torch's
global generator), Python's and numpy's global generators, and noise from the batch's own generator. Every restored
state is also tested by leaving it out: the result must then be refused, or differ.
"""

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from magicid_cli import checkpoints, resume
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.randomness import SampleOrder, global_states, global_states_kept
from magicid_cli.resume import RESTORE, Run
from magicid_cli.training import Accumulate, Batch, Schedule, TrainingResult, train
from magicid_cli.workspace import append_line, read_json, read_lines
from out_of_memory import IDS, SAID

STEPS, ITEMS = 12, 5
SCHEDULE = Schedule(
    steps=STEPS, learning_rate=0.05, weight_decay=0.01, warmup=6, batch=2, max_grad_norm=1.0, save_every=4
)


def adapter() -> dict[str, Parameter]:
    generator = torch.Generator().manual_seed(1)
    return {
        "down": Parameter(torch.randn(3, 8, generator=generator)),
        "up": Parameter(torch.randn(4, 3, generator=generator)),
    }


class Model:
    """A forward pass with all kinds of noise, which counts its steps and can be told to misbehave at one."""

    def __init__(self, misbehave: Callable[["Model", Batch], None] | None = None) -> None:
        self.parameters = adapter()
        self.steps: list[int] = []
        self.items: list[tuple[int, ...]] = []
        self.factor = 1.0
        self.misbehave = misbehave

    def accumulate(self, batch: Batch) -> dict[str, float]:
        self.steps.append(batch.step)
        self.items.append(batch.items)
        self.factor = 1.0
        if self.misbehave:
            self.misbehave(self, batch)
        x = torch.randn(len(batch.items), 8, generator=batch.generator) + torch.tensor(batch.items)[:, None]
        x = torch.nn.functional.dropout(x, 0.5) + random.random() + np.random.standard_normal()
        loss = (x @ self.parameters["down"].T @ self.parameters["up"].T - 1).square().mean() * self.factor
        loss.backward()
        return {"loss": float(loss.detach()), "t": 0.25}


def run(folder: Path, model: Model, events: Events | None = None, **changes: Any) -> TrainingResult:
    fields = {field.name for field in dataclasses.fields(Schedule)}
    schedule = dataclasses.replace(SCHEDULE, **{name: value for name, value in changes.items() if name in fields})
    options = {name: value for name, value in changes.items() if name not in fields}
    return train(
        **{
            "stage": "reconstruct",
            "parameters": model.parameters,
            "schedule": schedule,
            "items": ITEMS,
            "seed": 7,
            "key": "key",
            "folder": folder,
            "accumulate": model.accumulate,
            "events": events or Events(),
            **options,
        }
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics file without its times."""
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in read_lines(folder / "metrics.jsonl")
    ]


def same(left: Model, right: Model) -> bool:
    return all(torch.equal(left.parameters[name], right.parameters[name]) for name in left.parameters)


def last_tensors(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = checkpoints.newest(folder / "checkpoints", on_damage=pytest.fail)
    assert checkpoint is not None
    return {f"{g}/{n}": t for g in ("adapter", "optimizer", "random") for n, t in checkpoint.tensors(g).items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    """The uninterrupted run."""
    folder, model = tmp_path_factory.mktemp("whole"), Model()
    assert run(folder, model) == TrainingResult(STEPS, 0, folder / "metrics.jsonl")
    return folder, model


def stop_at(step: int, events: Events) -> Callable[[Model, Batch], None]:
    def misbehave(model: Model, batch: Batch) -> None:
        if batch.step == step:
            events.request_stop()

    return misbehave


class PowerCut(Exception):
    pass


def cut_at(step: int) -> Callable[[Model, Batch], None]:
    def misbehave(model: Model, batch: Batch) -> None:
        if batch.step == step:
            raise PowerCut

    return misbehave


def interrupted(folder: Path, step: int) -> Model:
    """A run stopped by Ctrl-C while step number `step` (from 1) was computed."""
    events = Events()
    model = Model(stop_at(step - 1, events))
    with pytest.raises(KeyboardInterrupt):
        run(folder, model, events)
    assert model.steps == list(range(step))
    return model


# --- the loop itself, against hand arithmetic ---------------------------------------------------------------------


def test_two_steps_of_adamw_by_hand(tmp_path: Path) -> None:
    """One weight w = 1, gradients 2 then 1, lr 0.1, decay 0.5, no clipping.

    AdamW: m = 0.9m + 0.1g, v = 0.999v + 0.001g², w ← w(1 − lr·decay) − lr · (m/(1−0.9ᵏ)) / (√(v/(1−0.999ᵏ)) + 1e-8).
    """
    weight = Parameter(torch.tensor([1.0], dtype=torch.float64))

    def accumulate(batch: Batch) -> dict[str, float]:
        weight.grad = torch.tensor([2.0 - batch.step], dtype=torch.float64)
        return {"loss": 0.0}

    run(
        tmp_path,
        Model(),
        parameters={"w": weight},
        accumulate=accumulate,
        steps=2,
        learning_rate=0.1,
        weight_decay=0.5,
        warmup=0,
        max_grad_norm=0.0,
    )
    by_hand, m, v = 1.0, 0.0, 0.0
    for k, gradient in ((1, 2.0), (2, 1.0)):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        by_hand = by_hand * 0.95 - 0.1 * (m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)) ** 0.5 + 1e-8)
    assert weight.item() == pytest.approx(by_hand, rel=1e-12)
    assert [row["grad_norm"] for row in rows(tmp_path)] == [2.0, 1.0]


def test_warm_up_is_linear_then_constant(whole: tuple[Path, Model]) -> None:
    expected = [0.05 * min(1, k / 6) for k in range(1, STEPS + 1)]
    assert [row["lr"] for row in rows(whole[0])] == pytest.approx(expected)


def test_metrics_have_every_step_and_their_fields(whole: tuple[Path, Model]) -> None:
    lines = read_lines(whole[0] / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert all(line.keys() == {"step", "loss", "t", "lr", "grad_norm", "seconds"} for line in lines)


def test_each_epoch_shows_every_item_once(whole: tuple[Path, Model]) -> None:
    shown = [item for items in whole[1].items for item in items]
    epochs = [shown[i : i + ITEMS] for i in range(0, len(shown) - ITEMS + 1, ITEMS)]
    assert len(epochs) == 4
    assert all(sorted(epoch) == list(range(ITEMS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_gradient_is_clipped_but_its_own_norm_is_logged(tmp_path: Path) -> None:
    """Gradient (3, 4) has norm 5; clipped to 1 it is (0.6, 0.8). AdamW's first moment after a step is a tenth of it."""
    weight = Parameter(torch.zeros(2))

    def accumulate(batch: Batch) -> dict[str, float]:
        weight.grad = torch.tensor([3.0, 4.0])
        return {"loss": 0.0}

    run(tmp_path, Model(), parameters={"w": weight}, accumulate=accumulate, steps=1)
    assert rows(tmp_path)[0]["grad_norm"] == 5.0
    assert last_tensors(tmp_path)["optimizer/w.exp_avg"].tolist() == pytest.approx([0.06, 0.08], rel=1e-5)


def test_the_seed_decides_everything(tmp_path: Path, whole: tuple[Path, Model]) -> None:
    again, other, other_stage = Model(), Model(), Model()
    torch.rand(3), random.random()  # what happened before does not matter
    run(tmp_path / "again", again)
    run(tmp_path / "other", other, seed=8)
    run(tmp_path / "stage", other_stage, stage="prefer")
    assert same(again, whole[1])
    assert not same(other, whole[1])
    assert not same(other_stage, whole[1])


def test_a_parameter_without_gradient_can_be_resumed(tmp_path: Path) -> None:
    def parameters() -> dict[str, Parameter]:
        return {"used": Parameter(torch.ones(2)), "idle": Parameter(torch.ones(2))}

    def accumulate_in(weights: dict[str, Parameter]) -> Accumulate:
        def accumulate(batch: Batch) -> dict[str, float]:
            weights["used"].square().sum().backward()
            return {"loss": 0.0}

        return accumulate

    ends = []
    for folder, cuts in ((tmp_path / "whole", [6]), (tmp_path / "cut", [3, 6])):
        for steps in cuts:
            weights = parameters()
            run(folder, Model(), parameters=weights, accumulate=accumulate_in(weights), steps=steps)
        ends.append(weights)
    assert torch.equal(ends[0]["used"], ends[1]["used"])
    assert torch.equal(ends[0]["idle"], ends[1]["idle"])
    assert ends[0]["idle"][0] < 1.0  # weight decay alone


# --- resume equals the uninterrupted run --------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_stopped_at_any_step_and_resumed(tmp_path: Path, whole: tuple[Path, Model], step: int) -> None:
    interrupted(tmp_path, step)
    assert len(rows(tmp_path)) == step
    model = Model()
    assert run(tmp_path, model).resumed_from == step
    assert model.steps == list(range(step, STEPS))  # exactly N - k steps
    assert same(model, whole[1])
    assert rows(tmp_path) == rows(whole[0])
    left, right = last_tensors(tmp_path), last_tensors(whole[0])
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("step", range(STEPS))
def test_cut_off_at_any_step_and_resumed(tmp_path: Path, whole: tuple[Path, Model], step: int) -> None:
    model = Model(cut_at(step))
    with pytest.raises(PowerCut):
        run(tmp_path, model)
    append_line(tmp_path / "metrics.jsonl", {"step": step + 1, "loss": -1.0})  # a line no checkpoint knows of
    model = Model()
    assert run(tmp_path, model).resumed_from == step - step % SCHEDULE.save_every
    assert same(model, whole[1])
    assert rows(tmp_path) == rows(whole[0])


def out_of_memory_at(step: int, said: RuntimeError = SAID[0]) -> Callable[[Model, Batch], None]:
    """Memory runs out when half of the step is done: numbers were drawn and gradients are there."""

    def misbehave(model: Model, batch: Batch) -> None:
        if batch.step == step:
            torch.randn(3, generator=batch.generator), torch.rand(2), random.random(), np.random.standard_normal()
            model.parameters["down"].sum().backward()
            raise said

    return misbehave


@pytest.mark.parametrize("step", range(STEPS))
def test_out_of_memory_at_any_step_loses_none(tmp_path: Path, whole: tuple[Path, Model], step: int) -> None:
    """The next call begins with the very step that failed, whenever the last checkpoint was due."""
    with pytest.raises(torch.OutOfMemoryError):
        run(tmp_path, Model(out_of_memory_at(step)), save_every=100)
    model = Model()
    assert run(tmp_path, model, save_every=100).resumed_from == step
    assert model.steps == list(range(step, STEPS))
    assert same(model, whole[1])
    assert rows(tmp_path) == rows(whole[0])


@pytest.mark.parametrize("said", SAID, ids=IDS)
def test_whoever_says_that_memory_ran_out_no_step_is_lost(
    tmp_path: Path, whole: tuple[Path, Model], said: RuntimeError
) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        run(tmp_path, Model(out_of_memory_at(3, said)), save_every=100)
    model = Model()
    assert run(tmp_path, model, save_every=100).resumed_from == 3
    assert same(model, whole[1])


def test_out_of_memory_in_the_optimizer_goes_back_to_the_checkpoint(
    tmp_path: Path, whole: tuple[Path, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of the adapter has moved by then, so what is in memory must not be kept."""
    real, calls = torch.optim.AdamW.step, []

    def step(optimizer: torch.optim.AdamW, *arguments: Any) -> Any:
        calls.append(1)
        found = real(optimizer, *arguments)
        if len(calls) == 7:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(torch.OutOfMemoryError):
            run(tmp_path, Model())
    model = Model()
    assert run(tmp_path, model).resumed_from == 4, "the last that was due"
    assert same(model, whole[1])
    assert rows(tmp_path) == rows(whole[0])


def test_many_cuts_in_one_run(tmp_path: Path, whole: tuple[Path, Model]) -> None:
    for step in range(1, STEPS, 2):
        with pytest.raises(PowerCut):
            run(tmp_path, Model(cut_at(step)), save_every=1)
    model = Model()
    run(tmp_path, model, save_every=1)
    assert same(model, whole[1])
    assert rows(tmp_path) == rows(whole[0])


def test_a_finished_run_trains_nothing_more(tmp_path: Path, whole: tuple[Path, Model]) -> None:
    shutil.copytree(whole[0], tmp_path / "copy")
    model = Model()
    assert run(tmp_path / "copy", model) == TrainingResult(STEPS, STEPS, tmp_path / "copy" / "metrics.jsonl")
    assert model.steps == []
    assert same(model, whole[1])


def test_how_often_it_saves_does_not_matter(tmp_path: Path, whole: tuple[Path, Model]) -> None:
    model = Model()
    run(tmp_path, model, save_every=100)
    assert same(model, whole[1])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000012"]


# --- every state is needed ----------------------------------------------------------------------------------------


def drop(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Rewrite the newest checkpoint as a valid one that lacks something."""
    checkpoint = checkpoints.newest(folder / "checkpoints", on_damage=pytest.fail)
    assert checkpoint is not None
    tensors = {path.stem: checkpoint.tensors(path.stem) for path in checkpoint.path.glob("*.safetensors")}
    state = json.loads(json.dumps(checkpoint.state))
    change(tensors, state)
    checkpoints.discard(folder / "checkpoints")
    checkpoints.save(folder / "checkpoints", checkpoint.step, tensors, state)


Change = Callable[[dict[str, Any], dict[str, Any]], None]

DROPPED: dict[str, Change] = {
    "adapter": lambda tensors, state: tensors.pop("adapter"),
    "one layer of the adapter": lambda tensors, state: tensors["adapter"].pop("up"),
    "optimizer": lambda tensors, state: tensors.pop("optimizer"),
    "one moment": lambda tensors, state: tensors["optimizer"].pop("up.exp_avg_sq"),
    "one optimizer step": lambda tensors, state: tensors["optimizer"].pop("down.step"),
    "schedule": lambda tensors, state: state.pop("schedule"),
    "the schedule's position": lambda tensors, state: state["schedule"].pop("last_epoch"),
    "the schedule's rate": lambda tensors, state: state["schedule"].pop("_last_lr"),
    "all random tensors": lambda tensors, state: tensors.pop("random"),
    "torch generator": lambda tensors, state: tensors["random"].pop("torch"),
    "noise generator": lambda tensors, state: tensors["random"].pop("noise"),
    "order generator": lambda tensors, state: tensors["random"].pop("order"),
    "all plain random state": lambda tensors, state: state.pop("random"),
    "Python generator": lambda tensors, state: state["random"].pop("python"),
    "numpy generator": lambda tensors, state: state["random"].pop("numpy"),
    "CUDA generators": lambda tensors, state: state["random"].pop("cuda"),
    "order": lambda tensors, state: state.pop("order"),
    "permutation": lambda tensors, state: state["order"].pop("permutation"),
    "position": lambda tensors, state: state["order"].pop("position"),
    "step": lambda tensors, state: state.pop("step"),
}

MISFITS: dict[str, Change] = {
    "a wider layer": lambda tensors, state: tensors["adapter"].update(up=torch.zeros(4, 4)),
    "a layer that would broadcast": lambda tensors, state: tensors["adapter"].update(up=torch.zeros(1, 3)),
    "a foreign layer": lambda tensors, state: tensors["adapter"].update(side=torch.zeros(1)),
    "a moment that would broadcast": lambda tensors, state: tensors["optimizer"].update({"up.exp_avg": torch.zeros(1)}),
    "more samples": lambda tensors, state: state["order"].update(permutation=list(range(ITEMS + 1))),
    "another step": lambda tensors, state: state.update(step=1),
    "half a generator": lambda tensors, state: tensors["random"].update(noise=torch.zeros(8, dtype=torch.uint8)),
}


@pytest.mark.parametrize("change", [pytest.param(change, id=what) for what, change in (DROPPED | MISFITS).items()])
def test_a_state_that_is_missing_or_does_not_fit_is_refused(tmp_path: Path, change: Change) -> None:
    interrupted(tmp_path, 5)
    drop(tmp_path, change)
    model = Model()
    with pytest.raises(MagicIDError, match="step-00000005") as caught:
        run(tmp_path, model)
    assert caught.value.code == "checkpoint-incomplete"
    assert model.steps == []


def test_rewriting_a_checkpoint_alone_changes_nothing(tmp_path: Path, whole: tuple[Path, Model]) -> None:
    """The refusals above come from what was dropped, not from the rewriting."""
    interrupted(tmp_path, 5)
    drop(tmp_path, lambda tensors, state: None)
    model = Model()
    run(tmp_path, model)
    assert same(model, whole[1])


@pytest.mark.parametrize("what", [what for what in RESTORE if what != "CUDA generators"])
def test_leaving_out_any_restore_is_noticed(
    tmp_path: Path, whole: tuple[Path, Model], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The comparison with the uninterrupted run is sensitive to every state: skip one, and it fails."""

    def skip(run: Run, checkpoint: checkpoints.Checkpoint) -> None:
        pass

    interrupted(tmp_path, 4)
    monkeypatch.setitem(resume.RESTORE, what, skip)
    model = Model()
    run(tmp_path, model)
    assert not same(model, whole[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_generators_are_restored(tmp_path: Path) -> None:
    def noisy(model: Model, batch: Batch) -> None:
        model.factor = 1 + float(torch.rand((), device="cuda"))

    torch.rand((), device="cuda")
    one, two = Model(noisy), Model(noisy)
    run(tmp_path / "whole", one)
    for steps in (5, STEPS):
        two = Model(noisy)
        run(tmp_path / "cut", two, steps=steps)
    assert same(one, two)
    assert "random/cuda.0" in last_tensors(tmp_path / "cut")


def test_another_number_of_cuda_devices_is_announced(tmp_path: Path) -> None:
    def three_devices(tensors: dict[str, Any], state: dict[str, Any]) -> None:
        state["random"]["cuda"] = 3

    interrupted(tmp_path, 5)
    drop(tmp_path, three_devices)
    told: list[Event] = []
    run(tmp_path, Model(), Events(told.append))
    assert any("3 CUDA devices" in event.data["message"] for event in told if event.kind == "notice")


# --- what the run reads has changed; damage -----------------------------------------------------------------------


def test_another_key_starts_anew_and_says_so(tmp_path: Path) -> None:
    interrupted(tmp_path, 5)
    told: list[Event] = []
    model, fresh = Model(), Model()
    assert run(tmp_path, model, Events(told.append), key="other", steps=3).resumed_from == 0
    assert "has changed" in told[0].data["message"]
    run(tmp_path / "fresh", fresh, key="other", steps=3)
    assert same(model, fresh)
    assert rows(tmp_path) == rows(tmp_path / "fresh")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_another_key_removes_the_checkpoints_at_once(tmp_path: Path) -> None:
    """Or going back to the first key would resume a run whose metrics are gone."""
    interrupted(tmp_path, 5)
    with pytest.raises(PowerCut):
        run(tmp_path, Model(cut_at(1)), key="other")
    assert run(tmp_path, Model()).resumed_from == 0
    assert len(rows(tmp_path)) == STEPS


def test_a_damaged_checkpoint_is_announced_and_the_older_one_used(tmp_path: Path, whole: tuple[Path, Model]) -> None:
    interrupted(tmp_path, 10)
    broken = tmp_path / "checkpoints" / "step-00000010" / "optimizer.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    told: list[Event] = []
    model = Model()
    assert run(tmp_path, model, Events(told.append)).resumed_from == 8
    assert told[0].kind == "notice"
    assert str(broken) in told[0].data["message"]
    assert same(model, whole[1])
    assert rows(tmp_path) == rows(whole[0])


# --- divergence ---------------------------------------------------------------------------------------------------


def spoil_loss(model: Model, batch: Batch) -> None:
    if batch.step == 6:
        model.factor = float("nan")


def spoil_gradient(model: Model, batch: Batch) -> None:
    if batch.step == 6:
        model.parameters["up"].register_hook(lambda gradient: gradient / 0)


@pytest.mark.parametrize("spoil", [spoil_loss, spoil_gradient])
def test_divergence_stops_before_the_optimizer_moves(tmp_path: Path, spoil: Callable[[Model, Batch], None]) -> None:
    before = Model()
    run(tmp_path / "before", before, steps=6)
    model = Model(spoil)
    with pytest.raises(MagicIDError, match=r"'reconstruct' diverged at step 7 .*timestep 0.25") as caught:
        run(tmp_path, model)
    assert (caught.value.code, caught.value.exit_code) == ("training-diverged", 1)
    assert f"sample {', '.join(map(str, model.items[6]))}" in caught.value.message
    assert "--reconstruct-lr" in caught.value.hint
    assert same(model, before)
    assert len(rows(tmp_path)) == 6
    checkpoint = checkpoints.newest(tmp_path / "checkpoints", on_damage=pytest.fail)
    assert checkpoint is not None
    assert checkpoint.step == 4


def test_a_gradient_whose_norm_overflows_is_divergence(tmp_path: Path) -> None:
    weight = Parameter(torch.zeros(2))

    def accumulate(batch: Batch) -> dict[str, float]:
        weight.grad = torch.full((2,), 3e38)
        return {"loss": 0.0}

    with pytest.raises(MagicIDError, match="norm is inf"):
        run(tmp_path, Model(), parameters={"w": weight}, accumulate=accumulate)
    assert weight.tolist() == [0.0, 0.0]


def test_a_held_out_measure_that_is_not_finite_is_divergence(tmp_path: Path) -> None:
    with pytest.raises(MagicIDError, match="margin is nan"):
        run(tmp_path, Model(), after_step=lambda step: {"margin": float("nan")})


# --- stopping and reporting ---------------------------------------------------------------------------------------


def test_ctrl_c_costs_at_most_the_running_step_and_saves_it(tmp_path: Path) -> None:
    model = interrupted(tmp_path, 3)
    stored = last_tensors(tmp_path)
    assert all(torch.equal(stored[f"adapter/{name}"], value) for name, value in model.parameters.items())
    assert (tmp_path / "checkpoints" / "step-00000003").is_dir()


def test_measurements_after_a_step_are_logged_and_disturb_nothing(tmp_path: Path, whole: tuple[Path, Model]) -> None:
    def after_step(step: int) -> dict[str, float] | None:
        torch.rand(3)
        random.random()
        np.random.random()
        return {"held_out_margin": float(step)} if step % 5 == 0 else None

    model = Model()
    run(tmp_path, model, after_step=after_step)
    assert same(model, whole[1])
    lines = rows(tmp_path)
    assert {line["step"]: line["held_out_margin"] for line in lines if "held_out_margin" in line} == {5: 5.0, 10: 10.0}
    assert [{k: v for k, v in line.items() if k != "held_out_margin"} for line in lines] == rows(whole[0])


def test_steps_and_checkpoints_are_reported(tmp_path: Path) -> None:
    told: list[Event] = []
    run(tmp_path, Model(), Events(told.append), steps=5)
    assert [event.kind for event in told] == ["step"] * 4 + ["checkpoint", "step", "checkpoint"]
    assert {name: told[0].data[name] for name in ("stage", "step", "of", "t")} == {
        "stage": "reconstruct",
        "step": 1,
        "of": 5,
        "t": 0.25,
    }
    assert told[0].data["loss"] == rows(tmp_path)[0]["loss"]
    assert (told[4].data["step"], told[6].data["step"]) == (4, 5)


def test_a_full_disk_stops_with_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("magicid_cli.training.append_line", full)
    with pytest.raises(MagicIDError) as caught:
        run(tmp_path, Model())
    assert (caught.value.code, caught.value.exit_code) == ("disk-full", 3)


def test_the_stored_state_is_json_and_safetensors_only(whole: tuple[Path, Model]) -> None:
    folder = whole[0] / "checkpoints" / "step-00000012"
    assert {path.name for path in folder.iterdir()} == {
        "adapter.safetensors",
        "optimizer.safetensors",
        "random.safetensors",
        "state.json",
        "manifest.json",
    }
    assert read_json(folder / "state.json")["step"] == 12


# --- random states ------------------------------------------------------------------------------------------------


def test_global_states_are_kept() -> None:
    before = torch.random.get_rng_state(), random.getstate(), global_states()[1]
    with pytest.raises(PowerCut), global_states_kept():
        torch.rand(1), random.random(), np.random.random()
        raise PowerCut
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert global_states()[1] == before[2]


@pytest.mark.parametrize("count", [1, 3, 7])
def test_sample_order_does_not_depend_on_how_it_is_taken(count: int) -> None:
    one_by_one, in_batches = SampleOrder(4, 3), SampleOrder(4, 3)
    expected = [one_by_one.take(1)[0] for _ in range(21)]
    assert [item for _ in range(21 // count) for item in in_batches.take(count)] == expected
