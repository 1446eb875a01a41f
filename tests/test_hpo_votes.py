"""How selection takes votes. Truth: repositories written by hand, and selection without votes."""

from dataclasses import replace

import pytest

from magicid_cli import hpo
from magicid_cli.hpo.votes import left_to_find
from repositories import RULE, repository

# Three videos of each prompt: the later, the more of everything. Static clips look most like the person.
SAMPLED = {p: [(0.1 * v + 0.01 * p, float(v), 5.0 + v) for v in range(3)] for p in range(4)}
STATIC = [(0.90, 0.0, 5.0), (0.91, 0.0, 5.0)]
SMALL = replace(RULE, count=6, tau=9.0)


def names(candidates: hpo.Candidates, pairs: tuple[hpo.Pair, ...]) -> list[str]:
    return [f"{candidates.ids[pair.winner]}>{candidates.ids[pair.rejected]}" for pair in pairs]


def test_without_votes_nothing_changes() -> None:
    candidates = repository(SAMPLED, STATIC)
    plain, voted = hpo.select_pairs(candidates, SMALL, 7), hpo.select_pairs(candidates, SMALL, 7, hpo.Votes())
    assert plain.pairs == voted.pairs
    assert plain.report == voted.report
    assert "voted" not in plain.report["training"]


def test_a_dropped_pair_goes_and_the_next_best_of_its_kind_takes_its_place() -> None:
    candidates = repository(SAMPLED, STATIC)
    plain = hpo.select_pairs(candidates, SMALL, 7, spare=4)
    for pair in plain.pairs:
        for order in ((pair.winner, pair.rejected), (pair.rejected, pair.winner)):
            found = hpo.select_pairs(candidates, SMALL, 7, hpo.Votes(without=[order]))
            expected = [one for one in plain.pairs if one != pair]
            assert len(found.pairs) == 6
            assert [one for one in found.pairs if one in expected] == expected
            (new,) = (one for one in found.pairs if one not in expected)
            assert new.kind == pair.kind
            assert {new.winner, new.rejected} != {pair.winner, pair.rejected}


def test_a_confirmed_pair_stays_when_the_rules_would_not_select_it_any_more() -> None:
    candidates = repository(SAMPLED, STATIC)
    identity = next(pair for pair in hpo.select_pairs(candidates, SMALL, 7).pairs if pair.kind == "identity")
    said = hpo.Votes({(identity.winner, identity.rejected): "a person confirmed it"})
    strict = replace(SMALL, tau=-9.0)  # no identity pair meets it
    assert not [pair for pair in hpo.select_pairs(candidates, strict, 7).pairs if pair.kind == "identity"]
    kept = [pair for pair in hpo.select_pairs(candidates, strict, 7, said).pairs if pair.kind == "identity"]
    assert [(pair.winner, pair.rejected) for pair in kept] == [(identity.winner, identity.rejected)]
    assert kept[0].why == "a person confirmed it"
    assert kept[0].gap == identity.gap


def test_a_pair_is_turned_round_and_the_rules_do_not_bring_it_back() -> None:
    candidates = repository(SAMPLED, STATIC)
    for pair in hpo.select_pairs(candidates, SMALL, 7).pairs:
        turned = hpo.select_pairs(candidates, SMALL, 7, hpo.Votes({(pair.rejected, pair.winner): "round"}))
        ordered = [(one.winner, one.rejected) for one in turned.pairs]
        assert (pair.rejected, pair.winner) in ordered
        assert (pair.winner, pair.rejected) not in ordered
        assert len(ordered) == 6
        (one,) = (one for one in turned.pairs if one.why == "round")
        assert one.gap == pytest.approx(-pair.gap)
        assert one.kind == pair.kind


def test_a_pair_that_just_missed_takes_the_place_of_the_last_one_of_its_kind() -> None:
    candidates = repository(SAMPLED, STATIC)
    plain = hpo.select_pairs(candidates, SMALL, 7, spare=4)
    added = next(pair for pair in plain.missed if pair.kind == "identity")
    found = hpo.select_pairs(candidates, SMALL, 7, hpo.Votes({(added.winner, added.rejected): "added"}))
    before = [pair for pair in plain.pairs if pair.kind == "identity"]
    after = [pair for pair in found.pairs if pair.kind == "identity"]
    assert [(pair.winner, pair.rejected) for pair in after[:1]] == [(added.winner, added.rejected)]
    assert after[1:] == before[:-1]
    assert [pair for pair in found.pairs if pair.kind == "dynamic"] == [
        pair for pair in plain.pairs if pair.kind == "dynamic"
    ]


def test_what_just_missed_is_what_more_places_would_select() -> None:
    candidates = repository(SAMPLED, STATIC)
    plain = hpo.select_pairs(candidates, SMALL, 7, spare=2)
    wider = hpo.select_pairs(candidates, replace(SMALL, count=8), 7)
    assert sorted(names(candidates, plain.pairs + plain.missed)) == sorted(names(candidates, wider.pairs))


def test_what_caps_refuse_has_just_missed_too() -> None:
    candidates = repository({0: [(0.1, 1.0, 5.0)]}, [(0.9, 0.0, 5.0), (0.8, 0.0, 5.0), (0.7, 0.0, 5.0)])
    rule = replace(SMALL, identity_share=1.0, rejected_cap=1)
    found = hpo.select_pairs(candidates, rule, 7, spare=5)
    assert names(candidates, found.pairs) == ["x000>v000"]
    assert names(candidates, found.missed) == ["x001>v000", "x002>v000"]


def test_what_just_missed_on_the_second_fronts_says_so() -> None:
    candidates = repository({0: [(0.1 * v, float(v), 5.0 + v) for v in range(4)]}, STATIC)
    rule = replace(SMALL, count=1, identity_share=0.0)
    found = hpo.select_pairs(candidates, rule, 7, spare=9)
    assert names(candidates, found.pairs) == ["v003>v000"]
    assert "v002>v000" in names(candidates, found.missed)
    assert all("second fronts" in pair.why for pair in found.missed)


def test_votes_count_as_uses_of_their_clips() -> None:
    candidates = repository({0: [(0.1, 1.0, 5.0), (0.2, 1.0, 5.0)]}, STATIC)
    rule = replace(SMALL, identity_share=1.0, rejected_cap=1)
    said = hpo.Votes({(2, 0): "confirmed"})
    found = hpo.select_pairs(candidates, rule, 7, said)
    # Video 0 has lost once by the vote, which is as often as it may.
    assert names(candidates, found.pairs) == ["x000>v000", "x001>v001"]


def test_every_considered_pair_has_one_fate() -> None:
    candidates = repository(SAMPLED, STATIC)
    plain = hpo.select_pairs(candidates, SMALL, 7, spare=4)
    turned, dropped = plain.pairs[0], plain.pairs[-1]
    said = hpo.Votes(
        {(turned.rejected, turned.winner): "round", (plain.missed[0].winner, plain.missed[0].rejected): "added"},
        [(dropped.winner, dropped.rejected)],
    )
    report = hpo.select_pairs(candidates, SMALL, 7, said).report["training"]
    for kind in ("identity", "dynamic"):
        fates = dict(report[kind])
        assert fates.pop("candidates") == sum(fates.values())
    assert report["identity"]["voted"] == 2
    assert report["voted"] == {"identity": 2, "dynamic": 0}
    assert report["wanted"] == {"identity": 1, "dynamic": 3}


@pytest.mark.parametrize(
    ("pair", "share", "why"),
    [
        ((12, 13), 0.5, "both are static clips"),
        ((0, 4), 0.5, "different prompts"),
        ((12, 0), 0.0, "no identity pairs are wanted"),
        ((1, 0), 1.0, "no dynamic pairs are wanted"),
    ],
)
def test_votes_without_a_place_are_told(pair: tuple[int, int], share: float, why: str) -> None:
    candidates = repository(SAMPLED, STATIC)
    found = hpo.select_pairs(candidates, replace(SMALL, identity_share=share), 7, hpo.Votes({pair: "confirmed"}))
    assert why in found.unused[pair]
    assert pair not in {(one.winner, one.rejected) for one in found.pairs}


def test_held_out_pairs_stay_apart_from_training_whatever_is_voted() -> None:
    candidates = repository(SAMPLED, [*STATIC, (0.92, 0.0, 5.0), (0.93, 0.0, 5.0)])
    rule = replace(SMALL, held_out=3)
    plain = hpo.select_pairs(candidates, rule, 7)
    prompts, photos = plain.report["held_out"]["prompts"], plain.report["held_out"]["photos"]
    train, held = plain.pairs[0], plain.held_out[0]
    across = (held.winner, train.rejected)
    said = hpo.Votes({(held.rejected, held.winner): "round", (train.winner, train.rejected): "kept", across: "added"})
    found = hpo.select_pairs(candidates, rule, 7, said)
    assert (found.report["held_out"]["prompts"], found.report["held_out"]["photos"]) == (prompts, photos)
    assert "round" in [pair.why for pair in found.held_out]
    assert "kept" in [pair.why for pair in found.pairs]
    assert "held out" in found.unused[across]
    clips = [{clip for pair in of for clip in (pair.winner, pair.rejected)} for of in (found.pairs, found.held_out)]
    assert not clips[0] & clips[1]


def test_more_votes_than_places_are_all_selected_and_the_rules_add_nothing() -> None:
    candidates = repository(SAMPLED, STATIC)
    plain = hpo.select_pairs(candidates, SMALL, 7)
    said = hpo.Votes({(pair.winner, pair.rejected): "confirmed" for pair in plain.pairs})
    found = hpo.select_pairs(candidates, replace(SMALL, count=2), 7, said)
    assert sorted(names(candidates, found.pairs)) == sorted(names(candidates, plain.pairs))


def test_votes_of_one_kind_leave_the_other_its_places() -> None:
    many = {(n, 0): "" for n in range(4)}
    assert left_to_find({"identity": 3, "dynamic": 3}, {"identity": {}, "dynamic": {}}) == {"identity": 3, "dynamic": 3}
    assert left_to_find({"identity": 3, "dynamic": 3}, {"identity": many, "dynamic": {}}) == {
        "identity": 0,
        "dynamic": 2,
    }
    assert left_to_find({"identity": 1, "dynamic": 1}, {"identity": many, "dynamic": {}}) == {
        "identity": 0,
        "dynamic": 0,
    }


def test_a_kind_that_was_voted_out_says_so() -> None:
    candidates = repository({0: [(0.1, 1.0, 5.0)]}, [(0.9, 0.0, 5.0)])
    found = hpo.select_pairs(candidates, SMALL, 7, hpo.Votes(without=[(1, 0)]))
    assert not found.pairs
    assert "people have voted against all there could be" in found.report["starved_by"]
