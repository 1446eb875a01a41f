"""`magicid review`: a page on this machine where a person judges preference pairs, without knowing what won."""

import os
import sys
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magicid_cli.cli import options
from magicid_cli.cli.output import Result, Terminal
from magicid_cli.cli.pairs import scored
from magicid_cli.repeating import customize
from magicid_cli.rounds import named

if TYPE_CHECKING:
    from magicid_cli.pages.review import Server, Sheet
    from magicid_cli.votes import Clip
    from magicid_cli.workspace import Workspace

_PHOTOS = 8  # shown beside the videos
_POLL_S = 0.2
_MOST_MISSED = 1000
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the page; 0 takes a free one")]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser, if there is one")]
Missed = Annotated[
    int, typer.Option("--missed", min=0, max=_MOST_MISSED, help="Pairs to show besides that just missed selection")
]


@options.command()
def review(
    terminal: Terminal,
    name: options.SomeIdentity = None,
    number: options.Round = None,
    port: Port = 0,
    browser: Browser = True,
    missed: Missed = 20,
) -> Result:
    """Judge an identity's preference pairs yourself, on a page that only this machine can open.

    Every pair is shown blind: sides by chance, no scores before the vote. Votes are saved at once, and the next start
    goes on where this one ended; Ctrl-C ends it. The address is printed at once: with --json or -q a program can read
    it while the page is there. Nothing changes until `magicid customize` runs with --use-votes.
    """
    workspace, states = scored(name, number)
    selected = states.get(named("select", workspace.number)) == "done"
    from magicid_cli.pages.review import Server

    with Server(lambda token: sheet_of(workspace, missed, token, selected=selected), port) as server:
        data = {
            "name": workspace.name,
            "round": workspace.number,
            "url": server.url,
            "port": server.server_port,
            **server.sheet.summary(),
        }
        with suppress(KeyboardInterrupt):  # to end it so is not to interrupt it: nothing is left undone
            terminal.announce(Result(data, [server.url], [server.url]))
            _tell(terminal, server, opened=_open(terminal, server.url, wanted=browser))
            server.serve_forever(_POLL_S)
        said = _said(server.sheet.summary())
    then = following(workspace)
    return Result({**data, "next": then}, [], hint=f"{said}\nTo train on them: {then}")


def following(workspace: "Workspace") -> str:
    """The identity's own command and --use-votes: with other settings, the pairs would be others, too."""
    return customize(workspace, {"pairs.use_votes": True})


def sheet_of(workspace: "Workspace", spare: int, token: str, *, selected: bool) -> "Sheet":
    """The pairs that are selected by the rules alone or by the votes, and those that just missed.

    Args:
        workspace: the identity, as the round sees it.
        spare: how many that just missed; those that are voted on are shown besides.
        token: the secret of the page.
        selected: whether `pairs.jsonl` holds.
    """
    from magicid_cli import votes
    from magicid_cli.cli.identity import recorded_settings
    from magicid_cli.pages.review import Sheet, shown_pairs
    from magicid_cli.stages import select
    from magicid_cli.workspace import read_lines

    # What the rules alone select is always shown: who dropped a pair may come back to it.
    settings = recorded_settings(workspace, {"pairs.use_votes": False})
    choice = select.choose(workspace, settings, spare=spare)
    select.require(choice, workspace)
    videos = read_lines(workspace.repository / "videos.jsonl")
    paths = {row["id"]: workspace.repository / row["clip"] for row in videos}
    clips = {
        row["id"]: clip for row in videos if paths[row["id"]].is_file() and (clip := select.clip_of(workspace, row))
    }
    missed = choice.missed
    shown = {_key(row, clips) for row in (*choice.rows, *missed)}
    beyond = votes.read(workspace).standing.keys() - shown
    if beyond:  # an earlier page offered more: what just missed then is no selected pair now
        every = select.choose(workspace, settings, spare=_MOST_MISSED).missed
        missed = [*missed, *(row for row in every if _key(row, clips) in beyond)]
    now = read_lines(workspace.pairs) if selected else []
    by_vote = [row for row in now if _names(row) not in set(map(_names, missed))]
    photos = sorted(workspace.references.glob("[0-9]*.png"))[:_PHOTOS]
    return Sheet(workspace, shown_pairs([*choice.rows, *by_vote], missed, clips), paths, photos, token)


def _key(row: Mapping[str, Any], clips: "Mapping[str, Clip]") -> str | None:
    """The pair's name among votes; None if one of its clips is not there."""
    from magicid_cli.votes import pair_key

    winner, rejected = (clips.get(row[side]["id"]) for side in ("winner", "rejected"))
    return pair_key(winner, rejected) if winner and rejected else None


def _names(row: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((row["winner"]["id"], row["rejected"]["id"]))


def _open(terminal: Terminal, url: str, *, wanted: bool) -> bool:
    """Whether a browser was opened: not for a program, and not where it could only be one inside the terminal."""
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(wanted and screen and terminal.interactive and not terminal.json and webbrowser.open(url))


def _tell(terminal: Terminal, server: "Server", *, opened: bool) -> None:
    counts = server.sheet.summary()
    selected, missed = counts["selected"], counts["just_missed"]
    lines = [
        f"{selected['pairs']} selected pairs, {selected['voted']} of them judged; "
        f"{missed['pairs']} that just missed, {missed['voted']} judged. Ctrl-C ends it."
    ]
    if not opened:
        lines.append("Open the address in a browser on this machine.")
        if os.environ.get("SSH_CONNECTION"):
            port = server.server_port
            lines.append(f"From elsewhere, first: ssh -L {port}:127.0.0.1:{port} THIS-MACHINE")
    terminal.say("\n".join(lines))


def _said(counts: Mapping[str, Any]) -> str:
    effects = ", ".join(f"{number} {effect}" for effect, number in counts["effects"].items())
    rest = counts["selected"]["pairs"] - counts["selected"]["voted"]
    left = f"{rest} selected pairs are left; the same command goes on" if rest else "all selected pairs are judged"
    return f"Votes: {effects or 'none yet'}; {left}."
