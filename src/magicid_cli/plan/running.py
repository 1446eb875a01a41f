"""Opening a model the way the memory plan says, and going on with the next plan where that was too much."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypeVar

from magicid_cli import models
from magicid_cli.config import Settings, with_values
from magicid_cli.errors import memory_told
from magicid_cli.events import Events
from magicid_cli.models.catalog import video_model
from magicid_cli.models.execution import Execution
from magicid_cli.plan.machine import this_machine
from magicid_cli.plan.memory import following, without_gpu
from magicid_cli.plan.workload import HOLDING, TRAINING, beside_gb, chosen, has_two_passes
from magicid_cli.rounds import stage_of

if TYPE_CHECKING:
    from magicid_cli.models.base import Family

Result = TypeVar("Result")

# Other methods' trainings, held as the stage whose work they do.
_HELD_AS = {"dreambooth": "reconstruct", "magic-me": "reconstruct"}


def open_family(settings: Settings, stage: str, events: Events, method: str = "") -> "Family":
    """A family that will be held as the memory plan of this stage says; the choice is told as an event `held`.

    Args:
        settings: of the run.
        stage: one of `workload.HOLDING`.
        events: told which plan was chosen.
        method: another method, whose training does the work of the stage.

    Raises:
        MagicIDError: as `models.open_family`.
    """
    plan, execution = held(settings, stage, method)
    family = models.open_family(settings.model, events, execution)
    events.emit("held", stage=stage, memory_plan=plan or "none", **asdict(execution))
    return family


def arrange(family: "Family", stage: str, events: Events) -> None:
    """Let the loaded transformer, its adapters attached, be held as was chosen, and tell what is in effect.

    Raises:
        MagicIDError: as `Family.arrange`.
    """
    family.arrange()
    events.emit("held", stage=stage, **family.report())


def held(settings: Settings, stage: str, method: str = "") -> tuple[str, Execution]:
    """Memory plan (empty for none) and way of being held of a stage, on this machine as it is now.

    Args:
        settings: of the run.
        stage: one of `workload.HOLDING`.
        method: another method, whose training does the work of the stage.
    """
    machine = this_machine(settings.model.device)
    if machine.gpu is None and not has_two_passes(settings, stage):
        return without_gpu(settings)
    left = machine.without(beside_gb(settings, machine, method))
    choice = chosen(settings, video_model(settings.model.name), left, stage)
    return choice.plan, choice.execution


def _next_other(settings: Settings, stage: str, name: str, plan: str, execution: Execution) -> str | None:
    """The first plan after this one that holds the model in another way at this stage, or None."""
    after = following(plan)
    while after is not None:
        other = held(with_values(settings, {"model.memory_plan": after}), stage, name)[1]
        if _felt(other, stage) != _felt(execution, stage):
            return after
        after = following(after)
    return None


def _felt(execution: Execution, stage: str) -> Execution:
    """The same without what the stage does not feel: where nothing is trained, nothing is kept for a backward pass.

    And where one batch of two is too much, the family has tried two passes itself.
    """
    return execution if stage in TRAINING else replace(execution, keep="nothing", kept_in="gpu", guided="two passes")


def with_next_plan(work: Callable[[Settings], Result], settings: Settings, name: str, events: Events) -> Result:
    """Do a stage's work; where the GPU runs out of memory, once more with the next memory plan that helps.

    The work must keep what it has finished, so that the second call goes on where the first one failed.

    Args:
        work: of the stage, with the settings it is given; memory plan apart, they are always the same.
        settings: of the run.
        name: of the stage or the method, as the manifest calls it.
        events: told of a second try, as a fallback.

    Raises:
        torch.OutOfMemoryError: there is no such plan, or it was too much, too.
    """
    stage = _HELD_AS.get(name, stage_of(name))
    if stage not in HOLDING:
        return work(settings)
    import torch

    from magicid_cli.models.transfers import give_back

    plan, execution = held(settings, stage, name)
    after = _next_other(settings, stage, name, plan, execution)
    try:
        # Not with the plan by name: what is asked for by name keeps to its card's memory, whatever is there.
        with memory_told():
            return work(settings)
    except torch.OutOfMemoryError:
        if after is None:
            raise
    # Outside the handler: the exception held the frames, and with them the graph.
    give_back()
    tried = f"memory plan {plan}" if plan else "all of the model in memory"
    message = f"Memory ran out at '{name}' with {tried}: it goes on with memory plan {after}, from what was finished."
    events.emit("fallback", message=message, stage=name)
    with memory_told():
        return work(with_values(settings, {"model.memory_plan": after}))
