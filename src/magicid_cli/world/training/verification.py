"""Telling people apart: the loss that teaches it, and how well it is done."""

import numpy as np
import torch

from magicid_cli.world.training.pictures import generator


def margin_loss(vectors: torch.Tensor, who: torch.Tensor, scale: float, margin: float) -> torch.Tensor:
    """Cross-entropy of finding each crop's other half, whose angle is made larger by a margin.

    Row i competes with all crops of other people: -log(e^(s cos(a + m)) / (e^(s cos(a + m)) + sum e^(s cos a'))).

    Args:
        vectors: (2 N, D) of length 1; i and i + N are the two crops of one person.
        who: (2 N,) people; a person may come more than once, which is never held against it.
        scale: s.
        margin: m, in radians.
    """
    half = len(vectors) // 2
    with torch.autocast(vectors.device.type, enabled=False):  # half the digits are too few for an angle near 0
        cosines = vectors.float() @ vectors.float().T
        others = (scale * cosines).masked_fill(who[:, None] == who, -torch.inf)
        angle = cosines.diagonal(half).repeat(2).clamp(-1 + 1e-6, 1 - 1e-6).acos()
        logits = scale * (angle + margin).clamp(max=torch.pi).cos()
        return (torch.logaddexp(logits, others.logsumexp(1)) - logits).mean()


def pairs(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of all pairs of one person's pictures, and of a random picture of each two people: `(P, K, D)` in."""
    people, count, _ = vectors.shape
    first, second = np.triu_indices(count, 1)
    own = (vectors[:, first] * vectors[:, second]).sum(-1).ravel()
    draw = generator(7)
    left, right = np.triu_indices(people, 1)
    chosen = draw.integers(count, size=(2, len(left)))
    return own, (vectors[left, chosen[0]] * vectors[right, chosen[1]]).sum(-1)


def auc(own: np.ndarray, strangers: np.ndarray) -> float:
    """The chance that a pair of the same person has the higher cosine (Mann-Whitney; a tie counts half)."""
    ordered = np.sort(strangers)
    below, upto = np.searchsorted(ordered, own, "left"), np.searchsorted(ordered, own, "right")
    return float((below + upto).mean() / (2 * len(strangers)))


def thresholds(photos: np.ndarray) -> tuple[float, float]:
    """What a photo's cosine with the mean of a person's other photos tells.

    Args:
        photos: (P, K, D) of length 1, K photos of each of P people.

    Returns:
        The cosine that 1 in 200 of a person's own photos falls short of, and the one that 1 in 20 of the photos of
        somebody else exceeds.
    """
    rest = photos.sum(1, keepdims=True) - photos
    rest /= np.linalg.norm(rest, axis=-1, keepdims=True)
    own = (photos * rest).sum(-1)
    others = (np.roll(photos, 1, 0) * rest).sum(-1)
    return float(np.quantile(own, 0.005)), float(np.quantile(others, 0.95))
