"""What every test starts from: one thread, a home of its own, no network and no settings of the developer's."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hub_server import HubServer

NOWHERE = "http://127.0.0.1:9"  # the discard port: a connection is refused at once


def _clean(environment: dict[str, str]) -> list[str]:
    """Names of the variables that would let the developer's machine into a test."""
    kept = {"MAGICID_SHARED_DATA"}
    return [name for name in environment if name.startswith(("HF_", "MAGICID_", "HUGGING")) and name not in kept]


# Libraries read these when they are imported, so they are set before any test module is: two cores are shared by
# many processes, and one thread also makes times and results steady.
for _name in _clean(dict(os.environ)):
    del os.environ[_name]
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    OPENCV_FOR_THREADS_NUM="1",
    TOKENIZERS_PARALLELISM="false",
    NO_COLOR="1",
    HF_HOME=tempfile.mkdtemp(prefix="magicid-tests-"),
    HF_ENDPOINT=NOWHERE,
    HF_HUB_DISABLE_TELEMETRY="1",
)


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own for each test, also for the processes it starts."""
    for name in _clean(dict(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("MAGICID_HOME", str(tmp_path / "magicid-home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with `astronaut.png` and the real face detector; `MAGICID_SHARED_DATA` names another one."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MAGICID_SHARED_DATA") or default)
    if not (folder / "astronaut.png").is_file():
        pytest.skip(f"no test photos in {folder}; set MAGICID_SHARED_DATA to the folder with astronaut.png")
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> "Iterator[HubServer]":
    """A running local Hub without repositories (`hub.add(...)`), already the one that magicid asks."""
    from hub_server import HubServer

    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
