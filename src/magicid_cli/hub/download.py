"""One file from the Hub: resumed across processes, and checked before it gets its name.

The Hub's client starts an interrupted file again from its first byte in the next process, and accepts a wrong byte
over HTTP. Nothing here knows where the cache is.
"""

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from magicid_cli.errors import MagicIDError
from magicid_cli.hub.link import ATTEMPTS, Link, Stopped, Transient, answer, pause, retrying
from magicid_cli.workspace import fsync_folder

INCOMPLETE = ".magicid.incomplete"


class Digest(Protocol):
    """What `hashlib` objects can do."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""

    def hexdigest(self) -> str:
        """The digest so far."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of one commit.

    Attributes:
        path: relative, with forward slashes.
        size: bytes.
        blob: what its content must hash to: SHA-256 (64 hex digits) for large files, else the id of a git blob
            (40 hex digits).
    """

    path: str
    size: int
    blob: str

    def digest(self) -> Digest:
        """A fresh hash object of the right kind, to be fed with the content."""
        if len(self.blob) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)


def download(link: Link, url: str, file: RemoteFile, blob: Path, on_bytes: Callable[[int], None]) -> None:
    """Fetch one file to `blob`, going on where an earlier attempt or process stopped.

    The bytes gather in a file beside `blob` that one process at a time may hold; `blob` appears when they hash to
    what the Hub lists and are on the disk.

    Args:
        link: the repository.
        url: the file's address.
        file: what is expected.
        blob: where the content goes.
        on_bytes: called with the number of bytes here so far.

    Raises:
        MagicIDError: `weights-corrupt` and the other `weights-` codes, `disk-full`, `cache-unwritable`.
        Stopped: `link.stop` was set.
    """
    with disk_errors(blob.parent), _partial(link, file, blob) as partial:
        if partial is None:
            return
        on_bytes(partial.size)
        retrying(link, file.path, lambda: _continue(link, url, partial, on_bytes), ATTEMPTS)
        if partial.digest.hexdigest() != file.blob:
            partial.path.unlink()
            raise corrupt(link.repo, file.path)
        os.fsync(partial.handle.fileno())
        partial.path.replace(blob)
        fsync_folder(blob.parent)


def corrupt(repo: str, path: str) -> MagicIDError:
    """The error for content that is not what the Hub lists."""
    return MagicIDError(
        "weights-corrupt",
        f"{path} of {repo} is damaged: its content is not what the Hub lists. It was not used, and was deleted.",
        "Run the same command again, online: only this file is fetched again.",
    )


class _Partial:
    """A file that is being fetched: its open handle, how far it is, and the hash so far."""

    def __init__(self, path: Path, file: RemoteFile) -> None:
        self.path, self.file = path, file
        self.handle = path.open("ab+", buffering=0)
        self.size, self.digest = 0, file.digest()

    def read_back(self) -> None:
        """Hash what an earlier process left."""
        self.handle.seek(0)
        while self.size <= self.file.size and (chunk := self.handle.read(1 << 20)):
            self.digest.update(chunk)
            self.size += len(chunk)
        if self.size > self.file.size:
            self.restart()

    def restart(self) -> None:
        """Forget every byte."""
        self.handle.truncate(0)
        self.size, self.digest = 0, self.file.digest()

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        written = 0
        while written < len(chunk):
            written += self.handle.write(chunk[written:])
        self.digest.update(chunk)
        self.size += len(chunk)


@contextmanager
def _partial(link: Link, file: RemoteFile, blob: Path) -> Iterator[_Partial | None]:
    """Hold the unfinished file for this process alone; None if another process finished it meanwhile."""
    blob.parent.mkdir(parents=True, exist_ok=True)
    path = blob.with_name(blob.name + INCOMPLETE)
    told = False
    while not blob.exists():
        partial = _Partial(path, file)
        with partial.handle:
            if _take(partial):
                partial.read_back()
                yield partial
                return
        if not told:
            link.say(f"Another process is fetching {file.path} of {link.repo}; waiting for it.")
            told = True
        pause(link, 0.2)
    yield None


def _take(partial: _Partial) -> bool:
    """Lock the handle, unless somebody has it or the path means another file by now."""
    try:
        fcntl.flock(partial.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(partial.handle.fileno()), partial.path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _continue(link: Link, url: str, partial: _Partial, on_bytes: Callable[[int], None]) -> None:
    """One attempt at the missing bytes, if any are missing."""
    start, file = partial.size, partial.file
    if start == file.size:
        return
    wanted = {"range": f"bytes={start}-"} if start else {}
    try:
        with answer(link, url, wanted, file.path) as response:
            if start and response.status_code != 206:
                start = 0
                partial.restart()
            for chunk in response.iter_bytes():
                if link.stop.is_set():
                    raise Stopped
                partial.write(chunk)
                on_bytes(partial.size)
                if partial.size > file.size:
                    return  # too long: the hash refuses it
    except Transient as problem:
        problem.brought = partial.size - start
        raise
    if partial.size < file.size:
        raise Transient("the connection was closed early", brought=partial.size - start)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what a disk refuses into an error that says what to do.

    Raises:
        MagicIDError: `disk-full`, `cache-unwritable`.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(folder) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise MagicIDError(
                "cache-unwritable",
                f"{folder} cannot be written: {error.strerror}.",
                "Give yourself the right to write there, or choose another folder with HF_HOME or MAGICID_HOME.",
            ) from error
        raise


def disk_full(folder: Path, needed: int | None = None, free: int | None = None) -> MagicIDError:
    """The error for a disk without room for the weights; sizes in bytes."""
    figures = "" if needed is None or free is None else f": {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB free"
    return MagicIDError(
        "disk-full",
        f"The disk of {folder} is full{figures}.",
        "Make room (see `magicid cache`), or choose another disk with HF_HOME or MAGICID_HOME; then run the same "
        "command again.",
    )
