"""Losses against hand arithmetic and joint autograd; scale and fronts against hand arithmetic and brute force."""

import gc
import math
import tracemalloc
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from magicid_cli import hpo

# --- noising ------------------------------------------------------------------------------------------------------


def test_velocity_noising_by_hand() -> None:
    """x0 = 2, ε = -1, t = 0.25: x_t = 0.75 * 2 + 0.25 * -1 = 1.25; target = -1 - 2 = -3."""
    x_t, target = hpo.velocity_noised(torch.tensor(2.0), torch.tensor(-1.0), torch.tensor(0.25))
    assert x_t.item() == pytest.approx(1.25)
    assert target.item() == -3


def test_noise_noising_by_hand() -> None:
    """x0 = 2, ε = -1, ᾱ = 0.64: x_t = 0.8 * 2 + 0.6 * -1 = 1.0; target = ε = -1."""
    x_t, target = hpo.noise_noised(torch.tensor(2.0), torch.tensor(-1.0), torch.tensor(0.64))
    assert x_t.item() == pytest.approx(1.0)
    assert target.item() == -1


@pytest.mark.parametrize("noised", [hpo.velocity_noised, hpo.noise_noised])
def test_times_belong_to_the_leading_dimension(noised: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """A batch with a time each is the same as its samples one by one; one time serves a sample of any shape."""
    torch.manual_seed(0)
    x0, noise, t = torch.randn(4, 2, 3, 5, 5), torch.randn(4, 2, 3, 5, 5), torch.rand(4)
    x_t, target = noised(x0, noise, t)
    for n in range(4):
        for time in (t[n], t[n : n + 1]):
            one = noised(x0[n], noise[n], time)
            torch.testing.assert_close((x_t[n], target[n]), one, rtol=0, atol=0)


@given(t=st.floats(0.01, 0.99))
def test_the_target_leads_back_to_the_data(t: float) -> None:
    """Identities: x0 = x_t - t v, and x0 = (x_t - sqrt(1 - ᾱ) ε) / sqrt(ᾱ)."""
    x0, noise = torch.randn(2, 8, dtype=torch.float64)
    time = torch.tensor(t, dtype=torch.float64)
    x_t, velocity = hpo.velocity_noised(x0, noise, time)
    torch.testing.assert_close(x_t - t * velocity, x0)
    x_t, epsilon = hpo.noise_noised(x0, noise, time)
    torch.testing.assert_close((x_t - math.sqrt(1 - t) * epsilon) / math.sqrt(t), x0)


def test_the_error_is_a_mean() -> None:
    """((1-0)² + (2-0)² + (3-1)² + (0-1)²) / 4 = (1 + 4 + 4 + 1) / 4 = 2.5, however often the elements are repeated."""
    target, prediction = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert hpo.error(target, prediction).item() == 2.5
    assert hpo.error(target.repeat(3, 7), prediction.repeat(3, 7)).item() == pytest.approx(2.5)


# --- loss ---------------------------------------------------------------------------------------------------------


Terms = dict[str, Any]

# The paper's loss: no further term.
PLAIN: Terms = {"guard": 0.0, "anchor": 0.0}


def errors_of(*values: float) -> hpo.PairErrors:
    return hpo.PairErrors(*(torch.tensor(value, dtype=torch.float64) for value in values))


def test_loss_by_hand() -> None:
    """m = (0.5 - 0.6) - (0.9 - 0.7) = -0.3; β = 10: (β/2) m = -1.5.

    L = log(1 + exp(-1.5)) = log(1.22313016) = 0.20141328; σ(-1.5) = 0.22313016 / 1.22313016 = 0.18242552;
    s = 5 * 0.18242552 = 0.91212762.
    """
    errors = errors_of(0.5, 0.6, 0.9, 0.7)
    m = hpo.margin(errors)
    assert m.item() == pytest.approx(-0.3)
    assert hpo.preference_loss(errors, 10, **PLAIN).item() == pytest.approx(0.20141328, abs=1e-8)
    assert hpo.gradient_factor(m, 10).item() == pytest.approx(0.18242552, abs=1e-8)
    assert hpo.gradient_scale(m, 10).item() == pytest.approx(0.91212762, abs=1e-8)


@given(e_w=st.floats(0, 10), e_l=st.floats(0, 10), beta=st.floats(0, 1e5))
def test_a_policy_equal_to_its_reference_has_loss_log_2(e_w: float, e_l: float, beta: float) -> None:
    """m = 0: L = log 2 and factor 0.5, whatever β."""
    errors = errors_of(e_w, e_w, e_l, e_l)
    assert hpo.preference_loss(errors, beta, **PLAIN).item() == pytest.approx(math.log(2), rel=1e-12)
    assert hpo.gradient_factor(hpo.margin(errors), beta).item() == 0.5


@given(m=st.floats(-100, 100), beta=st.floats(1e-9, 1e-6))
def test_small_beta_is_linear(m: float, beta: float) -> None:
    """β → 0: L = log 2 + (β/4) m up to second order, ((β/2) m)² / 8."""
    loss = hpo.preference_loss(errors_of(m, 0, 0, 0), beta, **PLAIN).item()
    assert loss - math.log(2) == pytest.approx(beta / 4 * m, abs=(beta * m) ** 2 / 32 + 1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("m", "factor"), [(-1e30, 0.0), (-1e4, 0.0), (1e4, 1.0), (1e30, 1.0)])
def test_huge_margins_stay_finite(m: float, factor: float, dtype: torch.dtype) -> None:
    """m → -∞: loss and gradient 0; m → ∞: loss (β/2) m and gradient β/2; nothing overflows."""
    winner = torch.tensor(m, dtype=dtype, requires_grad=True)
    zero = torch.zeros((), dtype=dtype)
    loss = hpo.preference_loss(hpo.PairErrors(winner, zero, zero, zero), 500.0, **PLAIN)
    (gradient,) = torch.autograd.grad(loss, winner)
    assert loss.item() == pytest.approx(max(0.0, 250 * m), rel=1e-6)
    assert gradient.item() == 250 * factor
    assert hpo.gradient_scale(winner, 500.0).item() == 250 * factor


@given(m=st.floats(-5, 5), beta=st.floats(0.1, 50))
def test_the_gradient_scale_is_the_derivative_of_the_loss(m: float, beta: float) -> None:
    """s = dL/dm by autograd, and dL/de_l = -s."""
    winner = torch.tensor(m, dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros((), dtype=torch.float64)
    loss = hpo.preference_loss(hpo.PairErrors(winner, zero, rejected, zero), beta, **PLAIN)
    towards, away = torch.autograd.grad(loss, [winner, rejected])
    s = hpo.gradient_scale(winner.detach(), beta)
    torch.testing.assert_close((towards, away), (s, -s), rtol=1e-12, atol=0)


# --- the exact gradient -------------------------------------------------------------------------------------------


class Denoiser(nn.Module):
    """A prediction that depends on the noisy sample, the time and the text, in float64."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner = nn.Linear(8 + 1 + 3, 16, dtype=torch.float64)
        self.outer = nn.Linear(16, 8, dtype=torch.float64)

    def forward(self, x_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(torch.cat([x_t, t[None], text]))))


Noised = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Sample:
    """Latents of winner and rejected, and the noise, time and text that they share."""

    x0_w: Tensor
    x0_l: Tensor
    noise: Tensor
    t: Tensor
    text: Tensor

    def error(self, noised: Noised, x0: Tensor, model: Denoiser) -> Tensor:
        x_t, target = noised(x0, self.noise, self.t)
        return hpo.error(target, model(x_t, self.t, self.text))


def draw_sample() -> Sample:
    x0_w, x0_l, noise = torch.randn(3, 8, dtype=torch.float64)
    return Sample(x0_w, x0_l, noise, torch.rand((), dtype=torch.float64), torch.randn(3, dtype=torch.float64))


# The method's loss, each further term alone, and both together.
TERMS = [PLAIN, {**PLAIN, "guard": 2.0}, {**PLAIN, "anchor": 0.3}, {"guard": 0.7, "anchor": 1.5}]


@pytest.mark.parametrize("noised", [hpo.velocity_noised, hpo.noise_noised])
@pytest.mark.parametrize("beta", [0.1, 5.0, 300.0])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("terms", TERMS, ids=["plain", "guard", "anchor", "both"])
def test_one_graph_at_a_time_is_joint_autograd(noised: Noised, beta: float, count: int, terms: Terms) -> None:
    """The mean loss of one and of several pairs, with all graphs alive: relative difference below 1e-12."""
    policy, reference = Denoiser(0), Denoiser(7)
    parameters = list(policy.parameters())
    into = [torch.zeros_like(parameter) for parameter in parameters]
    losses, steps = [], []
    for sample in [draw_sample() for _ in range(count)]:
        winner = partial(sample.error, noised, sample.x0_w)
        rejected = partial(sample.error, noised, sample.x0_l)
        with torch.no_grad():
            references = winner(reference), rejected(reference)
        errors = hpo.PairErrors(winner(policy), references[0], rejected(policy), references[1])
        losses.append(hpo.preference_loss(errors, beta, **terms))
        closures = partial(winner, policy), partial(rejected, policy)
        step = hpo.accumulate_preference(*closures, *references, parameters, beta, into, weight=1 / count, **terms)
        steps.append(step)
    joint = torch.autograd.grad(torch.stack(losses).mean(), parameters)
    difference = torch.cat([(a - b).flatten() for a, b in zip(into, joint, strict=True)]).norm()
    assert difference / torch.cat([b.flatten() for b in joint]).norm() < 1e-12
    assert [step.loss for step in steps] == pytest.approx([loss.item() for loss in losses])
    assert all(parameter.grad is None for parameter in parameters)


def square(parameter: Tensor, goal: float) -> Callable[[], Tensor]:
    return lambda: (parameter - goal).square().sum()


def test_a_step_by_hand() -> None:
    """θ = 1; e_w = (θ - 2)² = 1, e_l = (θ + 1)² = 4; references 1.5 and 3: m = -0.5 - 1 = -1.5.

    β = 2: σ(-1.5) = 0.18242552, s = 0.18242552; ∇e_w - ∇e_l = -2 - 4 = -6; gradient -6 s = -1.09455314.
    """
    theta, into = torch.tensor([1.0], requires_grad=True), [torch.tensor([10.0])]
    step = hpo.accumulate_preference(square(theta, 2), square(theta, -1), 1.5, 3.0, [theta], 2.0, into, **PLAIN)
    assert into[0].item() == pytest.approx(10 - 1.09455314)
    assert (step.margin, step.winner_shift, step.rejected_shift) == (-1.5, -0.5, 1.0)
    assert step.loss == pytest.approx(0.20141328, abs=1e-8)
    assert step.gradient_factor == pytest.approx(0.18242552, abs=1e-8)
    assert step.implicit_accuracy == 1


def test_a_guarded_and_anchored_step_by_hand() -> None:
    """θ = 1; e_w = (θ - 2)² = 1, e_l = (θ + 1)² = 4; references 0.5 and 3; g = 2, a = 0.25, β = 2.

    m = 0.5 - 1 = -0.5; the winner's error is 0.5 above its reference: m_g = -0.5 + 2 · 0.5 = 0.5.
    σ(0.5) = 0.62245933, s = 0.62245933; ∇e_w = -2, ∇e_l = 4;
    gradient: s (1 + 2) (-2) - s 4 + (β/2) 0.25 (-2) = -10 · 0.62245933 - 0.5 = -6.72459331;
    loss: softplus(0.5) + 0.25 · 0.5 = 0.97407698 + 0.125 = 1.09907698.
    """
    theta, into = torch.ones(1, dtype=torch.float64, requires_grad=True), [torch.zeros(1, dtype=torch.float64)]
    errors = square(theta, 2), square(theta, -1), 0.5, 3.0
    step = hpo.accumulate_preference(*errors, [theta], 2.0, into, guard=2.0, anchor=0.25)
    assert into[0].item() == pytest.approx(-6.72459331, abs=1e-8)
    assert step.loss == pytest.approx(1.09907698, abs=1e-8)
    assert step.gradient_factor == pytest.approx(0.62245933, abs=1e-8)
    # What is watched is the method's margin, whatever the loss makes of it.
    assert (step.margin, step.winner_shift, step.implicit_accuracy) == (-0.5, 0.5, 1)


def test_the_guard_does_nothing_while_the_winner_s_error_is_low() -> None:
    """e_w = 1 is below its reference of 1.5, and at 1 exactly it is at it: in both cases the step without a guard."""
    theta = torch.ones(1, dtype=torch.float64, requires_grad=True)
    for reference in (1.5, 1.0):
        plain, guarded = [torch.zeros_like(theta)], [torch.zeros_like(theta)]
        errors = square(theta, 2), square(theta, -1), reference, 3.0
        steps = [
            hpo.accumulate_preference(*errors, [theta], 2.0, plain, **PLAIN),
            hpo.accumulate_preference(*errors, [theta], 2.0, guarded, guard=50.0, anchor=0.0),
        ]
        assert steps[0] == steps[1] and torch.equal(plain[0], guarded[0])


def test_without_beta_the_gradient_is_the_small_beta_limit() -> None:
    """β → 0: the gradient tends to (β/4) (∇e_w - ∇e_l); None gives the bracket itself, with factor 0.5 and loss m."""
    theta = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    limit, small = [torch.zeros_like(theta)], [torch.zeros_like(theta)]
    errors = square(theta, 2), square(theta, -1), 3.0, 0.5
    step = hpo.accumulate_preference(*errors, [theta], None, limit, **PLAIN)
    hpo.accumulate_preference(*errors, [theta], 1e-8, small, **PLAIN)
    torch.testing.assert_close(limit[0], torch.full_like(theta, -6))
    torch.testing.assert_close(small[0] * 4 / 1e-8, limit[0], rtol=1e-6, atol=0)
    assert (step.loss, step.gradient_factor, step.implicit_accuracy) == (step.margin, 0.5, 0)


@pytest.mark.parametrize("terms", TERMS[1:], ids=["guard", "anchor", "both"])
def test_the_small_beta_limit_holds_for_the_further_terms(terms: Terms) -> None:
    """As above, where the winner's error is above its reference; the loss is the limit of (L - log 2) · 4/β."""
    theta = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    limit, small = [torch.zeros_like(theta)], [torch.zeros_like(theta)]
    errors = square(theta, 2), square(theta, -1), 3.0, 0.5
    step = hpo.accumulate_preference(*errors, [theta], None, limit, **terms)
    near = hpo.accumulate_preference(*errors, [theta], 1e-7, small, **terms)
    assert near.winner_shift > 0
    torch.testing.assert_close(small[0] * 4 / 1e-7, limit[0], rtol=1e-5, atol=0)
    assert (near.loss - math.log(2)) * 4 / 1e-7 == pytest.approx(step.loss, rel=1e-5)


def test_the_winner_is_forgotten_before_the_rejected_is_measured() -> None:
    """Memory: when the rejected's forward starts, nothing of the winner's graph is alive."""
    theta = torch.tensor([1.0], requires_grad=True)
    alive: list[weakref.ref[Tensor]] = []
    seen = []

    def winner() -> Tensor:
        activation = theta * 3
        alive.append(weakref.ref(activation))
        return activation.square().sum()

    def rejected() -> Tensor:
        gc.collect()
        seen.append(alive[0]() is None)
        return theta.square().sum()

    hpo.accumulate_preference(winner, rejected, 1.0, 1.0, [theta], 1.0, [torch.zeros(1)], **PLAIN)
    assert seen == [True]


def test_a_parameter_that_one_side_does_not_touch_has_gradient_zero_there() -> None:
    """∇e_w = (2 a, 0), ∇e_l = (0, 2 b) with a = b = 1 and weight 1: (2, -2)."""
    a, b = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    into = [torch.zeros(1), torch.zeros(1)]
    hpo.accumulate_preference(square(a, 0), square(b, 0), 1.0, 1.0, [a, b], None, into, **PLAIN)
    assert [buffer.item() for buffer in into] == [2, -2]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_passed_on(bad: float) -> None:
    """The caller stops by what comes back; which sample it was shows in the shifts."""
    theta = torch.ones(1, requires_grad=True)
    step = hpo.accumulate_preference(
        square(theta, 0), lambda: theta.sum() * bad, 1.0, 1.0, [theta], 1.0, [torch.zeros(1)], **PLAIN
    )
    assert math.isfinite(step.winner_shift)
    assert not math.isfinite(step.rejected_shift)
    assert not math.isfinite(step.margin)


# --- beta ---------------------------------------------------------------------------------------------------------


@given(margins=st.lists(st.floats(-10, -1e-6), min_size=1, max_size=9), factor=st.floats(0.01, 0.49))
def test_the_solved_beta_gives_the_median_margin_its_factor(margins: list[float], factor: float) -> None:
    """There and back: σ((β/2) median) = factor, and β > 0."""
    beta = hpo.solve_beta(margins, factor)
    median = torch.tensor(float(np.median(margins)), dtype=torch.float64)
    assert beta > 0
    assert hpo.gradient_factor(median, beta).item() == pytest.approx(factor, rel=1e-9)


def test_solve_beta_by_hand() -> None:
    """Median of (-3, -0.5, 2) is -0.5; σ(x) = 0.25 at x = -log 3; β = 2 log 3 / 0.5 = 4 log 3."""
    assert hpo.solve_beta([2, -3, -0.5], 0.25) == pytest.approx(4 * math.log(3))


@pytest.mark.parametrize("margins", [[0.0], [1.0, -1.0], [0.1, 0.2, -5.0], [math.nan], []])
def test_no_beta_without_a_margin_below_zero(margins: list[float]) -> None:
    with pytest.raises(ValueError, match="median"):
        hpo.solve_beta(margins, 0.3)


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.7])
def test_no_beta_for_an_unreachable_factor(factor: float) -> None:
    with pytest.raises(ValueError, match="factor"):
        hpo.solve_beta([-1.0], factor)


# --- scale --------------------------------------------------------------------------------------------------------


def test_scale_by_hand() -> None:
    """(0, 5, 10) → (1, 5.5, 10); (2, -1, 0) → (10, 1, 4); a constant column → 5.5."""
    raw = np.array([[0, 2, 7], [5, -1, 7], [10, 0, 7]], dtype=float)
    assert hpo.scale(raw).tolist() == [[1, 10, 5.5], [5.5, 1, 5.5], [10, 4, 5.5]]


def test_an_empty_repository_scales_to_nothing() -> None:
    assert hpo.scale(np.zeros((0, 3))).shape == (0, 3)


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_scale_keeps_order_and_range(values: list[float]) -> None:
    raw = np.array(values)[:, None]
    scaled = hpo.scale(raw)
    if np.ptp(raw) > 0:
        assert (scaled.min(), scaled.max()) == (1, 10)
    assert (np.diff(scaled[np.argsort(raw[:, 0]), 0]) >= 0).all()


# --- fronts -------------------------------------------------------------------------------------------------------


def brute_front(points: np.ndarray, groups: np.ndarray) -> list[bool]:
    return [
        not any(
            groups[j] == groups[i] and all(points[j] >= points[i]) and any(points[j] > points[i])
            for j in range(len(points))
        )
        for i in range(len(points))
    ]


@st.composite
def grouped_points(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Points with many ties (small integers, a constant column at times) or hardly any, in up to four groups."""
    n, columns = draw(st.integers(0, 40)), draw(st.integers(1, 3))
    values = draw(st.sampled_from([st.integers(0, 3), st.floats(-1, 1), st.just(0.0)]))
    row = st.lists(values, min_size=columns, max_size=columns)
    points = draw(st.lists(row, min_size=n, max_size=n))
    groups = draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n))
    return np.array(points, dtype=float).reshape(n, columns), np.array(groups, dtype=int)


@given(data=grouped_points())
def test_fronts_are_those_of_brute_force(data: tuple[np.ndarray, np.ndarray]) -> None:
    points, groups = data
    assert hpo.upper_front(points, groups).tolist() == brute_front(points, groups)
    assert hpo.lower_front(points, groups).tolist() == brute_front(-points, groups)
    assert hpo.upper_front(points).tolist() == brute_front(points, np.zeros(len(points)))


def test_fronts_by_hand() -> None:
    """(3,1) and (1,3) beat nothing of each other; (1,1) is dominated by both; equal points share their fate."""
    points = np.array([[3, 1], [1, 3], [1, 1], [1, 3]])
    assert hpo.upper_front(points).tolist() == [True, True, False, True]
    assert hpo.lower_front(points).tolist() == [False, False, True, False]


def test_dominance_by_hand() -> None:
    a = np.array([[2, 2, 2], [2, 2, 2], [3, 2, 2], [3, 1, 2]])
    assert hpo.dominates(a, np.array([2, 2, 2])).tolist() == [False, False, True, False]


def test_four_rewards_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 3"):
        hpo.upper_front(np.zeros((2, 4)))


def test_a_front_of_everything_needs_little_memory() -> None:
    """100,000 points on a plane of constant sum: all of them are the front, and N² flags would be 10 GB."""
    flat = np.random.default_rng(0).integers(0, 2**20, (100_000, 2)).astype(float)
    points = np.column_stack([flat, -flat.sum(axis=1)])
    tracemalloc.start()
    assert hpo.upper_front(points).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
