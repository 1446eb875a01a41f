"""Magic-Me's keywords, against: rows that must differ, captions without a place for them, and a GPU without room.

The GPU is torch's `meta` device: what is computed there gives no number, so a text encoder on it would fail.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from album import SMALL
from magicid_cli import config, keywords, methods, models
from magicid_cli.baselines import magic_me
from magicid_cli.conditioning import references
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Event, Events
from magicid_cli.models.execution import Execution
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.training import Batch
from magicid_cli.workspace import Workspace, read_lines

pytestmark = pytest.mark.xdist_group("finished")

ANNA = "A photo of Anna, head and shoulders"


def run(home: Path, changes: Mapping[str, Any], events: Events | None = None) -> Any:
    resolved = config.resolve({**SMALL, **changes}, project=home)
    return methods.run(Workspace("alice"), "magic-me", resolved, None, events or Events())


def recaption(*captions: str) -> None:
    """Write captions as a person does who edits the file; the photos after them keep theirs."""
    folder = Workspace("alice").references
    path = folder / "captions.jsonl"
    rows = read_lines(path)
    for row, caption in zip(rows, captions, strict=False):
        row["caption"] = caption
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("kind", keywords.KINDS)
def test_the_keywords_are_several(alice: Path, kind: str) -> None:
    """Rows that began and stayed equal would be one keyword said four times: all differ by more than rounding."""
    rows = keywords.load(run(alice, {"magic_me.kind": kind, "magic_me.learning_rate": 0.5}).adapter).rows
    apart = torch.cdist(rows, rows) / rows.norm(dim=1).mean()
    assert apart[~torch.eye(len(rows), dtype=torch.bool)].min() > 1e-3


@pytest.mark.parametrize("kind", keywords.KINDS)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_a_learning_rate_is_a_share_of_the_row_whatever_its_size(
    alice: Path, kind: str, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdamW moves a number by its rate a step at most: a row by that share of its size, by a tenth of it at least."""
    starts, steps, rate, decay = list[torch.Tensor](), 16, 1e-2, 0.01
    real = keywords.beginning

    def scaled(*given: Any) -> torch.Tensor:
        starts.append(real(*given) * size)
        return starts[-1]

    monkeypatch.setattr(keywords, "beginning", scaled)
    run(alice, {"magic_me.kind": kind, "magic_me.learning_rate": rate, "magic_me.weight_decay": decay})
    rows = keywords.load(magic_me.path_of(Workspace("alice").of_method("magic-me"))).rows
    (start,) = starts
    moved = (rows - start).square().mean(1).sqrt() / start.square().mean(1).sqrt()
    by_decay_alone = 1 - (1 - rate * decay) ** steps
    assert 0.1 * steps * rate < moved.min() and moved.max() < 1.01 * steps * rate
    assert moved.min() > 10 * by_decay_alone


@pytest.mark.parametrize("kind", keywords.KINDS)
def test_training_lowers_the_error_on_fixed_draws(alice: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean error over the same clips, noise and times, with the rows as they began and as they ended."""
    kept, real = dict[str, Any](), magic_me.accumulate

    def spy(family: Any, latents: Any, masks: Any, prompted: Any, rows: Any, *rest: Any) -> dict[str, float]:
        kept.update(family=family, clips=(latents, masks, prompted), rows=rows)
        return real(family, latents, masks, prompted, rows, *rest)

    monkeypatch.setattr(magic_me, "accumulate", spy)
    changes = {"magic_me.kind": kind, "magic_me.learning_rate": 0.1}
    run(alice, changes)
    settings, family = config.resolve({**SMALL, **changes}, project=alice).settings, kept["family"]
    family.load("transformer")

    def error() -> float:
        batch = Batch(0, tuple(range(3)) * 4, torch.Generator().manual_seed(5))
        latents, masks, prompted = kept["clips"]
        return real(family, latents, masks, prompted, kept["rows"], batch, settings)["loss"]

    after = error()
    kept["rows"].moved.data.zero_()
    assert after < error()


def test_states_to_begin_from_are_those_of_the_word_said_so_often() -> None:
    """Against the pipeline's encoding of the prompt with the word written out, at the places of the first ones."""
    family = models.open_family(config.ModelSettings(name="tiny"), Events())
    assert isinstance(family, Hunyuan)
    encoder = keywords.open_encoder(family)
    rows = keywords.beginning(encoder, "output", ["A person walks", "nobody"], "person", 3)
    family.load("text")
    whole = family.encode_text("A person person person person walks")["prompt_embeds"]
    first = keywords.row_of(encoder.placed("A person walks", "person", 3))
    torch.testing.assert_close(rows, whole[first : first + 3].float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", keywords.KINDS)
def test_captions_that_never_say_the_class_word_are_refused_before_anything_is_loaded(
    alice: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recaption(*[ANNA] * 3)
    monkeypatch.setattr(keywords, "open_encoder", lambda *_, **__: pytest.fail("the text encoders were loaded"))
    with pytest.raises(MagicIDError) as caught:
        run(alice, {"magic_me.kind": kind})
    assert caught.value.code == "captions-unusable" and "'person'" in caught.value.message
    assert str(Workspace("alice").references / "captions.jsonl") in caught.value.hint


@pytest.mark.parametrize("kind", keywords.KINDS)
def test_a_caption_without_the_class_word_is_told_and_not_trained_on(
    alice: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips, outlines and captions of the other photos alone, each still beside its own."""
    before = references(Workspace("alice"))
    recaption(before[0].caption, ANNA)
    told, seen = list[Event](), dict[str, Any]()
    real = magic_me.accumulate

    def spy(family: Any, latents: Any, masks: Any, *rest: Any) -> dict[str, float]:
        seen.update(latents=latents, masks=masks)
        return real(family, latents, masks, *rest)

    monkeypatch.setattr(magic_me, "accumulate", spy)
    run(alice, {"magic_me.kind": kind}, Events(told.append))
    said = [event.data["message"] for event in told if event.kind == "notice"]
    assert any(before[1].crop.name in one and before[0].crop.name not in one for one in said)
    every = magic_me.latents_of(
        Workspace("alice").of_method("magic-me"),
        config.resolve(SMALL, project=alice).settings,
        models.open_family(config.ModelSettings(name="tiny"), Events()),
        Events(),
        "magic-me",
    )
    assert len(every) == 3 and len(seen["masks"]) == 2
    assert all(torch.equal(*pair) for pair in zip(seen["latents"], [every[0], every[2]], strict=True))
    result = Workspace("alice").of_method("magic-me").manifest()["stages"]["magic-me"]["result"]
    assert result["clips"] == 2


def test_without_keywords_in_it_a_prompt_has_no_gradient() -> None:
    """Recomputed layers make transformers let every embedding require one: a graph that leads nowhere."""
    family = models.open_family(config.ModelSettings(name="tiny"), Events())
    encoder = keywords.open_encoder(family, gradients=True)
    rows = torch.nn.Parameter(keywords.beginning(encoder, "input", [], "person", 2))
    assert encoder.states(encoder.placed("A person walks", "person", 2), rows).requires_grad
    assert not encoder.states(encoder.placed(ANNA, "person", 2), rows).requires_grad


def on_the_cpu() -> Hunyuan:
    """A family on a device whose memory has no room for the text encoders."""
    here = models.open_family(config.ModelSettings(name="tiny"), Events())
    assert isinstance(here, Hunyuan)
    held = Execution(text_encoder="cpu")
    return Hunyuan(here.folder, commit=here.commit, device="meta", dtype=torch.float32, execution=held)


@pytest.mark.parametrize("kind", keywords.KINDS)
def test_text_encoders_that_have_no_room_on_the_gpu_run_on_the_cpu(kind: str) -> None:
    """Both kinds of keywords in a prompt: as by the family that has room."""
    found = []
    for family in (on_the_cpu(), models.open_family(config.ModelSettings(name="tiny"), Events())):
        encoder = keywords.open_encoder(family)
        rows = torch.linspace(-1, 1, 2 * encoder.width).reshape(2, -1)
        given = keywords.Keywords(rows, keywords.KeywordSpec(kind, "person", 2, encoder.width, family.commit))
        found.append(keywords.encode(encoder, "A person walks", given)[0])
        encoder.close()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_states_go_to_the_gpu_where_the_video_model_reads_them() -> None:
    family = on_the_cpu()
    encoder = keywords.open_encoder(family)
    spec = keywords.KeywordSpec("output", "person", 2, encoder.width, family.commit)
    prompted = magic_me._prompted(encoder, ["A person walks"], spec, family.device)
    encoder.close()
    text = prompted(0, torch.zeros(2, spec.width, device="meta", requires_grad=True))
    assert text["prompt_embeds"].device == family.device and text["prompt_embeds"].requires_grad


def test_llama_stays_on_the_gpu_where_keywords_are_trained_through_it() -> None:
    """Only CLIP, which has no keyword, goes to the CPU: layers trained through are not moved in silence."""
    encoder = keywords.open_encoder(on_the_cpu(), gradients=True)
    assert {one.device.type for one in encoder.llama.parameters()} == {"meta"}
    assert {one.device.type for one in encoder.clip.parameters()} == {"cpu"}
    assert encoder.pooled("A person walks").isfinite().all()
