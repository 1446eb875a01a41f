"""The networks of FVD and of the CLIP metrics: fetched, checked, announced, and doing what they should.

Truths: a local Hub and a tiny TorchScript file of I3D's signature whose answer can be computed by hand; an I3D written
as modules, from its paper's table; transformers' own forward pass of a tiny CLIP.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filmed import film
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import tiny_clip
from hub_server import HubServer
from magicid_cli.config import Settings, resolve
from magicid_cli.errors import MagicIDError
from magicid_cli.evaluation import Item, evaluate, features, i3d, measure, pictures
from magicid_cli.evaluation.features import Features
from magicid_cli.evaluation.measure import Photos
from magicid_cli.evaluation.motion import Motion
from magicid_cli.evaluation.pictures import Pictures
from magicid_cli.events import Event, Events
from magicid_cli.models.catalog import FEATURE_MODELS
from magicid_cli.rewards import flow
from magicid_cli.rewards.base import Clip
from magicid_cli.rewards.clip import ClipJudge
from magicid_cli.workspace import cache_home

SOURCE = FEATURE_MODELS["i3d"].source


class Colours(nn.Module):
    """I3D's signature, and for an answer the mean colour of the first and of the second half, from -1 to 1."""

    def forward(
        self, x: torch.Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> torch.Tensor:
        if rescale or resize or not return_features:
            raise RuntimeError("called as something else")
        half = x.shape[2] // 2
        return torch.cat([x[:, :, :half].mean((2, 3, 4)), x[:, :, half:].mean((2, 3, 4))], 1)


def settings(**values: Any) -> Settings:
    named = {name.replace("__", "."): value for name, value in values.items()}
    return resolve({"model.name": "hunyuan-video", "rewards.flow": "dis", **named}).settings


def clip(seed: int = 0, frames: int = 16) -> Clip:
    shown = np.random.default_rng(seed).integers(0, 256, (frames, 24, 40, 3), dtype=np.uint8)
    return Clip(shown, 8.0, "")


def script(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.script(Colours()).save(str(path))
    return path


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def events(heard: list[str]) -> Events:
    def listen(event: Event) -> None:
        if event.kind == "notice":
            heard.append(event.data["message"])

    return Events(listen)


@pytest.fixture
def served(hub: HubServer, tmp_path: Path) -> Path:
    """The catalog's file of I3D on the local Hub."""
    path = script(tmp_path / "repository" / FEATURE_MODELS["i3d"].file)
    hub.add(SOURCE.repo, path.parent)
    return path


def test_i3d_is_fetched_and_its_content_announced_once(
    served: Path, hub: HubServer, events: Events, heard: list[str]
) -> None:
    content = hashlib.sha256(served.read_bytes()).hexdigest()
    found = Features(settings(), events)
    assert f"sha256:{content}" in found.made_by
    assert [content in text for text in heard] == [False, True]
    assert SOURCE.licence in heard[0]
    asked = len(hub.requests)
    assert Features(settings(), events).made_by == found.made_by
    assert len(heard) == 2
    assert len(hub.requests) == asked, "what is here is used without asking"


def test_another_device_or_release_is_another_judge(
    tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their numbers differ by rounding, so what one has measured is no answer of the other's."""

    def all_three() -> tuple[str, str, str]:
        wanted = settings(evaluate__fvd_features=str(path), rewards__flow="raft")
        motion, shown = Motion(wanted, events), Pictures(wanted, Photos([]), events)
        return Features(wanted, events).made_by, shown.made_by, motion.made_by

    path = script(tmp_path / "own.pt")
    monkeypatch.setattr(flow, "require", lambda name: None)  # its weights are not read for its name
    found = [all_three()]
    assert all(text.endswith(f"torch {torch.__version__.partition('+')[0]} on cpu") for text in found[0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found.append(all_three())
    monkeypatch.setattr(measure, "version", lambda name: "9.9.9+cu999")
    found.append(all_three())
    assert found[2][0].endswith("torch 9.9.9 on cuda")
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "version", lambda name: f"8.8.8 of {name}")
        assert "transformers 8.8.8 of transformers" in Pictures(settings(), Photos([]), events).made_by
    on_cpu = settings(evaluate__fvd_features=str(path), rewards__flow="raft", model__device="cpu")
    assert Motion(on_cpu, events).made_by.endswith("on cpu"), "--device cpu is heard where there is a GPU"
    assert all(len(set(texts)) == 3 for texts in zip(*found, strict=True))


def test_a_program_that_changed_is_not_run_until_that_is_accepted(events: Events, tmp_path: Path) -> None:
    path = script(tmp_path / "own.pt")
    wanted = settings(evaluate__fvd_features=str(path))
    before = Features(wanted, events).made_by
    first = hashlib.sha256(path.read_bytes()).hexdigest()
    with path.open("ab") as file:
        file.write(b"\0")
    noted = cache_home() / "evaluation" / "features.json"
    for _ in range(2):
        with pytest.raises(MagicIDError) as caught:
            Features(wanted, events)
        assert caught.value.code == "features-unusable"
        for content in (first, hashlib.sha256(path.read_bytes()).hexdigest()):
            assert content in caught.value.message
        assert str(noted) in caught.value.hint
    noted.write_text("no JSON", encoding="utf-8")
    assert Features(wanted, events).made_by != before


def test_tensors_that_changed_are_told(events: Events, heard: list[str], tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    made_by = set()
    for value in range(2):
        save_file({"a": torch.full((3,), float(value))}, path)
        made_by.add(Features(settings(evaluate__fvd_features=str(path)), events).made_by)
    assert len(made_by) == len(heard) == 2
    assert "has changed" in heard[1]


def test_i3d_sees_rgb_from_minus_one_to_one_and_the_first_frames_alone(events: Events, tmp_path: Path) -> None:
    """Mean colours do not depend on the size that pictures are brought to, by area and here by a whole factor."""
    path = script(tmp_path / "own.pt")
    found = Features(settings(evaluate__fvd_features=str(path), evaluate__fvd_frames=10), events)
    frames = np.zeros((12, 448, 448, 3), np.uint8)
    frames[:5], frames[5:10], frames[10:] = (255, 0, 51), (0, 102, 255), 77
    vector = found.look(Clip(frames, 8.0, ""), None)["vector"]
    assert vector == pytest.approx([1, -1, -0.6, -1, -0.2, 1], abs=1e-5)
    assert found.look(Clip(frames[:9], 8.0, ""), None) == {"vector": None}, "too short"


@pytest.mark.parametrize("content", ["nothing", "program", "tensors", "missing", "pickle"])
def test_a_file_that_is_no_i3d_is_refused(content: str, events: Events, tmp_path: Path) -> None:
    path = tmp_path / ("own.safetensors" if content == "tensors" else "own.pt")
    if content == "nothing":
        path.write_bytes(b"no program")
    elif content == "program":
        torch.jit.script(nn.Linear(3, 4)).save(str(path))
    elif content == "tensors":
        save_file({"a": torch.zeros(3)}, path)
    elif content == "pickle":
        path = path.with_suffix(".bin")
        torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(MagicIDError) as caught:
        Features(settings(evaluate__fvd_features=str(path)), events).look(clip(), None)
    assert caught.value.code == "features-unusable"
    assert "own" in caught.value.message


def test_without_a_network_fvd_is_a_stated_gap(events: Events, heard: list[str], tmp_path: Path) -> None:
    found, why = features_or_why(settings(model__offline=True), [tmp_path / "a.mp4"], events)
    assert found is None
    assert SOURCE.repo in why
    assert "There will be no FVD" in heard[-1]


def features_or_why(wanted: Settings, reference: list[Path], events: Events) -> tuple[Features | None, str]:
    from magicid_cli.evaluation import harness

    return harness._features(wanted, reference, events)


# I3D


class Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: tuple[int, int] = (0, 0)):
        super().__init__()
        self.pad = nn.ConstantPad3d(padding * 3, 0.0)
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv3d(self.pad(x))))


class Mixed(nn.Module):
    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, two_a, two_b, three_a, three_b, four = widths
        self.b0 = Unit(inputs, one, 1)
        self.b1a, self.b1b = Unit(inputs, two_a, 1), Unit(two_a, two_b, 3, padding=(1, 1))
        self.b2a, self.b2b = Unit(inputs, three_a, 1), Unit(three_a, three_b, 3, padding=(1, 1))
        self.pool, self.b3b = nn.MaxPool3d(3, 1, padding=1), Unit(inputs, four, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.pool(x))], 1)


class Inception(nn.Module):
    """I3D for 16 frames of 224 pixels, an eighth as wide (table 1 of Szegedy et al. 2014, inflated).

    TensorFlow's SAME padding for these sizes: (2, 3) before the first convolution, and one at the end, or none, before
    a pool of 3 with stride 2.
    """

    WIDTHS = {
        "3b": (64, 96, 128, 16, 32, 32),
        "3c": (128, 128, 192, 32, 96, 64),
        "4b": (192, 96, 208, 16, 48, 64),
        "4c": (160, 112, 224, 24, 64, 64),
        "4d": (128, 128, 256, 24, 64, 64),
        "4e": (112, 144, 288, 32, 64, 64),
        "4f": (256, 160, 320, 32, 128, 128),
        "5b": (256, 160, 320, 32, 128, 128),
        "5c": (384, 192, 384, 48, 128, 128),
    }

    def __init__(self, narrower: int = 8) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64 // narrower, 7, 2, (2, 3))
        self.Conv3d_2b_1x1 = Unit(64 // narrower, 64 // narrower, 1)
        self.Conv3d_2c_3x3 = Unit(64 // narrower, 192 // narrower, 3, padding=(1, 1))
        inputs = 192 // narrower
        for name, widths in self.WIDTHS.items():
            one, two_a, two_b, three_a, three_b, four = (width // narrower for width in widths)
            self.add_module(f"Mixed_{name}", Mixed(inputs, (one, two_a, two_b, three_a, three_b, four)))
            inputs = one + two_b + three_b + four
        self.logits = nn.Module()
        self.logits.conv3d = nn.Conv3d(inputs, 11, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = nn.Sequential(nn.ConstantPad3d((0, 1, 0, 1, 0, 0), 0.0), nn.MaxPool3d((1, 3, 3), (1, 2, 2)))
        whole = nn.Sequential(nn.ConstantPad3d((0, 1, 0, 1, 0, 1), 0.0), nn.MaxPool3d(3, 2))
        x = flat(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(flat(self.Conv3d_1a_7x7(x)))))
        for name in self.WIDTHS:
            x = {"4b": whole, "5b": nn.MaxPool3d(2, 2)}.get(name, nn.Identity())(x)
            x = self.get_submodule(f"Mixed_{name}")(x)
        answer: torch.Tensor = self.get_submodule("logits.conv3d")(nn.functional.avg_pool3d(x, (2, 7, 7), 1))
        return answer.squeeze(4).squeeze(3).mean(2)


def test_i3d_from_safetensors_is_the_network_of_the_paper(events: Events, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Inception().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    shown = torch.randn(1, 3, 16, 224, 224).clamp(-1, 1)
    with torch.inference_mode():
        truth = network(shown)
        assert torch.allclose(i3d.logits(shown, tensors), truth, atol=1e-5)
    assert truth.std() > 1e-3
    path = tmp_path / "i3d.safetensors"
    save_file(tensors, path)
    found = Features(settings(evaluate__fvd_features=str(path)), events)
    assert len(found.look(clip(), None)["vector"]) == 11
    del tensors["Mixed_4d.b2a.bn.weight"]
    save_file(tensors, path)
    with pytest.raises(MagicIDError) as caught:
        Features(settings(evaluate__fvd_features=str(path)), events).look(clip(), None)
    assert "Mixed_4d.b2a.bn.weight" in caught.value.message


# CLIP


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.build(tmp_path_factory.mktemp("clip") / "checkpoint")


@pytest.fixture
def looked(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    def opened(name: str, **_: Any) -> ClipJudge:
        return ClipJudge(checkpoint, name="tiny/clip", commit="c0ffee", device="cpu", frames=1, events=Events())

    monkeypatch.setattr(pictures, "open_clip", opened)
    photos = []
    for number in range(2):
        photos.append(tmp_path / f"{number}.png")
        Image.fromarray(clip(10 + number).frames[0]).save(photos[-1])
    measure = Pictures(settings(), Photos(photos), Events())
    return lambda frames, prompt: measure.look(Clip(frames, 8.0, ""), prompt)


def test_the_clip_metrics_are_those_of_the_models_own_forward_pass(
    looked: Callable[..., dict[str, Any]], checkpoint: Path
) -> None:
    from transformers import CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

    prompt, frames = "a man runs across the bridge", clip(3, 7).frames
    model = CLIPModel.from_pretrained(checkpoint).eval()
    images = [Image.fromarray(frame) for frame in frames] + [Image.fromarray(clip(10 + n).frames[0]) for n in range(2)]
    pixels = CLIPImageProcessorPil.from_pretrained(checkpoint)(images=images, return_tensors="pt")["pixel_values"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"))
    with torch.inference_mode():
        whole = model(input_ids=torch.tensor([tokenizer(prompt)["input_ids"]]), pixel_values=pixels)
    seen, words = whole.image_embeds.double(), whole.text_embeds.double()[0]
    shown, photos = seen[:7], seen[7:]
    found = looked(frames, prompt)
    assert found["consistency"] == pytest.approx(float((shown[1:] * shown[:-1]).sum(1).mean()), abs=1e-6)
    assert found["clip_t"] == pytest.approx(100 * float((shown @ words).mean()), abs=1e-4)
    assert found["clip_i"] == pytest.approx(100 * float((shown @ photos.T).mean()), abs=1e-4)
    # The mistake of a published evaluation would be seen.
    assert looked(frames[..., ::-1], prompt)["clip_i"] != pytest.approx(found["clip_i"], abs=1e-2)


def test_what_clip_cannot_read_of_a_prompt_is_counted(looked: Callable[..., dict[str, Any]]) -> None:
    long = " ".join(["bridge"] * (tiny_clip.CONTEXT + 3))
    assert looked(clip().frames, long)["cut"] == 5  # two places are the markers'
    assert looked(clip().frames, "bridge")["cut"] == 0


def test_truncation_is_reported_over_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the stand-ins of `tiny`, told that a prompt was too long."""
    from magicid_cli.rewards.standin import StandInJudge

    real = StandInJudge.words
    monkeypatch.setattr(StandInJudge, "words", lambda self, text: (real(self, text)[0], 4 if "long" in text else 0))
    photo = tmp_path / "photo.png"
    Image.fromarray(clip(1).frames[0]).save(photo)
    items = [
        Item(film(tmp_path, f"v{n}", clip(n).frames), f"v{n}", prompt)
        for n, prompt in enumerate(("a long way", "a long way", "short", None))
    ]
    found = evaluate(items, [photo], settings(model__name="tiny"), store=tmp_path / "store", events=Events())
    assert any("1 of 2 prompts are longer" in note for note in found.notes)
    assert any("without CLIP-T: 1 of 4" in note for note in found.notes)
    assert found.figures["clip_t"].videos == 3
    assert any("stand-ins" in note for note in found.notes)


def test_another_clip_must_be_one_of_the_catalog() -> None:
    with pytest.raises(MagicIDError) as caught:
        Pictures(settings(evaluate__clip="qwen3-vl-4b"), Photos([]), Events())
    assert caught.value.code == "settings-unknown"
    assert "clip-vit-b-32" in caught.value.hint


def test_no_file_of_another_kind_is_fetched_for_others(hub: HubServer, served: Path) -> None:
    """TorchScript may come for FVD alone: what fetches faces still refuses it."""
    from magicid_cli import hub as weights

    with pytest.raises(MagicIDError) as caught:
        weights.fetch_file(SOURCE, FEATURE_MODELS["i3d"].file, offline=False, events=Events())
    assert caught.value.code == "weights-unsafe"
    assert features.TORCHSCRIPT not in weights.FILE_FORMATS
