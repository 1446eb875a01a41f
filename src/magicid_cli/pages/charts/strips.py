"""One value of several methods on the same prompts and seeds: a point a video, a line a prompt, a bar the mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from magicid_cli.pages.charts import COLOURS, Chart, Spec, colours, mark, number, values

_WIDTH, _HEIGHT = 260, 200


@dataclass(frozen=True)
class Value:
    """A method's value of one prompt.

    Attributes:
        method: its name.
        prompt: number of the prompt.
        value: what was measured.
    """

    method: str
    prompt: int
    value: float


def chart(id: str, title: str, caption: str, found: Sequence[Value], methods: Mapping[str, str], unit: str) -> Chart:
    """The values of up to three methods beside each other.

    Args:
        id: of the chart.
        title: of the chart.
        caption: of the chart.
        found: the values.
        methods: what they are called, in order, and the name of their colour.
        unit: title of the vertical axis.
    """
    rows: list[dict[str, Any]] = [
        {
            "method": one.method,
            "prompt": one.prompt,
            "y": one.value,
            "href": mark(f"compared-{one.prompt}"),
            "said": f"{one.method}, prompt {one.prompt + 1}: {number(one.value)}",
        }
        for one in found
    ]
    means: list[dict[str, Any]] = [
        {"method": name, "y": fmean(one.value for one in found if one.method == name)}
        for name in methods
        if any(one.method == name for one in found)
    ]
    x: Spec = {"field": "method", "type": "nominal", "title": None, "sort": list(methods), "axis": {"labelAngle": 0}}
    y: Spec = {"field": "y", "type": "quantitative", "title": unit, "scale": {"zero": True}}
    colour = {
        "field": "method",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": list(methods), "range": colours(list(methods.values()))},
    }
    lines: Spec = {
        "data": values(rows),
        "mark": {"type": "line", "strokeWidth": 1, "color": COLOURS["mark"], "opacity": 0.5, "aria": False},
        "encoding": {"x": x, "y": y, "detail": {"field": "prompt"}},
    }
    bars: Spec = {
        "data": values(means),
        "mark": {"type": "tick", "thickness": 4, "width": 46, "aria": False},
        "encoding": {"x": x, "y": y, "color": colour},
    }
    points: Spec = {
        "data": values(rows),
        "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1},
        "encoding": {"x": x, "y": y, "color": colour, "href": {"field": "href"}, "description": {"field": "said"}},
    }
    spec = {"width": _WIDTH, "height": _HEIGHT, "layer": [lines, bars, points]}
    table = [(row["method"], f"prompt {row['prompt'] + 1}", number(row["y"])) for row in rows]
    table += [(row["method"], "mean", number(row["y"])) for row in means]
    return Chart(id, title, caption, spec, ("Method", "Of", unit), table, linked=True)
