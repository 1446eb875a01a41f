"""Noising, prediction errors, the preference loss and its exact gradient.

Symbols: `x0` clean latents, `noise` Gaussian noise ε, `t` time; `e` a prediction error, of winner (`w`) or rejected
(`l`), of policy or reference (`0`); `m` the margin, `beta` β, `s` the weight of a pair's gradient.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def velocity_noised(x0: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Flow matching: `x_t = (1 - t) x0 + t ε` and its target, the velocity `ε - x0`.

    The paper derives its loss for noise prediction. For velocities β stays constant in t, as Flow-DPO (arXiv
    2501.13918, table 3) found best.

    Args:
        x0: clean latents, any shape.
        noise: ε, of x0's shape.
        t: time from 0 (data) to 1 (noise), a scalar or x0's leading dimensions.
    """
    t = _leading(t, x0)
    return (1 - t) * x0 + t * noise, noise - x0


def noise_noised(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """DDPM: `x_t = sqrt(ᾱ) x0 + sqrt(1 - ᾱ) ε` and its target, the noise ε.

    Args:
        x0: clean latents, any shape.
        noise: ε, of x0's shape.
        alpha_bar: ᾱ_t from 1 (data) to 0 (noise), a scalar or x0's leading dimensions.
    """
    alpha_bar = _leading(alpha_bar, x0)
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise, noise


def _leading(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def error(target: Tensor, prediction: Tensor) -> Tensor:
    """`e`: mean squared error over all elements, a scalar (the KL terms below Eq. 25 as prediction errors).

    The mean, so that β does not change with resolution or length.
    """
    return (target - prediction).square().mean()


@dataclass(frozen=True)
class PairErrors:
    """The four prediction errors of one pair, scalars, all under the same noise and time.

    Attributes:
        winner: `e_w` of the policy.
        winner_reference: `e_w0` of the frozen reference.
        rejected: `e_l` of the policy.
        rejected_reference: `e_l0` of the frozen reference.
    """

    winner: Tensor
    winner_reference: Tensor
    rejected: Tensor
    rejected_reference: Tensor


def margin(errors: PairErrors) -> Tensor:
    """`m = (e_w - e_w0) - (e_l - e_l0)`: below 0 once the policy prefers the winner (Eq. 25)."""
    return (errors.winner - errors.winner_reference) - (errors.rejected - errors.rejected_reference)


def guarded_margin(errors: PairErrors, guard: float) -> Tensor:
    """`m_g = m + g relu(e_w - e_w0)`: a winner's error above the reference's costs 1 + g times. Our choice.

    In `m` alone a rising winner error is made up for by a rejected one that rises faster.
    """
    return margin(errors) + guard * torch.relu(errors.winner - errors.winner_reference)


def preference_loss(errors: PairErrors, beta: float, *, guard: float, anchor: float) -> Tensor:
    """`L = -log σ(-(β/2) m_g) + (β/2) a (e_w - e_w0)`; with g = a = 0 the bound of Eq. 21 for one pair.

    Log 2 where the policy is its reference, finite at any finite error. The last term is our choice: reconstruction of
    the winner (the reference's error is constant), measured against the steepest slope of the first term.

    Args:
        errors: of the pair.
        beta: β.
        guard: g, of `guarded_margin`; 0 in the paper.
        anchor: a; 0 in the paper.
    """
    first = -torch.nn.functional.logsigmoid(-(beta / 2) * guarded_margin(errors, guard))
    return first + (beta / 2) * anchor * (errors.winner - errors.winner_reference)


def gradient_factor(m: Tensor, beta: float) -> Tensor:
    """`σ((β/2) m)`: 0.5 at the start, near 0 for a pair that is learnt, near 1 for one that is turned around."""
    return torch.sigmoid((beta / 2) * m)


def gradient_scale(m: Tensor, beta: float) -> Tensor:
    """`s = dL/dm = (β/2) σ((β/2) m)`."""
    return (beta / 2) * gradient_factor(m, beta)


@dataclass(frozen=True)
class PreferenceStep:
    """What one pair did. A value that is not finite is passed on, for the caller to stop at.

    Attributes:
        loss: `L`; `m_g + 2 a (e_w - e_w0)` in the limit of small β.
        margin: `m`, without the guard.
        winner_shift: `e_w - e_w0`.
        rejected_shift: `e_l - e_l0`.
        implicit_accuracy: 1 if the margin is below 0, else 0.
        gradient_factor: `σ((β/2) m_g)`.
    """

    loss: float
    margin: float
    winner_shift: float
    rejected_shift: float
    implicit_accuracy: float
    gradient_factor: float


def accumulate_preference(
    winner_error: Callable[[], Tensor],
    rejected_error: Callable[[], Tensor],
    winner_reference: Tensor | float,
    rejected_reference: Tensor | float,
    parameters: Sequence[Tensor],
    beta: float | None,
    into: Sequence[Tensor],
    weight: float = 1.0,
    *,
    guard: float,
    anchor: float,
) -> PreferenceStep:
    """Add the exact gradient of one pair's loss to `into`, with one clip's graph alive at a time.

    `∇L = s (∇e_w - ∇e_l) + (s g [e_w > e_w0] + (β/2) a) ∇e_w` with scalars that are known once both errors are: the two
    gradients are taken one after the other and scaled at the end. No parameter's `.grad` is read or written.

    Args:
        winner_error: computes `e_w` with its graph.
        rejected_error: computes `e_l` with its graph; called when the winner's graph is gone.
        winner_reference: `e_w0`.
        rejected_reference: `e_l0`.
        parameters: what is trained.
        beta: β; None for the limit of small β, `s = 1` and `(β/2) a` as `2 a`, as probe steps need it.
        into: buffers of the parameters' shapes; several pairs add up.
        weight: the pair's share of the step, 1 / pairs for a mean.
        guard: g, of `guarded_margin`.
        anchor: a, of `preference_loss`.
    """
    e_w, towards = _value_and_gradient(winner_error, parameters)
    e_l, away = _value_and_gradient(rejected_error, parameters)
    values = (e_w, winner_reference, e_l, rejected_reference)
    errors = PairErrors(*(torch.as_tensor(e, dtype=torch.float64, device="cpu") for e in values))
    m, shift = guarded_margin(errors, guard), errors.winner - errors.winner_reference
    s, anchored = (1.0, 2 * anchor) if beta is None else (gradient_scale(m, beta).item(), beta / 2 * anchor)
    more = s * guard * float(shift > 0) + anchored
    for buffer, plus, minus in zip(into, towards, away, strict=True):
        buffer.add_(plus - minus, alpha=weight * s).add_(plus, alpha=weight * more)
    unguarded = margin(errors).item()
    limit = m + 2 * anchor * shift
    return PreferenceStep(
        loss=(limit if beta is None else preference_loss(errors, beta, guard=guard, anchor=anchor)).item(),
        margin=unguarded,
        winner_shift=shift.item(),
        rejected_shift=(errors.rejected - errors.rejected_reference).item(),
        implicit_accuracy=float(unguarded < 0),
        gradient_factor=gradient_factor(m, beta or 0.0).item(),
    )


def _value_and_gradient(
    function: Callable[[], Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, Sequence[Tensor]]:
    e = function()
    return e.detach(), torch.autograd.grad(e, parameters, materialize_grads=True)


def solve_beta(margins: Sequence[float], factor: float) -> float:
    """The β at which the median margin has the gradient factor `factor`: `β = 2 logit(factor) / m`. Our choice.

    Args:
        margins: margins that probe steps reached.
        factor: the wanted `σ((β/2) m)`, between 0 and 0.5.

    Raises:
        ValueError: the median margin is not below 0 (no β reaches the factor), there is none, or the factor is outside.
    """
    if not 0 < factor < 0.5:
        raise ValueError(f"the gradient factor must lie between 0 and 0.5, not {factor}")
    m = statistics.median(margins)
    if not m < 0:
        raise ValueError(f"the median margin is {m:.3g}, not below 0")
    return 2 * math.log(factor / (1 - factor)) / m
