"""How a command may end: bugs, refusals of the system, interruptions, and what of it is logged.

Truth: the contract (exit codes, one line and the log instead of a traceback, no photo path and no prompt in the log,
the command that goes on). The work is a stand-in that raises.
"""

import errno
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import fake_run
from fake_run import outcome
from magicid_cli import methods, plan
from magicid_cli.cli import log
from magicid_cli.cli.app import main
from magicid_cli.cli.resuming import changed, resume_command
from magicid_cli.config import Resolved
from magicid_cli.destinations import destinations
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events, Stopped
from magicid_cli.generation import Made
from magicid_cli.workspace import Workspace


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


@pytest.mark.parametrize("output", [None, "videos", "clip.mp4"])
@pytest.mark.parametrize("made", [1, 3, 4])
def test_what_interrupted_generation_names_makes_the_rest(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], output: str | None, made: int
) -> None:
    """Nothing is made twice or replaced, and together these are the videos that were asked for."""
    fake_run.identity("alice")
    (here / "videos").mkdir()
    asked: list[tuple[int, Path]] = []
    stops = [made, None]

    def generate(workspace: Workspace, name: str, resolved: Resolved, prompt: str, **how: Any) -> list[Made]:
        count, first, stop = resolved.settings.generate.count, resolved.settings.seed or 40, stops.pop(0)
        seeds = list(range(first, first + count))
        files = destinations(workspace, prompt, seeds, how["output"], how["force"])
        assert not any(path.exists() for path in files)
        found = [Made(path, seed, prompt) for path, seed in zip(files, seeds, strict=True)][:stop]
        for one in found:
            one.path.parent.mkdir(exist_ok=True)
            one.path.touch()
        asked.extend((one.seed, one.path) for one in found)
        if stop is not None:
            raise Stopped(found, seeds[stop:])
        return found

    monkeypatch.setattr(methods, "generate", generate)
    monkeypatch.setattr(methods, "require", lambda *_, **__: None)
    monkeypatch.setattr(plan, "for_run", lambda *_, **__: fake_run.estimate(todo=("generate",)))
    monkeypatch.setattr(sys, "argv", ["/opt/bin/magicid"])
    named = [] if output is None else [f"--output={output}"]
    ended = main(["generate", "--prompt", "alice's hat", "--count", "4", *named, "--force"])
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [str(path) for _, path in asked] and len(asked) == made
    if made == 4:
        assert ended == 0 and "hint" not in shown.err
        return
    assert ended == 130 and f"stopped: Interrupted: {made} of 4 videos are made.\n" in shown.err
    command = shlex.split(shown.err.partition("hint: To make the rest: ")[2])
    assert command[0] == "/opt/bin/magicid" and command.count("--count") == 1
    assert main(command[1:]) == 0
    assert [seed for seed, _ in asked] == [40, 41, 42, 43]
    assert len({path for _, path in asked}) == 4


def test_generation_stopped_before_its_first_video_names_the_same_command(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run.identity("alice")
    fake_run.use_generation(monkeypatch)

    def generate(*_: Any, **__: Any) -> list[Made]:
        raise Stopped([], [1, 2])

    monkeypatch.setattr(methods, "generate", generate)
    monkeypatch.setattr(sys, "argv", ["/opt/bin/magicid"])
    assert main(["generate", "--prompt", "alice", "--count", "2"]) == 130
    command = "/opt/bin/magicid generate --prompt alice --count 2"
    assert capsys.readouterr().err.endswith(f"stopped: Interrupted.\nhint: To go on: {command}\n")


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["generate", "--seed", "3", "--prompt", "x", "--count=9", "-o", "a.mp4"], ["generate", "--prompt", "x"]),
        (["generate", "-q", "--count", "7", "--output=a.mp4"], ["generate", "-q"]),
    ],
)
def test_options_are_replaced_in_every_spelling(given: list[str], left: list[str]) -> None:
    values = {"--seed": "5", "--count": "2", "--output": "b.mp4"}
    assert changed(given, values) == [*left, "--seed", "5", "--count", "2", "--output", "b.mp4"]


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
