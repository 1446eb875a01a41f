"""HunyuanVideo's text encoders with trained keywords before the class word, differentiable in the keywords.

Llama gets a prompt as input embeddings in which the keywords stand as rows of their own, so no tokenizer learns a new
token. CLIP gets the prompt as it is: its one vector is taken at the end token, which an old configuration looks for as
the highest number of all, so a new token with a higher number would take its place. That end is checked all the same.

Only the layers of Llama that the pipeline uses are kept: it takes the states before the last two.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTokenizer, LlamaModel

from magicid_cli.errors import MagicIDError
from magicid_cli.models.hunyuan import PROMPT_TEMPLATE, TEMPLATE_TOKENS, TEXT_TOKENS, Hunyuan, Text
from magicid_cli.models.loading import load_weights, reading
from magicid_cli.models.transfers import give_back

# Layers at the end of Llama whose states HunyuanVideo's pipeline does not use.
SKIPPED_LAYERS = 2
_CLIP_TOKENS = 77


@dataclass(frozen=True)
class Placed:
    """A prompt as Llama's tokens.

    Attributes:
        ids: of the whole template, without padding.
        place: of the class word's first token among them, or None if the prompt does not say the class word (or says it
            where the encoder looks no more).
        cut: tokens that were left out at the end.
    """

    ids: tuple[int, ...]
    place: int | None
    cut: int


def place(family: Hunyuan, prompt: str, class_word: str, room: int) -> Placed:
    """A prompt as tokens, and where its keywords go; reads only the tokenizer.

    Args:
        family: whose tokenizer it is.
        prompt: its first mention of the class word stands for the person.
        class_word: e.g. `woman`.
        room: tokens that the keywords take of what the encoder sees.
    """
    text = PROMPT_TEMPLATE.format(prompt)
    begin = len(PROMPT_TEMPLATE.partition("{}")[0])
    encoding = family.tokenizer(text, return_offsets_mapping=True)
    said = re.search(rf"(?<!\w){re.escape(class_word)}(?!\w)", prompt, re.IGNORECASE)
    place = None
    if said:
        first, last = begin + said.start(), begin + said.end()
        spans = encoding["offset_mapping"]
        place = next(n for n, (start, end) in enumerate(spans) if start < last and end > first)
    most = TEMPLATE_TOKENS + TEXT_TOKENS - room
    ids = encoding["input_ids"]
    if place is not None and place >= most:
        place = None
    return Placed(tuple(ids[:most]), place, max(0, len(ids) - most))


class KeywordEncoder:
    """Both text encoders of a HunyuanVideo checkpoint, frozen, for prompts with keywords.

    Args:
        family: whose checkpoint it is.
        gradients: whether keywords are to be trained through Llama: its layers then recompute what they keep, on the
            family's device. Otherwise both encoders run where the family encodes prompts.
    """

    def __init__(self, family: Hunyuan, *, gradients: bool) -> None:
        self._family, self._clip_device = family, family.text_device
        self.device = family.device if gradients else family.text_device
        llama: Any = load_weights(LlamaModel, family.folder, "text_encoder", family.dtype)
        llama.layers = llama.layers[:-SKIPPED_LAYERS]
        llama.config.num_hidden_layers = len(llama.layers)
        llama.norm = torch.nn.Identity()
        if gradients:
            # Recomputing happens in training mode alone, in which nothing else may differ.
            assert not llama.config.attention_dropout, "a text encoder with dropout would be another one in training"
            llama.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            # It lets every embedding require a gradient; here only keywords do, and what has none shall have no graph.
            llama.disable_input_require_grads()
            llama.train()
        self.llama: Any = llama.to(self.device)
        self.clip: Any = load_weights(CLIPTextModel, family.folder, "text_encoder_2", family.dtype).to(
            self._clip_device
        )
        with reading(family.folder, "tokenizer_2"):
            self._clip_tokenizer: Any = CLIPTokenizer.from_pretrained(
                family.folder, subfolder="tokenizer_2", local_files_only=True
            )

    @property
    def width(self) -> int:
        """Of a keyword: Llama's, before its first layer and after its last one."""
        return int(self.llama.config.hidden_size)

    def close(self) -> None:
        """Give the memory of both encoders back."""
        del self.llama, self.clip
        give_back()

    def placed(self, prompt: str, class_word: str, room: int) -> Placed:
        """As `place`, of the family."""
        return place(self._family, prompt, class_word, room)

    def embedding(self, class_word: str) -> torch.Tensor:
        """Llama's input embedding of the class word inside a sentence, the mean of its tokens; float32 (D,), CPU."""
        begin = len(PROMPT_TEMPLATE.partition("{}")[0]) + len("a ")
        encoding = self._family.tokenizer(PROMPT_TEMPLATE.format(f"a {class_word}"), return_offsets_mapping=True)
        spans = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        ids = [number for number, (start, end) in spans if start < begin + len(class_word) and end > begin]
        table = self.llama.get_input_embeddings().weight
        return table[torch.tensor(ids, device=table.device)].float().mean(0).cpu()

    def states(self, placed: Placed, keywords: torch.Tensor | None = None) -> torch.Tensor:
        """Llama's states of a prompt without the template's beginning, (L, D) on the encoder's device.

        Args:
            placed: from `placed`.
            keywords: float32 (K, D), inserted as input embeddings before the class word, in whose gradients the result
                is differentiable; None or a prompt without the class word for none.
        """
        ids = torch.tensor(placed.ids, device=self.device)
        embeds = self.llama.get_input_embeddings()(ids)
        if keywords is not None and placed.place is not None:
            rows = keywords.to(self.device, embeds.dtype)
            embeds = torch.cat((embeds[: placed.place], rows, embeds[placed.place :]))
        found = self.llama(inputs_embeds=embeds[None], use_cache=False).last_hidden_state
        return found[0, TEMPLATE_TOKENS:]

    def pooled(self, prompt: str) -> torch.Tensor:
        """CLIP's vector of a prompt as it is, (D2,) on the CPU.

        Raises:
            MagicIDError: `model-tokenizer` if it would not be taken at the end token.
        """
        given = self._clip_tokenizer(
            [prompt], padding="max_length", max_length=_CLIP_TOKENS, truncation=True, return_tensors="pt"
        )
        require_end(given.input_ids[0], self._clip_tokenizer.eos_token_id, self.clip.config.eos_token_id)
        with torch.no_grad():
            return self.clip(given.input_ids.to(self._clip_device)).pooler_output[0].cpu()

    def text(self, states: torch.Tensor, pooled: torch.Tensor) -> Text:
        """The conditioning tensors as `Hunyuan.encode_text` has them, but without padding."""
        mask = torch.ones(len(states), dtype=torch.int64)
        return {"prompt_embeds": states, "prompt_attention_mask": mask, "pooled_prompt_embeds": pooled}


def require_end(ids: torch.Tensor, end: int, configured: int) -> None:
    """Check that CLIP takes its vector at the end token.

    A configuration with an `eos_token_id` of 2 is an old one: transformers then takes the highest number of the
    prompt, which is the end token only as long as no token was added after it.

    Args:
        ids: the prompt's tokens (77,).
        end: the tokenizer's end token.
        configured: the model's `eos_token_id`.

    Raises:
        MagicIDError: `model-tokenizer`.
    """
    ends = (ids == end).nonzero()
    taken = int(ids.argmax()) if configured == 2 else int((ids == configured).int().argmax())
    if not len(ends) or int(ends[0]) != taken:
        raise MagicIDError(
            "model-tokenizer",
            "The second text encoder would take its vector of the prompt at another token than the end: a token with "
            "a higher number was added to its tokenizer.",
            "Fetch the model again: magicid prepare",
        )
