"""A piece of a real run on the GPU: what the plan's hours and memory are held against.

No loop in it is the benchmark's own: 20 steps of stage 2 go through the training loop, with the order of pairs,
clipping, metrics and checkpoints; then two videos are sampled with all their steps, decoded and written. Prompts of
several lengths are encoded before, as a run does; that time is told apart, for the plan does not count it.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks._gpu_model import Bench, random_vae
from benchmarks._gpu_texts import encoded, prompts
from magicid_cli import adapters, conditioning, preference, training, video
from magicid_cli.events import Events
from magicid_cli.models.base import Shape
from magicid_cli.models.hunyuan_text import Text
from magicid_cli.plan import costs, workload
from magicid_cli.plan.workload import Part
from magicid_cli.reconstruction import schedule
from magicid_cli.stages import prefer

STEPS, VIDEOS, PAIRS = 20, 2, 4
BETA = 500.0

# What of a sampled video is not the transformer's work.
OUTSIDE = ("text", "decode", "write")

Latents = Callable[[Bench, Shape, int], torch.Tensor]


def parts(arch: costs.Architecture, shape: Shape, settings: Any, keep: costs.Keep) -> list[Part]:
    """What it consists of, as the plan has it."""
    step = costs.preference_step(arch, shape, settings.adapter, keep=keep)
    videos = workload.video(settings, arch, shape, settings.repository.steps)
    return [Part("preference step", STEPS, step, shape), *(replace(one, times=VIDEOS * one.times) for one in videos)]


def build(bench: Bench, shape: Shape, latents: Latents) -> Callable[[], dict[str, float]]:
    """The segment, ready to run; it returns the seconds of its parts.

    Args:
        bench: the model.
        shape: of training and of the videos.
        latents: draws a video's latents for a number.
    """
    folder = bench.folder / "segment"
    texts, text_s = encoded(bench, prompts())
    vae = random_vae(bench).cpu()
    names = [[folder / f"{number}-{side}.safetensors" for side in ("winner", "rejected")] for number in range(PAIRS)]
    pairs = [preference.Pair(files[0], files[1], text) for files, text in zip(names, texts, strict=True)]

    def step() -> dict[str, float]:
        shutil.rmtree(folder, ignore_errors=True)
        for seed, path in enumerate(path for pair in names for path in pair):
            conditioning.save_tensors(path, {"latents": latents(bench, shape, seed)})
        bench.hold(bench.way, shape)
        begun = time.perf_counter()
        _train(bench, pairs, folder)
        found = {"train": time.perf_counter() - begun, "text": VIDEOS * text_s}
        bench.hold(bench.way, shape, trains=False)
        return found | _sample(bench, shape, texts, vae, folder)

    return step


def share_outside(parts_s: Mapping[str, float]) -> float:
    """Of the time of sampled videos, what is spent outside the transformer: their prompts, decoding, writing."""
    outside = sum(parts_s[part] for part in OUTSIDE)
    return outside / (outside + parts_s["denoise"])


def _train(bench: Bench, pairs: list[preference.Pair], folder: Path) -> None:
    adapters.select(bench.family.transformer, "policy", trainable=True)
    training.train(
        stage="prefer",
        parameters=adapters.parameters(bench.family.transformer, "policy"),
        schedule=schedule(bench.settings, STEPS, bench.settings.prefer),
        items=len(pairs),
        seed=0,
        key="segment",
        folder=folder,
        accumulate=lambda batch: prefer.accumulate(bench.family, pairs, batch, bench.settings, BETA),
        events=Events(),
    )
    for parameter in adapters.parameters(bench.family.transformer, "policy").values():
        parameter.grad = None


def _sample(bench: Bench, shape: Shape, texts: Sequence[Text], vae: Any, folder: Path) -> dict[str, float]:
    """Two videos; seconds of denoising, decoding and writing, without the decoder's way to the device."""
    family, repository = bench.family, bench.settings.repository
    adapters.select(family.transformer, "policy")
    begun = time.perf_counter()
    # Of the four prompts those as people write them.
    found = [
        family.sample(text, shape, steps=repository.steps, guidance=repository.guidance, seed=seed)
        for seed, text in enumerate(texts[1 : 1 + VIDEOS])
    ]
    took = {"denoise": time.perf_counter() - begun, "decode": 0.0, "write": 0.0}
    # As a run has it: the decoder comes when the videos are denoised.
    family._vae = vae.to(family.device)
    for number, latents in enumerate(found):
        begun = time.perf_counter()
        frames = family.decode(latents)
        decoded = time.perf_counter()
        conditioning.save_tensors(folder / f"{number}.safetensors", {"latents": latents})
        video.write_video(folder / f"{number}.mp4", frames, bench.settings.shape.fps)
        took["decode"] += decoded - begun
        took["write"] += time.perf_counter() - decoded
    family.unload("vae")
    vae.cpu()
    return took
