"""The paper's claims and our decisions, measured on the miniature by the public code path.

    python -m benchmarks.claims --screen [--hours H]    # decisions, on the people and prompts kept for choosing
    python -m benchmarks.claims [--hours H]             # the tables, on people and prompts that were never looked at
    python -m benchmarks.claims --page                  # docs/explanation/evidence.md from what is measured

A cell is a method, a person and a seed. Its result is one JSON file in `results/claims/`, written as a whole or not at
all; what is there is not measured again as long as nothing that it was made of has changed. The work can be cut at any
time: the same command goes on. Afterwards `claims.json` (or `screening.json`) and a contact sheet for each table are
written from all cells that are there. One process, one thread.
"""

import sys
from pathlib import Path

if not __package__:  # run by path: this folder would come first, and `select.py` would hide Python's own `select`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import gc
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import cv2

from benchmarks import _alone, _table
from benchmarks import _claims_page as pages
from benchmarks import _claims_recipes as recipes
from benchmarks import _claims_report as report
from benchmarks import _claims_six as six
from benchmarks._claims_cells import Bench, Cell, measure
from benchmarks._claims_recipes import DEVELOPMENT, FINAL, SCREEN, TABLES, TRIAL, Amounts, Method
from benchmarks._claims_report import Study
from magicid_cli.errors import INTERRUPTED, MagicIDError
from magicid_cli.events import Event
from magicid_cli.workspace import read_json, write_json, write_text

PAGE = _alone.ROOT / "docs" / "explanation" / "evidence.md"
SELDOM = ("paper-doses",)
"""Tables that are measured only where they are asked for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    for name in [name for name in os.environ if name.startswith("MAGICID_")]:
        del os.environ[name]  # nobody's own settings
    work = (options.work or _alone.ROOT / "build" / ("claims-trial" if options.trial else "claims")).absolute()
    os.environ["MAGICID_HOME"] = str(work)
    cv2.setNumThreads(1)
    results = options.out or (work / "results" if options.trial else _table.RESULTS / "claims")
    if options.page:
        return write_page(results, options.page_path)
    try:
        study = study_of(options, results)
        bench = Bench(results, work, study.amounts, tell)
        if options.list:
            return show(bench, study)
        if options.six:
            return write_six(bench, study, results)
        finished = work_through(bench, study, options.hours)
        write_results(bench, study, results)
    except MagicIDError as error:
        raise SystemExit(f"{error.message}\n{error.hint}") from None
    except KeyboardInterrupt:
        print("cut; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0 if finished else INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", choices=TABLES, help="this table; may be given again")
    parser.add_argument("--screen", action="store_true", help="decisions, on 2 people x 1 seed kept for choosing")
    parser.add_argument(
        "--method", action="append", default=[], metavar="NAME: SETTING=VALUE,…", help="measure this too, from now on"
    )
    parser.add_argument("--people", type=int, help="how many people")
    parser.add_argument("--seeds", type=int, help="how many customization seeds of each")
    parser.add_argument("--hours", type=float, help="start no cell after so many hours")
    parser.add_argument("--out", type=Path, help="folder of the cells' results")
    parser.add_argument("--work", type=Path, help="folder of albums, identities and videos, kept between runs")
    parser.add_argument(
        "--trial", action="store_true", help="tiny doses and few prompts: a trial of the machinery only"
    )
    parser.add_argument(
        "--list", action="store_true", help="show which cells are there and which are not; measure none"
    )
    parser.add_argument(
        "--six",
        action="store_true",
        help="the paper's six metrics of table 1 from the videos that are kept; measure no cell",
    )
    parser.add_argument("--page", action="store_true", help="write the page from what is measured; measure none")
    parser.add_argument("--page-path", type=Path, default=PAGE, help="where the page is")
    return parser


def study_of(options: argparse.Namespace, results: Path) -> Study:
    """What the options ask for, with the methods of one's own that earlier calls have named.

    Raises:
        MagicIDError: `settings-unknown` for a method that sets what does not exist.
    """
    amounts = TRIAL if options.trial else SCREEN if options.screen else Amounts()
    given = {name: value for name in ("people", "seeds") if (value := getattr(options, name)) is not None}
    split = DEVELOPMENT if options.screen else FINAL
    usual = [table for table in TABLES.values() if table.screened == options.screen and table.name not in SELDOM]
    tables = [TABLES[name] for name in options.only] if options.only else usual
    own = [method_of(text) for text in options.method]
    for method in own:
        if missing := recipes.unknown(method):
            what = f"'{method.name}' sets {', '.join(missing)}: no such setting."
            raise MagicIDError("settings-unknown", what, "`magicid config show` lists all.")
    file = results / f"methods-{split.name}.json"
    known = read_json(file) if file.is_file() else {}
    known.update({method.name: dict(method.values) for method in own})
    if own:
        write_json(file, known)
    more = [Method(name, values) for name, values in known.items()]
    return Study(split, replace(amounts, **given), tables, more)


def method_of(text: str) -> Method:
    """`NAME: SETTING=VALUE, …` → a method."""
    name, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",") if part.strip()]
    return Method(name.strip(), {key.strip(): value.strip() for key, _, value in pairs})


# --------------------------------------------------------------------------------------------------------------- work


def missing(bench: Bench, study: Study) -> list[Cell]:
    """Cells that are not measured yet, each once, table after table."""
    wanted = {bench.key(cell): cell for table in study.tables for cell in study.cells(bench, table)}
    return [cell for cell in wanted.values() if not bench.path(cell).is_file()]


def work_through(bench: Bench, study: Study, hours: float | None) -> bool:
    """Measure what is missing; returns whether all of it was done.

    Raises:
        KeyboardInterrupt: the first Ctrl-C or SIGTERM ends the running step and saves it; a second one ends at once.
    """
    todo, begun = missing(bench, study), time.monotonic()
    left_out = sorted({name for table in study.tables for name in recipes.of_table(table, bench.base)})
    for name in left_out:
        if name not in study.methods(bench):
            print(f"left out: {name}: this version lacks a setting of it", file=sys.stderr)
    with stopping(bench), few_objects_to_collect():
        for number, cell in enumerate(todo, 1):
            spent = (time.monotonic() - begun) / 3600
            if hours is not None and spent >= hours:
                print(f"{hours:g} hours are over; {len(todo) - number + 1} cells are left", file=sys.stderr)
                return False
            print(f"cell {number} of {len(todo)}, {spent:.2f} h: {cell.label}", file=sys.stderr, flush=True)
            result = measure(bench, cell)
            print(f"  {told(result)}", file=sys.stderr, flush=True)
    return True


@contextmanager
def few_objects_to_collect() -> Iterator[None]:
    """Take what is imported by now out of the garbage collector, which runs whenever a part of the model is dropped."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def stopping(bench: Bench) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop, which the running stage obeys once its step is saved."""

    def stop(number: int, _: object) -> None:
        signal.signal(number, signal.default_int_handler)
        bench.events.request_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(event: Event) -> None:
    """Stages on stderr, so that a long cell is seen to live."""
    if event.kind == "stage" and event.data["state"] != "finished":
        print(f"    {event.data['title']}: {event.data['state']}", file=sys.stderr, flush=True)
    if event.kind == "notice":
        print(f"    {event.data['message']}", file=sys.stderr, flush=True)


def told(result: dict[str, Any]) -> str:
    """A cell's result in a line."""
    if "failed" in result:
        return f"failed: {result['failed']}"
    shown = [
        f"{pages.METRICS[name]} {value:.3f}"
        for name in ("likeness", "likeness_reward", "motion", "following", "action")
        if (value := result["figures"][name]) is not None
    ]
    return ", ".join([*shown, f"{sum(result['seconds'].values()):.0f} s"])


def show(bench: Bench, study: Study) -> int:
    """Print how many cells of each method are there."""
    for table in study.tables:
        cells = study.cells(bench, table)
        print(f"{table.name}: {sum(bench.path(c).is_file() for c in cells)} of {len(cells)} cells")
        for method, probe in study.rows(bench, table):
            own = [cell for cell in cells if (cell.method.name, cell.probe) == (method.name, probe)]
            there = sum(bench.path(cell).is_file() for cell in own)
            print(f"  {there} of {len(own)}  {method.name} {probe.name}".rstrip())
    return 0


# ------------------------------------------------------------------------------------------------------------ results


def write_results(bench: Bench, study: Study, folder: Path) -> Path:
    """Write the figures of all cells that are there, and a contact sheet for each table."""
    screened = study.split is DEVELOPMENT
    asked = {table.name for table in study.tables}
    # Also the tables that this call was not asked for, or it would take back what earlier ones have told.
    tables = [t for t in TABLES.values() if t.name in asked or (t.screened == screened and t.name not in SELDOM)]
    study = replace(study, tables=tables)
    measured = report.collect(bench, study)
    name = "screening" if screened else "claims"
    # Recipes are chosen by the reward's encoder alone.
    encoder = "likeness_reward" if screened else "likeness"
    own = [method.name for method in study.more]
    found: dict[str, Any] = {
        "name": name,
        "about": about(bench, study, measured),
        "claims": [asdict(claim) for claim in report.claims(measured, encoder=encoder, own=own)],
        "ratios": report.ratios(measured),
        "tables": [report.table_figures(bench, study, table, measured) for table in study.tables],
    }
    path = folder.parent / f"{name}.json"
    write_json(path, found)
    path.chmod(0o644)  # written private
    for claim in found["claims"]:
        print(f"{claim['verdict']:<14} {claim['claim']}: {claim['why']}")
    for table in study.tables:
        sheet = pages.sheet(bench, study, table, folder.parent / f"{name}-{table.name}.png")
        print(f"{table.name}: {sheet or 'no video of it is kept, so there is no contact sheet'}")
    print(f"written to {path}")
    return path


def write_six(bench: Bench, study: Study, folder: Path) -> int:
    """Write the six metrics of table 1 for the cells that are there and whose videos are kept."""
    cells = study.cells(bench, TABLES["table-1"])
    path = folder.parent / "six-metrics.json"
    about = {"weights": bench.weights, "trial": bool(study.amounts.doses)}
    write_json(path, {**about, **six.table(bench, cells)})
    path.chmod(0o644)  # written private
    print(f"written to {path}")
    return 0


def about(bench: Bench, study: Study, measured: report.Measured) -> dict[str, Any]:
    """What the figures depend on, and what they cost."""
    cells = {result["key"]: result for results in measured.values() for result in results}
    seconds = sum(sum(result.get("seconds", {}).values()) for result in cells.values())
    first = study.split.people[0]
    return {
        "machine": _table.machine("magicid", "torch", "diffusers"),
        "weights": bench.weights,
        "split": study.split.name,
        "people": list(study.split.people[: study.amounts.people]),
        "seeds": list(study.split.seeds[: study.amounts.seeds]),
        "prompts": study.split.prompts(study.amounts.prompts, first),
        "videos": study.amounts.prompts * study.amounts.noise,
        "trial": bool(study.amounts.doses),
        "cells": len(cells),
        "hours": round(seconds / 3600, 3),
        "settings": asdict(bench.base),
    }


def write_page(folder: Path, path: Path) -> int:
    """Write the page from `claims.json` and `screening.json`; its conclusions stay as they are."""
    files = [folder.parent / f"{name}.json" for name in ("claims", "screening", "six-metrics")]
    final, screening, metrics = (read_json(file) if file.is_file() else None for file in files)
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    write_text(path, pages.page(final, screening, before, metrics))
    path.chmod(0o644)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
