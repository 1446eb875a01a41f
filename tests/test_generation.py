"""Which adapter takes part in which denoising step. Truth: sampling with the adapter wholly on or wholly off."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from magicid_cli import adapters, comparison, config, generation, models, video
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events, Stopped
from magicid_cli.export import card, export
from magicid_cli.models.base import Family, Shape
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.workspace import Workspace, file_digest, read_lines

pytestmark = pytest.mark.xdist_group("finished")

STEPS = 5
SMALL = {"model.name": "tiny", "seed": 3, "generate.steps": STEPS, "generate.frames": 1}


@pytest.fixture
def family(alice: Path) -> Family:
    """The tiny model with the identity's adapter on."""
    opened = models.open_family(config.resolve(SMALL, project=alice).settings.model, Events())
    opened.load("text")
    generation.load_adapted(opened, generation.adapter_of(Workspace("alice")))
    return opened


def sampled(family: Family, start: float) -> torch.Tensor:
    """What `generate` samples with the adapter on from this share of the steps."""
    wanted = config.resolve({**SMALL, "generate.adapter_start": start}).settings.generate
    adapters.select(family.transformer, generation.WORN)
    return generation.sample(family, wanted, family.encode_text("a person waves"), None, 3, 1, Events())


def directly(family: Family, name: str | None) -> torch.Tensor:
    """The same with one adapter, or none, in every step."""
    adapters.select(family.transformer, name)
    text = family.encode_text("a person waves")
    return family.sample(text, Shape(1, 64, 64), steps=STEPS, guidance=7.5, seed=3)


def test_at_0_the_adapter_is_on_and_at_1_it_is_exactly_off(family: Family) -> None:
    """Bit for bit; in between it is neither."""
    on, off = directly(family, generation.WORN), directly(family, None)
    assert torch.equal(sampled(family, 0.0), on)
    assert torch.equal(sampled(family, 1.0), off)
    assert not torch.equal(on, off)
    late = sampled(family, 0.4)
    assert not torch.equal(late, on) and not torch.equal(late, off)


@pytest.mark.parametrize(("start", "alone"), [(0.0, 0), (0.09, 0), (0.1, 1), (0.4, 2), (0.5, 3), (0.9, 5), (1.0, 5)])
def test_the_share_is_rounded_to_whole_steps(
    family: Family, monkeypatch: pytest.MonkeyPatch, start: float, alone: int
) -> None:
    """Of five steps; what counts is what the transformer wears when it is called."""
    worn: list[bool] = []
    layer = next(module for module in family.transformer.modules() if hasattr(module, "lora_A"))
    family.transformer.register_forward_pre_hook(lambda *_: worn.append(not layer.disable_adapters))
    sampled(family, start)
    assert worn == [False] * alone + [True] * (STEPS - alone)


def test_the_card_switches_the_adapter_on_as_generate_does(alice: Path, tmp_path: Path) -> None:
    """Its own lines, run by plain diffusers on the exported file, give the latents of `generate`."""
    workspace = Workspace("alice")
    late = {**SMALL, "generate.adapter_start": 0.4}
    resolved = config.resolve(late, project=alice)
    assert "adapter_start" not in card.text(workspace, "diffusers") and "alone" not in card.text(workspace, "diffusers")
    workspace.update(settings={"values": resolved.as_dict(), "origins": resolved.origins})
    assert "SplitSigmas* at step 2" in card.text(workspace, "comfyui")
    assert "export the adapter itself" in card.text(workspace, "merged")
    done = export(workspace, "diffusers", tmp_path / "out", force=False, events=Events(), settings=resolved.settings)
    assert "the first 2 of 5 denoising steps" in (done.folder / "README.md").read_text()
    loading, switching = re.findall(r"```python\n(.*?)```", (done.folder / "README.md").read_text(), re.DOTALL)
    family = models.open_family(resolved.settings.model, Events())
    paths = {"path/to/the/tiny/model": family.folder, "path/to/this/folder": done.folder}  # type: ignore[attr-defined]
    code = loading.replace("torch.bfloat16", "torch.float32") + switching.partition("video = ")[0]
    for shown, real in paths.items():
        code = code.replace(shown, str(real))
    found: dict[str, Any] = {}
    exec(code, found)
    found["pipe"].set_progress_bar_config(disable=True)
    (latents,) = found["pipe"](
        "a person waves",
        height=64,
        width=64,
        num_frames=1,
        num_inference_steps=found["steps"],
        guidance_scale=7.5,
        generator=torch.Generator("cpu").manual_seed(3),
        output_type="latent",
        callback_on_step_end=found["switch_on"],
    ).frames
    family.load("text")
    generation.load_adapted(family, generation.adapter_of(workspace))
    ours = sampled(family, 0.4)
    assert (latents - ours).abs().max() < 1e-5
    assert (ours - directly(family, generation.WORN)).abs().max() > 1e-4


def test_every_video_of_a_call_begins_without_the_adapter(alice: Path, tmp_path: Path) -> None:
    """Two videos in one call are those of two calls, and the record says from when on the adapter was on."""
    workspace = Workspace("alice")

    def made(seed: int, count: int) -> list[bytes]:
        flags = {**SMALL, "seed": seed, "generate.count": count, "generate.adapter_start": 0.4}
        resolved = config.resolve(flags, project=alice)
        folder = tmp_path / f"{seed}-{count}"
        folder.mkdir()
        found = generation.generate(workspace, resolved, "waves", output=folder, force=False, events=Events())
        return [video.read_video(one.path)[0].tobytes() for one in found]

    assert made(3, 2) == made(3, 1) + made(4, 1)
    rows = read_lines(workspace.videos / "videos.jsonl")
    assert [row["settings"]["adapter_start"] for row in rows] == [0.4] * 4


def test_every_part_is_loaded_once_however_many_videos(
    alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each record says what its video took, of which the denoising is a part."""
    loaded: list[str] = []
    real = Hunyuan.load

    def load(family: Hunyuan, part: Any) -> None:
        before = set(vars(family))
        had = {"text": family._text, "vae": family._vae, "transformer": "transformer" in before}[part]
        real(family, part)
        if not had:
            loaded.append(part)

    monkeypatch.setattr(Hunyuan, "load", load)
    workspace, events = Workspace("alice"), list[Event]()
    resolved = config.resolve({**SMALL, "generate.count": 3}, project=alice)
    made = generation.generate(workspace, resolved, "waves", output=tmp_path, force=False, events=Events(events.append))
    assert loaded == ["text", "transformer", "vae"]
    rows = read_lines(workspace.videos / "videos.jsonl")[-3:]
    assert [row["seed"] for row in rows] == [one.seed for one in made] == [3, 4, 5]
    assert all(0 < row["denoising_s"] <= row["seconds"] for row in rows)
    assert [event.data["video"] for event in events if event.kind == "video"] == [1, 2, 3]


def test_videos_of_several_prompts_are_those_of_a_call_each(
    alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, from one loading of every part; the records tell which is which."""
    workspace, settings = Workspace("alice"), config.resolve({**SMALL, "generate.count": 2}, project=alice).settings
    wanted = [generation.Asked("a person waves", 3), generation.Asked("a person runs", 5)]
    alone = []
    for one in wanted:
        resolved = config.resolve({**SMALL, "seed": one.seed}, project=alice)
        output = tmp_path / f"{one.seed}.mp4"
        (made,) = generation.generate(workspace, resolved, one.prompt, output=output, force=False, events=Events())
        alone.append(made.path.read_bytes())
    loaded, real = list[str](), Hunyuan.load

    def load(family: Hunyuan, part: Any) -> None:
        loaded.append(part)
        real(family, part)

    monkeypatch.setattr(Hunyuan, "load", load)
    found = generation.generate_each(workspace, settings, wanted, output=None, force=False, events=Events())
    assert [one.path.read_bytes() for one in found] == alone and alone[0] != alone[1]
    assert (loaded.count("text"), loaded.count("transformer")) == (1, 1)
    rows = read_lines(workspace.videos / "videos.jsonl")[-2:]
    assert [(row["prompt"], row["seed"]) for row in rows] == [(one.prompt, one.seed) for one in wanted]


def test_out_of_memory_goes_on_with_the_video_that_failed(
    alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends with the videos of a call in which nothing failed; the next plan is told of."""
    workspace, real, calls = Workspace("alice"), generation.sample, list[int]()
    resolved = config.resolve({**SMALL, "generate.count": 2}, project=alice)

    def made(folder: str, events: Events) -> list[bytes]:
        (tmp_path / folder).mkdir()
        found = generation.generate(workspace, resolved, "waves", output=tmp_path / folder, force=False, events=events)
        return [one.path.read_bytes() for one in found]

    def sample(*arguments: Any) -> torch.Tensor:
        calls.append(arguments[5])
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments)

    whole = made("whole", Events())
    monkeypatch.setattr(generation, "sample", sample)
    told = list[Event]()
    assert made("failed", Events(told.append)) == whole
    assert calls == [1, 2, 2]
    assert [event.data["message"] for event in told if event.kind == "fallback"] == [
        "Memory ran out at 'generate' with all of the model in memory: "
        "it goes on with memory plan 48gb, from what was finished."
    ]


def test_a_stop_tells_what_is_made_and_what_is_not(
    alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video that was being written counts as made; the seeds that are left give the rest of an undisturbed call."""
    workspace, real = Workspace("alice"), generation.write

    def made(seed: int, count: int, folder: str, events: Events) -> list[generation.Made]:
        (tmp_path / folder).mkdir(exist_ok=True)
        resolved = config.resolve({**SMALL, "seed": seed, "generate.count": count}, project=alice)
        return generation.generate(workspace, resolved, "waves", output=tmp_path / folder, force=False, events=events)

    whole = [one.path.read_bytes() for one in made(3, 3, "whole", Events())]
    events = Events()

    def write(*arguments: Any) -> Path:
        if arguments[3] == 4:
            events.request_stop()
        return real(*arguments)

    monkeypatch.setattr(generation, "write", write)
    with pytest.raises(Stopped) as caught:
        made(3, 3, "stopped", events)
    assert [one.seed for one in caught.value.made] == [3, 4] and caught.value.left == [5]
    monkeypatch.setattr(generation, "write", real)
    rest = made(5, 1, "stopped", Events())
    assert [one.path.read_bytes() for one in (*caught.value.made, *rest)] == whole


def test_generate_takes_the_adapter_that_is_named(alice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latents are those of that adapter; the record has its digest, or none."""
    workspace, latents = Workspace("alice"), dict[str, torch.Tensor]()
    real = generation.sample

    def kept(*arguments: Any) -> torch.Tensor:
        latents[which] = real(*arguments)
        return latents[which]

    monkeypatch.setattr(generation, "sample", kept)
    paths = {"final": generation.adapter_of(workspace), "stage-1": workspace.reconstruct / "adapter.safetensors"}
    for which in ("final", "stage-1", "none"):
        resolved = config.resolve({**SMALL, "generate.adapter": which}, project=alice)
        output = tmp_path / f"{which}.mp4"
        generation.generate(workspace, resolved, "a person waves", output=output, force=False, events=Events())
        record = read_lines(workspace.videos / "videos.jsonl")[-1]
        assert record["settings"]["adapter"] == which
        assert record["adapter"] == (file_digest(paths[which]) if which in paths else None)
        family = models.open_family(resolved.settings.model, Events())
        family.load("text")
        family.load("transformer")
        if which in paths:
            generation.load_adapted(family, paths[which])
        text = family.encode_text("a person waves")
        assert torch.equal(latents[which], family.sample(text, Shape(1, 64, 64), steps=STEPS, guidance=7.5, seed=3))
    assert len({tensor.numpy().tobytes() for tensor in latents.values()}) == 3


def test_stage_1_and_the_untouched_model_wait_for_stage_1_alone(alice: Path) -> None:
    """An identity whose stage 2 has not ended can be looked at; one without stage 1 cannot."""
    workspace = Workspace("alice")
    workspace.update(adapter=None)
    chosen: dict[str, Path | str | None] = {}
    for which in ("final", "stage-1", "none"):
        settings = config.resolve({**SMALL, "generate.adapter": which}, project=alice).settings
        try:
            chosen[which] = generation.chosen_adapter(workspace, settings)
        except MagicIDError as error:
            chosen[which] = error.code
    adapter = workspace.reconstruct / "adapter.safetensors"
    assert chosen == {"final": "identity-unfinished", "stage-1": adapter, "none": None}
    other = config.resolve({"model.name": "mini", "generate.adapter": "none"}, project=alice).settings
    with pytest.raises(MagicIDError) as caught:
        generation.chosen_adapter(workspace, other)
    assert caught.value.code == "model-mismatch"
    adapter.unlink()
    for which in ("stage-1", "none"):
        settings = config.resolve({**SMALL, "generate.adapter": which}, project=alice).settings
        with pytest.raises(MagicIDError, match="stage 1") as caught:
            generation.chosen_adapter(workspace, settings)
        assert caught.value.code == "identity-unfinished"


def test_while_stage_1_is_made_again_its_old_adapter_is_nobody_s(alice: Path) -> None:
    workspace = Workspace("alice")
    wanted = config.resolve({**SMALL, "generate.adapter": "stage-1"}, project=alice).settings
    assert generation.chosen_adapter(workspace, wanted) == workspace.reconstruct / "adapter.safetensors"
    assert comparison.items(workspace, wanted)
    stages = workspace.manifest()["stages"]
    begun = {name: stages["reconstruct"][name] for name in ("key", "begun")}
    workspace.update(stages={**stages, "reconstruct": {**begun, "state": "running"}})
    with pytest.raises(MagicIDError) as refused:
        generation.chosen_adapter(workspace, wanted)
    assert refused.value.code == "identity-unfinished"
    assert comparison.items(workspace, wanted) == []
