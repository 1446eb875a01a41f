"""One person's folder on disk: where things lie, the manifest, hashes, the lock, atomic writes.

A person can read it with `ls` and `cat`:

    identities/<name>/
        manifest.json   name, consent, model and commit, seed, settings with origins, stage records, fallbacks
        references/     photos.jsonl (a verdict for each), NNN.png (crops), captions.jsonl,
                        other-captions.jsonl (edited ones of photos not used now)
        reconstruct/    metrics.jsonl, checkpoints/, static/ (latents of the photos), adapter.safetensors
        repository/     prompts.jsonl, videos.jsonl, clips/*.mp4, latents/*.safetensors, step-cache.json
        scores.jsonl    one line a video and reward;  set-aside.jsonl: videos without, and why
        other-scores.jsonl  what other judges said before;  score-again.json: scores that are to be made again
        pairs.jsonl     one line a pair;  pairs.json: how they were chosen
        votes.jsonl     what people said of pairs, only ever appended to
        prefer/         beta.json, bank.jsonl, metrics.jsonl, checkpoints/, looks.jsonl and snapshots/ of the guards,
                        guards.json, adapter.safetensors
        rounds/N/       repository/, scores.jsonl, …, pairs.jsonl, pairs.json and prefer/ of round N, from 2 on
        texts/          prompts and captions, encoded
        videos/         what `generate` made
        comparison/     what the report compares: videos.jsonl, clips/*.mp4, scores.jsonl
        report/         the pages of `report`, previews/
        methods/<name>/ another method's results on the same photos, with children and records of the same names
        evaluation/     what `evaluate` measured, a file a video and measure
        events.jsonl    what happened
"""

import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs

from magicid_cli.errors import MagicIDError
from magicid_cli.rounds import FIRST, folder_of

FORMAT = 1
_LARGE = 1 << 24  # bytes
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_DEVICE_NAMES = {"con", "prn", "aux", "nul", *(f"{kind}{n}" for kind in ("com", "lpt") for n in range(1, 10))}


def own_home() -> Path | None:
    """The folder that `MAGICID_HOME` names, or None.

    Raises:
        MagicIDError: `settings-invalid` for a relative path, which would be another folder in every working directory.
    """
    named = os.environ.get("MAGICID_HOME")
    if not named:
        return None
    home = Path(os.path.expanduser(named))  # unlike Path.expanduser, it leaves the ~ of an unknown user as it is
    if not home.is_absolute():
        raise MagicIDError(
            "settings-invalid",
            f"MAGICID_HOME is '{named}', a relative path: it would be another folder in every working directory.",
            f"Give an absolute path: export MAGICID_HOME={shlex.quote(str(home.absolute()))}",
        )
    return home


def data_home() -> Path:
    """Where identities, exports and logs live; `MAGICID_HOME` moves it."""
    return own_home() or platformdirs.user_data_path("magicid")


def cache_home() -> Path:
    """Where what can be made again lives; `MAGICID_HOME` moves it."""
    home = own_home()
    return home / "cache" if home else platformdirs.user_cache_path("magicid")


def check_name(name: str) -> str:
    """A name as typed → the identity's name (lower case).

    Raises:
        MagicIDError: `name-invalid`.
    """
    lowered = name.lower()
    if not _NAME.fullmatch(lowered) or lowered in _DEVICE_NAMES:
        raise MagicIDError(
            "name-invalid",
            f"'{name}' cannot be an identity's name: letters a-z, digits, '-' and '_', starting with a letter or "
            "digit, at most 64, and no device name.",
            "Choose a name such as alice.",
        )
    return lowered


def digest(value: Any) -> str:
    """SHA-256 (hex) of plain data in canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; a large file is read once in a process while nothing about it changes."""
    facts = path.stat()
    if facts.st_size < _LARGE:
        return _digest_of(path)
    return _known_digest(path, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=64)
def _known_digest(path: Path, *_facts: int) -> str:
    return _digest_of(path)


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; when the block ends well it is synced and takes `path`'s place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, or leave the old one."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write plain data as readable JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write rows as JSON lines, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_line(path: Path, row: Any, *, durable: bool = True) -> None:
    """Append one row; a row cut short by a crash is dropped by `read_lines` and harms no later one.

    Args:
        path: the file; made if it is missing.
        row: plain data.
        durable: whether the row must survive power loss once this returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(row, ensure_ascii=False) + "\n"
    new = not path.exists()
    with path.open("ab+") as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                text = "\n" + text
        file.write(text.encode())
        if durable:
            file.flush()
            os.fsync(file.fileno())
    if new and durable:
        fsync_folder(path.parent)


def read_lines(path: Path) -> list[Any]:
    """Read JSON lines; a line that was cut short is left out. A missing file has no lines."""
    if not path.is_file():
        return []
    rows = []
    # Only "\n" ends a row: splitlines() would also cut at U+2028 and its kin inside a prompt.
    for line in path.read_text(encoding="utf-8-sig", errors="replace").split("\n"):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


class Workspace:
    """The folder of one identity, or of another method's results inside it, as one of its rounds sees it.

    Args:
        name: of the identity.
        home: where identities are; by default `data_home()`.
        method: the method, if it is not MagicID; the photos are the identity's all the same.
        number: of the round whose repository, scores, pairs and stage 2 are meant; all else is the same in each.
    """

    def __init__(self, name: str, home: Path | None = None, *, method: str | None = None, number: int = FIRST) -> None:
        self.name = check_name(name)
        self.method = method
        self.number = number
        self._home = home or data_home()
        identity = self._home / "identities" / self.name
        self.path = identity / "methods" / method if method else identity
        self.references = identity / "references"
        self.reconstruct = self.path / "reconstruct"
        own = folder_of(self.path, number)
        self.repository = own / "repository"
        self.scores = own / "scores.jsonl"
        self.other_scores = own / "other-scores.jsonl"
        self.score_again = own / "score-again.json"
        self.set_aside = own / "set-aside.jsonl"
        self.pairs = own / "pairs.jsonl"
        self.votes = own / "votes.jsonl"
        self.pages_elsewhere = self.path / "report" / "elsewhere.jsonl"
        self.pairs_report = own / "pairs.json"
        self.prefer = own / "prefer"
        self.videos = self.path / "videos"
        self.events = self.path / "events.jsonl"
        self.manifest_path = self.path / "manifest.json"

    def round(self, number: int) -> "Workspace":
        """The same folder as another round sees it."""
        return Workspace(self.name, self._home, method=self.method, number=number)

    def of_method(self, method: str) -> "Workspace":
        """The folder of another method's results on the same photos."""
        return Workspace(self.name, self._home, method=method)

    def methods(self) -> "list[Workspace]":
        """Folders of the other methods that were begun, by name."""
        return [self.of_method(path.parent.name) for path in sorted(self.path.glob("methods/*/manifest.json"))]

    @property
    def start(self) -> Path:
        """The adapter that the round starts from: stage 1's, or the final one of the round before."""
        before = self.reconstruct if self.number == FIRST else self.round(self.number - 1).prefer
        return before / "adapter.safetensors"

    def seed_of(self, seed: int | None, *item: str | int) -> int:
        """The seed of one thing of the round (48 bits): a function of the run's seed, the round and its name alone."""
        known = [seed] if self.number == FIRST else [seed, self.number]
        return int(digest([*known, *item])[:12], 16)

    @property
    def exists(self) -> bool:
        """Whether the identity was begun."""
        return self.manifest_path.is_file()

    def create(self) -> None:
        """Make the folder, readable by its owner only: it holds biometric data."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)

    def manifest(self) -> dict[str, Any]:
        """The manifest; a new one if the identity was not begun yet.

        Raises:
            MagicIDError: `manifest-unreadable` for a damaged one, `manifest-format` for an unknown format number.
        """
        if not self.exists:
            return {"format": FORMAT, "name": self.name, "created": time.time(), "stages": {}, "fallbacks": []}
        try:
            data = dict(read_json(self.manifest_path))
            known = int(data["format"]) == FORMAT
            dict(data["stages"])
        except (ValueError, TypeError, KeyError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise MagicIDError(
                "manifest-unreadable",
                f"{self.manifest_path} is damaged: {what}.",
                f"Restore it, or start over: magicid rm {self.name}",
            ) from error
        if not known:
            raise MagicIDError(
                "manifest-format",
                f"{self.manifest_path} has format {data['format']}; this version reads format {FORMAT}.",
                "Use the version of magicid that wrote it.",
            )
        return data

    def update(self, **values: Any) -> dict[str, Any]:
        """Change top-level entries of the manifest, atomically."""
        data = {**self.manifest(), **values}
        write_json(self.manifest_path, data)
        return data

    def record_fallback(self, what: str) -> None:
        """Keep in the manifest that a second-best way was taken (announcing it is the caller's job)."""
        known = self.manifest().get("fallbacks", [])
        if what not in known:
            self.update(fallbacks=[*known, what])

    def record_held(self, stage: str, **how: Any) -> None:
        """Keep in the manifest how a stage held the model: nothing of it decides what a run makes."""
        before = self.manifest().get("held", {})
        self.update(held={**before, stage: {**before.get(stage, {}), **how}})

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the identity for this process; the kernel frees it when the process ends, however it ends.

        Raises:
            MagicIDError: `identity-busy`, naming the process that holds it.
        """
        import fcntl  # not on Windows, where the command line explains itself instead of failing at import

        self.create()
        with (self.path / "lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise MagicIDError(
                    "identity-busy",
                    f"{holder} is working on '{self.name}'.",
                    f"Wait for it, or watch it: magicid status {self.name}",
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} (since {time.strftime('%Y-%m-%d %H:%M:%S')})")
            file.flush()
            self.sweep()
            yield

    def sweep(self) -> list[Path]:
        """Remove temporary files and folders that a killed process left; only the lock's holder may.

        `generate` writes to `videos/` without the lock: only what is a day old is removed there.
        """
        yesterday = time.time() - 86_400
        orphans = [
            path
            for path in self.path.rglob(".tmp-*")
            if path.parent.name != self.videos.name or _changed(path) < yesterday
        ]
        for path in orphans:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return orphans


def _changed(path: Path) -> float:
    """When a path was last changed; now, if its owner has just moved it away."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def identities(home: Path | None = None) -> list[Workspace]:
    """All identities on this machine, by name."""
    folder = (home or data_home()) / "identities"
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir() if _NAME.fullmatch(path.name))
    return [space for name in names if (space := Workspace(name, home)).exists]


def plain(value: Any) -> Any:
    """A stage's result as JSON: dataclasses become dicts, paths text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
