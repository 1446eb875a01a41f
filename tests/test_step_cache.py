"""The inexact step caches: what each skips, what that changes at tiny size, and that nothing of it stays."""

import ast
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import MagCacheConfig

import executions
from album import SMALL
from live_memory import Live
from magicid_cli import conditioning, config, models
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.models import tiny
from magicid_cli.models.base import StepCache
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.models.step_cache import residual_ratios
from magicid_cli.plan import costs, footprint
from magicid_cli.stages import sample
from magicid_cli.workspace import Workspace, read_json, read_lines

STEPS = 12
Sampled = Callable[[StepCache | None], tuple[torch.Tensor, int]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


def denoised(family: Hunyuan, cache: StepCache | None = None) -> torch.Tensor:
    return family.sample(executions.text(), executions.SHAPE, steps=STEPS, guidance=7.5, seed=0, step_cache=cache)


@pytest.fixture
def sampled(folder: Path) -> Sampled:
    """Latents, and how often a layer deep in the transformer ran for them."""
    family = executions.opened(folder)
    runs: list[int] = []
    counted = family.transformer.single_transformer_blocks[0].attn.to_q
    counted.register_forward_pre_hook(lambda *_: runs.append(1))

    def with_cache(cache: StepCache | None) -> tuple[torch.Tensor, int]:
        runs.clear()
        return denoised(family, cache), len(runs)

    return with_cache


def ratios(folder: Path) -> tuple[float, ...]:
    family = executions.opened(folder)
    with residual_ratios(family.transformer) as found:
        measured = denoised(family)
    assert torch.equal(measured, denoised(family)), "measuring changes nothing"
    assert len(found) == STEPS, "and ends with its block"
    return tuple(found)


def test_first_block_skips_what_changes_little(sampled: Sampled) -> None:
    """Measured on random weights, with bounds: the higher the threshold, the fewer whole steps, the other the video."""
    exact, all_steps = sampled(None)
    errors, whole = [], []
    for threshold in (0.1, 0.4, 10.0):
        latents, steps = sampled(StepCache("first-block", threshold))
        errors.append(float((latents - exact).norm() / exact.norm()))
        whole.append(steps)
    # Random weights change slowly: measured 0, 2.5 and 5.2 percent of the latents, with 12, 2 and 1 whole steps.
    assert all_steps == STEPS == whole[0] > whole[1] > whole[2] == 1
    assert errors[0] == 0 < errors[1] < errors[2] < 0.1
    again, steps = sampled(None)
    assert torch.equal(again, exact) and steps == STEPS, "undone without a trace"


def test_taylorseer_computes_every_so_many_steps(sampled: Sampled) -> None:
    """By hand: steps 0, 1, 2 whole, then 4 and every second (third) one after it."""
    exact, _ = sampled(None)
    latents = {}
    for interval, whole in ((2, [0, 1, 2, 4, 6, 8, 10]), (3, [0, 1, 2, 4, 7, 10])):
        latents[interval], steps = sampled(StepCache("taylorseer", interval))
        assert steps == len(whole)
    errors = [float((latents[interval] - exact).norm() / exact.norm()) for interval in (2, 3)]
    assert 0 < errors[0] < errors[1] < 0.1
    again, steps = sampled(None)
    assert torch.equal(again, exact) and steps == STEPS, "undone without a trace"


def test_magcache_follows_the_ratios(sampled: Sampled, folder: Path) -> None:
    """At strength 0 every step whole and the same bits; a large one skips three in a row after the first fifth."""
    exact, _ = sampled(None)
    known = ratios(folder)
    latents, steps = sampled(StepCache("magcache", 0.0, known))
    assert steps == STEPS and torch.equal(latents, exact)
    latents, steps = sampled(StepCache("magcache", 100.0, known))
    # 12 / 5 rounds to 2 first steps; of the other ten, three are skipped, one is whole, and so on.
    assert steps == 2 + 10 // 4
    assert 0 < float((latents - exact).norm() / exact.norm()) < 0.1
    again, steps = sampled(None)
    assert torch.equal(again, exact) and steps == STEPS, "undone without a trace"


def test_the_ratios_are_those_that_diffusers_calibrates(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Against the list that its own calibration prints on the same video."""
    family = executions.opened(folder)
    family.transformer.enable_cache(MagCacheConfig(num_inference_steps=STEPS, calibrate=True))
    denoised(family)
    family.transformer.disable_cache()
    printed = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("[1.0"))
    theirs = ast.literal_eval(printed)
    assert len(theirs) == STEPS and max(abs(ratio - 1) for ratio in theirs) > 1e-3
    assert ratios(folder) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(
    "cache",
    [StepCache("first-block", 0.4), StepCache("magcache", 0.5, (1.0,) * STEPS), StepCache("taylorseer", 2)],
    ids=lambda cache: cache.kind,
)
@pytest.mark.parametrize(("dtype", "value_bytes"), [(torch.float32, 4), (torch.bfloat16, 2)], ids=str)
def test_a_cache_takes_the_memory_that_the_plan_counts(
    folder: Path, cache: StepCache, dtype: torch.dtype, value_bytes: int
) -> None:
    """Bytes of tensors alive at once while a video is denoised, with the cache and without."""
    peaks = []
    for one in (None, cache):
        family = executions.opened(folder, dtype=dtype)
        with Live() as live:
            denoised(family, one)
        peaks.append(live.peak)
    arch = replace(costs.ARCHITECTURES["tiny"], text_tokens=executions.TOKENS)
    planned = footprint.step_cache_memory(arch, executions.SHAPE, cache.kind, value_bytes) * costs.GB
    assert peaks[1] - peaks[0] == round(planned) > 0


@pytest.mark.parametrize("strength", [0.1, 1.0, 2.5])
def test_steps_from_one_computed_step_to_the_next_are_a_whole_number(strength: float) -> None:
    flags = {"repository.step_cache": strength, "repository.step_cache_kind": "taylorseer"}
    with pytest.raises(MagicIDError, match="a whole number from 2 on") as caught:
        config.resolve(flags)
    assert caught.value.code == "settings-invalid"
    config.resolve({**flags, "repository.step_cache_kind": "magcache"})
    for allowed in (0.0, 2.0):
        config.resolve({**flags, "repository.step_cache": allowed})


# --------------------------------------------------------------------------------------------------- in the repository


def of_the_bare_model(workspace: Workspace, project: Path) -> list[float]:
    """Ratios of the first prompt's video, of a transformer that never had an adapter."""
    settings = config.resolve({**SMALL, "repository.steps": 6}, project=project).settings
    family = models.open_family(settings.model, Events())
    family.load("transformer")
    text = conditioning.load_text(family, workspace.path / "texts", sample.chosen_prompts(settings)[0])
    seed, guidance = workspace.seed_of(settings.seed, "step-cache"), settings.repository.guidance
    with residual_ratios(family.transformer) as found:
        family.sample(text, sample.shape_of(settings), steps=6, guidance=guidance, seed=seed)
    return found


@pytest.mark.xdist_group("finished")
def test_a_repository_says_by_which_cache_its_videos_were_made(alice: Path) -> None:
    """Each kind makes the generated videos anew, and only those; ratios are measured once, on a video of their own."""
    workspace, told = Workspace("alice"), list[Event]()
    clips = {}

    def run(**flags: object) -> int:
        values = {f"repository.{name}": value for name, value in flags.items()}
        settings = config.resolve({**SMALL, "repository.steps": 6, **values}, project=alice).settings
        made = sample.run(workspace, settings, Events(told.append)).made
        rows = read_lines(workspace.repository / "videos.jsonl")
        by = {json.dumps([row["made_by"].get("step_cache"), row["made_by"].get("step_cache_kind")]) for row in rows}
        clips[json.dumps(sorted(by))] = [row["clip_sha256"] for row in rows]
        return made

    small = config.resolve(SMALL, project=alice).settings.repository
    generated = small.tuned + small.initial
    assert run() == generated
    assert run(step_cache_kind="magcache") == 0, "a kind without strength is none"
    assert run(step_cache=0.5) == generated
    assert run(step_cache=2.0, step_cache_kind="taylorseer") == generated
    assert run(step_cache=0.5, step_cache_kind="magcache") == generated
    kept = read_json(workspace.repository / "step-cache.json")
    assert len(kept["ratios"]) == 6 and kept["ratios"][0] == 1.0
    assert kept["ratios"] == of_the_bare_model(workspace, alice)
    assert set(clips) == {
        '["[null, null]"]',
        '["[0.5, null]", "[null, null]"]',
        '["[2.0, \\"taylorseer\\"]", "[null, null]"]',
        '["[0.5, \\"magcache\\"]", "[null, null]"]',
    }
    latents = len({tuple(found) for found in clips.values()})
    assert latents == 4, "four ways, four repositories"
    # A video that is lost comes back to the bit, and no ratio is measured again.
    lost = read_lines(workspace.repository / "videos.jsonl")[0]
    for name in (lost["latents"], lost["clip"]):
        (workspace.repository / name).unlink()
    (before,) = [found for by, found in clips.items() if "magcache" in by]
    assert run(step_cache=0.5, step_cache_kind="magcache") == 1
    assert clips['["[0.5, \\"magcache\\"]", "[null, null]"]'] == before
    said = [event.data["message"] for event in told if event.kind == "notice" and "One more video" in str(event.data)]
    assert len(said) == 1


@pytest.mark.xdist_group("finished")
def test_a_video_of_magcache_is_determined_by_the_video_that_its_ratios_come_from(alice: Path) -> None:
    """The first prompt is that video's: with another one, every generated video is another, and only with ratios."""
    workspace, references = Workspace("alice"), conditioning.references(Workspace("alice"))

    def keys(first: str, kind: str) -> dict[str, str]:
        flags = {"repository.step_cache": 2.0, "repository.step_cache_kind": kind}
        settings = config.resolve({**SMALL, **flags}, project=alice).settings
        prompts = [first, "a person reads", "a person swims"]
        items = sample.work(workspace, settings, ("commit", "torch.float32"), prompts, references)
        return {item.id: item.key for item in items}

    for kind, determines in (("magcache", True), ("first-block", False), ("taylorseer", False)):
        before, after = keys("a person walks", kind), keys("a person runs", kind)
        changed = {name for name in before if before[name] != after[name]}
        its_own = {name for name in before if "-000-" in name}
        generated = {name for name in before if not name.startswith("static-")}
        assert its_own < generated
        assert changed == (generated if determines else its_own), kind
