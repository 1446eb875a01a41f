"""Write the reference pages that follow from the code: commands, settings, exit codes.

python docs/generate.py           writes docs/reference/{commands,configuration,exit-codes}.md
python docs/generate.py --check   only tells, by its exit code, whether they are fresh
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from magicid_cli import errors
from magicid_cli.cli.app import app
from magicid_cli.cli.options import value_text
from magicid_cli.config import KNOBS, MODEL_DEFAULTS, PRESETS, Knob, Settings, value_of

REFERENCE = Path(__file__).parent / "reference"
_NOTE = "<!-- Written by docs/generate.py; change the code, then run it. -->"
_EXIT_CODES = {
    0: "done",
    errors.FAILED: "failed",
    errors.USAGE: "usage: the command or a setting cannot be understood",
    errors.MACHINE: "this machine cannot: GPU, memory, disk, operating system",
    errors.REFUSED: "the input was refused: photos, prompts, consent",
    errors.WEIGHTS: "weights are missing, or cannot be fetched or used",
    errors.INTERRUPTED: "interrupted; the hint is the command that goes on",
}


def pages() -> dict[str, str]:
    """File name → text of every generated page."""
    return {
        "commands.md": "\n".join(_commands()),
        "configuration.md": "\n".join(_configuration()),
        "exit-codes.md": "\n".join(_exit_codes()),
    }


def _commands() -> Iterator[str]:
    root: Any = get_command(app)
    yield from (_NOTE, "", "# Commands", "")
    yield "Results go to stdout, everything else to stderr. Every command takes `--json` (one object, alone on stdout),"
    yield "`-q` (only the path or name), `--no-color` and `--debug`."
    yield "[Settings](configuration.md) may also come from files and the environment; see there for their ranges."
    yield from (
        "",
        *_table(("command", "does"), [(_linked(name), _first(command)) for name, command in _sorted(root)]),
        "",
    )
    for name, command in _sorted(root):
        yield from _command(name, command)


def _sorted(root: Any) -> list[tuple[str, Any]]:
    """(name, command) in the order of `--help`; those of a group by both words."""
    found: list[tuple[str, Any]] = []
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        found += [(name, command)] if inner is None else [(f"{name} {word}", one) for word, one in inner.items()]
    return found


def _linked(name: str) -> str:
    return f"[`{name}`](#magicid-{name.replace(' ', '-')})"


def _first(command: Any) -> str:
    return str(command.help).strip().partition("\n\n")[0].replace("\n", " ")


def _command(name: str, command: Any) -> Iterator[str]:
    context = command.make_context(f"magicid {name}", [], resilient_parsing=True)
    panels: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for param in command.get_params(context):
        first, text = param.get_help_record(context)
        default = "Arguments" if param.param_type_name == "argument" else "Options"
        panels[getattr(param, "rich_help_panel", None) or default].append((f"`{first}`", text.replace("\\[", "[")))
    yield from (f"## `magicid {name}`", "", str(command.help).strip(), "")
    yield from ("```console", f"$ {' '.join(command.get_usage(context).split()[1:])}", "```", "")
    for title in sorted(panels, key=lambda title: title not in ("Arguments", "Options")):
        kind = "argument" if title == "Arguments" else "option"
        yield from (f"**{title}**", "", *_table((kind, "meaning"), panels[title]), "")


def _configuration() -> Iterator[str]:
    yield from (_NOTE, "", "# Settings", "")
    yield "A value is looked up in this order; the first place that has one wins:"
    yield ""
    yield "1. the command's flag,"
    yield "2. the environment variable,"
    yield "3. `./magicid.toml`,"
    yield "4. the user's `config.toml` (`magicid config path` prints where it is),"
    yield "5. what the model needs: `mini` and `tiny` have their own, see below,"
    yield "6. the default."
    yield ""
    yield "`magicid config show` prints each value and where it came from. In a file, a setting's section is a table:"
    yield ""
    yield from ("```toml", 'preset = "paper"', "seed = 7", "", "[prefer]", "steps = 2000", "```", "")
    yield "`MAGICID_HOME`, an absolute path, moves everything that magicid keeps, weights included;"
    yield "`MAGICID_PRESET` names a preset. A variable of a section that is none of its settings is refused,"
    yield "as such a name in a file is."
    yield "The last column tells whether a setting can change what a run produces: only such a setting makes finished"
    yield "stages stale, and only those that read it."
    for section in dict.fromkeys(_section(knob) for knob in KNOBS.values()):
        about = "" if section in KNOBS else str(value_of(Settings(), section).__class__.__doc__)
        yield from ("", f"## {section}", "", *([about, ""] if about else []))
        rows = [_setting(knob) for knob in KNOBS.values() if _section(knob) == section]
        yield from _table(("setting", "flag", "environment", "default", "allowed", "meaning", "changes results"), rows)
    yield from ("", "## Presets", "", "A preset sets several values at once: `--preset NAME`. What it says about")
    yield from ("`shape` is meant for the 13B model: a model with a shape of its own (see below) keeps it.", "")
    yield from _table(("preset", "sets"), [(f"`{name}`", _values(values)) for name, values in PRESETS.items()])
    yield from ("", "## Defaults of a model", "", "A model's own defaults, where nothing else sets a value.", "")
    yield from _table(("model", "sets"), [(f"`{name}`", _values(values)) for name, values in MODEL_DEFAULTS.items()])
    yield ""


def _section(knob: Knob) -> str:
    return knob.name.partition(".")[0]


def _setting(knob: Knob) -> tuple[str, ...]:
    flag = f"`{knob.flag}`" if knob.flag else "-"
    default = value_text(knob.default)
    return (
        f"`{knob.name}`",
        flag,
        f"`{knob.variable}`",
        f"`{default}`" if default != "-" else "-",
        _allowed(knob),
        knob.help,
        "yes" if knob.result else "no",
    )


def _allowed(knob: Knob) -> str:
    if knob.choices:
        return ", ".join(f"`{choice}`" for choice in knob.choices)
    if knob.low is not None and knob.high is not None:
        return f"{knob.low} to {knob.high}"
    if knob.low is not None:
        return f"at least {knob.low:g}"
    return "on, off" if knob.kind is bool else "text" if knob.kind is str else "a number"


def _values(values: dict[str, Any]) -> str:
    return ", ".join(f"`{name} = {value_text(value)}`" for name, value in values.items()) or "nothing: the defaults"


def _exit_codes() -> Iterator[str]:
    yield from (_NOTE, "", "# Exit codes and error codes", "")
    yield "The exit code is for shell scripts; with `--json`, `error.code` is the fine name. Every error says what"
    yield "happened, why, and what to type next."
    yield from ("", *_table(("exit code", "meaning"), [(str(code), text) for code, text in _EXIT_CODES.items()]), "")
    by_exit = sorted(errors.CODES.items(), key=lambda item: (item[1].exit_code, item[0]))
    rows = [(f"`{name}`", str(code.exit_code), code.when) for name, code in by_exit]
    yield from (*_table(("error code", "exit code", "when"), rows), "")


def _table(header: tuple[str, ...], rows: list[Any]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


def main(arguments: list[str]) -> int:
    """Write the pages, or with `--check` compare them; returns the exit code."""
    stale = False
    for name, text in pages().items():
        path = REFERENCE / name
        if "--check" in arguments:
            stale |= not path.is_file() or path.read_text(encoding="utf-8") != text
        else:
            REFERENCE.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
