"""The bars that a person at a terminal sees."""

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from magicid_cli.cli.progress import Work, spoken, stage_line
from magicid_cli.events import Event


class Bars:
    """One bar for what runs now; what is done stays above it as a line."""

    def __init__(self, *, colour: bool) -> None:
        self._console = Console(stderr=True, no_color=not colour, highlight=False)
        self._work = Work()
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._stopping = False

    def __call__(self, event: Event) -> None:
        """Move the bar, or print above it."""
        self._work.take(event)
        progress = self._begin()
        if event.kind == "notice":
            self._line(f"[cyan]note:[/] {escape(event.data['message'])}")
        elif event.kind == "fallback":
            self._line(f"[yellow]warning:[/] {escape(event.data['message'])}")
        elif event.kind == "stage" and event.data["state"] != "started":
            mark = "[green]✓[/] " if event.data["state"] in ("finished", "cached") else ""
            self._line(mark + escape(stage_line(event)))
        progress.update(
            self._task,
            total=self._work.of or None,
            completed=self._work.step,
            description=self._work.label or "working",
            about=self._about(),
        )

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def stopping(self) -> bool:
        """Say beside the bar that the work ends after this step."""
        self._stopping = True
        if self._progress is None:
            return False
        self._progress.update(self._task, about=self._about())
        return True

    def _begin(self) -> Progress:
        if self._progress is None:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[about]}", markup=False),
                TimeElapsedColumn(),
            )
            self._progress = Progress(*columns, console=self._console, transient=True, refresh_per_second=4)
            self._task = self._progress.add_task(self._work.label or "working", total=None, about="")
            self._progress.start()
        return self._progress

    def _about(self) -> str:
        work = self._work
        counted = f"{work.step:.0f}/{work.of:.0f} {'MB' if work.unit == 'MB' else ''}".rstrip() if work.of else ""
        loss = f"loss {work.loss:.4g}" if work.loss is not None else ""
        left = f"{spoken(work.left_s)} left" if work.left_s is not None else ""
        end = "stopping after this step; Ctrl-C again stops at once" if self._stopping else ""
        return ", ".join(filter(None, [counted, loss, end or left]))

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)
