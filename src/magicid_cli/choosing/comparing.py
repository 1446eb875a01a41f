"""Photos compared with one another: the same picture twice, another person, a covered face, and which ones to take."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from magicid_cli.choosing.looking import OTHER_PERSON, Seen
from magicid_cli.choosing.measures import PARTS
from magicid_cli.faces import normalised
from magicid_cli.photos import NEAR_DUPLICATE_BITS, hash_distance

SAME_BACKGROUND = 0.3
"""Photos whose `measures.background` lie closer together seem to have one background. In the drawn world 55 of 64 pairs
before one place in one light do, and 3 of 1720 pairs before different places; other light hides it."""

# How much more like the others a face must become when a part is hidden, than the photos' faces do on the whole: at
# least this cosine, and so many standard deviations (estimated from the median deviation).
_ODD, _ODD_DEVIATIONS = 0.12, 4.0
_FEWEST = 4  # photos, to tell which one is odd

_POOL = 2  # a subset is chosen from so many times as many of the best photos
_TURN = 45.0  # degrees that count as much as no similarity between two faces, or no common colour behind them

# Copies of one picture: faces that differ by less than this count as equally large and sharp, and so does noise below
# `_CLEAN` (in percent of the contrast; the texture of a clean portrait measures 7) or less than this above another's.
_SAME_QUALITY, _SAME_NOISE, _CLEAN = 0.05, 0.15, 8.0

RULE = (
    "of the {pool} best by face size times sharpness (sharp enough is as good as sharper), first the best one, then "
    "again and again the one that is least like those taken before, in face, pose and background"
)

_SAID = {
    "eyes": ("eyes", "sunglasses, or something before them?"),
    "mouth": ("mouth and chin", "a mask, a hand, a scarf?"),
}


def used(seen: list[Seen]) -> list[int]:
    """Indices of the photos that nothing speaks against so far."""
    return [index for index, item in enumerate(seen) if item.used]


def _by_quality(seen: list[Seen]) -> list[int]:
    """Used photos, the best first: face size times sharpness, as far as it counts."""
    return sorted(used(seen), key=lambda index: -seen[index].quality)


def without_duplicates(seen: list[Seen]) -> list[Seen]:
    """Of photos that are nearly the same picture, the best stays.

    The best is the one with the largest and sharpest face; of equal ones the one with less noise (which a dithered
    palette has, too), then the larger file, which is more often the original.
    """
    copies: list[list[int]] = []
    for index in _by_quality(seen):
        item = seen[index]
        same = next((one for one in copies if _near(item, seen[one[0]])), None)
        if same is None:
            copies.append([index])
        elif _better_copy(item, seen[same[0]]):
            same.insert(0, index)
        else:
            same.append(index)
    result = list(seen)
    for best, *others in copies:
        reason = f"It is nearly the same picture as {seen[best].verdict.file}, which is at least as good."
        for index in others:
            result[index] = seen[index].marked("near-duplicate", reason, "Keep it with --keep-duplicates.")
    return result


def _near(one: Seen, other: Seen) -> bool:
    return hash_distance(one.hash, other.hash) <= NEAR_DUPLICATE_BITS


def _better_copy(one: Seen, other: Seen) -> bool:
    """Whether one of two copies, the one that has no larger and sharper face, is to be kept all the same."""
    if one.quality < (1 - _SAME_QUALITY) * other.quality:
        return False
    noise, noise_of_other = max(one.noise, _CLEAN), max(other.noise, _CLEAN)
    if max(noise, noise_of_other) > (1 + _SAME_NOISE) * min(noise, noise_of_other):
        return noise < noise_of_other
    return one.bytes > other.bytes


def strangers(embeddings: np.ndarray, threshold: float) -> dict[int, float]:
    """Which of at least three photos seem to show somebody else.

    Each photo is compared with the normalised mean of the others. While the least similar one is below the
    threshold, it is set aside and the rest compared anew, so that it does not spoil the mean for them; at least two
    photos stay.

    Args:
        embeddings: (N, D), of length 1 each.
        threshold: smallest cosine of the same person.

    Returns:
        Index → cosine of the photos set aside.
    """
    odd: dict[int, float] = {}
    rest = list(range(len(embeddings)))
    while len(rest) >= 3:
        cosines = likeness(embeddings[rest])
        worst = int(np.argmin(cosines))
        if cosines[worst] >= threshold:
            break
        odd[rest.pop(worst)] = float(cosines[worst])
    return odd


def likeness(embeddings: np.ndarray) -> np.ndarray:
    """Cosine of each embedding `(N, D)` of length 1 to the mean of the others, `(N,)`."""
    vectors = embeddings.astype(np.float64)
    cosines: np.ndarray = (vectors * normalised(vectors.sum(0) - vectors)).sum(1)
    return cosines


def one_person(seen: list[Seen], threshold: float, force: bool, notice: Callable[[str], None]) -> list[Seen]:
    """Mark the photos of other people; two photos alone cannot tell which is the odd one, so they only warn.

    A face that is unlike the rest only while the eyes, or mouth and chin, are to be seen is called covered: the same
    part is then hidden in all photos.

    Args:
        seen: all photos.
        threshold: smallest cosine of the same person, see `faces.Recogniser`.
        force: use them all the same.
        notice: hears what the photos' owner should know.
    """
    indices = used(seen)
    if len(indices) < 2:
        return seen
    views = np.stack([seen[index].views for index in indices])
    if len(indices) == 2:
        cosine = float(views[0, 0] @ views[1, 0])
        if cosine < threshold:
            names = " and ".join(seen[index].verdict.file for index in indices)
            notice(f"{names} may show different people (similarity {cosine:.2f}).")
        return seen
    result = list(seen)
    odd = strangers(views[:, 0], threshold)
    rest = np.delete(views, list(odd), 0)
    for position, cosine in odd.items():
        index = indices[position]
        against = f"(similarity {cosine:.2f}, at least {threshold:.2f})"
        part = None if len(rest) < _FEWEST - 1 else _covered(views[position], rest, threshold)
        code, reason = OTHER_PERSON, f"It seems to show another person than the rest {against}."
        if part is not None:
            what, guess = _SAID[part]
            code, reason = "covered", f"It is like the rest only without its {what} {against}: {guess}"
        if force:
            notice(f"{seen[index].verdict.file}: {reason} It is used, as --force says.")
        else:
            result[index] = seen[index].marked(code, reason, "Leave it out, or use it with --force.")
    return result


def _covered(views: np.ndarray, rest: np.ndarray, threshold: float) -> str | None:
    """The part without which a face `(1 + P, D)` is like the rest `(N, 1 + P, D)`, or None."""
    means = normalised(rest.astype(np.float64).sum(0))
    cosines = (views * means).sum(1)
    best = 1 + int(np.argmax(cosines[1:]))
    return list(PARTS)[best - 1] if cosines[best] >= threshold else None


def compared(seen: list[Seen]) -> list[Seen]:
    """Add to used photos how they relate to the others, and a remark where part of a face is odd."""
    indices = used(seen)
    if len(indices) < 2:
        return seen
    views = np.stack([seen[index].views for index in indices])
    likes = np.stack([likeness(views[:, view]) for view in range(views.shape[1])], 1)
    odd = odd_parts(likes)
    alike = same_background([seen[index].background for index in indices])
    result = list(seen)
    for position, index in enumerate(indices):
        names = ("likeness", *(f"without_{part}" for part in PARTS))
        facts = dict(zip(names, likes[position].round(3).tolist(), strict=True))
        part = odd[position]
        item = replace(seen[index], odd=part)
        item = item.measured(**facts, odd=part, same_background=int(alike[position].sum()) - 1)
        if part is not None:
            what, guess = _SAID[part]
            item = item.remarked(f"Its {what} are unlike those of the other photos: {guess}")
        result[index] = item
    return result


def odd_parts(likes: np.ndarray) -> list[str | None]:
    """The part of each face that makes it unlike the others, if there is one.

    Hiding a part in all photos brings a face closer to the others where that part was the difference. What the photos
    gain on the whole is taken off, so a recogniser that finds faces without eyes more alike misleads nobody. A person
    whose eyes are covered in half of the photos cannot be noticed this way.

    Args:
        likes: (N, 1 + P) cosines to the mean of the others: of the face, and with each of `PARTS` hidden.
    """
    if len(likes) < _FEWEST:
        return [None] * len(likes)
    gains = likes[:, 1:] - likes[:, :1]
    gains = gains - np.median(gains, 0)
    bars = np.maximum(_ODD, _ODD_DEVIATIONS * 1.4826 * np.median(np.abs(gains), 0))
    excess = gains - bars
    parts = list(PARTS)
    return [parts[int(np.argmax(row))] if row.max() > 0 else None for row in excess]


def same_background(backgrounds: list[np.ndarray | None]) -> np.ndarray:
    """Which photos seem to have the same background, bool `(N, N)`; one that shows none is like itself only."""
    same = np.eye(len(backgrounds), dtype=bool)
    for row, one in enumerate(backgrounds):
        for column, other in enumerate(backgrounds[:row]):
            if one is not None and other is not None:
                same[row, column] = same[column, row] = np.linalg.norm(one - other) < SAME_BACKGROUND
    return same


def chosen(seen: list[Seen], limit: int) -> tuple[list[Seen], str]:
    """At most `limit` photos: good ones that differ from one another; photos with an odd part come last.

    Returns:
        The photos with their verdicts, and the rule by which some were left out, or nothing.
    """
    order = sorted(_by_quality(seen), key=lambda index: seen[index].odd is not None)
    if len(order) <= limit:
        return seen, ""
    pool = order[: _POOL * limit]
    taken = {pool[place] for place in far_apart(_features([seen[index] for index in pool]), limit)}
    result = list(seen)
    for place, index in enumerate(order):
        if index in taken:
            continue
        reason = f"The {limit} chosen ones differ more from one another."
        if place >= len(pool):
            reason = f"There are {len(pool)} better ones (face size times sharpness)."
        result[index] = seen[index].marked("over-limit", reason, "Use more with --max-photos.")
    return result, f"{limit} of {len(order)} good photos are taken: {RULE.format(pool=len(pool))}."


def _features(seen: list[Seen]) -> np.ndarray:
    """(N, F) points whose distances say how unlike photos are; what is not known of a photo is no difference."""
    poses = [(item.pose.yaw, item.pose.pitch, item.pose.roll) if item.pose else (0.0, 0.0, 0.0) for item in seen]
    known = [item.background for item in seen if item.background is not None]
    unknown = np.mean(known, 0) if known else np.zeros(1)
    places = [unknown if item.background is None else item.background for item in seen]
    return np.column_stack([np.stack([item.embedding for item in seen]), np.array(poses) / _TURN, np.stack(places)])


def far_apart(points: np.ndarray, count: int) -> list[int]:
    """Points that lie far from one another: the first, then always the one that is farthest from all taken before.

    The smallest distance among them is at least half of what any choice of as many points can have (Ravi, Rosenkrantz
    and Tayi 1994). Of equally distant points the earlier one is taken.

    Args:
        points: (N, F).
        count: how many, at most N.
    """
    taken = [0]
    nearest = np.linalg.norm(points - points[0], axis=1)
    while len(taken) < count:
        nearest[taken] = -1.0
        taken.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[taken[-1]], axis=1))
    return taken
