"""Model families: one file each, the only users of diffusers."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, cast

from magicid_cli.errors import MagicIDError, memory_told
from magicid_cli.models import catalog

if TYPE_CHECKING:
    from magicid_cli.config import ModelSettings
    from magicid_cli.events import Events
    from magicid_cli.models.base import Family
    from magicid_cli.models.execution import Execution, Storage

# Nothing else of a repository is fetched: no code, no pickles.
PATTERNS = [
    "model_index.json",
    "scheduler/*.json",
    "text_encoder/*.json",
    "text_encoder/*.safetensors",
    "text_encoder_2/*.json",
    "text_encoder_2/*.safetensors",
    "tokenizer/*.json",
    "tokenizer_2/*.json",
    "tokenizer_2/merges.txt",
    "transformer/*.json",
    "transformer/*.safetensors",
    "vae/*.json",
    "vae/*.safetensors",
]


# Parameters below which a model runs on one thread. For 6 million a second one saves a fifth of the time where nothing
# else runs, for twice the work; where something does, waiting for it makes a video take three to eight times as long.
_SMALL = 10_000_000
# What of a folder decides what a model computes.
_CONTENT = (".json", ".safetensors", ".txt")


def open_family(model: "ModelSettings", events: "Events", execution: "Execution | None" = None) -> "Family":
    """Weights on disk (fetched or built if they are not), device and number type chosen; no part loaded yet.

    Args:
        model: which one, where, in which number type.
        events: told of downloads and of second-best ways that were taken.
        execution: how it is held and computed; by default the plainest way that fits the device.

    Raises:
        MagicIDError: `settings-unknown`, `gpu-missing`, `fp8-products`, `model-unusable`, or what `hub.fetch_repo`
            raises.
    """
    import torch

    from magicid_cli.models import storage
    from magicid_cli.models.hunyuan import Hunyuan

    device = device_for(model)
    name = _number_type(model, device)
    if catalog.video_model(model.name).parameters < _SMALL:
        torch.set_num_threads(1)
    storage.require(cast("Storage", model.base), torch.device(device))
    folder, commit = _weights(model, events)

    def announce(message: str) -> None:
        events.emit("fallback", message=message)

    return Hunyuan(
        folder,
        commit=commit,
        device=device,
        dtype=getattr(torch, name),
        execution=execution,
        announce=announce,
    )


def known(model: "ModelSettings") -> tuple[str, str] | None:
    """Commit and number type of the family that `open_family` would open; None if this machine cannot tell them now.

    Nothing is fetched and no part is loaded.
    """
    from magicid_cli import hub
    from magicid_cli.events import Events

    source = catalog.video_model(model.name).source
    try:
        commit = hub.known_commit(source) if source else _weights(model, Events())[1]
        return (commit, f"torch.{_number_type(model, device_for(model))}") if commit else None
    except MagicIDError:
        return None


def _number_type(model: "ModelSettings", device: str) -> str:
    return model.dtype if model.dtype != "auto" else {"cuda": "bfloat16", "cpu": "float32"}[device]


def device_for(model: "ModelSettings") -> str:
    """`cuda` or `cpu`, by the setting and by what this machine has.

    Raises:
        MagicIDError: `gpu-missing` if there is no GPU but one is asked for, or the model needs one and a CPU was not
            asked for by name; `settings-unknown`.
    """
    facts = catalog.video_model(model.name)
    if model.device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if model.device == "cuda" or facts.needs_gpu:
        raise MagicIDError(
            "gpu-missing",
            f"No CUDA GPU is usable here, and {facts.name} on a CPU would take weeks."
            if facts.needs_gpu
            else "No CUDA GPU is usable here.",
            "For a small model that runs anywhere: --model mini. To insist on the CPU: --device cpu",
        )
    return "cpu"


@contextmanager
def gpu_memory(what: str, hint: str) -> Iterator[None]:
    """Turn "CUDA out of memory" inside the block into an error the user can act on.

    Args:
        what: was being done, for the message.
        hint: what takes less memory.

    Raises:
        MagicIDError: `gpu-memory`.
    """
    try:
        with memory_told():
            yield
    except RuntimeError as error:
        import torch

        if not isinstance(error, torch.OutOfMemoryError):
            raise
        first = next(iter(str(error).splitlines()), "")
        raise MagicIDError("gpu-memory", f"The GPU ran out of memory while {what}: {first}", hint) from error


def _weights(model: "ModelSettings", events: "Events") -> tuple[Path, str]:
    """A local folder and the name of its content."""
    facts = catalog.video_model(model.name)
    if facts.packaged:
        folder = packaged_folder(facts)
        return folder, f"{facts.name}-{_content_name(folder, _CONTENT)}"
    if facts.source is None:
        return _built()
    from magicid_cli import hub

    fetched = hub.fetch_repo(facts.source, patterns=PATTERNS, offline=model.offline, events=events)
    return fetched.path, fetched.commit


def packaged_folder(facts: catalog.VideoModel) -> Path:
    """Where the weights are that come with magicid.

    Raises:
        MagicIDError: `model-unusable` if this installation lacks them.
    """
    folder = Path(str(files("magicid_cli").joinpath(facts.packaged)))
    if not (folder / "model_index.json").is_file():
        raise MagicIDError(
            "model-unusable",
            f"The weights of the model '{facts.name}' come with magicid, and they are missing in {folder}.",
            "Install magicid again: this installation is incomplete.",
        )
    return folder


def _built() -> tuple[Path, str]:
    """The tiny model in the cache, built on first use."""
    # The one thing models ask of the workspace: where the cache is.
    from magicid_cli.models import tiny
    from magicid_cli.workspace import cache_home

    folder = tiny.build(cache_home() / "models" / f"tiny-{tiny.FORMAT}")
    return folder, f"tiny-{tiny.FORMAT}-{_content_name(folder, ('.safetensors',))}"


def _content_name(folder: Path, kinds: tuple[str, ...]) -> str:
    """Twelve hex digits of the content of the files with these endings, and of their names."""
    content = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in kinds):
        content.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return content.hexdigest()[:12]
