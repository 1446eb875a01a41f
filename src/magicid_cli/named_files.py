"""Settings that may name a file: in a key, what is in the file counts, and not where it lies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magicid_cli.models.catalog import DRAWN, FACE_MODELS
from magicid_cli.workspace import file_digest

_FILES = ("rewards.face_model", "repository.prompts_file")


def by_content(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they count in a key: the digest of a file that one names, else its value.

    Args:
        values: by their names, as `config.subset` gives them.
    """
    return {name: _counted(name, value) for name, value in values.items()}


def _counted(name: str, value: Any) -> Any:
    if name not in _FILES or value in ("", "auto", *FACE_MODELS, *DRAWN):
        return value
    path = Path(value).expanduser()
    return file_digest(path) if path.is_file() else value
