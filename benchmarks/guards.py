"""Each guard of stage 2 on a run of the miniature that needs it, and the same run when nothing stops it.

`python -m benchmarks.guards` customizes a drawn person by recipes that do one kind of harm each, twice: guarded, with a
look every 20 steps; and with two looks only, of which the second is the end, so that no rule can end it earlier. It
prints what the guards saw and did and writes `results/guards.json`. Gains are relative to the stage-1 model, by the
rewards, on the watched videos. The first run makes stage 1 and the repository, the others start from them. A run that
is cut goes on.
"""

import sys
from pathlib import Path

if not __package__:  # run by path: this folder would come first, and `select.py` would hide Python's own `select`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import _table
from benchmarks._claims_cells import Bench, Cell, customize
from benchmarks._claims_recipes import DEVELOPMENT, Amounts, Method
from magicid_cli.workspace import read_json

WORK = Path(__file__).resolve().parents[1] / "build" / "guards"
STEPS, EVERY = 120, 20


@dataclass(frozen=True)
class Case:
    """A recipe that does harm.

    Attributes:
        rule: that shall end it.
        values: settings above the miniature's own.
    """

    rule: str
    values: Mapping[str, Any]


CASES = (
    Case("likeness-lost", {"pairs.identity_share": 0.0, "pairs.identity_tolerance": 9.0, "prefer.learning_rate": 1e-3}),
    Case("motion-lost", {"pairs.identity_share": 1.0, "prefer.learning_rate": 6e-4}),
    Case("over-fitting", {"pairs.identity_share": 0.5, "pairs.dynamic_rule": "dominating", "prefer.winner_guard": 2.0}),
    Case("displacement", {"pairs.identity_share": 0.0, "prefer.learning_rate": 6e-4}),
    Case("saturation", {"prefer.beta": 50_000.0}),
)


def main() -> None:
    """Run every case twice, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=WORK, help="folder of albums and identities, kept between runs")
    parser.add_argument("--output", type=Path, help="where to write the JSON")
    parser.add_argument("--only", choices=[case.rule for case in CASES], help="this case")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("MAGICID_")]:
        del os.environ[name]  # nobody's own settings
    os.environ["MAGICID_HOME"] = str(arguments.work.absolute())
    torch.set_num_threads(1)
    bench = Bench(arguments.work / "unused", arguments.work, Amounts(people=1, seeds=1))
    rows = [measure(bench, case) for case in CASES if arguments.only in (None, case.rule)]
    about = {**_table.machine("torch", "diffusers"), "person": DEVELOPMENT.people[0], "weights": bench.weights[:12]}
    _table.write("guards", rows, arguments.output, about=about)


def measure(bench: Bench, case: Case) -> dict[str, Any]:
    """One row: what ended the guarded run and what it kept, and where the run ends that nothing stops."""
    guarded, left = (run(bench, case, every) for every in (EVERY, STEPS // 2))
    kept = next(look for look in guarded["looks"] if look["step"] == guarded["step"])
    last, end = guarded["looks"][-1], left["looks"][-1]
    return {
        "rule": case.rule,
        "ended by": guarded["stopped"] or "-",
        "at": last["step"],
        "kept": guarded["step"],
        "likeness kept": f"{kept['likeness_gain']:+.0%}",
        "motion kept": f"{kept['motion_gain']:+.0%}",
        "likeness at the end, not stopped": f"{end['likeness_gain']:+.0%}",
        "motion at the end, not stopped": f"{end['motion_gain']:+.0%}",
        "settings": dict(case.values),
        "guarded": guarded,
        "not stopped": left,
    }


def run(bench: Bench, case: Case, every: int) -> dict[str, Any]:
    """Customize with a look every so many steps; what `guards.json` says."""
    values = {**case.values, "prefer.steps": STEPS, "prefer.watch_every": every}
    method = Method(f"{case.rule}, a look every {every}", values)
    cell = Cell(method, DEVELOPMENT.people[0], DEVELOPMENT.seeds[0], DEVELOPMENT)
    print(f"{cell.label} ...", file=sys.stderr)
    return dict(read_json(customize(bench, cell).prefer / "guards.json"))


if __name__ == "__main__":
    main()
