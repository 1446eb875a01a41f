"""Options that several commands share, declared once, and the flags that the settings give to a command.

A command is a function of its own arguments; `command` adds to what Typer sees of it one flag for each setting of the
sections it reads and the options of every command, and hands over two values instead: `terminal`, with which it talks
to the person, and `flags`, the settings that were given.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter
from operator import getitem
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args

import typer

from magicid_cli.baselines.registry import METHODS
from magicid_cli.cli.output import Result, Terminal
from magicid_cli.config import KNOBS, PRESETS, Knob
from magicid_cli.errors import MagicIDError

PANELS = {
    "seed": "Model, machine and seed",
    "model": "Model, machine and seed",
    "photos": "Photos",
    "shape": "Shape of the training clips and of the repository",
    "adapter": "Adapter",
    "training": "Both training stages",
    "reconstruct": "Stage 1: reconstruction",
    "repository": "Preference repository",
    "rewards": "Rewards",
    "pairs": "Preference pairs",
    "rounds": "Stage 2: preference optimization",
    "prefer": "Stage 2: preference optimization",
    "dreambooth": "--method dreambooth",
    "magic_me": "--method magic-me",
    "compare": "What every method is asked for",
    "generate": "Video",
    "evaluate": "Evaluation",
}
_OUTPUT = "Output and help"

Photos = Annotated[
    list[str],
    typer.Argument(metavar="PHOTOS", help="Photos of one person: folders, files, patterns such as 'me/*.jpg'"),
]
SomePhotos = Annotated[
    list[str] | None,
    typer.Argument(metavar="PHOTOS", help="Photos to judge: folders, files, patterns such as 'me/*.jpg'"),
]
Name = Annotated[str, typer.Option("--name", help="The identity's name: a-z, 0-9, '-' and '_'", show_default=False)]
SomeName = Annotated[str | None, typer.Option("--name", help="The identity, where a prompt names none")]
Identity = Annotated[str, typer.Argument(metavar="NAME", help="The identity")]
SomeIdentity = Annotated[
    str | None, typer.Argument(metavar="NAME", help="The identity; not needed where there is only one")
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Print what would be done and stop")]
Gpu = Annotated[
    str | None,
    typer.Option("--gpu", help="Plan for another GPU, e.g. h100, a100, 4090, whatever is here; with --dry-run"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether to go on")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where to write; a free name by default")]
Round = Annotated[
    int | None, typer.Option("--round", min=1, help="Which round of `customize --rounds`; the newest by default")
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        help=f"Another method than MagicID: {', '.join(one.name for one in METHODS.values() if one.module)}",
        show_default=False,
    ),
]
Preset = Annotated[str | None, typer.Option("--preset", help="A named set of settings: " + ", ".join(PRESETS))]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, alone on stdout", rich_help_panel=_OUTPUT)]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only the path or name; no progress", rich_help_panel=_OUTPUT)
]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colour (so does NO_COLOR)", rich_help_panel=_OUTPUT)]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show tracebacks; log in detail, photo names and prompts included", rich_help_panel=_OUTPUT
    ),
]
_COMMON: dict[str, Any] = {"json": Json, "quiet": Quiet, "no_color": NoColor, "debug": Debug}


def require_dry_run(gpu: str | None, dry_run: bool, method: str | None = None) -> None:
    """Refuse to plan for another GPU and then run on this one, or another method's run.

    Raises:
        MagicIDError: `usage`; `settings-unknown` for a GPU that is not known.
    """
    if gpu is None:
        return
    from magicid_cli.plan.machine import gpu_called

    gpu_called(gpu)
    if not dry_run:
        raise MagicIDError("usage", "--gpu only plans, for a GPU that need not be here.", "Add --dry-run.")
    if method is not None:
        raise MagicIDError("usage", f"--gpu plans MagicID, not {method}.", "Leave --method out.")


@dataclass(frozen=True)
class Flags:
    """The settings that were given on the command line.

    Attributes:
        values: dotted name → value, only of those given.
        preset: the preset that was named.
    """

    values: dict[str, Any]
    preset: str | None


def command(
    *sections: str, model: str | None = None, recorded: bool = False, also: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Make a Typer command of a function.

    Args:
        sections: sections of `config.Settings`, or dotted names of single settings, whose flags the command takes, in
            this order.
        model: what to say of `--model` if its default is another one here.
        recorded: what no flag sets is as in the identity's last run: no defaults are shown, and there are no presets.
        also: a second spelling of a setting's flag, by the setting's dotted name.

    Returns:
        A decorator. The function gets `terminal: Terminal` and, if it takes settings, `flags: Flags`, besides its own
        arguments, and returns what the command line then prints.
    """
    knobs = {
        _parameter(knob.name): knob
        for section in sections
        for knob in KNOBS.values()
        if section in (_section(knob), knob.name) and knob.flag
    }
    defaults = {name: None if recorded and knob.result else knob.default for name, knob in KNOBS.items()}
    defaults |= {"model.name": model} if model else {}

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        own = inspect.signature(function, eval_str=True).parameters

        @wraps(function)
        def run(ctx: typer.Context, **values: Any) -> Result:
            terminal: Terminal = ctx.obj
            terminal.begin(ctx.command_path.partition(" ")[2], **{name: values.pop(name) for name in _COMMON})
            if "flags" in own:
                given = {knob.name: values.pop(name) for name, knob in knobs.items()}
                given = {name: value for name, value in given.items() if value is not None}
                values["flags"] = Flags(given, values.pop("preset", None))
            try:
                return function(terminal=terminal, **values)
            except BrokenPipeError as error:
                # Typer takes it for a reader of stdout that went away, and ends without a word.
                raise RuntimeError("another program closed the pipe between us") from error

        parameters = [_annotated("ctx", typer.Context, Parameter.empty)]
        parameters += [value for name, value in own.items() if name not in ("terminal", "flags")]
        if "flags" in own and not recorded:
            parameters.append(_annotated("preset", Preset, None))
        spellings = also or {}
        parameters += [
            _annotated(name, _option(knob, defaults[knob.name], spellings.get(knob.name)), None)
            for name, knob in knobs.items()
        ]
        parameters += [_annotated(name, option, False) for name, option in _COMMON.items()]
        by_keyword = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
        setattr(run, "__signature__", inspect.Signature(by_keyword))  # noqa: B010
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in by_keyword}
        return run

    return decorate


def _annotated(name: str, annotation: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _parameter(name: str) -> str:
    """A dotted name as the name of a Python parameter."""
    return name.replace(".", "__")


def _section(knob: Knob) -> str:
    return knob.name.partition(".")[0]


def _option(knob: Knob, default: Any, also: str | None = None) -> Any:
    """The annotation from which Typer makes the setting's flag. Its default is always None: not given."""
    flag = knob.flag or ""
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if knob.kind is bool else flag,
        *([also] if also else []),
        help=" ".join(_help(knob, default)),
        show_default=False,
        rich_help_panel=PANELS[_section(knob)],
    )
    return Annotated[_kind(knob) | None, option]


def _kind(knob: Knob) -> Any:
    if knob.choices:
        return getitem(Literal, knob.choices)
    return next((kind for kind in get_args(knob.kind) if kind is not NoneType), knob.kind)


def _help(knob: Knob, default: Any) -> Iterator[str]:
    """The setting's sentence and its default, with the brackets that rich would take for markup escaped."""
    yield knob.help.replace("[", r"\[")
    if default not in (None, ""):
        yield rf"\[default: {value_text(default)}]"


def value_text(value: Any) -> str:
    """A setting's value as a person would type it; a dash where there is none."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in (None, ""):
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
