"""The paper's six metrics of table 1's cells, by `magicid evaluate`'s own harness, from the videos that cells keep."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import _claims_stats as stats
from benchmarks._claims_cells import Bench, Cell
from benchmarks._claims_recipes import BASE, methods
from magicid_cli.evaluation import METRICS, Evaluation, Item, collecting, evaluate
from magicid_cli.evaluation.sheet import PAPER


def of_cell(bench: Bench, cell: Cell, result: Mapping[str, Any]) -> Evaluation | None:
    """The evaluation with the six metrics of a measured cell.

    FVD is against the untouched model's videos of the same person, prompts and seeds: what a method did to the model,
    not how real its videos are.

    Args:
        bench: whose work folder has the videos.
        cell: whose.
        result: of the cell.

    Returns:
        What was found; None if the videos are gone.
    """
    folder = bench.videos(cell)
    items = [Item(folder / row["file"], row["file"], row["prompt"]) for row in result.get("videos", [])]
    if not items or not all(item.path.is_file() for item in items):
        return None
    untouched = bench.videos(replace(cell, method=methods(bench.base)[BASE]))
    reference: Sequence[Path] = [] if untouched == folder else sorted(untouched.glob("*.mp4"))
    return evaluate(
        items,
        collecting.photos_of(bench.workspace(cell)),
        bench.settings(cell).settings,
        store=bench.work / "evaluation",
        events=bench.new_events(),
        fvd_reference=reference,
    )


def table(bench: Bench, cells: Sequence[Cell]) -> dict[str, Any]:
    """The six metrics of every method, and who judged.

    Returns:
        `rows`, one for each method: the metrics with intervals over people, seeds averaged within a person; `cells`,
        how many were measured and have their videos; `of`, how many there are. `made_by`: the judges of each metric,
        more than one only if cells were judged on different machines or by different versions.
    """
    rows: dict[str, dict[str, Any]] = {}
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    judges: dict[str, set[str]] = {name: set() for name in PAPER}
    for cell in cells:
        result, method = bench.result(cell), cell.method.name
        row = rows.setdefault(method, {"method": method, "cells": 0, "of": 0})
        columns = values.setdefault(method, {name: defaultdict(list) for name in PAPER})
        row["of"] += 1
        found = of_cell(bench, cell, result) if result else None
        if found is None:
            continue
        row["cells"] += 1
        for name in PAPER:
            judges[name] |= {found.made_by[name]} if name in found.made_by else set()
            value = found.figures[name].value
            if value is not None:
                columns[name][cell.who].append(value)
    for method, columns in values.items():
        means = {name: {who: sum(v) / len(v) for who, v in found.items()} for name, found in columns.items()}
        intervals = {name: stats.interval(of_people) for name, of_people in means.items()}
        rows[method] |= {name: one and vars(one) for name, one in intervals.items()}
    return {"rows": list(rows.values()), "made_by": {name: sorted(found) for name, found in judges.items()}}


def header() -> list[str]:
    """The columns' names."""
    return [METRICS[name].title for name in PAPER]


def digits(name: str) -> int:
    """How many digits of a column's figures are shown after the point."""
    return METRICS[name].digits
