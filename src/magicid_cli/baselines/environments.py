"""Environments of their own, for what a method needs and what does not get on with magicid's packages.

    <cache>/baselines/<name>/          made by `python -m venv`
        magicid.json                   written last: format, what was installed, by which Python, when
    <cache>/baselines/<name>.log       what venv and pip said

The packages and their versions are in a file beside the method's code.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.workspace import cache_home, file_digest, read_json, write_json

FORMAT = 1
_MARK = "magicid.json"
_SAID = 3  # last lines of the log that an error quotes


@dataclass(frozen=True)
class Environment:
    """What an environment is for.

    Attributes:
        name: of the method.
        requirements: file with the packages and their versions.
        pythons: versions of Python for which there are such packages, as (3, 11).
        licences: of the packages, in a sentence.
    """

    name: str
    requirements: Path
    pythons: tuple[tuple[int, int], ...]
    licences: str


ENVIRONMENTS: dict[str, Environment] = {
    "consisid": Environment(
        "consisid",
        Path(__file__).parent / "consisid" / "requirements.txt",
        ((3, 11), (3, 12)),
        "Packages under MIT, BSD and Apache licences, and NVIDIA's CUDA libraries under NVIDIA's own. The face models "
        "that they run (InsightFace's) are for non-commercial research only.",
    )
}


@dataclass(frozen=True)
class State:
    """An environment on this machine.

    Attributes:
        name: of the method.
        path: its folder.
        state: `ready`, `outdated` (made for other versions of packages), `incomplete` or `absent`.
        bytes: space on the disk.
    """

    name: str
    path: Path
    state: str
    bytes: int


def environment(name: str) -> Environment:
    """The environment of that name.

    Raises:
        MagicIDError: `settings-unknown`.
    """
    if name not in ENVIRONMENTS:
        known = ", ".join(ENVIRONMENTS)
        what = f"No method called '{name}' needs an environment of its own."
        raise MagicIDError("settings-unknown", what, f"Environments: {known}.")
    return ENVIRONMENTS[name]


def folder_of(name: str) -> Path:
    """Where an environment lies."""
    return cache_home() / "baselines" / name


def content_of(name: str) -> str:
    """What names an environment's packages: the SHA-256 of their list."""
    return file_digest(environment(name).requirements)


def states() -> list[State]:
    """All environments, there or not."""
    return [state_of(name) for name in ENVIRONMENTS]


def state_of(name: str) -> State:
    """One environment, there or not."""
    folder = folder_of(name)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return State(name, folder, _state(name, folder), size)


def is_ready(name: str) -> bool:
    """Whether an environment can be used; looks at little, unlike `state_of`."""
    return _state(name, folder_of(name)) == "ready"


def _state(name: str, folder: Path) -> str:
    if not folder.is_dir():
        return "absent"
    try:
        mark = read_json(folder / _MARK)
        if mark["format"] == FORMAT and mark["requirements"] == content_of(name):
            return "ready" if (folder / "bin" / "python").exists() else "incomplete"
    except (OSError, ValueError, KeyError, TypeError):
        return "incomplete"
    return "outdated"


def python_of(name: str) -> Path:
    """The Python of an environment that is ready.

    Raises:
        MagicIDError: `baseline-missing`.
    """
    folder = folder_of(name)
    state = _state(name, folder)
    if state != "ready":
        why = {
            "absent": "it is not there yet",
            "incomplete": "its making was not finished",
            "outdated": "it was made for another version of magicid",
        }[state]
        raise MagicIDError(
            "baseline-missing",
            f"{name} needs packages that do not get on with magicid's, in an environment of their own: {why}.",
            f"Make it: magicid baseline install {name}",
        )
    return folder / "bin" / "python"


def install(name: str, events: Events, *, python: Path | None = None, force: bool = False) -> State:
    """Make an environment; one that is ready stays, another one is made anew.

    Args:
        name: of the method.
        events: hears what is done.
        python: another Python to make it with.
        force: make it anew although it is ready.

    Raises:
        MagicIDError: `settings-unknown`, or `baseline-failed` with what pip said.
    """
    wanted, folder = environment(name), folder_of(name)
    if is_ready(name) and not force:
        return state_of(name)
    maker = Path(sys.executable) if python is None else python
    found = _version(maker)
    if found not in wanted.pythons:
        listed = " or ".join(f"{major}.{minor}" for major, minor in wanted.pythons)
        raise MagicIDError(
            "baseline-failed",
            f"The packages of {name} are for Python {listed}; {maker} is Python {found[0]}.{found[1]}.",
            f"Name another one: magicid baseline install {name} --python /path/to/python3.11",
        )
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    log.write_bytes(b"")
    events.notice(f"Making the environment in {folder}. Several gigabytes are downloaded; {log} says how far it is.")
    _run([str(maker), "-m", "venv", str(folder)], log, name)
    pip = [str(folder / "bin" / "python"), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    _run([*pip, "-r", str(wanted.requirements)], log, name)
    made: dict[str, Any] = {"format": FORMAT, "requirements": content_of(name), "made_with": str(maker)}
    write_json(folder / _MARK, {**made, "python": ".".join(map(str, found)), "time": time.time()})
    return state_of(name)


def remove(name: str) -> int:
    """Delete an environment; returns the bytes that are free again.

    Raises:
        MagicIDError: `settings-unknown`, or `baseline-missing` if there is none.
    """
    found = state_of(environment(name).name)
    if found.state == "absent":
        raise MagicIDError("baseline-missing", f"There is no environment of {name}.", "See: magicid baseline list")
    shutil.rmtree(found.path)
    found.path.with_suffix(".log").unlink(missing_ok=True)
    return found.bytes


def _version(python: Path) -> tuple[int, int]:
    """Of a Python, asked from itself."""
    try:
        said = subprocess.run(
            [str(python), "-I", "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        major, minor = map(int, said.split())
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise MagicIDError(
            "baseline-failed", f"{python} is no Python that can be started: {error}.", "Name another with --python."
        ) from error
    return major, minor


def _run(command: Sequence[str], log: Path, name: str) -> None:
    with log.open("ab") as file:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False)
    if done.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_SAID:]
        raise MagicIDError(
            "baseline-failed",
            f"The environment of {name} could not be made: {' / '.join(said) or 'no reason was given'}",
            f"All that was said is in {log}. The same command begins anew.",
        )
