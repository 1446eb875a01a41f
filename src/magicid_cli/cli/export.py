"""`magicid export`: an identity as other tools want it."""

from typing import Annotated, Literal

import typer

from magicid_cli.baselines.registry import method as find_method
from magicid_cli.baselines.registry import trained_method
from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.config import resolve

Format = Annotated[
    Literal["diffusers", "comfyui", "merged"],
    typer.Option("--format", help="An adapter for diffusers or ComfyUI, or whole weights with the adapter merged in"),
]


@options.command("model", model="the identity's")
def export(
    terminal: Terminal,
    flags: options.Flags,
    name: options.SomeIdentity = None,
    method: options.Method = None,
    format: Format = "diffusers",
    output: options.Output = None,
    force: options.Force = False,
) -> Result:
    """Write an identity's adapter for other tools, with a model card, and check it by loading it back.

    With --method, what that method trained: an adapter, or keywords, which have the format diffusers alone.
    """
    from magicid_cli.cli.identity import choose, gigabytes
    from magicid_cli.export import export as write

    workspace = choose(name)
    if method is not None and find_method(method).module:
        workspace = workspace.of_method(trained_method(method))
    resolved = resolve(flags.values, preset=flags.preset, identity_model=workspace.manifest().get("model"))
    done = write(workspace, format, output, force=force, events=terminal.events, settings=resolved.settings)
    rows = [(file.relative_to(done.folder), gigabytes(file.stat().st_size)) for file in done.files]
    checks = [f"{name.replace('_', ' ')}: {_spoken(value)}" for name, value in done.checks.items()]
    data = {"identity": workspace.name, "format": format, "folder": done.folder, "files": done.files}
    blocks: list[str | Table] = [str(done.folder), Table(("FILE", "SIZE"), rows), "\n".join(checks)]
    return Result({**data, "checks": done.checks}, blocks, [done.folder])


def _spoken(value: object) -> str:
    """A finding for people: two digits of a difference are all that matters."""
    return f"{value:.2g}" if isinstance(value, float) else str(value)
