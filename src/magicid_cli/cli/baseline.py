"""`magicid baseline`: environments of their own for methods whose packages do not get on with magicid's."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal

app = typer.Typer(
    help="What methods that MagicID is compared with need beside magicid: environments of their own.",
    context_settings={"help_option_names": ["--help", "-h"]},
)
MethodName = Annotated[str, typer.Argument(metavar="METHOD", help="The method: consisid")]
Python = Annotated[
    Path | None, typer.Option("--python", help="The Python to make it with; the one that runs magicid by default")
]
Again = Annotated[bool, typer.Option("--force", help="Make it anew although it is ready")]


@app.command("install")
@options.command()
def install(terminal: Terminal, method: MethodName, python: Python = None, force: Again = False) -> Result:
    """Make the environment of a method: `python -m venv`, and packages of fixed versions from the package index.

    One that is ready stays as it is. Nothing of it touches magicid's own packages.
    """
    from magicid_cli.baselines import environments
    from magicid_cli.cli.identity import gigabytes

    wanted = environments.environment(method)
    if force or not environments.is_ready(method):
        terminal.say(wanted.licences)
    made = environments.install(method, terminal.events, python=python, force=force)
    text = f"{method} is ready: {made.path} ({gigabytes(made.bytes)})."
    return Result(asdict(made), [text], [made.path], hint=f"Next: magicid generate --method {method} --prompt …")


@app.command("list")
@options.command()
def listing(terminal: Terminal) -> Result:
    """List the environments: which are ready, and what they take."""
    from magicid_cli.baselines import environments
    from magicid_cli.cli.identity import gigabytes

    found = environments.states()
    rows = [(one.name, one.state, gigabytes(one.bytes) if one.bytes else "-", one.path) for one in found]
    table = Table(("METHOD", "STATE", "SIZE", "FOLDER"), rows)
    return Result({"environments": [asdict(one) for one in found]}, [table], [one.name for one in found])


@app.command("remove")
@options.command()
def remove(terminal: Terminal, method: MethodName, yes: options.Yes = False) -> Result:
    """Delete the environment of a method. Its weights stay: see `magicid cache`."""
    from magicid_cli.baselines import environments
    from magicid_cli.cli.identity import gigabytes

    folder = environments.folder_of(environments.environment(method).name)
    terminal.confirm(f"Delete the environment of {method}?", str(folder), yes=yes, declined="Nothing was deleted.")
    freed = environments.remove(method)
    return Result({"method": method, "bytes": freed}, [f"Deleted {folder} ({gigabytes(freed)})."], [method])
