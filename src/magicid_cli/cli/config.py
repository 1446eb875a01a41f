"""`magicid config`: every setting, its value and where that came from."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.config import KNOBS, resolve, user_config_path, value_of


@options.command()
def config(
    terminal: Terminal,
    flags: options.Flags,
    action: Annotated[
        Literal["show", "path"], typer.Argument(help="show prints each value and its origin, path the files read")
    ] = "show",
) -> Result:
    """Show the settings and where they come from."""
    return _show(flags) if action == "show" else _path()


def _show(flags: options.Flags) -> Result:
    resolved = resolve(flags.values, preset=flags.preset)
    rows = [
        {
            "name": knob.name,
            "value": value_of(resolved.settings, knob.name),
            "origin": resolved.origins[knob.name],
            "flag": knob.flag,
            "variable": knob.variable,
        }
        for knob in KNOBS.values()
    ]
    table = Table(
        ("SETTING", "VALUE", "FROM"), [(row["name"], options.value_text(row["value"]), row["origin"]) for row in rows]
    )
    brief = [f"{row['name']}={options.value_text(row['value'])}" for row in rows]
    return Result({"settings": rows}, [table], brief)


def _path() -> Result:
    from magicid_cli.cli import log
    from magicid_cli.hub import hub_cache
    from magicid_cli.workspace import cache_home, data_home

    places = {
        "user_settings": user_config_path(),
        "project_settings": Path.cwd() / "magicid.toml",
        "identities": data_home() / "identities",
        "exports": data_home() / "exports",
        "log": log.path(),
        "cache": cache_home(),
        "weights": hub_cache(),
    }
    rows = [(what.replace("_", " "), "yes" if place.exists() else "no", place) for what, place in places.items()]
    return Result(places, [Table(("WHAT", "EXISTS", "PATH"), rows)], [user_config_path()])
