"""Ctrl-C and SIGTERM: the first asks the work to stop at its next safe point, the second ends the process at once.

Python runs a signal's handler between two of its own instructions, so during a long step of the GPU neither would be
noticed. A thread that reads the signals' numbers from a pipe answers at once.
"""

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from magicid_cli.cli.output import Terminal, is_terminal, write_line
from magicid_cli.errors import INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SOON_S = 0.5


@contextmanager
def obeyed(terminal: Terminal) -> Iterator[None]:
    """Obey the signals while the block runs; they are the caller's again afterwards."""

    def stop(number: int, frame: FrameType | None) -> None:
        if not terminal.events.stop_requested:
            terminal.events.request_stop()

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=_watch, args=(reader, terminal), daemon=True).start()
    handlers = {number: signal.signal(number, stop) for number in SIGNALS}
    pipe = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(pipe)
        os.close(writer)  # ends the thread
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _watch(reader: int, terminal: Terminal) -> None:
    """Count the signals; say after a moment that the first was heard, if it has not ended the work by then."""
    seen = 0
    while True:
        if seen == 1 and not select.select([reader], [], [], _SOON_S)[0]:
            _say(terminal)
        arrived = os.read(reader, 1)
        if not arrived:
            os.close(reader)
            return
        seen += arrived[0] in SIGNALS
        if seen > 1:
            _end()


def _say(terminal: Terminal) -> None:
    if not terminal.progress.stopping() and not terminal.quiet:
        write_line("Stopping after this step; once more stops at once.")


def _end() -> None:
    """Leave without looking back; the bars hide the cursor, so show it."""
    with suppress(OSError, ValueError):
        if is_terminal(sys.stderr):
            os.write(sys.stderr.fileno(), b"\x1b[?25h\n")
    os._exit(INTERRUPTED)
