"""Ctrl-C and SIGTERM: against the contract (finish the step, say how to go on, exit 130; the second time at once).

The program runs as a process of its own whose work is a stand-in; it gets real signals.
"""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# What the stand-in does in a step that must not be cut: wait, or compute without a look at signals.
WORK = {"wait": "time.sleep(seconds)", "compute": "hashlib.pbkdf2_hmac('sha256', b'', b'', int(3_000_000 * seconds))"}
PROGRAM = """
import hashlib, sys, time
sys.path.insert(0, {tests!r})
import fake_run
from magicid_cli import pipeline
from magicid_cli.cli.app import main

def run(workspace, resolved, photos, events):
    events.emit("stage", stage="prefer", title="Preference", i=6, n=6, state="started")
    for step in range(1, 100):
        with events.finishing():
            seconds = {seconds}
            open({marks!r}, "a").write("begun\\n")
            {work}
            open({marks!r}, "a").write("finished\\n")
            events.emit("step", stage="prefer", step=step, of=100)

calls = fake_run.Calls()
pipeline.plan, pipeline.run = calls.plan, run
sys.argv[0] = "/opt/magicid"
sys.exit(main(["customize", {photo!r}, "--name", "alice", "--consent", "--yes"]))
"""


class Program:
    """A running command, and what it has done so far."""

    def __init__(self, folder: Path, seconds: float, work: str, stderr: int = subprocess.PIPE) -> None:
        self.marks = folder / "marks"
        self.photo = folder / "a photo.jpg"
        self.photo.write_bytes(b"x")
        code = PROGRAM.format(
            tests=str(Path(__file__).parent),
            seconds=seconds,
            marks=str(self.marks),
            work=WORK[work],
            photo=str(self.photo),
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
        )

    def count(self, word: str) -> int:
        return self.marks.read_text().count(word) if self.marks.exists() else 0

    def wait_for_steps(self, number: int) -> None:
        deadline = time.monotonic() + 60
        while self.count("begun") < number:
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.02)


@contextmanager
def started(folder: Path, seconds: float, work: str = "wait", stderr: int = subprocess.PIPE) -> Iterator[Program]:
    program = Program(folder, seconds, work, stderr)
    try:
        program.wait_for_steps(1)
        yield program
    finally:
        if program.process.poll() is None:
            program.process.kill()
        program.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_the_step_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, 1.5) as program:
        program.process.send_signal(number)
        out, err = program.process.communicate(timeout=60)
        assert program.process.returncode == 130
        assert program.count("begun") == program.count("finished")
        assert out == ""
        assert "Stopping after this step; once more stops at once.\n" in err
        command = f"/opt/magicid customize '{program.photo}' --name alice --consent --yes"
        assert err.endswith(f"stopped: Interrupted.\nhint: To go on: {command}\n")


@pytest.mark.parametrize("work", ["wait", "compute"])
def test_the_second_signal_ends_it_at_once(tmp_path: Path, work: str) -> None:
    with started(tmp_path, 120.0, work) as program:
        program.process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        assert program.process.poll() is None
        program.process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        assert program.process.wait(timeout=30) == 130
        assert time.monotonic() - begun < 5
        assert program.count("finished") == 0


def test_on_a_terminal_the_bar_says_it_and_the_cursor_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen, program_end = pty.openpty()
    with started(tmp_path, 120.0, stderr=program_end) as program:
        os.close(program_end)
        program.process.send_signal(signal.SIGINT)
        seen = ""
        deadline = time.monotonic() + 30
        while "stopping after this step" not in seen and time.monotonic() < deadline:
            seen += os.read(screen, 65536).decode(errors="replace")
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(timeout=30) == 130
        seen += os.read(screen, 65536).decode(errors="replace")
        assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")
    os.close(screen)
