"""`--format comfyui`: one safetensors file in the layout of the original HunyuanVideo, as ComfyUI loads it.

The original model has one matrix where diffusers has several: q, k and v of a double-stream block are `img_attn_qkv`
and `txt_attn_qkv`, and q, k, v and the MLP's input of a single-stream block are `linear1`. Stacking the parts' `A` and
placing their `B` on a diagonal gives exactly the same update:

    [s·Bq Aq; s·Bk Ak; s·Bv Av] = diag(s·Bq, s·Bk, s·Bv) [Aq; Ak; Av]

The scale `alpha / rank` is folded into `B`, so that a file without alpha (scale 1) means the same everywhere.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from magicid_cli.adapters import AdapterSpec
from magicid_cli.errors import MagicIDError
from magicid_cli.export.diffusers import updates
from magicid_cli.models import hunyuan_adapters
from magicid_cli.models.hunyuan_adapters import CONVERTER_WIDTH, Update

PREFIX = "diffusion_model."
TOLERANCE = 1e-6

# Original module → the diffusers modules whose outputs it stacks, in order.
_DOUBLE = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn_proj": ("attn.to_out.0",),
    "txt_attn_proj": ("attn.to_add_out",),
    "img_mlp.fc1": ("ff.net.0.proj",),
    "img_mlp.fc2": ("ff.net.2",),
    "txt_mlp.fc1": ("ff_context.net.0.proj",),
    "txt_mlp.fc2": ("ff_context.net.2",),
}
_SINGLE = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), "linear2": ("proj_out",)}


def write(
    folder: Path, tensors: dict[str, torch.Tensor], spec: AdapterSpec, transformer_config: dict[str, Any]
) -> tuple[Path, dict[str, Any]]:
    """Write the file and prove it: every module's update must come out as the adapter's.

    At the real width the proof is diffusers' own converter of original HunyuanVideo adapters. That converter knows no
    other width, so for a smaller model the file is split by the table above.

    Raises:
        MagicIDError: `export-unfaithful` if an update is lost or differs.
    """
    path = folder / "adapter-comfyui.safetensors"
    width = transformer_config["num_attention_heads"] * transformer_config["attention_head_dim"]
    save_file(fuse(updates(tensors, spec), mlp_width(transformer_config)), path, metadata={"format": "pt"})
    if width == CONVERTER_WIDTH:
        found = hunyuan_adapters.read_back(path, transformer_config)
        proof = "converter of diffusers"
    else:
        found = split(load_file(path), width)
        proof = "own table (the converter of diffusers knows no other width than 3072)"
    largest = largest_difference(found, updates(tensors, spec))
    if largest > TOLERANCE:
        raise MagicIDError(
            "export-unfaithful",
            f"Loaded back, an update in {path.name} differs by {largest:.2g} from the adapter's.",
            "This is a bug of magicid or of the installed diffusers: report it with `magicid doctor`.",
        )
    return path, {"modules": len(updates(tensors, spec)), "largest_difference": largest, "proof": proof}


def mlp_width(transformer_config: dict[str, Any]) -> int:
    """Rows of `linear1` that belong to the MLP."""
    width = transformer_config["num_attention_heads"] * transformer_config["attention_head_dim"]
    return int(width * transformer_config["mlp_ratio"])


def fuse(parts: dict[str, Update], mlp: int) -> dict[str, torch.Tensor]:
    """Updates by diffusers module → tensors by original key."""
    fused: dict[str, torch.Tensor] = {}
    blocks = sorted({match[0] for name in parts if (match := re.match(r"(?:single_)?transformer_blocks\.\d+", name))})
    for block in blocks:
        kind, number = block.split(".")
        original, table = ("double_blocks", _DOUBLE) if kind == "transformer_blocks" else ("single_blocks", _SINGLE)
        for module, leaves in table.items():
            found = [parts.get(f"{block}.{leaf}") for leaf in leaves]
            if not any(found):
                continue
            a, b = _stack(found, [mlp if leaf == "proj_mlp" else 0 for leaf in leaves])
            fused[f"{PREFIX}{original}.{number}.{module}.lora_A.weight"] = a
            fused[f"{PREFIX}{original}.{number}.{module}.lora_B.weight"] = b
    return fused


def _stack(parts: list[Update | None], rows_if_absent: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack the parts' A, put their scaled B on a diagonal; an absent part leaves rows of zeros in B."""
    present = [part for part in parts if part is not None]
    a = torch.cat([part.a for part in present])
    rows, column = [], 0
    for part, height in zip(parts, rows_if_absent, strict=True):
        if part is None:
            rows.append(torch.zeros(height, a.shape[0]))
            continue
        row = torch.zeros(part.b.shape[0], a.shape[0])
        row[:, column : column + part.b.shape[1]] = part.scale * part.b
        rows.append(row)
        column += part.b.shape[1]
    return a.contiguous(), torch.cat(rows).contiguous()


def split(fused: dict[str, torch.Tensor], width: int) -> dict[str, Update]:
    """Tensors by original key → updates by diffusers module, read off the rows that each part owns."""
    found: dict[str, Update] = {}
    for key, a in fused.items():
        match = re.fullmatch(rf"{PREFIX}(\w+)\.(\d+)\.(.+)\.lora_A\.weight", key)
        if match is None:
            continue
        original, number, module = match.groups()
        b = fused[key.replace("lora_A", "lora_B")]
        kind, table = (
            ("transformer_blocks", _DOUBLE) if original == "double_blocks" else ("single_transformer_blocks", _SINGLE)
        )
        leaves = table[module]
        heights = [width] * len(leaves)
        heights[-1] = b.shape[0] - width * (len(leaves) - 1)
        for leaf, rows in zip(leaves, b.split(heights), strict=True):
            found[f"{kind}.{number}.{leaf}"] = Update(a, rows, 1.0)
    return found


def largest_difference(found: dict[str, Update], wanted: dict[str, Update]) -> float:
    """Largest absolute difference between updates; infinite if one is missing, a found extra one must be zero."""
    if wanted.keys() - found.keys():
        return float("inf")
    extra = [_largest(found[name].by_rows()) for name in found.keys() - wanted.keys()]
    pairs = ((found[name].by_rows(), wanted[name].by_rows()) for name in wanted)
    common = [_largest(one - other for one, other in zip(*pair, strict=True)) for pair in pairs]
    return max([*extra, *common])


def _largest(parts: Iterable[torch.Tensor]) -> float:
    return float(torch.stack([part.abs().max() for part in parts]).max())
