"""`magicid ls`: the identities on this machine."""

from typing import Any

from magicid_cli.cli.options import command
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.errors import MagicIDError


@command()
def ls(terminal: Terminal) -> Result:
    """List the identities on this machine."""
    from magicid_cli.cli.identity import gigabytes, holder, manifest_or_error, progress, size_of, when
    from magicid_cli.workspace import data_home, identities

    rows: list[dict[str, Any]] = []
    for workspace in identities():
        manifest, error = manifest_or_error(workspace)
        videos = sum(len(list(space.videos.glob("*.mp4"))) for space in (workspace, *workspace.methods()))
        rows.append(
            {
                "name": workspace.name,
                "model": manifest.get("model"),
                "state": _unreadable(error) if error else progress(manifest),
                "running": holder(workspace),
                "methods": [space.method for space in workspace.methods()],
                "videos": videos,
                "bytes": size_of(workspace.path)[1],
                "created": manifest.get("created"),
                "path": workspace.path,
            }
        )
    # A column for those who compare methods; nobody else is to look at dashes.
    others = [("METHODS", *(", ".join(row["methods"]) or "-" for row in rows))]
    others = others if any(row["methods"] for row in rows) else []
    table = Table(
        ("NAME", "MODEL", "STATE", *(column[0] for column in others), "VIDEOS", "SIZE", "CREATED"),
        [
            (
                row["name"],
                row["model"] or "-",
                f"{row['state']} (running)" if row["running"] else row["state"],
                *(column[number] for column in others),
                row["videos"],
                gigabytes(row["bytes"]),
                when(row["created"]),
            )
            for number, row in enumerate(rows, 1)
        ],
    )
    nothing = f"No identity in {data_home()}. Make one: magicid customize PHOTOS --name NAME"
    return Result({"identities": rows}, [table if rows else nothing], [row["name"] for row in rows])


def _unreadable(error: MagicIDError) -> str:
    return "made by another version" if error.code == "manifest-format" else "manifest damaged"
