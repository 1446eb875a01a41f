"""The Typer app and `main`: every outcome turned into a result, or a message, a hint and an exit code."""

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from magicid_cli import __version__
from magicid_cli.cli import (
    baseline,
    cache,
    compare,
    config,
    customize,
    doctor,
    evaluate,
    export,
    generate,
    ls,
    mini,
    pairs,
    prepare,
    report,
    review,
    rm,
    score,
    status,
    study,
)
from magicid_cli.cli.interrupt import obeyed
from magicid_cli.cli.output import Result, Terminal, write_line
from magicid_cli.cli.resuming import resume_command
from magicid_cli.errors import INTERRUPTED, MagicIDError

app = typer.Typer(
    name="magicid",
    help="From a few photos of one person, videos of that person that keep the likeness and move.\n\n"
    "Begin with: magicid customize photos/ --name alice, then: magicid generate --prompt 'alice dances in the rain'",
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
)
_WORK, _UPKEEP, _CLOSER = "From photos to videos", "State and upkeep", "Looking closer"
app.command("prepare", rich_help_panel=_WORK)(prepare.prepare)
app.command("customize", rich_help_panel=_WORK)(customize.customize)
app.command("generate", rich_help_panel=_WORK)(generate.generate)
app.command("export", rich_help_panel=_WORK)(export.export)
app.command("status", rich_help_panel=_UPKEEP)(status.status)
app.command("ls", rich_help_panel=_UPKEEP)(ls.ls)
app.command("rm", rich_help_panel=_UPKEEP)(rm.rm)
app.command("cache", rich_help_panel=_UPKEEP)(cache.cache)
app.command("config", rich_help_panel=_UPKEEP)(config.config)
app.command("doctor", rich_help_panel=_UPKEEP)(doctor.doctor)
app.command("score", rich_help_panel=_CLOSER)(score.score)
app.command("pairs", rich_help_panel=_CLOSER)(pairs.pairs)
app.command("review", rich_help_panel=_CLOSER)(review.review)
app.command("evaluate", rich_help_panel=_CLOSER)(evaluate.evaluate)
app.command("compare", rich_help_panel=_CLOSER)(compare.compare)
app.command("report", rich_help_panel=_CLOSER)(report.report)
app.add_typer(baseline.app, name="baseline", rich_help_panel=_UPKEEP)
app.add_typer(study.app, name="study", rich_help_panel=_CLOSER)
app.add_typer(mini.app, name="mini", rich_help_panel=_CLOSER)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"magicid {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the program itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what was typed after the program's name; from the process by default.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _settle(given)
    # What a usage error looks like is settled here: Typer does not come to the point of reading the options.
    colour = not os.environ.get("NO_COLOR")
    terminal = Terminal(json="--json" in given, debug="--debug" in given, colour=colour, given=given)
    try:
        with obeyed(terminal):
            _check_platform()
            outcome: Any = app(args=given or ["--help"], prog_name="magicid", standalone_mode=False, obj=terminal)
        if isinstance(outcome, Result):
            return terminal.show(outcome)
        if outcome == INTERRUPTED:
            raise KeyboardInterrupt
        return int(outcome or 0)
    except (Exception, KeyboardInterrupt) as problem:
        error = _explain(problem, terminal, given)
        if terminal.debug and error.code != "interrupted":
            write_line(traceback.format_exc())
        return terminal.fail(error)


def _settle(given: Sequence[str]) -> None:
    """Make streams accept every file name, keep libraries from writing past us, and choose how torch divides a GPU."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape" if stream.encoding == "utf-8" else "backslashreplace")
    # Read when torch is, so before that. Pieces of a GPU that grow are not broken up by videos of different shapes and
    # parts that come and go. It means nothing on a CPU. The second one is the name that torch had for it before.
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ):
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    if "--no-color" in given:
        os.environ["NO_COLOR"] = "1"
    if "--debug" not in given:
        warnings.simplefilter("ignore")
        quiet = {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error", "HF_HUB_VERBOSITY": "error"}
        for name, value in {**quiet, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OPENCV_LOG_LEVEL": "ERROR"}.items():
            os.environ.setdefault(name, value)


def _check_platform() -> None:
    if os.name == "posix" and sys.platform in ("linux", "darwin"):
        return
    raise MagicIDError(
        "platform-unsupported",
        f"magicid runs on Linux and macOS; this is {sys.platform}. It needs POSIX file locks and folder syncs.",
        "On Windows, install WSL (wsl --install) and run magicid inside it.",
    )


def _explain(problem: BaseException, terminal: Terminal, given: Sequence[str]) -> MagicIDError:
    """Any exception as an error that a person can act on."""
    if isinstance(problem, KeyboardInterrupt) or terminal.events.stop_requested and not _is_full(problem):
        return MagicIDError("interrupted", "Interrupted.", f"To go on: {resume_command(given)}")
    if isinstance(problem, MagicIDError):
        return problem
    if isinstance(problem, typer.TyperException):
        return _usage(problem, terminal)
    if isinstance(problem, OSError) and problem.errno in _REFUSED:
        return MagicIDError(
            "file-access",
            f"The operating system refused access: {problem}.",
            "Check the permissions; MAGICID_HOME moves everything that magicid writes.",
        )
    if isinstance(problem, OSError) and _is_full(problem):
        return MagicIDError("disk-full", f"The disk is full: {problem}.", "Make room, then run the same command again.")
    if isinstance(problem, OSError) and problem.filename is not None:
        return _unusable_file(problem)
    return _bug(problem)


_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)


def _is_full(problem: BaseException) -> bool:
    """Whether the disk is full: told even to who asked to stop, for what should have been saved then was not."""
    if isinstance(problem, MagicIDError):
        return problem.code == "disk-full"
    return isinstance(problem, OSError) and problem.errno in _FULL


def _usage(problem: typer.TyperException, terminal: Terminal) -> MagicIDError:
    # Typer's usage errors carry the context they arose in; its class is not public.
    path = getattr(getattr(problem, "ctx", None), "command_path", "magicid")
    terminal.command = path.partition(" ")[2]
    return MagicIDError(
        "usage", problem.format_message().replace("\n\t", " ").replace(": Value error, ", ": "), f"See: {path} --help"
    )


def _unusable_file(problem: OSError) -> MagicIDError:
    """A name that is too long, a folder that vanished, a disk that fails: in the log too, since it may be our bug."""
    from magicid_cli.cli import log

    log.failure(problem)
    return MagicIDError(
        "file-access",
        f"A file or folder cannot be used: {problem}.",
        f"Check that it exists, and its name and its disk. If it is none of yours, see {log.path()}.",
    )


def _bug(problem: BaseException) -> MagicIDError:
    from magicid_cli.cli import log

    log.failure(problem)
    first = next(iter(str(problem).splitlines()), "")
    return MagicIDError(
        "internal",
        f"magicid did not expect this: {type(problem).__name__}: {first}",
        f"Run again with --debug, or see {log.path()}; `magicid doctor` prints what a bug report needs.",
    )
