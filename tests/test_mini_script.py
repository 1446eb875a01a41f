"""`mini train` itself, every part of it for real, with few clips and steps: what it leaves is worthless, but whole.

Truth: the uninterrupted run, to the bit, and the code that opens the packaged weights.
"""

import shutil
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from magicid_cli import models
from magicid_cli.config import ModelSettings
from magicid_cli.events import Event, Events
from magicid_cli.models.base import Shape
from magicid_cli.models.catalog import VIDEO_MODELS
from magicid_cli.world import networks
from magicid_cli.world.networks import FaceEncoder, FaceFinder, PromptScorer
from magicid_cli.world.training import base, codec, judges, recipe

STEPS = 3  # of the flow; the other parts have one
JUDGES = {
    "face_finder": FaceFinder,
    "face_encoder": FaceEncoder,
    "face_judge": FaceEncoder,
    "prompt_scorer": PromptScorer,
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few clips, steps and measurements as the parts can do with."""
    monkeypatch.setattr(recipe, "_FEWEST", 1)
    monkeypatch.setattr(recipe, "_HELD_OUT", 2)
    monkeypatch.setattr(recipe, "DOSE", replace(recipe.DOSE, steps=1))
    monkeypatch.setattr(base, "DOSE", replace(base.DOSE, steps=STEPS))
    monkeypatch.setattr(base, "GUIDED_DOSE", replace(base.GUIDED_DOSE, steps=1))
    monkeypatch.setattr(base, "CLIPS", 20)
    monkeypatch.setattr(base, "_SHARD", 20)
    monkeypatch.setattr(base, "_BATCH", 4)
    monkeypatch.setattr(codec, "_SEEN", codec._SEEN[:2])
    monkeypatch.setattr(judges.FinderTask, "SIZE", 24)
    monkeypatch.setattr(judges.EncoderTask, "PEOPLE", 20)
    monkeypatch.setattr(judges.ScorerTask, "SIZE", 4)
    for kind, count in ((judges.FinderTask, 4), (judges.EncoderTask, 2), (judges.ScorerTask, 2)):
        monkeypatch.setattr(kind, "recipe", replace(kind.recipe, steps=1))
        monkeypatch.setattr(kind, "evaluate", partialmethod(kind.evaluate, count))


class Heard:
    """The parts that were made, the steps that were run, and what was said, since `clear`."""

    def __init__(self) -> None:
        self.events = Events(self._hear)
        self.clear()

    def clear(self) -> None:
        self.made: list[str] = []
        self.steps: list[tuple[str, int]] = []
        self.notices: list[str] = []

    def _hear(self, event: Event) -> None:
        if event.kind == "notice":
            self.notices.append(event.data["message"])
        elif event.kind == "stage" and event.data["state"] == "started":
            self.made.append(event.data["stage"])
        elif event.kind == "step" and "loss" in event.data:
            self.steps.append((event.data["stage"], event.data["step"]))


def flow(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights" / "hunyuan-mini" / "transformer" / "diffusion_pytorch_model.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], value) for name, value in second.items())


def test_the_script_trains_resumes_and_makes_again(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard()

    def train(only: str | None = None) -> recipe.Trained:
        heard.clear()
        return recipe.train(tmp_path, device="cpu", only=only, scale=1.0, events=heard.events)

    with monkeypatch.context() as ctrl_c:
        loss = base.Base.loss

        def pressed(task: base.Base, batch: base.Examples, step: int) -> torch.Tensor:
            if step == 1:
                heard.events.request_stop()
            return loss(task, batch, step)

        ctrl_c.setattr(base.Base, "loss", pressed)
        with pytest.raises(KeyboardInterrupt):
            train()
    assert heard.made == ["codec", "base"]
    assert not (tmp_path / "weights").exists()

    # It goes on, and what it leaves is opened as the package's weights are.
    heard = Heard()
    done = train()
    assert heard.made == ["base", "finder", "encoder", "judge", "scorer", "pack"]
    assert heard.steps[:2] == [("base", 3), ("guided", 1)]  # two were done
    assert heard.notices == []
    assert done.figures.keys() == {"codec", "base", "guided", *JUDGES}
    assert "HunyuanVideo" in (tmp_path / "weights" / "hunyuan-mini" / "README.md").read_text()
    for name, kind in JUDGES.items():
        networks.load(kind, tmp_path / "weights" / f"{name}.safetensors")
    packed = replace(VIDEO_MODELS["mini"], packaged=str(tmp_path / "weights" / "hunyuan-mini"))
    monkeypatch.setitem(VIDEO_MODELS, "mini", packed)
    family = models.open_family(ModelSettings(name="mini", device="cpu"), Events())
    for part in ("text", "vae", "transformer"):
        family.load(part)
    latents = family.sample(family.encode_text("A woman waves."), Shape(9, 48, 48), steps=1, guidance=2.0, seed=0)
    assert family.decode(latents).shape == (9, 48, 48, 3)

    # The same part made again, this time without a cut, comes out the same to the bit.
    first = flow(tmp_path)
    shutil.rmtree(tmp_path / "base")
    train()
    assert heard.made == ["base", "pack"]
    assert heard.steps == [("base", 1), ("base", 2), ("base", 3), ("guided", 1)]
    assert heard.notices == [f"{tmp_path / 'guided'} begins anew: base is made anew."]
    assert equal(flow(tmp_path), first)

    # Another autoencoder: its latents, and all that is learned from them.
    monkeypatch.setattr(recipe, "DOSE", replace(recipe.DOSE, steps=2))
    old = (tmp_path / "latents" / "000000.pt").read_bytes()
    shutil.rmtree(tmp_path / "codec")
    train("codec")
    train("base")
    assert heard.steps == [("base", 1), ("base", 2), ("base", 3), ("guided", 1)]
    train("pack")
    assert (tmp_path / "latents" / "000000.pt").read_bytes() != old
    assert not equal(flow(tmp_path), first)
