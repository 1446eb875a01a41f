"""Pair selection against cases worked out by hand, and against its limits of time and memory."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from magicid_cli import hpo
from repositories import RULE, Rewards, Videos, repository


def kinds(selection: hpo.Selection) -> list[str]:
    return [pair.kind for pair in selection.pairs]


def test_identity_pairs_by_hand() -> None:
    """Raw dynamics 0, 3, 6, 9 and static 0 → scaled 1, 4, 7, 10 and 1: leads 0, 3, 6, 9, their median 4.5 = tau.

    Identity 0.9 against 0.5, 0.1, 0.2, 0.0: v002 and v003 lead by more than tau; v001 (gap 8) comes before v000
    (gap 4) on the scale where 0 → 1 and 0.9 → 10.
    """
    videos: list[Rewards] = [(0.5, 0, 0), (0.1, 3, 0), (0.2, 6, 0), (0.0, 9, 0)]
    selection = hpo.select_pairs(repository({0: videos}, [(0.9, 0, 0)]), replace(RULE, identity_share=1.0), 0)
    assert [(pair.winner, pair.rejected, pair.kind) for pair in selection.pairs] == [
        (4, 1, "identity"),
        (4, 0, "identity"),
    ]
    assert [pair.gap for pair in selection.pairs] == pytest.approx([8, 4])
    assert selection.report["tau"] == 4.5
    assert selection.report["training"]["identity"] == {
        "candidates": 4,
        "identity_not_higher": 0,
        "over_tau": 2,
        "static_cap": 0,
        "rejected_cap": 0,
        "video_cap": 0,
        "not_needed": 0,
        "selected": 2,
    }
    assert "+3.00" in selection.pairs[0].why
    assert "tau 4.50" in selection.pairs[0].why


def test_dynamic_pairs_by_hand() -> None:
    """Prompt 0: a (3,3,3) dominates b (1,1,1), and c (4,0,2) is beside both: upper {a, c}, lower {b, c}.

    Prompt 1: d (2,2,2) dominates e (1,2,1), with no more motion. Of 6 + 2 ordered pairs the fronts leave a-b, a-c, c-b
    and d-e; a-c and c-b do not dominate; a-b is the pair.
    """
    sampled = {0: [(3.0, 3.0, 3.0), (1.0, 1.0, 1.0), (4.0, 0.0, 2.0)], 1: [(2.0, 2.0, 2.0), (1.0, 2.0, 1.0)]}
    selection = hpo.select_pairs(repository(sampled, []), replace(RULE, count=1, identity_share=0.0), 0)
    assert [(pair.winner, pair.rejected, pair.kind) for pair in selection.pairs] == [(0, 1, "dynamic")]
    found = selection.report["training"]["dynamic"]
    assert [found[name] for name in ("candidates", "not_on_front", "not_dominating", "no_more_motion")] == [8, 4, 2, 1]
    assert "first fronts" in selection.pairs[0].why


# A chain a > b > c > d of one prompt: the fronts are {a} and {d}; the second ones add b and c.
CHAIN = {3: [(4.0, 4.0, 4.0), (3.0, 3.0, 3.0), (2.0, 2.0, 2.0), (1.0, 1.0, 1.0)]}


def test_too_few_pairs_widen_to_the_second_fronts_and_say_so() -> None:
    """One pair wanted: a-d. Four wanted: a-d, then by gap (3 per step) a-c and b-d (both 6, a first), then b-c (3)."""
    rule = replace(RULE, count=1, identity_share=0.0)
    narrow = hpo.select_pairs(repository(CHAIN, []), rule, 0)
    assert [(pair.winner, pair.rejected) for pair in narrow.pairs] == [(0, 3)]
    assert narrow.report["training"]["widened_prompts"] == []
    wide = hpo.select_pairs(repository(CHAIN, []), replace(rule, count=4), 0)
    assert [(pair.winner, pair.rejected) for pair in wide.pairs] == [(0, 3), (0, 2), (1, 3), (1, 2)]
    assert [pair.gap for pair in wide.pairs] == pytest.approx([9, 6, 6, 3])
    assert wide.report["training"]["widened_prompts"] == [3]
    assert any("3 come from the second fronts" in warning for warning in wide.report["warnings"])
    assert ["second" in pair.why for pair in wide.pairs] == [False, True, True, True]


def test_global_fronts_by_hand() -> None:
    """Prompt 0: a (4,4,4) over b (3,3,3); prompt 1: c (2,2,2) over d (1,1,1).

    Of each prompt a-b and c-d are on the fronts. Globally the upper front is {a} and the lower one {d}, which share no
    prompt; the second fronts add b and c: neither b to the lower nor c to the upper ones.
    """
    sampled: Videos = {0: [(4, 4, 4), (3, 3, 3)], 1: [(2, 2, 2), (1, 1, 1)]}
    rule = replace(RULE, count=4, identity_share=0.0)
    of_each = hpo.select_pairs(repository(sampled, []), rule, 0)
    assert [(pair.winner, pair.rejected) for pair in of_each.pairs] == [(0, 1), (2, 3)]
    of_all = hpo.select_pairs(repository(sampled, []), replace(rule, fronts="global"), 0)
    assert of_all.pairs == () and of_all.report["training"]["dynamic"]["not_on_front"] == 4
    assert "no prompt has a video on an upper and another one on a lower front" in of_all.report["starved_by"]
    # A repository of one prompt has the same fronts either way.
    whole = hpo.select_pairs(repository(CHAIN, []), replace(rule, fronts="global"), 0)
    assert [(pair.winner, pair.rejected) for pair in whole.pairs] == [(0, 3), (0, 2), (1, 3), (1, 2)]
    assert "first fronts of all videos" in whole.pairs[0].why


# Identity from 1 to 10 and motion from 1 to 10 are their own scale: the extremes are among the videos of prompt 0.
MOVING: Videos = {
    0: [(10.0, 1.0, 5.0), (9.5, 10.0, 1.0), (1.0, 9.0, 9.0)],
    1: [(5.0, 5.0, 5.0), (5.5, 4.0, 5.0), (5.0, 5.0, 9.0)],
}


def test_pairs_by_motion_gap_by_hand() -> None:
    """The likest video a (10, 1), b (9.5, 10) and c (1, 9) of prompt 0; d (5, 5), e (5.5, 4), f (5, 5) of prompt 1.

    Tolerance 0.5: b-a (gap 9, identity -0.5), b-c (gap 1), d-e and f-e (gap 1, identity -0.5); c-a lacks 9 of identity.
    At equal gaps the winner's id decides. Dominance and prompt following do not matter: b-a is worse on the latter.
    """
    rule = replace(RULE, count=9, identity_share=0.0, dynamic_rule="motion-gap")
    selection = hpo.select_pairs(repository(MOVING, []), rule, 0)
    assert [(pair.winner, pair.rejected) for pair in selection.pairs] == [(1, 0), (1, 2), (3, 4), (5, 4)]
    assert [pair.gap for pair in selection.pairs] == pytest.approx([-0.5, 8.5, -0.5, -0.5])
    found = selection.report["training"]["dynamic"]
    assert {name: number for name, number in found.items() if number} == {
        "candidates": 12,
        "no_motion_gap": 7,  # of 6 ordered pairs of three videos 3 move less; d and f move alike
        "identity_lost": 1,
        "selected": 4,
    }
    assert "dynamics +9.00" in selection.pairs[0].why and "at most 0.50 of identity" in selection.pairs[0].why
    assert selection.report["training"]["widened_prompts"] == []
    strict = hpo.select_pairs(repository(MOVING, []), replace(rule, identity_tolerance=0.0), 0)
    assert [(pair.winner, pair.rejected) for pair in strict.pairs] == [(1, 2)]
    wide = hpo.select_pairs(repository(MOVING, []), replace(rule, identity_tolerance=9.0, count=2), 0)
    assert [(pair.winner, pair.rejected) for pair in wide.pairs] == [(1, 0), (2, 0)]


def test_motion_gap_without_the_reward_for_motion_is_refused() -> None:
    rule = replace(RULE, rewards=("identity",), dynamic_rule="motion-gap")
    with pytest.raises(ValueError, match="dynamics"):
        hpo.select_pairs(repository(MOVING, []), rule, 0)


def test_a_static_clip_wins_at_most_ten_pairs_or_its_share_of_the_wanted() -> None:
    """Two static clips, the first closer: of 12 wanted it takes the first 10; of 25 wanted the first 13."""
    videos: Videos = {0: [(0.01 * n, 1.0, 0.0) for n in range(30)]}
    candidates = repository(videos, [(0.9, 1.0, 0.0), (0.5, 1.0, 0.0)])
    for count, most in ((12, 10), (25, 13)):
        rule = replace(RULE, count=count, identity_share=1.0, rejected_cap=2)
        selection = hpo.select_pairs(candidates, rule, 0)
        assert [pair.winner for pair in selection.pairs] == [30] * most + [31] * (count - most)
        assert selection.report["training"]["identity"]["static_cap"] == 30 - most


def test_a_video_is_rejected_in_as_many_identity_pairs_as_the_cap_says() -> None:
    """Three statics over two videos, cap 2: four pairs, and the third static finds both videos beaten."""
    candidates = repository(
        {0: [(0.0, 1.0, 0.0), (0.1, 1.0, 0.0)]}, [(0.9, 1.0, 0.0), (0.8, 1.0, 0.0), (0.7, 1.0, 0.0)]
    )
    selection = hpo.select_pairs(candidates, replace(RULE, identity_share=1.0), 0)
    assert [(pair.winner, pair.rejected) for pair in selection.pairs] == [(2, 0), (2, 1), (3, 0), (3, 1)]
    assert selection.report["training"]["identity"]["rejected_cap"] == 2


def test_identity_and_dynamic_pairs_count_towards_one_video_cap() -> None:
    """Cap 1: the identity pair uses the chain's last video up, so the dynamic pair must reject another one."""
    candidates = repository(CHAIN, [(5.0, 4.0, 0.0)])
    selection = hpo.select_pairs(candidates, replace(RULE, count=2, video_cap=1, tau=9.0), 0)
    assert [(pair.kind, pair.winner, pair.rejected) for pair in selection.pairs] == [
        ("identity", 4, 3),
        ("dynamic", 0, 2),
    ]
    assert selection.report["training"]["dynamic"]["video_cap"] == 3


@pytest.mark.parametrize(
    ("sampled", "static", "kind", "other"),
    [({0: [(0.0, 1.0, 0.0)] * 5}, [(1.0, 1.0, 0.0)], "identity", "dynamic"), (CHAIN, [], "dynamic", "identity")],
)
def test_one_kind_fills_up_for_the_other_and_says_so(
    sampled: Videos, static: list[Rewards], kind: str, other: str
) -> None:
    """Two of each kind are wanted; equal videos have no dynamic pair, and without a photo there is no identity pair."""
    selection = hpo.select_pairs(repository(sampled, static), replace(RULE, count=4), 0)
    assert kinds(selection) == [kind] * 4
    assert selection.report["training"]["shortfall"] == {kind: 0, other: 2}
    warnings = " ".join(selection.report["warnings"])
    assert f"There is no {other} pair" in warnings
    assert f"2 of 2 {other} pairs are missing; 2 {kind} pairs fill up." in warnings


def test_a_pure_share_is_never_filled_up() -> None:
    """The ablations: only the kind asked for, however few there are."""
    candidates = repository(CHAIN, [(9.0, 9.0, 9.0)])
    for share, kind, number in ((1.0, "identity", 4), (0.0, "dynamic", 4)):
        selection = hpo.select_pairs(candidates, replace(RULE, identity_share=share, tau=9.0), 0)
        assert kinds(selection) == [kind] * number
        assert selection.report["warnings"][-1] == f"Only {number} of 100 pairs were found."
        other = "dynamic" if kind == "identity" else "identity"
        assert selection.report["training"][other]["candidates"] == 0


def test_identity_alone_selects_by_identity_alone() -> None:
    """The ablation: no tau, no motion rule; the likest video of the prompt over the least like one."""
    sampled = {0: [(3.0, 0.0, 0.0), (2.0, 5.0, 5.0), (1.0, 9.0, 9.0)]}
    rule = replace(RULE, count=2, tau=-100.0, rewards=("identity",))
    selection = hpo.select_pairs(repository(sampled, [(4.0, 0.0, 0.0)]), rule, 0)
    assert [(pair.kind, pair.winner, pair.rejected) for pair in selection.pairs] == [
        ("identity", 3, 2),
        ("dynamic", 0, 2),
    ]
    assert selection.report["tau"] is None
    assert "no_more_motion" not in selection.report["training"]["dynamic"]


BY_GAP = replace(RULE, identity_share=0.0, dynamic_rule="motion-gap")


@pytest.mark.parametrize(
    ("sampled", "static", "rule", "because"),
    [
        ({}, [], RULE, ["no static clip, or no sampled video", "no prompt has two sampled videos"]),
        ({0: [(0.5, 1, 1)]}, [(0.5, 0, 0)], RULE, ["no static clip scores higher", "no prompt has two"]),
        ({0: [(0.1, 5, 1)]}, [(0.5, 0, 0)], replace(RULE, tau=2.0), ["by more than tau", "no prompt has two"]),
        ({0: [(1, 0, 0), (0, 1, 0)]}, [], RULE, ["no static clip, or", "no video on an upper front dominates"]),
        ({0: [(1, 1, 0), (0, 1, 0)]}, [], replace(RULE, identity_share=0.0), ["moves more than it"]),
        ({0: [(1, 1, 1), (0, 0, 0)]}, [], replace(RULE, identity_share=1.0), ["no static clip, or"]),
        ({0: [(1, 1, 1), (0, 1, 0)]}, [], BY_GAP, ["no video moves more than another one of its prompt"]),
        ({0: [(1, 0, 1), (0, 1, 0)]}, [], BY_GAP, ["every video that moves more lacks more identity"]),
    ],
)
def test_no_pair_at_all_says_which_rule_starved_it(
    sampled: Videos,
    static: list[Rewards],
    rule: hpo.PairRule,
    because: list[str],
) -> None:
    selection = hpo.select_pairs(repository(sampled, static), rule, 0)
    assert selection.pairs == ()
    assert all(text in selection.report["starved_by"] for text in because)
    assert selection.report["starved_by"].count("because") == len(because)


def test_a_training_split_starved_by_what_is_held_out_says_so() -> None:
    """Two prompts, one with a pair: a seed that holds that one out leaves nothing to train on."""
    candidates = repository({0: CHAIN[3], 1: [(1.0, 1.0, 1.0)]}, [])
    rule = replace(RULE, identity_share=0.0, held_out=1)
    selections = [hpo.select_pairs(candidates, rule, seed) for seed in range(8)]
    starved = [selection for selection in selections if not selection.pairs]
    assert 0 < len(starved) < 8
    assert all(
        "(held out: 1 of the prompts, 0 of the photos)" in selection.report["starved_by"] for selection in starved
    )


def many(prompts: int, photos: int) -> hpo.Candidates:
    """Every prompt a chain of four, static clips above all of them."""
    chains: Videos = {n: [(i + 0.01 * n, float(i), float(i)) for i in range(4)] for n in range(prompts)}
    return repository(chains, [(9.0 + n, 2.0, 2.0) for n in range(photos)])


def test_held_out_pairs_come_on_top_and_the_seed_chooses_their_prompts() -> None:
    """20 prompts, 100 + 10 pairs: 10/110 of the prompts are 2, of 11 photos 1."""
    rule = replace(RULE, count=100, held_out=10)
    selections = [hpo.select_pairs(many(20, 11), rule, seed) for seed in (0, 0, 1, 2, 3)]
    for selection in selections:
        assert len(selection.pairs) == 100
        assert len(selection.held_out) == 10
        assert {pair.kind for pair in selection.held_out} == {"identity", "dynamic"}
        assert len(selection.report["held_out"]["prompts"]) == 2
        assert len(selection.report["held_out"]["photos"]) == 1
    chosen = [tuple(selection.report["held_out"]["prompts"]) for selection in selections]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1


def test_something_is_always_left_to_train_on() -> None:
    """Nine held-out pairs for one of training: 9/10 of two prompts and two photos is still one of each."""
    selection = hpo.select_pairs(many(2, 2), replace(RULE, count=1, held_out=9), 0)
    assert len(selection.pairs) == 1
    assert len(selection.report["held_out"]["prompts"]) == len(selection.report["held_out"]["photos"]) == 1


@pytest.mark.parametrize(
    ("candidates", "share", "held_out", "text"),
    [
        (many(6, 1), 0.5, {"dynamic"}, "Held-out pairs are dynamic only"),
        (many(6, 1), 1.0, set(), "Nothing is held out: identity pairs need a photo"),
        (many(1, 5), 0.5, set(), "Nothing is held out: that takes videos of at least two prompts"),
        (many(6, 5), 0.0, {"dynamic"}, ""),
        (many(6, 5), 1.0, {"identity"}, ""),
    ],
)
def test_what_cannot_be_held_out_is_said(
    candidates: hpo.Candidates, share: float, held_out: set[str], text: str
) -> None:
    selection = hpo.select_pairs(candidates, replace(RULE, count=12, identity_share=share, held_out=2), 0)
    assert {pair.kind for pair in selection.held_out} == held_out
    assert any(text in warning for warning in ["", *selection.report["warnings"]])
    assert len(selection.pairs) > 0


def test_a_reward_that_is_not_finite_is_refused_by_name() -> None:
    candidates = many(2, 1)
    candidates.raw[5, 1] = math.nan
    with pytest.raises(ValueError, match="v005"):
        hpo.select_pairs(candidates, RULE, 0)


def test_far_apart_candidates_of_one_winner_are_all_found() -> None:
    """10,000 videos, the less alike the earlier; only four of them, thousands apart, move as little as tau asks."""
    still = (0, 1, 4098, 9999)
    videos: Videos = {0: [(n / 10_000, 0.0 if n in still else 1.0, 0.0) for n in range(10_000)]}
    rule = replace(RULE, identity_share=1.0, tau=0.0)
    selection = hpo.select_pairs(repository(videos, [(1.0, 0.0, 0.0)]), rule, 0)
    assert [pair.rejected for pair in selection.pairs] == list(still)


@pytest.mark.parametrize("case", ["20 prompts", "5 videos a prompt"])
def test_100_000_videos_take_seconds_and_little_memory(case: str, tmp_path: Path) -> None:
    """The benchmark's figures: under 10 s of processor time and 1 GiB, in a process of its own."""
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "benchmarks.select", "--case", case, "--output", str(tmp_path / "select.json")]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (row,) = json.loads((tmp_path / "select.json").read_text(encoding="utf-8"))["rows"]
    assert (row["videos"], row["pairs"]) == (100_000, 100)
    assert row["cpu_s"] < 10
    assert row["peak_mib"] < 1024
