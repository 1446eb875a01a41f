"""`magicid customize`: from photos to an adapter, all stages, resumable."""

import getpass
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magicid_cli.baselines.registry import MAGICID, trained_method
from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Terminal
from magicid_cli.config import resolve
from magicid_cli.errors import MagicIDError
from magicid_cli.models.catalog import video_model

if TYPE_CHECKING:
    from magicid_cli.pipeline import StageState
    from magicid_cli.workspace import Workspace

_SECTIONS = (
    "photos",
    "model",
    "seed",
    "shape",
    "adapter",
    "training",
    "reconstruct",
    "repository",
    "rewards",
    "pairs",
    "rounds",
    "prefer",
    "dreambooth",
    "magic_me",
)
Consent = Annotated[
    bool, typer.Option("--consent", help="This is you, or you have this person's permission; asked on a terminal")
]


@options.command(*_SECTIONS)
def customize(
    terminal: Terminal,
    flags: options.Flags,
    photos: options.Photos,
    name: options.Name,
    method: options.Method = None,
    consent: Consent = False,
    dry_run: options.DryRun = False,
    gpu: options.Gpu = None,
    yes: options.Yes = False,
) -> Result:
    """Teach the model one person, from a few photos.

    The same command goes on where it was interrupted; what nothing has changed for is not done again.
    """
    from magicid_cli.photos import expand
    from magicid_cli.prompts.names import everyday
    from magicid_cli.workspace import Workspace

    workspace = Workspace(name)
    resolved = resolve(flags.values, preset=flags.preset)
    # What is misspelled is told at once, before anything heavy is imported.
    video_model(resolved.settings.model.name)
    other = None if method in (None, MAGICID) else trained_method(method)
    options.require_dry_run(gpu, dry_run, other)
    from magicid_cli import methods, pipeline
    from magicid_cli.cli import estimate
    from magicid_cli.cli.identity import require_free

    files = expand(photos, terminal.warn)
    if not dry_run:
        require_free(workspace)
    if everyday(workspace.name):
        terminal.warn(f"'{workspace.name}' is also a word: a prompt with it then always means the person.")
    if other:
        planned = methods.plan(workspace, other, resolved, files)
    else:
        planned = pipeline.plan(workspace, resolved, files, gpu)
    shown = estimate.blocks(planned.estimate, planned.stages)
    problem = next(iter(planned.problems), None)
    if dry_run:
        data = {"name": workspace.name, "stages": [asdict(one) for one in planned.stages]}
        names = [one.name for one in planned.stages]
        return Result({**data, "estimate": planned.estimate.as_dict()}, shown, names, error=problem)
    if problem:
        raise problem
    how = _consent(terminal, workspace, files, planned.stages, given=consent)
    terminal.say(*(methods.licences(other, resolved.settings.model.name) if other else []), *shown)
    estimate.approve(terminal, planned.estimate, yes=yes)
    if how:
        pipeline.record_consent(workspace, files, _user(), how)
    if other:
        done = methods.run(workspace, other, resolved, files, terminal.events)
    else:
        done = pipeline.run(workspace, resolved, files, terminal.events)
    for one in done.rounds:
        which = f", round {one['round']}" if len(done.rounds) > 1 else ""
        terminal.say(*([f"Stage 2{which}: {one['why']}."] if one["why"] else []))
    following = _following(done.name, resolved.settings.model.name, other)
    return Result({**asdict(done), "next": following}, [str(done.adapter)], [done.adapter], hint=f"Next: {following}")


def _following(name: str, model: str, method: str | None) -> str:
    """The command to type next."""
    from magicid_cli.prompts import drawn

    example = drawn.EXAMPLE if video_model(model).drawn else "{name} walks along a beach at sunset"
    prompt = shlex.quote(example.format(name=name))
    return f"magicid generate --prompt {prompt}" + (f" --method {method}" if method else "")


def _consent(
    terminal: Terminal, workspace: "Workspace", files: list[Path], stages: "list[StageState]", *, given: bool
) -> str | None:
    """How consent to photos that are new was given, or None if there are none.

    Raises:
        MagicIDError: `consent-missing`.
    """
    from magicid_cli import pipeline

    missing = pipeline.consent_missing(workspace, files)
    if not missing:
        return None
    if given:
        return "--consent"
    new = f"{len(missing)} of {len(files)} photos are new." if workspace.exists else ""
    if not terminal.interactive:
        raise MagicIDError(
            "consent-missing",
            f"magicid needs to know that the person in the photos agrees. {new}".strip(),
            "If this is you, or you have this person's permission, add --consent.",
        )
    if workspace.exists:
        terminal.say(f"{new} Stages that will be done again: {_stale(workspace, stages)}.")
    if not terminal.ask("Is this you, or do you have this person's permission?"):
        raise MagicIDError("consent-missing", "Without it, nothing was started.", "Ask the person first.")
    return "asked on a terminal"


def _stale(workspace: "Workspace", stages: "list[StageState]") -> str:
    """The stages that were done before and are not fresh any more."""
    begun = workspace.manifest()["stages"]
    return ", ".join(one.title for one in stages if one.state != "cached" and one.name in begun) or "none"


def _user() -> str:
    """Who sits at the keyboard, as far as the operating system knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
