"""Cells become figures of methods, and figures answer to claims."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks import _claims_stats as stats
from benchmarks._claims_cells import Bench, Cell
from benchmarks._claims_judges import METRICS
from benchmarks._claims_recipes import (
    BASE,
    DREAMBOOTH,
    IDENTITY_PAIRS,
    IDENTITY_REWARD,
    LOW_DREAMBOOTH,
    LOW_MAGICID,
    LOW_STAGE_1,
    MAGICID,
    PAPER,
    PAPER_PAIRS,
    ROUNDS,
    STAGE_1,
    TWO_REWARDS,
    Amounts,
    Method,
    Probe,
    Split,
    Table,
    methods,
    of_table,
    points_of,
    unknown,
)
from benchmarks._claims_stats import Claim, Values
from magicid_cli.rounds import FIRST, named

OPEN_TABLES = ("table-1", "decisions")
"""Those that take methods of one's own."""
WON_BACK = 0.8
NEAR_BASE = 0.95
PAPER_RATIOS = {"likeness": 2.17, "motion": 2.53}
"""MagicID's Face Sim. and Dyna. Deg. over DreamBooth-LoRA's in the paper's table 1."""
CHOSEN_BY = ("likeness_reward", "motion", "action_probability")
"""What recipes are chosen by; the evaluation's encoder is not among them."""

Measured = dict[tuple[str, str], list[dict[str, Any]]]
"""(method, probe) → results of its cells."""


@dataclass(frozen=True)
class Study:
    """A split at some amounts: all cells of some tables.

    Attributes:
        split: whom it looks at.
        amounts: how many of them.
        tables: which.
        more: methods of one's own, in table 1 and among the decisions.
    """

    split: Split
    amounts: Amounts
    tables: Sequence[Table]
    more: Sequence[Method] = ()

    def methods(self, bench: Bench) -> dict[str, Method]:
        """All methods that this version of the settings can express, by name."""
        found = {**methods(bench.base), **{method.name: method for method in self.more}}
        return {name: method for name, method in found.items() if not unknown(method)}

    def rows(self, bench: Bench, table: Table) -> list[tuple[Method, Probe]]:
        """A table's methods and looks; a point that a method's run does not have is left out."""
        known = self.methods(bench)
        names = [*of_table(table, bench.base), *(one.name for one in self.more if table.name in OPEN_TABLES)]
        pairs = [(known[name], probe) for name in names if name in known for probe in table.probes]
        return [(method, probe) for method, probe in pairs if self._has_point(bench, method, probe)]

    def _has_point(self, bench: Bench, method: Method, probe: Probe) -> bool:
        if probe.point is None:
            return True
        cell = Cell(method, self.split.people[0], self.split.seeds[0], self.split)
        return probe.point < len(points_of(bench.settings(cell).settings))

    def cells(self, bench: Bench, table: Table) -> list[Cell]:
        """A table's cells, person after person."""
        people = self.split.people[: self.amounts.people]
        seeds = self.split.seeds[: self.amounts.seeds][: table.seeds]
        rows = self.rows(bench, table)
        return [Cell(m, who, seed, self.split, probe) for who in people for seed in seeds for m, probe in rows]


# ------------------------------------------------------------------------------------------------------------ figures


def collect(bench: Bench, study: Study) -> Measured:
    """Results that are there, by method and look."""
    found: Measured = defaultdict(list)
    for cell in {c.label: c for table in study.tables for c in study.cells(bench, table)}.values():
        result = bench.result(cell)
        if result is not None:
            found[cell.method.name, cell.probe.name].append(result)
    return found


def values(results: Sequence[Mapping[str, Any]], metric: str) -> Values:
    """Each person's figure: the mean over the customization seeds that have one."""
    by_person = defaultdict(list)
    for result in results:
        figure = result.get("figures", {}).get(metric)
        if figure is not None:
            by_person[result["person"]].append(figure)
    return {who: float(np.mean(found)) for who, found in by_person.items()}


def table_figures(bench: Bench, study: Study, table: Table, measured: Measured) -> dict[str, Any]:
    """A table as plain data: for each method and look all metrics with intervals, and paired differences."""
    rows = []
    for method, probe in study.rows(bench, table):
        results = measured.get((method.name, probe.name), [])
        against = measured.get((table.against, probe.name), [])
        rows.append(
            {"method": method.name, "probe": probe.name, **row_figures(results, against), "about": about(method)}
        )
    return {"name": table.name, "title": table.title, "against": table.against, "rows": rows}


def row_figures(results: Sequence[Mapping[str, Any]], against: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All metrics of some cells, and their differences from others of the same people."""
    figures, differences = {}, {}
    for metric in METRICS:
        found = stats.interval(values(results, metric))
        gap = stats.difference(values(results, metric), values(against, metric))
        figures[metric] = None if found is None else asdict(found)
        differences[metric] = None if gap is None else asdict(gap)
    good = [result for result in results if "figures" in result]
    curves = [result["figures"]["curve"] for result in good]
    steps = results[0]["steps"] if results else None
    return {
        "cells": len(good),
        "failed": [{name: r[name] for name in ("person", "seed", "failed")} for r in results if "failed" in r],
        "steps": steps,
        "figures": figures,
        "differences": differences,
        "curve": np.mean(curves, axis=0).round(4).tolist() if curves else [],
        "pairs": [_of_rounds(result, "select") for result in good],
        "stage_2": [_of_rounds(result, "prefer") for result in good],
    }


def _of_rounds(result: Mapping[str, Any], stage: str) -> list[Any]:
    """What a stage reported, in each round of a cell."""
    rounds = range(FIRST, result.get("settings", {}).get("rounds", FIRST) + 1)
    return [result["stages"].get(named(stage, number)) for number in rounds]


def about(method: Method) -> str:
    """What a method does, in words or as its settings."""
    return method.about or ", ".join(f"{name} = {value}" for name, value in method.values.items())


# ------------------------------------------------------------------------------------------------------------- claims


def claims(measured: Measured, *, encoder: str = "likeness", own: Sequence[str] = ()) -> list[Claim]:
    """Every target and ordering, held against what is measured.

    Args:
        measured: from `collect`.
        encoder: the metric that is likeness: the evaluation's, unless recipes are being chosen.
        own: methods of one's own, which may be the moonshot.
    """

    def of(method: str, metric: str) -> Values:
        return values(measured.get((method, ""), []), metric)

    found = []
    for title, dreambooth, magicid in (("", DREAMBOOTH, MAGICID), (", low dose", LOW_DREAMBOOTH, LOW_MAGICID)):
        names = (magicid, dreambooth)
        found += [
            stats.above(
                f"DreamBooth costs motion{title}", of(BASE, "motion"), of(dreambooth, "motion"), (BASE, dreambooth)
            ),
            stats.not_below(
                f"likeness is not below DreamBooth's{title}", of(magicid, encoder), of(dreambooth, encoder), names
            ),
            stats.above(
                f"prompt following is above DreamBooth's{title}",
                of(magicid, "following"),
                of(dreambooth, "following"),
                names,
            ),
            stats.won_back(
                f"at least {WON_BACK:.0%} of the motion that DreamBooth loses is won back{title}",
                of(magicid, "motion"),
                of(dreambooth, "motion"),
                of(BASE, "motion"),
                WON_BACK,
            ),
        ]
    orders = (
        ("table 2, motion: identity pairs < both", "motion", IDENTITY_PAIRS, PAPER_PAIRS),
        ("table 2, motion: identity pairs < the default", "motion", IDENTITY_PAIRS, MAGICID),
        ("table 2, likeness: no pairs < identity pairs", encoder, DREAMBOOTH, IDENTITY_PAIRS),
        ("table 2, likeness: no pairs < both", encoder, DREAMBOOTH, PAPER_PAIRS),
        ("table 2, likeness: no pairs < the default", encoder, DREAMBOOTH, MAGICID),
        ("table 3, motion: identity reward < + dynamics", "motion", IDENTITY_REWARD, TWO_REWARDS),
    )
    found += [
        stats.ordered(text, of(one, metric), of(other, metric), (one, other)) for text, metric, one, other in orders
    ]
    for text, metric in (("likeness", encoder), ("motion", "motion")):
        both = of(ROUNDS, metric), of(MAGICID, metric)
        found.append(stats.above(f"rounds: {text} of two is above one round's", *both, (ROUNDS, MAGICID)))
    first, second = (of(DREAMBOOTH, half) for half in ("first_half", "second_half"))
    fades = "figure 2a: DreamBooth's likeness fades in the clip"
    found.append(stats.above(fades, first, second, ("first half", "second half")))
    fading = of(MAGICID, "fading"), of(DREAMBOOTH, "fading")
    found.append(stats.above("figure 2a: MagicID's likeness fades less", *fading, (MAGICID, DREAMBOOTH)))
    starts = {
        MAGICID: STAGE_1,
        ROUNDS: STAGE_1,
        PAPER: STAGE_1,
        LOW_MAGICID: LOW_STAGE_1,
        **dict.fromkeys(own, STAGE_1),
    }
    return [*found, *(moonshot(measured, name, start, encoder) for name, start in starts.items())]


def moonshot(measured: Measured, method: str, start: str, encoder: str) -> Claim:
    """Likeness and motion both above the stage-1 model's, and at least 95 % of the base's motion."""

    def of(name: str, metric: str) -> Values:
        return values(measured.get((name, ""), []), metric)

    enough = {who: NEAR_BASE * value for who, value in of(BASE, "motion").items()}
    return stats.together(
        f"moonshot, {method}",
        [
            stats.above("likeness above stage 1", of(method, encoder), of(start, encoder), (method, start)),
            stats.above("motion above stage 1", of(method, "motion"), of(start, "motion"), (method, start)),
            stats.not_below(
                f"motion at least {NEAR_BASE:.0%} of the base's",
                of(method, "motion"),
                enough,
                (method, f"{NEAR_BASE:.0%} of the base"),
            ),
        ],
    )


def ratios(measured: Measured) -> dict[str, Any]:
    """MagicID over DreamBooth-LoRA beside the paper's, at both doses."""
    found = {}
    for title, dreambooth, magicid in (("default", DREAMBOOTH, MAGICID), ("low dose", LOW_DREAMBOOTH, LOW_MAGICID)):
        for metric, paper in PAPER_RATIOS.items():
            both = [values(measured.get((name, ""), []), metric) for name in (magicid, dreambooth)]
            here = stats.ratio(*both)
            found[f"{metric}, {title}"] = {"paper": paper, "here": None if here is None else asdict(here)}
    return found


def verdict_of_variation(differences: Mapping[str, Any]) -> str:
    """What screening says of a departure from the default, by the means of what recipes are chosen by.

    Two people and one seed decide nothing: this only says what is worth a look.
    """
    found = [differences.get(metric) for metric in CHOSEN_BY]
    if any(part is None for part in found):
        return "not measured"
    signs = {np.sign(round(part["mean"], 4)) for part in found if part is not None}
    if signs == {0}:
        return "the same"
    return "better" if -1 not in signs else "worse" if 1 not in signs else "a trade"
