"""Curves over training steps or frames, with what was done and what alarmed at which step."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from magicid_cli.pages.charts import COLOURS, NARROW, Chart, Spec, colours, mark, number, values

MOST_POINTS = 40
"""Points of a curve; a longer one is shown as it is, pale, and by the means of so many parts."""

_HEIGHT = 190
_COLOURS, _DASHES, _SHAPES = ("c1", "c2", "c3"), ([1, 0], [6, 3], [2, 2]), ("circle", "square", "triangle-up")


@dataclass(frozen=True)
class Curve:
    """One quantity.

    Attributes:
        name: for the legend.
        points: (x, y), in order of x.
        colour: name of its colour; by its place among the curves where there is none.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: str = ""


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step.

    Attributes:
        x: the step.
        text: in a word or two.
        said: in a sentence.
        alarm: whether it is a warning.
    """

    x: float
    text: str
    said: str
    alarm: bool = True


@dataclass(frozen=True)
class Axis:
    """What an axis says.

    Attributes:
        x: title of the horizontal axis.
        y: title of the vertical axis.
        zero: whether the vertical axis begins at 0.
        unit: what one step of x is called.
    """

    x: str
    y: str
    zero: bool = False
    unit: str = "step"


def chart(
    id: str,
    title: str,
    caption: str,
    curves: Sequence[Curve],
    axis: Axis,
    marks: Sequence[Mark] = (),
    level: Any = None,
) -> Chart:
    """Curves over a common axis.

    Args:
        id: of the chart.
        title: of the chart.
        caption: of the chart.
        curves: one to three.
        axis: what the axes say.
        marks: drawn as vertical lines.
        level: a value of y to compare with, drawn as a horizontal line; None for none.
    """
    shown = [row for curve in curves for row in _points(curve, axis, id)]
    layers: list[Spec] = [_level(level)] if level is not None else []
    layers += [_rules(marks)] if marks else []
    layers += _curves(curves, shown, _place(shown, axis, marks))
    layers += [_labels(marks, shown)] if marks else []
    rows = [(row["curve"], row["at"], number(row["y"])) for row in shown]
    rows += [("alarm" if one.alarm else "mark", f"{one.x:g}", one.said) for one in marks]
    own = {"legend": {"color": "independent", "shape": "independent"}}  # that of the points is enough
    spec = {"width": NARROW, "height": _HEIGHT, "layer": layers, "resolve": own}
    return Chart(id, title, caption, spec, ("Curve", axis.x, axis.y), rows)


def _curves(curves: Sequence[Curve], shown: Sequence[dict[str, Any]], place: Spec) -> list[Spec]:
    """The long ones as they are, pale; then what can be walked to: lines and, last, their points."""
    names = [curve.name for curve in curves]
    long = [curve for curve in curves if len(curve.points) > MOST_POINTS]
    raw = [{"x": x, "y": y, "curve": curve.name} for curve in long for x, y in curve.points]

    def by_curve(scale: Sequence[Any], *, legend: bool = False) -> Spec:
        told: Spec | None = {} if legend and len(names) > 1 else None
        ends = {"domain": names, "range": list(scale)[: len(names)]}
        return {"field": "curve", "type": "nominal", "title": None, "sort": names, "scale": ends, "legend": told}

    own = colours([curve.colour or colour for curve, colour in zip(curves, _COLOURS, strict=False)])
    pale: Spec = {
        "data": values(raw),
        "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.35, "aria": False},
        "encoding": {**place, "color": by_curve(own)},
    }
    bold: Spec = {
        "data": values(shown),
        "mark": {"type": "line", "strokeWidth": 2, "aria": False},
        "encoding": {**place, "color": by_curve(own), "strokeDash": by_curve(_DASHES)},
    }
    points: Spec = {
        "data": values(shown),
        "mark": {"type": "point", "filled": True, "size": 42, "opacity": 1},
        "encoding": {
            **place,
            "color": by_curve(own, legend=True),
            "shape": by_curve(_SHAPES, legend=True),
            "href": {"field": "href"},
            "description": {"field": "said"},
        },
    }
    return [*([pale] if raw else []), bold, points]


def _place(shown: Sequence[dict[str, Any]], axis: Axis, marks: Sequence[Mark]) -> Spec:
    return {
        "x": {"field": "x", "type": "quantitative", "title": axis.x, "scale": {"nice": False, "zero": False}},
        "y": {"field": "y", "type": "quantitative", "title": axis.y, "scale": _upright(shown, axis, marks)},
    }


def _upright(shown: Sequence[dict[str, Any]], axis: Axis, marks: Sequence[Mark]) -> Spec:
    """The vertical scale, with room above the curves for what the marks say."""
    scale: Spec = {"zero": axis.zero}
    if marks:
        low, high = min(row["y"] for row in shown), max(row["y"] for row in shown)
        low = min(0.0, low) if axis.zero else low
        lines = min(4, len(marks))
        scale["domainMax"] = high + (0.05 + 0.1 * lines) * ((high - low) or 1.0)
    return scale


def _points(curve: Curve, axis: Axis, id: str) -> list[dict[str, Any]]:
    """The points of a curve that can be walked to: all of them, or means of equal parts."""
    count = len(curve.points)
    parts = min(count, MOST_POINTS)
    found = []
    for part in range(parts):
        some = curve.points[part * count // parts : (part + 1) * count // parts]
        first, last = some[0][0], some[-1][0]
        x, y = fmean(x for x, _ in some), fmean(y for _, y in some)
        at = f"{first:g}" if len(some) == 1 else f"{first:g}–{last:g}"
        plural = axis.unit if len(some) == 1 else f"{axis.unit}s"
        said = f"{curve.name}, {plural} {at}: {number(y)}"
        found.append(
            {"x": x, "y": y, "curve": curve.name, "at": at, "said": said, "href": mark(f"{id}:{curve.name}:{part}")}
        )
    return found


def _level(level: float) -> Spec:
    return {
        "data": values([{"y": level}]),
        "mark": {"type": "rule", "strokeDash": [4, 4], "color": COLOURS["mark"], "aria": False},
        "encoding": {"y": {"field": "y", "type": "quantitative"}},
    }


def _told(marks: Sequence[Mark]) -> list[dict[str, Any]]:
    return [{"x": one.x, "text": one.text, "colour": COLOURS["alarm" if one.alarm else "faint"]} for one in marks]


def _rules(marks: Sequence[Mark]) -> Spec:
    return {
        "data": values(_told(marks)),
        "mark": {"type": "rule", "strokeWidth": 1.5, "strokeDash": [3, 3], "aria": False},
        "encoding": {
            "x": {"field": "x", "type": "quantitative"},
            "color": {"field": "colour", "type": "nominal", "scale": None, "legend": None},
        },
    }


def _labels(marks: Sequence[Mark], shown: Sequence[dict[str, Any]]) -> Spec:
    """What happened, in words at the top of its line, on the side where there is room, one below the other."""
    middle = (min(row["x"] for row in shown) + max(row["x"] for row in shown)) / 2
    rows = [
        {
            **row,
            "said": one.said,
            "line": 6 + 15 * place,
            "text": f"{'▲ ' if one.alarm else ''}{one.text}",
            "href": mark(f"mark:{one.text}:{one.x:g}"),
        }
        for place, (row, one) in enumerate(zip(_told(marks), marks, strict=True))
    ]

    def side(right: bool) -> Spec:
        return {
            "data": values([row for row in rows if (row["x"] > middle) == right]),
            "mark": {
                "type": "text",
                "align": "right" if right else "left",
                "dx": -5 if right else 5,
                "baseline": "top",
                "fontSize": 12,
                "fontWeight": 600,
            },
            "encoding": {
                "x": {"field": "x", "type": "quantitative"},
                "y": {"field": "line", "type": "quantitative", "scale": None},
                "text": {"field": "text"},
                "color": {"field": "colour", "type": "nominal", "scale": None, "legend": None},
                "href": {"field": "href"},
                "description": {"field": "said"},
            },
        }

    return {"layer": [side(False), side(True)]}
