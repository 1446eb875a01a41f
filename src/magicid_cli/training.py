"""The one training loop of both stages, and its exact resume.

The loop owns everything that makes a run repeatable: AdamW, the learning rate, the order of samples, every random
number generator, checkpoints and the metrics file. What a step computes is injected: `accumulate` looks at a batch,
leaves gradients in the adapter's parameters and returns what it measured.

A run that was cut at any point and started again ends with the same bits as one that was not (on the same device
and library versions); `resume.py` holds what that takes.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import Parameter
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from magicid_cli import checkpoints
from magicid_cli.config import KNOBS
from magicid_cli.errors import MagicIDError, memory_told
from magicid_cli.events import Events
from magicid_cli.randomness import SampleOrder, derived_seed, global_states_kept, seed_global
from magicid_cli.resume import Run, capture, restore, streams_of
from magicid_cli.workspace import append_line, read_lines, write_lines


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage trains.

    Attributes:
        steps: optimizer steps in all.
        learning_rate: after the warm-up, constant.
        weight_decay: AdamW's, decoupled.
        warmup: steps of linear warm-up; step k of W runs at k/W of the learning rate.
        batch: items a step.
        max_grad_norm: the gradient is scaled down to this norm; 0 leaves it alone.
        save_every: steps between checkpoints.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    warmup: int
    batch: int
    max_grad_norm: float
    save_every: int


@dataclass(frozen=True)
class Batch:
    """What one step works on.

    Attributes:
        step: from 0.
        items: indices of the samples, in order; one may occur twice where an epoch ends.
        generator: on the CPU, so that timesteps and noise do not depend on the device. It goes on from step to step
            and is part of a checkpoint.
    """

    step: int
    items: tuple[int, ...]
    generator: torch.Generator


@dataclass(frozen=True)
class TrainingResult:
    """What a call of `train` did.

    Attributes:
        steps: finished steps of the whole run.
        resumed_from: the step of the checkpoint it went on from; 0 for a fresh start.
        metrics: JSON lines, one a step of the whole run.
    """

    steps: int
    resumed_from: int
    metrics: Path


Accumulate = Callable[[Batch], dict[str, float]]
AfterStep = Callable[[int], dict[str, float] | None]


class Guard(Protocol):
    """Watches a training between its steps, where a stop request may cut it, and may end it early.

    What it says must depend on the metrics and on records of its own alone, so that a resumed run ends as the
    uninterrupted one.
    """

    def due(self, step: int) -> bool:
        """Whether it will look after this step; a checkpoint is saved before."""

    def ends(self, step: int, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether training ends after `step` steps; asked between any two steps, before the first and after the last.

        Args:
            step: finished steps.
            rows: their metrics, a line a step. Global random numbers that the guard uses are put back.
        """


def train(
    *,
    stage: str,
    parameters: dict[str, Parameter],
    schedule: Schedule,
    items: int,
    seed: int,
    key: str,
    folder: Path,
    accumulate: Accumulate,
    events: Events,
    after_step: AfterStep | None = None,
    guard: Guard | None = None,
) -> TrainingResult:
    """Train until `schedule.steps`, going on from the newest valid checkpoint in `folder/checkpoints`.

    Every step appends a line to `folder/metrics.jsonl`: `step` (from 1), what `accumulate` and `after_step` measured,
    `lr`, `grad_norm` (before clipping) and `seconds`. A stop request is obeyed after the running step, with a
    checkpoint of exactly that step. Where memory runs out in a step, the steps before it are saved first, so that a
    call with less to keep in memory goes on with the same step.

    Args:
        stage: the settings' section: `reconstruct` or `prefer`.
        parameters: the adapter's parameters by name; trained in place.
        schedule: steps, rates and intervals.
        items: number of samples; batches name them by index.
        seed: decides the order, the batches' generator and the global generators (dropout).
        key: digest of everything the run reads; checkpoints of another key are removed and training starts anew.
        folder: the stage's folder.
        accumulate: batch → finite metrics; leaves the batch's gradient in `parameter.grad`. A metric called `t` is
            named when the run diverges.
        events: told of steps, checkpoints and notices.
        after_step: finished steps → more metrics for that line, or None. Global random numbers that it uses are put
            back.
        guard: looks between steps, and may end the training.

    Raises:
        MagicIDError: `training-diverged` before the optimizer moves; `checkpoint-incomplete`, `checkpoint-format`,
            `disk-full`.
        KeyboardInterrupt: after a stop request, once the step is saved.
        torch.OutOfMemoryError: once the steps before it are saved.
    """
    metrics_path = folder / "metrics.jsonl"
    run = _start(stage, parameters, schedule, items, seed, events)
    with checkpoints.room_to_write(folder):
        _resume(run, key, folder / "checkpoints")
        rows = [row for row in read_lines(metrics_path) if row["step"] <= run.step]
        write_lines(metrics_path, rows)
    resumed_from = run.step
    while not _ended(run, guard, rows) and run.step < schedule.steps:
        with events.finishing(), checkpoints.room_to_write(folder):
            put_back = streams_of(run)
            try:
                with memory_told():
                    row = _step(run, schedule, accumulate, after_step)
            except torch.OutOfMemoryError:
                put_back()
                _keep_finished(run, key, folder / "checkpoints")
                raise
            append_line(metrics_path, row)
            rows.append(row)
            events.emit("step", stage=stage, of=schedule.steps, **row)
            if _saves(run, schedule, guard) or events.stop_requested:
                _save(run, key, folder / "checkpoints")
    return TrainingResult(run.step, resumed_from, metrics_path)


def _start(
    stage: str, parameters: dict[str, Parameter], schedule: Schedule, items: int, seed: int, events: Events
) -> Run:
    """A run at step 0, with every generator seeded; the streams of one seed are independent of each other."""
    seed_global(seed, stage)
    # One tensor at a time: the fused kinds may round differently from one version or device to the next.
    optimizer = AdamW(
        parameters.values(),
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        foreach=False,
        fused=False,
    )
    return Run(
        stage=stage,
        parameters=parameters,
        optimizer=optimizer,
        rates=LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, schedule.warmup))),
        order=SampleOrder(items, derived_seed(seed, stage, "order")),
        generator=torch.Generator().manual_seed(derived_seed(seed, stage, "noise")),
        events=events,
    )


def _ended(run: Run, guard: Guard | None, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Ask the guard, with the global generators put back afterwards."""
    if guard is None:
        return False
    with global_states_kept():
        return guard.ends(run.step, rows)


def _save(run: Run, key: str, folder: Path) -> None:
    tensors, state = capture(run)
    path = checkpoints.save(folder, run.step, tensors, {**state, "key": key})
    run.events.emit("checkpoint", stage=run.stage, step=run.step, path=str(path))


def _keep_finished(run: Run, key: str, folder: Path) -> None:
    """Save the finished steps of a run whose next step failed.

    Not before the first one, when there is nothing to save, and not where the optimizer may have moved a part of the
    adapter: then the last checkpoint on disk holds.
    """
    if run.step and not run.moving:
        _save(run, key, folder)


def _saves(run: Run, schedule: Schedule, guard: Guard | None) -> bool:
    """Whether a checkpoint is due: so often, at the end, and before the guard looks."""
    looked_at = guard is not None and guard.due(run.step)
    return run.step % schedule.save_every == 0 or run.step == schedule.steps or looked_at


def _step(run: Run, schedule: Schedule, accumulate: Accumulate, after_step: AfterStep | None) -> dict[str, Any]:
    """One optimizer step; returns its line of metrics."""
    started = time.monotonic()
    batch = Batch(run.step, run.order.take(schedule.batch), run.generator)
    run.optimizer.zero_grad(set_to_none=True)
    metrics = accumulate(batch)
    grad_norm = _clip(run, schedule.max_grad_norm)
    _refuse_divergence(run, batch, {**metrics, "the gradient's norm": grad_norm}, metrics.get("t"))
    learning_rate = run.rates.get_last_lr()[0]
    run.moving = True
    run.optimizer.step()
    run.rates.step()
    run.step += 1
    more = _measure(run, batch, after_step) if after_step else {}
    run.moving = False
    seconds = round(time.monotonic() - started, 3)
    return {"step": run.step, **metrics, **more, "lr": learning_rate, "grad_norm": grad_norm, "seconds": seconds}


def _clip(run: Run, largest: float) -> float:
    """Scale the gradient down to the largest allowed norm; returns the norm it had."""
    gradients = []
    for parameter in run.parameters.values():
        if parameter.grad is None:  # a layer the batch did not reach has a gradient of zero, and an optimizer state
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    norm = get_total_norm(gradients, foreach=False)
    if largest > 0:
        clip_grads_with_norm_(run.parameters.values(), largest, norm, foreach=False)
    return float(norm)


def _measure(run: Run, batch: Batch, after_step: AfterStep) -> dict[str, float]:
    """Extra measurements, with the global generators put back afterwards."""
    with global_states_kept():
        more = after_step(run.step) or {}
    _refuse_divergence(run, batch, more, None)
    return more


def _refuse_divergence(run: Run, batch: Batch, metrics: Mapping[str, float], timestep: float | None) -> None:
    wrong = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if not wrong:
        return
    sample = f"sample {', '.join(map(str, batch.items))}" + ("" if timestep is None else f", timestep {timestep}")
    raise MagicIDError(
        "training-diverged",
        f"Training of stage '{run.stage}' diverged at step {batch.step + 1} ({sample}): {'; '.join(wrong)}.",
        f"Lower the learning rate ({KNOBS[f'{run.stage}.learning_rate'].flag}) and run the command again. "
        "The last checkpoint is kept, but with the same settings it would diverge again.",
    )


def _resume(run: Run, key: str, folder: Path) -> None:
    """Put the newest valid checkpoint of the same key into the run; without one, the run stays at step 0."""
    checkpoint = checkpoints.newest(
        folder,
        on_damage=lambda damage: run.events.notice(f"A checkpoint is damaged and passed over: {damage}"),
    )
    if checkpoint is None:
        return
    if checkpoint.state.get("key") != key:
        checkpoints.discard(folder)
        run.events.notice(
            f"What stage '{run.stage}' reads has changed: its checkpoints are removed and it starts from step 0."
        )
        return
    restore(run, checkpoint)
    run.events.notice(f"Stage '{run.stage}' goes on after step {run.step}.")
