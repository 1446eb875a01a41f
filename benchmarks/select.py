"""Time and memory of pair selection on 100,000 videos, and of one Pareto front.

`python -m benchmarks.select` prints the table and writes `results/select.json`. Every case runs in a process of its
own, so that its peak memory is its own; `start_mib` is that process before the case, with NumPy and torch loaded.
`seconds` is what a clock shows, `cpu_s` what the process used: on a busy machine only the second can be compared.
"""

import sys
from pathlib import Path

if not __package__:  # run by path: this folder would come first, and this file would hide Python's own `select`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import resource
import subprocess
import time
from collections.abc import Callable
from typing import Any

from benchmarks import _table

ROOT = Path(__file__).resolve().parents[1]
STATIC_CLIPS = 30


def main() -> None:
    """Measure every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where to write the JSON")
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--case", choices=CASES, help="only this one")
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(CASES[arguments.measure](arguments.videos)))
        return
    rows = [in_own_process(case, arguments.videos) for case in ([arguments.case] if arguments.case else CASES)]
    _table.write("select", rows, arguments.output, about=_table.machine("numpy"))


def in_own_process(case: str, videos: int) -> dict[str, Any]:
    """The row of one case, measured by a fresh Python."""
    command = [sys.executable, "-m", "benchmarks.select", "--measure", case, "--videos", str(videos)]
    finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return {"case": case, "videos": videos, **json.loads(finished.stdout)}


def select(videos: int, prompts: int, rewards: Callable[[Any, int], Any]) -> dict[str, Any]:
    """`select_pairs` with the default settings' rule over `prompts` prompts and some static clips."""
    import numpy as np

    from magicid_cli import config, hpo

    generator = np.random.default_rng(0)
    likeness = generator.uniform(0.9, 1.0, STATIC_CLIPS)
    still = np.column_stack([likeness, np.zeros(STATIC_CLIPS), generator.random(STATIC_CLIPS)])
    candidates = hpo.Candidates(
        ids=[f"tuned-{n:06d}" for n in range(videos)] + [f"static-{n:03d}" for n in range(STATIC_CLIPS)],
        origin=["tuned"] * videos + ["static"] * STATIC_CLIPS,
        prompt=np.append(np.arange(videos) % prompts, np.full(STATIC_CLIPS, -1)),
        photo=np.append(np.full(videos, -1), np.arange(STATIC_CLIPS)),
        raw=np.vstack([rewards(generator, videos), still]),
    )
    pairs = config.PairSettings()
    rule = hpo.PairRule(
        count=pairs.count,
        identity_share=pairs.identity_share,
        tau=pairs.tau,
        video_cap=pairs.video_cap,
        rejected_cap=pairs.rejected_cap,
        held_out=pairs.held_out,
        rewards=tuple(pairs.rewards.split("+")),
        fronts=pairs.fronts,
        dynamic_rule=pairs.dynamic_rule,
        identity_tolerance=pairs.identity_tolerance,
    )
    selection, measured = measured_call(lambda: hpo.select_pairs(candidates, rule, seed=0))
    training = selection.report["training"]
    considered = sum(training[kind]["candidates"] for kind in ("identity", "dynamic"))
    return {**measured, "prompts": prompts, "considered": considered, "pairs": len(selection.pairs), "report": training}


def front(videos: int) -> dict[str, Any]:
    """`upper_front` of one group in which nothing dominates anything."""
    import numpy as np

    from magicid_cli import hpo

    points = on_a_plane(np.random.default_rng(0), videos)
    mask, measured = measured_call(lambda: hpo.upper_front(points))
    return {**measured, "prompts": 1, "considered": videos, "pairs": None, "front": int(mask.sum())}


def measured_call(function: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """What the call returns, and its time and memory."""
    start_mib, wall, cpu = peak_mib(), time.perf_counter(), time.process_time()
    result = function()
    seconds, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    measured = {"seconds": round(seconds, 3), "cpu_s": round(cpu_s, 3), "peak_mib": peak_mib(), "start_mib": start_mib}
    return result, measured


def independent(generator: Any, videos: int) -> Any:
    """Rewards that know nothing of each other."""
    return generator.random((videos, 3))


def opposed(generator: Any, videos: int) -> Any:
    """The realistic case: the more a video moves, the less it looks like the person, give or take."""
    raw = generator.random((videos, 3))
    raw[:, 0] = 1 - raw[:, 1] + generator.normal(scale=0.1, size=videos)
    return raw


def on_a_plane(generator: Any, videos: int) -> Any:
    """Rewards of a constant sum: every video is on both fronts. Multiples of 2^-20, so that the sum is exact."""
    raw = generator.integers(0, 2**20, (videos, 3)) / 2**20
    raw[:, 2] = -raw[:, 0] - raw[:, 1]
    return raw


def on_two_planes(generator: Any, videos: int) -> Any:
    """The worst case: half of the videos are the upper front and half the lower one."""
    raw = on_a_plane(generator, videos)
    raw[:, 2] += 0.05 * (generator.random(videos) < 0.5)
    return raw


def peak_mib() -> int:
    """Largest resident memory of this process so far."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


CASES: dict[str, Callable[[int], dict[str, Any]]] = {
    "20 prompts": lambda videos: select(videos, 20, independent),
    "20 prompts, identity against motion": lambda videos: select(videos, 20, opposed),
    "20 prompts, nothing dominates": lambda videos: select(videos, 20, on_a_plane),
    "20 prompts, two planes": lambda videos: select(videos, 20, on_two_planes),
    "5 videos a prompt": lambda videos: select(videos, videos // 5, independent),
    "5 videos a prompt, identity against motion": lambda videos: select(videos, videos // 5, opposed),
    "1 prompt": lambda videos: select(videos, 1, independent),
    "1 prompt, front of everything": front,
}


if __name__ == "__main__":
    main()
