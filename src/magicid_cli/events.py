"""What happened, as data.

Stages report through one `Events` object; nothing below `cli/` prints. Listeners (the progress bars, a test)
receive every event; the identity's `events.jsonl` keeps them. The object also carries the wish to stop: the
command line turns the first Ctrl-C or SIGTERM into `request_stop()`, and work that must not be cut in the middle
runs inside `finishing()`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magicid_cli.workspace import append_line


class Stopped(KeyboardInterrupt):
    """A stop after something was made that is of use by itself.

    Args:
        made: what there is.
        left: seeds of what there is not, in order.
    """

    def __init__(self, made: Sequence[Any], left: Sequence[int]) -> None:
        super().__init__()
        self.made = made
        self.left = left


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: `stage` (started, finished, cached), `step` (training, sampling, scoring), `checkpoint`, `notice`
            (something the user should read), `fallback` (a second-best way was taken; also in the manifest),
            `look` and `choice` (what the guards saw, and whose adapter they chose), `download`.
        data: the kind's own values, JSON-serialisable.
        time: seconds since the epoch.
    """

    kind: str
    data: dict[str, Any]
    time: float = field(default_factory=time.time)


Listener = Callable[[Event], None]


class Events:
    """A stream of events with listeners, an optional file, and the wish to stop."""

    def __init__(self, *listeners: Listener, path: Path | None = None) -> None:
        self._listeners = list(listeners)
        self.path = path
        self._stop = False
        self._finishing = 0

    def emit(self, kind: str, **data: Any) -> None:
        """Report one event to every listener and append it to the file, if there is one."""
        event = Event(kind, data)
        for listener in self._listeners:
            listener(event)
        if self.path is not None:
            append_line(self.path, {"time": round(event.time, 3), "kind": kind, **data}, durable=False)

    def listen(self, listener: Listener) -> None:
        """Send every event from now on to one more listener."""
        self._listeners.append(listener)

    @contextmanager
    def kept(self, path: Path, listener: Listener) -> Iterator[None]:
        """Keep events in this file and send them to one more listener, until the block ends."""
        before = self.path
        self.path = path
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)
            self.path = before

    def notice(self, message: str, **data: Any) -> None:
        """Something the user should read, in one sentence."""
        self.emit("notice", message=message, **data)

    def request_stop(self) -> None:
        """Ask the running work to stop at its next safe point.

        Raises:
            KeyboardInterrupt: at once, when nothing is inside `finishing()`.
        """
        self._stop = True
        if not self._finishing:
            raise KeyboardInterrupt

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._stop

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Hold back a stop request until the block is done, then raise `KeyboardInterrupt`."""
        self._finishing += 1
        try:
            yield
        finally:
            self._finishing -= 1
        if self._stop and not self._finishing:
            raise KeyboardInterrupt
