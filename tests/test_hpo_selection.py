"""Pair selection against a plain reference that lists every pair, and against its promises on random repositories."""

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from magicid_cli import hpo
from repositories import RULE, repository


@st.composite
def repositories(draw: st.DrawFn) -> hpo.Candidates:
    """Few prompts and photos; rewards with many ties or with hardly any; ids in no order."""
    number = draw(st.sampled_from([st.integers(0, 4).map(float), st.floats(0, 1)]))
    rewards = st.lists(st.tuples(number, number, number), max_size=7)
    candidates = repository(draw(st.dictionaries(st.integers(0, 5), rewards, max_size=4)), draw(rewards))
    return replace(candidates, ids=draw(st.permutations(candidates.ids)))


def rules(held_out: st.SearchStrategy[int]) -> st.SearchStrategy[hpo.PairRule]:
    every = st.builds(
        hpo.PairRule,
        count=st.integers(1, 30),
        identity_share=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        tau=st.none() | st.floats(-3, 9),
        video_cap=st.integers(1, 4),
        rejected_cap=st.integers(1, 3),
        held_out=held_out,
        rewards=st.sampled_from([hpo.REWARDS, hpo.REWARDS[:2], hpo.REWARDS[:1]]),
        fronts=st.sampled_from(["prompt", "global"]),
        dynamic_rule=st.sampled_from(["dominating", "motion-gap"]),
        identity_tolerance=st.sampled_from([0.0, 0.5, 3.0, 9.0]),
    )
    return every.filter(lambda rule: rule.dynamic_rule == "dominating" or "dynamics" in rule.rewards)


def columns_of(rule: hpo.PairRule) -> list[int]:
    return [hpo.REWARDS.index(name) for name in rule.rewards]


def beats(candidates: hpo.Candidates, rule: hpo.PairRule, w: int, r: int) -> bool:
    """Domination in the rewards in use, with more motion if motion is one of them, and one prompt.

    By motion gap: more motion, hardly less identity, and one prompt.
    """
    if rule.dynamic_rule == "motion-gap":
        lost = np.subtract(*hpo.scale(candidates.raw)[[r, w], 0])
        more = candidates.raw[w, 1] > candidates.raw[r, 1]
        return bool(more and lost <= rule.identity_tolerance) and candidates.prompt[w] == candidates.prompt[r]
    columns = columns_of(rule)
    a, b = candidates.raw[w, columns].tolist(), candidates.raw[r, columns].tolist()
    above = all(x >= y for x, y in zip(a, b, strict=True)) and a != b
    moves = 1 not in columns or candidates.raw[w, 1] > candidates.raw[r, 1]
    return above and bool(moves) and candidates.prompt[w] == candidates.prompt[r]


# --- the reference: list, filter, sort, take ------------------------------------------------------------------------


def peeled(candidates: hpo.Candidates, members: list[int], sign: int, rule: hpo.PairRule, depth: int) -> set[int]:
    """The first `depth` fronts of each prompt, or of all, by comparing everything with everything."""
    points = sign * candidates.raw[:, columns_of(rule)]
    found: set[int] = set()
    for _ in range(depth):
        rest = [n for n in members if n not in found]
        whole = rule.fronts == "global"
        same = {n: [k for k in rest if whole or candidates.prompt[k] == candidates.prompt[n]] for n in rest}
        found |= {
            n
            for n in rest
            if not any((points[k] >= points[n]).all() and (points[k] > points[n]).any() for k in same[n])
        }
    return found


class Reference:
    """The selection without held-out pairs, with plain loops over every pair."""

    def __init__(self, candidates: hpo.Candidates, rule: hpo.PairRule) -> None:
        self.candidates, self.rule, self.raw = candidates, rule, candidates.raw
        self.scaled = hpo.scale(candidates.raw)
        self.static = [n for n, origin in enumerate(candidates.origin) if origin == "static"]
        self.sampled = [n for n, origin in enumerate(candidates.origin) if origin != "static"]
        self.uses: Counter[int] = Counter()
        self.losses: Counter[int] = Counter()

    def identity_pairs(self) -> list[tuple[int, int]]:
        every = list(product(self.static, self.sampled))
        leads = {(w, r): self.scaled[r, 1] - self.scaled[w, 1] for w, r in every}
        tau = math.inf
        if "dynamics" in self.rule.rewards and every:
            tau = float(np.median(list(leads.values()))) if self.rule.tau is None else self.rule.tau
        return [(w, r) for w, r in every if self.raw[w, 0] > self.raw[r, 0] and leads[w, r] <= tau]

    def dynamic_pairs(self, depth: int) -> list[tuple[int, int]]:
        if self.rule.dynamic_rule == "motion-gap":
            every = product(self.sampled, self.sampled)
            return [(w, r) for w, r in every if beats(self.candidates, self.rule, w, r)]
        upper, lower = (peeled(self.candidates, self.sampled, sign, self.rule, depth) for sign in (1, -1))
        return [(w, r) for w, r in product(upper, lower) if beats(self.candidates, self.rule, w, r)]

    def take(self, pairs: list[tuple[int, int]], wanted: int, kind: str, chosen: list[tuple[int, int]]) -> None:
        def order(pair: tuple[int, int]) -> tuple[float, str, float, str]:
            w, r = pair
            ids, by = self.candidates.ids, int(kind == "dynamic" and self.rule.dynamic_rule == "motion-gap")
            return -(self.scaled[w, by] - self.scaled[r, by]), ids[w], self.raw[r, by], ids[r]

        static_cap = max(10, math.ceil(wanted / max(1, len(self.static))))
        for w, r in sorted(pairs, key=order):
            cap = static_cap if kind == "identity" else self.rule.video_cap
            fits = self.uses[w] < cap and self.uses[r] < self.rule.video_cap
            if kind == "identity":
                fits = fits and self.losses[r] < self.rule.rejected_cap
            if len(chosen) < wanted and fits and (w, r) not in chosen:
                chosen.append((w, r))
                self.uses.update([w, r])
                self.losses[r] += kind == "identity"

    def select(self) -> list[tuple[str, int, int]]:
        rule, identity, dynamic = self.rule, list[tuple[int, int]](), list[tuple[int, int]]()
        wanted = math.floor(rule.count * rule.identity_share + 0.5)
        possible = self.identity_pairs() if rule.identity_share > 0 else []
        self.take(possible, wanted, "identity", identity)
        target = rule.count - (len(identity) if 0 < rule.identity_share < 1 else wanted)
        for depth in (1, 2):
            if rule.identity_share < 1:
                self.take(self.dynamic_pairs(depth), target, "dynamic", dynamic)
        if 0 < rule.identity_share < 1:
            self.take(possible, rule.count - len(dynamic), "identity", identity)
        return [("identity", *pair) for pair in identity] + [("dynamic", *pair) for pair in dynamic]


@given(candidates=repositories(), rule=rules(st.just(0)))
@settings(max_examples=500, deadline=None)
def test_the_selection_is_that_of_the_plain_reference(candidates: hpo.Candidates, rule: hpo.PairRule) -> None:
    selection = hpo.select_pairs(candidates, rule, 0)
    assert [(pair.kind, pair.winner, pair.rejected) for pair in selection.pairs] == Reference(candidates, rule).select()


# --- promises -------------------------------------------------------------------------------------------------------


def check_caps(
    candidates: hpo.Candidates, rule: hpo.PairRule, pairs: tuple[hpo.Pair, ...], part: dict, clips: int
) -> None:
    """No clip in more pairs than its cap; `clips` static clips belong to the split."""
    assert len({(pair.winner, pair.rejected) for pair in pairs}) == len(pairs) <= sum(part["wanted"].values())
    dynamic = sum(pair.kind == "dynamic" for pair in pairs)
    wanted = max(part["wanted"]["identity"], sum(part["wanted"].values()) - dynamic)
    static_cap = max(10, math.ceil(wanted / max(1, clips)))
    for clip, uses in Counter(clip for pair in pairs for clip in (pair.winner, pair.rejected)).items():
        assert uses <= (static_cap if candidates.origin[clip] == "static" else rule.video_cap)
    losses = Counter(pair.rejected for pair in pairs if pair.kind == "identity")
    assert max(losses.values(), default=0) <= rule.rejected_cap


def check_pair(candidates: hpo.Candidates, rule: hpo.PairRule, selection: hpo.Selection, pair: hpo.Pair) -> None:
    """The rule of the pair's kind, by its definition."""
    w, r = pair.winner, pair.rejected
    assert candidates.origin[r] != "static"
    assert pair.gap == selection.scaled[w, 0] - selection.scaled[r, 0]
    if pair.kind == "dynamic":
        assert beats(candidates, rule, w, r)
        return
    assert candidates.origin[w] == "static"
    assert candidates.raw[w, 0] > candidates.raw[r, 0]
    if "dynamics" in rule.rewards:
        assert selection.scaled[r, 1] - selection.scaled[w, 1] <= selection.report["tau"]


@given(candidates=repositories(), rule=rules(st.integers(0, 6)), seed=st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_every_pair_meets_its_rule_and_every_cap_holds(
    candidates: hpo.Candidates, rule: hpo.PairRule, seed: int
) -> None:
    selection = hpo.select_pairs(candidates, rule, seed)
    aside = len(selection.report["held_out"]["photos"])
    clips = sum(origin == "static" for origin in candidates.origin)
    check_caps(candidates, rule, selection.pairs, selection.report["training"], clips - aside)
    check_caps(candidates, rule, selection.held_out, selection.report["held_out"], aside)
    for pair in selection.pairs + selection.held_out:
        check_pair(candidates, rule, selection, pair)
    allowed = {0.0: {"dynamic"}, 1.0: {"identity"}}.get(rule.identity_share, {"identity", "dynamic"})
    assert {pair.kind for pair in selection.pairs + selection.held_out} <= allowed
    assert len(selection.held_out) <= rule.held_out


@given(candidates=repositories(), rule=rules(st.integers(1, 6)), seed=st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_held_out_pairs_share_no_clip_prompt_or_photo_with_training(
    candidates: hpo.Candidates, rule: hpo.PairRule, seed: int
) -> None:
    selection = hpo.select_pairs(candidates, rule, seed)
    training, held_out = (
        {clip for pair in pairs for clip in (pair.winner, pair.rejected)}
        for pairs in (selection.pairs, selection.held_out)
    )
    assert not training & held_out
    for numbers in (candidates.prompt, candidates.photo):
        of_training, of_held_out = ({int(numbers[clip]) for clip in clips} - {-1} for clips in (training, held_out))
        assert not of_training & of_held_out
    assert {int(candidates.prompt[clip]) for clip in held_out} - {-1} <= set(selection.report["held_out"]["prompts"])


@given(candidates=repositories(), rule=rules(st.integers(0, 6)), seed=st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_the_report_accounts_for_every_candidate(candidates: hpo.Candidates, rule: hpo.PairRule, seed: int) -> None:
    """The fates add up to the candidates, the selected ones to the pairs; no pairs and a reason go together."""
    selection = hpo.select_pairs(candidates, rule, seed)
    for part, pairs in (("training", selection.pairs), ("held_out", selection.held_out)):
        for kind in ("identity", "dynamic"):
            fates = dict(selection.report[part][kind])
            assert fates["selected"] == sum(pair.kind == kind for pair in pairs)
            assert fates.pop("candidates") == sum(fates.values())
            assert min(fates.values()) >= 0
    assert bool(selection.pairs) == (selection.report["starved_by"] is None)
    assert bool(selection.pairs) or "because" in selection.report["starved_by"]
    assert json.loads(json.dumps(selection.report, allow_nan=False)) == selection.report


@given(candidates=repositories(), rule=rules(st.integers(0, 6)), seed=st.integers(0, 5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_candidates_does_not_matter(
    candidates: hpo.Candidates, rule: hpo.PairRule, seed: int, data: st.DataObject
) -> None:
    """The same repository, listed in another order, gives the same pairs by name."""
    order = data.draw(st.permutations(range(len(candidates.ids))))
    shuffled = hpo.Candidates(
        ids=[candidates.ids[n] for n in order],
        origin=[candidates.origin[n] for n in order],
        prompt=candidates.prompt[order],
        photo=candidates.photo[order],
        raw=candidates.raw[order],
    )
    names = [
        [(of.ids[pair.winner], of.ids[pair.rejected]) for pair in hpo.select_pairs(of, rule, seed).pairs]
        for of in (candidates, shuffled)
    ]
    assert names[0] == names[1]


@given(candidates=repositories(), rewards=st.sampled_from([hpo.REWARDS, hpo.REWARDS[:2], hpo.REWARDS[:1]]))
@settings(max_examples=100, deadline=None)
def test_dynamic_pairs_do_not_depend_on_the_scale_of_the_rewards(
    candidates: hpo.Candidates, rewards: tuple[str, ...]
) -> None:
    """Any strictly increasing change of each reward: the same set of possible dynamic pairs, the same numbers."""
    rule = replace(RULE, count=10_000, identity_share=0.0, video_cap=1000, rewards=rewards)
    ranks = np.stack([np.unique(column, return_inverse=True)[1] for column in candidates.raw.T], axis=1).astype(float)
    selections = [
        hpo.select_pairs(replace(candidates, raw=raw), rule, 0) for raw in (candidates.raw, 2.0**ranks, ranks**3 - 7)
    ]
    found = [{(pair.winner, pair.rejected) for pair in selection.pairs} for selection in selections]
    assert found[0] == found[1] == found[2]
    numbers = [selection.report["training"]["dynamic"] for selection in selections]
    assert numbers[0] == numbers[1] == numbers[2]
