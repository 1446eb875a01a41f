"""Weights from the Hub: pinned, verified, cached, offline.

The cache has the Hugging Face layout, so that weights that other tools fetched are used and the other way round:

    <hub cache>/models--owner--name/
        blobs/<hash>                 content, named after its hash
        snapshots/<commit>/<path>    links to blobs
        refs/<branch>                the commit of a branch when it was last asked for

What magicid itself knows lies apart, in its own cache:

    <cache>/listings/owner--name/<commit>.json   every file of the commit, with size and hash
    <cache>/verified.json                        files whose content was hashed, by path, size and time
    <cache>/weights/owner--name/<commit>/        links to verified files only: what loaders are given

A loader never sees a file that was not verified, and never one that could run code: such files are not fetched, and
where another tool fetched them, they are not linked. The one exception are files that the catalog names in
`Source.pickled`: their only reader is `torch.load(weights_only=True)`, which builds tensors and runs nothing, or a
process of its own.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.hub.download import RemoteFile, disk_errors
from magicid_cli.hub.fetching import obtain
from magicid_cli.hub.link import missing_file
from magicid_cli.hub.listing import (
    FORMATS,
    Listing,
    find,
    hub_cache,
    is_commit,
    is_offline,
    listings_folder,
    not_here,
    remembered,
    repo_folder,
    view_folder,
)

if TYPE_CHECKING:
    from magicid_cli.models.catalog import Source

__all__ = [
    "CachedRepo",
    "Commits",
    "Fetched",
    "cached",
    "fetch_file",
    "fetch_repo",
    "hub_cache",
    "known_commit",
    "missing_bytes",
    "remove",
    "settled",
    "state",
    "to_fetch",
]

FILE_FORMATS = (*FORMATS, ".onnx")
Commits = dict[str, str]
"""By repository, the commit that one piece of work uses from its beginning to its end; see `settled`."""


@dataclass(frozen=True)
class Fetched:
    """Verified weights on this machine.

    Attributes:
        path: the folder, or the file that was asked for.
        commit: the commit they belong to.
    """

    path: Path
    commit: str


@dataclass(frozen=True)
class CachedRepo:
    """A repository of the catalog in the cache.

    Attributes:
        repo: `owner/name`.
        commits: the commits of which there are files.
        bytes: space on the disk, unfinished downloads included.
        path: the repository's folder in the cache.
        files: number of files, over all commits.
    """

    repo: str
    commits: tuple[str, ...]
    bytes: int
    path: Path
    files: int


def fetch_repo(source: "Source", *, patterns: Sequence[str] | None = None, offline: bool, events: Events) -> Fetched:
    """A repository's data files at the pinned revision: safetensors, JSON, text and tokenizer models.

    Files of other formats come only where the source names them (`Source.pickled`).

    Args:
        source: which repository and revision.
        patterns: only files whose path matches one of these, e.g. `["vae/*", "model_index.json"]`.
        offline: send no request; `HF_HUB_OFFLINE=1` does the same.
        events: told about progress (`download`: bytes of everything this call fetches), retries and fallbacks.

    Returns:
        The folder, in which every file was verified.

    Raises:
        MagicIDError: one of the `weights-` codes, `disk-full`, `cache-unwritable`.
    """

    def choose(listing: Listing) -> list[RemoteFile]:
        return listing.chosen(patterns, source.pickled)

    listing = find(source, offline, events, choose)
    files = choose(listing)
    if not files:
        raise missing_file(source.repo, " or ".join(patterns or [f"*{end}" for end in FORMATS]), source.revision)
    return Fetched(_get(source, listing, files, offline, events), listing.commit)


def fetch_file(
    source: "Source", file: str, *, offline: bool, events: Events, formats: tuple[str, ...] = FILE_FORMATS
) -> Fetched:
    """One file at the pinned revision; as `fetch_repo`, ONNX included.

    Args:
        source: which repository and revision.
        file: its path in the repository.
        offline: send no request.
        events: told about progress.
        formats: endings of files that may be fetched; who allows others answers for how they are read.

    Raises:
        MagicIDError: as `fetch_repo`, and `weights-unsafe` for a kind of file that could run code.
    """
    if not file.endswith(formats):
        raise MagicIDError(
            "weights-unsafe",
            f"{file} of {source.repo} is not fetched: only data formats are ({', '.join(formats)}).",
            "Ask the repository's authors for safetensors or ONNX.",
        )

    def choose(listing: Listing) -> list[RemoteFile]:
        return [one for one in listing.files if one.path == file]

    listing = find(source, offline, events, choose)
    files = choose(listing)
    if not files:
        raise missing_file(source.repo, file, source.revision)
    return Fetched(_get(source, listing, files, offline, events) / file, listing.commit)


def _get(source: "Source", listing: Listing, files: list[RemoteFile], offline: bool, events: Events) -> Path:
    missing = listing.missing(files)
    if missing and is_offline(offline):
        raise not_here(source, missing)
    return obtain(listing, files, events)


def state(source: "Source", patterns: Sequence[str] | None = None) -> Literal["cached", "partial", "absent"]:
    """How much of a source is in the cache, by the files' sizes; sends no request.

    Args:
        source: which repository and revision.
        patterns: as for `fetch_repo`; a path of any kind of file also counts.
    """
    listing = remembered(source)
    if listing is None:
        return "partial" if any(repo_folder(source.repo).glob("snapshots/*/*")) else "absent"
    files = _wanted(source, listing, patterns)
    if not listing.missing(files):
        return "cached"
    return "partial" if listing.missing_bytes(files) < sum(file.size for file in files) else "absent"


def known_commit(source: "Source") -> str | None:
    """The commit that a fetch would use as far as this machine knows, which asks nobody; None if it does not."""
    if is_commit(source.revision):
        return source.revision
    listing = remembered(source)
    return None if listing is None else listing.commit


def settled(source: "Source", commits: Commits) -> "Source":
    """The source at the one commit that a piece of work uses, so that what is recorded is what was loaded.

    A branch may move between two looks at it. The commit is the one in `commits`, else the one that this machine knows,
    which is then noted there. Where it knows none the source comes back as it is, and who fetches it notes the commit.

    Args:
        source: which repository and revision.
        commits: of the piece of work.
    """
    commit = commits.get(source.repo) or known_commit(source)
    if commit is None:
        return source
    commits[source.repo] = commit
    return replace(source, revision=commit)


def missing_bytes(source: "Source", patterns: Sequence[str] | None = None) -> int | None:
    """Bytes that a fetch would download; None if this machine does not know the list of files yet."""
    listing = remembered(source)
    return None if listing is None else listing.missing_bytes(_wanted(source, listing, patterns))


def to_fetch(sources: "Iterable[tuple[Source, Sequence[str] | None]]") -> dict[str, float]:
    """GB (1e9 bytes) still to fetch, by repository; the catalog's figure where the Hub was not asked yet.

    Args:
        sources: repositories, and which of their files, as for `fetch_repo`.
    """
    found: dict[str, float] = {}
    for source, patterns in sources:
        if state(source, patterns) != "cached":
            missing = missing_bytes(source, patterns)
            found[source.repo] = source.gigabytes if missing is None else missing / 1e9
    return found


def _wanted(source: "Source", listing: Listing, patterns: Sequence[str] | None) -> list[RemoteFile]:
    chosen = listing.chosen(patterns, source.pickled)
    return chosen or [file for file in listing.files if file.path in (patterns or ())]


def cached() -> list[CachedRepo]:
    """The repositories of the catalog that take space in the cache."""
    return [_cached(repo, repo_folder(repo)) for repo in _catalog() if repo_folder(repo).is_dir()]


def _cached(repo: str, folder: Path) -> CachedRepo:
    snapshots = folder / "snapshots"
    commits = tuple(sorted(path.name for path in snapshots.iterdir())) if snapshots.is_dir() else ()
    files = sum(1 for path in snapshots.rglob("*") if path.is_file())
    return CachedRepo(repo, commits, _disk_bytes(folder), folder, files)


def remove(repo: str) -> int:
    """Delete a repository's weights from the cache; returns the bytes that are free again.

    Raises:
        MagicIDError: `cache-missing` if the catalog has no such repository, or nothing of it is in the cache.
    """
    folder = repo_folder(repo)
    if repo not in _catalog() or not folder.is_dir():
        raise MagicIDError("cache-missing", f"No weights of '{repo}' are in the cache.", "See: magicid cache")
    freed = _disk_bytes(folder)
    with disk_errors(folder):
        for path in (folder, hub_cache() / ".locks" / folder.name, listings_folder(repo), view_folder(repo)):
            if path.exists():
                shutil.rmtree(path)
    return freed


def _disk_bytes(folder: Path) -> int:
    """Bytes of the files themselves; links count nothing."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _catalog() -> list[str]:
    """Every repository that the catalog names."""
    from magicid_cli.models.catalog import FACE_MODELS, FEATURE_MODELS, JUDGES, METHOD_WEIGHTS, VIDEO_MODELS

    videos = [model.source for model in VIDEO_MODELS.values() if model.source is not None]
    others = [one.source for catalog in (FACE_MODELS, FEATURE_MODELS, JUDGES) for one in catalog.values()]
    methods = [one.source for brought in METHOD_WEIGHTS.values() for one in brought]
    return sorted({source.repo for source in (*videos, *others, *methods)})
