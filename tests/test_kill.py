"""Kill -9 anywhere: against the uninterrupted run, whose final adapter must come out in every bit.

The command runs in a process group of its own, on a disk made slow (every fsync waits), so that a kill can be aimed
into each stage, also the ones that take milliseconds.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from album import SMALL, drawn_photos
from magicid_cli import config, pipeline
from magicid_cli.workspace import file_digest

KILLS_A_STAGE = {"ingest": 3, "reconstruct": 4, "sample": 4, "score": 3, "select": 2, "prefer": 4}

SLOW_DISK = """
import os, sys, time
real = os.fsync
def fsync(handle):
    time.sleep(0.02)
    real(handle)
os.fsync = fsync
from magicid_cli.cli.app import main
sys.argv = ["magicid", *sys.argv[1:]]
sys.exit(main())
"""


# For runs whose end is not the point: they are through after stage 1.
STAGE_1 = {"prefer.steps": 0}


def command(photos: Path, changes: dict[str, int]) -> list[str]:
    flags: list[str] = []
    for name, value in {**SMALL, **changes}.items():
        flag = config.KNOBS[name].flag
        assert flag is not None
        flags += [flag, str(value)]
    base = [
        sys.executable,
        "-c",
        SLOW_DISK,
        "customize",
        str(photos),
        "--name",
        "alice",
        "--consent",
        "--yes",
        "--json",
    ]
    return [*base, *flags]


def start(home: Path, photos: Path, log: Path, changes: dict[str, int] | None = None) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "MAGICID_HOME": str(home)}
    with log.open("ab") as file:
        return subprocess.Popen(
            command(photos, changes or {}), env=environment, stdout=subprocess.PIPE, stderr=file, start_new_session=True
        )


def running(home: Path) -> str | None:
    """The stage that the manifest says is being worked on."""
    path = home / "identities" / "alice" / "manifest.json"
    if not path.is_file():
        return None
    stages = json.loads(path.read_text())["stages"]
    return next((name for name in pipeline.ORDER if name in stages and stages[name]["state"] == "running"), None)


def kill_in(stage: str, home: Path, photos: Path, log: Path, chance: random.Random) -> str | None:
    """Start the command, kill its group somewhere in `stage`; returns the stage the kill landed in."""
    process = start(home, photos, log)
    deadline = time.monotonic() + 240
    while running(home) != stage and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    longest = {"ingest": 0.3, "select": 0.06}.get(stage, 1.5)
    time.sleep(chance.uniform(0, longest))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return running(home)


@pytest.mark.slow
@pytest.mark.xdist_group("kill")
def test_twenty_kills_and_the_same_adapter(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    drawn_photos(photos)
    whole = tmp_path / "whole"
    uninterrupted = start(whole, photos, tmp_path / "whole.log")
    out, _ = uninterrupted.communicate(timeout=300)
    assert uninterrupted.returncode == 0, (tmp_path / "whole.log").read_text()
    assert json.loads(out)["ok"]

    home, chance, landed = tmp_path / "killed", random.Random(0), Counter[str]()
    for stage in pipeline.ORDER:
        for _ in range(KILLS_A_STAGE[stage]):
            where = kill_in(stage, home, photos, tmp_path / "killed.log", chance)
            landed[where or "between stages"] += 1
    last = start(home, photos, tmp_path / "killed.log")
    out, _ = last.communicate(timeout=300)
    assert last.returncode == 0, (tmp_path / "killed.log").read_text()[-3000:]

    assert sum(KILLS_A_STAGE.values()) == 20
    assert all(landed[stage] >= 2 for stage in pipeline.ORDER), landed
    for name in ("reconstruct/adapter.safetensors", "prefer/adapter.safetensors", "scores.jsonl", "pairs.jsonl"):
        one, other = (folder / "identities" / "alice" / name for folder in (whole, home))
        assert file_digest(one) == file_digest(other), name
    assert not list((home / "identities" / "alice").rglob(".tmp-*"))


@pytest.mark.slow
@pytest.mark.xdist_group("kill")
def test_a_second_process_is_refused_and_needs_no_unlock(tmp_path: Path) -> None:
    """The second start is refused within 2 s (of its own time) and names the first; kill -9 frees the identity."""
    photos = tmp_path / "photos"
    drawn_photos(photos)
    home = tmp_path / "home"
    first = start(home, photos, tmp_path / "first.log", STAGE_1)
    deadline = time.monotonic() + 120
    while running(home) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = start(home, photos, tmp_path / "second.log", STAGE_1)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        out, _ = second.communicate(timeout=120)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer = json.loads(out)
        assert second.returncode == 1
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
        assert answer["error"]["code"] == "identity-busy"
        assert str(first.pid) in answer["error"]["message"]
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    third = start(home, photos, tmp_path / "third.log", STAGE_1)
    third.communicate(timeout=300)
    assert third.returncode == 0, (tmp_path / "third.log").read_text()[-3000:]


@pytest.mark.slow
@pytest.mark.xdist_group("kill")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_saves_and_says_how_to_go_on(tmp_path: Path, how: signal.Signals) -> None:
    photos = tmp_path / "photos"
    drawn_photos(photos)
    home, log = tmp_path / "home", tmp_path / "log"
    process = start(home, photos, log, STAGE_1)
    deadline = time.monotonic() + 120
    metrics = home / "identities" / "alice" / "reconstruct" / "metrics.jsonl"
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 2) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(how)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130, log.read_text()[-3000:]
    answer = json.loads(out)
    assert answer["error"]["code"] == "interrupted"
    assert "customize" in answer["error"]["hint"] and "--name alice" in answer["error"]["hint"]
    steps = len(metrics.read_text().splitlines())
    kept = sorted((home / "identities" / "alice" / "reconstruct" / "checkpoints").glob("step-*"))
    assert kept and int(kept[-1].name.removeprefix("step-")) == steps
    again = start(home, photos, log, STAGE_1)
    again.communicate(timeout=300)
    assert again.returncode == 0
