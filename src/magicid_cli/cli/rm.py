"""`magicid rm`: an identity and every copy that magicid has of it."""

import shutil
from typing import TYPE_CHECKING, Any

from magicid_cli.baselines.registry import method as find_method
from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.errors import MagicIDError

if TYPE_CHECKING:
    from magicid_cli.workspace import Workspace

_CONTENTS = {
    "references": "photos' verdicts, crops and captions",
    "reconstruct": "stage 1: checkpoints, adapter, log",
    "repository": "sampled clips and latents",
    "rounds": "later rounds: clips, latents, rewards, pairs, checkpoints, adapters, logs",
    "texts": "encoded prompts",
    "prefer": "stage 2: checkpoints, adapter, log",
    "videos": "generated videos",
    "compare": "tables and page of a comparison of methods",
    "methods": "results of other methods: adapters, keywords, videos, logs",
    "class-clips": "clips of anybody, for prior preservation",
    "scores.jsonl": "rewards",
    "other-scores.jsonl": "rewards by other judges",
    "score-again.json": "rewards to be made again",
    "set-aside.jsonl": "videos without rewards, and why",
    "pairs.json": "how the pairs were chosen",
    "pairs.jsonl": "preference pairs",
    "votes.jsonl": "what people said of pairs",
    "comparison": "videos of the report's comparison, and their rewards",
    "report": "reports and their previews",
    "evaluation": "what `evaluate` measured",
    "events.jsonl": "log of events",
    "manifest.json": "consent, settings, records",
    "lock": "who works on it",
}


@options.command()
def rm(
    terminal: Terminal,
    name: options.Identity,
    method: options.Method = None,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
) -> Result:
    """Delete an identity: crops, captions, latents, clips, videos, adapters, logs. Lists everything first.

    With --method, only what that method made of it.
    """
    from magicid_cli.cli.elsewhere import found
    from magicid_cli.cli.identity import gigabytes, size_of
    from magicid_cli.workspace import Workspace

    workspace = Workspace(name)
    if not workspace.path.is_dir():
        raise MagicIDError("identity-missing", f"There is no identity called '{workspace.name}'.", "See: magicid ls")
    identity, what = workspace, f"'{workspace.name}'"
    if method is not None:
        workspace, what = _of_method(workspace, method), f"what {method} made of '{workspace.name}'"
    entries: list[dict[str, Any]] = [
        {"path": path, "what": _CONTENTS.get(path.name, "-"), "files": files, "bytes": size}
        for path in sorted(workspace.path.iterdir())
        for files, size in [size_of(path)]
    ]
    total = sum(entry["bytes"] for entry in entries)
    outside = found(workspace)
    data = {"name": workspace.name, "path": workspace.path, "entries": entries, "bytes": total, "outside": outside}
    table = Table(
        ("DELETE", "WHAT", "FILES", "SIZE"),
        [(entry["path"].name, entry["what"], entry["files"], gigabytes(entry["bytes"])) for entry in entries],
    )
    where = f"In {workspace.path}:"
    rest = ["Not deleted, because it lies outside:\n" + "\n".join(f"  {path}" for path in outside)] if outside else []
    if dry_run:
        return Result({**data, "deleted": False}, [where, table, *rest], [workspace.path])
    if yes:
        terminal.say(where, table)
    terminal.confirm(f"Delete {what} for good?", where, table, yes=yes, declined="Nothing was deleted.")
    with identity.lock():
        _delete(workspace)
    done = f"Deleted {what} ({gigabytes(total)})."
    return Result({**data, "deleted": True}, [done, *rest], [workspace.path])


def _of_method(identity: "Workspace", method: str) -> "Workspace":
    """The folder of a method's results.

    Raises:
        MagicIDError: `settings-unknown`, `settings-invalid` for MagicID itself, `identity-unfinished`.
    """
    if not find_method(method).module:
        raise MagicIDError(
            "settings-invalid", "MagicID's own results are the identity.", f"To delete it: magicid rm {identity.name}"
        )
    found = identity.of_method(method)
    if not found.path.is_dir():
        what = f"'{identity.name}' has nothing that {method} made."
        raise MagicIDError("identity-unfinished", what, f"See: magicid status {identity.name}")
    return found


def _delete(workspace: "Workspace") -> None:
    """The manifest goes last: whatever interrupts this, `ls` still shows the identity and `rm` can be repeated."""
    for path in sorted(workspace.path.iterdir(), key=lambda path: path == workspace.manifest_path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    workspace.path.rmdir()
