"""The HunyuanVideo family, against plain diffusers on the same checkpoint, and against hand arithmetic."""

import gc
import hashlib
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoPipeline
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from magicid_cli import adapters
from magicid_cli.errors import MagicIDError
from magicid_cli.models import hunyuan, hunyuan_text, tiny
from magicid_cli.models.base import Family, Part, Shape
from magicid_cli.models.execution import Execution
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.models.loading import load_weights

PROMPT = "a person walks in the forest, läuft & smiles"
SHAPE = Shape(9, 64, 48)
PARTS: tuple[Part, ...] = ("text", "vae", "transformer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


def opened(folder: Path, *parts: Part, dtype: torch.dtype = torch.float32) -> Hunyuan:
    family = Hunyuan(folder, commit="test", device="cpu", dtype=dtype)
    for part in parts:
        family.load(part)
    return family


@pytest.fixture(scope="module")
def family(folder: Path) -> Hunyuan:
    """Everything loaded; for tests that change nothing."""
    return opened(folder, *PARTS)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Any:
    """Diffusers alone, with nothing but the known fix of the tokenizer class."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, subfolder="tokenizer")
    pipeline = HunyuanVideoPipeline.from_pretrained(folder, tokenizer=tokenizer, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def noise_clip(frames: int = 9, height: int = 64, width: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_it_is_a_family(family: Hunyuan) -> None:
    as_family: Family = family
    assert as_family.transformer_config["num_layers"] == 2
    for name in dir(Family):
        assert name.startswith("_") or hasattr(family, name)


# ------------------------------------------------------------------------------------------ against plain diffusers


def test_a_video_is_plain_diffusers_video(family: Hunyuan, plain: Any) -> None:
    options = {"num_frames": 9, "height": 64, "width": 48, "num_inference_steps": 4, "guidance_scale": 7.5}
    images = plain(PROMPT, **options, generator=torch.Generator("cpu").manual_seed(3), output_type="np").frames[0]
    pictures = plain(PROMPT, **options, generator=torch.Generator("cpu").manual_seed(3), output_type="pil").frames[0]
    latents = family.sample(family.encode_text(PROMPT), SHAPE, steps=4, guidance=7.5, seed=3)
    video = family.decode(latents)
    assert (latents.shape, latents.dtype) == ((16, 3, 8, 6), torch.float32)
    assert (video.shape, video.dtype) == ((9, 64, 48, 3), np.uint8)
    for theirs in ((images * 255).round(), np.stack([np.asarray(picture) for picture in pictures])):
        # Padding that is left out changes the order of sums: a value at the edge between two numbers may round away.
        difference = np.abs(video.astype(int) - theirs.astype(int))
        assert difference.max() <= 1 and difference.mean() < 1e-3
    assert video.std() > 10, "not a flat picture"


def test_latents_are_plain_diffusers_latents(family: Hunyuan, plain: Any) -> None:
    options = {"num_frames": 9, "height": 64, "width": 48, "num_inference_steps": 4, "guidance_scale": 7.5}
    theirs = plain(PROMPT, **options, generator=torch.Generator("cpu").manual_seed(3), output_type="latent").frames[0]
    ours = family.sample(family.encode_text(PROMPT), SHAPE, steps=4, guidance=7.5, seed=3)
    assert (ours - theirs).abs().max() < 1e-5


def test_true_guidance_is_plain_diffusers(family: Hunyuan, plain: Any) -> None:
    latents = plain(
        PROMPT,
        negative_prompt="night",
        true_cfg_scale=4.0,
        num_frames=9,
        height=64,
        width=48,
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=torch.Generator("cpu").manual_seed(5),
        output_type="latent",
    ).frames[0]
    text, negative = family.encode_text(PROMPT), family.encode_text("night")
    options: dict[str, Any] = {"steps": 3, "guidance": 1.0, "seed": 5}
    guided = family.sample(text, SHAPE, **options, true_guidance=4.0, negative=negative)
    assert (guided - latents).abs().max() < 1e-5
    assert (guided - family.sample(text, SHAPE, **options)).abs().max() > 1e-3
    useless: list[dict[str, Any]] = [{"true_guidance": 4.0}, {"negative": negative}]
    for wrong in useless:
        with pytest.raises(MagicIDError, match="only together"):
            family.sample(text, SHAPE, **options, **wrong)


def test_text_is_plain_diffusers_text(family: Hunyuan, plain: Any) -> None:
    with torch.no_grad():
        embeds, pooled, mask = plain.encode_prompt(PROMPT)
    text = family.encode_text(PROMPT)
    assert text.keys() == {"prompt_embeds", "prompt_attention_mask", "pooled_prompt_embeds"}
    assert text["prompt_embeds"].shape == (256, tiny.WIDTH)
    assert torch.equal(text["prompt_embeds"], embeds[0])
    assert torch.equal(text["prompt_attention_mask"], mask[0])
    assert torch.equal(text["pooled_prompt_embeds"], pooled[0])
    # The pipeline crops the template's beginning exactly: prompt and end of turn are left.
    ids = plain.tokenizer(PROMPT, add_special_tokens=False).input_ids
    assert text["prompt_attention_mask"].sum() == len(ids) + 1


def test_guidance_and_time_reach_the_model_as_in_sampling(family: Hunyuan, plain: Any) -> None:
    """Times 1000 both; `predict` passes what the pipeline passes in its first step, less the padding of the prompt."""
    seen: list[dict[str, Any]] = []

    def record(_module: Any, _arguments: Any, keywords: dict[str, Any]) -> None:
        seen.append(keywords)

    hooks = [
        model.register_forward_pre_hook(record, with_kwargs=True) for model in (plain.transformer, family.transformer)
    ]
    noise = torch.randn(16, 3, 8, 6, generator=torch.Generator().manual_seed(3))
    options = {"num_frames": 9, "height": 64, "width": 48, "num_inference_steps": 1, "guidance_scale": 7.5}
    plain(PROMPT, **options, latents=noise[None], output_type="latent")
    family.predict(noise, torch.ones(1), family.encode_text(PROMPT), 7.5)
    for hook in hooks:
        hook.remove()
    theirs, ours = seen
    assert ours["guidance"].tolist() == [7500.0]
    assert ours["timestep"].tolist() == [1000.0]
    length = int(theirs["encoder_attention_mask"].sum())
    assert ours["encoder_hidden_states"].shape[1] == length < 256
    for name, value in ours.items():
        if isinstance(value, torch.Tensor):
            expected = theirs[name][:, :length] if name.startswith("encoder_") else theirs[name]
            assert torch.equal(value, expected), name
            assert value.dtype == expected.dtype, name


def test_euler_steps_by_hand_are_the_sampler(family: Hunyuan) -> None:
    """`predict` at the shifted times, stepped by hand, ends where `sample` ends: one meaning of t and velocity."""
    steps, text = 5, family.encode_text(PROMPT)
    u = torch.linspace(1, 0, steps + 1)
    times = 7 * u / (1 + 6 * u)
    x = torch.randn(1, 16, 3, 8, 6, generator=torch.Generator().manual_seed(8))[0]
    with torch.no_grad():
        for now, after in zip(times[:-1], times[1:], strict=True):
            x = x + (after - now) * family.predict(x, now, text, 7.5)
    sampled = family.sample(text, SHAPE, steps=steps, guidance=7.5, seed=8)
    assert (x - sampled).abs().max() < 1e-5


def test_another_process_makes_the_same_latents(family: Hunyuan, folder: Path) -> None:
    latents = family.sample(family.encode_text(PROMPT), SHAPE, steps=4, guidance=7.5, seed=3)
    program = f"""
import hashlib, sys, torch
from pathlib import Path
from magicid_cli.models.base import Shape
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.models.loading import load_weights
family = Hunyuan(Path({str(folder)!r}), commit="", device="cpu", dtype=torch.float32)
family.load("text")
text = family.encode_text({PROMPT!r})
family.unload("text")
family.load("transformer")
latents = family.sample(text, Shape(9, 64, 48), steps=4, guidance=7.5, seed=3)
sys.stdout.write(hashlib.sha256(latents.numpy().tobytes()).hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == hashlib.sha256(latents.numpy().tobytes()).hexdigest()
    assert done.stderr == ""


# ------------------------------------------------------------------------------------------------------------ video


def test_encoding_is_the_mode_times_the_scale(family: Hunyuan, plain: Any) -> None:
    clip = noise_clip()
    with torch.no_grad():
        pixels = torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        mode = plain.vae.encode(pixels).latent_dist.mode()[0]
    latents = family.encode_video(clip)
    assert (latents.shape, latents.dtype) == ((16, 3, 8, 6), torch.float32)
    assert torch.equal(latents, mode * 0.476986)
    assert torch.equal(family.encode_video(clip), latents), "a mode draws nothing"


@pytest.mark.parametrize("frames", [1, 5, 9, 21, 33])
def test_a_static_clip_is_one_latent_frame_repeated(family: Hunyuan, frames: int) -> None:
    """Against encoding every frame; over 16 frames the VAE works in chunks."""
    photo = noise_clip(1)[0]
    whole = family.encode_video(np.repeat(photo[None], frames, axis=0))
    short = family.encode_static(photo, frames)
    assert short.shape == whole.shape == (16, (frames - 1) // 4 + 1, 8, 6)
    assert (short - whole).abs().max() < 1e-5
    assert whole.std() > 0.01


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(8, 64, 48), (10, 64, 48), (0, 64, 48), (9, 60, 48), (9, 64, 47)]
)
def test_shapes_that_would_be_cut_silently_are_refused(family: Hunyuan, frames: int, height: int, width: int) -> None:
    text = family.encode_text(PROMPT)
    for attempt in (
        lambda: family.encode_video(noise_clip(frames, height, width)),
        lambda: family.encode_static(noise_clip(1, height, width)[0], frames),
        lambda: family.sample(text, Shape(frames, height, width), steps=1, guidance=1.0, seed=0),
    ):
        with pytest.raises(MagicIDError) as caught:
            attempt()
        assert caught.value.code == "settings-invalid"


# --------------------------------------------------------------------------------------------------------- training


def test_logit_normal_times(family: Hunyuan) -> None:
    """Undo the shift and the sigmoid: a standard normal is left."""
    t = family.timesteps(20_000, torch.Generator().manual_seed(0), "logit-normal")
    assert (t.shape, t.dtype, t.device.type) == ((20_000,), torch.float32, "cpu")
    assert t.min() > 0 and t.max() < 1
    normal = (t / (7 - 6 * t)).double().logit()
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.02
    assert torch.equal(t, family.timesteps(20_000, torch.Generator().manual_seed(0), "logit-normal"))


def test_uniform_times_are_shifted_as_the_sampler_s(family: Hunyuan, plain: Any) -> None:
    t = family.timesteps(20_000, torch.Generator().manual_seed(0), "uniform")
    plain.scheduler.set_timesteps(sigmas=[0.9, 0.5, 0.1])
    shifted = plain.scheduler.sigmas[:3]
    for quantile, expected in zip((0.9, 0.5, 0.1), shifted, strict=True):
        assert abs(t.quantile(quantile) - expected) < 0.015
    with pytest.raises(ValueError, match="cosine"):
        family.timesteps(1, torch.Generator(), "cosine")


def test_noised_is_a_straight_line(family: Hunyuan) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 16, 3, 8, 6, generator=generator, dtype=torch.float64)
    for t in (torch.tensor([0.25]), torch.tensor(0.25)):
        x_t, velocity = family.noised(x0, noise, t)
        assert torch.allclose(x_t, 0.75 * x0 + 0.25 * noise)
        assert torch.allclose(x_t - 0.25 * velocity, x0)
        assert torch.allclose(x_t + 0.75 * velocity, noise)


def loss_and_gradients(family: Hunyuan) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 16, 3, 8, 6, generator=generator)
    x_t, target = family.noised(x0, noise, torch.tensor([0.6]))
    text = {
        "prompt_embeds": torch.randn(256, tiny.WIDTH, generator=generator),
        "prompt_attention_mask": (torch.arange(256) < 9).long(),
        "pooled_prompt_embeds": torch.randn(tiny.POOLED_WIDTH, generator=generator),
    }
    predicted = family.predict(x_t, torch.tensor([0.6]), text, 1.0)
    assert (predicted.shape, predicted.dtype) == (x0.shape, torch.float32)
    loss = (predicted - target).square().mean()
    loss.backward()
    found = {}
    for key, parameter in adapters.parameters(family.transformer, "policy").items():
        assert parameter.grad is not None, key
        found[key] = parameter.grad.clone()
        parameter.grad = None
    return loss.detach(), found


def with_adapter(family: Hunyuan) -> Hunyuan:
    spec = adapters.AdapterSpec(rank=4, alpha=4.0, targets="attention+mlp", double_blocks_only=False)
    adapters.attach(family.transformer, "policy", spec, seed=0)
    generator = torch.Generator().manual_seed(1)
    values = {
        key: torch.randn(value.shape, generator=generator) / 4
        for key, value in adapters.tensors(family.transformer, "policy").items()
    }
    adapters.load_tensors(family.transformer, "policy", values)
    adapters.select(family.transformer, "policy", trainable=True)
    return family


def test_gradient_checkpointing_gives_the_same_gradients(folder: Path) -> None:
    family = with_adapter(opened(folder, "transformer"))
    calls = []
    family.transformer.transformer_blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    loss, expected = loss_and_gradients(family)
    assert len(calls) == 1
    family.gradient_checkpointing(True)
    again, found = loss_and_gradients(family)
    assert len(calls) == 3, "the block ran again in the backward pass"
    assert torch.equal(loss, again)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert all(value.abs().max() > 0 for value in expected.values())
    family.gradient_checkpointing(False)
    loss_and_gradients(family)
    assert len(calls) == 4


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_bfloat16_base_trains_a_float32_adapter(folder: Path, checkpointing: bool) -> None:
    exact_loss, exact = loss_and_gradients(with_adapter(opened(folder, "transformer")))
    family = with_adapter(opened(folder, "transformer", dtype=torch.bfloat16))
    family.gradient_checkpointing(checkpointing)
    assert {p.dtype for n, p in family.transformer.named_parameters() if "lora" not in n} == {torch.bfloat16}
    loss, found = loss_and_gradients(family)
    assert abs(loss / exact_loss - 1) < 0.02
    ours, theirs = (torch.cat([value.flatten() for value in values.values()]) for values in (found, exact))
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99


def test_sampling_in_bfloat16(folder: Path) -> None:
    family = opened(folder, *PARTS, dtype=torch.bfloat16)
    text = family.encode_text(PROMPT)
    assert text["prompt_embeds"].dtype == torch.bfloat16
    latents = family.sample(text, SHAPE, steps=2, guidance=7.5, seed=0)
    exact = opened(folder, *PARTS).sample(text, SHAPE, steps=2, guidance=7.5, seed=0)
    assert latents.dtype == torch.float32
    assert 0 < (latents - exact).abs().mean() < 0.05
    assert family.decode(latents).shape == (9, 64, 48, 3)


def test_sampling_leaves_training_as_it_was(folder: Path) -> None:
    family = with_adapter(opened(folder, "text", "transformer"))
    family.transformer.train()
    family.gradient_checkpointing(True)
    trainable = {name for name, parameter in family.transformer.named_parameters() if parameter.requires_grad}
    steps: list[int] = []
    latents = family.sample(family.encode_text(PROMPT), SHAPE, steps=3, guidance=1.0, seed=0, on_step=steps.append)
    assert steps == [1, 2, 3]
    assert not latents.requires_grad
    assert family.transformer.training
    assert {name for name, parameter in family.transformer.named_parameters() if parameter.requires_grad} == trainable


def test_an_interrupt_passes_through_sampling(family: Hunyuan) -> None:
    def interrupt(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        family.sample(family.encode_text(PROMPT), SHAPE, steps=3, guidance=1.0, seed=0, on_step=interrupt)
    assert not family.transformer.training


# ------------------------------------------------------------------------------------------------------------ parts


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Which models that were loaded in this test are still in memory."""
    loaded: list[tuple[str, weakref.ref[Any]]] = []

    def watched(kind: Any, folder: Path, part: str, dtype: torch.dtype) -> Any:
        model = load_weights(kind, folder, part, dtype)
        loaded.append((part, weakref.ref(model)))
        return model

    def names() -> list[str]:
        gc.collect()
        return [part for part, reference in loaded if reference() is not None]

    for module in (hunyuan, hunyuan_text):
        monkeypatch.setattr(module, "load_weights", watched)
    return names


def test_parts_come_and_go_one_by_one(folder: Path, alive: Callable[[], list[str]]) -> None:
    family = opened(folder)
    for part in PARTS:
        for _ in range(2):
            family.load(part)
            assert alive() == (["text_encoder", "text_encoder_2"] if part == "text" else [part])
        for _ in range(2):
            family.unload(part)
            assert alive() == []
    assert not hasattr(family, "transformer")


def test_what_torch_keeps_for_later_is_given_back_with_a_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of a GPU, and page-locked memory, which else stays locked; where CUDA never began, neither is asked."""
    told: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.append("gpu"))
    monkeypatch.setattr(torch.accelerator, "empty_host_cache", lambda: told.append("page-locked"))
    family = opened(folder)
    for begun in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda begun=begun: begun)
        family.unload("vae")
        assert told == (["gpu", "page-locked"] if begun else [])


def test_an_adapted_transformer_leaves_memory_too(folder: Path, alive: Callable[[], list[str]]) -> None:
    family = opened(folder, "text", "transformer")
    loss_and_gradients(with_adapter(family))
    family.sample(family.encode_text(PROMPT), SHAPE, steps=1, guidance=1.0, seed=0)
    family.unload("transformer")
    assert alive() == ["text_encoder", "text_encoder_2"]
    family.load("transformer")
    assert not any("lora" in name for name, _ in family.transformer.named_parameters())


def test_loaded_parts_are_frozen(family: Hunyuan) -> None:
    assert not any(parameter.requires_grad for parameter in family.transformer.parameters())
    assert not family.transformer.training


# ------------------------------------------------------------------------------------------------------------- text


def test_overflow_counts_the_tokens_that_are_cut(folder: Path) -> None:
    family = opened(folder)
    assert family.text_overflow(" ".join(["a"] * 255)) == 0, "the end of turn is the 256th"
    assert family.text_overflow(" ".join(["a"] * 256)) == 1
    assert family.text_overflow(" ".join(["a"] * 300)) == 45


def test_long_prompts_are_cut_without_a_word_on_the_terminal(
    family: Hunyuan, capfd: pytest.CaptureFixture[str]
) -> None:
    text = family.encode_text(" ".join(["a"] * 300))
    assert text["prompt_embeds"].shape == (256, tiny.WIDTH)
    assert text["prompt_attention_mask"].sum() == 256
    assert "".join(capfd.readouterr()) == ""


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def test_padding_on_the_left_is_refused(copy: Path) -> None:
    edit(copy / "tokenizer" / "tokenizer_config.json", padding_side="left")
    with pytest.raises(MagicIDError) as caught:
        opened(copy, "text")
    assert (caught.value.code, caught.value.exit_code) == ("model-tokenizer", 5)
    assert "left" in caught.value.message


def test_another_splitting_is_refused(copy: Path) -> None:
    """What the class named in model_index.json does to this file."""
    edit(copy / "tokenizer" / "tokenizer.json", pre_tokenizer={"type": "Metaspace", "replacement": "▁"})
    with pytest.raises(MagicIDError) as caught:
        opened(copy, "text")
    assert caught.value.code == "model-tokenizer"
    assert "95" in caught.value.message


# -------------------------------------------------------------------------------------------------- damaged weights


def damage_index(folder: Path) -> None:
    edit(folder / "model_index.json", transformer=["diffusers", "WanTransformer3DModel"])


def damage_shard(folder: Path) -> None:
    next((folder / "transformer").glob("*-00002-of-*")).unlink()


def truncate_shard(folder: Path) -> None:
    path = next((folder / "transformer").glob("*-00002-of-*"))
    path.write_bytes(path.read_bytes()[:-100])


def drop_weight(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    values = load_file(path)
    del values["decoder.conv_in.conv.bias"]
    save_file(values, path, metadata={"format": "pt"})


def drop_llama_weight(folder: Path) -> None:
    path = next((folder / "text_encoder").glob("*-00001-of-*"))
    values = load_file(path)
    values.popitem()
    save_file(values, path, metadata={"format": "pt"})


def change_shape(folder: Path) -> None:
    edit(folder / "transformer" / "config.json", mlp_ratio=2.0)


def empty_clip(folder: Path) -> None:
    (folder / "text_encoder_2" / "model.safetensors").write_bytes(b"")


def remove_merges(folder: Path) -> None:
    (folder / "tokenizer_2" / "merges.txt").unlink()
    (folder / "tokenizer_2" / "vocab.json").write_text("{", encoding="utf-8")


def remove_tokenizer(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").unlink()


def remove_everything(folder: Path) -> None:
    shutil.rmtree(folder)


def only_pickle(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (damage_index, "transformer"),
        (damage_shard, "transformer"),
        (truncate_shard, "transformer"),
        (change_shape, "transformer"),
        (drop_weight, "vae"),
        (only_pickle, "vae"),
        (drop_llama_weight, "text_encoder"),
        (empty_clip, "text_encoder_2"),
        (remove_merges, "tokenizer_2"),
        (remove_tokenizer, "tokenizer"),
        (remove_everything, "model_index.json"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_damaged_model_is_an_error_that_names_the_part(
    copy: Path, damage: Any, part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(copy)
    with pytest.raises(MagicIDError) as caught:
        opened(copy, *PARTS)
    assert (caught.value.code, caught.value.exit_code) == ("model-unusable", 5)
    assert part in caught.value.message
    assert str(copy) in caught.value.message
    assert "magicid prepare" in caught.value.hint
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("device", "dtype", "precision"),
    [("cuda", torch.bfloat16, "high"), ("cuda", torch.float32, "highest"), ("cpu", torch.bfloat16, "highest")],
)
def test_float32_adapters_beside_a_bfloat16_base_may_use_tensor_cores(
    folder: Path, device: str, dtype: torch.dtype, precision: str
) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        Hunyuan(folder, commit="test", device=device, dtype=dtype, execution=Execution(vae_tiling=False))
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
