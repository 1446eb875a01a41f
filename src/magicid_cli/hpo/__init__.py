"""Hybrid preference optimization: the paper, as pure functions of tensors and arrays.

`losses` noises, measures and differentiates; `fronts` scales rewards and finds Pareto fronts; `kinds` says which clips
may be a pair, and `selection` chooses among these, on top of `pools` and with people's `votes`. Nothing here knows a
model, a file or a setting.
Equation numbers are those of the supplement of MagicID (arXiv 2503.12689); what the paper leaves open is marked "our
choice".
"""

from magicid_cli.hpo.fronts import dominates, lower_front, scale, upper_front
from magicid_cli.hpo.kinds import REWARDS, Candidates, PairRule
from magicid_cli.hpo.losses import (
    PairErrors,
    PreferenceStep,
    accumulate_preference,
    error,
    gradient_factor,
    gradient_scale,
    guarded_margin,
    margin,
    noise_noised,
    preference_loss,
    solve_beta,
    velocity_noised,
)
from magicid_cli.hpo.selection import Pair, Selection, select_pairs
from magicid_cli.hpo.votes import Votes

__all__ = [
    "REWARDS",
    "Candidates",
    "Pair",
    "PairErrors",
    "PairRule",
    "PreferenceStep",
    "Selection",
    "Votes",
    "accumulate_preference",
    "dominates",
    "error",
    "gradient_factor",
    "gradient_scale",
    "guarded_margin",
    "lower_front",
    "margin",
    "noise_noised",
    "preference_loss",
    "scale",
    "select_pairs",
    "solve_beta",
    "upper_front",
    "velocity_noised",
]
