"""`magicid compare`: several methods on one identity, measured and shown side by side."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magicid_cli.baselines.registry import METHODS
from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.config import KNOBS, with_values

if TYPE_CHECKING:
    from magicid_cli.workspace import Workspace

# What is asked of all methods, and what each is by itself: MagicID's run, which is recorded, reads none of it.
_APART = ("compare", "dreambooth", "magic_me", "id_animator", "consisid")

Methods = Annotated[
    str,
    typer.Option("--methods", metavar="A,B,C", help=f"Methods, with commas between: {', '.join(METHODS)}"),
]


@options.command("compare", "dreambooth", "magic_me", "model.device", "model.offline", recorded=True)
def compare(
    terminal: Terminal,
    flags: options.Flags,
    methods: Methods,
    name: options.SomeIdentity = None,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
) -> Result:
    """Train methods on one identity's photos, let each make the same videos, and measure them in one table.

    Every method trains for as many steps as MagicID did and gets the same prompts and seeds. What is there is not made
    again. Tables and a page of videos side by side go into the identity's folder `compare/`.
    """
    from magicid_cli import competition
    from magicid_cli.cli import estimate
    from magicid_cli.cli.identity import as_recorded, choose, require_free

    names = competition.names_of(methods)
    workspace = choose(name)
    if not dry_run:
        require_free(workspace)
    resolved = as_recorded(workspace, flags.values, _APART)
    own = _own_values(workspace, flags.values)
    settings = with_values(resolved.settings, own)
    resolved = replace(resolved, settings=settings, origins=resolved.origins | dict.fromkeys(own, "identity"))
    estimated, problems = competition.plan(workspace, names, resolved)
    shown = estimate.blocks(estimated)
    problem = next(iter(problems), None)
    data: dict[str, Any] = {"identity": workspace.name, "methods": names, "estimate": estimated.as_dict()}
    if dry_run:
        return Result(data, shown, names, error=problem)
    if problem:
        raise problem
    if estimated.rows:
        terminal.say("\n".join(_licences(names, settings.model.name)), *shown)
    estimate.approve(terminal, estimated, yes=yes)
    found = competition.run(workspace, names, resolved, terminal.events)
    from magicid_cli.evaluation import sheet

    blocks: list[str | Table] = [Table(*sheet.by_metric(found.evaluations))]
    blocks.append("Means over videos; in brackets where 95 % of the bootstrap draws over prompts and videos lie.")
    for title, one in found.evaluations.items():
        said = [*one.notes, *sheet.gaps(one)]
        blocks += [f"{title}: " + "\n".join(said)] if said else []
    blocks.append("\n".join(map(str, found.files)))
    data |= {
        "evaluations": {title: one.as_dict() for title, one in found.evaluations.items()},
        "videos": found.videos,
        "videos_made": found.made,
        "trained": found.trained,
        "files": found.files,
    }
    return Result(data, blocks, found.files, hint=f"Open {found.files[-1]} in a browser.")


def _own_values(identity: "Workspace", flags: Mapping[str, Any]) -> dict[str, Any]:
    """Each method's own settings as it was trained with them, but for what a flag says: else it would train anew."""
    found: dict[str, Any] = {}
    for space in identity.methods():
        section = str(space.method).replace("-", "_")
        values = space.manifest().get("settings", {}).get("values", {}).get(section, {})
        found |= {f"{section}.{name}": value for name, value in values.items() if f"{section}.{name}" in KNOBS}
    return {name: value for name, value in found.items() if name not in flags}


def _licences(names: list[str], model: str) -> list[str]:
    """What must be known of all methods, each sentence once."""
    from magicid_cli import methods

    return list(dict.fromkeys(line for name in names for line in methods.licences(name, model)))
