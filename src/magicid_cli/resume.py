"""What makes a resume exact: everything that moves during training, read into a checkpoint and put back.

A checkpoint holds the state of every item of `RESTORE`. One that lacks any of them, or holds one that does not fit,
is an error and never a warning: going on with a fresh optimizer or another sample order would look like a resume
and be another run.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from magicid_cli.checkpoints import Checkpoint
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.randomness import (
    SampleOrder,
    cuda_states,
    global_states,
    set_global_states,
    set_numpy,
    set_python,
)

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Run:
    """Everything that moves during training.

    Attributes:
        stage: its name in messages.
        parameters: the adapter's, by name; the optimizer holds them in this order.
        optimizer: its moments belong to the parameters.
        rates: the learning rate's schedule.
        order: which samples come next.
        generator: draws timesteps and noise, on the CPU.
        events: where notices go.
        step: finished steps.
        moving: whether the optimizer may have moved some of the parameters of a step that is not finished.
    """

    stage: str
    parameters: dict[str, Parameter]
    optimizer: AdamW
    rates: LambdaLR
    order: SampleOrder
    generator: torch.Generator
    events: Events
    step: int = 0
    moving: bool = False


def capture(run: Run) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
    """The run's state after a finished step.

    Returns:
        CPU tensors by name, by group (`adapter`, `optimizer`, `random`), and plain data.
    """
    random_tensors, random_values = global_states()
    memory = run.optimizer.state_dict()["state"]
    tensors = {
        "adapter": run.parameters,
        "optimizer": {f"{name}.{k}": memory[i][k] for i, name in enumerate(run.parameters) for k in _MOMENTS},
        "random": {
            **random_tensors,
            "noise": run.generator.get_state(),
            "order": run.order.generator.get_state(),
        },
    }
    state = {
        "step": run.step,
        "schedule": {name: value for name, value in run.rates.state_dict().items() if name != "lr_lambdas"},
        "order": {"permutation": run.order.permutation, "position": run.order.position},
        "random": random_values,
    }
    return {group: {name: _plain(value) for name, value in named.items()} for group, named in tensors.items()}, state


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous()


def streams_of(run: Run) -> Callable[[], None]:
    """Note where every random stream of the run stands; a call of what is returned puts all of them back there.

    With that a step that failed before the optimizer moved is as if it had never begun.
    """
    tensors, values = global_states()
    noise, drawn = run.generator.get_state(), run.order.generator.get_state()
    permutation, position = run.order.permutation, run.order.position

    def put_back() -> None:
        set_global_states(tensors, values)
        run.generator.set_state(noise)
        run.order.generator.set_state(drawn)
        run.order.permutation, run.order.position = permutation, position

    return put_back


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's state into a freshly started run.

    Raises:
        MagicIDError: `checkpoint-incomplete`.
    """
    for what, put_back in RESTORE.items():
        try:
            put_back(run, checkpoint)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise MagicIDError(
                "checkpoint-incomplete",
                f"The checkpoint {checkpoint.path} cannot restore the {what}: "
                f"{'it lacks ' if isinstance(error, KeyError) else ''}{error}.",
                f"Remove {checkpoint.path.parent} and run the same command again: the stage starts anew.",
            ) from error


def _restore_step(run: Run, checkpoint: Checkpoint) -> None:
    if checkpoint.state["step"] != checkpoint.step:
        raise ValueError("state.json and manifest.json name different steps")
    run.step = checkpoint.step


def _restore_adapter(run: Run, checkpoint: Checkpoint) -> None:
    stored = checkpoint.tensors("adapter")
    _same_names(stored, run.parameters)
    with torch.no_grad():
        for name, parameter in run.parameters.items():
            parameter.copy_(_fitting(stored, name, parameter))


def _restore_optimizer(run: Run, checkpoint: Checkpoint) -> None:
    stored = checkpoint.tensors("optimizer")
    _same_names(stored, [f"{name}.{moment}" for name in run.parameters for moment in _MOMENTS])
    memory = run.optimizer.state_dict()
    memory["state"] = {
        i: {
            "step": stored[f"{name}.step"].clone(),
            "exp_avg": _fitting(stored, f"{name}.exp_avg", parameter),
            "exp_avg_sq": _fitting(stored, f"{name}.exp_avg_sq", parameter),
        }
        for i, (name, parameter) in enumerate(run.parameters.items())
    }
    run.optimizer.load_state_dict(memory)


def _restore_schedule(run: Run, checkpoint: Checkpoint) -> None:
    stored = checkpoint.state["schedule"]
    _same_names(stored, run.rates.state_dict().keys() - {"lr_lambdas"})
    run.rates.load_state_dict({**stored, "lr_lambdas": [None]})
    run.optimizer.param_groups[0]["lr"] = run.rates.get_last_lr()[0]


def _restore_order(run: Run, checkpoint: Checkpoint) -> None:
    stored = checkpoint.state["order"]
    if sorted(stored["permutation"]) != list(range(run.order.items)):
        raise ValueError(f"it orders other samples than the {run.order.items} there are")
    run.order.permutation, run.order.position = stored["permutation"], stored["position"]
    run.order.generator.set_state(checkpoint.tensors("random")["order"])


def _restore_noise(run: Run, checkpoint: Checkpoint) -> None:
    run.generator.set_state(checkpoint.tensors("random")["noise"])


def _restore_torch(run: Run, checkpoint: Checkpoint) -> None:
    torch.set_rng_state(checkpoint.tensors("random")["torch"])


def _restore_cuda(run: Run, checkpoint: Checkpoint) -> None:
    stored = checkpoint.tensors("random")
    saved = checkpoint.state["random"]["cuda"]
    present = len(cuda_states())
    if saved != present:
        run.events.notice(
            f"The checkpoint was made with {saved} CUDA devices and {present} are used now: training goes on, but not "
            "bit for bit as it would have."
        )
    for i in range(min(saved, present)):
        torch.cuda.set_rng_state(stored[f"cuda.{i}"], i)


def _restore_python(run: Run, checkpoint: Checkpoint) -> None:
    set_python(checkpoint.state["random"]["python"])


def _restore_numpy(run: Run, checkpoint: Checkpoint) -> None:
    set_numpy(checkpoint.state["random"]["numpy"])


# What makes a resume exact. All of it is restored, or the checkpoint is refused.
RESTORE: dict[str, Callable[[Run, Checkpoint], None]] = {
    "step": _restore_step,
    "adapter": _restore_adapter,
    "optimizer": _restore_optimizer,
    "learning-rate schedule": _restore_schedule,
    "sample order": _restore_order,
    "noise generator": _restore_noise,
    "torch generator": _restore_torch,
    "CUDA generators": _restore_cuda,
    "Python generator": _restore_python,
    "numpy generator": _restore_numpy,
}


def _same_names(stored: Iterable[str], wanted: Iterable[str]) -> None:
    lacking, foreign = set(wanted) - set(stored), set(stored) - set(wanted)
    if lacking or foreign:
        raise ValueError(f"it lacks {sorted(lacking)[:3]} and holds {sorted(foreign)[:3]}, which nothing here has")


def _fitting(stored: Mapping[str, torch.Tensor], name: str, like: torch.Tensor) -> torch.Tensor:
    """A stored tensor of exactly the wanted shape: copying would broadcast another one silently."""
    tensor = stored[name]
    if tensor.shape != like.shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)} instead of {tuple(like.shape)}")
    return tensor.clone()
