"""What is written where, and how: the streams and progress of the contract, and hand-made examples.

Truth: the contract (results on stdout and all else on stderr, one JSON object, a format that does not depend on the
terminal, a line at least every 60 s) and, for tables, widths and times left, values worked out by hand.
"""

import io
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from magicid_cli.cli.bars import Bars
from magicid_cli.cli.output import Result, Table, Terminal, clean
from magicid_cli.cli.progress import Plain, Work, spoken
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event

ERROR = MagicIDError("identity-busy", "somebody is working", "wait")


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def stage(state: str, **more: str) -> Event:
    return Event("stage", {"stage": "prefer", "title": "Preference", "i": 6, "n": 6, "state": state, **more})


def step(number: int, **more: object) -> Event:
    return Event("step", {"stage": "prefer", "step": number, "of": 100, **more})


# Results


def test_a_table_is_as_wide_as_its_cells_and_counts_columns_of_the_terminal() -> None:
    table = Table(("NAME", "N"), [("李雷", 1), ("e\u0301", 22), ("long name", 3)])
    assert table.text() == "NAME       N\n李雷       1\ne\u0301          22\nlong name  3"
    assert table.text(colour=True).startswith("\033[1mNAME       N\033[0m\n")


def test_a_file_name_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b[2Jb\x9bc\rd\u202ee\nf\tg é 李") == "a\\x1b[2Jb\\x9bc\\x0dd\\x202ee\nf\tg é 李"
    assert "\x1b" not in Table(("A",), [("\x1b[31mred",)]).text()


@pytest.mark.parametrize(
    ("terminal", "out"),
    [
        (Terminal(command="generate"), "Made it.\n\nA\n1\n"),
        (Terminal(command="generate", quiet=True), "/tmp/x\n/tmp/y\n"),
        (Terminal(command="generate", json=True), None),
        (Terminal(command="generate", json=True, quiet=True), None),
    ],
)
def test_a_result_is_text_or_paths_or_one_object(
    terminal: Terminal, out: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Result({"path": Path("/tmp/x")}, ["Made it.", Table(("A",), [(1,)])], [Path("/tmp/x"), "/tmp/y"])
    assert terminal.show(result) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    if out is not None:
        assert captured.out == out
    else:
        envelope = {"schema": "magicid/1", "command": "generate", "ok": True, "data": {"path": "/tmp/x"}, "error": None}
        assert json.loads(captured.out) == envelope


def test_a_result_may_carry_an_error_and_keeps_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result({"photos": []}, ["none"], error=ERROR, hint="never shown beside an error")
    assert Terminal().show(result) == 1
    assert capsys.readouterr() == ("none\n", "error: somebody is working\nhint: wait\n")
    assert Terminal(json=True).show(result) == 1
    whole = json.loads(capsys.readouterr().out)
    assert (whole["ok"], whole["data"], whole["error"]["exit_code"]) == (False, {"photos": []}, 1)


def test_a_hint_follows_the_result_on_stderr_and_quiet_drops_it(capsys: pytest.CaptureFixture[str]) -> None:
    result = Result({}, ["/tmp/x"], ["/tmp/x"], hint="Next: more")
    Terminal().show(result)
    assert capsys.readouterr() == ("/tmp/x\n", "Next: more\n")
    Terminal(quiet=True).show(result)
    assert capsys.readouterr() == ("/tmp/x\n", "")


def test_an_error_is_on_stderr_or_in_the_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert Terminal().fail(ERROR) == 1
    assert capsys.readouterr() == ("", "error: somebody is working\nhint: wait\n")
    assert Terminal(json=True, command="ls").fail(ERROR) == 1
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out)["error"]["hint"] == "wait"


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    code = "from magicid_cli.cli.output import *; import sys; sys.exit(Terminal().show(Result({}, ['x' * 10**6])))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_nobody_is_asked_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(MagicIDError) as caught:
        Terminal().confirm("Delete?", yes=False, declined="Nothing was deleted.")
    assert caught.value.code == "confirmation-missing"
    Terminal().confirm("Delete?", yes=True, declined="Nothing was deleted.")


# On a terminal and elsewhere


def on_a_terminal(arguments: list[str], typed: bytes = b"", env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run the program with a terminal on all three streams; returns the exit code and what the screen got."""
    main_end, program_end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", **(env or {})}
    environment = {name: value for name, value in environment.items() if value}
    process = subprocess.Popen(
        [sys.executable, "-m", "magicid_cli", *arguments],
        stdin=program_end,
        stdout=program_end,
        stderr=program_end,
        env=environment,
        close_fds=True,
    )
    os.close(program_end)
    os.write(main_end, typed)
    seen = b""
    while True:
        try:
            chunk = os.read(main_end, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not chunk:
            break
        seen += chunk
    os.close(main_end)
    return process.wait(timeout=60), seen.decode().replace("\r\n", "\n")


def test_the_format_does_not_depend_on_the_terminal_only_colour_does() -> None:
    command = [sys.executable, "-m", "magicid_cli", "config", "show"]
    piped = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    code, coloured = on_a_terminal(["config", "show"], env={"NO_COLOR": "", "COLUMNS": "40"})
    assert code == 0
    assert "\033[1m" in coloured
    assert coloured.replace("\033[1m", "").replace("\033[0m", "") == piped
    assert on_a_terminal(["config", "show"], env={"NO_COLOR": "1"})[1] == piped
    assert on_a_terminal(["config", "show", "--no-color"], env={"NO_COLOR": ""})[1] == piped
    assert on_a_terminal(["config", "show"], env={"NO_COLOR": "", "TERM": "dumb"})[1] == piped


def test_an_error_is_coloured_on_a_terminal_alone() -> None:
    code, seen = on_a_terminal(["rm", "nobody"], env={"NO_COLOR": ""})
    assert code == 2
    assert seen.startswith("\033[1;31merror:\033[0m There is no identity called 'nobody'.\n\033[33mhint:\033[0m ")


# Progress


def test_seconds_are_spoken() -> None:
    assert [spoken(value) for value in (None, 0, 89, 90, 3599, 5400, 36_240)] == [
        "unknown",
        "0 s",
        "89 s",
        "2 min",
        "60 min",
        "1 h 30 min",
        "10 h 04 min",
    ]


def test_time_left_is_measured_from_where_this_run_began() -> None:
    clock = Clock()
    work = Work(clock=clock)
    work.take(stage("started"))
    work.take(step(40, loss=0.5))  # resumed: forty steps are not this run's
    assert work.left_s is None
    clock.now += 20
    work.take(step(50, loss=0.25))
    assert work.left_s == pytest.approx(50 * 20 / 10)
    assert str(work) == "[6/6] Preference, step 50 of 100, loss 0.25, about 2 min left"
    work.take(step(1, part="latents"))
    assert work.left_s is None


def test_a_download_counts_megabytes() -> None:
    clock = Clock()
    work = Work(clock=clock)
    work.take(Event("download", {"repo": "a/b", "file": "x", "bytes": 0, "total": 4_000_000_000}))
    clock.now += 10
    work.take(Event("download", {"repo": "a/b", "file": "x", "bytes": 1_000_000_000, "total": 4_000_000_000}))
    assert str(work) == "download a/b, MB 1000 of 4000, about 30 s left"


def test_plain_progress_is_one_line_a_minute_and_at_once_what_must_be_seen() -> None:
    clock, lines = Clock(), list[str]()
    plain = Plain(lines.append, clock)
    plain(stage("started", why="not begun"))
    for number in range(1, 101):
        clock.now += 3
        plain(step(number, loss=1 / number))
    plain(Event("fallback", {"message": "DIS instead of RAFT"}))
    plain(Event("notice", {"message": "four of five photos"}))
    plain(stage("finished"))
    plain.stop()
    # 100 steps of 3 s are five minutes.
    counted = [line.partition(", loss")[0] for line in lines if "step" in line]
    assert counted == [f"[6/6] Preference, step {number} of 100" for number in (20, 40, 60, 80, 100)]
    assert [line for line in lines if "step" not in line] == [
        "[6/6] Preference: started (not begun)",
        "warning: DIS instead of RAFT",
        "note: four of five photos",
        "[6/6] Preference: finished",
    ]


def test_a_step_of_many_minutes_is_not_silent() -> None:
    clock, said = Clock(), threading.Event()
    lines: list[str] = []

    def write(line: str) -> None:
        lines.append(line)
        if "still working" in line:
            said.set()

    plain = Plain(write, clock)
    plain(stage("started"))
    plain(step(1))
    clock.now += 59.5
    assert said.wait(timeout=10)
    plain.stop()
    assert lines[1:] == ["[6/6] Preference, step 1 of 100 (still working)"]


def drawn(monkeypatch: pytest.MonkeyPatch, act: Callable[[Bars], None]) -> str:
    """What `act` makes the bars draw on a terminal of 100 columns."""
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    bars = Bars(colour=False)
    act(bars)
    bars.stop()
    return screen.getvalue()


def test_bars_show_stage_step_loss_and_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def act(bars: Bars) -> None:
        bars(stage("started"))
        bars(step(1, loss=0.5))
        bars(step(26, loss=0.25))
        time.sleep(0.6)  # they are drawn four times a second
        bars(Event("notice", {"message": "read [this]"}))
        assert bars.stopping()
        bars(stage("finished"))

    seen = drawn(monkeypatch, act)
    assert "[6/6] Preference" in seen
    assert "26/100, loss 0.25" in seen
    assert "note: read [this]" in seen
    assert "stopping after this step" in seen
    assert "✓ [6/6] Preference: finished" in seen
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")  # the cursor is back
