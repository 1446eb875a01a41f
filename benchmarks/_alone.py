"""What can only be measured in a process of its own: plain diffusers, one video on one core, and the wheel."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "magicid_cli"

_PLAIN = """
import json, sys
folder, out, prompt, frames, side, steps, guidance, seed = sys.argv[1:]
import numpy as np, torch
from diffusers import HunyuanVideoPipeline
torch.set_num_threads(1)
pipe = HunyuanVideoPipeline.from_pretrained(folder)
pipe.set_progress_bar_config(disable=True)
video = pipe(prompt, num_frames=int(frames), height=int(side), width=int(side), num_inference_steps=int(steps),
             guidance_scale=float(guidance), generator=torch.Generator("cpu").manual_seed(int(seed)),
             output_type="np").frames[0]
np.save(out, video)
json.dump(sorted(name for name in sys.modules if name.startswith("magicid")), sys.stdout)
"""

_ONE_VIDEO = """
import json, os, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
started = time.perf_counter()
import torch
from benchmarks import _alone, _miniature
torch.set_num_threads(1)
model = _miniature.family()
loaded = time.perf_counter() - started
seconds, cpu_s = [], []
for seed in range(int(sys.argv[2])):
    wall, cpu = time.perf_counter(), time.process_time()
    _miniature.sampled(model, sys.argv[1], seed)
    seconds.append(round(time.perf_counter() - wall, 3))
    cpu_s.append(round(time.process_time() - cpu, 3))
json.dump({"seconds": seconds, "cpu_s": cpu_s, "load_s": round(loaded, 2), "peak_gb": _alone.peak_gb()}, sys.stdout)
"""


def plain_diffusers(
    folder: Path, out: Path, prompt: str, *, frames: int, side: int, steps: int, guidance: float, seed: int
) -> tuple[np.ndarray, list[str]]:
    """The video that diffusers alone makes of a checkpoint, in a fresh process without network.

    Returns:
        Frames as floats from 0 to 1, `(F, S, S, 3)`, and the modules of ours that were imported: none.

    Raises:
        RuntimeError: it failed; the message is what it said last.
    """
    numbers = map(str, (frames, side, steps, guidance, seed))
    told = _python(_PLAIN, str(folder), str(out), prompt, *numbers, cwd=out.parent)
    return np.load(out), told


def one_video(prompt: str, repeats: int) -> dict[str, Any]:
    """Time and memory of `repeats` videos, one after the other, in a fresh process on one core and one thread.

    Returns:
        `seconds` by the clock and `cpu_s` of the processor, for each video from its prompt to its frames; `load_s`
        until everything is imported and loaded; `peak_gb` of the whole process, in units of 1e9 bytes.

    Raises:
        RuntimeError: it failed.
    """
    told: dict[str, Any] = _python(_ONE_VIDEO, prompt, str(repeats), cwd=ROOT)
    return told


def peak_gb() -> float:
    """Largest resident memory of this process so far, in units of 1e9 bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not `ru_maxrss`: on Linux a child's begins with what its parent had in memory when it started it.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return round(int(line.split()[1]) * 1024 / 1e9, 3)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)


def wheel(folder: Path) -> tuple[int, list[str]]:
    """Build the checkout's wheel into an empty folder.

    Returns:
        Its size in bytes, and those of the package's weights that it lacks.

    Raises:
        RuntimeError: it cannot be built.
    """
    options = ["--no-isolation", "--wheel", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run([sys.executable, "-m", "build", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the wheel cannot be built: {_last(done)}")
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        held = set(archive.namelist())
    wanted = {f"magicid_cli/{file.relative_to(PACKAGE).as_posix()}" for file in weight_files()}
    return path.stat().st_size, sorted(wanted - held)


def weight_files() -> list[Path]:
    """Every file of the package's trained weights."""
    return sorted(path for path in (PACKAGE / "world" / "weights").rglob("*") if path.is_file())


def _python(program: str, *arguments: str, cwd: Path) -> Any:
    """What a fresh Python with one thread and no network prints, as JSON."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env={**os.environ, **threads, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"a process of its own failed: {_last(done)}")
    return json.loads(done.stdout)


def _last(done: "subprocess.CompletedProcess[str]") -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"
