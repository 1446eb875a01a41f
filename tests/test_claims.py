"""The benchmark of the claims: what is taken from videos, statistics, verdicts, and the page.

Truth: hand arithmetic, a bootstrap written out in NumPy, and constructed results whose verdicts are known.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import _claims_cells as cells
from benchmarks import _claims_judges as judging
from benchmarks import _claims_page as pages
from benchmarks import _claims_recipes as recipes
from benchmarks import _claims_report as report
from benchmarks import _claims_stats as stats
from benchmarks import claims

from claims_rows import row
from magicid_cli.config import resolve
from magicid_cli.stages import select


def people(*figures: float) -> dict[int, float]:
    return dict(enumerate(figures))


# --------------------------------------------------------------------------------------------------------- statistics


def test_an_interval_is_a_percentile_bootstrap_over_people() -> None:
    values = people(0.3, 0.9, 0.5, 0.4, 0.8)
    draws = np.random.default_rng(0).integers(5, size=(stats.DRAWS, 5))
    means = [np.mean([values[who] for who in draw]) for draw in draws.tolist()]
    found = stats.interval(values)
    assert found is not None and (found.mean, found.people) == (pytest.approx(0.58), 5)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert found == stats.interval(dict(reversed(values.items()))), "the order of the people does not matter"


def test_an_interval_of_one_person_is_a_point_and_of_nobody_nothing() -> None:
    assert stats.interval(people(0.4)) == stats.Interval(0.4, 0.4, 0.4, 1)
    assert stats.interval({}) is None and stats.difference(people(1.0), {}) is None


def test_a_difference_is_paired_over_the_people_whom_both_have() -> None:
    """People differ by far more than the methods do: unpaired intervals would hold 0."""
    lower = people(1.0, 2.0, 3.0, 4.0, 5.0, 99.0)
    upper = {who: value + 0.1 for who, value in people(1.0, 2.0, 3.0, 4.0, 5.0).items()}
    gap = stats.difference(upper, lower)
    assert gap is not None and gap.people == 5
    assert (gap.mean, gap.low, gap.high) == pytest.approx((0.1, 0.1, 0.1))


def test_a_ratio_is_that_of_the_means_with_people_drawn_together() -> None:
    found = stats.ratio(people(2.0, 4.0, 6.0), people(1.0, 2.0, 3.0))
    assert found is not None and (found.mean, found.low, found.high) == pytest.approx((2, 2, 2))
    assert stats.ratio(people(1.0, 1.0), people(1.0, -1.0)) is None, "some draws would divide by nothing"


# ----------------------------------------------------------------------------------------------------------- verdicts

UP, DOWN, MIXED = people(2, 3, 4, 5, 6), people(0, 1, 2, 3, 4), people(0, 3, 1, 5, 3)
MIDDLE = people(1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("values", "verdict"), [(UP, stats.HOLDS), (DOWN, stats.FAILS), (MIXED, stats.OPEN), (people(9, 9), stats.OPEN)]
)
def test_above_is_decided_by_the_paired_difference(values: stats.Values, verdict: str) -> None:
    assert stats.above("x", values, MIDDLE, ("a", "b")).verdict == verdict
    assert stats.not_below("x", values, MIDDLE, ("a", "b")).verdict == verdict


def test_equal_is_not_below_and_not_above() -> None:
    assert stats.not_below("x", MIDDLE, MIDDLE, ("a", "b")).verdict == stats.HOLDS
    assert stats.above("x", MIDDLE, MIDDLE, ("a", "b")).verdict == stats.FAILS
    assert stats.above("x", {}, MIDDLE, ("a", "b")).why == "not measured"


@pytest.mark.parametrize(
    ("upper", "verdict", "why"),
    [
        (people(11, 12, 13, 14, 15), stats.HOLDS, "do not overlap"),
        (UP, stats.OPEN, "although the paired difference is above 0"),
        (MIXED, stats.OPEN, "and so does the paired difference"),
        (DOWN, stats.FAILS, "nowhere above 0"),
        (people(11, 12), stats.OPEN, "too few people to decide: 2"),
    ],
)
def test_an_ordering_needs_intervals_that_do_not_overlap(upper: stats.Values, verdict: str, why: str) -> None:
    found = stats.ordered("x", MIDDLE, upper, ("lower", "upper"))
    assert found.verdict == verdict and why in found.why


@pytest.mark.parametrize(
    ("method", "verdict"),
    [
        (people(9, 9, 9, 9, 9), stats.HOLDS),
        (people(6, 6, 6, 6, 6), stats.FAILS),
        (people(6, 10, 10, 6, 9), stats.OPEN),
    ],
)
def test_what_is_won_back_is_a_share_of_what_was_lost(method: stats.Values, verdict: str) -> None:
    base, loser = people(10, 10, 10, 10, 10), people(5, 5, 5, 5, 5)
    found = stats.won_back("x", method, loser, base, 0.8)
    assert found.verdict == verdict
    assert found.figures["share"].mean == pytest.approx((np.mean(list(method.values())) - 5) / 5)


def test_nothing_is_won_back_where_nothing_was_lost() -> None:
    found = stats.won_back("x", UP, MIDDLE, people(1, 2, 3, 4, 4.9), 0.8)
    assert found.verdict == stats.OPEN and "not clear that anything was lost" in found.why


def test_parts_together() -> None:
    parts = {v: stats.Claim("part", v, "") for v in (stats.HOLDS, stats.FAILS, stats.OPEN)}
    assert stats.together("x", [parts[stats.HOLDS]] * 2).verdict == stats.HOLDS
    assert stats.together("x", [parts[stats.HOLDS], parts[stats.OPEN]]).verdict == stats.OPEN
    assert stats.together("x", [parts[stats.OPEN], parts[stats.FAILS]]).verdict == stats.FAILS


def constructed(figures: Mapping[str, tuple[float, float, float]]) -> report.Measured:
    """Method → likeness, motion, prompt following, for five people of whom each is a little different."""
    found = {}
    for method, (likeness, motion, following) in figures.items():
        found[method, ""] = [
            {
                "person": who,
                "seed": seed,
                "figures": {
                    "likeness": likeness + who / 1000,
                    "motion": motion + who / 1000,
                    "following": following + who / 1000,
                    "first_half": likeness,
                    "second_half": likeness - 0.1,
                    "fading": -0.1,
                },
            }
            for who in range(5)
            for seed in range(3)
        ]
    return found


def test_claims_on_a_world_in_which_the_paper_is_right() -> None:
    measured = constructed(
        {
            recipes.BASE: (0.1, 10, 0.9),
            recipes.STAGE_1: (0.6, 9, 0.8),
            recipes.DREAMBOOTH: (0.7, 6, 0.7),
            recipes.IDENTITY_PAIRS: (0.9, 7, 0.75),
            recipes.IDENTITY_REWARD: (0.9, 6, 0.75),
            recipes.TWO_REWARDS: (0.9, 9, 0.75),
            recipes.PAPER_PAIRS: (0.9, 9.5, 0.8),
            recipes.MAGICID: (0.9, 9.8, 0.85),
            recipes.ROUNDS: (0.95, 9.9, 0.85),
        }
    )
    found = {claim.claim: claim.verdict for claim in report.claims(measured)}
    here = [name for name in found if ", low" not in name and recipes.PAPER not in name]
    fading = "figure 2a: MagicID's likeness fades less"
    assert {name: found[name] for name in here} == dict.fromkeys(here, stats.HOLDS) | {fading: stats.FAILS}
    assert {verdict for name, verdict in found.items() if name not in here} == {stats.OPEN}, "not measured"
    assert report.ratios(measured)["motion, default"]["here"]["mean"] == pytest.approx(9.802 / 6.002, rel=1e-4)
    # The other way round, what held does not.
    measured[recipes.MAGICID, ""], measured[recipes.BASE, ""] = constructed({"m": (0.1, 2, 0.1)})["m", ""], []
    found = {claim.claim: claim.verdict for claim in report.claims(measured)}
    default = "table 2, motion: identity pairs < the default"
    assert found["likeness is not below DreamBooth's"] == found[default] == stats.FAILS
    assert found["table 2, motion: identity pairs < both"] == stats.HOLDS, "the paper's pairs are still as they were"


def test_every_method_has_pairs_that_can_be_met() -> None:
    """The default pairs by motion gap; an ablation that leaves motion out must not."""
    base = resolve({"model.name": "mini"}).settings
    assert base.pairs.dynamic_rule == "motion-gap"
    for method in recipes.methods(base).values():
        select.check(resolve({"model.name": "mini", **method.values}, preset=method.preset).settings)
    pairs = [recipes.methods(base)[name].values for name in (recipes.IDENTITY_REWARD, recipes.PAPER_PAIRS)]
    assert [values["pairs.dynamic_rule"] for values in pairs] == ["dominating"] * 2


def test_seeds_are_averaged_within_a_person() -> None:
    rows = [{"person": who, "figures": {"motion": m}} for who, m in ((1, 1.0), (1, 3.0), (2, 7.0), (2, None))]
    assert report.values([*rows, {"person": 3, "failed": "x"}], "motion") == {1: 2.0, 2: 7.0}


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ((0.1, 0.0, 0.2), "better"),
        ((-0.1, 0.0, -0.2), "worse"),
        ((-0.1, 0.5, 0.0), "a trade"),
        ((0.0, 0.0, 0.0), "the same"),
        ((0.1, None, 0.2), "not measured"),
    ],
)
def test_recipes_are_chosen_by_the_reward_s_encoder(differences: Sequence[float | None], verdict: str) -> None:
    found = dict(zip(report.CHOSEN_BY, differences, strict=True))
    rows = {name: None if value is None else {"mean": value} for name, value in found.items()}
    assert report.verdict_of_variation({**rows, "likeness": {"mean": -9.0}}) == verdict
    assert "likeness" not in report.CHOSEN_BY and "likeness_reward" in report.CHOSEN_BY


# ------------------------------------------------------------------------------------------------------------ a video


def test_a_cell_s_figures_by_hand() -> None:
    walks = row("A man walks at the beach.", [2.0, 0.0, 4.0], [0.9, 0.8, 0.5, 0.2])
    stands = row("A man stands still at the beach.", [0.0, 0.0, 0.2], [0.5, None, -0.5, 0.9])
    found = judging.summary([walks, stands])
    assert set(found) == {*judging.METRICS, "curve"}
    # Into the second and the fourth frame there is motion, in the first video alone.
    assert found["moving_likeness"] == pytest.approx((0.8 + 0.2) / 2)
    assert found["moving_share"] == pytest.approx((2 / 3 + 0) / 2)
    assert (found["motion"], found["still_motion"]) == pytest.approx((2.0, 0.2 / 3))
    assert found["curve"] == pytest.approx([0.7, 0.4, 0.25, 0.55])
    assert found["found"] == pytest.approx((1 + 0.75) / 2) and found["fading"] == pytest.approx(-0.2)
    assert (found["action"], found["place"], found["outfit"]) == (0.5, 1.0, 0.0)
    assert found["following"] == pytest.approx(0.5) and found["action_probability"] == pytest.approx(0.2)
    alone = judging.summary([stands])
    assert alone["motion"] is None and alone["moving_likeness"] is None


# ------------------------------------------------------------------------------------------------------ the page


def test_the_page_keeps_what_is_written_by_hand() -> None:
    empty = pages.page(None, None)
    assert empty.count("Not measured yet.") == 2 and pages.NOT_YET in empty
    ours = empty.replace(pages.NOT_YET, "By hand.\n\nTwo paragraphs.")
    again = pages.page(None, None, ours)
    assert again == ours and pages.page(None, None, "no block at all") == empty


def test_the_page_says_which_steps_the_guards_chose() -> None:
    """Of every round; looks at an adapter by the way and methods without stage 2 say nothing."""

    def ended(chosen: int, stopped: str | None = None) -> dict[str, object]:
        return {"chosen": chosen, "stopped": stopped}

    rows: list[dict[str, Any]] = [
        {"method": "one", "probe": "", "stage_2": [[ended(120)], [ended(60, "saturation")], [ended(120)]]},
        {"method": "two", "probe": "", "stage_2": [[ended(60), ended(20)]]},
        {"method": "DreamBooth", "probe": "", "stage_2": [[None]]},
        {"method": "one", "probe": "point 1", "stage_2": [[ended(1)]]},
    ]
    assert list(pages._ended(rows))[-2:] == ["| one | 60 | 120 | 120 | 1 of 3 |", "| two | 20 | 40 | 60 | 0 of 2 |"]
    assert list(pages._ended(rows[2:])) == []


def test_the_page_says_what_is_measured(mini_here: Path, tmp_path: Path) -> None:
    bench = cells.Bench(tmp_path / "results", tmp_path / "work", recipes.TRIAL)
    table = recipes.TABLES["table-1"]
    study = report.Study(recipes.FINAL, recipes.TRIAL, [table])
    measured = constructed({recipes.DREAMBOOTH: (0.7, 6, 0.7)})
    for one in measured[recipes.DREAMBOOTH, ""]:
        one.update(
            steps={"reconstruct": 4, "prefer": 0}, stages={}, key=f"{one['person']}-{one['seed']}", seconds={"a": 9}
        )
        one["figures"]["curve"] = [0.75, 0.65]
    final = {
        "about": claims.about(bench, study, measured),
        "claims": [vars(stats.Claim("It is so", stats.HOLDS, "the rule"))],
        "ratios": report.ratios(measured),
        "tables": [report.table_figures(bench, study, table, measured)],
    }
    text = pages.page(final, None)
    assert "| DreamBooth-LoRA | 4 + 0 | 0.702 [0.701, 0.703] |" in text and "| 15 |" in text
    assert "| It is so | **holds** |" in text and "| DreamBooth-LoRA | 0.75 | 0.65 |" in text
    assert "| MagicID | - | - |" in text, "not measured"
    assert "| ConsisID | - | - | - | - | - | - | - | - | needs its weights: code path tested at tiny size |" in text
    assert "A trial of the machinery" in text
