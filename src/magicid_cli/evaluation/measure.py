"""What all judges of an evaluation have in common, the photos that they compare with, and the store of results."""

from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from magicid_cli.errors import MagicIDError
from magicid_cli.photos import Unreadable, content_digest, decode, name_of
from magicid_cli.rewards.base import Clip, device_for
from magicid_cli.workspace import digest, read_json, write_json

if TYPE_CHECKING:
    import numpy as np

    from magicid_cli.config import ModelSettings


class Measure(Protocol):
    """One look at a video that gives several metrics.

    Attributes:
        made_by: which models and versions look; known before they are loaded.
    """

    made_by: str

    @property
    def name(self) -> str:
        """Of the measure."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """What of `METRICS` it gives."""

    def reads(self, prompt: str | None) -> list[Any]:
        """What the result depends on besides the video and `made_by`, as plain data."""

    def look(self, clip: Clip, prompt: str | None) -> dict[str, Any]:
        """Values by name, null where there is nothing to measure; JSON-serialisable."""

    def close(self) -> None:
        """Give memory back; the next look loads what it needs again."""


@dataclass
class Photos:
    """Photos of the person.

    Attributes:
        paths: of the files.
        unreadable: why a file could not be read, by its name; known once `pictures` was called.
    """

    paths: list[Path]
    unreadable: dict[str, str] = field(default_factory=dict)
    _pictures: "list[np.ndarray] | None" = None

    @property
    def key(self) -> str:
        """Digest of the files' contents, whatever their names and order."""
        return digest(sorted(content_digest(path) for path in self.paths))

    def pictures(self) -> "list[np.ndarray]":
        """The photos that can be read, uint8 RGB `(H, W, 3)`.

        Raises:
            MagicIDError: `photos-none-usable` if that is none.
        """
        if self._pictures is None:
            found = []
            for path in self.paths:
                try:
                    found.append(decode(path).rgb)
                except Unreadable as error:
                    self.unreadable[name_of(path)] = error.reason
            # Set when it is whole: measures ask from threads of their own.
            self._pictures = found
        if not self._pictures:
            listed = " ".join(f"{name}: {why}." for name, why in list(self.unreadable.items())[:5])
            raise MagicIDError(
                "photos-none-usable", f"No photo of the person can be read. {listed}", "Give others with --references."
            )
        return self._pictures


class Store:
    """Results of single videos on disk, a file each, named after all that determines it.

    Args:
        folder: made with the first result.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> dict[str, Any] | None:
        """What was kept under this key, None if nothing was or if it is damaged: then it is made again."""
        try:
            found = read_json(self._folder / f"{key}.json")
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a result, safe from power loss; readable by its owner only."""
        write_json(self._folder / f"{key}.json", value)


def run_on(device: str) -> str:
    """What of a machine changes a network's numbers, for `made_by`: torch's release and the kind of device.

    The same network rounds otherwise on a GPU, which may also multiply in fewer bits, and in another release. The build
    that the release is for (`+cu128`) follows from the device and is left out.
    """
    return f"torch {version('torch').partition('+')[0]} on {device}"


def device_of(model: "ModelSettings") -> str:
    """`cuda` or `cpu` for the judges, none of which needs a GPU.

    Raises:
        MagicIDError: `gpu-missing` if a GPU is asked for and there is none.
    """
    return device_for(model.device)
