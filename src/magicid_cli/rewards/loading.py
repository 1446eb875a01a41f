"""Loading a judge from its folder: silently, whole or not at all, and giving its memory back."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from magicid_cli.errors import MagicIDError


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Load inside: nothing is printed, and what the libraries raise for unusable files becomes one error.

    Raises:
        MagicIDError: `model-unusable`.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()  # missing weights, the one warning that matters, are for `require_whole`
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise unusable(folder, f"cannot be loaded ({reason})") from error


def require_kind(folder: Path, kind: str, called: str) -> None:
    """Refuse the files of another model.

    Without `config.json` transformers would go on with a default configuration, which may have billions of parameters.

    Raises:
        MagicIDError: `model-unusable`.
        OSError: if `config.json` cannot be read.
        KeyError: if it names no model.
        ValueError: if it is no JSON.
    """
    found = json.loads((folder / "config.json").read_bytes())["model_type"]
    if found != kind:
        raise unusable(folder, f"is a {found} and not a {called}")


def require_whole(folder: Path, info: dict[str, Any]) -> None:
    """Refuse a model that lacks weights: transformers would go on with random numbers in their place.

    Args:
        folder: where it was loaded from.
        info: the `output_loading_info` of `from_pretrained`.

    Raises:
        MagicIDError: `model-unusable`.
    """
    if info["missing_keys"]:
        raise unusable(folder, f"lacks weights, for example {min(info['missing_keys'])}")


def release(device: str) -> None:
    """Give back the memory of models that nothing refers to any more."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def unusable(folder: Path, why: str) -> MagicIDError:
    """The error for a judge whose files cannot be used."""
    return MagicIDError(
        "model-unusable",
        f"The judge of prompt following in {folder} {why}.",
        "Run `magicid cache` to look at the weights.",
    )
