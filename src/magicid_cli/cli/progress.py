"""What the running work reports, for a person who waits: bars on a terminal, one plain line a minute elsewhere.

Both tell the same: the stage and how many there are, the step, the loss, the time left. The bars live in `bars.py`,
because they bring rich.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from magicid_cli.events import Event

EVERY_S = 60.0
_SPOKEN = {"notice": "note", "fallback": "warning"}


class Progress(Protocol):
    """A listener that shows events, until it is told that something else wants the terminal."""

    def __call__(self, event: Event) -> None:
        """Show one event."""

    def stop(self) -> None:
        """Leave the terminal to somebody else; the next event takes it back."""

    def stopping(self) -> bool:
        """Somebody asked the work to stop. Returns whether this was shown."""


class Silent:
    """No progress."""

    def __call__(self, event: Event) -> None:
        """Show nothing."""

    def stop(self) -> None:
        """Nothing to leave."""

    def stopping(self) -> bool:
        """Nothing is shown."""
        return False


@dataclass
class Work:
    """Where the running work is, gathered from its events.

    Attributes:
        stage: `[2/6] Reconstruction`, or what else is going on.
        label: the stage, and the part of it that counts its own steps.
        step: steps done.
        of: steps in all; 0 while unknown.
        unit: `step` or `MB`.
        loss: the newest loss, None where there is none.
    """

    stage: str = ""
    label: str = ""
    step: float = 0
    of: float = 0
    unit: str = "step"
    loss: float | None = None
    clock: Callable[[], float] = time.monotonic
    _first: tuple[float, float] = field(default=(0.0, 0.0))
    _key: tuple[Any, ...] = ()

    def take(self, event: Event) -> None:
        """Follow one event."""
        if event.kind == "stage":
            self.stage = self.label = f"[{event.data['i']}/{event.data['n']}] {event.data['title']}"
            self.step = self.of = 0
            self.loss, self._key = None, ()
        elif event.kind == "step":
            part = event.data.get("part", "" if self.stage else event.data["stage"])
            self._count(event.data, part, "step")
        elif event.kind == "download":
            self._count({**event.data, **_megabytes(event.data)}, f"download {event.data['repo']}", "MB")

    def _count(self, data: dict[str, Any], part: str, unit: str) -> None:
        """Take a step; a new part of the work starts the measurement of its speed anew."""
        key = (data.get("stage"), part, data.get("video"))
        number = f" {data['video']}/{data['videos']}" if "video" in data else ""
        self.label = ": ".join(filter(None, [self.stage, part + number]))
        self.step, self.of, self.unit, self.loss = data["step"], data["of"], unit, data.get("loss")
        if key != self._key:
            self._key, self._first = key, (self.step, self.clock())

    @property
    def left_s(self) -> float | None:
        """Seconds left by the speed since the part began, None before its second step."""
        done, since = self.step - self._first[0], self.clock() - self._first[1]
        return (self.of - self.step) * since / done if done > 0 and self.of else None

    def __str__(self) -> str:
        counted = f"{self.unit} {self.step:.0f} of {self.of:.0f}" if self.of else ""
        loss = f"loss {self.loss:.4g}" if self.loss is not None else ""
        left = f"about {spoken(self.left_s)} left" if self.left_s is not None else ""
        return ", ".join(filter(None, [self.label or "working", counted, loss, left]))


class Plain:
    """One line a minute, and at once what begins, ends or needs to be read; also when nothing happens."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._work = Work(clock=clock)
        self._last = clock()
        self._beat: threading.Thread | None = None
        self._ended = threading.Event()

    def __call__(self, event: Event) -> None:
        """Show what must be seen at once, and the rest when its minute has come."""
        self._start()
        self._work.take(event)
        if event.kind in _SPOKEN:
            self._say(f"{_SPOKEN[event.kind]}: {event.data['message']}")
        elif event.kind == "stage":
            self._say(stage_line(event))
        else:
            self.tick()

    def tick(self) -> None:
        """Say where the work is if a minute has passed since the last line."""
        if self._clock() - self._last >= EVERY_S:
            self._say(str(self._work))

    def stop(self) -> None:
        """End the minute's line."""
        self._ended.set()
        self._beat = None

    def stopping(self) -> bool:
        """The caller writes the line."""
        return False

    def _say(self, line: str) -> None:
        self._last = self._clock()
        self._write(line)

    def _start(self) -> None:
        if self._beat is None:
            self._ended = threading.Event()
            self._beat = threading.Thread(target=self._keep_talking, args=(self._ended,), daemon=True)
            self._beat.start()

    def _keep_talking(self, ended: threading.Event) -> None:
        """A line a minute from a thread of its own, so that a step of ten minutes is not silent."""
        while not ended.wait(1.0):
            if self._clock() - self._last >= EVERY_S - 1:
                self._say(f"{self._work} (still working)")


def stage_line(event: Event) -> str:
    """`[2/6] Reconstruction: started (its settings changed)`."""
    data = event.data
    why = f" ({data['why']})" if data.get("why") else ""
    state = "already done" if data["state"] == "cached" else data["state"]
    return f"[{data['i']}/{data['n']}] {data['title']}: {state}{why}"


def spoken(seconds: float | None) -> str:
    """A duration as one would say it: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def _megabytes(data: dict[str, Any]) -> dict[str, Any]:
    return {"step": data.get("bytes", 0) / 1e6, "of": (data.get("total") or 0) / 1e6}
