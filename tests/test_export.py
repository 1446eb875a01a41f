"""Exports, against the tools that read them: diffusers' loader, its converter at the real width, plain pipelines."""

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from diffusers import HunyuanVideoTransformer3DModel
from safetensors.torch import load_file, save_file

from album import SMALL
from magicid_cli import adapters, config, generation, models, video
from magicid_cli.adapters import AdapterSpec
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.export import comfyui, diffusers, export
from magicid_cli.models import hunyuan_adapters
from magicid_cli.models.hunyuan_adapters import Update
from magicid_cli.workspace import Workspace

pytestmark = pytest.mark.xdist_group("finished")

REAL_WIDTH = {
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "mlp_ratio": 4.0,
    "in_channels": 16,
    "out_channels": 16,
    "text_embed_dim": 64,
    "pooled_projection_dim": 32,
    "rope_axes_dim": (16, 56, 56),
}


def random_adapter(spec: AdapterSpec, transformer_config: dict) -> dict[str, torch.Tensor]:
    """Random numbers for every module that the adapter has on a transformer of this size."""
    with init_empty_weights():
        transformer = HunyuanVideoTransformer3DModel.from_config(transformer_config)
        adapters.attach(transformer, "policy", spec, seed=0)
    shapes = {name: p.shape for name, p in adapters.parameters(transformer, "policy").items()}
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) / 50 for name, shape in shapes.items()}


@pytest.mark.parametrize("targets", ["attention", "attention+mlp"])
@pytest.mark.parametrize("double_only", [False, True])
def test_comfyui_is_exact_by_the_converter_of_diffusers_at_the_real_width(
    tmp_path: Path, targets: str, double_only: bool
) -> None:
    spec = AdapterSpec(4, 6.0, targets, double_only)
    tensors = random_adapter(spec, REAL_WIDTH)
    path, checks = comfyui.write(tmp_path, tensors, spec, REAL_WIDTH)
    found = hunyuan_adapters.read_back(path, REAL_WIDTH)
    for name, wanted in diffusers.updates(tensors, spec).items():
        torch.testing.assert_close(found[name].dense(), wanted.dense(), rtol=0, atol=1e-6)
    assert "converter of diffusers" in checks["proof"] and checks["largest_difference"] <= 1e-6
    keys = load_file(path).keys()
    assert all(re.match(r"diffusion_model\.(double|single)_blocks\.\d\.\w", key) for key in keys)
    assert any("img_attn_qkv" in key for key in keys)
    assert any("single_blocks" in key for key in keys) is not double_only


def test_comfyui_at_another_width_equals_the_diffusers_file(tmp_path: Path) -> None:
    small = {**REAL_WIDTH, "num_attention_heads": 2, "attention_head_dim": 16, "rope_axes_dim": (4, 6, 6)}
    spec = AdapterSpec(4, 2.0, "attention+mlp", False)
    tensors = random_adapter(spec, small)
    (tmp_path / "d").mkdir()
    path, checks = comfyui.write(tmp_path, tensors, spec, small)
    exported, _ = diffusers.write(tmp_path / "d", tensors, spec, small)
    one = comfyui.split(load_file(path), 32)
    other = hunyuan_adapters.read_back(exported, small)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name].dense(), other[name].dense(), rtol=0, atol=1e-6)
    assert "own table" in checks["proof"]


def test_a_lost_or_changed_update_is_seen() -> None:
    a, b = torch.eye(2), torch.ones(2, 2)
    wanted = {"x": Update(a, b, 1.0), "y": Update(a, b, 1.0)}
    assert comfyui.largest_difference(wanted, wanted) == 0
    assert comfyui.largest_difference({"x": wanted["x"]}, wanted) == float("inf")
    assert comfyui.largest_difference({**wanted, "y": Update(a, b, 1.5)}, wanted) == 0.5
    assert comfyui.largest_difference({**wanted, "z": Update(a, b, 1.0)}, wanted) == 1.0


def test_the_header_keeps_alpha(tmp_path: Path) -> None:
    """Without its header diffusers would take alpha = rank: here the update would come out twice too small."""
    small = {**REAL_WIDTH, "num_attention_heads": 2, "attention_head_dim": 16, "rope_axes_dim": (4, 6, 6)}
    spec = AdapterSpec(4, 8.0, "attention", False)
    tensors = random_adapter(spec, small)
    path, checks = diffusers.write(tmp_path, tensors, spec, small)
    assert {u.scale for u in hunyuan_adapters.read_back(path, small).values()} == {2.0}
    assert checks["modules"] == len(tensors) // 2
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(path), bare)
    assert {u.scale for u in hunyuan_adapters.read_back(bare, small).values()} == {1.0}


def test_an_export_that_loads_back_wrong_is_not_published(
    alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.resolve(SMALL, project=alice).settings
    real = hunyuan_adapters.read_back

    def loses_one(file: Path, transformer_config: dict) -> dict[str, Update]:
        found = real(file, transformer_config)
        found.popitem()
        return found

    monkeypatch.setattr(hunyuan_adapters, "read_back", loses_one)
    with pytest.raises(MagicIDError) as caught:
        export(Workspace("alice"), "diffusers", tmp_path / "out", force=False, events=Events(), settings=settings)
    assert caught.value.code == "export-unfaithful"
    assert list(tmp_path.glob("*out*")) == [] and not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("kind", ["diffusers", "comfyui", "merged"])
def test_every_format_is_published_whole_with_a_card(alice: Path, tmp_path: Path, kind: str) -> None:
    settings = config.resolve(SMALL, project=alice).settings
    workspace = Workspace("alice")
    made = export(workspace, kind, tmp_path / "out", force=False, events=Events(), settings=settings)
    assert {stat.S_IMODE(path.stat().st_mode) for path in made.files} == {0o644}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "3 photos" in card and '"rank": 4' in card and "| after stage 1 |" in card
    for private in ("photo 0", "alice", str(alice), "caption"):
        assert private not in card
    assert workspace.manifest()["exports"] == [str((tmp_path / "out").resolve())]
    with pytest.raises(MagicIDError) as caught:
        export(workspace, kind, tmp_path / "out", force=False, events=Events(), settings=settings)
    assert caught.value.code == "output-exists"
    export(workspace, kind, tmp_path / "out", force=True, events=Events(), settings=settings)
    assert workspace.manifest()["exports"] == [str((tmp_path / "out").resolve())]


PLAIN_DIFFUSERS = """
import json, sys
import numpy as np, torch
torch.set_num_threads(1)
from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
from transformers import PreTrainedTokenizerFast
base, adapter, kind, out = sys.argv[1:]
parts = {}
if kind == "merged":
    parts["transformer"] = HunyuanVideoTransformer3DModel.from_pretrained(adapter + "/transformer")
pipe = HunyuanVideoPipeline.from_pretrained(
    base, tokenizer=PreTrainedTokenizerFast.from_pretrained(base, subfolder="tokenizer"), dtype=torch.float32, **parts)
if kind == "diffusers":
    pipe.load_lora_weights(adapter, weight_name="pytorch_lora_weights.safetensors")
    assert pipe.get_list_adapters(), "nothing was loaded"
pipe.set_progress_bar_config(disable=True)
latents = pipe("a person dances in the rain", height=64, width=64, num_frames=9, num_inference_steps=4,
               guidance_scale=7.5, generator=torch.Generator("cpu").manual_seed(3), output_type="latent").frames
np.save(out, latents[0].numpy())
"""


@pytest.mark.parametrize("kind", ["diffusers", "merged"])
def test_plain_diffusers_in_a_fresh_process_makes_the_same_video(alice: Path, tmp_path: Path, kind: str) -> None:
    settings = config.resolve(SMALL, project=alice).settings
    workspace = Workspace("alice")
    export(workspace, kind, tmp_path / "out", force=False, events=Events(), settings=settings)
    family = models.open_family(settings.model, Events())
    family.load("text")
    text = family.encode_text("a person dances in the rain")
    generation.load_adapted(family, generation.adapter_of(workspace))
    ours = family.sample(text, models.base.Shape(9, 64, 64), steps=4, guidance=7.5, seed=3)
    adapters.select(family.transformer, None, trainable=False)
    bare = family.sample(text, models.base.Shape(9, 64, 64), steps=4, guidance=7.5, seed=3)

    script = tmp_path / "plain.py"
    script.write_text(PLAIN_DIFFUSERS)
    out = tmp_path / "latents.npy"
    arguments = [str(family.folder), str(tmp_path / "out"), kind, str(out)]  # type: ignore[attr-defined]
    subprocess.run([sys.executable, str(script), *arguments], check=True, capture_output=True)
    assert np.abs(np.load(out) - ours.numpy()).max() < 1e-5
    assert (ours - bare).abs().max() > 1e-3, "the adapter changes nothing, so the comparison would prove nothing"


def test_generate_makes_the_video_of_the_exported_adapter(alice: Path, tmp_path: Path) -> None:
    """The command's clip decodes the very latents that the adapter gives; the record says how it was made."""
    flags = {"model.name": "tiny", "seed": 3, "generate.steps": 2, "generate.count": 2}
    resolved = config.resolve(flags, project=alice)
    made = generation.generate(
        Workspace("alice"), resolved, "a person waves", output=tmp_path / "wave.mp4", force=False, events=Events()
    )
    assert [m.path.name for m in made] == ["wave-1.mp4", "wave-2.mp4"] and [m.seed for m in made] == [3, 4]
    frames, fps = video.read_video(made[0].path)
    assert frames.shape == (9, 64, 64, 3) and fps == 8
    assert not np.array_equal(frames, video.read_video(made[1].path)[0])
    rows = [json.loads(line) for line in (Workspace("alice").videos / "videos.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [3, 4] and rows[0]["prompt"] == "a person waves"
    with pytest.raises(MagicIDError) as caught:
        generation.generate(
            Workspace("alice"), resolved, "again", output=tmp_path / "wave.mp4", force=False, events=Events()
        )
    assert caught.value.code == "output-exists"


def test_generate_refuses_another_model_and_an_unfinished_identity(alice: Path, tmp_path: Path) -> None:
    workspace = Workspace("alice")
    workspace.update(model="hunyuan-video")
    resolved = config.resolve({"model.name": "tiny"}, project=alice)
    with pytest.raises(MagicIDError) as caught:
        generation.generate(workspace, resolved, "x", output=None, force=False, events=Events())
    assert caught.value.code == "model-mismatch"
    with pytest.raises(MagicIDError) as caught:
        generation.adapter_of(Workspace("nobody"))
    assert caught.value.code == "identity-unfinished"
    with pytest.raises(MagicIDError) as caught:
        generation.destinations(workspace, "x", [1], tmp_path / "clip.gif", False)
    assert caught.value.code == "output-invalid"


def test_free_names_never_touch_what_is_there(alice: Path) -> None:
    workspace = Workspace("alice")
    first = generation.destinations(workspace, "A person dances, happily!", [5], None, False)[0]
    assert first.name == "a-person-dances-happily-5.mp4"
    first.parent.mkdir(parents=True, exist_ok=True)
    first.write_bytes(b"")
    assert generation.destinations(workspace, "A person dances, happily!", [5], None, False)[0].name == (
        "a-person-dances-happily-5-2.mp4"
    )
