"""What a GPU makes of the 13B model: one command that measures, resumes and prints the table of figures and targets.

    python -m benchmarks.gpu [--only PATTERN] [--attention cudnn] [--predict] [--profile [SHAPE]] [--ship]

On a CUDA machine: the full HunyuanVideo transformer with random bfloat16 weights (made on the device; nothing is
downloaded), adapters of rank 64, and magicid's own code for a forward, a sampling step, a step of stage 1, a
preference step and the decoding of a video, at four shapes; a segment of a real run, 20 steps of stage 2 and two
videos, which the plan is held against; the optimizer alone; the memory plans for smaller cards under the memory of such
a card, also with a base in fewer bytes; compiled blocks, with the time that compiling takes; and plain diffusers with
PEFT, in the same run. Each row's time is predicted from its FLOP and the rate reached so far; a row that would not fit
into the budget (less than nine minutes) is skipped by name, and the same command run again goes on: rows are merged in
the results file as soon as they are measured, those of each attention kernel by themselves. Out of memory is a result.
Without CUDA the same code runs on the tiny configuration and says so.

The table has every target beside what was predicted, measured and is the floor; without a GPU it shows what is in
`results/gpu.json`. `--predict` prints it and what is expected of every row, and measures nothing. `--profile` shows
where the time of a preference step goes. `--ship` writes the measured steps to where `magicid customize --dry-run`
takes them from.
"""

import os
import sys
from pathlib import Path

if not __package__:  # run by path: this folder would come first, and `select.py` would hide Python's own `select`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

# How torch divides a GPU's memory, read when torch is. Pieces that grow, unless the user has set something else: steps
# of several shapes and lengths otherwise leave gaps, and what is reserved follows the order of rows.
if __name__ == "__main__" and not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & set(os.environ):
    os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"

import argparse
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from io import StringIO
from typing import Any, get_args

import torch

from benchmarks import _gpu_against, _gpu_profile, _gpu_table
from benchmarks._gpu_model import Bench, open_bench
from benchmarks._gpu_rows import (
    DONE,
    NO_MEMORY,
    SHAPES,
    Name,
    compile_reached,
    kernel_of,
    order,
    predictions,
    rate_reached,
    try_row,
)
from benchmarks._gpu_steps import KINDS
from benchmarks._table import RESULTS, machine, write
from magicid_cli.errors import MagicIDError
from magicid_cli.models.base import Shape
from magicid_cli.models.execution import Kernel
from magicid_cli.models.hunyuan_checks import check_shape
from magicid_cli.plan import costs, known
from magicid_cli.plan.machine import REFERENCE_GPU
from magicid_cli.workspace import read_json, write_json

PROFILED = "preference step"
# Rows are merged only where these are the same.
SAME = ("what", "gpu", "torch", "diffusers")


def about(device: torch.device) -> dict[str, Any]:
    """The machine, and what the figures are figures of."""
    found = machine("magicid", "torch", "diffusers", "peft")
    if device.type != "cuda":
        return {"what": "tiny on CPU: the same code, but no figure says anything about a GPU", **found}
    card = torch.cuda.get_device_properties(device)
    return {
        "what": "HunyuanVideo 13B, random bfloat16 weights, rank 64 on attention",
        "gpu": card.name,
        "gpu_gb": round(card.total_memory / costs.GB, 1),
        "cuda": torch.version.cuda,
        "driver": driver(),
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
        **found,
    }


def driver() -> str:
    """The version of the GPU's driver."""
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]


def earlier(path: Path, here: dict[str, Any], *, redo: bool = False) -> list[dict[str, Any]]:
    """Rows of earlier commands that were measured.

    Args:
        path: the results file.
        here: this machine.
        redo: whether those of another machine or version shall be replaced.

    Raises:
        SystemExit: they are of another machine or version, and shall not.
    """
    if not path.is_file():
        return []
    stored = read_json(path)
    differing = [key for key in SAME if stored["machine"].get(key) != here.get(key)]
    if differing and redo:
        return []
    if differing:
        raise SystemExit(
            f"{path} differs in {', '.join(differing)}: add --redo to replace it, or name another --output"
        )
    return [row for row in stored["rows"] if row["state"] in (DONE, NO_MEMORY)]


def missing(bench: Bench, rows: Sequence[dict[str, Any]], only: str = "") -> list[Name]:
    """Rows still to be measured with this attention kernel, in order, of those whose name `only` is found in."""
    there = {(row["shape"], row["row"], row["way"], row["kernel"]) for row in rows}
    return [one for one in order(bench.name) if re.search(only, called(one)) and key_of(bench, one) not in there]


def key_of(bench: Bench, name: Name) -> tuple[str, str, str, str | None]:
    """What tells a row from all others of a results file: its attention kernel, too."""
    shape, kind, way = name
    return str(shape), kind, way, kernel_of(bench, name)


def called(row: Name) -> str:
    """A row's name, as `--only` knows it."""
    return f"{row[0]} {row[1]} {row[2]}"


def run(
    bench: Bench,
    rows: list[dict[str, Any]],
    until: float,
    keep: Callable[[list[dict[str, Any]]], object],
    only: str = "",
) -> list[dict[str, Any]]:
    """All rows, those that were missing measured; `keep` gets them, in order, after each."""
    places = [(str(shape), kind, way) for shape, kind, way in order(bench.name)]

    def place(row: dict[str, Any]) -> tuple[int, str]:
        return places.index((row["shape"], row["row"], row["way"])), row["kernel"] or ""

    for row_name in missing(bench, rows, only):
        _, kind, way = row_name
        rate, compile_s = rate_reached(rows, kind, way, bench.name), compile_reached(rows, bench.name)
        row = try_row(bench, row_name, rate, until - time.monotonic(), compile_s)
        took = f", {row['seconds']:.3g} s, predicted {row['predicted_s']:.3g}" if row["seconds"] else ""
        print(f"{called(row_name)}: {row['state']}{took}", flush=True)
        rows = sorted([*rows, row], key=place)
        keep(rows)
    return rows


def profiled(bench: Bench, shape: Shape) -> list[dict[str, Any]]:
    """Where the time of a preference step at a shape goes, held by plan `80gb`."""
    bench.hold("80gb", shape)
    return _gpu_profile.measure(KINDS[PROFILED](bench, shape), bench.family.device)


def shape_of(text: str) -> Shape:
    """A shape as rows have it, frames x height x width.

    Raises:
        argparse.ArgumentTypeError: it is none, or none of a video that the model can make.
    """
    try:
        shape = Shape(*map(int, text.split("x")))
        check_shape(shape)
    except (TypeError, ValueError, MagicIDError) as error:
        raise argparse.ArgumentTypeError(f"{text} is no shape of a video, e.g. 61x320x544: {error}") from None
    return shape


def profile(bench: Bench, shape: Shape, title: str, output: Path, here: dict[str, Any]) -> None:
    """Write a profile beside the results: of a GPU's kernels, or of operators where there is none, which it says."""
    on_gpu = bench.family.device.type == "cuda"
    found = profiled(bench, shape)
    step = {"step": f"{PROFILED} {shape} 80gb", "times": "of the GPU's kernels" if on_gpu else "of operators on a CPU"}
    path = output.with_stem(f"{output.stem}-profile-{shape}")
    write(f"{title}, profile", found, path, about={**here, **step, "attention": bench.family.report()["kernel"]})


def ship(rows: Sequence[dict[str, Any]], gpu: str) -> Path:
    """Put the measured steps of a GPU to those that come with magicid, in the place of earlier ones of the same GPU."""
    path = Path(known.__file__).with_name("gpu_steps.json")
    steps = [*(step for step in known.shipped() if step.gpu != gpu), *_gpu_against.steps(rows, gpu)]
    plain = [{**asdict(step), "shape": list(asdict(step.shape).values())} for step in steps]
    write_json(path, {"format": known.FORMAT, "steps": plain})
    return path


def prepare(on_gpu: bool) -> tuple[str, torch.device]:
    """Which model runs where."""
    if not on_gpu:
        torch.set_num_threads(1)
        return "tiny", torch.device("cpu")
    return "hunyuan-video", torch.device("cuda", 0)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", default="", help="rows whose name has this regular expression in it, e.g. 'step 80gb$'"
    )
    parser.add_argument("--budget", type=float, default=520.0, help="seconds this command may take (default: 520)")
    parser.add_argument(
        "--predict", "--dry-run", action="store_true", help="print what is expected of every row and figure, and stop"
    )
    parser.add_argument(
        "--profile",
        nargs="?",
        type=shape_of,
        const=(),
        metavar="SHAPE",
        help="print where a preference step's time goes at a shape (default: the smallest one), and stop",
    )
    parser.add_argument("--ship", action="store_true", help="write the measured steps to where the plan reads them")
    parser.add_argument(
        "--attention",
        default="auto",
        choices=get_args(Kernel),
        help="attention kernel; each has its own rows",
    )
    parser.add_argument("--redo", action="store_true", help="measure rows of --only again")
    parser.add_argument("--output", type=Path, help="the results file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = options_of(arguments)
    until = time.monotonic() + options.budget
    name, device = prepare(torch.cuda.is_available())
    title, file = ("gpu", "gpu.json") if device.type == "cuda" else ("tiny on CPU", "gpu-cpu-tiny.json")
    output, here = options.output or RESULTS / file, about(device)
    with tempfile.TemporaryDirectory() as place:
        if options.predict:
            print_predictions()
            print_table(output, here)
            return
        bench = open_bench(name, device, Path(place), options.attention)
        if options.profile is not None:
            profile(bench, options.profile or SHAPES[name][0], title, output, here)
            return
        rows = earlier(output, here, redo=options.redo)
        if options.redo:
            again = {key_of(bench, one) for one in missing(bench, [], options.only)}
            rows = [row for row in rows if (row["shape"], row["row"], row["way"], row["kernel"]) not in again]

        def keep(rows: list[dict[str, Any]]) -> None:
            with redirect_stdout(StringIO()):
                write(title, rows, output, about=here)

        rows = run(bench, rows, until, keep, options.only)
    write(title, rows, output, about=here)
    print_table(output, here)
    if options.ship:
        print(f"written to {ship(rows, here['gpu'])}" if "gpu" in here else "nothing to ship: this is no GPU")


def print_table(output: Path, here: dict[str, Any]) -> None:
    """Every target beside what was predicted and measured: here, or where there is no GPU, in the committed results."""
    path = output if "gpu" in here else RESULTS / "gpu.json"
    stored = read_json(path) if path.is_file() else {"rows": [], "machine": {}}
    print_rows(_gpu_table.claims(stored["rows"], stored["machine"].get("gpu", REFERENCE_GPU)))


def print_predictions() -> None:
    """Every row of the 13B model as it is expected on one H100 or H200."""
    names = {"shape": "shape", "row": "row", "way": "way", "seconds": "predicted_s", "floor_s": "floor_s"}
    names["planned_gb"] = "predicted_gb"
    print_rows([{name: shown(row[key]) for key, name in names.items()} for row in predictions()])


def shown(value: Any) -> str:
    """A cell of a table."""
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Rows as a table on the terminal."""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
