"""`--use-votes` in the stage and on the command line. Truth: the pairs without votes, and the manifest's keys."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from magicid_cli import pipeline, votes
from magicid_cli.cli.app import main
from magicid_cli.cli.review import following
from magicid_cli.config import with_values
from magicid_cli.events import Event, Events
from magicid_cli.stages import select
from magicid_cli.votes import Clip
from magicid_cli.workspace import Workspace, file_digest, read_json, read_lines, write_lines
from small_repository import scored, settings


def with_clips(workspace: Workspace) -> Workspace:
    """Give every video a content, so that votes can name it, and a prompt of its own."""
    rows = read_lines(workspace.repository / "videos.jsonl")
    for row in rows:
        row["clip_sha256"] = f"content of {row['id']}"
        row["prompt"] = f"prompt of {row['id']}" if row["prompt_id"] is None else f"prompt {row['prompt_id']}"
    write_lines(workspace.repository / "videos.jsonl", rows)
    return workspace


@pytest.fixture
def small() -> Workspace:
    return with_clips(scored())


def clip(video: str) -> Clip:
    return Clip(video, f"content of {video}")


def say(workspace: Workspace, row: dict[str, Any], choice: str, *, selected: bool = True) -> None:
    """A vote on a line of `pairs.jsonl`, whose winner was shown on the left."""
    left, right = clip(row["winner"]["id"]), clip(row["rejected"]["id"])
    votes.cast(workspace, left, right, choice, proposed="left", selected=selected)


def choose(workspace: Workspace, **changes: Any) -> select.Choice:
    return select.choose(workspace, settings(**{"pairs.use_votes": True, **changes}))


def ends(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["winner"]["id"], row["rejected"]["id"]) for row in rows]


def test_votes_that_are_not_asked_for_change_nothing(small: Workspace) -> None:
    plain = choose(small, **{"pairs.use_votes": False})
    for row in plain.rows:
        say(small, row, "drop")
    again = choose(small, **{"pairs.use_votes": False})
    assert again == plain
    assert "votes" not in again.report


def test_each_vote_does_what_it_says(small: Workspace) -> None:
    plain = select.choose(small, settings(), spare=2)
    train = [row for row in plain.rows if row["split"] == "train"]
    kept, turned, equal, dropped = train[:4]
    added = plain.missed[0]
    for row, choice in ((kept, "left"), (turned, "right"), (equal, "equal"), (dropped, "drop")):
        say(small, row, choice)
    say(small, added, "left", selected=False)
    found = choose(small)
    pairs = ends([row for row in found.rows if row["split"] == "train"])
    assert ends([kept])[0] in pairs
    assert ends([turned])[0][::-1] in pairs and ends([turned])[0] not in pairs
    assert not set(ends([equal, dropped])) & set(pairs)
    assert ends([added])[0] in pairs
    assert len(pairs) == len(train)
    effects = {"confirmed": 1, "flipped": 1, "equal": 1, "dropped": 1, "added": 1}
    assert found.report["votes"] == {"effects": effects, "without_effect": [], "unreadable": 0}
    reasons = {pair: row["why"] for row in found.rows for pair in ends([row])}
    assert reasons[ends([kept])[0]] == "a person confirmed it"
    assert reasons[ends([turned])[0][::-1]] == "a person turned it round"


@pytest.mark.parametrize(("prompt_from", "expected"), [("rejected", "prompt 0"), ("static", "prompt of static-000")])
def test_an_identity_pair_that_is_turned_round_keeps_its_prompt(
    small: Workspace, prompt_from: str, expected: str
) -> None:
    votes.cast(small, clip("static-000"), clip("tuned-000-0"), "right", proposed="left", selected=True)
    found = choose(small, **{"pairs.prompt": prompt_from, "pairs.held_out": 0})
    (row,) = (row for row in found.rows if row["winner"]["id"] == "tuned-000-0" and row["kind"] == "identity")
    assert row["rejected"]["id"] == "static-000"
    assert row["prompt"] == expected


def test_votes_outlive_another_selection_and_tell_what_is_gone(small: Workspace) -> None:
    plain = select.choose(small, settings())
    first, second = plain.rows[0], plain.rows[-1]
    say(small, first, "right")
    say(small, second, "left")
    rows = read_lines(small.repository / "videos.jsonl")
    for row in rows:
        if row["id"] == second["winner"]["id"]:
            row["clip_sha256"] = "sampled anew"
    write_lines(small.repository / "videos.jsonl", rows)
    found = choose(small, **{"pairs.tau": 9.0})
    gone = [second["winner"]["id"], second["rejected"]["id"]]
    assert found.report["votes"]["effects"] == {"flipped": 1}
    assert [one["clips"] for one in found.report["votes"]["without_effect"]] == [gone]
    assert any(f"A vote has no effect, on {gone[0]} and {gone[1]}" in text for text in found.report["warnings"])


def test_many_votes_without_effect_are_told_in_a_few_lines(small: Workspace) -> None:
    for number in range(9):
        votes.cast(
            small, Clip(f"old-{number}", f"{number}"), clip("static-000"), "left", proposed="left", selected=True
        )
    warnings = [text for text in choose(small).report["warnings"] if "no effect" in text]
    assert len(warnings) == 6
    assert warnings[-1] == "4 more votes have no effect; pairs.json names them."


def test_lines_that_are_no_vote_are_told(small: Workspace) -> None:
    small.votes.write_text('{"format": 1}\n')
    assert any("1 lines that are no vote" in text for text in choose(small).report["warnings"])


def test_only_where_votes_count_do_they_make_the_stage_stale(small: Workspace) -> None:
    without, counted = settings(), settings(**{"pairs.use_votes": True})

    def keys() -> tuple[str, str]:
        return tuple(pipeline.key_of("select", small, one, []) for one in (without, counted))  # type: ignore[return-value]

    before = keys()
    vote = votes.cast(small, clip("static-000"), clip("tuned-000-0"), "drop", proposed="left", selected=True)
    after = keys()
    assert after[0] == before[0]
    assert after[1] != before[1]
    votes.undo(small, vote.id)
    assert keys() == before
    votes.cast(small, clip("tuned-000-0"), clip("static-000"), "drop", proposed="right", selected=True)
    assert keys() == after  # the same opinion, said another time


def test_the_stage_writes_what_votes_did_and_says_what_has_no_effect(small: Workspace) -> None:
    say(small, select.choose(small, settings()).rows[0], "drop")
    votes.cast(small, Clip("old", "old"), clip("static-000"), "left", proposed="left", selected=True)
    heard: list[Event] = []
    select.run(small, settings(**{"pairs.use_votes": True}), Events(heard.append))
    assert read_json(small.pairs_report)["votes"]["effects"] == {"dropped": 1}
    assert any("A vote has no effect, on old and static-000" in event.data.get("message", "") for event in heard)


def test_a_run_with_votes_does_again_exactly_what_follows(alice: Path) -> None:
    workspace = Workspace("alice")
    photos = sorted((alice / "photos").glob("*.png"))
    values = workspace.manifest()["settings"]["values"]
    recorded = settings(**{name: value for name, value in _flat(values).items() if value is not None})
    assert {one.state for one in pipeline.states(workspace, recorded, photos)} == {"cached"}
    counted = with_values(recorded, {"pairs.use_votes": True})
    row = read_lines(workspace.pairs)[0]
    clips = {one["id"]: one["clip_sha256"] for one in read_lines(workspace.repository / "videos.jsonl")}
    left, right = (Clip(row[side]["id"], clips[row[side]["id"]]) for side in ("winner", "rejected"))
    votes.cast(workspace, left, right, "right", proposed="left", selected=True)
    assert [one.name for one in pipeline.states(workspace, recorded, photos) if one.state != "cached"] == []
    stale = [one.name for one in pipeline.states(workspace, counted, photos) if one.state != "cached"]
    assert stale == ["select", "prefer"]
    before = pipeline.key_of("prefer", workspace, recorded, photos)
    select.run(workspace, counted, Events())
    assert pipeline.key_of("prefer", workspace, recorded, photos) != before


def test_a_run_with_votes_trains_to_its_end_on_what_people_said(
    alice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace("alice")
    photos = [str(photo) for photo in sorted((alice / "photos").glob("*.png"))]
    program, *told = shlex.split(following(workspace))  # the command that `review` ends with
    at = told.index("PHOTOS")
    assert program == "magicid" and "--use-votes" in told
    pair = read_lines(workspace.pairs)[0]
    names = [pair[side]["id"] for side in ("winner", "rejected")]
    clips = {one["id"]: one["clip_sha256"] for one in read_lines(workspace.repository / "videos.jsonl")}
    left, right = (Clip(name, clips[name]) for name in names)
    votes.cast(workspace, left, right, "right", proposed="left", selected=True)
    before = {path: file_digest(path) for path in sorted(workspace.path.glob("*/adapter.safetensors"))}
    command = [*told[:at], *photos, *told[at + 1 :], "--json"]
    assert main([*command, "-n"]) == 0
    stages = json.loads(capsys.readouterr().out)["data"]["stages"]
    assert [one["name"] for one in stages if one["state"] != "cached"] == ["select", "prefer"]
    assert main([*command, "--yes"]) == 0
    first = read_lines(workspace.pairs)[0]
    assert [first[side]["id"] for side in ("winner", "rejected")] == names[::-1]
    after = {path: file_digest(path) for path in before}
    assert [path.parent.name for path in before if before[path] != after[path]] == ["prefer"]


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}.{inner}": one for inner, one in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def test_pairs_shows_what_votes_would_select(small: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    row = read_lines(small.pairs)[0]
    say(small, row, "drop")
    assert main(["pairs", "alice", "--use-votes", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["kept"] == len(read_lines(small.pairs)) - 1
    assert ends([row])[0] not in ends(data["pairs"])
    assert data["report"]["votes"]["effects"] == {"dropped": 1}
