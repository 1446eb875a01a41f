"""The paper's six metrics of table 1's cells, by `magicid evaluate`'s own harness, from the videos that cells keep."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import _claims_stats as stats
from benchmarks._claims_cells import Bench, Cell
from benchmarks._claims_recipes import BASE, methods
from magicid_cli.evaluation import METRICS, Item, collecting, evaluate
from magicid_cli.evaluation.sheet import PAPER


def of_cell(bench: Bench, cell: Cell, result: Mapping[str, Any]) -> dict[str, float | None]:
    """The six metrics of a measured cell.

    FVD is against the untouched model's videos of the same person, prompts and seeds: what a method did to the model,
    not how real its videos are.

    Args:
        bench: whose work folder has the videos.
        cell: whose.
        result: of the cell.

    Returns:
        A value for each of the paper's columns; None where there is none. Empty if the videos are gone.
    """
    folder = bench.videos(cell)
    items = [Item(folder / row["file"], row["file"], row["prompt"]) for row in result.get("videos", [])]
    if not items or not all(item.path.is_file() for item in items):
        return {}
    untouched = bench.videos(replace(cell, method=methods(bench.base)[BASE]))
    reference: Sequence[Path] = [] if untouched == folder else sorted(untouched.glob("*.mp4"))
    found = evaluate(
        items,
        collecting.photos_of(bench.workspace(cell)),
        bench.settings(cell).settings,
        store=bench.work / "evaluation",
        events=bench.new_events(),
        fvd_reference=reference,
    )
    return {name: found.figures[name].value for name in PAPER}


def table(bench: Bench, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row for every method: the six metrics with intervals over people, seeds averaged within a person."""
    by_method: dict[str, dict[str, dict[int, list[float]]]] = {}
    for cell in cells:
        result = bench.result(cell)
        columns = by_method.setdefault(cell.method.name, {name: defaultdict(list) for name in PAPER})
        for name, value in (of_cell(bench, cell, result) if result else {}).items():
            if value is not None:
                columns[name][cell.who].append(value)
    rows = []
    for method, columns in by_method.items():
        means = {name: {who: sum(v) / len(v) for who, v in found.items()} for name, found in columns.items()}
        intervals = {name: stats.interval(values) for name, values in means.items()}
        rows.append({"method": method, **{name: one and vars(one) for name, one in intervals.items()}})
    return rows


def header() -> list[str]:
    """The columns' names."""
    return [METRICS[name].title for name in PAPER]
