"""ID-Animator. Truth: the formula of its adapter's attention and of its resampler, written out here from the tensors
of the checkpoint alone; for the whole, repositories with the real ones' files on a local Hub.
"""

import hashlib
import json
import math
import os
import shlex
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNetMotionModel
from diffusers.models.attention_processor import Attention
from PIL import Image
from transformers import CLIPImageProcessorPil

import looked_at
import tiny_animator
from hub_server import HubServer
from magicid_cli import config, generation, methods, video
from magicid_cli import hub as magicid_hub
from magicid_cli.baselines import untrained
from magicid_cli.baselines.id_animator import conversion
from magicid_cli.baselines.id_animator.pipeline import Animator, assemble, pixels
from magicid_cli.baselines.registry import METHODS
from magicid_cli.cli.app import main
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.faces import TEMPLATE, Face
from magicid_cli.models.catalog import METHOD_WEIGHTS
from magicid_cli.workspace import Workspace, read_lines

SCALE = 0.8


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A checkpoint as `conversion.read` gives it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        whole = tiny_animator.checkpoint(tiny_animator.widths())
    return {name.removeprefix("module."): value for name, value in whole.items()}


def motion_unet() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return UNetMotionModel.from_unet2d(tiny_animator.unet(), tiny_animator.motion()).eval()


def split(values: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, N, heads · D) → (B, heads, N, D)."""
    return values.unflatten(-1, (heads, -1)).transpose(1, 2)


def attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)


class FaceAttention:
    """Cross-attention with ID-Animator's adapter, straight from its tensors: nothing is folded."""

    def __init__(self, state: dict[str, torch.Tensor], number: int) -> None:
        prefix = f"adapter_modules.{number}."
        self.own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    def low_rank(self, name: str, values: torch.Tensor) -> torch.Tensor:
        return values @ self.own[f"{name}_lora.down.weight"].T @ self.own[f"{name}_lora.up.weight"].T

    def __call__(
        self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        text, face = encoder_hidden_states.split(
            [encoder_hidden_states.shape[1] - tiny_animator.TOKENS, tiny_animator.TOKENS], 1
        )
        heads = attn.heads
        query = split(attn.to_q(hidden_states) + self.low_rank("to_q", hidden_states), heads)
        key = split(attn.to_k(text) + self.low_rank("to_k", text), heads)
        value = split(attn.to_v(text) + self.low_rank("to_v", text), heads)
        seen = attended(query, key, value)
        face_key, face_value = (split(face @ self.own[f"to_{one}_face.weight"].T, heads) for one in ("k", "v"))
        seen = seen + SCALE * attended(query, face_key, face_value)
        return attn.to_out[0](seen) + self.low_rank("to_out", seen)


def resampled(state: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """The face tokens of CLIP's hidden states `(B, N, IMAGE)`, by the resampler's formula."""
    w = {name.removeprefix("image_proj_model."): value for name, value in state.items()}

    def norm(values: torch.Tensor, name: str) -> torch.Tensor:
        return torch.nn.functional.layer_norm(values, values.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    source = image @ w["proj_in.weight"].T + w["proj_in.bias"]
    tokens = w["latents"].expand(len(image), -1, -1)
    for layer in range(4):
        here = f"layers.{layer}"
        one, other = norm(source, f"{here}.0.norm1"), norm(tokens, f"{here}.0.norm2")
        key, value = (torch.cat([one, other], 1) @ w[f"{here}.0.to_kv.weight"].T).chunk(2, -1)
        heads = key.shape[-1] // 64
        seen = attended(*(split(part, heads) for part in (other @ w[f"{here}.0.to_q.weight"].T, key, value)))
        tokens = tokens + seen @ w[f"{here}.0.to_out.weight"].T
        wide = norm(tokens, f"{here}.1.0") @ w[f"{here}.1.1.weight"].T
        tokens = tokens + torch.nn.functional.gelu(wide) @ w[f"{here}.1.3.weight"].T
    return norm(tokens @ w["proj_out.weight"].T + w["proj_out.bias"], "norm_out")


@torch.no_grad()
def test_the_converted_adapter_is_the_adapter(state: dict[str, torch.Tensor]) -> None:
    """Through a whole random `UNetMotionModel`, both branches of guidance; and a wrong order of layers would show."""
    generator = torch.Generator().manual_seed(4)
    noisy = torch.randn(2, 4, 2, 8, 8, generator=generator)
    text = torch.randn(2, 7, tiny_animator.TEXT, generator=generator)
    image = torch.randn(2, 17, tiny_animator.IMAGE, generator=generator)

    direct = motion_unet()
    spatial = [name for name in direct.attn_processors if "motion_modules" not in name and "attn2" in name]
    # The authors' order, told from the layers' names and not from any enumeration: down, up, middle.
    spatial.sort(key=lambda name: (("down", "up", "mid").index(name.split("_")[0]), name))
    for index, name in enumerate(spatial):
        layer = direct.get_submodule(name.removesuffix(".processor"))
        assert layer.to_q.out_features == tiny_animator.widths()[index]
        layer.set_processor(FaceAttention(state, 2 * index + 1))
    face = resampled(state, image)
    # One text and one face for every frame of a video, as the pipeline hands them over.
    expected = direct(noisy, 500, torch.cat([text, face], 1).repeat_interleave(2, 0)).sample

    unet = motion_unet()
    conversion.put_on(unet, conversion.convert(state, unet, Path("animator.ckpt"), Events()), SCALE)
    added = {"image_embeds": [image[:, None]]}
    found = unet(noisy, 500, text.repeat_interleave(2, 0), added_cond_kwargs=added).sample
    assert (found - expected).abs().max() <= 1e-5
    without = motion_unet()(noisy, 500, text.repeat_interleave(2, 0)).sample
    assert (without - expected).abs().max() > 1e-2


# ------------------------------------------------------------------------------------------------------ the checkpoint


def saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "animator.ckpt")
    return folder / "animator.ckpt"


def below(state: dict[str, torch.Tensor], stem: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(stem): value for name, value in state.items() if name.startswith(stem)}


def test_every_layout_that_the_authors_loader_takes_is_read(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    """With and without `module.` and `state_dict`, and in two tables: the same tensors."""
    longer = {f"module.{name}": value for name, value in state.items()}
    nested = {"image_proj": below(state, "image_proj_model."), "face_adapter": below(state, "adapter_modules.")}
    for content in (state, {"state_dict": state}, {"state_dict": longer}, nested):
        found = conversion.read(saved(tmp_path, content), Events())
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_a_file_of_torch_s_old_layout_is_read_and_told(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    told = list[Event]()
    conversion.read(saved(tmp_path, state), Events(told.append))
    assert told == []
    torch.save(state, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    found = conversion.read(tmp_path / "old.ckpt", Events(told.append))
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)
    assert ["old layout" in event.data["message"] for event in told] == [True]


class Runs:
    """What a pickle that runs something looks like."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran-it"),)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"a": Runs()}},
        {"state_dict": {"a": "text"}},
        {"state_dict": [torch.ones(1)]},
        {"image_proj": {}, "face_adapter": torch.ones(1)},
        [torch.ones(1)],
    ],
)
def test_nothing_but_tensors_is_taken_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MagicIDError) as caught:
        conversion.read(saved(tmp_path, content), Events())
    assert caught.value.code == "model-unusable"
    assert not Path("ran-it").exists()


def test_a_tensor_too_few_or_of_another_shape_is_refused(state: dict[str, torch.Tensor]) -> None:
    unet = motion_unet()
    name = "adapter_modules.3.to_k_face.weight"
    wrong = {
        "to_k_face": {key: value for key, value in state.items() if key != name},
        "is expected": state | {name: state[name][:, :-1]},
    }
    for said, content in wrong.items():
        with pytest.raises(MagicIDError, match=said) as caught:
            conversion.convert(content, unet, Path("animator.ckpt"), Events())
        assert caught.value.code == "model-unusable"


def test_a_tensor_too_many_is_named_and_left_out(state: dict[str, torch.Tensor]) -> None:
    """As the authors' loader leaves it out, but not in silence: the adapter is the one without it."""
    unet, told, extra = motion_unet(), list[Event](), "adapter_modules.33.to_k_face.weight"
    more = state | {extra: state["adapter_modules.3.to_k_face.weight"]}
    found = conversion.convert(more, unet, Path("animator.ckpt"), Events(told.append))
    alone = conversion.convert(state, unet, Path("animator.ckpt"), Events())
    for one, other in ((getattr(found, part), getattr(alone, part)) for part in ("resampler", "attention", "folded")):
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert [extra in event.data["message"] for event in told] == [True]


# ----------------------------------------------------------------------------------------------------------- the whole


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_animator.write(tmp_path_factory.mktemp("animator"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_lora_is_folded_before_anything_is_rounded(repositories: dict[str, Path], dtype: str) -> None:
    """Every weight is that of the float32 pipeline, rounded once."""
    space, motion, encoder = (
        repositories[name] for name in (tiny_animator.SPACE, tiny_animator.MOTION, tiny_animator.ENCODER)
    )
    whole, low = (
        assemble(space, motion, encoder, SCALE, untrained.Place("cpu", one), Events()).unet.state_dict()
        for one in ("float32", dtype)
    )
    wanted = getattr(torch, dtype)
    assert whole.keys() == low.keys() and {value.dtype for value in low.values()} == {wanted}
    assert [name for name, value in whole.items() if not torch.equal(value.to(wanted), low[name])] == []


def test_on_a_gpu_it_runs_in_what_its_authors_run_it_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their `infer.py` loads it in float16, ConsisID's example in bfloat16; another type can be asked for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = [
        untrained.place_of(METHODS[name], config.resolve({"model.name": "tiny", **more}).settings)
        for name, more in (("id-animator", {}), ("consisid", {}), ("id-animator", {"model.dtype": "bfloat16"}))
    ]
    assert found == [untrained.Place("cuda", one) for one in ("float16", "bfloat16", "bfloat16")]


@pytest.fixture
def served(hub: HubServer, repositories: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The three repositories, at the commits that the catalog pins."""
    pinned = {one.source.repo: one.source.revision for one in METHOD_WEIGHTS["id-animator"]}
    for name, folder in repositories.items():
        hub.add(name, folder, None if pinned[name] == "main" else pinned[name])
    for name, value in {"FRAMES": "3", "STEPS": "2", "SIZE": "64x64"}.items():
        monkeypatch.setenv(f"MAGICID_ID_ANIMATOR_{name}", value)
    return hub


@pytest.fixture
def alice(tmp_path: Path) -> Workspace:
    return looked_at.identity(tmp_path / "photos").of_method("id-animator")


COMMAND = ["generate", "--method", "id-animator", "--prompt", "alice dances", "--seed", "3", "--device", "cpu"]


def test_flags_of_generate_set_what_its_own_model_has(alice: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan, and the settings that a video is made with."""
    given = "--size 256x272 --frames 9 --steps 3 --guidance 2 --fps 24 --count 2 --negative-prompt blurry"
    assert main([*COMMAND, *given.split(), "-n", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["data"]["estimate"]["stages"]
    assert row["note"] == "2 videos of 256x272, 9 frames, 3 steps"
    flags = {"generate.guidance": 2.0, "generate.fps": 24, "generate.negative_prompt": "blurry", "seed": 3}
    own = config.resolve(methods.own_flags("id-animator", flags)).settings
    assert (own.id_animator.guidance, own.id_animator.fps, own.id_animator.negative_prompt) == (2.0, 24, "blurry")
    assert own.seed == 3 and methods.own_flags("dreambooth", flags) == flags


@pytest.mark.parametrize(
    "given", ["--adapter stage-1", "--true-guidance 4 --negative-prompt blurry", "--adapter-start 0.5", "--base int8"]
)
def test_flags_that_mean_nothing_for_its_model_are_refused(
    alice: Workspace, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for dry in ([], ["-n"]):
        assert main([*COMMAND, *given.split(), *dry, "--json"]) == 2
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["code"] == "usage" and given.split()[0] in error["message"]
        assert "--negative-prompt" not in error["message"] and "[id_animator]" in error["hint"]


def test_generate_makes_a_video_once(served: HubServer, alice: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """From the Hub to a video and its record; the second time nothing is made and nothing is asked."""
    assert main([*COMMAND, "--json", "--yes"]) == 0
    out, said = capsys.readouterr()
    (made,) = json.loads(out)["data"]["videos"]
    frames, fps = video.read_video(Path(made["path"]))
    assert frames.shape == (3, 64, 64, 3) and fps == 8
    assert Path(made["path"]).parent == alice.videos

    # What was fetched is what is needed, and no other pickle.
    asked = {Path(request.path).name for request in served.asked("/resolve/")}
    needed = {"animator.ckpt", "realisticVisionV60B1_v51VAE.safetensors", "model.safetensors", "vocab.json"}
    assert needed <= asked
    assert not asked & {"mm_sd_v15_v2.ckpt", "app.py", "pytorch_model.bin", "model.bin"}
    content = hashlib.sha256((served.repo(tiny_animator.SPACE).folder / "animator.ckpt").read_bytes()).hexdigest()
    assert content in said
    assert "Non-commercial: ID-Animator's face adapter" in said and "Licence: Apache-2.0" in said

    (row,) = read_lines(alice.videos / "videos.jsonl")
    assert (row["prompt"], row["seed"], row["method"]) == ("a person dances", 3, "id-animator")
    assert 0 < row["denoising_s"] < row["seconds"]
    assert row["held"] == {"base": "full", "offload": "none", "vae_tiling": False}
    assert row["checkpoint_sha256"] == content and row["settings"]["photo_scale"] == 0.8
    assert row["weights"][tiny_animator.SPACE] == served.repo(tiny_animator.SPACE).commit
    assert (alice.references / row["photo"]["file"]).is_file()
    assert alice.manifest()["method"] == "id-animator"

    before = len(served.requests)
    assert main([*COMMAND, "--json", "--yes"]) == 0
    out, said = capsys.readouterr()
    assert json.loads(out)["data"]["videos"] == [made] and "there already" in said
    assert len(served.requests) == before and len(read_lines(alice.videos / "videos.jsonl")) == 1
    # Another prompt is another video.
    assert main([*COMMAND[:4], "alice sleeps", *COMMAND[5:], "-q", "--yes"]) == 0
    assert capsys.readouterr().out.strip() != made["path"]


def test_a_branch_that_moves_changes_no_record(
    served: HubServer, alice: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program asks the Hub between loading and recording; each video tells what was loaded for it."""
    source, first = METHOD_WEIGHTS["id-animator"][0].source, served.repo(tiny_animator.SPACE).commit
    real, moved = untrained.fetch, tmp_path / "moved"

    def fetch(*given: Any) -> list[Path]:
        folders = real(*given)
        if not moved.exists():
            shutil.copytree(served.repo(tiny_animator.SPACE).folder, moved)
            (moved / "news.json").write_text("{}")
            served.add(tiny_animator.SPACE, moved)
        magicid_hub.fetch_repo(source, patterns=["news.json"], offline=False, events=Events())
        return folders

    monkeypatch.setattr(untrained, "fetch", fetch)
    assert main([*COMMAND, "-q", "--yes"]) == 0
    now = served.repo(tiny_animator.SPACE).commit
    assert now != first and magicid_hub.known_commit(source) == now
    (row,) = read_lines(alice.videos / "videos.jsonl")
    assert row["commit"] == row["weights"][tiny_animator.SPACE] == first
    assert main([*COMMAND, "-q", "--yes"]) == 0
    assert read_lines(alice.videos / "videos.jsonl")[-1]["commit"] == now


def test_what_was_settled_is_loaded_whatever_the_branch_means_by_then(served: HubServer, tmp_path: Path) -> None:
    """The branch moves between the look at what was made before, which goes by the commit, and the loading."""
    method, source = METHODS["id-animator"], METHOD_WEIGHTS["id-animator"][0].source
    settings = config.resolve({"model.name": "tiny", "model.device": "cpu"}).settings
    before, at = untrained.fetch(method, settings, Events()), untrained.commits(method)
    settled = dict(at)
    shutil.copytree(served.repo(tiny_animator.SPACE).folder, tmp_path / "moved")
    (tmp_path / "moved" / "news.json").write_text("{}")
    now = served.add(tiny_animator.SPACE, tmp_path / "moved")
    magicid_hub.fetch_repo(source, patterns=["news.json"], offline=False, events=Events())
    assert untrained.commits(method)[tiny_animator.SPACE] == now
    assert untrained.fetch(method, settings, Events(), at) == before and at == settled
    assert untrained.fetch(method, settings, Events())[0] != before[0]


def test_several_prompts_are_one_loading(served: HubServer, alice: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, loaded = config.resolve({"model.name": "tiny", "model.device": "cpu"}).settings, list[str]()
    real = Animator.__init__

    def init(self: Animator, *given: Any) -> None:
        loaded.append("animator")
        real(self, *given)

    monkeypatch.setattr(Animator, "__init__", init)
    wanted = [generation.Asked("a person runs", 1), generation.Asked("a person sleeps", 2)]
    told = list[Event]()
    made = methods.generate_each(Workspace("alice"), "id-animator", settings, wanted, events=Events(told.append))
    heard = [event.data for event in told if event.kind == "video"]
    assert [(one["stage"], one["video"], one["videos"]) for one in heard] == [("generate", 1, 2), ("generate", 2, 2)]
    assert all(0 < one["denoising_s"] < one["seconds"] for one in heard)
    assert loaded == ["animator"] and [(one.prompt, one.seed) for one in made] == [
        (one.prompt, one.seed) for one in wanted
    ]
    assert made == methods.generate_each(Workspace("alice"), "id-animator", settings, wanted, events=Events())


def test_a_signal_between_videos_names_the_command_for_the_others(
    served: HubServer, alice: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes while the second of three is written; that one is finished and counts."""
    real, written = video.write_video, list[Path]()

    def write(path: Path, *arguments: Any, **how: Any) -> None:
        written.append(path)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        real(path, *arguments, **how)

    monkeypatch.setattr(video, "write_video", write)
    command = [*COMMAND, "--count", "3", "--yes", "--json", "-o", str(alice.videos / "clip.mp4")]
    assert main(command) == 130
    told = json.loads(capsys.readouterr().out)
    assert [Path(one["path"]).name for one in told["data"]["videos"]] == ["clip-1.mp4", "clip-2.mp4"]
    assert "2 of 3" in told["error"]["message"]
    rest = shlex.split(told["error"]["hint"])
    assert main(rest[rest.index("generate") :]) == 0
    (made,) = json.loads(capsys.readouterr().out)["data"]["videos"]
    assert (Path(made["path"]).name, made["seed"]) == ("clip-3.mp4", 5)
    assert [row["seed"] for row in read_lines(alice.videos / "videos.jsonl")] == [3, 4, 5]


def test_the_plan_names_downloads_and_memory_and_fetches_nothing(
    served: HubServer, alice: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, "--json", "--dry-run"]) == 0
    estimate = json.loads(capsys.readouterr().out)["data"]["estimate"]
    assert set(estimate["downloads_gb"]) == {tiny_animator.SPACE, tiny_animator.MOTION, tiny_animator.ENCODER}
    assert estimate["memory_gb"] == 10 and estimate["seconds"] is None
    assert not served.requests


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_cpu_must_be_asked_for(
    served: HubServer, alice: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND[:-2], "--yes"]) == 3
    assert "--device cpu" in capsys.readouterr().err and not served.requests


def test_the_photo_takes_part(served: HubServer, alice: Workspace) -> None:
    """Another photo, and a scale of 0, give other frames from the same noise; the same gives the same."""
    settings, events = config.resolve({"model.name": "tiny", "model.device": "cpu"}).settings, Events()
    photo = untrained.choose_photo(alice, settings, events)
    place = untrained.place_of(METHODS["id-animator"], settings)
    assert place == untrained.Place("cpu", "float32")
    folders = untrained.fetch(METHODS["id-animator"], settings, events)

    def animator(photo: untrained.Photo, scale: float) -> Animator:
        return Animator(folders, replace(settings.id_animator, photo_scale=scale), photo, place, events, "")

    def made(animator: Animator) -> np.ndarray:
        return animator.frames("a person", 1, lambda _step: None)

    first = animator(photo, 0.8)
    one = made(first)
    assert np.array_equal(one, made(first))
    assert not np.array_equal(one, made(animator(photo, 0.0)))
    assert not np.array_equal(one, made(animator(replace(photo, picture=photo.picture[::-1].copy()), 0.8)))


def test_the_image_encoder_sees_what_clip_was_trained_on() -> None:
    """Against transformers' own processor of CLIP's pictures."""
    picture = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    photo = untrained.Photo(Path("0.png"), "", picture, Face((0, 0, 112, 112), TEMPLATE, 1.0))
    processor = CLIPImageProcessorPil()
    shown = processor(Image.fromarray(picture).resize((224, 224)), return_tensors="pt").pixel_values
    assert (pixels(photo) - shown).abs().max() < 1e-5
