"""`magicid pairs`: the preference pairs with their rewards and reasons, and what other rules would select."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Table, Terminal
from magicid_cli.cli.score import REWARDS, no_videos
from magicid_cli.config import KNOBS
from magicid_cli.errors import MagicIDError
from magicid_cli.repeating import customize
from magicid_cli.rounds import FIRST, named

if TYPE_CHECKING:
    from magicid_cli.workspace import Workspace

_WIDTH = 80


@options.command("pairs", "seed", recorded=True, also={"pairs.count": "--pairs"})
def pairs(
    terminal: Terminal, flags: options.Flags, name: options.SomeIdentity = None, number: options.Round = None
) -> Result:
    """Show an identity's preference pairs: both videos with their rewards, raw and on the 1-10 scale, and why.

    With a flag, show what the pairs would be instead. Nothing is written: `customize` with the same flag makes it so.
    """
    from magicid_cli.cli.identity import recorded_settings

    workspace, states = scored(name, number)
    from magicid_cli.stages import select
    from magicid_cli.workspace import read_json, read_lines

    now = read_lines(workspace.pairs) if states.get(named("select", workspace.number)) == "done" else []
    if flags.values or not now:
        choice = select.choose(workspace, recorded_settings(workspace, flags.values))
        select.require(choice, workspace)
        rows, report = choice.rows, choice.report
    else:
        rows, report = now, read_json(workspace.pairs_report)
    given = {KNOBS[name].flag or name: value for name, value in flags.values.items()}
    data: dict[str, Any] = {
        "name": workspace.name,
        "round": workspace.number,
        "what_if": given or None,
        "selected": _counts(now),
        "would_be": None,
    }
    blocks: list[str | Table] = [_heading(workspace, rows, given, now)]
    if given:
        data |= {"would_be": _counts(rows), "kept": len(_names(rows) & _names(now))}
        blocks.append(_compared(now, rows))
    for split in ("train", "held-out"):
        of_split = [row for row in rows if row["split"] == split]
        blocks += [f"{split.upper()}\n{_shown(of_split)}"] if of_split else []
    blocks.append(_fates(report))
    brief = [f"{row['winner']['id']} {row['rejected']['id']}" for row in rows]
    return Result({**data, "pairs": rows, "report": report}, blocks, brief, hint=_hint(workspace, given, now))


def scored(name: str | None, number: int | None) -> "tuple[Workspace, dict[str, str]]":
    """The identity, as a round sees it whose videos are scored, and the states of its stages.

    Raises:
        MagicIDError: as `identity.choose` and `identity.as_round`; `scores-missing`.
    """
    from magicid_cli.cli.identity import as_round, choose, stage_states

    workspace = choose(name)
    states = stage_states(workspace.manifest())
    workspace = as_round(workspace, number, states, "score")
    if states.get(named("sample", workspace.number)) != "done":
        raise no_videos(workspace)
    if states.get(named("score", workspace.number)) != "done":
        which = f" --round {number}" if number else ""
        raise MagicIDError(
            "scores-missing",
            f"The videos of '{workspace.name}' are not scored, or not to the end.",
            f"Score them: magicid score {workspace.name}{which}",
        )
    return workspace, states


def _heading(workspace: "Workspace", rows: Sequence[Any], given: Mapping[str, Any], now: Sequence[Any]) -> str:
    counted = ", ".join(f"{number} {what}" for what, number in _counts(rows).items())
    if given:
        flags = " ".join(f"{flag} {options.value_text(value)}" for flag, value in given.items())
        return f"What if {flags}: {counted}. Nothing was written."
    whose = f"'{workspace.name}'" + ("" if workspace.number == FIRST else f", round {workspace.number}")
    if not now:
        return f"Pairs that the scores of {whose} would give: {counted}. Nothing was written."
    return f"Pairs of {whose}: {counted}."


def _hint(workspace: "Workspace", given: Mapping[str, Any], now: Sequence[Any]) -> str:
    if given:
        return "To select and train like this, add the flags to the `magicid customize` command."
    return "" if now else f"To select them and train: {customize(workspace)}"


def _counts(rows: Sequence[Any]) -> dict[str, int]:
    """How many pairs there are, by what they are for."""
    training = [row["kind"] for row in rows if row["split"] == "train"]
    kinds = {kind: training.count(kind) for kind in ("identity", "dynamic")}
    return {**kinds, "held-out": len(rows) - len(training)}


def _names(rows: Sequence[Any]) -> set[tuple[str, str]]:
    return {(row["winner"]["id"], row["rejected"]["id"]) for row in rows}


def _compared(now: Sequence[Any], rows: Sequence[Any]) -> Table:
    """The selection on disk beside the one asked for."""
    before, after = _counts(now), _counts(rows)
    cells: list[tuple[Any, ...]] = [(what, before[what], after[what]) for what in before]
    cells += [("in both", len(both := _names(now) & _names(rows)), len(both))]
    return Table(("PAIRS", "NOW", "WHAT IF"), cells)


def _shown(rows: Sequence[Any]) -> str:
    """Two lines a pair, the preferred video first, and its reason below them."""
    cells = []
    for number, row in enumerate(rows, 1):
        for first, side in ((True, row["winner"]), (False, row["rejected"])):
            rewards = (f"{side['rewards'][r]['raw']:.3f} ({side['rewards'][r]['scaled']:.1f})" for r in REWARDS)
            cells.append((number if first else "", row["kind"] if first else "", side["id"], *rewards))
    header = ("#", "KIND", "VIDEO", *(f"{reward.upper()} (1-10)" for reward in REWARDS))
    head, *lines = Table(header, cells).text().split("\n")
    text = [head]
    for number, row in enumerate(rows):
        text += lines[2 * number : 2 * number + 2]
        text += textwrap.wrap(row["why"], _WIDTH, initial_indent="   ", subsequent_indent="   ")
    return "\n".join(text)


def _fates(report: Mapping[str, Any]) -> str:
    """What became of all pairs that training considered, and what the user should know."""
    lines = [f"tau: {report['tau']:.2f}"] if report["tau"] is not None else []
    for kind in ("identity", "dynamic"):
        counts = [f"{what.replace('_', ' ')} {number}" for what, number in report["training"][kind].items() if number]
        lines += textwrap.wrap(f"{kind}: {', '.join(counts) or 'none'}", _WIDTH, subsequent_indent="   ")
    aside = report.get("set_aside") or []
    lines += [f"set aside, in no pair: {', '.join(aside)}"] if aside else []
    return "\n".join([*lines, *(f"warning: {text}" for text in report["warnings"])])
