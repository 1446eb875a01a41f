"""`magicid generate`: videos of an identity."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magicid_cli.baselines.registry import MAGICID
from magicid_cli.baselines.registry import method as find_method
from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Terminal
from magicid_cli.config import resolve
from magicid_cli.errors import MagicIDError

if TYPE_CHECKING:
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
    resolved = resolve(flags.values, preset=flags.preset, identity_model=workspace.manifest().get("model"))
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
    if used.own_model:
        terminal.say(*methods.licences(used.name, resolved.settings.model.name), *shown)
    estimate.approve(terminal, estimated, yes=yes)

    made = methods.generate(
        workspace, used.name, resolved, named.text, output=output, force=force, events=terminal.events
    )
    paths = [one.path for one in made]
    return Result({**data, "videos": [asdict(one) for one in made]}, ["\n".join(map(str, paths))], paths)


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
