"""The mathematics of the table: intervals and Fréchet distances.

Truths: closed forms for Gaussians, and the normal approximation of a mean's spread, which holds for many values.
"""

import math

import numpy as np
import pytest

from magicid_cli.evaluation import frechet
from magicid_cli.evaluation.statistics import interval

# Intervals


def width(values: list[float], prompts: list[str]) -> float:
    found = interval(values, prompts)
    assert found is not None
    return found[1] - found[0]


def test_with_one_video_a_prompt_it_is_the_bootstrap_over_prompts() -> None:
    """A 95 % interval of a mean is 2 * 1.96 standard errors wide."""
    values = np.random.default_rng(1).normal(3, 2, 400).tolist()
    expected = 2 * 1.96 * np.std(values) / math.sqrt(400)
    assert width(values, [str(n) for n in range(400)]) == pytest.approx(expected, rel=0.05)


def test_equal_videos_of_a_prompt_count_once() -> None:
    """Five equal videos of each of 100 prompts say as much as one of each, and not as much as 500 videos would."""
    each = np.random.default_rng(2).normal(0, 1, 100)
    prompts = [str(n) for n in range(100) for _ in range(5)]
    one = width(each.tolist(), [str(n) for n in range(100)])
    assert width(np.repeat(each, 5).tolist(), prompts) == pytest.approx(one, rel=0.03)
    assert one > 2 * width(np.repeat(each, 5).tolist(), [str(n) for n in range(500)])


def test_both_spreads_count() -> None:
    """40 prompts with deviation 1, ten videos each with deviation 3: 1 / 40 + 9 / 400, and once more within."""
    random = np.random.default_rng(3)
    between, within = random.normal(0, 1, 40), random.normal(0, 3, (40, 10))
    values = (between[:, None] + within).ravel()
    table = values.reshape(40, 10)
    expected = math.sqrt(table.mean(1).var() / 40 + table.var(1).mean() / 400)
    found = width(values.tolist(), [str(n) for n in range(40) for _ in range(10)])
    assert found == pytest.approx(2 * 1.96 * expected, rel=0.05)


def test_one_prompt_is_the_bootstrap_over_its_videos() -> None:
    values = np.random.default_rng(4).normal(0, 1, 200).tolist()
    expected = 2 * 1.96 * np.std(values) / math.sqrt(200)
    assert width(values, ["a"] * 200) == pytest.approx(expected, rel=0.05)


def test_prompts_with_unequally_many_videos_stay_within_their_values() -> None:
    found = interval([1, 1, 1, 9], ["a", "a", "a", "b"])
    assert found is not None
    # Drawn prompts are aa, ab, ba or bb: means 1, 3, 3, 9.
    assert found == (1, 9)


def test_constant_values_have_no_width_and_one_value_no_interval() -> None:
    assert interval([2.5] * 6, list("aabbcc")) == (2.5, 2.5)
    assert interval([2.5], ["a"]) is None


def test_the_draws_are_always_the_same() -> None:
    values = [0.1, 0.5, 0.7, 0.2, 0.9]
    assert interval(values, list("abcab")) == interval(values, list("abcab"))


# Fréchet distances


def exact(count: int, mean: np.ndarray, covariance: np.ndarray, seed: int) -> np.ndarray:
    """A sample whose own mean and covariance are exactly these: white noise made exactly white, then coloured."""
    noise = np.random.default_rng(seed).standard_normal((count, len(mean)))
    noise -= noise.mean(0)
    white = np.linalg.qr(noise)[0] * math.sqrt(count - 1)
    return np.asarray(white @ np.linalg.cholesky(covariance).T + mean)


def test_commuting_gaussians() -> None:
    """With common axes the distance is |m1 - m2|² + Σ (√a - √b)²."""
    random = np.random.default_rng(5)
    axes = np.linalg.qr(random.standard_normal((12, 12)))[0]
    a, b = random.uniform(0.1, 9, 12), random.uniform(0.1, 9, 12)
    means = random.normal(0, 2, (2, 12))
    one = exact(500, means[0], axes @ np.diag(a) @ axes.T, 6)
    other = exact(300, means[1], axes @ np.diag(b) @ axes.T, 7)
    truth = float(((means[0] - means[1]) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum())
    assert frechet.distance(one, other) == pytest.approx(truth, abs=1e-6)
    assert frechet.distance(other, one) == pytest.approx(truth, abs=1e-6)


def test_gaussians_in_the_plane_whose_axes_differ() -> None:
    """For 2x2 matrices Tr (C1 C2)^½ = √(Tr C1 C2 + 2 √det C1 C2)."""
    c1, c2 = np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([[1.0, -0.7], [-0.7, 3.0]])
    product = c1 @ c2
    root = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    truth = 5.0**2 + np.trace(c1) + np.trace(c2) - 2 * root
    one, other = exact(50, np.zeros(2), c1, 8), exact(80, np.array([3.0, 4.0]), c2, 9)
    assert frechet.distance(one, other) == pytest.approx(truth, abs=1e-6)


def test_fewer_videos_than_features() -> None:
    """Sets that vary in the first three of 400 features, as 8 videos do in some 7: the rest adds nothing."""
    random = np.random.default_rng(10)
    axes = np.linalg.qr(random.standard_normal((400, 3)))[0]
    a, b = np.array([4.0, 1.0, 0.25]), np.array([1.0, 9.0, 0.25])
    one, other = (exact(8, np.zeros(3), np.diag(part), seed) @ axes.T for part, seed in ((a, 11), (b, 12)))
    assert frechet.distance(one, other) == pytest.approx(1 + 4, abs=1e-6)
    assert frechet.distance(one, one) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shapes", [((1, 4), (5, 4)), ((5, 4), (5, 3)), ((5,), (5,))])
def test_sets_without_a_covariance_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="features must be"):
        frechet.distance(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_extrapolation_takes_the_bias_away() -> None:
    """Two sets of 60 from one Gaussian of 10 dimensions are 0 apart, and a finite sample says far more."""
    random = np.random.default_rng(13)
    for shift in (0.0, 3.0):
        one, other = random.standard_normal((2, 60, 10))
        other[:, 0] += shift
        found = frechet.extrapolated(one, other)
        assert found is not None
        raw = frechet.distance(one, other)
        # The shift's own square varies from sample to sample, by 2 * shift * √(2 / 60).
        room = 0.15 + 2 * 2 * shift * math.sqrt(2 / 60)
        assert abs(found["value"] - shift**2) < room
        assert raw - found["value"] > 0.15, "the bias"
        sizes = [size for size, _ in found["points"]]
        assert (sizes[0], sizes[-1]) == (30, 60)
        assert found["points"][-1][1] == pytest.approx(raw)
        assert found["points"][0][1] > raw, "smaller sets are farther apart"
        assert found["error"] < 0.1 * raw


def test_the_line_is_drawn_at_the_sizes_that_were_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """13 videos have no half: distances that lie exactly on `5 + 3 * 13 / n` must give 5."""
    monkeypatch.setattr(frechet, "distance", lambda one, other: 5 + 1.5 * (13 / len(one) + 13 / len(other)))
    found = frechet.extrapolated(np.zeros((13, 2)), np.zeros((13, 2)))
    assert found is not None
    assert found["value"] == pytest.approx(5)
    assert found["error"] == pytest.approx(0, abs=1e-9)


def test_few_videos_are_not_extrapolated() -> None:
    sets = np.random.default_rng(14).standard_normal((2, 20, 3))
    assert frechet.extrapolated(sets[0][: frechet.LEAST_TO_EXTRAPOLATE - 1], sets[1]) is None
    assert frechet.extrapolated(sets[0][: frechet.LEAST_TO_EXTRAPOLATE], sets[1]) is not None
