"""What every test starts from: one thread, a home of its own, no network and no settings of the developer's."""

import fcntl
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter
    from playwright.sync_api import Browser

    from hub_server import HubServer

NO_BROWSER = "no Chromium: apt-get install chromium (Debian), or any Chromium on the PATH"
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
    HF_HOME=str(Path(tempfile.gettempdir(), "magicid-tests-nobody")),
    HF_ENDPOINT=NOWHERE,
    HF_HUB_DISABLE_TELEMETRY="1",
)


_modules_set_apart = 0


def _set_libraries_apart() -> None:
    """Whenever many modules were imported: the collector looks at what is there now no more.

    Every model that is unloaded asks for a full collection. The 400,000 objects of torch, diffusers and transformers
    make each of them 0.2 s long; what tests make afterwards is collected as ever.
    """
    global _modules_set_apart
    if len(sys.modules) > _modules_set_apart + 200:
        gc.collect()
        gc.freeze()
        _modules_set_apart = len(sys.modules)


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own for each test, also for the processes it starts."""
    _set_libraries_apart()
    for name in _clean(dict(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("MAGICID_HOME", str(tmp_path / "magicid-home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch-home"))  # the developer may have RAFT's weights
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


@pytest.fixture(scope="session")
def random_mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's checkpoint with random weights: what takes no training to be tested; never changed."""
    import torch

    from magicid_cli.models import mini
    from magicid_cli.world import captions

    folder = tmp_path_factory.mktemp("mini") / "hunyuan-mini"
    words = captions.words()
    llama, clip = mini.write_tokenizers(folder.with_name("tokenizers"), words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {"transformer": mini.transformer(), "vae": mini.vae(scaling_factor=0.5)}
        encoders = {"text_encoder": mini.llama(llama), "text_encoder_2": mini.clip(clip)}
    mini.write(folder, **parts, **encoders, words=words, readme="Random weights.\n")
    return folder


@pytest.fixture
def mini_here(random_mini: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The random miniature in the place of the packaged one."""
    from dataclasses import replace

    from magicid_cli.models.catalog import VIDEO_MODELS

    monkeypatch.setitem(VIDEO_MODELS, "mini", replace(VIDEO_MODELS["mini"], packaged=str(random_mini)))
    return random_mini


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> "Iterator[HubServer]":
    """A running local Hub without repositories (`hub.add(...)`), already the one that magicid asks."""
    from hub_server import HubServer

    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture(scope="session")
def finished_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one finished tiny identity, `alice`, and its `photos/`; copy it before changing anything.

    Made once for all workers: the second one to ask waits, and takes the first one's.
    """
    shared = tmp_path_factory.getbasetemp()
    home = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "finished"
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = home.with_suffix(".done")
        if not done.exists():
            shutil.rmtree(home, ignore_errors=True)  # of a worker that died while making it
            _finish_alice(home)
            done.touch()
    return home


def _finish_alice(home: Path) -> None:
    """Customize `alice` in `home` with all six stages."""
    from album import SMALL, drawn_photos
    from magicid_cli import config, pipeline
    from magicid_cli.events import Events
    from magicid_cli.workspace import Workspace

    home.mkdir()
    photos = drawn_photos(home / "photos")
    before = os.environ.get("MAGICID_HOME")
    os.environ["MAGICID_HOME"] = str(home)
    try:
        workspace = Workspace("alice")
        pipeline.record_consent(workspace, photos, "the tests", "fixture")
        pipeline.run(workspace, config.resolve(SMALL, project=home), photos, Events())
    finally:
        if before is None:
            del os.environ["MAGICID_HOME"]
        else:
            os.environ["MAGICID_HOME"] = before


@pytest.fixture
def alice(finished_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private copy of the finished home, already the one in use."""
    home = tmp_path / "alice-home"
    shutil.copytree(finished_home, home)
    monkeypatch.setenv("MAGICID_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def chromium() -> "Iterator[Browser]":
    """A headless Chromium that is on this machine; tests of pages are skipped, and counted, where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, in a container, Chromium starts only without its own sandbox.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


def pytest_terminal_summary(terminalreporter: "TerminalReporter") -> None:
    """Say how many tests of pages nobody ran."""
    skipped = [one for one in terminalreporter.stats.get("skipped", []) if NO_BROWSER in str(one.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} browser tests were skipped: {NO_BROWSER}")
