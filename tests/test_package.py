"""The package as a user gets it: wheel and sdist are built from this checkout, installed into empty environments, run.

The truth is the checkout (its files, its version, its imports) and what `pyproject.toml` promises to installers.
"""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path, PurePosixPath

import pytest

import magicid_cli

# What is built once serves all tests here, so one worker runs them all.
pytestmark = pytest.mark.xdist_group("package")

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "magicid_cli"
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # apache.org/licenses/LICENSE-2.0.txt
# torchvision of another build stops peft and transformers from importing; the others fight over the module cv2.
NEVER = {"torchvision", "opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"}
# RAFT and the kernels of flash attention, only where the user has put them.
OPTIONAL = {"torchvision", "flash_attn", "flash_attn_interface"}


@dataclass(frozen=True)
class Built:
    """One build: the sdist, the wheel of the checkout and the wheel of the sdist."""

    sdist: Path
    wheels: dict[str, Path]


def pip(*arguments: str | Path) -> None:
    """Run this environment's pip without an index, so that nothing can be downloaded."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, env=os.environ | {"PIP_NO_INDEX": "1"}, timeout=120)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Everything built once; hatchling is this environment's, so that no build needs a network."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "from-sdist", sdist)
    (rebuilt,) = (folder / "from-sdist").glob("*.whl")
    return Built(sdist, {"wheel": wheel, "sdist": rebuilt})


@pytest.fixture(scope="module", params=["wheel", "sdist"])
def environment(request: pytest.FixtureRequest, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the package alone installed, from the wheel or by way of the sdist.

    Installing the dependencies again would copy 2 GB of torch and its company. A path file shows the environment those
    of the tests instead, behind its own packages. Path files inside a folder that is shown this way are not read, so
    the tests' editable install of the checkout stays out of sight; `test_is_the_installed_one` holds that.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    pip("--python", folder / "bin" / "python", "install", "--no-deps", built.wheels[request.param])
    (packages,) = folder.glob("lib/python*/site-packages")
    shown = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (packages / "dependencies_of_the_tests.pth").write_text("\n".join(shown) + "\n", encoding="utf-8")
    return folder


def run(environment: Path, program: str, *arguments: str, cwd: Path) -> str:
    """What a program of the environment prints; it must succeed and say nothing on stderr."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XDG_", "VIRTUAL_"))}
    done = subprocess.run(
        [environment / "bin" / program, *arguments],
        cwd=cwd,
        env=clean | {"HOME": str(cwd)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def source_files() -> set[str]:
    """Every file of the package in the checkout, as a wheel names it."""
    files = (path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"magicid_cli/{path.relative_to(SOURCE).as_posix()}" for path in files}


def wheel_file(wheel: Path, ending: str) -> str:
    """The text of one file of the wheel's own records."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(f".dist-info/{ending}"))
        return archive.read(name).decode()


def metadata(wheel: Path) -> Message:
    return Parser().parsestr(wheel_file(wheel, "METADATA"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(wheel: Path, *, development: bool) -> set[str]:
    """Names of the packages that the metadata ask for, those of every extra but `dev` included."""
    lines = metadata(wheel).get_all("Requires-Dist", [])
    kept = [line for line in lines if development or "extra == 'dev'" not in line]
    return {canonical(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in kept}


def test_says_its_version_and_its_commands(environment: Path, tmp_path: Path) -> None:
    assert run(environment, "magicid", "--version", cwd=tmp_path) == f"magicid {magicid_cli.__version__}\n"
    text = run(environment, "magicid", "--help", cwd=tmp_path)
    assert all(command in text for command in ("customize", "generate", "export", "doctor"))


def test_shows_its_settings(environment: Path, tmp_path: Path) -> None:
    shown = json.loads(run(environment, "magicid", "config", "show", "--json", cwd=tmp_path))
    assert shown["ok"] is True
    names = {setting["name"] for setting in shown["data"]["settings"]}
    assert {"seed", "model.name"} <= names


def test_is_the_installed_one(environment: Path, tmp_path: Path) -> None:
    question = (
        "import magicid_cli, json, importlib.metadata as m, importlib.resources as r;"
        "prompts = r.files('magicid_cli').joinpath('prompts/shipped.txt').read_text(encoding='utf-8');"
        "print(json.dumps([magicid_cli.__file__, m.version('magicid'), prompts]))"
    )
    file, version, prompts = json.loads(run(environment, "python", "-c", question, cwd=tmp_path))
    assert Path(file).is_relative_to(environment)
    assert version == magicid_cli.__version__
    assert prompts == (SOURCE / "prompts" / "shipped.txt").read_text(encoding="utf-8")


def test_asks_for_nothing_that_is_not_there(environment: Path) -> None:
    pip("--python", environment / "bin" / "python", "check")


@pytest.mark.parametrize("origin", ["wheel", "sdist"])
def test_wheel_holds_the_package_and_its_records_only(built: Built, origin: str) -> None:
    records = f"magicid-{magicid_cli.__version__}.dist-info"
    own = {f"{records}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    with zipfile.ZipFile(built.wheels[origin]) as archive:
        assert set(archive.namelist()) == source_files() | own
    assert {"magicid_cli/py.typed", "magicid_cli/prompts/shipped.txt"} <= source_files()


def test_only_the_weights_are_large_and_the_wheel_is_not(built: Built) -> None:
    assert built.wheels["wheel"].stat().st_size < 30e6
    with zipfile.ZipFile(built.wheels["wheel"]) as archive:
        large = [entry.filename for entry in archive.infolist() if entry.file_size > 100_000]
    assert all(name.startswith("magicid_cli/world/weights/") for name in large), large
    assert all(name.endswith(".safetensors") for name in large), large


def test_sdist_makes_the_same_wheel(built: Built) -> None:
    # RECORD lists every other file with its SHA-256.
    assert wheel_file(built.wheels["sdist"], "RECORD") == wheel_file(built.wheels["wheel"], "RECORD")


def test_sdist_can_set_up_test_and_demonstrate_itself(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        paths = [PurePosixPath(name).relative_to(f"magicid-{magicid_cli.__version__}") for name in archive.getnames()]
    assert {path.parts[0] for path in paths} == {
        *("src", "tests", "docs", "benchmarks", "demo", ".ci", "Makefile", "constraints.txt", "pyproject.toml"),
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", ".gitignore", "PKG-INFO"),
    }
    hidden = [path for path in paths if any(part.startswith((".", "__pycache__")) for part in path.parts[1:])]
    assert not hidden


def test_metadata_keep_the_promises(built: Built) -> None:
    facts = metadata(built.wheels["wheel"])
    assert facts["Name"] == "magicid"
    assert facts["Version"] == magicid_cli.__version__
    assert facts["License-Expression"] == "Apache-2.0"
    assert facts["License-File"] == "LICENSE"
    assert facts["Requires-Python"] == ">=3.11"
    assert set(facts.get_all("Provides-Extra", [])) == {"dev", "heic"}
    entry_points = wheel_file(built.wheels["wheel"], "entry_points.txt").split("\n")
    assert [line for line in entry_points if line] == ["[console_scripts]", "magicid = magicid_cli.cli.app:main"]


def test_the_licence_is_the_unmodified_text(built: Built) -> None:
    text = wheel_file(built.wheels["wheel"], "licenses/LICENSE")
    assert hashlib.sha256(text.encode()).hexdigest() == APACHE_2


def test_nothing_that_breaks_the_others_is_asked_for(built: Built) -> None:
    assert not required(built.wheels["wheel"], development=True) & NEVER


def test_every_requirement_is_pinned(built: Built) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonical(line.split("==")[0]) for line in lines if not line.startswith("#")}
    assert required(built.wheels["wheel"], development=True) <= pinned


def test_every_package_that_is_imported_is_asked_for(built: Built) -> None:
    imported: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - OPTIONAL - {"magicid_cli"}
    owners = packages_distributions()
    assert {"torch", "diffusers"} <= foreign
    asked = required(built.wheels["wheel"], development=False)
    assert not {name for name in foreign if not asked & {canonical(owner) for owner in owners.get(name, [name])}}
