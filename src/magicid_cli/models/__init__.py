"""Model families: one file each, the only users of diffusers."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from magicid_cli.errors import MagicIDError
from magicid_cli.models import catalog

if TYPE_CHECKING:
    from magicid_cli.config import ModelSettings
    from magicid_cli.events import Events
    from magicid_cli.models.base import Family

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


# Parameters below which one thread is quickest.
_SMALL = 1_000_000


def open_family(model: "ModelSettings", events: "Events") -> "Family":
    """Weights on disk (fetched or built if they are not), device and number type chosen; no part loaded yet.

    Raises:
        MagicIDError: `settings-unknown`, `gpu-missing`, `model-unusable`, or what `hub.fetch_repo` raises.
    """
    import torch

    from magicid_cli.models.hunyuan import Hunyuan

    device = device_for(model)
    if catalog.video_model(model.name).parameters < _SMALL:
        # Threads cost a model this small more time than they save, six times more on a busy machine.
        torch.set_num_threads(1)
    name = model.dtype if model.dtype != "auto" else {"cuda": "bfloat16", "cpu": "float32"}[device]
    folder, commit = _weights(model, events)
    return Hunyuan(folder, commit=commit, device=device, dtype=getattr(torch, name))


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
            "For a small model that runs anywhere: --model tiny. To insist on the CPU: --device cpu",
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
        yield
    except RuntimeError as error:
        import torch

        if not isinstance(error, torch.OutOfMemoryError):
            raise
        first = next(iter(str(error).splitlines()), "")
        raise MagicIDError("gpu-memory", f"The GPU ran out of memory while {what}: {first}", hint) from error


def _weights(model: "ModelSettings", events: "Events") -> tuple[Path, str]:
    """A local folder and the name of its content."""
    source = catalog.video_model(model.name).source
    if source is None:
        return _built()
    from magicid_cli import hub

    fetched = hub.fetch_repo(source, patterns=PATTERNS, offline=model.offline, events=events)
    return fetched.path, fetched.commit


def _built() -> tuple[Path, str]:
    """The tiny model in the cache, built on first use."""
    # The one thing models ask of the workspace: where the cache is.
    from magicid_cli.models import tiny
    from magicid_cli.workspace import cache_home

    folder = tiny.build(cache_home() / "models" / f"tiny-{tiny.FORMAT}")
    content = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        content.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return folder, f"tiny-{tiny.FORMAT}-{content.hexdigest()[:12]}"
