"""Where the cache is, and which files a revision has.

A commit never changes, so its list of files is asked for once and remembered: from then on nobody needs the network
to know whether the cached copy is complete. A branch is asked for its commit every time.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.hub.download import INCOMPLETE, RemoteFile, disk_errors
from magicid_cli.hub.link import ATTEMPTS, Link, get_json, not_a_hub, open_link
from magicid_cli.workspace import cache_home, read_json, write_json, write_text

if TYPE_CHECKING:
    from magicid_cli.models.catalog import Source

FORMATS = (".safetensors", ".json", ".txt", ".model")  # data that cannot run code, as model repositories hold it
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def hub_cache() -> Path:
    """The folder of the Hub's cache: magicid's own under `MAGICID_HOME`, else the one every tool shares."""
    if os.environ.get("MAGICID_HOME"):
        return cache_home() / "hub"
    if named := os.environ.get("HF_HUB_CACHE"):
        return Path(os.path.expandvars(named)).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def repo_folder(repo: str) -> Path:
    """A repository's folder in the Hub's cache."""
    kind = "" if _is_space(repo) else "models/"
    return hub_cache() / f"{kind}{repo}".replace("/", "--")


def _is_space(repo: str) -> bool:
    """Whether a repository holds a demo, which the Hub calls `spaces/owner/name`, and no model."""
    return repo.startswith("spaces/")


def listings_folder(repo: str) -> Path:
    """Where the lists of a repository's files are remembered."""
    return cache_home() / "listings" / repo.replace("/", "--")


def view_folder(repo: str) -> Path:
    """Where loaders find a repository's verified files, by commit."""
    return cache_home() / "weights" / repo.replace("/", "--")


def is_offline(wanted: bool) -> bool:
    """Whether the network must not be asked: by the setting, or by `HF_HUB_OFFLINE`."""
    return wanted or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


@dataclass(frozen=True)
class Listing:
    """All files of one commit."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]

    def chosen(self, patterns: Sequence[str] | None, also: Sequence[str] = ()) -> list[RemoteFile]:
        """The data files whose path matches a pattern (shell style; `*` also matches `/`).

        Args:
            patterns: shell style; None for all.
            also: patterns of files that count as data whatever their format.
        """
        data = [file for file in self.files if file.path.endswith(FORMATS) or _matches(file, also)]
        return [file for file in data if patterns is None or _matches(file, patterns)]

    def pointer(self, file: RemoteFile) -> Path:
        """The file's place in the Hub's cache: a link to its blob."""
        return repo_folder(self.repo) / "snapshots" / self.commit / file.path

    def blob(self, file: RemoteFile) -> Path:
        """The file's content in the Hub's cache."""
        return repo_folder(self.repo) / "blobs" / file.blob

    def missing(self, files: Iterable[RemoteFile]) -> list[RemoteFile]:
        """The files that are not in the cache, judged by their size; content is another question."""
        return [file for file in files if size_of(self.pointer(file)) != file.size]

    def missing_bytes(self, files: Iterable[RemoteFile]) -> int:
        """Bytes to download for these files; what an interrupted download left counts as here."""
        blobs = {file.blob: file for file in self.missing(files)}.values()
        absent = [file for file in blobs if size_of(self.blob(file)) != file.size]
        return sum(max(0, file.size - (size_of(incomplete(self.blob(file))) or 0)) for file in absent)


def _matches(file: RemoteFile, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(file.path, one) for one in patterns)


def incomplete(blob: Path) -> Path:
    """Where the bytes of an unfinished download gather."""
    return blob.with_name(blob.name + INCOMPLETE)


def size_of(path: Path) -> int | None:
    """Bytes of a file, followed through links; None if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def not_here(source: "Source", missing: Sequence[RemoteFile] | None) -> MagicIDError:
    """The error for weights that offline work lacks.

    Args:
        source: the repository.
        missing: the files that are not in the cache, if others are; None if nothing is known to be.
    """
    if missing is None and not any(repo_folder(source.repo).glob("snapshots/*/*")):
        return MagicIDError(
            "weights-offline",
            f"{source.repo} is not in the cache ({hub_cache()}), and magicid is offline (--offline or HF_HUB_OFFLINE).",
            _fetching(source),
        )
    if missing is None:
        lack = "it was never asked which files belong to it"
    else:
        gigabytes = sum(file.size for file in missing) / 1e9
        lack = f"{len(missing)} files ({gigabytes:.2f} GB) are missing, among them {missing[0].path}"
    return MagicIDError(
        "weights-incomplete",
        f"{source.repo} is in the cache ({hub_cache()}), but not known to be complete: {lack}. magicid is offline "
        "(--offline or HF_HUB_OFFLINE).",
        f"Only what is missing is fetched. {_fetching(source)}",
    )


def _fetching(source: "Source") -> str:
    """How to get weights of the catalog: what does not stand for them in a command would fetch others."""
    from magicid_cli.models.catalog import FACE_MODELS, JUDGES

    judges = [f" --vlm {judge.name}" for judge in JUDGES.values() if judge.source.repo == source.repo]
    recognisers = (one for one in FACE_MODELS.values() if one.kind != "yunet")
    faces = [f" --face-model {one.name}" for one in recognisers if one.source.repo == source.repo]
    flag = "".join((judges + faces)[:1])
    return (
        "Run the same command once with a network connection and without --offline. "
        f"All that a run needs: magicid prepare{flag}"
    )


def find(source: "Source", offline: bool, events: Events, choose: Callable[[Listing], list[RemoteFile]]) -> Listing:
    """The list of a revision's files: remembered for a commit, asked for otherwise.

    If a branch cannot be asked about but `choose`'s files of its last known commit are all here, that commit is
    used, which is announced as a `fallback`.

    Raises:
        MagicIDError: one of the `weights-` codes.
    """
    known = remembered(source)
    if known is not None and (is_offline(offline) or _COMMIT.fullmatch(source.revision)):
        return known
    if is_offline(offline):
        raise not_here(source, None)
    complete = known is not None and not known.missing(choose(known))
    link = open_link(source.repo, source.revision, events.notice)
    try:
        return _ask(link, attempts=1 if complete else ATTEMPTS)
    except MagicIDError as error:
        if known is None or not complete or error.code not in ("weights-network", "weights-server"):
            raise
        events.emit(
            "fallback",
            message=f"It is not known whether '{source.revision}' of {source.repo} has changed: {error.message} "
            f"The commit in the cache is used: {known.commit}.",
        )
        return known


def is_commit(revision: str) -> bool:
    """Whether a revision can mean one commit only."""
    return bool(_COMMIT.fullmatch(revision))


def remembered(source: "Source") -> Listing | None:
    """The remembered list of a revision's files; a branch means the commit that it last meant."""
    if _COMMIT.fullmatch(source.revision):
        return _recall(source.repo, source.revision)
    ref = repo_folder(source.repo) / "refs" / source.revision
    return _recall(source.repo, ref.read_text(encoding="utf-8").strip()) if ref.is_file() else None


def _recall(repo: str, commit: str) -> Listing | None:
    try:
        rows = read_json(listings_folder(repo) / f"{commit}.json")["files"]
    except (OSError, ValueError, KeyError):
        return None  # not there, or damaged: it is asked for again
    return Listing(repo, commit, tuple(RemoteFile(**row) for row in rows))


def _ask(link: Link, attempts: int) -> Listing:
    """Ask the Hub, and remember the answer."""
    base = f"{link.endpoint}/api/{'' if _is_space(link.repo) else 'models/'}{link.repo}"
    commit = link.revision
    if not _COMMIT.fullmatch(commit):
        answer, _ = get_json(link, f"{base}/revision/{quote(commit, safe='')}", attempts)
        commit = str(answer.get("sha")) if isinstance(answer, dict) else ""
        if not _COMMIT.fullmatch(commit):
            raise not_a_hub(link)
    known = _recall(link.repo, commit)
    listing = known or Listing(link.repo, commit, tuple(_ask_files(link, f"{base}/tree/{commit}?recursive=true")))
    with disk_errors(cache_home()):
        if known is None:
            rows = [asdict(file) for file in listing.files]
            write_json(listings_folder(link.repo) / f"{commit}.json", {"files": rows})
        if commit != link.revision:
            _write_ref(repo_folder(link.repo) / "refs" / link.revision, commit)
    return listing


def _write_ref(path: Path, commit: str) -> None:
    """Note a branch's commit where every tool looks for it."""
    if not path.is_file() or path.read_text(encoding="utf-8") != commit:
        write_text(path, commit)


def _ask_files(link: Link, url: str | None) -> Iterable[RemoteFile]:
    """All pages of a commit's tree."""
    while url is not None:
        if not url.startswith(link.endpoint + "/"):
            raise not_a_hub(link)  # the token goes along with every page: to the Hub only
        rows, url = get_json(link, url, ATTEMPTS)
        try:
            yield from [_remote_file(link, row) for row in rows if row["type"] == "file"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise not_a_hub(link) from error


def _remote_file(link: Link, row: Any) -> RemoteFile:
    """One row of the tree. What it says becomes a path and a file name here, so it is checked."""
    content = row.get("lfs") or row
    file = RemoteFile(path=str(row["path"]), size=int(content["size"]), blob=str(content["oid"]))
    parts = PurePosixPath(file.path).parts
    if not parts or parts[0] == "/" or ".." in parts or set(file.path) & {"\\", "\0"}:
        raise MagicIDError(
            "weights-unsafe",
            f"{link.repo} lists a file whose name leaves its folder: {file.path!r}.",
            "Do not use this repository.",
        )
    if not _BLOB.fullmatch(file.blob) or file.size < 0:
        raise ValueError(row)
    return file
