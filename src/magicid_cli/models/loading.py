"""Reading checkpoints of diffusers and transformers so that nothing is silent: no random weights, no half messages."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from magicid_cli.errors import MagicIDError


def silence_libraries() -> None:
    """Keep diffusers and transformers off the terminal; what their warnings would say is checked by us."""
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """Turn the many ways in which a damaged or foreign file shows into one error.

    Args:
        folder: of the checkpoint.
        what: the part being read, for the message.

    Raises:
        MagicIDError: `model-unusable`.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        # A RuntimeError, too, but not the file's fault.
        raise
    except (OSError, SafetensorError, ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        raise MagicIDError(
            "model-unusable",
            f"'{what}' of the model cannot be loaded from {folder}: {error}",
            "Install magicid again: these weights come with it."
            if folder.is_relative_to(str(files("magicid_cli")))
            else "Remove that folder (`magicid cache` lists what is cached), then fetch it again: magicid prepare",
        ) from error


def check_classes(folder: Path, expected: dict[str, str]) -> None:
    """Refuse a checkpoint whose `model_index.json` names other classes.

    Args:
        folder: of the checkpoint.
        expected: class name by part.

    Raises:
        MagicIDError: `model-unusable`.
    """
    with reading(folder, "model_index.json"):
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        for part, name in expected.items():
            found = index[part][1]
            if found != name:
                raise ValueError(f"{part} is a {found}, a {name} is expected")


def load_weights(kind: Any, folder: Path, part: str, dtype: torch.dtype) -> Any:
    """One model of a checkpoint, on the CPU, frozen, in evaluation mode.

    Args:
        kind: its class, of diffusers or transformers.
        folder: of the checkpoint.
        part: its subfolder.
        dtype: number type to load it in, whatever the file holds.

    Raises:
        MagicIDError: `model-unusable`; also for weights that the file lacks, which would otherwise be random numbers.
    """
    with reading(folder, part):
        model, info = kind.from_pretrained(
            folder,
            subfolder=part,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        lacking = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        if lacking:
            raise ValueError(f"{len(lacking)} weights are missing or of another shape, the first is {lacking[0]}")
    return model.requires_grad_(False).eval()
