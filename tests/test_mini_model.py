"""The miniature's checkpoint and its place in the catalog, with random weights of the real sizes.

Truth: plain diffusers in a process that has nothing of ours, the grammar's words, the files' own bytes, and the sizes
and figures that the catalog and the plan state.
"""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from safetensors import safe_open
from transformers import CLIPTextModel, CLIPTokenizer, LlamaModel, PreTrainedTokenizerFast

from magicid_cli import models
from magicid_cli.config import ModelSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.models import PATTERNS, layout, mini, tiny
from magicid_cli.models.base import Shape
from magicid_cli.models.catalog import VIDEO_MODELS, video_model
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.models.loading import reading
from magicid_cli.plan import costs
from magicid_cli.world import captions, clips
from magicid_cli.world.training import readme

SHAPE = Shape(9, 48, 48)
LATENTS = (8, 3, 24, 24)
PROMPT = "A woman in a red sweater waves a hand on a sunny beach, smiling, in golden light."
SETTINGS = ModelSettings(name="mini", device="cpu")

PLAIN = """
import json, sys
import numpy as np, torch
from diffusers import HunyuanVideoPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE as template
folder, out, prompt = sys.argv[1:]
pipe = HunyuanVideoPipeline.from_pretrained(folder)
pipe.set_progress_bar_config(disable=True)
options = dict(num_frames=9, height=48, width=48, num_inference_steps=3, guidance_scale=3.0)
def run(kind):
    return pipe(prompt, **options, generator=torch.Generator("cpu").manual_seed(5), output_type=kind).frames
np.savez(out, latents=run("latent")[0].numpy(), video=run("np")[0])
prefix = pipe.tokenizer(template["template"].split("{}")[0]).input_ids
json.dump({"prefix": len(prefix), "side": pipe.tokenizer.padding_side, "class": type(pipe.tokenizer).__name__,
           "pieces": pipe.tokenizer.convert_ids_to_tokens(pipe.tokenizer(" waves a hand").input_ids),
           "ours": sorted(name for name in sys.modules if name.startswith("magicid"))}, sys.stdout)
"""


@pytest.fixture(scope="module")
def family(random_mini: Path) -> Hunyuan:
    family = Hunyuan(random_mini, commit="random", device="cpu", dtype=torch.float32)
    family.load("text")
    family.load("vae")
    family.load("transformer")
    return family


# ------------------------------------------------------------------------------------------------- the checkpoint


def test_plain_diffusers_alone_makes_the_same_video(family: Hunyuan, random_mini: Path, tmp_path: Path) -> None:
    """`from_pretrained` on the folder, nothing of ours imported: the tokenizer is right without any help."""
    out = tmp_path / "plain.npz"
    command = [sys.executable, "-c", PLAIN, str(random_mini), str(out), PROMPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (told["prefix"], told["side"], told["ours"]) == (95, "right", [])
    assert told["class"] == type(PreTrainedTokenizerFast.from_pretrained(random_mini / "tokenizer")).__name__
    assert told["pieces"] == ["<|begin_of_text|>", "Ġwaves", "Ġa", "Ġhand"]
    theirs = np.load(out)
    latents = family.sample(family.encode_text(PROMPT), SHAPE, steps=3, guidance=3.0, seed=5)
    assert latents.shape == LATENTS
    assert np.abs(latents.numpy() - theirs["latents"]).max() < 1e-5
    video = family.decode(latents)
    assert (video.shape, video.dtype) == ((9, 48, 48, 3), np.uint8)
    assert np.abs(video / 255 - theirs["video"]).max() < 1.01 / 255
    assert video.std() > 1, "not a flat picture"


def test_every_word_of_the_grammar_is_one_token(random_mini: Path) -> None:
    """So a caption has as many tokens as words and marks, and the end of the turn."""
    llama = PreTrainedTokenizerFast.from_pretrained(random_mini, subfolder="tokenizer")
    clip = CLIPTokenizer.from_pretrained(random_mini, subfolder="tokenizer_2")
    for seed in range(60):
        caption = clips.scene(seed, people=range(1000)).caption()
        pieces = re.findall(r"\w+|[.,]", caption)
        assert len(llama(caption, add_special_tokens=False).input_ids) == len(pieces), caption
        assert len(clip(caption).input_ids) == len(pieces) + 2, caption
        assert llama.decode(llama(caption).input_ids, skip_special_tokens=True) == caption
    for word in captions.words():
        assert len(llama(f" {word}", add_special_tokens=False).input_ids) == 1, word
        assert len(clip(word).input_ids) == 3, word


def test_other_words_are_spelled_and_nothing_is_unknown(random_mini: Path) -> None:
    llama = PreTrainedTokenizerFast.from_pretrained(random_mini, subfolder="tokenizer")
    text = "Ein Mann läuft 30 km, über die Brücke!"
    assert llama.decode(llama(text).input_ids, skip_special_tokens=True) == text


def test_clip_s_merges_make_whole_words_only_where_that_is_asked_for(tmp_path: Path) -> None:
    """The merges of "on" come in between those of "person"; the tiny model's files are as they were."""
    for whole, count in ((True, 3), (False, 4)):
        layout.write_clip_tokenizer(tmp_path / str(whole), ["on", "person"], whole=whole)
        tokenizer = CLIPTokenizer.from_pretrained(tmp_path / str(whole))
        assert len(tokenizer("person").input_ids) == count
        assert len(tokenizer("on").input_ids) == 3


def test_the_files_are_those_of_the_hub_s_layout_and_in_float16(random_mini: Path) -> None:
    """Everything `PATTERNS` names and a README; the real repository's classes but for the first tokenizer's."""
    names = {path.relative_to(random_mini).as_posix() for path in random_mini.rglob("*") if path.is_file()}
    names.remove("README.md")
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in PATTERNS) for name in names)
    assert all(any(fnmatch.fnmatch(name, pattern) for name in names) for pattern in PATTERNS)
    index = json.loads((random_mini / "model_index.json").read_text())
    tiny.build(random_mini.parent / "tiny")
    real = json.loads((random_mini.parent / "tiny" / "model_index.json").read_text())
    assert index.pop("tokenizer") == ["transformers", "PreTrainedTokenizerFast"]
    assert real.pop("tokenizer") == ["transformers", "LlamaTokenizerFast"]
    assert index.pop("_diffusers_version") != real.pop("_diffusers_version")
    assert index == real
    for part, file in (
        ("transformer", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
        ("text_encoder_2", "model"),
    ):
        with safe_open(random_mini / part / f"{file}.safetensors", framework="pt") as weights:
            assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float16}, part  # noqa: SIM118


def read(folder: Path) -> dict[str, Any]:
    """The models of a checkpoint, as plain libraries read them."""
    return {
        "transformer": HunyuanVideoTransformer3DModel.from_pretrained(folder, subfolder="transformer"),
        "vae": AutoencoderKLHunyuanVideo.from_pretrained(folder, subfolder="vae"),
        "text_encoder": LlamaModel.from_pretrained(folder, subfolder="text_encoder"),
        "text_encoder_2": CLIPTextModel.from_pretrained(folder, subfolder="text_encoder_2"),
    }


def test_written_again_from_what_was_read_it_is_the_same_and_names_no_place(random_mini: Path, tmp_path: Path) -> None:
    parts = read(random_mini)
    assert {next(part.parameters()).dtype for part in parts.values()} == {torch.float32}
    assert parts["vae"].config.scaling_factor == 0.5
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "old").write_text("of an earlier try")
    mini.write(tmp_path / "again", **parts, words=captions.words(), readme="Random weights.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["again"]
    written = {path.relative_to(tmp_path / "again"): path for path in (tmp_path / "again").rglob("*.*")}
    expected = {path.relative_to(random_mini): path for path in random_mini.rglob("*.*")}
    assert written.keys() == expected.keys()
    for name, path in written.items():
        assert str(random_mini).encode() not in path.read_bytes(), name
        if name.suffix == ".safetensors":
            assert path.read_bytes() == expected[name].read_bytes(), name
    assert {next(part.parameters()).dtype for part in parts.values()} == {torch.float32}, "the models are left as is"
    assert (tmp_path / "again" / "old").exists() is False


# ----------------------------------------------------------------------------------------------------- the catalog


def test_the_catalog_and_the_plan_count_as_the_class_does() -> None:
    count = sum(parameter.numel() for parameter in mini.transformer().parameters())
    assert video_model("mini").parameters == count == costs.parameters(costs.ARCHITECTURES["mini"])


def test_the_plan_s_tokens_are_the_transformer_s(family: Hunyuan) -> None:
    arch = costs.ARCHITECTURES["mini"]
    latents = torch.zeros(1, arch.channels, *costs.latent_size(SHAPE, arch.compression))
    assert latents.shape[1:] == LATENTS
    assert family.transformer.x_embedder(latents).shape[1] == costs.tokens(SHAPE, arch.token_side) == 108


def test_open_family_takes_the_packaged_weights_and_names_their_content(mini_here: Path, tmp_path: Path) -> None:
    family = models.open_family(SETTINGS, Events())
    assert re.fullmatch(r"mini-[0-9a-f]{12}", family.commit)
    assert family.folder == mini_here  # type: ignore[attr-defined]
    assert models.open_family(SETTINGS, Events()).commit == family.commit
    assert not (tmp_path / "magicid-home").exists(), "nothing is built or fetched"


def test_the_index_names_the_version_that_wrote_it(random_mini: Path) -> None:
    index, part = (json.loads((random_mini / name).read_text()) for name in ("model_index.json", "vae/config.json"))
    assert index["_diffusers_version"] == part["_diffusers_version"] == diffusers.__version__


def test_what_a_checkpoint_says_of_itself_is_no_part_of_its_commit(
    mini_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = models.open_family(SETTINGS, Events()).commit
    copy = Path(shutil.copytree(mini_here, tmp_path / "copy"))
    (copy / "README.md").unlink()
    monkeypatch.setitem(VIDEO_MODELS, "mini", replace(video_model("mini"), packaged=str(copy)))
    assert models.open_family(SETTINGS, Events()).commit == before


def test_the_packaged_folders_say_what_they_are() -> None:
    weights = Path(str(files("magicid_cli"))) / "world" / "weights"
    assert (weights / "README.md").read_text() == readme.WEIGHTS
    assert (weights / "hunyuan-mini" / "README.md").read_text() == readme.CHECKPOINT
    for text in (readme.WEIGHTS, readme.CHECKPOINT):
        said = " ".join(text.split())
        for fact in ("Apache-2.0", "people who do not exist", "48 x 48 pixels and 9 frames", "no use beyond"):
            assert fact in said


@pytest.mark.parametrize("changed", ["scheduler/scheduler_config.json", "tokenizer_2/merges.txt", "vae/config.json"])
def test_another_content_is_another_commit(
    mini_here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    before = models.open_family(SETTINGS, Events()).commit
    copy = Path(shutil.copytree(mini_here, tmp_path / "copy"))
    monkeypatch.setitem(VIDEO_MODELS, "mini", replace(video_model("mini"), packaged=str(copy)))
    assert models.open_family(SETTINGS, Events()).commit == before
    (copy / changed).write_text((copy / changed).read_text() + "\n")
    assert models.open_family(SETTINGS, Events()).commit != before


def test_the_packaged_folder_lies_in_the_package() -> None:
    """Whether or not the weights are there: the error names the place, and says what can be done."""
    place = str(files("magicid_cli").joinpath("world", "weights", "hunyuan-mini"))
    try:
        assert str(models.packaged_folder(video_model("mini"))) == place
    except MagicIDError as error:
        assert place in error.message


def test_missing_or_damaged_weights_are_told_as_a_broken_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VIDEO_MODELS, "mini", replace(video_model("mini"), packaged=str(tmp_path)))
    with pytest.raises(MagicIDError) as caught:
        models.open_family(SETTINGS, Events())
    assert (caught.value.code, caught.value.exit_code) == ("model-unusable", 5)
    assert str(tmp_path) in caught.value.message and "Install magicid again" in caught.value.hint
    inside = Path(str(files("magicid_cli"))) / "world" / "weights"
    for folder, hint in ((inside, "Install magicid again"), (tmp_path, "magicid prepare")):
        with pytest.raises(MagicIDError, match="cannot be loaded") as caught, reading(folder, "vae"):
            raise OSError
        assert hint in caught.value.hint


def test_it_runs_on_one_thread_whatever_was_set(mini_here: Path) -> None:
    torch.set_num_threads(2)
    models.open_family(SETTINGS, Events())
    assert torch.get_num_threads() == 1


def test_a_video_takes_less_than_one_and_a_half_seconds_of_one_core(family: Hunyuan) -> None:
    torch.set_num_threads(1)
    text = family.encode_text(PROMPT)
    started = time.process_time()
    family.decode(family.sample(text, SHAPE, steps=16, guidance=3.0, seed=0))
    assert time.process_time() - started < 1.5


def test_a_photo_s_static_clip_is_the_repeated_latent(family: Hunyuan) -> None:
    """Against encoding every frame: the VAE of another compression is causal, too."""
    photo = clips.render(clips.scene(3, people=range(1000))).frames[0]
    whole = family.encode_video(np.repeat(photo[None], 9, axis=0))
    assert whole.shape == LATENTS
    assert (family.encode_static(photo, 9) - whole).abs().max() < 1e-5
