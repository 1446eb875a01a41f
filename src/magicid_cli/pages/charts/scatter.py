"""The repository: likeness against motion, prompt following as size, frontiers, and pairs from rejected to winner."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from magicid_cli import hpo
from magicid_cli.pages.charts import COLOURS, WIDE, Chart, Spec, colours, mark, number, values
from magicid_cli.rounds import FIRST

_COLOURS, _SHAPES = ("c1", "c2", "c3"), ("circle", "square", "triangle-up")
_HEIGHT = 380
ALL = "all"
"""The frontier of all prompts together; those of a prompt are called by its number."""


def origins(number: int = FIRST) -> dict[str, str]:
    """What the origins of a repository's videos are called in round `number`."""
    start = "the stage-1 adapter" if number == FIRST else f"the adapter of round {number - 1}"
    return {"tuned": f"with {start}", "initial": "untouched model", "static": "photo as a clip"}


@dataclass(frozen=True)
class Point:
    """A scored video.

    Attributes:
        id: its name.
        origin: a key of `origins`.
        prompt: number of its prompt; None of a static clip.
        likeness: raw.
        motion: raw.
        following: raw.
        round: whose repository it lies in.
    """

    id: str
    origin: str
    prompt: int | None
    likeness: float
    motion: float
    following: float
    round: int = FIRST

    @property
    def origin_said(self) -> str:
        """Where it comes from, in words."""
        return origins(self.round)[self.origin]

    @property
    def said(self) -> str:
        """The point in words."""
        values = f"likeness {number(self.likeness)}, motion {number(self.motion)}"
        return f"{self.id}, {self.origin_said}: {values}, prompt following {number(self.following)}"


@dataclass(frozen=True)
class Pair:
    """A preference pair.

    Attributes:
        id: its name in the page.
        kind: `identity`, `dynamic` or `held-out`.
        winner: name of the preferred video.
        rejected: name of the other one.
        why: why it was chosen.
    """

    id: str
    kind: str
    winner: str
    rejected: str
    why: str


def chart(points: Sequence[Point], pairs: Sequence[Pair]) -> Chart:
    """The scatter, with the frontiers of every single prompt, hidden at first, for the page to show one by one.

    Args:
        points: the scored videos, at least one, all of one round.
        pairs: those whose videos are both among the points.
    """
    place: Spec = {
        "x": {
            "field": "x",
            "type": "quantitative",
            "title": "Likeness (cosine to the photos)",
            "scale": {"zero": False},
        },
        "y": {
            "field": "y",
            "type": "quantitative",
            "title": "Motion (pixels per 1/8 s)",
            "scale": {"zero": True},
            "axis": {"tickCount": 7},
        },
    }
    below, above = [_pairs(points, pairs, place)] if pairs else [], _dots(points, place)
    prompts = sorted({one.prompt for one in points if one.prompt is not None})
    layers = [*below, _fronts(points, place, prompts), above]
    size = {"width": WIDE, "height": _HEIGHT}
    table = [
        (one.id, one.origin_said, number(one.likeness), number(one.motion), number(one.following)) for one in points
    ]
    return Chart(
        "repository",
        "Likeness and motion of every video in the repository",
        "Each point is a video; its size is how well it follows its prompt. The upper frontier joins videos that no "
        "other one beats in both likeness and motion, the lower frontier (dashed) those that beat none in both; with "
        "one prompt chosen they are that prompt's. Grey lines are preference pairs: the ring is the winner.",
        {**size, "layer": layers},
        ("Video", "Origin", "Likeness", "Motion", "Prompt following"),
        table,
        linked=True,
        wide=True,
        still={**size, "layer": [*below, _fronts(points, place, []), above]},
        hidden=frozenset(f"front-{side}-{prompt}" for side in ("upper", "lower") for prompt in prompts),
    )


def _dots(points: Sequence[Point], place: Spec) -> Spec:
    rows = [
        {
            "x": one.likeness,
            "y": one.motion,
            "following": one.following,
            "origin": one.origin_said,
            "href": mark(one.id),
            "said": one.said,
        }
        for one in points
    ]
    labels = origins(points[0].round)
    names = [label for origin, label in labels.items() if any(one.origin == origin for one in points)]
    places = [list(labels.values()).index(name) for name in names]
    origin = {"field": "origin", "type": "nominal", "title": "videos", "legend": {"direction": "vertical"}}
    return {
        "data": values(rows),
        "mark": {"type": "point", "filled": True, "opacity": 0.9, "stroke": COLOURS["ground"], "strokeWidth": 0.8},
        "encoding": {
            **place,
            "color": {**origin, "scale": {"domain": names, "range": [colours(_COLOURS)[n] for n in places]}},
            "shape": {**origin, "scale": {"domain": names, "range": [_SHAPES[n] for n in places]}},
            "size": {
                "field": "following",
                "type": "quantitative",
                "title": "prompt following",
                "scale": {"range": [25, 170], "zero": False},
                "legend": {
                    "values": _few([one.following for one in points]),
                    "format": ".2~f",
                    "symbolType": "circle",
                    "direction": "vertical",
                },
            },
            "href": {"field": "href"},
            "description": {"field": "said"},
        },
    }


def _few(found: Sequence[float]) -> list[float]:
    """The smallest and the largest value, for a legend."""
    return sorted({min(found), max(found)})


def _pairs(points: Sequence[Point], pairs: Sequence[Pair], place: Spec) -> Spec:
    here = {one.id: one for one in points}
    rows = []
    for pair in pairs:
        winner, rejected = here[pair.winner], here[pair.rejected]
        said = f"{pair.kind} pair: {pair.winner} preferred to {pair.rejected}; {pair.why}"
        ends = {"x": rejected.likeness, "y": rejected.motion, "x2": winner.likeness, "y2": winner.motion}
        rows.append({**ends, "kind": pair.kind, "said": said, "href": mark(pair.id)})
    kinds = [kind for kind in ("identity", "dynamic", "held-out") if any(row["kind"] == kind for row in rows)]
    dashes = {"identity": [1, 0], "dynamic": [7, 3], "held-out": [2, 3]}
    kind = {"field": "kind", "type": "nominal", "title": "pairs", "legend": {"direction": "vertical"}}
    about = {"href": {"field": "href"}, "description": {"field": "said"}}
    lines: Spec = {
        "mark": {"type": "rule", "color": COLOURS["mark"], "strokeWidth": 1.4, "opacity": 0.6},
        "encoding": {
            **place,
            "x2": {"field": "x2"},
            "y2": {"field": "y2"},
            "strokeDash": {**kind, "scale": {"domain": kinds, "range": [dashes[name] for name in kinds]}},
            **about,
        },
    }
    rings: Spec = {
        "mark": {
            "type": "point",
            "filled": False,
            "aria": False,
            "size": 260,
            "color": COLOURS["mark"],
            "strokeWidth": 1.2,
            "opacity": 0.8,
        },
        "encoding": {"x": {**place["x"], "field": "x2"}, "y": {**place["y"], "field": "y2"}, "href": {"field": "href"}},
    }
    return {"data": values(rows), "layer": [lines, rings]}


def _fronts(points: Sequence[Point], place: Spec, prompts: Sequence[int]) -> Spec:
    groups: dict[str, list[Point]] = {ALL: list(points)}
    groups |= {str(prompt): [one for one in points if one.prompt == prompt] for prompt in prompts}
    layers = []
    for side, step, dash in (("upper", "step-before", [1, 0]), ("lower", "step-after", [6, 4])):
        rows: list[dict[str, Any]] = []
        for name, some in groups.items():
            whose = "all videos" if name == ALL else f"prompt {int(name) + 1}"
            for x, y in front(some, upper=side == "upper"):
                said = f"{side} frontier of {whose}"
                rows.append({"x": x, "y": y, "group": name, "said": said, "href": mark(f"front-{side}-{name}")})
        layers.append(
            {
                "data": values(rows),
                "mark": {
                    "type": "line",
                    "interpolate": step,
                    "strokeWidth": 2,
                    "strokeDash": dash,
                    "color": COLOURS["c4"],
                    "opacity": 0.85,
                },
                "encoding": {
                    **place,
                    "detail": {"field": "group"},
                    "href": {"field": "href"},
                    "description": {"field": "said"},
                    "order": {"field": "x"},
                },
            }
        )
    return {"layer": layers}


def front(points: Sequence[Point], *, upper: bool) -> list[tuple[float, float]]:
    """Likeness and motion of the videos on a frontier of the two, by rising likeness.

    Args:
        points: videos that are compared with each other.
        upper: those that no other one beats; else those that beat no other one.
    """
    both = np.array([[one.likeness, one.motion] for one in points])
    found = hpo.upper_front(both) if upper else hpo.lower_front(both)
    return sorted({(float(x), float(y)) for x, y in both[found]}, key=lambda point: (point[0], -point[1]))
