"""What the rows of `benchmarks.gpu` run: every kind of computation, by the code of a run, ready to be timed."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks import _gpu_segment
from benchmarks._gpu_model import PLAIN, Bench, random_vae
from magicid_cli import adapters, conditioning, preference
from magicid_cli.models.base import Shape
from magicid_cli.plan import costs
from magicid_cli.stages import prefer, reconstruct
from magicid_cli.training import Batch

SEGMENT, OPTIMIZER = "segment", "optimizer step"

# May tell the seconds of its parts.
Step = Callable[[], Any]


def text_of(bench: Bench) -> dict[str, torch.Tensor]:
    """The conditioning of a prompt of `bench.text_tokens`."""
    arch, generator = bench.architecture, torch.Generator().manual_seed(1)
    length = bench.text_tokens or arch.text_tokens
    return {
        "prompt_embeds": torch.randn(arch.text_tokens, arch.text_width, generator=generator),
        "prompt_attention_mask": (torch.arange(arch.text_tokens) < length).long(),
        "pooled_prompt_embeds": torch.randn(arch.pooled_width, generator=generator),
    }


def latents_of(bench: Bench, shape: Shape, seed: int) -> torch.Tensor:
    """Latents of the shape."""
    size = bench.architecture.channels, *costs.latent_size(shape)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def forward(bench: Bench, shape: Shape) -> Step:
    """One forward of the bare base."""
    x_t, text, t = latents_of(bench, shape, 0), text_of(bench), torch.tensor([0.5])
    adapters.select(bench.family.transformer, None)

    def step() -> None:
        with torch.no_grad():
            bench.family.predict(x_t, t, text, bench.settings.training.guidance)

    return step


def sampling_step(bench: Bench, shape: Shape) -> Step:
    """One step of the sampler with an adapter on."""
    text, guidance = text_of(bench), bench.settings.repository.guidance
    adapters.select(bench.family.transformer, "policy")

    def step() -> None:
        bench.family.sample(text, shape, steps=1, guidance=guidance, seed=0)

    return step


def stage_1_step(bench: Bench, shape: Shape) -> Step:
    """One optimizer step of stage 1 on one clip."""
    clips = [(latents_of(bench, shape, 0), text_of(bench))]
    generator = torch.Generator().manual_seed(2)
    adapters.select(bench.family.transformer, "policy", trainable=True)

    def step() -> None:
        bench.optimizer.zero_grad(set_to_none=True)
        reconstruct.accumulate(bench.family, clips, Batch(0, (0,), generator), bench.settings)
        bench.optimizer.step()

    return step


def preference_step(bench: Bench, shape: Shape) -> Step:
    """One optimizer step of stage 2 on one pair."""
    if bench.way == PLAIN:
        return plain_preference_step(bench, shape)
    winner, rejected = bench.folder / "winner.safetensors", bench.folder / "rejected.safetensors"
    for seed, path in enumerate((winner, rejected)):
        conditioning.save_tensors(path, {"latents": latents_of(bench, shape, seed)})
    pairs, generator = [preference.Pair(winner, rejected, text_of(bench))], torch.Generator().manual_seed(2)

    def step() -> None:
        bench.optimizer.zero_grad(set_to_none=True)
        prefer.accumulate(bench.family, pairs, Batch(0, (0,), generator), bench.settings, _gpu_segment.BETA)
        bench.optimizer.step()

    return step


def plain_preference_step(bench: Bench, shape: Shape) -> Step:
    """The same loss as anyone would write it with diffusers and PEFT: both graphs alive, one backward."""
    family, model = bench.family, bench.family.transformer
    text = {name: value[None].to(family.device, family.dtype) for name, value in text_of(bench).items()}
    clean = [latents_of(bench, shape, seed).to(family.device) for seed in (0, 1)]
    noise, t = latents_of(bench, shape, 2).to(family.device), 0.5

    def error(x0: torch.Tensor) -> torch.Tensor:
        predicted = model(
            hidden_states=((1 - t) * x0 + t * noise)[None].to(family.dtype),
            timestep=torch.tensor([1000 * t], device=family.device),
            encoder_hidden_states=text["prompt_embeds"],
            encoder_attention_mask=text["prompt_attention_mask"],
            pooled_projections=text["pooled_prompt_embeds"],
            guidance=torch.tensor([1000.0], device=family.device, dtype=family.dtype),
            return_dict=False,
        )[0][0]
        return (predicted.float() - (noise - x0)).square().mean()

    def step() -> None:
        bench.optimizer.zero_grad(set_to_none=True)
        adapters.select(model, "reference", trainable=False)
        with torch.no_grad():
            references = [error(x0) for x0 in clean]
        adapters.select(model, "policy", trainable=True)
        errors = [error(x0) for x0 in clean]
        margin = (errors[0] - references[0]) - (errors[1] - references[1])
        torch.nn.functional.softplus(_gpu_segment.BETA / 2 * margin).backward()
        bench.optimizer.step()

    return step


def optimizer_step(bench: Bench, shape: Shape) -> Step:
    """The optimizer alone, its moments in place: what a step of either stage ends with."""
    adapters.select(bench.family.transformer, "policy", trainable=True)
    for parameter in adapters.parameters(bench.family.transformer, "policy").values():
        parameter.grad = torch.full_like(parameter, 1e-3)
    return bench.optimizer.step


def decode(bench: Bench, shape: Shape) -> Step:
    """Decoding one video, beside the transformer."""
    vae, latents = random_vae(bench), latents_of(bench, shape, 0)[None]

    def step() -> None:
        with torch.no_grad():
            vae.decode(latents.to(bench.family.device, vae.dtype), return_dict=False)

    return step


def segment(bench: Bench, shape: Shape) -> Step:
    """A piece of a real run: 20 steps of stage 2 and two videos."""
    return _gpu_segment.build(bench, shape, latents_of)


KINDS: dict[str, Callable[[Bench, Shape], Step]] = {
    "forward": forward,
    "sampling step": sampling_step,
    "stage-1 step": stage_1_step,
    "preference step": preference_step,
    "decode": decode,
    SEGMENT: segment,
    OPTIMIZER: optimizer_step,
}
