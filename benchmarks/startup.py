"""How long `magicid` takes to say anything, and which heavy libraries it loads for that.

`python -m benchmarks.startup` prints the table and writes `results/startup.json`. Times are medians over fresh
processes after one that warms the file cache; the first row is Python alone. The usage error of a command is an unknown
option. `median_s` is what a clock shows, `cpu_s` what the process used: on a busy machine only the second means much.
"""

import sys
from pathlib import Path

if not __package__:  # run by path: this folder would come first, and `select.py` would hide Python's own `select`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import resource
import statistics
import subprocess
import time
from typing import Any

from benchmarks import _table

HEAVY = ("torch", "numpy", "diffusers", "transformers", "peft", "accelerate", "huggingface_hub", "cv2", "PIL")
HELP_LIMIT_S, USAGE_LIMIT_S = 0.3, 0.5

RUN = "import sys; from magicid_cli.cli.app import main; sys.exit(main(sys.argv[1:]))"
COMMANDS = "from magicid_cli.cli.app import app; print(*(command.name for command in app.registered_commands))"
MODULES = f"""
import json, sys
from magicid_cli.cli.app import main
try:
    main(sys.argv[1:])
finally:
    print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""


def main() -> None:
    """Measure every row and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where to write the JSON")
    parser.add_argument("--runs", type=int, default=11, help="processes a row")
    arguments = parser.parse_args()
    commands = run(COMMANDS).stdout.split()
    rows = [measure(["--help"], HELP_LIMIT_S, arguments.runs), measure(["--version"], HELP_LIMIT_S, arguments.runs)]
    rows += [measure([command, "--help"], None, arguments.runs) for command in commands]
    rows += [measure([command, "--no-such-option"], USAGE_LIMIT_S, arguments.runs) for command in commands]
    python = {"command": "python -c pass", **timed("pass", [], arguments.runs), "limit_s": None, "heavy": "-"}
    _table.write("startup", [python, *rows], arguments.output, about=_table.machine("typer", "rich"))


def measure(arguments: list[str], limit_s: float | None, runs: int) -> dict[str, Any]:
    """One row: times, exit code, the limit of the contract, and heavy libraries loaded."""
    heavy = json.loads(run(MODULES, *arguments).stdout.splitlines()[-1])
    row = {"command": " ".join(["magicid", *arguments]), **timed(RUN, arguments, runs), "limit_s": limit_s}
    return {**row, "heavy": " ".join(heavy) or "none"}


def timed(code: str, arguments: list[str], runs: int) -> dict[str, Any]:
    """Medians over fresh processes, in seconds, and their exit code."""
    exit_code = run(code, *arguments).returncode
    seconds, cpu = [], []
    for _ in range(runs):
        start, cpu_start = time.perf_counter(), cpu_of_children()
        run(code, *arguments)
        seconds.append(time.perf_counter() - start)
        cpu.append(cpu_of_children() - cpu_start)
    medians = {"median_s": statistics.median(seconds), "min_s": min(seconds), "cpu_s": statistics.median(cpu)}
    return {name: round(value, 3) for name, value in medians.items()} | {"exit": exit_code}


def cpu_of_children() -> float:
    """Processor seconds of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python that runs `code`."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


if __name__ == "__main__":
    main()
