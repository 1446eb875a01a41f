"""Trained keywords in prompts, against: the pipeline's own encoding, a prompt that says the class word as often, finite
differences, the file read back, and CLIP's old configuration.
"""

from pathlib import Path

import pytest
import torch

from magicid_cli import keywords, models
from magicid_cli.config import ModelSettings
from magicid_cli.errors import MagicIDError
from magicid_cli.events import Events
from magicid_cli.keywords import Keywords, KeywordSpec
from magicid_cli.models.hunyuan import Hunyuan
from magicid_cli.models.hunyuan_keywords import KeywordEncoder, require_end

PROMPT = "A person walks in the city, and another person looks."


@pytest.fixture
def family() -> Hunyuan:
    opened = models.open_family(ModelSettings(name="tiny"), Events())
    assert isinstance(opened, Hunyuan)
    return opened


def plain(family: Hunyuan, prompt: str) -> dict[str, torch.Tensor]:
    """The pipeline's conditioning without its padding."""
    family.load("text")
    text = family.encode_text(prompt)
    family.unload("text")
    length = int(text["prompt_attention_mask"].sum())
    cut = ("prompt_embeds", "prompt_attention_mask")
    return {name: value[:length] if name in cut else value for name, value in text.items()}


def spec(encoder: KeywordEncoder, kind: str, count: int, family: Hunyuan) -> KeywordSpec:
    return KeywordSpec(kind, "person", count, encoder.width, family.commit)


def test_without_keywords_a_prompt_is_encoded_as_by_the_pipeline(family: Hunyuan) -> None:
    encoder, expected = keywords.open_encoder(family), plain(family, PROMPT)
    none = Keywords(torch.zeros(0, encoder.width), spec(encoder, "input", 0, family))
    text, placed = keywords.encode(encoder, PROMPT, none)
    assert text.keys() == expected.keys() and placed.cut == 0
    for name, value in expected.items():
        torch.testing.assert_close(text[name].float(), value.float(), rtol=1e-4, atol=1e-5, msg=name)


def test_a_layer_s_output_is_taken_and_no_later_one_is_kept(family: Hunyuan) -> None:
    """The truth: hidden_states[-3] of the whole Llama, which is what the pipeline takes."""
    encoder = keywords.open_encoder(family)
    family.load("text")
    assert family._text is not None
    whole = family._text.text_encoder
    assert len(encoder.llama.layers) == len(whole.layers) - 2
    placed = encoder.placed(PROMPT, "person", 0)
    ids = torch.tensor([placed.ids])
    states = whole(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.equal(encoder.states(placed), states[-3][0, -len(encoder.states(placed)) :])


def test_rows_that_are_the_class_word_s_read_like_saying_it_so_often(family: Hunyuan) -> None:
    """Against the pipeline: "A person person person walks" where two rows are the word's own embedding."""
    encoder = keywords.open_encoder(family)
    rows = keywords.beginning(encoder, "input", [PROMPT], "person", 2)
    said = PROMPT.replace("A person", "A person person person", 1)
    expected = plain(family, said)
    text, placed = keywords.encode(encoder, PROMPT, Keywords(rows, spec(encoder, "input", 2, family)))
    assert placed.place is not None
    torch.testing.assert_close(text["prompt_embeds"], expected["prompt_embeds"], rtol=1e-4, atol=1e-5)
    assert len(text["prompt_attention_mask"]) == len(plain(family, PROMPT)["prompt_attention_mask"]) + 2


def test_keywords_at_the_output_stand_between_the_states_there_were(family: Hunyuan) -> None:
    encoder, before = keywords.open_encoder(family), plain(family, PROMPT)["prompt_embeds"]
    rows = torch.arange(3 * encoder.width, dtype=torch.float32).reshape(3, -1)
    text, placed = keywords.encode(encoder, PROMPT, Keywords(rows, spec(encoder, "output", 3, family)))
    place = keywords.row_of(placed)
    assert 0 < place < len(before)
    states = text["prompt_embeds"]
    assert torch.equal(states[place : place + 3], rows)
    others = torch.cat((states[:place], states[place + 3 :]))
    torch.testing.assert_close(others, before, rtol=1e-4, atol=1e-5)
    assert len(text["prompt_attention_mask"]) == len(states) and text["prompt_attention_mask"].all()


def test_clip_never_sees_a_keyword(family: Hunyuan) -> None:
    encoder = keywords.open_encoder(family)
    rows = torch.full((4, encoder.width), 7.0)
    text, _ = keywords.encode(encoder, PROMPT, Keywords(rows, spec(encoder, "input", 4, family)))
    torch.testing.assert_close(text["pooled_prompt_embeds"], plain(family, PROMPT)["pooled_prompt_embeds"])


def test_clip_with_a_token_after_its_end_token_is_refused(family: Hunyuan) -> None:
    """The trap itself: an old configuration (`eos_token_id` 2) takes the highest number, which is then the new token's.

    Shown on the model, too: the vector of the prompt really becomes the one at the new token.
    """
    encoder = keywords.open_encoder(family)
    clip, tokenizer = encoder.clip, encoder._clip_tokenizer
    tokenizer.add_tokens(["<new1>"])
    clip.resize_token_embeddings(len(tokenizer))
    ids = tokenizer(["a <new1> person"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    end, new = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<new1>")
    assert new > end
    position = int((ids[0] == new).nonzero()[0])
    clip.eos_token_id = clip.config.eos_token_id = 2
    found = clip(ids)
    assert torch.equal(found.pooler_output[0], found.last_hidden_state[0, position])
    with pytest.raises(MagicIDError) as caught:
        encoder.pooled("a <new1> person")
    assert caught.value.code == "model-tokenizer"
    encoder.pooled("a person")  # without the new token the end is the highest still
    require_end(ids[0], end, end)  # and a new configuration is right in any case


def test_only_the_first_mention_of_the_class_word_has_keywords_and_words_within_words_have_none(
    family: Hunyuan,
) -> None:
    encoder = keywords.open_encoder(family)
    first = encoder.placed("Two personal photos of a PERSON with a person", "person", 0).place
    assert first == encoder.placed("Two personal photos of a PERSON", "person", 0).place
    assert encoder.placed("impersonal", "person", 0).place is None


def test_a_long_prompt_makes_room_for_its_keywords(family: Hunyuan) -> None:
    encoder = keywords.open_encoder(family)
    rows = torch.zeros(4, encoder.width)
    long = "A person walks" + " and walks" * 300
    text, placed = keywords.encode(encoder, long, Keywords(rows, spec(encoder, "input", 4, family)))
    assert len(text["prompt_embeds"]) == 256 and placed.cut > 0
    late = "walks and " * 300 + "a person"
    assert encoder.placed(late, "person", 4).place is None


@pytest.mark.parametrize("kind", keywords.KINDS)
def test_gradient_against_finite_differences(family: Hunyuan, kind: str) -> None:
    """The derivative of a fixed functional of the conditioning along a random direction of the rows, in float64.

    Llama's normalisation computes in float32 whatever it is given, so the step is not small.
    """
    encoder = keywords.open_encoder(family, gradients=True)
    encoder.llama.double()
    generator = torch.Generator().manual_seed(0)
    placed = encoder.placed(PROMPT, "person", 2)
    start = torch.randn(2, encoder.width, generator=generator, dtype=torch.float64)
    direction = torch.randn(start.shape, generator=generator, dtype=torch.float64)
    count = len(placed.ids) + 2
    weights = torch.randn(count, encoder.width, generator=generator, dtype=torch.float64)

    def functional(rows: torch.Tensor) -> torch.Tensor:
        if kind == "input":
            states = encoder.states(placed, rows)
        else:
            text = encoder.text(encoder.states(placed).detach(), torch.zeros(1))
            states = keywords.spliced(text, rows, keywords.row_of(placed))["prompt_embeds"]
        return (weights[: len(states)] * states).sum()

    rows = start.clone().requires_grad_(True)
    functional(rows).backward()
    assert rows.grad is not None
    analytic = float((rows.grad * direction).sum())
    step = 1e-3
    with torch.no_grad():
        numeric = float(functional(start + step * direction) - functional(start - step * direction)) / (2 * step)
    assert analytic == pytest.approx(numeric, rel=1e-4)
    assert all(parameter.grad is None for parameter in encoder.llama.parameters())


def test_recomputed_layers_give_the_gradient_of_kept_ones(family: Hunyuan) -> None:
    found = []
    for gradients in (True, False):
        encoder = keywords.open_encoder(family, gradients=gradients)
        rows = torch.nn.Parameter(keywords.beginning(encoder, "input", [PROMPT], "person", 2))
        encoder.states(encoder.placed(PROMPT, "person", 2), rows).square().sum().backward()
        assert rows.grad is not None
        found.append(rows.grad)
    assert torch.equal(*found)


def test_a_keyword_file_comes_back_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keywords.safetensors"
    given = Keywords(torch.randn(4, 8), KeywordSpec("input", "woman", 4, 8, "abc"))
    keywords.save(path, given)
    first = path.read_bytes()
    again = keywords.load(path)
    assert again.spec == given.spec and torch.equal(again.rows, given.rows)
    keywords.save(path, again)
    assert path.read_bytes() == first
    for content in (b"", first[:-5], first.replace(b'count\\": 4', b'count\\": 3')):
        path.write_bytes(content)
        with pytest.raises(MagicIDError) as caught:
            keywords.load(path)
        assert caught.value.code == "keywords-unreadable"
