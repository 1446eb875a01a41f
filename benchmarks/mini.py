"""Whether the miniature is what it has to be: every gate of it measured, with pictures to look at.

    python -m benchmarks.mini [--quick] [--output FOLDER]

On the weights that come with the package: the autoencoder, the samples of the untouched model, the judges, plain
diffusers on the packaged folder, time and memory of one video on one core, and the size of the wheel. Writes
`mini.json`, `mini-samples.png` (what was asked for, drawn and sampled) and `mini-codec.png`; exits with 1 if a gate
is not kept. `--quick` looks at fewer clips and leaves the results folder alone.

Motion is the dynamics reward in pixels per frame with the shorter side taken as 128. From the mean of the six actions
that move, that of videos which were asked to stand still is taken off, drawn and sampled alike: flicker is no motion.
Drawn clips are drawn at the size at which motion is measured; the same ones at 48 pixels are in the gate's details.
Likeness of samples is compared pair by pair: two samples against the two people who were drawn for the same prompts.
"""

import sys
from pathlib import Path

if not __package__:  # run by path: this folder would come first, and `select.py` would hide Python's own `select`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks import _alone, _miniature, _sheet, _table
from benchmarks._miniature import Studio
from magicid_cli import models
from magicid_cli.errors import MagicIDError
from magicid_cli.models.catalog import video_model
from magicid_cli.world import clips

PROMPT = "A woman in a red sweater waves a hand on a sunny beach, smiling, in golden light."
SEED = 5
REPEATS = 3  # videos that are timed
STILL = "still"  # the action that is none
SHOWN_CODEC, SHOWN_SAMPLES = 8, 14  # rows of the sheets


@dataclass(frozen=True)
class Amounts:
    """How much is looked at: clips through the autoencoder and the scorer, sampled videos, people."""

    codec: int = 24
    scorer: int = 280
    samples: int = 112
    people: range = range(600, 900)


QUICK = Amounts(codec=6, scorer=70, samples=28, people=range(600, 660))


@dataclass(frozen=True)
class Gate:
    """A figure and the bound it must keep; one without a bound is there to be looked at.

    Attributes:
        what: was measured.
        measured: the figure; not a number is never good enough.
        unit: of the figure.
        least: what it must reach, if anything.
        most: what it must not exceed, if anything.
        details: for the JSON only.
    """

    what: str
    measured: float
    unit: str = ""
    least: float | None = None
    most: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the bound is kept."""
        above = self.least is None or self.measured >= self.least
        return above and (self.most is None or self.measured <= self.most)

    def row(self) -> dict[str, Any]:
        """The gate as a line of the table."""
        bounds = [f"{sign} {value:g}" for sign, value in ((">=", self.least), ("<=", self.most)) if value is not None]
        return {
            "gate": self.what,
            "measured": round(self.measured, 4) if math.isfinite(self.measured) else None,
            "unit": self.unit,
            "bound": " and ".join(bounds),
            "passed": ("yes" if self.passed else "NO") if bounds else "-",
            "details": self.details,
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer clips, samples and people; for a first look")
    parser.add_argument("--output", type=Path, help="folder for the JSON and the pictures")
    options = parser.parse_args(arguments)
    amounts = QUICK if options.quick else Amounts()
    folder = options.output or (_alone.ROOT / "build" / "mini-quick" if options.quick else _table.RESULTS)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    begun = time.monotonic()
    try:
        studio = _miniature.studio()
        gates = list(measured(studio, amounts, folder))
    except MagicIDError as error:
        raise SystemExit(f"{error.message}\n{error.hint}") from None
    about = {
        **_table.machine("torch", "diffusers", "transformers", "numpy", "opencv-python-headless"),
        "weights": studio.family.commit,
        "clips": amounts.codec,
        "samples": amounts.samples,
        "people": len(amounts.people),
        "minutes": round((time.monotonic() - begun) / 60, 1),
    }
    _table.write("mini", [gate.row() for gate in gates], folder / "mini.json", about=about)
    missed = [gate.what for gate in gates if not gate.passed]
    bounded = sum(gate.least is not None or gate.most is not None for gate in gates)
    print(f"{bounded - len(missed)} of {bounded} gates are kept" + "".join(f"\nmissed: {name}" for name in missed))
    sys.exit(1 if missed else 0)


def measured(studio: Studio, amounts: Amounts, folder: Path) -> Iterator[Gate]:
    """Every gate, in the order of the table."""
    tell("autoencoder")
    codec = _miniature.codec(studio, amounts.codec)
    yield from codec_gates(codec)
    codec_sheet(codec, folder / "mini-codec.png")
    tell("prompt scorer")
    yield scorer_gate(_miniature.scorer_rates(studio, amounts.scorer))
    tell("samples")
    samples = _miniature.samples(studio, amounts.samples)
    yield from sample_gates(studio, samples)
    tell("face encoders")
    yield from face_gates(studio, samples, amounts.people)
    tell("plain diffusers, one video alone, the wheel")
    with tempfile.TemporaryDirectory() as temporary:
        out, dist = Path(temporary) / "video.npy", Path(temporary) / "dist"
        dist.mkdir()
        yield from attempted("plain diffusers", lambda: [plain_gate(studio, out)])
        yield from attempted("one video", lambda: video_gates(_alone.one_video(PROMPT, REPEATS)))
        yield from attempted("sizes", lambda: size_gates(dist))
    samples_sheet(studio, samples, folder / "mini-samples.png")


def tell(what: str) -> None:
    """Say on stderr what is measured now."""
    print(f"measuring: {what}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------------- gates


def codec_gates(codec: _miniature.Codec) -> Iterator[Gate]:
    """The autoencoder on held-out clips."""
    before, after = codec.motion_px
    moved = {"clips_px": round(before, 3), "clips_after_px": round(after, 3)}
    each = {f"{action}_db": round(db, 2) for action, db in codec.action_db.items()}
    yield Gate("VAE, held-out clips, whole picture", codec.whole_db, "dB", least=27, details=each)
    yield Gate("VAE, held-out clips, face", codec.face_db, "dB", least=24)
    yield Gate("VAE, face-encoder cosine before/after", codec.cosine, least=0.9)
    yield Gate("VAE, motion of a clip that stands still", codec.static_px, "px at 128", most=0.3, details=moved)


def scorer_gate(found: dict[str, float]) -> Gate:
    """The prompt scorer on drawn clips."""
    return Gate("prompt scorer, held-out clips, worst of three", min(found.values()), least=0.95, details=found)


def sample_gates(studio: Studio, samples: _miniature.Samples) -> Iterator[Gate]:
    """The untouched model's videos against the clips that are drawn for the same captions."""
    sides = {"drawn": samples.true, "sampled": samples.made}
    seen = {side: _miniature.seen(studio, videos) for side, videos in sides.items()}
    rates = {side: _miniature.rates(found, samples.scenes) for side, found in seen.items()}
    for part, least in zip(_miniature.PARTS, (0.9, 0.95, 0.9), strict=True):
        share = rates["sampled"][part] / rates["drawn"][part] if rates["drawn"][part] else float("nan")
        details: dict[str, Any] = {side: rate[part] for side, rate in rates.items()}
        if part == "action":
            details |= {f"{side}_each": by_action(right(found, samples, part), samples) for side, found in seen.items()}
        yield Gate(
            f"samples, prompted {part} recognised, share of drawn clips' rate", share, least=least, details=details
        )
    px = {
        "drawn": [_miniature.true_motion(studio, scene) for scene in samples.scenes],
        "drawn_small": [_miniature.motion(studio, frames) for frames in samples.true],
        "sampled": [_miniature.motion(studio, frames) for frames in samples.made],
    }
    each = {side: by_action(values, samples) for side, values in px.items()}
    moving = {side: float(np.mean([v for name, v in found.items() if name != STILL])) for side, found in each.items()}
    above = {side: moving[side] - found[STILL] for side, found in each.items()}
    details = {**above, **{f"{side}_each": found for side, found in each.items()}}
    yield Gate("samples, motion, share of drawn clips'", above["sampled"] / above["drawn"], least=0.8, details=details)


def right(found: Sequence[dict[str, str]], samples: _miniature.Samples, part: str) -> list[float]:
    """Whether each video was taken for what its scene is, as 0 or 1."""
    return [float(one[part] == getattr(scene, part)) for one, scene in zip(found, samples.scenes, strict=True)]


def by_action(values: Sequence[float], samples: _miniature.Samples) -> dict[str, float]:
    """The mean of the values of each action's scenes."""
    each: dict[str, list[float]] = {}
    for scene, value in zip(samples.scenes, values, strict=True):
        each.setdefault(scene.action, []).append(value)
    return {action: round(float(np.mean(found)), 3) for action, found in each.items()}


def face_gates(studio: Studio, samples: _miniature.Samples, people: range) -> Iterator[Gate]:
    """Both encoders on unseen people, and whether the untouched model always shows the same ones."""
    for name, verified in _miniature.verification(studio, people).items():
        details: dict[str, Any] = {"people": len(people), "faces_found": verified.found}
        yield Gate(f"face encoder {name}, unseen people, AUC", verified.auc, least=0.99, details=details)
    for name in studio.encoders:
        cast = _miniature.cast(studio, samples, name)
        drawn, sampled = cast.steadiness
        faces = {"samples_with_a_face": cast.found, "steadiness_drawn": drawn, "steadiness_sampled": sampled}
        what = f"two samples against two random people by {name}, AUC"
        yield Gate(what, cast.chance, least=0.45, most=0.55, details=faces)
    yield Gate(f"samples, one face through the video by {name}, share of drawn clips'", sampled / drawn)


def plain_gate(studio: Studio, out: Path) -> Gate:
    """The packaged folder in plain diffusers, in a process that has nothing of ours."""
    wanted = _miniature.SETTINGS.generate
    ours = _miniature.sampled(studio.family, PROMPT, SEED)
    theirs, imported = _alone.plain_diffusers(
        models.packaged_folder(video_model("mini")),
        out,
        PROMPT,
        frames=clips.FRAMES,
        side=clips.SIZE,
        steps=wanted.steps,
        guidance=wanted.guidance,
        seed=SEED,
    )
    off = np.abs(np.round(theirs * 255) - ours)
    apart = float("nan") if imported else float(off.max())
    details = {"pixels_that_differ": float((off > 0).mean()), "of_ours_imported": imported}
    return Gate("plain diffusers, largest difference from our video", apart, "of 255", most=1, details=details)


def attempted(what: str, gates: Callable[[], Iterable[Gate]]) -> Iterator[Gate]:
    """Gates that need a process of their own; where it fails, a gate that is not kept and what the process said."""
    try:
        yield from gates()
    except RuntimeError as error:
        tell(f"{what} failed: {error}")
        yield Gate(what, float("nan"), least=0, details={"failed": str(error)})


def video_gates(told: dict[str, Any]) -> Iterator[Gate]:
    """Time and memory of one video."""
    yield Gate("one video on one core", float(np.median(told["cpu_s"])), "s", most=1.5, details=told)
    yield Gate("one video, memory of the process", told["peak_gb"], "GB", most=1.2)


def size_gates(folder: Path) -> Iterator[Gate]:
    """What a user downloads."""
    files = _alone.weight_files()
    tensors = sum(path.stat().st_size for path in files if path.suffix == ".safetensors") / 1e6
    everything = {"all_files": sum(path.stat().st_size for path in files) / 1e6}
    yield Gate("all weights", tensors if tensors else float("nan"), "MB", most=25, details=everything)
    size, lacking = _alone.wheel(folder)
    yield Gate("wheel", float("nan") if lacking else size / 1e6, "MB", most=30, details={"lacks": lacking})


# ---------------------------------------------------------------------------------------------------------- pictures


def codec_sheet(codec: _miniature.Codec, path: Path) -> None:
    """Clips before and after the autoencoder, and four times the difference."""
    rows = []
    for before, after in codec.shown[:SHOWN_CODEC]:
        off = np.clip(128 + 4 * (after.astype(np.int16) - before), 0, 255).astype(np.uint8)
        error = float(np.square(before.astype(np.float64) - after).mean())
        rows.append(_sheet.Row(f"{_miniature.decibels(error):.1f} dB", [part[::4] for part in (before, after, off)]))
    title = "The autoencoder on clips of people it was not trained on"
    _sheet.write(
        path, rows, side=96, title=title, headings=["drawn", "after the autoencoder", "difference, four times"]
    )


def samples_sheet(studio: Studio, samples: _miniature.Samples, path: Path) -> None:
    """The first scenes, drawn and sampled, under their captions; what the scorer misses is said."""
    rows = []
    for scene, true, made in list(zip(samples.scenes, samples.true, samples.made, strict=True))[:SHOWN_SAMPLES]:
        (seen,) = _miniature.seen(studio, [made])
        missed = [f"{part}: {seen[part]}" for part in _miniature.PARTS if seen[part] != getattr(scene, part)]
        label = scene.caption() + (f"   [taken for {', '.join(missed)}]" if missed else "")
        rows.append(_sheet.Row(label, [true[::2], made[::2]]))
    title = "The untouched miniature: what was asked for, drawn by the renderer and sampled from noise"
    _sheet.write(path, rows, side=96, title=title, headings=["drawn (somebody of that description)", "sampled"])


if __name__ == "__main__":
    main()
