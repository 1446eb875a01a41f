"""Means with 95 % intervals, by drawing prompts and videos again."""

from collections.abc import Sequence

import numpy as np

DRAWS = 10_000
WITHIN = (2.5, 97.5)
"""Percentiles of the draws between which an interval lies."""


def interval(values: Sequence[float], prompts: Sequence[str]) -> tuple[float, float] | None:
    """Where the mean of videos would lie, had there been other prompts and other videos of each.

    A percentile bootstrap in two steps: as many prompts as there are, drawn with replacement, and of each drawn prompt
    as many of its videos as it has, drawn with replacement. Videos of one prompt are alike, so to draw videos alone
    would promise too narrow an interval. With one video a prompt it is the bootstrap over prompts, with one prompt that
    over its videos. The draws are the same for all metrics of the same videos, and in every run.

    Args:
        values: one a video.
        prompts: of each of them.

    Returns:
        The 2.5 % and 97.5 % points of the drawn means; None for fewer than two videos.
    """
    if len(values) < 2:
        return None
    table, counts = _by_prompt(values, prompts)
    rows, most = table.shape
    random = np.random.default_rng(0)
    sums, numbers = np.zeros(DRAWS), np.zeros(DRAWS)
    for _ in range(rows):  # as many prompts as there are; a column of draws at a time keeps memory small
        chosen = random.integers(rows, size=DRAWS)
        videos = (random.random((DRAWS, most)) * counts[chosen, None]).astype(np.int64)
        taken = np.arange(most) < counts[chosen, None]
        sums += np.where(taken, table[chosen[:, None], videos], 0.0).sum(1)
        numbers += counts[chosen]
    low, high = np.percentile(sums / numbers, WITHIN)
    return float(low), float(high)


def _by_prompt(values: Sequence[float], prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Values `(P, most)`, a row a prompt, filled up with zeros; and how many values each row has, `(P,)`."""
    groups: dict[str, list[float]] = {}
    for value, prompt in zip(values, prompts, strict=True):
        groups.setdefault(prompt, []).append(value)
    counts = np.array([len(group) for group in groups.values()])
    table = np.zeros((len(groups), counts.max()))
    for row, group in zip(table, groups.values(), strict=True):
        row[: len(group)] = group
    return table, counts
