"""Getting the files of a listing: a few at a time, verified, linked where loaders look."""

import contextlib
import os
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import quote

from magicid_cli.events import Events
from magicid_cli.hub.download import RemoteFile, corrupt, disk_errors, disk_full, download
from magicid_cli.hub.link import Link, Stopped, open_link
from magicid_cli.hub.listing import Listing, incomplete, repo_folder, size_of, view_folder
from magicid_cli.workspace import cache_home, read_json, write_json

WORKERS = 4
EVENT_S = 1.0  # between two progress events
STALE_S = 86_400.0
LONG_CHECK_BYTES = 2_000_000_000

Said = SimpleQueue[str | int | Exception]  # from workers: a sentence for the user, files done, a failure


def obtain(listing: Listing, files: Sequence[RemoteFile], events: Events) -> Path:
    """Download what is missing, verify what is not known to be right, and link all of it into one folder.

    Args:
        listing: the commit.
        files: those that are wanted.
        events: told about progress and retries.

    Returns:
        The folder, which holds verified files only.

    Raises:
        MagicIDError: one of the `weights-` codes, `disk-full`, `cache-unwritable`.
    """
    verified = Verified(cache_home() / "verified.json")
    todo = [file for file in files if not verified.holds(listing.pointer(file), file)]
    if missing := listing.missing(todo):
        _prepare_disk(listing, missing)
    unchecked = sum(file.size for file in todo) - sum(file.size for file in missing)
    if unchecked > LONG_CHECK_BYTES:
        events.notice(f"Checking {unchecked / 1e9:.1f} GB of {listing.repo} that are already here. This is done once.")
    if todo:
        _share_out(listing, todo, verified, events, total=listing.missing_bytes(todo))
    folder = view_folder(listing.repo) / listing.commit
    with disk_errors(folder):
        for file in files:
            _link(folder / file.path, listing.pointer(file).resolve())
    return folder


class Verified:
    """Which files were hashed and found right, by path, size and time of change, remembered between runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._entries = self._read()

    def _read(self) -> dict[str, list[int | str]]:
        try:
            return dict(read_json(self._path)["files"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # not there, or damaged: files are hashed again

    def holds(self, path: Path, file: RemoteFile) -> bool:
        """Whether this very content was hashed before."""
        real = path.resolve()
        return size_of(real) == file.size and self._entries.get(str(real)) == _entry(real, file)

    def add(self, path: Path, file: RemoteFile) -> None:
        """Remember a file whose hash was right, together with what other processes remembered meanwhile."""
        with self._lock, disk_errors(self._path.parent):
            real = path.resolve()
            self._entries = {**self._read(), **self._entries, str(real): _entry(real, file)}
            present = {name: entry for name, entry in self._entries.items() if os.path.exists(name)}
            write_json(self._path, {"files": present})


def _entry(real: Path, file: RemoteFile) -> list[int | str]:
    return [file.size, real.stat().st_mtime_ns, file.blob]


class _Progress:
    """Bytes that arrived, by blob; the thread that owns the events reports them."""

    def __init__(self, repo: str, total: int, events: Events) -> None:
        self.repo, self.total, self.events = repo, total, events
        self.base: dict[str, int] = {}
        self.here: dict[str, int] = {}
        self.current = ""
        self.told_at = time.monotonic()

    def listener(self, file: RemoteFile) -> Callable[[int], None]:
        """For `download`: what was here when it began does not count as progress."""

        def on_bytes(count: int) -> None:
            self.base.setdefault(file.blob, count)
            self.here[file.blob] = count
            self.current = file.path

        return on_bytes

    def tell(self, *, last: bool = False) -> None:
        """Report at most once in `EVENT_S`, and at the end, if anything was downloaded."""
        if not self.current or not (last or time.monotonic() - self.told_at >= EVENT_S):
            return
        self.told_at = time.monotonic()
        arrived = sum(list(self.here.values())) - sum(list(self.base.values()))
        self.events.emit("download", repo=self.repo, file=self.current, bytes=max(0, arrived), total=self.total)


def _prepare_disk(listing: Listing, missing: Sequence[RemoteFile]) -> None:
    """Sweep what killed downloads of other tools left, and refuse a download that cannot fit.

    A download in progress is written to all the time, so a file untouched for a day is nobody's. Our own unfinished
    files of this commit are kept however old they are: they are gone on with.
    """
    folder = repo_folder(listing.repo) / "blobs"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        ours = {incomplete(listing.blob(file)).name for file in listing.files}
        for path in folder.glob("*.incomplete"):
            with contextlib.suppress(FileNotFoundError):  # its owner may be quicker
                if path.name not in ours and time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()
    needed, free = listing.missing_bytes(missing), shutil.disk_usage(folder).free
    if needed > free:
        raise disk_full(folder, needed, free)


def _share_out(listing: Listing, todo: Sequence[RemoteFile], verified: Verified, events: Events, *, total: int) -> None:
    """Deal the files out to a few threads, largest first.

    Only the calling thread talks to `events`, and a Ctrl-C ends it at once: workers notice within one chunk, and if
    the process ends before, unfinished files are as good as after any kill.
    """
    said: Said = SimpleQueue()
    link = open_link(listing.repo, listing.commit, said.put)
    progress = _Progress(listing.repo, total, events)
    # Paths with the same content are one piece of work.
    blobs: dict[str, list[RemoteFile]] = {}
    for file in sorted(todo, key=lambda file: -file.size):
        blobs.setdefault(file.blob, []).append(file)
    waiting = deque(blobs.values())

    def work() -> None:
        try:
            while waiting and not link.stop.is_set():
                same = waiting.popleft()
                for file in same:
                    _obtain_one(listing, file, link, verified, progress)
                said.put(len(same))
        except Exception as error:  # whatever it is, the thread that waits raises it
            said.put(error)

    threads = [
        threading.Thread(target=work, name="magicid-download", daemon=True) for _ in range(min(WORKERS, len(waiting)))
    ]
    try:
        for thread in threads:
            thread.start()
        _listen(said, len(todo), events, progress)
    finally:
        link.stop.set()
        for thread in threads:
            thread.join(timeout=1.0)


def _listen(said: Said, files: int, events: Events, progress: _Progress) -> None:
    """Pass on what the workers say until all files are done."""
    done = 0
    while done < files:
        progress.tell()
        try:
            word = said.get(timeout=EVENT_S / 4)
        except Empty:
            continue
        if isinstance(word, Exception):
            raise word
        if isinstance(word, str):
            events.notice(word)
        else:
            done += word
    progress.tell(last=True)


def _obtain_one(listing: Listing, file: RemoteFile, link: Link, verified: Verified, progress: _Progress) -> None:
    """Make one file be in the cache with the right content."""
    pointer, blob = listing.pointer(file), listing.blob(file)
    if size_of(pointer) != file.size:
        if size_of(blob) != file.size:
            with disk_errors(blob.parent):
                blob.unlink(missing_ok=True)  # cut short, or a link to nothing
            url = f"{link.endpoint}/{listing.repo}/resolve/{listing.commit}/{quote(file.path)}"
            download(link, url, file, blob, progress.listener(file))
            verified.add(blob, file)
        with disk_errors(pointer.parent):
            _link(pointer, Path(os.path.relpath(blob, pointer.parent)))
    if not verified.holds(pointer, file):
        if _hash(pointer, file, link) != file.blob:
            with disk_errors(blob.parent):
                pointer.unlink()
                blob.unlink(missing_ok=True)
            raise corrupt(listing.repo, file.path)
        verified.add(pointer, file)


def _hash(path: Path, file: RemoteFile, link: Link) -> str:
    """What the file's content hashes to."""
    digest = file.digest()
    with path.open("rb") as content:
        while chunk := content.read(1 << 20):
            if link.stop.is_set():
                raise Stopped
            digest.update(chunk)
    return digest.hexdigest()


def _link(path: Path, target: Path) -> None:
    """Make `path` a link to `target`, replacing what is there in one step."""
    if path.is_symlink() and path.readlink() == target:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    temporary.symlink_to(target)
    temporary.replace(path)
