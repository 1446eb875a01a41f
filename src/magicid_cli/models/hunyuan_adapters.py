"""How plain diffusers writes and reads an adapter file of HunyuanVideo.

Exports are proven with it: an adapter is loaded by diffusers' own loader into a transformer without weights, and what
arrived is compared with what was meant. No base weights are needed, so the proof works at full size on any machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel

# The width that diffusers' converter of original HunyuanVideo adapters takes for granted.
CONVERTER_WIDTH = 3072


@dataclass(frozen=True)
class Update:
    """The low-rank update of one module, `scale * b @ a`.

    Attributes:
        a: `(rank, in)`.
        b: `(out, rank)`.
        scale: factor of the product.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def dense(self) -> torch.Tensor:
        """The update as a matrix `(out, in)`, float64."""
        return self.scale * (self.b.double() @ self.a.double())

    def by_rows(self) -> Iterator[torch.Tensor]:
        """The same matrix in parts of at most 256 rows: at the real width the whole one takes 0.3 GB."""
        for rows in self.b.split(256):
            yield Update(self.a, rows, self.scale).dense()


def write(folder: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> Path:
    """Write an adapter as `HunyuanVideoPipeline.save_lora_weights` does, its alpha and rank in the header.

    Args:
        folder: where `pytorch_lora_weights.safetensors` goes.
        tensors: by key without the `transformer.` prefix.
        config: the adapter's configuration as peft's `LoraConfig.to_dict()` gives it.
    """
    HunyuanVideoPipeline.save_lora_weights(
        folder, transformer_lora_layers=tensors, transformer_lora_adapter_metadata=config
    )
    return folder / "pytorch_lora_weights.safetensors"


def read_back(file: Path, transformer_config: dict[str, Any]) -> dict[str, Update]:
    """What diffusers makes of an adapter file, by module name.

    Args:
        file: in diffusers' or in the original layout.
        transformer_config: of the transformer that the adapter is for.
    """
    transformer = _without_weights(transformer_config)
    state, metadata = HunyuanVideoPipeline.lora_state_dict(
        str(file.parent), weight_name=file.name, return_lora_metadata=True, local_files_only=True
    )
    HunyuanVideoPipeline.load_lora_into_transformer(
        state, transformer=transformer, adapter_name="exported", metadata=metadata, low_cpu_mem_usage=True
    )
    found = {}
    for name, module in transformer.named_modules():
        if hasattr(module, "lora_A") and "exported" in module.lora_A:
            a, b = module.lora_A["exported"].weight, module.lora_B["exported"].weight
            found[name] = Update(a.detach(), b.detach(), float(module.scaling["exported"]))
    return found


def _without_weights(transformer_config: dict[str, Any]) -> HunyuanVideoTransformer3DModel:
    """A transformer whose every weight is one number, repeated without taking memory.

    Weights on the meta device would not do: peft moves an adapter to where its base layer is, and there its numbers
    are lost.
    """
    with init_empty_weights():
        transformer = HunyuanVideoTransformer3DModel.from_config(transformer_config)
    for module in transformer.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            repeated = torch.zeros(()).expand(weight.shape)
            setattr(module, name, torch.nn.Parameter(repeated, requires_grad=False))
    return transformer
