"""The demo's strip: whose videos it shows, and what is asked of them. Random weights; the judges are not asked.

Truth: `magicid generate`'s own path (an adapter on a fresh model), the untouched model, the prompt that the command
line makes of a user's, and the renderer.
"""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from magicid_cli import adapters, config, generation, models
from magicid_cli.config import ModelSettings
from magicid_cli.events import Events
from magicid_cli.models.base import Shape
from magicid_cli.workspace import Workspace
from magicid_cli.world import captions, clips
from magicid_cli.world.people import HELD_OUT, person

ROOT = Path(__file__).resolve().parents[1]
STEPS = 2


@pytest.fixture(scope="module")
def strip() -> Any:
    spec = importlib.util.spec_from_file_location("strip", ROOT / "demo" / "strip.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["strip"] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def alice(mini_here: Path) -> Workspace:
    """An identity with two adapters that change something."""
    family = models.open_family(ModelSettings("mini", device="cpu"), Events())
    family.load("transformer")
    spec = adapters.AdapterSpec(rank=2, alpha=2.0, targets="attention", double_blocks_only=False)
    adapters.attach(family.transformer, "policy", spec, seed=0)
    shapes = {name: value.shape for name, value in adapters.tensors(family.transformer, "policy").items()}
    workspace = Workspace("alice")
    workspace.create()
    for seed, name in enumerate(("reconstruct", "prefer")):
        generator = torch.Generator().manual_seed(seed)
        values = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
        adapters.save(workspace.path / name / "adapter.safetensors", values, spec)
    workspace.update(model="mini", class_word="woman", adapter="prefer/adapter.safetensors")
    return workspace


def test_videos_are_those_of_generate_with_each_adapter(strip: Any, alice: Workspace) -> None:
    settings = config.with_values(config.resolve(identity_model="mini").settings, {"generate.steps": STEPS})
    wanted = [strip.Wanted("A woman dances in a garden.", 3), strip.Wanted("A woman nods at the beach.", 4)]
    made = strip.videos(alice, settings, wanted)
    assert list(made) == ["untouched", "stage 1", "MagicID"]
    paths = {"untouched": None, "stage 1": alice.reconstruct, "MagicID": alice.prefer}
    seen = []
    for who, folder in paths.items():
        family = models.open_family(ModelSettings("mini", device="cpu"), Events())
        family.load("text")
        family.load("vae")
        if folder is None:
            family.load("transformer")
        else:
            generation.load_adapted(family, folder / "adapter.safetensors")
        for one, video in zip(wanted, made[who], strict=True):
            latents = family.sample(
                family.encode_text(one.prompt),
                Shape(9, 48, 48),
                steps=STEPS,
                guidance=settings.generate.guidance,
                seed=one.seed,
            )
            assert np.array_equal(family.decode(latents), video), (who, one)
            seen.append(video.tobytes())
    assert len(set(seen)) == 6, "no two videos are the same"


def test_the_prompt_is_the_one_of_generate(strip: Any) -> None:
    assert strip.said("alice dances in a garden", "alice", "woman") == "A woman dances in a garden"


def test_what_could_be_is_the_person_doing_what_the_prompt_says(strip: Any) -> None:
    """Against a scene made by hand; every prompt of the demo names what it shows."""
    prompt = "A woman in a denim jacket dances in a library, surprised, in dim light."
    scene = clips.Scene(7, "dance", "library", "denim jacket", "dim", "surprised", seed=5)
    assert np.array_equal(strip.rendered(strip.Wanted(prompt, 5), 7, clips.SIZE), clips.render(scene).frames)
    assert strip.rendered(strip.Wanted(prompt, 5), 7, 256).shape == (clips.FRAMES, 256, 256, 3)
    other = strip.rendered(strip.Wanted(prompt, 5), 8, clips.SIZE)
    assert not np.array_equal(other, clips.render(scene).frames)


def test_figures_are_means(strip: Any) -> None:
    rows = [strip.Judged(0.5, 4.0, True), strip.Judged(0.25, 2.0, False), strip.Judged(0.0, 0.0, False)]
    assert strip.mean(rows) == {"likeness": 0.25, "motion": 2.0, "followed": 0.333}


def test_the_strip_has_a_row_for_the_photos_and_each_model(strip: Any, tmp_path: Path) -> None:
    # No grey: the text is.
    album = [plain(64, (10 * number, 60, 90)) for number in range(10)]
    reds = {"untouched": 99, "stage 1": 140, "MagicID": 180}
    videos = {who: [np.stack([plain(48, (red, blue, 9))] * 9) for blue in (9, 60)] for who, red in reds.items()}
    judged = dict.fromkeys(reds, [strip.Judged(0.5, 4.0, True)] * 2)
    shown = [strip.Wanted("A woman nods.", 1), strip.Wanted("A woman dances.", 1)]
    strip.draw(tmp_path / "strip.png", shown, album, videos, judged)
    page = np.asarray(Image.open(tmp_path / "strip.png"))
    rows = [(red, blue, 9) for blue in (9, 60) for red in reds.values()]
    found = [np.argwhere((page == colour).all(-1)) for colour in [(10, 60, 90), (80, 60, 90), *rows]]
    assert [len(place) / strip.SIDE**2 for place in found] == [1, 1, *[9] * 6]
    tops = [place[:, 0].min() for place in found]
    assert tops == sorted(tops) and len(set(tops)) == 7
    assert tops[5] - tops[4] > tops[4] - tops[3], "a new prompt has a line of its own"
    assert page.shape[1] < 1200


def plain(side: int, colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


def test_the_demo_asks_for_what_the_world_has() -> None:
    """The prompts of `run.sh` name an action, a place and an outfit; its person is held out, and what it calls her."""
    script = (ROOT / "demo" / "run.sh").read_text(encoding="utf-8")
    values = dict(line.split("=", 1) for line in script.splitlines() if re.match(r"[a-z]+=", line))
    for prompt in (values["prompt"], values["second"]):
        assert None not in vars(captions.wish(prompt.strip('"'))).values()
    who = person(int(values["person"]))
    assert who.seed in HELD_OUT
    assert f"--class-word {who.kind} " in script
