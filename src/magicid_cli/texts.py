"""Prompts → what the video model is conditioned on, with a method's trained keywords where it has some."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from magicid_cli.config import GenerateSettings
from magicid_cli.events import Events
from magicid_cli.models.base import Family

if TYPE_CHECKING:
    import torch

    from magicid_cli.keywords import Keywords

Text = dict[str, "torch.Tensor"]


def encode(
    family: Family, prompts: Iterable[str], wanted: GenerateSettings, events: Events, words: "Keywords | None" = None
) -> tuple[dict[str, Text], Text | None]:
    """The conditioning of every prompt, and of the negative prompt where true guidance uses one.

    Args:
        family: its text encoders are loaded once for all prompts, and dropped again.
        prompts: as `generation.generate` takes one.
        wanted: whether there is true guidance, and its negative prompt.
        events: told what is cut off.
        words: trained keywords that stand before the class word's first mention in a prompt.
    """
    prompts = list(dict.fromkeys(prompts))
    texts = _with_keywords(family, prompts, words, events) if words else {}
    negative = None
    if not words or wanted.true_guidance > 1:
        family.load("text")
        for prompt in prompts if not words else ():
            _tell_cut(family.text_overflow(prompt), events)
            texts[prompt] = family.encode_text(prompt)
        negative = family.encode_text(wanted.negative_prompt) if wanted.true_guidance > 1 else None
        family.unload("text")
    return texts, negative


def _with_keywords(family: Family, prompts: list[str], words: "Keywords", events: Events) -> dict[str, Text]:
    from magicid_cli import keywords

    if words.spec.commit != family.commit:
        events.notice("The keywords were trained with other weights of the text encoder than those in use.")
    encoder, texts = keywords.open_encoder(family), dict[str, Text]()
    for prompt in prompts:
        texts[prompt], placed = keywords.encode(encoder, prompt, words)
        _tell_cut(placed.cut, events)
        if placed.place is None:
            word = words.spec.class_word
            events.notice(f"The prompt does not say '{word}', before which the keywords stand: unused.")
    encoder.close()
    return texts


def _tell_cut(tokens: int, events: Events) -> None:
    if tokens:
        events.notice(f"The prompt is {tokens} tokens too long for the text encoder; its end is ignored.")
