"""Time and memory of `magicid evaluate`: 40 videos of 61 frames of 720x1280, every metric, in under ten minutes.

`python -m benchmarks.evaluate` measures all of them and writes `results/evaluate.json`; with `--videos N` fewer are
measured, and the row says what 40 would take at that rate: an extrapolation, marked as one. Networks have the sizes of
the real ones and random weights (`_evaluation_networks.py`, `_sface.py`): nothing is downloaded. The face finder is the
real YuNet where the test data are at hand, else the stand-in; the output says which. FVD's reference set is as large
as the set. The last row is the same evaluation once more: it only reads. `seconds` is what a clock shows, `cpu_s` what
all processes used: on a busy machine only the second can be compared.
"""

import sys
from pathlib import Path

if not __package__:  # run by path: this folder would come first, and `select.py` would hide Python's own `select`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import _alone, _evaluation_networks, _sface, _table
from benchmarks import score as scoring

VIDEOS, LIMIT_S = 40, 600.0


def main(given: Sequence[str] | None = None) -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="where to write the JSON")
    parser.add_argument("--videos", type=int, default=VIDEOS, help=f"videos that are measured; default {VIDEOS}")
    arguments = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MAGICID_HOME"] = str(folder / "home")
        finder = prepare(folder, arguments.videos)
        rows = [
            {"case": "first time", **measured(folder, arguments.videos)},
            {"case": "once more", **measured(folder, arguments.videos)},
        ]
    about = {**_table.machine("opencv-python-headless", "numpy", "torch", "transformers"), "finder": finder}
    about["limit"] = f"{VIDEOS} videos in {LIMIT_S:g} s on 2 cores"
    _table.write("evaluate", rows, arguments.output, about=about)


def prepare(folder: Path, videos: int) -> str:
    """Write videos and networks, and put the networks where the evaluation opens its own; returns the face finder."""
    from magicid_cli.evaluation import likeness, pictures
    from magicid_cli.events import Events
    from magicid_cli.faces import Faces, OnnxRecogniser
    from magicid_cli.rewards.clip import ClipJudge

    scoring.write_clip(folder / "clip.mp4")
    for kind in ("videos", "reference"):
        (folder / kind).mkdir()
        for number in range(videos):
            path = folder / kind / f"{number:02d}.mp4"
            shutil.copy(folder / "clip.mp4", path)
            with path.open("ab") as file:  # no two files are equal
                file.write(scoring._free_atom(number + 1000 * (kind == "reference")))
    photo(folder / "photo.png")
    _sface.write(folder / "recogniser.onnx")
    _evaluation_networks.write_recogniser(folder / "judge.onnx")
    _evaluation_networks.write_clip(folder / "clip")
    _evaluation_networks.write_i3d(folder / "i3d.safetensors")
    detector = scoring.faces(folder).detector

    def opened(file: str, kind: str) -> Any:
        recogniser = OnnxRecogniser(folder / file, kind, name=file, made_by=f"random {file}")
        return lambda *_, **__: Faces(detector, recogniser)

    vars(likeness)["open_faces"] = opened("recogniser.onnx", "sface")
    vars(likeness)["open_evaluation_faces"] = opened("judge.onnx", "arcface")
    vars(likeness)["evaluation_face_model"] = lambda *_, **__: "judge"
    vars(likeness)["signatures"] = lambda rewards, *_: (detector.made_by, f"random {rewards.face_model}")
    vars(pictures)["open_clip"] = lambda name, **_: ClipJudge(
        folder / "clip", name=name, commit="random", device="cpu", frames=1, events=Events()
    )
    return str(detector.made_by)


def photo(path: Path) -> None:
    """A photo with a face."""
    from PIL import Image

    shared = scoring.shared("astronaut.png")
    picture = Image.open(shared) if shared else Image.fromarray(scoring._blobs())
    picture.convert("RGB").save(path)


def measured(folder: Path, videos: int) -> dict[str, Any]:
    """One evaluation."""
    from magicid_cli import config
    from magicid_cli.evaluation import Item, evaluate
    from magicid_cli.events import Events

    values = {"rewards.flow": "dis", "evaluate.fvd_features": str(folder / "i3d.safetensors"), "model.device": "cpu"}
    items = [Item(path, path.name, f"prompt {n // 2}") for n, path in enumerate(sorted((folder / "videos").iterdir()))]
    before, begun = _cpu_s(), time.perf_counter()
    found = evaluate(
        items,
        [folder / "photo.png"],
        config.resolve(values).settings,
        store=folder / "store",
        events=Events(),
        fvd_reference=sorted((folder / "reference").iterdir()),
    )
    seconds = time.perf_counter() - begun
    of_all = seconds * VIDEOS / videos
    return {
        "videos": videos,
        "seconds": round(seconds, 1),
        "cpu_s": round(_cpu_s() - before, 1),
        "seconds_of_40": round(of_all, 1),
        "extrapolated": videos != VIDEOS,
        "face_found": found.figures["face_found"].value,
        "peak_gb": _alone.peak_gb(),
        "kept": of_all <= LIMIT_S,
    }


def _cpu_s() -> float:
    """Processor seconds of this process and of those it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
