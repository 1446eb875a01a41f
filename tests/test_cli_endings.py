"""How a command may end: bugs, refusals of the system, interruptions, and what of it is logged.

Truth: the contract (exit codes, one line and the log instead of a traceback, no photo path and no prompt in the log,
the command that goes on). The work is a stand-in that raises.
"""

import errno
import json
import sys
from pathlib import Path

import pytest

import fake_run
from fake_run import outcome
from magicid_cli.cli import log
from magicid_cli.cli.app import main, resume_command
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events


def failing(monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> list[str]:
    """Make the run raise; returns the command that gets there."""
    calls = fake_run.use(monkeypatch)
    calls.stop = problem
    photo = Path("secret-photo.jpg").absolute()
    photo.write_bytes(b"x")
    return ["customize", str(photo), "--name", "alice", "--consent", "-q"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bug_is_one_line_with_the_log_and_no_traceback(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = failing(monkeypatch, RuntimeError("broke on secret-photo.jpg\nsecond line"))
    assert main(command) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[0] == ("error: magicid did not expect this: RuntimeError: broke on secret-photo.jpg")
    assert f"--debug, or see {log.path()}" in shown.err
    assert "Traceback" not in shown.err


def test_the_log_holds_where_it_happened_and_no_photo_or_prompt(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(failing(monkeypatch, RuntimeError("broke on secret-photo.jpg")))
    fake_run.use_generation(monkeypatch)
    main(["generate", "--prompt", "alice and her secret"])
    written = log.path().read_text()
    assert "RuntimeError at" in written
    assert "fake_run.py" in written
    assert "ended with internal, exit code 1" in written
    assert "magicid 0" in written and ": generate" in written
    assert "secret" not in written


def test_debug_shows_the_traceback_and_logs_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = failing(monkeypatch, RuntimeError("broke on secret-photo.jpg"))
    assert main([*command, "--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert "RuntimeError: broke on secret-photo.jpg" in log.path().read_text()


@pytest.mark.parametrize(
    ("problem", "code", "exit_code"),
    [
        (KeyboardInterrupt(), "interrupted", 130),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "file-access", 1),
        (OSError(errno.ENOSPC, "No space left on device"), "disk-full", 3),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/x.mp4"), "file-access", 1),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/x"), "file-access", 1),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "internal", 1),
        (MagicIDError("training-diverged", "NaN.", "Lower the rate."), "training-diverged", 1),
        (ValueError("x"), "internal", 1),
        (RecursionError(), "internal", 1),
    ],
)
def test_every_end_has_its_code(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: BaseException,
    code: str,
    exit_code: int,
) -> None:
    assert main([*failing(monkeypatch, problem), "--json"]) == exit_code
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert (error["code"], error["exit_code"]) == (code, exit_code)
    assert captured.err == ""


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (MagicIDError("disk-full", "Full.", "Make room."), "disk-full"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk-full"),
        (MagicIDError("video-unwritable", "Ctrl-C ended the encoder, too.", "-"), "interrupted"),
    ],
)
def test_who_asks_to_stop_is_told_when_the_last_save_failed(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], problem: BaseException, code: str
) -> None:
    command = failing(monkeypatch, problem)
    monkeypatch.setattr(Events, "stop_requested", property(lambda _: True))
    main([*command, "--json"])
    assert outcome(capsys)["error"]["code"] == code


def test_an_interruption_names_the_command_that_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = failing(monkeypatch, KeyboardInterrupt())
    monkeypatch.setattr(sys, "argv", ["/opt/bin/magicid"])
    assert main(command) == 130
    photo = here / "secret-photo.jpg"
    assert capsys.readouterr().err == (
        f"stopped: Interrupted.\nhint: To go on: /opt/bin/magicid customize {photo} --name alice --consent -q\n"
    )


def test_the_resuming_command_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "magicid"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert resume_command(["a b", "--name", "x"]) == f"{program} 'a b' --name x"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resume_command(["ls"]) == "magicid ls"
    monkeypatch.setattr(sys, "argv", ["/somewhere/magicid_cli/__main__.py"])
    assert resume_command(["ls"]) == f"{sys.executable} -m magicid_cli ls"


def test_elsewhere_than_on_linux_and_macos_it_exits_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["ls", "--json"]) == 3
    error = outcome(capsys)["error"]
    assert (error["code"], error["exit_code"]) == ("platform-unsupported", 3)
    assert "WSL" in error["hint"]


def test_a_closed_stdout_is_no_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", None)
        assert main(["ls"]) == 0
    assert capsys.readouterr().err == ""
