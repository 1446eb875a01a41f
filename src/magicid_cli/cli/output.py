"""What people and programs read: results on stdout, everything else on stderr.

The format of a result never depends on the terminal; only colour, animation and questions do. With `--json` every
outcome, a usage error too, is one object, alone on stdout.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TextIO
from unicodedata import bidirectional, category, combining, east_asian_width

import typer

from magicid_cli.cli.progress import Plain, Progress, Silent
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events

SCHEMA = "magicid/1"
_OVERRIDES = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}  # they turn what follows around
_BOLD, _RED, _YELLOW, _PLAIN = "\033[1m", "\033[1;31m", "\033[33m", "\033[0m"


@dataclass(frozen=True)
class Table:
    """Rows under a header, columns two spaces apart, as wide as they need to be.

    Attributes:
        header: the columns' titles.
        rows: the cells.
    """

    header: tuple[str, ...]
    rows: Sequence[Sequence[object]]

    def text(self, *, colour: bool = False) -> str:
        """The table as lines of text; nothing is cut, whatever the width of the terminal."""
        cells = [[_cell(title) for title in self.header], *([_cell(cell) for cell in row] for row in self.rows)]
        widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        return "\n".join([f"{_BOLD}{lines[0]}{_PLAIN}" if colour else lines[0], *lines[1:]])


@dataclass(frozen=True)
class Result:
    """What a command found or made.

    Attributes:
        data: for `--json`.
        blocks: for people, paragraphs and tables.
        brief: for `-q`, one path or name a line.
        hint: what to do next, for people, on stderr.
        error: why the outcome counts as a failure although there is something to show.
    """

    data: Mapping[str, Any]
    blocks: Sequence[str | Table]
    brief: Sequence[object] = ()
    hint: str = ""
    error: MagicIDError | None = None


@dataclass
class Terminal:
    """The person or program at the other end.

    Attributes:
        json: print one JSON object.
        quiet: print only the paths, and no progress.
        colour: colours may be used where a stream is a terminal.
        debug: show tracebacks.
        command: the command that runs, without the program's name.
        given: what was typed after the program's name.
        events: what the running work reports to.
    """

    json: bool = False
    quiet: bool = False
    colour: bool = True
    debug: bool = False
    command: str = ""
    given: Sequence[str] = ()
    progress: Progress = field(default_factory=Silent)
    events: Events = field(default_factory=Events)
    _begun: bool = False
    _announced: bool = False

    def begin(self, command: str, *, json: bool, quiet: bool, no_color: bool, debug: bool) -> None:
        """Take the options of the command that was understood, and open its log."""
        from magicid_cli.cli import log

        self.command, self.json, self.quiet, self.debug = command, json, quiet, debug
        self.colour = not (no_color or os.environ.get("NO_COLOR"))
        log.start(command, debug=debug)
        self._begun = True
        self.progress = self._progress()
        self.events = Events(self.progress, log.listen)

    def _progress(self) -> Progress:
        if self.quiet:
            return Silent()
        if is_terminal(sys.stderr) and os.environ.get("TERM") != "dumb":
            from magicid_cli.cli.bars import Bars

            return Bars(colour=self.colour)
        return Plain(write_line)

    @property
    def interactive(self) -> bool:
        """Whether somebody can be asked."""
        return is_terminal(sys.stdin) and is_terminal(sys.stderr)

    def ask(self, question: str) -> bool:
        """Ask for a yes; no is the answer of an empty line and of a closed input.

        Raises:
            KeyboardInterrupt: on Ctrl-C.
        """
        self.progress.stop()
        try:
            return typer.confirm(clean(question), default=False, err=True)
        except typer.Abort:
            write_line("")  # what comes next would stand on the question's line
            if self.events.stop_requested:
                raise KeyboardInterrupt from None
            return False

    def confirm(self, question: str, *shown: str | Table, yes: bool, declined: str) -> None:
        """Show what is about to happen and go on only after a yes.

        Args:
            question: what to ask.
            shown: what the person should know before answering.
            yes: `--yes` was given: nothing is asked.
            declined: what a no means, a sentence.

        Raises:
            MagicIDError: `declined`; `confirmation-missing` where nobody can be asked.
        """
        if yes:
            return
        if not self.interactive:
            raise MagicIDError("confirmation-missing", f"There is no terminal to ask: {question}", "Add --yes.")
        self.say(*shown)
        if not self.ask(question):
            raise MagicIDError("declined", declined, "Add --yes to go on without the question.")

    def say(self, *blocks: str | Table) -> None:
        """Tell the person something that is not the result."""
        if not self.quiet:
            self.progress.stop()
            write_line("\n\n".join(_text(block, self._coloured(sys.stderr)) for block in blocks))

    def warn(self, message: str) -> None:
        """Tell the person something that may go wrong."""
        yellow, plain = (_YELLOW, _PLAIN) if self._coloured(sys.stderr) else ("", "")
        if not self.quiet:
            self.progress.stop()
            write_line(f"{yellow}warning:{plain} {clean(message)}")

    def show(self, result: Result) -> int:
        """Print a result and return the exit code."""
        self._end(result.error)
        if not self._announced:
            self._write(result)
        if not self.json:
            self._follow(result)
        return result.error.exit_code if result.error else 0

    def announce(self, result: Result) -> None:
        """Print the result of a command that goes on working, so that a program need not wait for its end.

        Nothing more is printed to stdout then; of what is shown at the end, people get the hint.
        """
        self.progress.stop()
        self._write(result)
        self._announced = True

    def _write(self, result: Result) -> None:
        if self.json:
            _print(_envelope(self.command, result.data, result.error))
        elif self.quiet:
            _print("\n".join(clean(str(item)) for item in result.brief))
        else:
            _print("\n\n".join(_text(block, self._coloured(sys.stdout)) for block in result.blocks))

    def _follow(self, result: Result) -> None:
        """What a person should know after the result."""
        if result.error is not None:
            self._complain(result.error)
        elif result.hint and not self.quiet:
            write_line(clean(result.hint))

    def fail(self, error: MagicIDError) -> int:
        """Print an error and return its exit code."""
        self._end(error)
        if self.json and not self._announced:
            _print(_envelope(self.command, None, error))
        else:
            self._complain(error)
        return error.exit_code

    def _end(self, error: MagicIDError | None) -> None:
        self.progress.stop()
        if self._begun:
            from magicid_cli.cli import log

            log.ended(error)

    def _complain(self, error: MagicIDError) -> None:
        red, yellow, plain = (_RED, _YELLOW, _PLAIN) if self._coloured(sys.stderr) else ("", "", "")
        label = "stopped" if error.code == "interrupted" else "error"
        write_line(f"{red}{label}:{plain} {clean(error.message)}\n{yellow}hint:{plain} {clean(error.hint)}")

    def _coloured(self, stream: TextIO) -> bool:
        return self.colour and is_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person sits at the other end of `stream`, which may be missing or closed."""
    return stream is not None and not stream.closed and stream.isatty()


def clean(text: str) -> str:
    """The text with control characters spelled out, so that a file name cannot steer the terminal."""
    return "".join(char if char in "\n\t" or not _steers(char) else f"\\x{ord(char):02x}" for char in text)


def _cell(value: object) -> str:
    """A cell of a table: what would end its line or move its column is spelled out, too."""
    return clean(str(value)).replace("\n", "\\x0a").replace("\t", "\\x09")


def write_line(text: str) -> None:
    """Write to stderr; a reader that went away must not end a run of hours."""
    with suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _steers(char: str) -> bool:
    return category(char) == "Cc" or bidirectional(char) in _OVERRIDES


def _width(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def _text(block: str | Table, colour: bool) -> str:
    return block.text(colour=colour) if isinstance(block, Table) else clean(block)


def _envelope(command: str, data: Mapping[str, Any] | None, error: MagicIDError | None) -> str:
    """The one object of `--json`."""
    failure = error and {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
    whole = {"schema": SCHEMA, "command": command, "ok": error is None, "data": data, "error": failure}
    return json.dumps(whole, indent=2, default=str)


def _print(text: str) -> None:
    """Write a result to stdout. A reader that has seen enough (`| head`) is no failure, and neither is none at all."""
    if sys.stdout is None:  # `>&-`
        return
    try:
        if text:
            sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
