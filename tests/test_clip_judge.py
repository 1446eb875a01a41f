"""CLIP as a judge, on a tiny random checkpoint in the real layout.

The truths: transformers' own forward pass of the whole model (whose logits are cosines times a known factor) on inputs
that its own processor made, what Pillow resizes and cuts out, and counting tokens.
"""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny_clip
from hub_server import HubServer
from magicid_cli.config import RewardSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.models.catalog import JUDGES, VIDEO_MODELS
from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.clip import ClipJudge
from magicid_cli.rewards.semantics import open_judge

PROMPT = "A woman in a red coat runs across a bridge."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.build(tmp_path_factory.mktemp("clip") / "checkpoint")


@pytest.fixture(scope="module")
def judge(folder: Path) -> ClipJudge:
    return opened_at(folder)


def opened_at(folder: Path, events: Events | None = None) -> ClipJudge:
    return ClipJudge(folder, name="tiny/clip", commit="c0ffee", device="cpu", frames=3, events=events or Events())


def clip(seed: int = 0, prompt: str = PROMPT, height: int = 48, width: int = 80) -> Clip:
    frames = np.random.default_rng(seed).integers(0, 256, (9, height, width, 3), dtype=np.uint8)
    return Clip(frames, 24.0, prompt)


def whole_forward(folder: Path, shown: Clip, indices: list[int]) -> list[float]:
    """Cosines by the model's own forward pass on inputs of transformers' own processor."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token=tiny_clip.START, eos_token=tiny_clip.END
    )
    processor = CLIPProcessor(CLIPImageProcessorPil.from_pretrained(folder), tokenizer)
    images = [Image.fromarray(shown.frames[index]) for index in indices]
    inputs = processor(text=[shown.prompt], images=images, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    model = CLIPModel.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**inputs).logits_per_image[:, 0] / model.logit_scale.exp()
    return list(logits.tolist())


@pytest.mark.parametrize(("height", "width"), [(48, 80), (80, 48), (20, 20)])
def test_the_value_is_100_times_the_mean_cosine_of_the_models_own_forward_pass(
    judge: ClipJudge, folder: Path, height: int, width: int
) -> None:
    shown = clip(1, height=height, width=width)
    raw = judge.score(shown)
    assert raw["frames"] == [1, 4, 7] and raw["cut"] == 0
    expected = whole_forward(folder, shown, raw["frames"])
    np.testing.assert_allclose(raw["cosines"], expected, atol=1e-5)
    assert raw["value"] == pytest.approx(100 * np.mean(expected), abs=1e-3)
    assert -100 <= raw["value"] <= 100
    json.dumps(raw)


def test_frames_and_prompt_matter_and_nothing_else_does(judge: ClipJudge) -> None:
    values = [judge.score(one)["value"] for one in (clip(0), clip(1), clip(0, "A man walks at night."))]
    assert min(abs(a - b) for i, a in enumerate(values) for b in values[:i]) > 1e-4
    assert judge.score(clip(0))["value"] == values[0]


def test_what_it_sees_is_the_middle_square(judge: ClipJudge) -> None:
    """Pixels far from the middle of a wide frame do not count; Pillow's bicubic filter reaches two pixels."""
    shown = clip(2, height=32, width=96)
    other = shown.frames.copy()
    other[:, :, :24] = 0
    other[:, :, 72:] = 255
    assert judge.score(Clip(other, 24.0, PROMPT))["value"] == pytest.approx(judge.score(shown)["value"], abs=1e-9)


def test_a_prompt_that_is_too_long_is_cut_counted_and_told_once(folder: Path) -> None:
    heard: list[Event] = []
    judge = opened_at(folder, Events(heard.append))
    words = ("the bridge " * 20).split()
    raw = judge.score(clip(0, " ".join(words)))
    assert raw["cut"] == len(words) + 2 - tiny_clip.CONTEXT  # each word is one token, and there are two markers
    kept = judge.score(clip(0, " ".join(words[: tiny_clip.CONTEXT - 2])))
    assert kept["cut"] == 0 and kept["value"] == raw["value"]
    notices = [event.data["message"] for event in heard if event.kind == "notice"]
    assert len(notices) == 1 and str(tiny_clip.CONTEXT) in notices[0]


def test_no_prompt_can_end_itself(judge: ClipJudge) -> None:
    judge.load()
    ids, _ = judge._ids(f"a man {tiny_clip.END} a woman")
    end = judge._tokenizer.token_to_id(tiny_clip.END)
    assert [number for number in ids if number == end] == [end]


def test_its_memory_is_given_back_and_it_can_score_again(folder: Path) -> None:
    judge = opened_at(folder)
    before = judge.score(clip(0))
    weights = [weakref.ref(value) for value in judge._model.parameters()]
    assert len(weights) > 20
    judge.close()
    assert [one for one in weights if one() is not None] == []
    assert judge.score(clip(0)) == before


def _drop_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _poison(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["visual_projection.weight"].fill_(float("nan"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _other_markers(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace(tiny_clip.START, "<s>"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_drop_a_weight, "visual_projection.weight"),
        (_poison, "not finite"),
        (_other_markers, "tokenizer"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "siglip"}'), "is a siglip"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 20), "cannot be loaded"),
    ],
)
def test_a_damaged_checkpoint_is_never_used(tmp_path: Path, damage: Callable[[Path], object], reason: str) -> None:
    folder = tiny_clip.build(tmp_path / "checkpoint")
    damage(folder)
    with pytest.raises(MagicIDError, match=reason) as caught:
        opened_at(folder).score(clip())
    assert caught.value.code == "model-unusable"


def test_it_comes_by_its_name_from_the_hub_without_pickles(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The real repository also holds other tools' copies of the weights: none of them is fetched."""
    repository = tiny_clip.build(tmp_path / "repository")
    for name in ("pytorch_model.bin", "open_clip_pytorch_model.bin", "open_clip_model.safetensors"):
        (repository / name).write_bytes(b"a copy")
    source = JUDGES["clip-vit-b-32"].source
    hub.add(source.repo, repository, source.revision)
    settings: Any = RewardSettings(vlm="clip-vit-b-32", sampled_frames=3)
    found = open_judge(settings, VIDEO_MODELS["tiny"], device="cpu", offline=False, events=Events())
    assert isinstance(found, ClipJudge)
    assert found.score(clip()) == opened_at(folder).score(clip())
    assert found.made_by == f"{source.repo} {source.revision} float32 3 frames 100 x cosine"
    assert not hub.asked(r"\.bin|open_clip")
