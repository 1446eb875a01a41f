"""The guards' rules on histories made by hand: against the sentences that define each rule, and its counterpart."""

from dataclasses import replace
from typing import Any

import pytest

from magicid_cli.guards import rules
from magicid_cli.guards.rules import Look, Seen

# A look at which nothing is wrong: the winners' error falls, the held-out margin too, the videos keep what they had.
FINE = Look(
    step=10,
    margin=-0.1,
    winner_shift=-0.02,
    winner_shift_error=0.001,
    rejected_shift=0.08,
    gradient_factor=0.3,
    held_out_margin=-0.05,
    likeness_gain=0.1,
    motion_gain=0.0,
)


def history(*changes: dict[str, Any]) -> list[Look]:
    """Looks ten steps apart, of margins that fall on and on, each with its changes."""
    return [
        replace(FINE, **{"step": 10 * k, "margin": -0.1 * k, "held_out_margin": -0.05 * k} | change)
        for k, change in enumerate(changes, 1)
    ]


def rules_at(looks: list[Look]) -> list[str]:
    return [sign.rule for sign in rules.signs(looks)]


def test_nothing_is_wrong_with_a_training_that_does_what_it_should() -> None:
    looks = history({}, {}, {}, {})
    assert [rules_at(looks[:k]) for k in (1, 2, 3, 4)] == [[], [], [], []]
    assert rules.ending(looks) is None


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"likeness_gain": -0.26}, "likeness-lost"),
        ({"likeness_gain": -0.24}, None),
        ({"motion_gain": -0.26}, "motion-lost"),
        ({"motion_gain": -0.24}, None),
        # The winners' error rose by more than a fifth of the rejected videos', and clearly so.
        ({"winner_shift": 0.017, "rejected_shift": 0.08}, "displacement"),
        ({"winner_shift": 0.015, "rejected_shift": 0.08}, None),
        ({"winner_shift": 0.05, "rejected_shift": 0.08, "winner_shift_error": 0.03}, None),
        ({"winner_shift": 0.05, "rejected_shift": 0.08, "winner_shift_error": None}, None),
        # Both rose, but the margin has stopped falling: that is no displacement by this preference.
        ({"winner_shift": 0.05, "rejected_shift": 0.08, "margin": -0.1}, None),
        ({"gradient_factor": 0.019}, "saturation"),
        ({"gradient_factor": 0.021}, None),
        # The lowest held-out margin so far is -0.05, the training margin now -0.2: 0.02 more is a rise.
        ({"held_out_margin": -0.029}, "over-fitting"),
        ({"held_out_margin": -0.031}, None),
        ({"held_out_margin": -0.029, "margin": -0.09}, None),
        ({"held_out_margin": None}, None),
    ],
)
def test_each_sign_and_what_is_none(change: dict[str, Any], rule: str | None) -> None:
    assert rules_at(history({}, change)) == ([rule] if rule else [])


def test_a_held_out_margin_that_never_fell_is_over_fitting_from_the_start() -> None:
    assert rules_at(history({"held_out_margin": 0.011})) == ["over-fitting"]
    assert rules_at(history({"held_out_margin": 0.009})) == []


def test_one_look_ends_nothing_two_in_a_row_do_and_two_apart_do_not() -> None:
    bad = {"motion_gain": -0.5}
    assert rules.ending(history(bad)) is None
    assert rules.ending(history({}, bad)) is None
    sign = rules.ending(history({}, bad, {"motion_gain": -0.4}))
    assert sign is not None and sign.rule == "motion-lost" and "40%" in sign.why
    assert rules.ending(history(bad, {}, bad)) is None
    assert rules.ending(history(bad, {"gradient_factor": 0.0})) is None, "two signs, each once"


def test_the_gravest_of_several_signs_is_named_but_only_if_it_lasted() -> None:
    worn, still = {"gradient_factor": 0.001}, {"gradient_factor": 0.001, "likeness_gain": -0.9}
    assert rules_at(history(worn, still)) == ["likeness-lost", "saturation"]
    ended = [rules.ending(history(*changes)) for changes in ((worn, still), (still, still))]
    assert [sign.rule for sign in ended if sign] == ["saturation", "likeness-lost"]


def test_a_look_is_the_mean_since_the_look_before() -> None:
    """Steps 1 to 4, a look at 2 and one at 4: shifts 1, 3 | 5, 9; mean 7, standard error 2.828/√2 = 2."""
    rows = [
        {"step": k, "margin": -k, "winner_shift": shift, "rejected_shift": 2 * shift, "gradient_factor": 0.5 / k}
        for k, shift in enumerate((1.0, 3.0, 5.0, 9.0, 100.0), 1)
    ]
    rows[3]["held_out_margin"] = -0.25
    found = rules.look(4, 2, rows, Seen(0.5, 4.0), Seen(0.4, 5.0))
    assert (found.step, found.margin, found.winner_shift, found.rejected_shift) == (4, -3.5, 7.0, 14.0)
    assert found.winner_shift_error == pytest.approx(2.0)
    assert found.gradient_factor == pytest.approx((0.5 / 3 + 0.5 / 4) / 2)
    assert (found.likeness_gain, found.motion_gain) == (pytest.approx(-0.2), pytest.approx(0.25))
    assert found.held_out_margin == -0.25
    first = rules.look(1, 0, rows, Seen(0.5, 4.0), Seen(0.5, 4.0))
    assert (first.winner_shift, first.winner_shift_error, first.held_out_margin) == (1.0, None, None)


def test_gains_are_relative_to_no_less_than_what_means_something() -> None:
    """A stage-1 model without any likeness or motion: gains are in units of 0.1 and of half a pixel."""
    rows = [{"step": 1, "margin": 0.0, "winner_shift": 0.0, "rejected_shift": 0.0, "gradient_factor": 0.5}]
    found = rules.look(1, 0, rows, Seen(0.0, 0.0), Seen(0.01, 0.25))
    assert (found.likeness_gain, found.motion_gain) == (pytest.approx(0.1), pytest.approx(0.5))


def gains(*pairs: tuple[float, float]) -> list[Look]:
    return history(*({"likeness_gain": likeness, "motion_gain": motion} for likeness, motion in pairs))


def test_the_best_sum_of_gains_is_chosen_among_those_that_lose_nothing() -> None:
    chosen = rules.choose(gains((0.1, 0.1), (0.3, -0.001), (0.9, -0.06), (0.2, -0.04)))
    assert (chosen.step, chosen.qualified) == (20, True)
    assert chosen.why.endswith("likeness +30%, motion +0%")


def test_without_a_good_checkpoint_the_smallest_loss_for_a_larger_gain_is_chosen_and_said() -> None:
    chosen = rules.choose(gains((0.5, -0.3), (0.15, -0.06), (2.0, -0.2), (0.01, -0.055)))
    assert (chosen.step, chosen.qualified) == (20, False), "the last loses less, and gains less than it loses"
    assert "none keeps both" in chosen.why and "likeness +15%, motion -6%" in chosen.why


def test_where_every_look_lost_more_than_it_gained_the_start_stays() -> None:
    """So did a guarded run of the miniature that lost 50 % of the likeness and gained 30 % of motion."""
    for looks in (gains((-0.5, 0.3), (-0.6, 0.24)), gains((5.0, -0.26)), gains((-0.1, 0.1))):
        chosen = rules.choose(looks, "round 1")
        assert (chosen.step, chosen.qualified) == (0, False)
        assert "against round 1, which stays" in chosen.why
    assert "step 10's: likeness -50%, motion +30%" in rules.choose(gains((-0.5, 0.3), (-0.6, 0.24))).why


def test_of_equals_the_later_one_is_chosen() -> None:
    assert rules.choose(gains((0.1, 0.1), (0.1, 0.1), (0.0, 0.1))).step == 20
    assert rules.choose(gains((-0.2, 0.3), (0.3, -0.2), (-0.3, 0.0))).step == 20
