"""`magicid cache`: the weights on this machine."""

from typing import Annotated, Any, Literal

import typer

from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.errors import MagicIDError


@options.command()
def cache(
    terminal: Terminal,
    action: Annotated[
        Literal["ls", "rm", "path"], typer.Argument(help="ls lists, rm deletes a repository, path prints the folder")
    ] = "ls",
    repo: Annotated[str | None, typer.Argument(metavar="REPO", help="For rm: a repository of the list")] = None,
    yes: options.Yes = False,
) -> Result:
    """List or delete the weights in the cache."""
    if (action == "rm") != (repo is not None):
        wanted = "needs a repository" if action == "rm" else "takes no repository"
        raise MagicIDError("usage", f"`magicid cache {action}` {wanted}.", "See: magicid cache --help")
    if repo is not None:
        return _remove(terminal, repo, yes)
    return _list() if action == "ls" else _path()


def _list() -> Result:
    from magicid_cli import hub
    from magicid_cli.cli.identity import gigabytes
    from magicid_cli.cli.weights import licences

    known = licences()
    found = hub.cached()
    rows: list[dict[str, Any]] = [
        {
            "repo": one.repo,
            "commits": list(one.commits),
            "files": one.files,
            "bytes": one.bytes,
            "licence": known.get(one.repo),
            "path": one.path,
        }
        for one in found
    ]
    table = Table(
        ("REPOSITORY", "COMMIT", "FILES", "SIZE", "LICENCE"),
        [
            (
                row["repo"],
                ", ".join(commit[:12] for commit in row["commits"]) or "-",
                row["files"],
                gigabytes(row["bytes"]),
                (row["licence"] or "-").partition(":")[0],
            )
            for row in rows
        ],
    )
    total = f"{gigabytes(sum(one.bytes for one in found))} in {hub.hub_cache()}"
    nothing = f"No weights in {hub.hub_cache()}. Fetch them: magicid prepare"
    blocks: list[str | Table] = [table, total] if rows else [nothing]
    return Result({"path": hub.hub_cache(), "repositories": rows}, blocks, [one.repo for one in found])


def _remove(terminal: Terminal, repo: str, yes: bool) -> Result:
    from magicid_cli import hub
    from magicid_cli.cli.identity import gigabytes

    found = next((one for one in hub.cached() if one.repo == repo), None)
    if found is None:
        raise MagicIDError("cache-missing", f"No weights of '{repo}' are in the cache.", "See: magicid cache")
    shared = f"{gigabytes(found.bytes)} in {found.path}; other tools that share this cache lose them too."
    terminal.confirm(f"Delete the weights of {repo}?", shared, yes=yes, declined="Nothing was deleted.")
    freed = hub.remove(repo)
    return Result({"repo": repo, "bytes": freed}, [f"Deleted {repo} ({gigabytes(freed)})."], [repo])


def _path() -> Result:
    from magicid_cli import hub

    return Result({"path": hub.hub_cache()}, [str(hub.hub_cache())], [hub.hub_cache()])
