"""Exports, against the tools that read them: diffusers' loader, its converter at the real width, plain pipelines."""

import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from diffusers import HunyuanVideoTransformer3DModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from album import SMALL
from magicid_cli import adapters, config, generation, models, pipeline, video
from magicid_cli.adapters import AdapterSpec
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.export import card, comfyui, diffusers, export
from magicid_cli.models import hunyuan_adapters
from magicid_cli.models.hunyuan_adapters import Update
from magicid_cli.workspace import Workspace, file_digest, read_lines

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
        for rows, others in zip(found[name].b.split(256), wanted.b.split(256), strict=True):
            one, other = Update(found[name].a, rows, found[name].scale), Update(wanted.a, others, wanted.scale)
            torch.testing.assert_close(one.dense(), other.dense(), rtol=0, atol=1e-6)
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


def test_an_update_in_parts_is_the_whole_one_and_a_change_in_its_last_row_is_seen() -> None:
    """600 rows are three parts; every row counts."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, generator=generator), torch.randn(600, 2, generator=generator)
    one, other = Update(a, b, 1.5), Update(a, b.clone(), 1.5)
    parts = list(one.by_rows())
    assert [len(part) for part in parts] == [256, 256, 88]
    torch.testing.assert_close(torch.cat(parts), 1.5 * (b.double() @ a.double()), rtol=1e-12, atol=0)
    other.b[-1] += 1.0
    expected = 1.5 * float(a.double().sum(0).abs().max())
    assert comfyui.largest_difference({"x": one}, {"x": other}) == pytest.approx(expected, rel=1e-5)


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
    text = (tmp_path / "out" / "README.md").read_text()
    assert "3 photos" in text and '"rank": 4' in text and "| after stage 1 |" in text
    for private in ("photo 0", "alice", str(alice), "caption"):
        assert private not in text
    assert workspace.manifest()["exports"] == [str((tmp_path / "out").resolve())]
    with pytest.raises(MagicIDError) as caught:
        export(workspace, kind, tmp_path / "out", force=False, events=Events(), settings=settings)
    assert caught.value.code == "output-exists"
    export(workspace, kind, tmp_path / "out", force=True, events=Events(), settings=settings)
    assert workspace.manifest()["exports"] == [str((tmp_path / "out").resolve())]


MAKE_LATENTS = """
pipe.set_progress_bar_config(disable=True)
latents = pipe("a person dances in the rain", height=64, width=64, num_frames=9, num_inference_steps=4,
               guidance_scale=7.5, generator=torch.Generator("cpu").manual_seed(3), output_type="latent").frames
import numpy as np
np.save({out!r}, latents[0].numpy())
"""


def card_code(folder: Path, base: Path) -> str:
    """The model card's own lines for loading, with the paths that a reader would put in, at full precision."""
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found is not None
    code = found[1].replace("torch.bfloat16", "torch.float32")
    for shown, real in (("path/to/the/tiny/model", base), ("path/to/this/folder", folder)):
        assert shown in code
        code = code.replace(shown, str(real))
    return code


@pytest.mark.parametrize("kind", ["diffusers", "merged"])
def test_plain_diffusers_in_a_fresh_process_makes_the_same_video(alice: Path, tmp_path: Path, kind: str) -> None:
    """As the model card says: its snippet is what runs."""
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

    script, out = tmp_path / "plain.py", tmp_path / "latents.npy"
    script.write_text(card_code(tmp_path / "out", family.folder) + MAKE_LATENTS.format(out=str(out)))  # type: ignore[attr-defined]
    subprocess.run([sys.executable, str(script)], check=True, capture_output=True)
    assert np.abs(np.load(out) - ours.numpy()).max() < 1e-5
    assert (ours - bare).abs().max() > 1e-3, "the adapter changes nothing, so the comparison would prove nothing"


def exported(output: Path | None, *, force: bool = False) -> Path:
    """An export of `alice` for ComfyUI, the quickest kind."""
    settings = config.resolve(SMALL).settings
    return export(Workspace("alice"), "comfyui", output, force=force, events=Events(), settings=settings).folder


def test_force_never_removes_what_no_export_wrote(alice: Path, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("also mine")
    for taken in (folder, tmp_path / "file"):
        with pytest.raises(MagicIDError) as caught:
            exported(taken, force=True)
        assert caught.value.code == "output-invalid"
    assert (folder / "thesis.txt").read_text() == "years of work" and (tmp_path / "file").read_text() == "also mine"
    assert sorted(path.name for path in tmp_path.iterdir() if "tmp" in path.name) == []


def test_a_busy_identity_is_not_exported(alice: Path, tmp_path: Path) -> None:
    with Workspace("alice").lock(), pytest.raises(MagicIDError) as caught:
        exported(tmp_path / "out")
    assert caught.value.code == "identity-busy" and not (tmp_path / "out").exists()


def test_the_leftover_of_a_killed_export_is_swept_by_the_next(alice: Path, tmp_path: Path) -> None:
    left, others = tmp_path / ".tmp-magicid.alice.x1y2", [tmp_path / ".tmp-magicid.al.x1", tmp_path / ".tmp-editor"]
    for folder in (left, *others):
        folder.mkdir()
        (folder / "half.safetensors").write_bytes(b"half")
    exported(tmp_path / "out")
    assert not left.exists() and all(folder.is_dir() for folder in others)


def test_an_export_for_another_model_is_refused(alice: Path, tmp_path: Path) -> None:
    Workspace("alice").update(model="hunyuan-video")
    with pytest.raises(MagicIDError) as caught:
        exported(tmp_path / "out")
    assert caught.value.code == "model-mismatch"


def test_a_full_disk_leaves_nothing_behind(alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(comfyui, "save_file", full)
    with pytest.raises(MagicIDError) as caught:
        exported(tmp_path / "out")
    assert caught.value.code == "disk-full" and not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".tmp-*"))


def test_the_card_by_default_names_nobody(alice: Path) -> None:
    card = (exported(None) / "README.md").read_text()
    assert "alice" not in card.lower() and " for the tiny model\n" in card


def test_a_second_export_takes_a_free_name_unless_forced(alice: Path) -> None:
    folders = [exported(None), exported(None), exported(None, force=True)]
    assert [folder.name for folder in folders] == ["alice-comfyui", "alice-comfyui-2", "alice-comfyui"]
    assert {str(folder) for folder in folders} == set(Workspace("alice").manifest()["exports"])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("auto", ""),
        ("auraface", "- face recogniser auraface: Apache-2.0\n"),
        ("antelopev2", "- face recogniser antelopev2: InsightFace: non-commercial research only (**non-commercial**"),
        ("buffalo_l", "- face recogniser buffalo_l: InsightFace: non-commercial research only (**non-commercial**"),
    ],
)
def test_the_card_says_so_if_the_recogniser_forbids_commercial_use(alice: Path, name: str, line: str) -> None:
    workspace = Workspace("alice")
    settings = workspace.manifest()["settings"]
    settings["values"]["rewards"]["face_model"] = name
    workspace.update(settings=settings)
    text = card.text(workspace, "diffusers")
    assert line in text and ("**non-commercial**" in text) == (name in ("antelopev2", "buffalo_l"))


def test_the_card_of_stage_1_alone_tells_nothing_of_stage_2(alice: Path) -> None:
    workspace = Workspace("alice")
    assert "Stage 2 ended at margin" in card.text(workspace, "diffusers")
    photos = sorted((alice / "photos").glob("*.png"))
    pipeline.run(workspace, config.resolve({**SMALL, "prefer.steps": 0}, project=alice), photos, Events())
    text = card.text(workspace, "merged")
    assert "reconstruction alone" in text and "Stage 2" not in text and "| after stage 1 |" not in text
    assert "A transformer with a LoRA adapter merged into its weights" in text


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
    assert rows[0]["adapter"] == file_digest(generation.adapter_of(Workspace("alice")))
    assert rows[0]["model"] == "tiny" and rows[0]["settings"]["steps"] == 2 and Path(rows[0]["file"]).is_absolute()
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


def test_generate_while_the_adapter_is_replaced_and_its_name_is_taken(
    alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record names the adapter that was used, and a file that appeared meanwhile is left alone."""
    workspace, output = Workspace("alice"), tmp_path / "new" / "folder" / "wave.mp4"
    adapter = generation.adapter_of(workspace)
    used = file_digest(adapter)
    real = generation.sample

    def meanwhile(*arguments: Any) -> torch.Tensor:
        adapter.write_bytes(b"of the next customization")
        output.parent.mkdir(parents=True)
        output.write_bytes(b"somebody's video")
        return real(*arguments)

    monkeypatch.setattr(generation, "sample", meanwhile)
    resolved = config.resolve({"model.name": "tiny", "generate.steps": 1, "generate.frames": 1}, project=alice)
    made = generation.generate(workspace, resolved, "x", output=output, force=False, events=Events())
    assert output.read_bytes() == b"somebody's video" and made[0].path.name == "wave-2.mp4"
    assert read_lines(workspace.videos / "videos.jsonl")[-1]["adapter"] == used


def test_what_was_sampled_before_an_interruption_is_kept(
    alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Events()
    seen: list[int] = []

    def stop_in_the_second(event: Event) -> None:
        if event.kind == "step" and event.data["video"] == 2:
            seen.append(event.data["step"])
            events.request_stop()

    events.listen(stop_in_the_second)
    resolved = config.resolve(
        {"model.name": "tiny", "seed": 3, "generate.steps": 2, "generate.frames": 1, "generate.count": 3}, project=alice
    )
    with pytest.raises(KeyboardInterrupt):
        generation.generate(Workspace("alice"), resolved, "x", output=tmp_path, force=False, events=events)
    assert seen == [1] and [path.name for path in tmp_path.glob("*.mp4")] == ["x-3.mp4"]


def test_an_output_that_cannot_be_written_is_refused_before_the_work(alice: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    nowhere = [tmp_path / "file", tmp_path / "link", tmp_path / ("é" * 128)]
    if sys.platform == "linux":
        nowhere.append(Path("/proc"))  # root, too, can make no file there, though its permissions say so
    for folder in nowhere:
        for refuses in (
            lambda path: generation.destinations(Workspace("alice"), "x", [1], path / "x.mp4", False),
            lambda path: exported(path / "x"),
        ):
            with pytest.raises(MagicIDError) as caught:
                refuses(folder)
            assert caught.value.code == "output-invalid", folder
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")) == []


def test_names_may_be_as_long_as_file_systems_take_them(alice: Path, tmp_path: Path) -> None:
    workspace = Workspace("alice")
    longest = tmp_path / ("x" * 251 + ".mp4")
    assert generation.destinations(workspace, "x", [1], longest, False) == [longest]
    longest.touch()
    with pytest.raises(MagicIDError) as caught:
        generation.destinations(workspace, "x", [1, 2], longest, False)  # -1 and -2 make it too long
    assert caught.value.code == "output-invalid"
    (of_a_word,) = generation.destinations(workspace, "x" * 300, [1], None, False)
    assert len(of_a_word.name) < 200


def test_a_full_gpu_is_named(alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(generation, "sample", fail)
    with pytest.raises(MagicIDError, match="Tried to allocate 9 GiB") as caught:
        generation.generate(
            Workspace("alice"),
            config.resolve({"model.name": "tiny"}, project=alice),
            "x",
            output=tmp_path / "x.mp4",
            force=False,
            events=Events(),
        )
    assert caught.value.code == "gpu-memory"
