"""`--format diffusers`: one safetensors file for `HunyuanVideoPipeline.load_lora_weights`."""

from pathlib import Path
from typing import Any

import torch

from magicid_cli import adapters
from magicid_cli.adapters import AdapterSpec
from magicid_cli.errors import MagicIDError
from magicid_cli.models import hunyuan_adapters
from magicid_cli.models.hunyuan_adapters import Update


def write(
    folder: Path, tensors: dict[str, torch.Tensor], spec: AdapterSpec, transformer_config: dict[str, Any]
) -> tuple[Path, dict[str, Any]]:
    """Write the file and prove it.

    Returns:
        The file, and what the proof found.

    Raises:
        MagicIDError: `export-unfaithful` if diffusers would load anything else than the adapter.
    """
    path = hunyuan_adapters.write(folder, tensors, adapters.peft_config(spec))
    found = hunyuan_adapters.read_back(path, transformer_config)
    wanted = updates(tensors, spec)
    exact = found.keys() == wanted.keys() and all(same(found[name], wanted[name]) for name in wanted)
    if not exact:
        raise MagicIDError(
            "export-unfaithful",
            f"Loaded back by diffusers, {path.name} is not the adapter that was exported.",
            "This is a bug of magicid or of the installed diffusers: report it with `magicid doctor`.",
        )
    return path, {"modules": len(found), "unloaded": 0, "largest_difference": 0.0}


def updates(tensors: dict[str, torch.Tensor], spec: AdapterSpec) -> dict[str, Update]:
    """An adapter's tensors, by module."""
    names = {key.rpartition(".lora_")[0] for key in tensors}
    return {
        name: Update(tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"], spec.scale) for name in names
    }


def same(one: Update, other: Update) -> bool:
    """Whether two updates are equal in every number."""
    return one.scale == other.scale and torch.equal(one.a, other.a) and torch.equal(one.b, other.b)
