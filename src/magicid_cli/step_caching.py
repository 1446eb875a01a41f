"""How the repository's denoising steps reuse those before them, and what a step cache has to know of the model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from magicid_cli import adapters, conditioning
from magicid_cli.config import Settings
from magicid_cli.events import Events
from magicid_cli.models.base import Family, Shape, StepCache
from magicid_cli.workspace import Workspace, digest, read_json, write_json


def made_with(workspace: Workspace, settings: Settings, prompt: str) -> dict[str, Any]:
    """What a step cache adds to what determines a video; nothing where there is none.

    The ratios of `magcache` follow from what determines every video, and from the prompt and the seed of the one on
    which they are measured.

    Args:
        workspace: whose repository is sampled.
        settings: of the run.
        prompt: of the video on which ratios are measured.
    """
    wanted = settings.repository
    if not wanted.step_cache:
        return {}
    found: dict[str, Any] = {"step_cache": wanted.step_cache}
    if wanted.step_cache_kind != "first-block":
        found["step_cache_kind"] = wanted.step_cache_kind
    if wanted.step_cache_kind == "magcache":
        found["step_cache_ratios"] = digest([prompt, _seed(workspace, settings)])
    return found


def _seed(workspace: Workspace, settings: Settings) -> int:
    """Of the video on which ratios are measured."""
    return workspace.seed_of(settings.seed, "step-cache")


def step_cache_of(
    workspace: Workspace, settings: Settings, family: Family, texts: Path, prompt: str, events: Events
) -> StepCache | None:
    """The step cache that the settings ask for, or None.

    The ratios of `magcache` are measured on one more video, of the untouched model, and kept in
    `repository/step-cache.json`.

    Args:
        workspace: whose repository is sampled.
        settings: of the run.
        family: its transformer is loaded and arranged; which adapter is selected afterwards is not said.
        texts: where encoded prompts lie.
        prompt: of the video on which ratios are measured; encoded.
        events: told where one is sampled.
    """
    wanted, shape = settings.repository, Shape(settings.shape.frames, settings.shape.height, settings.shape.width)
    cache = StepCache(wanted.step_cache_kind, wanted.step_cache)
    if not cache.strength:
        return None
    if cache.kind != "magcache":
        return cache
    from magicid_cli.models.step_cache import residual_ratios

    seed = _seed(workspace, settings)
    model = [settings.model.name, family.commit, str(family.dtype), settings.model.base]
    key = digest([*model, str(shape), wanted.steps, wanted.guidance, prompt, seed])
    path = workspace.repository / "step-cache.json"
    kept = read_json(path) if path.is_file() else {}
    if kept.get("key") != key:
        events.notice("One more video tells what the step cache has to know of the model.", stage="sample")
        adapters.select(family.transformer, None, trainable=False)
        text = conditioning.load_text(family, texts, prompt)
        with residual_ratios(family.transformer) as ratios:
            family.sample(text, shape, steps=wanted.steps, guidance=wanted.guidance, seed=seed)
        kept = {"key": key, "ratios": ratios}
        write_json(path, kept)
    return replace(cache, ratios=tuple(kept["ratios"]))
