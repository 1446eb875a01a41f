"""Trained keywords: a few rows that stand before the class word in a prompt, kept as a file and used to encode prompts.

Two kinds. `input`: rows among Llama's input embeddings, which Llama then reads like words. `output`: rows among the
states that Llama gives, which Llama never sees; words after them do not know of them.

A keyword file is safetensors: one tensor `keywords` (count, width), float32; its metadata entry `magicid` holds the
`KeywordSpec` and a format number as JSON.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from magicid_cli.conditioning import save_tensors
from magicid_cli.errors import MagicIDError
from magicid_cli.models.base import Family

if TYPE_CHECKING:
    from magicid_cli.models.hunyuan_keywords import KeywordEncoder, Placed

FORMAT = 1
KINDS = ("input", "output")

Text = dict[str, torch.Tensor]


@dataclass(frozen=True)
class KeywordSpec:
    """What keywords are, besides their numbers.

    Attributes:
        kind: `input` or `output`.
        class_word: before which they stand.
        count: how many rows.
        width: of a row.
        commit: of the text encoder that they were trained with.
    """

    kind: str
    class_word: str
    count: int
    width: int
    commit: str


@dataclass(frozen=True, eq=False)
class Keywords:
    """Keywords, ready to use: rows (count, width), float32 on the CPU, and what they are."""

    rows: torch.Tensor
    spec: KeywordSpec


def save(path: Path, keywords: Keywords) -> None:
    """Write a keyword file, whole or not at all; the same keywords give the same bytes."""
    about = json.dumps({"format": FORMAT, **asdict(keywords.spec)}, sort_keys=True)
    rows = keywords.rows.detach().to("cpu", torch.float32)
    save_tensors(path, {"keywords": rows}, {"magicid": about})


def load(path: Path) -> Keywords:
    """Read a keyword file.

    Raises:
        MagicIDError: `keywords-unreadable` if it is missing, damaged, or not a keyword file of this format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            spec = _spec(json.loads((file.metadata() or {})["magicid"]))
            rows = file.get_tensor("keywords")
        if tuple(rows.shape) != (spec.count, spec.width) or not torch.isfinite(rows).all():
            raise ValueError("its rows are of another shape than it says, or not finite")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MagicIDError(
            "keywords-unreadable",
            f"{path} is no keyword file that this version can read: {error}.",
            "Run the same `magicid customize` again: it makes what is missing.",
        ) from error
    return Keywords(rows, spec)


def _spec(about: dict[str, Any]) -> KeywordSpec:
    if about.pop("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    return KeywordSpec(**about)


def open_encoder(family: Family, *, gradients: bool = False) -> "KeywordEncoder":
    """The family's text encoders for prompts with keywords, in memory until `close`.

    Args:
        family: one whose text encoder is Llama.
        gradients: whether keywords are to be trained through it.

    Raises:
        MagicIDError: `model-unusable`, `model-tokenizer`.
    """
    from magicid_cli.models.hunyuan import Hunyuan
    from magicid_cli.models.hunyuan_keywords import KeywordEncoder

    assert isinstance(family, Hunyuan), "no other family has a text encoder for keywords"
    return KeywordEncoder(family, gradients=gradients)


def place_in(family: Family, prompt: str, class_word: str, count: int) -> int | None:
    """Where keywords would stand among a prompt's tokens, None for nowhere; reads only the tokenizer."""
    from magicid_cli.models.hunyuan import Hunyuan
    from magicid_cli.models.hunyuan_keywords import place

    assert isinstance(family, Hunyuan), "no other family has a text encoder for keywords"
    return place(family, prompt, class_word, count).place


def beginning(encoder: "KeywordEncoder", kind: str, prompts: list[str], class_word: str, count: int) -> torch.Tensor:
    """Rows to begin from: the class word said `count` times before itself.

    For kind `input` that is its input embedding in every row; Llama tells them apart by their places. For `output` it
    is what Llama says of those rows, the mean over `prompts`. They differ, as they must: the video model is told of no
    order among states, so equal ones would get equal gradients and stay one keyword.

    Args:
        encoder: for prompts with keywords.
        kind: one of `KINDS`.
        prompts: of which at least one says the class word; not used for `input`.
        class_word: e.g. `woman`.
        count: how many rows.

    Returns:
        float32 (count, width) on the CPU.
    """
    said = encoder.embedding(class_word).repeat(count, 1)
    if kind == "input":
        return said
    found = []
    for placed in (encoder.placed(prompt, class_word, count) for prompt in prompts):
        if placed.place is not None:
            first = row_of(placed)
            with torch.no_grad():
                found.append(encoder.states(placed, said)[first : first + count].float().cpu())
    return torch.stack(found).mean(0)


def row_of(placed: "Placed") -> int:
    """Where the class word's first token is among the states that `KeywordEncoder.states` gives."""
    from magicid_cli.models.hunyuan import TEMPLATE_TOKENS

    assert placed.place is not None
    return placed.place - TEMPLATE_TOKENS


def spliced(text: Text, rows: torch.Tensor, place: int | None) -> Text:
    """Conditioning tensors with keywords of kind `output` before the state at `place`; without one, as they are."""
    if place is None:
        return text
    states = text["prompt_embeds"]
    own = rows.to(states.device, states.dtype)
    mask = torch.ones(len(states) + len(own), dtype=text["prompt_attention_mask"].dtype)
    return {
        **text,
        "prompt_embeds": torch.cat((states[:place], own, states[place:])),
        "prompt_attention_mask": mask,
    }


def encode(encoder: "KeywordEncoder", prompt: str, keywords: Keywords) -> tuple[Text, "Placed"]:
    """The conditioning of a prompt with keywords, on the CPU, without padding or a batch axis; and how it was cut.

    Raises:
        MagicIDError: `model-tokenizer`.
    """
    spec = keywords.spec
    placed = encoder.placed(prompt, spec.class_word, spec.count)
    with torch.no_grad():
        states = encoder.states(placed, keywords.rows if spec.kind == "input" else None).cpu()
    text = encoder.text(states, encoder.pooled(prompt))
    if spec.kind == "output":
        text = spliced(text, keywords.rows, None if placed.place is None else row_of(placed))
    return {name: value.contiguous() for name, value in text.items()}, placed
