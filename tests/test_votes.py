"""What votes stand. Truth: the lines of `votes.jsonl`, written here by hand or appended and read as text."""

import json
import threading
from typing import Any

import pytest

from magicid_cli import votes
from magicid_cli.votes import Clip, pair_key
from magicid_cli.workspace import Workspace

ONE, TWO, THREE = Clip("tuned-000-0", "1" * 64), Clip("static-000", "2" * 64), Clip("tuned-000-1", "3" * 64)


def alice() -> Workspace:
    workspace = Workspace("alice")
    workspace.create()
    return workspace


def cast(workspace: Workspace, choice: str, left: Clip = ONE, right: Clip = TWO, **changes: Any) -> votes.Vote:
    return votes.cast(workspace, left, right, choice, **{"proposed": "left", "selected": True, **changes})


def choices(workspace: Workspace) -> list[str]:
    return [vote.choice for vote in votes.read(workspace).standing.values()]


def test_a_pair_has_one_name_whichever_comes_first() -> None:
    assert pair_key(ONE, TWO) == pair_key(TWO, ONE) == pair_key(Clip("another name", ONE.sha256), TWO)
    assert pair_key(ONE, TWO) != pair_key(ONE, THREE)


def test_the_last_vote_on_a_pair_stands_and_every_line_stays() -> None:
    workspace = alice()
    cast(workspace, "left")
    first = workspace.votes.read_text()
    cast(workspace, "right", TWO, ONE)
    assert choices(workspace) == ["right"]
    assert workspace.votes.read_text().startswith(first) and workspace.votes.read_text().count("\n") == 2


def test_undo_brings_back_what_was_said_before() -> None:
    workspace = alice()
    cast(workspace, "left")
    second = cast(workspace, "drop")
    votes.undo(workspace, second.id)
    assert choices(workspace) == ["left"]
    votes.undo(workspace, second.id)  # another tab takes the same vote back
    assert choices(workspace) == ["left"]
    votes.undo(workspace, next(iter(votes.read(workspace).standing.values())).id)
    assert choices(workspace) == []


def test_votes_stand_in_the_order_in_which_they_were_cast() -> None:
    workspace = alice()
    for left, right in ((ONE, TWO), (ONE, THREE), (TWO, ONE)):
        cast(workspace, "left", left, right)
    assert list(votes.read(workspace).standing) == [pair_key(ONE, THREE), pair_key(ONE, TWO)]


@pytest.mark.parametrize(
    ("choice", "proposed", "selected", "effect", "winner"),
    [
        ("left", "left", True, "confirmed", ONE),
        ("right", "left", True, "flipped", TWO),
        ("right", "right", False, "added", TWO),
        ("left", "right", False, "added flipped", ONE),
        ("equal", "left", True, "equal", None),
        ("drop", "left", True, "dropped", None),
    ],
)
def test_what_a_vote_does(choice: str, proposed: str, selected: bool, effect: str, winner: Clip | None) -> None:
    vote = cast(alice(), choice, proposed=proposed, selected=selected)
    assert vote.effect == effect
    assert (vote.preferred or (None,))[0] == winner


def test_a_choice_that_does_not_exist_is_no_vote() -> None:
    workspace = alice()
    with pytest.raises(ValueError, match="no choice"):
        cast(workspace, "both")
    assert not workspace.votes.exists()


def test_a_vote_that_was_cut_short_harms_no_other_one() -> None:
    workspace = alice()
    cast(workspace, "left")
    cut = workspace.votes.read_text()[:-20]
    workspace.votes.write_text(cut)  # the power went while the line was written
    cast(workspace, "equal", ONE, THREE)
    assert choices(workspace) == ["equal"]


def test_lines_that_are_no_vote_are_counted_and_count_for_nothing() -> None:
    workspace = alice()
    good = cast(workspace, "left")
    row = json.loads(workspace.votes.read_text())
    strange = [{**row, "choice": "maybe"}, {**row, "format": 99}, {"id": 1}, [1], {**row, "left": "x"}]
    with workspace.votes.open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in strange)
    ballot = votes.read(workspace)
    assert ballot.unreadable == len(strange)
    assert list(ballot.standing.values()) == [good]


def test_two_tabs_and_two_servers_lose_no_vote() -> None:
    workspace = alice()
    clips = [Clip(f"tuned-{n:03d}-0", f"{n:064x}") for n in range(8)]

    def vote(clip: Clip) -> None:
        for number in range(10):
            cast(workspace, "left" if number % 2 else "right", clip, THREE)

    threads = [threading.Thread(target=vote, args=(clip,)) for clip in clips]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = workspace.votes.read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 80
    assert choices(workspace) == ["left"] * 8


def test_a_removed_identity_is_not_made_again_by_a_vote() -> None:
    workspace = Workspace("alice")
    with pytest.raises(FileNotFoundError):
        cast(workspace, "left")
    assert not workspace.path.exists()


def test_what_selection_reads_is_the_same_however_it_came_about() -> None:
    workspace = alice()
    before = cast(workspace, "drop")
    cast(workspace, "right", THREE, ONE)
    first = votes.read(workspace).meaning()
    votes.undo(workspace, before.id)
    assert votes.read(workspace).meaning() != first
    cast(workspace, "drop", TWO, ONE, proposed="right")
    assert votes.read(workspace).meaning() == first
    assert first == sorted([[ONE.sha256, TWO.sha256, "dropped"], [ONE.sha256, THREE.sha256, "flipped"]])


def test_votes_are_found_by_content_and_names_tell_equal_clips_apart() -> None:
    workspace = alice()
    cast(workspace, "left", ONE, TWO)
    cast(workspace, "equal", ONE, THREE)
    ballot = votes.read(workspace)
    renamed = [None, Clip("static-007", TWO.sha256), Clip("tuned-009-0", ONE.sha256)]
    located = votes.locate(ballot, renamed)
    assert list(located.preferred) == [(2, 1)]
    assert [vote.right for vote in located.gone] == [THREE]
    twins = [Clip("static-001", TWO.sha256), TWO, ONE, THREE]
    assert list(votes.locate(ballot, twins).preferred) == [(2, 1)]
    assert list(votes.locate(ballot, twins).without) == [(2, 3)]
