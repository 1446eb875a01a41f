"""`magicid generate`: videos of an identity."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magicid_cli.baselines.registry import MAGICID
from magicid_cli.baselines.registry import method as find_method
from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Terminal
from magicid_cli.cli.resuming import changed, free_output, resume_command
from magicid_cli.config import resolve
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Stopped

if TYPE_CHECKING:
    from magicid_cli.generation import Made
    from magicid_cli.prompts.names import Named

Prompt = Annotated[
    str, typer.Option("--prompt", help="What the video shows; the identity's name stands for the person")
]


@options.command("generate", "model", "seed", model="the identity's")
def generate(
    terminal: Terminal,
    flags: options.Flags,
    prompt: Prompt,
    name: options.SomeName = None,
    method: options.Method = None,
    output: options.Output = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
) -> Result:
    """Make videos of a person and print their paths."""
    used = find_method(method or MAGICID)
    from magicid_cli import methods, plan
    from magicid_cli.cli import estimate
    from magicid_cli.cli.identity import class_words
    from magicid_cli.models.catalog import video_model
    from magicid_cli.prompts import drawn
    from magicid_cli.prompts.names import resolve as resolve_name
    from magicid_cli.workspace import Workspace, check_name

    for text in (prompt, flags.values.get("generate.negative_prompt", "")):
        _require_text(text)
    chosen = None if name is None else check_name(name)
    words = class_words()
    named = resolve_name(prompt, words, chosen)
    workspace = Workspace(named.identity)
    given = methods.own_flags(used.name, flags.values)
    resolved = resolve(given, preset=flags.preset, identity_model=workspace.manifest().get("model"))
    is_drawn = video_model(resolved.settings.model.name).drawn
    _warn(terminal, named, words[named.identity], is_drawn)
    if is_drawn:
        named = replace(named, text=drawn.spelled(named.text))
    if not dry_run:
        methods.require(workspace, used.name, resolved.settings, named.text, output=output, force=force)
    estimated = methods.video_estimate(workspace, used.name, resolved.settings, resolved.settings.generate.count)
    shown = estimate.blocks(estimated)
    data: dict[str, Any] = {"identity": workspace.name, "method": used.name, "prompt": named.text}
    if dry_run:
        problem = next(iter(plan.check(estimated)), None)
        data["estimate"] = estimated.as_dict()
        return Result(data, [f"prompt: {named.text}", *shown], [workspace.name], error=problem)
    plan.require(estimated)
    if used.own_model or estimated.downloads:
        terminal.say(*methods.licences(used.name, resolved.settings.model.name), *shown)
    estimate.approve(terminal, estimated, yes=yes)

    problem = None
    try:
        made: Sequence[Made] = methods.generate(
            workspace, used.name, resolved, named.text, output=output, force=force, events=terminal.events
        )
    except Stopped as stopped:
        if not stopped.made:
            raise
        made = stopped.made
        problem = _interrupted(terminal.given, stopped, output) if stopped.left else None
    paths = [one.path for one in made]
    return Result({**data, "videos": [asdict(one) for one in made]}, ["\n".join(map(str, paths))], paths, error=problem)


def _interrupted(given: Sequence[str], stopped: Stopped, output: Path | None) -> MagicIDError:
    """What is said of videos of which some were made, with the command that makes the others."""
    done, left = len(stopped.made), stopped.left
    # Other methods find videos of earlier calls among these again.
    count = left[-1] - left[0] + 1
    values = {"--seed": str(left[0]), "--count": str(count)}
    if output is not None and not output.is_dir():
        values["--output"] = str(free_output(output, done, count))
    return MagicIDError(
        "interrupted",
        f"Interrupted: {done} of {done + len(left)} videos are made.",
        f"To make the rest: {resume_command(changed(given, values))}",
    )


def _warn(terminal: Terminal, named: "Named", class_word: str, is_drawn: bool) -> None:
    """Tell what the prompt lacks to show this person doing something that the model knows."""
    from magicid_cli.prompts import drawn
    from magicid_cli.prompts.names import says

    if not says(named.text, class_word):
        example = drawn.EXAMPLE if is_drawn else "{name} walks along a beach"
        terminal.warn(
            f"The prompt says neither {named.identity} nor {class_word}, so the person may not appear. "
            f'Write it as in: --prompt "{example.format(name=named.identity)}"'
        )
    unknown = drawn.advice([named.text]) if is_drawn else None
    if unknown:
        terminal.warn(unknown)


def _require_text(prompt: str) -> None:
    """Refuse bytes that are no UTF-8: Python keeps them as lone surrogates, which no tokenizer takes."""
    if any("\ud800" <= char <= "\udfff" for char in prompt):
        raise MagicIDError("usage", "The prompt is not valid UTF-8 text.", "Type it anew, or convert it with iconv.")
