"""Files of a training that were cut short or overwritten: one error, which names the file and what begins anew."""

import errno
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from magicid_cli.errors import MagicIDError


@contextmanager
def reading(path: Path, then: str, *, delete: Path | None = None) -> Iterator[None]:
    """Turn what a damaged file raises into an error that the user can act on.

    Args:
        path: what is read.
        then: what happens once it is deleted.
        delete: what to delete, if it is not the file itself.

    Raises:
        MagicIDError: `training-damaged`.
    """
    try:
        yield
    except Exception as error:
        if not is_damage(error):
            raise
        raise MagicIDError(
            "training-damaged",
            f"{path} is damaged ({type(error).__name__}: {next(iter(str(error).splitlines()), '')}).",
            f"Delete {'it' if delete is None else delete.name}, and {then}: rm {shlex.quote(str(delete or path))}",
        ) from error


def is_damage(error: Exception) -> bool:
    """Whether an error in reading a file is the file's fault, and not that of memory, permissions or the disk.

    There is no list of what readers raise: a cut file makes torch's one say that it sought to a place before its start.
    """
    number = getattr(error, "errno", None)
    return not isinstance(error, torch.OutOfMemoryError | MemoryError) and number in (None, errno.ENOENT, errno.EINVAL)
