"""What the ways around a computation save and change, on the miniature: on one CPU thread, no GPU.

    python -m benchmarks.shortcuts [--only guidance|caches|bank|bases] [--videos N] [--steps N] [--output FOLDER]

- `guidance`: true guidance as two passes and as one batch of two. Exact: the difference is rounding.
- `caches`: the step caches of the repository, each against the same videos without one: how far the videos differ, and
  what the judges of motion and of prompts say of them.
- `bank`: stage 2 with ever new draws and with banks of fixed ones, on pairs of a drawn clip and of the video that the
  untouched model makes of its prompt; margins also of pairs that were not trained on, at draws that no training meets.
- `bases`: a base stored in fp8, without and with products in fp8, against the full one. A CPU has no fast fp8
  products: the videos can be compared, the time cannot.

Each writes `shortcuts-<part>.json` to the results folder. `cpu_s` is what the process used: on a busy machine only that
can be compared.
"""

import sys
from pathlib import Path

if not __package__:  # run by path: this folder would come first, and `select.py` would hide Python's own `select`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import mean
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks import _miniature, _table
from benchmarks._miniature import SETTINGS, SHAPE, Studio
from magicid_cli import adapters, conditioning, hpo, models, preference, training
from magicid_cli.config import AdapterSettings, ModelSettings, with_values
from magicid_cli.events import Events
from magicid_cli.models.base import Family, StepCache
from magicid_cli.models.execution import Execution, Guided, Storage
from magicid_cli.models.step_cache import residual_ratios
from magicid_cli.preference import Bank, Pair
from magicid_cli.stages import prefer
from magicid_cli.world import clips

NEGATIVE = "A woman stands still in a dark room."
GUIDED: tuple[Guided, ...] = ("two passes", "one batch")
CACHES = (
    ("first-block", (0.05, 0.1, 0.2)),
    ("magcache", (0.06, 0.12, 0.24)),
    ("taylorseer", (2, 3, 4)),
)
BASES: tuple[Storage, ...] = ("full", "fp8", "fp8-products")
SEED, CALIBRATION_SEED = 8_500_000, 8_599_999
BANKS, PAIRS, HELD_OUT, BATCH, BETA, LOOKS = (0, 4, 16), 12, 6, 2, 500.0, 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, help="this part")
    parser.add_argument("--videos", type=int, default=28, help="of each row of guidance and caches")
    parser.add_argument("--steps", type=int, default=120, help="of each row of bank")
    parser.add_argument("--output", type=Path, default=_table.RESULTS, help="folder for the JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for part in [options.only] if options.only else PARTS:
        rows = PARTS[part](options)
        about = {**_table.machine("torch", "diffusers", "numpy"), "weights": _miniature.family().commit}
        _table.write(f"shortcuts-{part}", rows, options.output / f"shortcuts-{part}.json", about=about)


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    """Note the processor seconds of the block."""
    begun = time.process_time()
    yield
    into.append(time.process_time() - begun)


def of_lot(one: torch.Tensor, other: torch.Tensor) -> float:
    """Length of the difference, of that of the second."""
    return float((one - other).norm() / other.norm())


# ------------------------------------------------------------------------------------------------------- true guidance


def guidance(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both ways of true guidance on the same videos, in turn."""
    family, wanted = _miniature.family(), SETTINGS.generate
    negative = family.encode_text(NEGATIVE)
    taken: dict[str, list[float]] = {how: [] for how in GUIDED}
    made: dict[str, list[torch.Tensor]] = {how: [] for how in GUIDED}
    for number, scene in enumerate(_miniature.scenes(options.videos)):
        text = family.encode_text(scene.caption())
        for how in GUIDED if number % 2 else GUIDED[::-1]:
            family.execution = replace(family.execution, guided=how)
            with timed(taken[how]):
                latents = family.sample(
                    text,
                    SHAPE,
                    steps=wanted.steps,
                    guidance=wanted.guidance,
                    seed=SEED + number,
                    true_guidance=2.0,
                    negative=negative,
                )
            made[how].append(latents)
    apart = [of_lot(one, other) for one, other in zip(made["one batch"], made["two passes"], strict=True)]
    return [
        {
            "guided": how,
            "videos": options.videos,
            "cpu_s": mean(taken[how]),
            "largest_difference": max(apart) if how == "one batch" else 0.0,
        }
        for how in GUIDED
    ]


# --------------------------------------------------------------------------------------------------------- step caches


def caches(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every step cache on the same videos."""
    what, wanted = _miniature.studio(), SETTINGS.repository
    scenes = _miniature.scenes(options.videos)
    texts = [what.family.encode_text(scene.caption()) for scene in scenes]
    runs: list[int] = []
    deep = what.family.transformer.single_transformer_blocks[0].attn
    deep.register_forward_pre_hook(lambda *_: runs.append(1))

    def sampled(number: int, seed: int, cache: StepCache | None = None) -> torch.Tensor:
        return what.family.sample(
            texts[number], SHAPE, steps=wanted.steps, guidance=wanted.guidance, seed=seed, step_cache=cache
        )

    with residual_ratios(what.family.transformer) as ratios:
        sampled(0, CALIBRATION_SEED)
    known = {"magcache": tuple(ratios)}
    ways = [StepCache(kind, strength, known.get(kind, ())) for kind, all_of in CACHES for strength in all_of]
    rows, exact, shown = [], list[torch.Tensor](), list[np.ndarray]()
    for cache in [None, *ways]:
        runs.clear()
        taken: list[float] = []
        latents = []
        for number in range(options.videos):
            with timed(taken):
                latents.append(sampled(number, SEED + number, cache))
        whole = len(runs) / options.videos
        videos = [what.family.decode(one) for one in latents]
        if cache is None:
            exact, shown = latents, videos
        rows.append(
            {
                "cache": cache.kind if cache else "none",
                "strength": cache.strength if cache else 0.0,
                "videos": options.videos,
                "whole_steps": whole,
                "of": wanted.steps,
                "cpu_s": mean(taken),
                "latents_differ": mean(map(of_lot, latents, exact)),
                **judged(what, videos, shown),
                **_miniature.rates(_miniature.seen(what, videos), scenes),
            }
        )
    return rows


def judged(what: Studio, videos: list[np.ndarray], exact: list[np.ndarray]) -> dict[str, float | None]:
    """Motion of videos, and how far they are from the same ones computed in full; None where they are those."""
    squares = [np.square(one.astype(np.float64) - other) for one, other in zip(videos, exact, strict=True)]
    error = float(np.mean(squares))
    return {
        "psnr_db": _miniature.decibels(error) if error else None,
        "motion_px": mean(_miniature.motion(what, frames) for frames in videos),
    }


# -------------------------------------------------------------------------------------------------------- stored bases


def bases(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The same videos from each way of storing the base."""
    what, wanted = _miniature.studio(), SETTINGS.repository
    scenes = _miniature.scenes(options.videos)
    rows, exact, shown = [], list[torch.Tensor](), list[np.ndarray]()
    for base in BASES:
        family = models.open_family(ModelSettings(name="mini", device="cpu"), Events(), Execution(base=base))
        for part in ("text", "vae", "transformer"):
            family.load(part)
        latents = [
            family.sample(
                family.encode_text(scene.caption()),
                SHAPE,
                steps=wanted.steps,
                guidance=wanted.guidance,
                seed=SEED + number,
            )
            for number, scene in enumerate(scenes)
        ]
        videos = [family.decode(one) for one in latents]
        if base == "full":
            exact, shown = latents, videos
        rows.append(
            {
                "base": base,
                "videos": options.videos,
                "latents_differ": mean(map(of_lot, latents, exact)),
                **judged(what, videos, shown),
                **_miniature.rates(_miniature.seen(what, videos), scenes),
            }
        )
    return rows


# ------------------------------------------------------------------------------------------------------ bank of draws


def bank(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The same steps of stage 2 from the same start, with banks of several sizes and without."""
    with tempfile.TemporaryDirectory() as folder:
        family = opened()
        pairs = drawn_pairs(family, Path(folder))
        start = adapters.tensors(family.transformer, "policy")
        start = {name: values.clone() for name, values in start.items()}
        rows = []
        for size in BANKS:
            adapters.load_tensors(family.transformer, "policy", start)
            rows.append(trained(family, pairs, size, options.steps, Path(folder) / f"bank-{size}.jsonl"))
    return rows


def opened() -> Family:
    """The miniature with two adapters that do nothing yet."""
    family = models.open_family(ModelSettings(name="mini", device="cpu"), Events(), Execution(keep="everything"))
    for part in ("text", "vae", "transformer"):
        family.load(part)
    lora: AdapterSettings = SETTINGS.adapter
    spec = adapters.AdapterSpec(lora.rank, lora.alpha, lora.targets, lora.double_blocks_only)
    for name in ("reference", "policy"):
        adapters.attach(family.transformer, name, spec, seed=0)
    adapters.load_tensors(family.transformer, "policy", adapters.tensors(family.transformer, "reference"))
    adapters.select(family.transformer, "policy", trainable=True)
    family.arrange()
    return family


def drawn_pairs(family: Family, folder: Path) -> list[Pair]:
    """A drawn clip over the untouched model's video, for each of some prompts; those to train on first."""
    wanted, pairs = SETTINGS.repository, []
    adapters.select(family.transformer, None)
    for number, scene in enumerate(_miniature.scenes(PAIRS + HELD_OUT)):
        text = family.encode_text(scene.caption())
        latents = {
            "winner": family.encode_video(clips.render(scene).frames),
            "rejected": family.sample(text, SHAPE, steps=wanted.steps, guidance=wanted.guidance, seed=SEED + number),
        }
        paths = {side: folder / f"{side}-{number}.safetensors" for side in latents}
        for side, path in paths.items():
            conditioning.save_tensors(path, {"latents": latents[side]})
        pairs.append(Pair(paths["winner"], paths["rejected"], text))
    adapters.select(family.transformer, "policy", trainable=True)
    return pairs


def trained(family: Family, pairs: list[Pair], size: int, steps: int, path: Path) -> dict[str, Any]:
    """Train, and say what a step took and what was learnt."""
    settings = with_values(SETTINGS, {"prefer.bank": size})
    parameters = adapters.parameters(family.transformer, "policy")
    optimizer = torch.optim.AdamW(parameters.values(), lr=settings.prefer.learning_rate)
    fixed = Bank(size, SEED, path, "benchmark") if size else None
    order = torch.Generator().manual_seed(1)
    noise = torch.Generator().manual_seed(2)
    taken: list[float] = []
    for step in range(steps):
        items = tuple(torch.randint(PAIRS, (BATCH,), generator=order).tolist())
        with timed(taken):
            prefer.accumulate(family, pairs[:PAIRS], training.Batch(step, items, noise), settings, BETA, fixed)
            optimizer.step()
    last = steps // 3
    return {
        "bank": size,
        "steps": steps,
        "pairs_a_step": BATCH,
        "cpu_s_a_step": mean(taken),
        "cpu_s_last_third": mean(taken[-last:]),
        "margin_trained": margin(family, pairs[:PAIRS]),
        "margin_held_out": margin(family, pairs[PAIRS:]),
    }


def margin(family: Family, pairs: list[Pair]) -> float:
    """Mean margin of the pairs, each at a few draws of its own that no training meets."""
    found = []
    for number, pair in enumerate(pairs):
        generator = torch.Generator().manual_seed(SEED + number)
        for _ in range(LOOKS):
            drawn = preference.draw(family, pair, generator, SETTINGS)
            with torch.no_grad():
                errors = hpo.PairErrors(
                    drawn.winner(), drawn.winner_reference, drawn.rejected(), drawn.rejected_reference
                )
            found.append(float(hpo.margin(errors)))
    return mean(found)


PARTS: dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]] = {
    "guidance": guidance,
    "caches": caches,
    "bank": bank,
    "bases": bases,
}


if __name__ == "__main__":
    main()
