"""What every benchmark shares: rows as a table on the terminal and as JSON, with the machine they were measured on."""

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine(*packages: str) -> dict[str, Any]:
    """The machine: cores this process may use, processor, memory (GiB), Python, and the versions of `packages`."""
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
    }
    memory_kb = _first("/proc/meminfo", "MemTotal").split(" ")[0]
    if memory_kb:
        facts["memory_gib"] = round(int(memory_kb) / 2**20, 1)
    for package in packages:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = None
    return facts


def write(
    name: str, rows: Sequence[dict[str, Any]], output: Path | None = None, *, about: dict[str, Any] | None = None
) -> Path:
    """Print `rows` as a table and write them as JSON.

    Args:
        name: the benchmark; the file is `results/<name>.json` unless `output` is given.
        rows: one dict a line, with the same keys in the same order; nested values appear in the JSON only.
        output: another file.
        about: the machine and whatever else the figures depend on; `machine()` by default.
    """
    about = machine() if about is None else about
    print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    flat = [{key: value for key, value in row.items() if not isinstance(value, dict | list)} for row in rows]
    header = list(flat[0]) if flat else []
    lines = [header, *([_text(row.get(key)) for key in header] for row in flat)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    path = output or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"name": name, "machine": about, "rows": list(rows)}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"written to {path}")
    return path


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _first(file: str, key: str) -> str:
    """The first value of `key` in a `key : value` file of /proc; empty where there is no such file."""
    if not Path(file).is_file():
        return ""
    for line in Path(file).read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
