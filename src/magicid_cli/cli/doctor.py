"""`magicid doctor`: one page about this installation, to paste into a bug report."""

import os
import platform
import sys
from pathlib import Path
from typing import Any

from magicid_cli import __version__
from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.config import resolve, user_config_path

_PACKAGES = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pillow-heif",
    "imageio-ffmpeg",
    "typer",
    "rich",
)


@options.command()
def doctor(terminal: Terminal) -> Result:
    """Print versions, device, disks, caches, face models and what is wrong; no photo, prompt or name is in it."""
    sections: dict[str, dict[str, Any]] = {
        "program": {
            "magicid": __version__,
            "python": f"{platform.python_version()} ({sys.implementation.name})",
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "libraries": {name: _version(name) for name in _PACKAGES},
        "machine": _machine(),
        "files": _files(),
        "face finders": _faces(recognise=False),
        "face models": _faces(recognise=True),
        "optical flow": _flow(),
    }
    problems = _problems()
    blocks: list[str | Table] = [
        Table((title.upper(), ""), [(key, _short(str(value))) for key, value in rows.items()])
        for title, rows in sections.items()
    ]
    blocks.append("problems: none" if not problems else "\n".join(f"problem: {_short(one)}" for one in problems))
    data = {title.replace(" ", "_"): rows for title, rows in sections.items()}
    return Result({**data, "problems": problems}, blocks, problems)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _machine() -> dict[str, Any]:
    import torch

    from magicid_cli.hub import hub_cache
    from magicid_cli.plan.machine import this_machine

    found = this_machine("auto", hub_cache())
    return {
        "gpu": f"{found.gpu}, {found.gpu_memory_gb:.0f} GB free" if found.gpu else "none that CUDA can use",
        "cuda": torch.version.cuda or "not in this build of torch",
        "processor cores": len(_cores()),
        "memory": f"{found.ram_gb:.0f} GB",
        "disk for identities": f"{found.data_disk_gb:.0f} GB free",
        "disk for weights": f"{found.cache_disk_gb or found.data_disk_gb:.0f} GB free",
        "ffmpeg": _ffmpeg(),
    }


def _faces(*, recognise: bool) -> dict[str, str]:
    """Names that a flag takes for a finder or a recogniser, with licence and place."""
    from magicid_cli.cli.weights import PACKAGED_LICENCE, licence
    from magicid_cli.models.catalog import DRAWN, FACE_MODELS

    found = {
        name: f"{licence(model.source)}, {model.source.repo}"
        for name, model in FACE_MODELS.items()
        if recognise == (model.kind != "yunet")
    }
    drawn = DRAWN if recognise else DRAWN[:1]
    return found | dict.fromkeys(drawn, f"{PACKAGED_LICENCE}, comes with magicid, for --model mini")


def _flow() -> dict[str, str]:
    """Which optical flow `auto` would take in a new repository, and how to get the other one."""
    from magicid_cli.rewards import flow

    lack = flow.raft_lack()
    return {
        flow.AUTO: f"{flow.choose(flow.AUTO)}; scores that are there keep theirs",
        flow.RAFT: f"get it: {lack.remedy}" if lack else f"--flow {flow.RAFT}",
        flow.DIS: f"--flow {flow.DIS}",
    }


def _cores() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _ffmpeg() -> str:
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_version()
    except RuntimeError:
        return "not found"


def _files() -> dict[str, Any]:
    from magicid_cli.cli import log
    from magicid_cli.cli.identity import gigabytes, size_of
    from magicid_cli.hub import cached, hub_cache
    from magicid_cli.workspace import cache_home, data_home, identities

    found = {
        "settings": f"{user_config_path()}{'' if user_config_path().exists() else ' (none)'}",
        "identities": f"{len(identities())} in {data_home()}",
        "cache": f"{gigabytes(size_of(cache_home())[1])} in {cache_home()}",
        "weights": f"in {hub_cache()}",
        "log": log.path(),
    }
    return found | _packaged() | {f"  {one.repo}": gigabytes(one.bytes) for one in cached()}


def _packaged() -> dict[str, str]:
    """Size of the weights that come with magicid, or that this installation lacks them."""
    from magicid_cli import models
    from magicid_cli.cli.identity import gigabytes, size_of
    from magicid_cli.errors import MagicIDError
    from magicid_cli.models.catalog import VIDEO_MODELS

    found = {}
    for model in VIDEO_MODELS.values():
        if model.packaged:
            try:
                found[f"  {model.name}"] = f"{gigabytes(size_of(models.packaged_folder(model))[1])}, with magicid"
            except MagicIDError as error:
                found[f"  {model.name}"] = error.message
    return found


def _problems() -> list[str]:
    """Why the default run would not start here."""
    from magicid_cli import plan
    from magicid_cli.workspace import data_home

    estimated = plan.for_run(resolve().settings, photos=10, todo=plan.STAGES, home=data_home())
    return [f"{problem.message} {problem.hint}" for problem in plan.check(estimated)]


def _short(text: str) -> str:
    """The text without the name of this person's home folder."""
    home = str(Path.home())
    return text.replace(home, "~") if home != "/" else text
