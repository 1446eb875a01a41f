"""`--format merged`: the base transformer with the adapter fused into it, in diffusers' layout."""

from pathlib import Path
from typing import Any

import torch

from magicid_cli import adapters, generation
from magicid_cli.errors import MagicIDError
from magicid_cli.models.base import Family


def write(folder: Path, family: Family, adapter: Path) -> tuple[Path, dict[str, Any]]:
    """Fuse, write, load back and compare a prediction.

    Args:
        folder: `transformer/` is written into it.
        family: the identity's model; no part needs to be loaded.
        adapter: the identity's adapter file.

    Returns:
        The folder, and the relative difference between the adapted and the merged model's prediction, which is
        rounding (of the base's number type) alone.

    Raises:
        MagicIDError: `export-unfaithful` if it is more than that.
    """
    target = folder / "transformer"
    generation.load_adapted(family, adapter)
    wanted = _prediction(family)
    adapters.fuse(family.transformer, "policy")
    kind = type(family.transformer)
    kind.save_pretrained(family.transformer, target, max_shard_size="5GB")
    family.unload("transformer")
    family.transformer = kind.from_pretrained(target, dtype=family.dtype, local_files_only=True).to(family.device)
    difference = float((_prediction(family) - wanted).norm() / wanted.norm())
    family.unload("transformer")
    # Fusing rounds each weight once to the base's number type; that error spreads through the blocks.
    tolerance = 1e-4 if family.dtype == torch.float32 else 0.05
    if not difference <= tolerance:
        raise MagicIDError(
            "export-unfaithful",
            f"Loaded back, the merged model's prediction differs by {difference:.2g} from the adapted one's.",
            "Export the adapter instead (--format diffusers), and report this with `magicid doctor`.",
        )
    return target, {"relative_difference": difference}


def _prediction(family: Family) -> torch.Tensor:
    """The model's answer to one fixed question."""
    config = family.transformer.config
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    text = {
        "prompt_embeds": noise(8, config["text_embed_dim"]).to(family.dtype),
        "prompt_attention_mask": torch.ones(8, dtype=torch.long),
        "pooled_prompt_embeds": noise(config["pooled_projection_dim"]).to(family.dtype),
    }
    with torch.no_grad():
        return family.predict(noise(config["in_channels"], 1, 8, 8), torch.tensor([0.5]), text, 1.0).cpu()
