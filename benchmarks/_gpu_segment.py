"""A piece of a real run on the GPU: what the plan's hours and memory are held against.

No loop in it is the benchmark's own: 20 steps of stage 2 go through the training loop, with the order of pairs,
clipping, metrics and checkpoints; then two videos are sampled with all their steps, decoded and written.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks._gpu_model import Bench, random_vae
from magicid_cli import adapters, conditioning, preference, training, video
from magicid_cli.events import Events
from magicid_cli.models.base import Shape
from magicid_cli.plan import costs, workload
from magicid_cli.plan.workload import Part
from magicid_cli.reconstruction import schedule
from magicid_cli.stages import prefer

STEPS, VIDEOS, PAIRS = 20, 2, 4
BETA = 500.0

Text = dict[str, torch.Tensor]
Latents = Callable[[Bench, Shape, int], torch.Tensor]


def parts(arch: costs.Architecture, shape: Shape, settings: Any, keep: costs.Keep) -> list[Part]:
    """What it consists of, as the plan has it."""
    step = costs.preference_step(arch, shape, settings.adapter, keep=keep)
    videos = workload.video(settings, arch, shape, settings.repository.steps)
    return [Part("preference step", STEPS, step, shape), *(replace(one, times=VIDEOS * one.times) for one in videos)]


def build(bench: Bench, shape: Shape, text: Text, latents: Latents) -> Callable[[], None]:
    """The segment, ready to run.

    Args:
        bench: the model.
        shape: of training and of the videos.
        text: conditioning of every prompt.
        latents: draws a video's latents for a number.
    """
    folder = bench.folder / "segment"
    vae = random_vae(bench).cpu()
    names = [[folder / f"{number}-{side}.safetensors" for side in ("winner", "rejected")] for number in range(PAIRS)]
    pairs = [preference.Pair(winner, rejected, text) for winner, rejected in names]

    def step() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for seed, path in enumerate(path for pair in names for path in pair):
            conditioning.save_tensors(path, {"latents": latents(bench, shape, seed)})
        bench.hold(bench.way, shape)
        _train(bench, pairs, folder)
        bench.hold(bench.way, shape, trains=False)
        _sample(bench, shape, text, vae, folder)

    return step


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


def _sample(bench: Bench, shape: Shape, text: Text, vae: Any, folder: Path) -> None:
    family, repository = bench.family, bench.settings.repository
    adapters.select(family.transformer, "policy")
    found = [
        family.sample(text, shape, steps=repository.steps, guidance=repository.guidance, seed=seed)
        for seed in range(VIDEOS)
    ]
    # As a run has it: the decoder comes when the videos are denoised.
    family._vae = vae.to(family.device)
    for number, latents in enumerate(found):
        conditioning.save_tensors(folder / f"{number}.safetensors", {"latents": latents})
        video.write_video(folder / f"{number}.mp4", family.decode(latents), bench.settings.shape.fps)
    family.unload("vae")
    vae.cpu()
