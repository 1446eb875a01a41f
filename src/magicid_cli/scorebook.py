"""Scores on disk: a line each, named after everything that determines it, and never deleted before they are replaced.

`scores.jsonl` holds the scores that count: the present judge's for every video and reward. While videos are judged, new
lines gather at its end. What other judges said of videos that are still here is kept in `other-scores.jsonl`, so that a
judge who is asked once more need not judge once more. Scores that somebody wants made again are listed in
`score-again.json`, and stay until each is replaced.
"""

from collections.abc import Collection, Sequence
from typing import Any

from magicid_cli.config import Settings
from magicid_cli.rewards import flow
from magicid_cli.workspace import Workspace, append_line, read_json, read_lines, write_json, write_lines


class Scorebook:
    """The scores of an identity.

    Attributes:
        rows: all of them, those of other judges too, by their key.
        again: keys of the scores that are to be made again.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        lines = (row for path in (workspace.other_scores, workspace.scores) for row in read_lines(path))
        # Of two lines with one key the later one replaced the earlier.
        self.rows: dict[str, dict[str, Any]] = {row["key"]: row for row in lines}
        self.again: list[str] = read_json(workspace.score_again) if workspace.score_again.is_file() else []

    def lacks(self, key: str) -> bool:
        """Whether this score is still to be made."""
        return key not in self.rows or key in self.again

    def keep(self, row: dict[str, Any]) -> None:
        """Put a score on disk, safe from power loss."""
        append_line(self._workspace.scores, row)
        self.rows[row["key"]] = row
        if row["key"] in self.again:
            self._list([key for key in self.again if key != row["key"]])

    def make_again(self, keys: Collection[str]) -> None:
        """Have scores made again that are there; some that are listed already are an earlier wish, which goes on."""
        if not set(keys) & set(self.again):
            self._list(sorted({*self.again, *(key for key in keys if key in self.rows)}))

    def settle(self, rows: Sequence[dict[str, Any]], contents: Collection[str]) -> None:
        """Write the scores that count, and beside them the others of videos that are still here.

        Args:
            rows: what counts.
            contents: SHA-256 of the clips that are here.
        """
        counted = {row["key"] for row in rows}
        others = [
            row for key, row in sorted(self.rows.items()) if key not in counted and row.get("content") in contents
        ]
        if others:
            write_lines(self._workspace.other_scores, others)
        write_lines(self._workspace.scores, rows)
        if not others:
            self._workspace.other_scores.unlink(missing_ok=True)
        give_up(self._workspace)

    def _list(self, keys: list[str]) -> None:
        self.again = keys
        write_json(self._workspace.score_again, keys)


def give_up(workspace: Workspace) -> None:
    """Let the scores that were to be made again, and have not been, hold as they are."""
    workspace.score_again.unlink(missing_ok=True)


def flow_of(workspace: Workspace, settings: Settings) -> flow.Choice:
    """The optical flow to measure with. The last score on disk was made last."""
    found = [row["made_by"] for row in read_lines(workspace.scores) if row["reward"] == "dynamics"]
    return flow.choose(settings.rewards.flow, found[-1] if found else "")
