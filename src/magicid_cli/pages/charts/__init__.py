"""Charts as SVG that a page can carry, a keyboard can walk and a printer can print; the same as PNG.

Drawn by Vega-Lite (through `vl-convert-python`: one wheel without dependencies, no browser, no network), because it
gives every mark a description for screen readers and a link of its own, so that each point can be focused, and because
one specification gives the SVG of the page and the PNG for a paper. Weighed against it: Plotly puts megabytes of script
into every page, and its points cannot be reached by keyboard; matplotlib's SVG has no descriptions. The interaction
that pays (walking the points, showing a video, filters) is a small script of the page.

The colours of a specification are those of the light theme; in the SVG each becomes the page's own CSS variable, so
that the chart follows the theme.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from markupsafe import Markup

COLOURS = {
    "ground": "#ffffff",
    "ink": "#1b1f27",
    "faint": "#5a6270",
    "grid": "#e4e7ec",
    "c1": "#0b6bb0",
    "c2": "#b34700",
    "c3": "#1d7a55",
    "c4": "#8a3f96",
    "alarm": "#b3261e",
    "mark": "#7a828f",
}
"""The light theme of `shell.css`, by the name of the CSS variable."""

WIDE, NARROW = 560, 340
"""Widths of a chart's plot in CSS pixels: alone in its row, and beside another."""

_MARK = "https://mark.invalid/"
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_VERSION = "6.4"  # of Vega-Lite
_LONG = re.compile(r"-?\d+\.\d{3,}")

Spec = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A chart with everything that a page says of it.

    Attributes:
        id: names it in the page and as a file.
        title: in a few words.
        caption: what it shows and how to read it.
        spec: Vega-Lite, without `$schema` and theme.
        header: columns of its data as a table.
        rows: of that table.
        linked: whether its marks are links to elements of the page called as they are.
        wide: whether it takes a whole row.
        still: the specification of the PNG, where that lacks what the page hides at first.
        hidden: marks that the page hides at first.
    """

    id: str
    title: str
    caption: str
    spec: Spec
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default_factory=list)
    linked: bool = False
    wide: bool = False
    still: Spec | None = None
    hidden: frozenset[str] = frozenset()

    @property
    def svg(self) -> Markup:
        """The picture, for a page."""
        import vl_convert

        return _for_page(vl_convert.vegalite_to_svg(_themed(self), vl_version=_VERSION), self)

    @property
    def png(self) -> bytes:
        """The picture, for papers and chats: on white, two pixels for one."""
        import vl_convert

        content: bytes = vl_convert.vegalite_to_png(_themed(self, title=True), vl_version=_VERSION, scale=2)
        return content


def mark(name: str) -> str:
    """The value of a datum's `href` by which a mark is known in the page."""
    return _MARK + quote(name, safe="")


def colours(names: Sequence[str]) -> list[str]:
    """Colours by name, for the range of a scale."""
    return [COLOURS[name] for name in names]


def number(value: float | None) -> str:
    """A figure as a reader wants it: three or four digits that mean something; a dash for none."""
    if value is None:
        return "–"
    size = abs(value)
    if size and (size < 0.001 or size >= 100_000):
        return f"{value:.2e}"
    digits = 4 if 0 < size < 0.01 else 3 if size < 1 else 2 if size < 100 else 0
    return f"{value:.{digits}f}"


def _themed(chart: Chart, *, title: bool = False) -> Spec:
    text = {"labelColor": COLOURS["faint"], "titleColor": COLOURS["ink"], "labelFontSize": 12, "titleFontSize": 13}
    lines = {"gridColor": COLOURS["grid"], "domainColor": COLOURS["mark"], "tickColor": COLOURS["mark"]}
    theme: Spec = {
        "background": COLOURS["ground"],
        "font": "sans-serif",
        "view": {"stroke": None},
        "axis": {**text, **lines, "titleFontWeight": 600, "titlePadding": 8, "labelOverlap": True},
        "legend": {
            **text,
            "orient": "top",
            "symbolStrokeWidth": 2,
            "symbolOpacity": 1,
            "symbolBaseFillColor": COLOURS["mark"],
            "symbolBaseStrokeColor": COLOURS["mark"],
            # The reader's font may be wider than the one that the picture is laid out with.
            "columnPadding": 40,
            "layout": {"top": {"margin": 56, "direction": "horizontal"}},
        },
        "title": {"color": COLOURS["ink"], "anchor": "start", "fontSize": 15},
    }
    named = {"title": chart.title} if title else {}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        **named,
        **(chart.still if title and chart.still else chart.spec),
        "config": theme,
    }


def _for_page(svg: str, chart: Chart) -> Markup:
    """Vega's SVG → one that follows the page's theme, scales, and whose marks can be focused."""
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg)
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        "width": root.get("width", ""),
        "class": "marks",
        "role": "graphics-document",
        "aria-roledescription": "chart",
        "aria-label": chart.title,
    }
    themed = {colour: f"var(--{name})" for name, colour in COLOURS.items()}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.get("display") == "none" or child.get("class") == "background" and child.get("fill") is None:
                parent.remove(child)
            elif child.tag == f"{{{_SVG}}}a":
                _focusable(child, chart)
    for element in root.iter():
        for name, value in element.attrib.items():
            if name in ("fill", "stroke"):
                element.set(name, themed.get(value.lower(), value))
            elif name in ("d", "transform"):
                element.set(name, _LONG.sub(lambda found: f"{float(found[0]):.2f}", value))
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # the tree escapes what it writes


def _focusable(link: ElementTree.Element, chart: Chart) -> None:
    """A link of Vega's → one within the page, or a plain mark, that says what its picture shows."""
    target = unquote(link.attrib.pop(f"{{{_LINK}}}href").removeprefix(_MARK))
    said = "; ".join(dict.fromkeys(one.get("aria-label", "") for one in link.iter() if one.get("aria-label")))
    for shape in link:
        for name in ("role", "aria-label", "aria-roledescription"):
            shape.attrib.pop(name, None)
    link.set("data-mark", target)
    if not said:  # the ring around a winner: its line says it
        link.tag = f"{{{_SVG}}}g"
        link.set("aria-hidden", "true")
        return
    link.set("aria-label", said)
    if target in chart.hidden:
        link.set("class", "off")
    if chart.linked:
        link.set("href", f"#{target}")
    else:
        link.tag = f"{{{_SVG}}}g"
        link.set("role", "img")
        link.set("tabindex", "-1")
    ElementTree.SubElement(link, f"{{{_SVG}}}title").text = said


def values(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Rows as the data of a layer."""
    return {"values": list(rows)}
